import java.net.HttpURLConnection;
import java.net.URI;

/** Asks for each URL with Java's own client and the trust store that JAVA_TOOL_OPTIONS names: prints the status, or what went wrong. */
class Trust {
    public static void main(String[] urls) {
        for (String url : urls) {
            try {
                var connection = (HttpURLConnection) URI.create(url).toURL().openConnection();
                System.out.println(url + " " + connection.getResponseCode());
            } catch (Exception e) {
                System.out.println(url + " " + e);
            }
        }
    }
}
