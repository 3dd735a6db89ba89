// node's dns.resolve*: the c-ares inside node, which asks for the name as it is (no search list).
const dns = require('node:dns').promises;

const NONE = ['ENOTFOUND', 'ENODATA'];

async function lookup(ask, name) {
  try {
    return await ask(name);
  } catch (error) {
    if (NONE.includes(error.code)) return [];
    throw error;
  }
}

async function resolve(argument) {
  try {
    const found = argument.startsWith('ptr:')
      ? await lookup(dns.reverse, argument.slice(4))
      : [...(await lookup(dns.resolve4, argument)), ...(await lookup(dns.resolve6, argument))];
    return [...new Set(found)].sort().join(',') || '-';
  } catch (error) {
    return `!${error.code}`;
  }
}

(async () => {
  for (const argument of process.argv.slice(2)) console.log(`${argument}=${await resolve(argument)}`);
})();
