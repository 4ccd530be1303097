package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// inspectingWorld is a world with an S3 server, and a proxy that inspects what
// goes to it.
type inspectingWorld struct {
	*world
	*s3Server
	r    *rig
	ways []s3Way
}

// s3Way is one way from a client to the S3 server. What it does not need to
// trust, a client on it does not: on the proxy's ways the server's own CA, and
// on the direct way the proxy's.
type s3Way struct {
	name, via string
	addr      string // where a client's names lead to, on port 443
	proxy     string // what a client is told of, "" for nothing
	caFile    string
	roots     *x509.CertPool
}

// s3Names are the hosts that S3 has in these tests.
func s3Names() []string {
	return []string{s3Data + "." + s3Service, s3Other + "." + s3Service, s3Service}
}

// newS3World starts everything, with the proxy under rules.
func newS3World(t *testing.T, keepAlive bool, rules string, opts ...func(*rigConfig)) *inspectingWorld {
	t.Helper()
	w := newWorld(t)
	s := &inspectingWorld{world: w, s3Server: w.s3Server(keepAlive, s3Data, s3Other, s3Dotted)}
	for _, name := range s3Names() {
		w.name(name, s.addr)
	}
	caFile, keyFile, roots := w.inspectingCA()
	listener := loopback()
	listen(t, listener+":443").Close() // or the test is skipped
	s.r = w.serve(rules, append([]func(*rigConfig){
		setting("inspect.ca_file", caFile), setting("inspect.ca_key_file", keyFile), setting("inspect.origin_ca_file", w.caFile),
		setting("listeners", []any{map[string]any{"address": listener + ":443"}}),
	}, opts...)...)
	s.ways = []s3Way{
		{name: "direct", addr: s.addr, caFile: w.caFile, roots: w.roots},
		{name: "connect", via: "connect", addr: "127.0.0.9", proxy: s.r.url(), caFile: caFile, roots: roots}, // nobody is there
		{name: "transparent", via: "tls", addr: listener, caFile: caFile, roots: roots},
	}
	return s
}

// way returns the way of a name.
func (s *inspectingWorld) way(name string) s3Way {
	return s.ways[slices.IndexFunc(s.ways, func(w s3Way) bool { return w.name == name })]
}

// inspectingCA makes the CA whose leaves the proxy shows to clients.
func (w *world) inspectingCA() (certFile, keyFile string, roots *x509.CertPool) {
	w.t.Helper()
	ca := proxytest.Issue(w.t, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Sallyport inspects"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"amazonaws.com"},
	}, nil)
	keyDER, err := x509.MarshalPKCS8PrivateKey(ca.PrivateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(w.dir, "inspect.pem"), filepath.Join(w.dir, "inspect.key")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Leaf.Raw})
	writeFile(w.t, certFile, string(text))
	writeFile(w.t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return certFile, keyFile, roots
}

// httpClient is a client on a way, whatever names say.
func (s *inspectingWorld) httpClient(way s3Way) *http.Client {
	t := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: way.roots},
		DisableCompression: true,
		// The SDK's own default; S3 answers before a body is sent in vain.
		ExpectContinueTimeout: patience,
		MaxIdleConnsPerHost:   20,
	}
	if way.proxy != "" {
		u, err := url.Parse(way.proxy)
		if err != nil {
			s.world.t.Fatal(err)
		}
		t.Proxy = http.ProxyURL(u)
	} else {
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(way.addr, port))
		}
	}
	s.world.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// client is the Go SDK on a way, with a key, the zero one for none; its style is "path" or "virtual".
func (s *inspectingWorld) client(way s3Way, style string, key s3Key) *awss3.Client {
	var who aws.CredentialsProvider = aws.AnonymousCredentials{}
	if key.id != "" {
		who = credentials.NewStaticCredentialsProvider(key.id, key.secret, "")
	}
	return awss3.New(awss3.Options{
		Region: "us-east-1", HTTPClient: s.httpClient(way), UsePathStyle: style == "path",
		Credentials:      who,
		RetryMaxAttempts: 1, Retryer: aws.NopRetryer{},
		// As programs have it that load their configuration.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
}

// env tells a foreign client of a way and a key.
func (way s3Way) env(key s3Key) []string {
	env := []string{
		"AWS_CA_BUNDLE=" + way.caFile, "SSL_CERT_FILE=" + way.caFile, "CURL_CA_BUNDLE=" + way.caFile, "NODE_EXTRA_CA_CERTS=" + way.caFile,
		"AWS_ACCESS_KEY_ID=" + key.id, "AWS_SECRET_ACCESS_KEY=" + key.secret, "AWS_DEFAULT_REGION=us-east-1", "AWS_REGION=us-east-1",
		"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=regional", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=",
		"NODE_NO_WARNINGS=1", "NODE_USE_ENV_PROXY=0",
	}
	if way.proxy != "" {
		env = append(env, "HTTPS_PROXY="+way.proxy, "https_proxy="+way.proxy)
	}
	return env
}

// run runs a foreign client on a way. To it alone the names of S3 lead where
// the way begins, by a hosts file of its own.
func (s *inspectingWorld) run(t *testing.T, way s3Way, key s3Key, c command) result {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "a mount namespace needs root")
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	writeFile(t, hosts, "127.0.0.1 localhost\n"+way.addr+" "+strings.Join(s3Names(), " ")+"\n")
	c.args = append([]string{"--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts, c.path}, c.args...)
	c.path = need(t, "unshare")
	c.env = append(way.env(key), c.env...)
	return c.run(t)
}
