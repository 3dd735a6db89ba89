// node's HTTP server and client: `web.js server PORT`, `web.js get URL` (ten times, all at once).
const http = require("http");
const [, , role, target] = process.argv;
if (role === "server") {
  http
    .createServer((request, response) => {
      const { localAddress, remoteAddress } = request.socket;
      response.end(`node at ${localAddress} asked by ${remoteAddress}\n`);
    })
    .listen(Number(target));
} else {
  const agent = new http.Agent({ keepAlive: false });
  for (let i = 0; i < 10; i++) {
    http
      .get(target, { agent }, (response) => {
        if (response.statusCode !== 200) process.exit(1);
        response.on("data", (text) => i === 0 && process.stdout.write(text));
      })
      .on("error", (error) => {
        console.error(error);
        process.exit(1);
      });
  }
}
