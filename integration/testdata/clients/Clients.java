import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Java's two HTTP clients: prints a line for each client and URL with what it
 * got or what it says went wrong. The proxy comes from the system properties.
 *
 * <p>Clients CA-FILE URL...
 */
public class Clients {
  public static void main(String[] args) throws Exception {
    SSLContext trust = trust(Path.of(args[0]));
    HttpsURLConnection.setDefaultSSLSocketFactory(trust.getSocketFactory());
    HttpClient client = HttpClient.newBuilder().sslContext(trust).build();
    for (int i = 1; i < args.length; i++) {
      URI uri = URI.create(args[i]);
      try {
        System.out.println("HttpURLConnection " + uri + " " + byConnection(uri));
      } catch (IOException e) {
        System.out.println("HttpURLConnection " + uri + " " + e);
      }
      try {
        HttpResponse<String> r =
            client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString());
        System.out.println("HttpClient " + uri + " " + r.statusCode() + " " + r.body().strip());
      } catch (IOException e) {
        System.out.println("HttpClient " + uri + " " + e);
      }
    }
  }

  private static String byConnection(URI uri) throws IOException {
    HttpURLConnection c = (HttpURLConnection) uri.toURL().openConnection();
    int status = c.getResponseCode();
    try (InputStream in = status < 400 ? c.getInputStream() : c.getErrorStream()) {
      return status + " " + new String(in.readAllBytes()).strip();
    }
  }

  private static SSLContext trust(Path ca) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    try (InputStream in = Files.newInputStream(ca)) {
      store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    TrustManagerFactory factory =
        TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    factory.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, factory.getTrustManagers(), null);
    return context;
  }
}
