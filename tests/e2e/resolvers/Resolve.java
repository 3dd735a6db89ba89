import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Arrays;
import java.util.stream.Collectors;

/** The JVM's resolver: InetAddress, with its own cache over the C library's getaddrinfo(). */
public final class Resolve {
    private static String resolve(String argument) {
        try {
            if (argument.startsWith("ptr:")) {
                String address = argument.substring(4);
                String name = InetAddress.getByName(address).getHostName();
                return name.equals(address) ? "-" : name;
            }
            return Arrays.stream(InetAddress.getAllByName(argument))
                .map(InetAddress::getHostAddress).distinct().sorted().collect(Collectors.joining(","));
        } catch (UnknownHostException error) {
            boolean missing = error.getMessage().endsWith("Name or service not known")
                || error.getMessage().endsWith("No address associated with hostname");
            return missing ? "-" : "!" + error.getMessage();
        }
    }

    public static void main(String[] arguments) {
        for (String argument : arguments) {
            System.out.println(argument + "=" + resolve(argument));
        }
    }
}
