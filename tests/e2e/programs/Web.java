import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Executors;

/** The JDK's own HTTP server and client (dual-stack sockets, epoll selectors). */
public class Web {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("server")) {
            HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[1])), 0);
            server.createContext("/", exchange -> {
                String text = "java asked by " + exchange.getRemoteAddress().getAddress().getHostAddress() + "\n";
                exchange.sendResponseHeaders(200, text.length());
                exchange.getResponseBody().write(text.getBytes());
                exchange.close();
            });
            server.setExecutor(Executors.newFixedThreadPool(4));
            server.start();
        } else {
            for (int i = 0; i < 5; i++) {
                HttpClient client = HttpClient.newHttpClient();
                HttpRequest request = HttpRequest.newBuilder(URI.create(args[1])).build();
                HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() != 200) {
                    System.exit(1);
                }
                if (i == 0) {
                    System.out.print(answer.body());
                }
            }
        }
    }
}
