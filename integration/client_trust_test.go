package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// trust is what `sallyport ca` makes, in a folder, and a server that shows
// certificates of that CA for whatever name it is asked by.
type trust struct {
	dir   string
	ca    *tls.Certificate
	proxy string   // a CONNECT proxy that leads every name to the server
	env   []string // what `sallyport ca env` says, and the proxy
}

// The two names that clients ask for. The CA signs for both; only the first is
// among those that it may.
const (
	s3Name    = "acme-data.s3.eu-west-1.amazonaws.com"
	otherName = "www.example.test"
)

func newTrust(t *testing.T) *trust {
	t.Helper()
	tr := &trust{dir: t.TempDir()}
	file := func(name string) string { return filepath.Join(tr.dir, name) }
	sallyport(t, nil, "ca", "create", "--cert", file("ca.pem"), "--key", file("ca.key"))
	sallyport(t, nil, "ca", "bundle", "--ca", file("ca.pem"), "--out", file("bundle.pem"))
	sallyport(t, nil, "ca", "bundle", "--ca", file("ca.pem"), "--out", file("trust.jks"), "--format", "jks")
	sallyport(t, nil, "ca", "bundle", "--ca", file("ca.pem"), "--out", file("root.pem"), "--roots", "none")
	ca, err := tls.LoadX509KeyPair(file("ca.pem"), file("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	tr.ca = &ca
	tr.proxy = tr.serve(t)
	var vars map[string]string
	said := sallyport(t, nil, "ca", "env", "--bundle", file("bundle.pem"), "--ca", file("root.pem"), "--truststore", file("trust.jks"), "--format", "json")
	if err := json.Unmarshal([]byte(said), &vars); err != nil {
		t.Fatal(err)
	}
	for name, value := range vars {
		tr.env = append(tr.env, name+"="+value)
	}
	tr.env = append(tr.env, "HTTPS_PROXY=http://"+tr.proxy)
	return tr
}

// serve starts the server and the proxy that leads to it.
func (tr *trust) serve(t *testing.T) (proxy string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{hello.ServerName},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, tr.ca.Leaf, key.Public(), tr.ca.PrivateKey)
		return &tls.Certificate{Certificate: [][]byte{der, tr.ca.Leaf.Raw}, PrivateKey: key}, err
	}
	quiet := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello from", r.Host) }),
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: patience, TLSConfig: &tls.Config{GetCertificate: issue},
	}
	ln, front := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	var running sync.WaitGroup
	running.Go(func() { _ = quiet.ServeTLS(ln, "", "") })
	connect := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		server, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		fmt.Fprint(client, "HTTP/1.1 200 OK\r\n\r\n")
		var up sync.WaitGroup
		up.Go(func() {
			_, _ = io.Copy(server, buffered)
			server.Close()
		})
		_, _ = io.Copy(client, server)
		client.Close()
		up.Wait()
	})}
	running.Go(func() { _ = connect.Serve(front) })
	t.Cleanup(func() {
		connect.Close()
		quiet.Close()
		running.Wait()
	})
	return front.Addr().String()
}

// urls are the two names' URLs.
func (tr *trust) urls() []string {
	return []string{"https://" + s3Name + "/", "https://" + otherName + "/"}
}

// TestTrust: with what `sallyport ca` makes and the variables that it says,
// each client trusts the CA for S3's names and, although the CA signed for
// them, for no others.
func TestTrust(t *testing.T) {
	t.Parallel()
	tr := newTrust(t)
	client := func(path string, args ...string) command {
		return command{path: path, args: args, env: tr.env, dir: "."}
	}

	t.Run("curl", func(t *testing.T) {
		curl := need(t, "curl")
		client(curl, "-sS", tr.urls()[0]).run(t).succeeds(t, "hello from "+s3Name)
		client(curl, "-sS", tr.urls()[1]).run(t).fails(t, "permitted subtree violation")
	})
	t.Run("git", func(t *testing.T) {
		git := need(t, "git")
		client(git, "ls-remote", tr.urls()[0]).run(t).fails(t, "not valid: is this a git repository?") // it is none, and was asked
		if res := client(git, "ls-remote", tr.urls()[1]).run(t); !strings.Contains(strings.ToLower(res.stderr), "certificate") {
			res.fails(t, "a word on the certificate")
		}
	})
	t.Run("openssl", func(t *testing.T) {
		ask := func(name string) result {
			return client(need(t, "openssl"), "s_client", "-proxy", tr.proxy, "-connect", name+":443", "-servername", name, "-verify_hostname", name, "-verify_return_error").run(t)
		}
		ask(s3Name).succeeds(t, "Verification: OK")
		ask(otherName).fails(t, "permitted subtree violation")
	})
	for _, module := range []string{"urllib", "requests"} {
		t.Run(module, func(t *testing.T) {
			got := client(needModule(t, module), append([]string{"testdata/clients/clients.py", module}, tr.urls()...)...).answers(t, 2)
			got[0].is(t, 200, "hello from "+s3Name)
			got[1].failed(t, "permitted subtree violation")
		})
	}
	t.Run("aws", func(t *testing.T) {
		ask := func(more ...string) result {
			c := client(need(t, "aws"), append([]string{"s3api", "head-bucket", "--no-sign-request", "--bucket", "acme-data", "--region", "eu-west-1"}, more...)...)
			c.env = append(c.env, "AWS_MAX_ATTEMPTS=1")
			return c.run(t)
		}
		ask().succeeds(t)
		ask("--endpoint-url", "https://"+otherName).fails(t, "SSL validation failed")
	})
	t.Run("node", func(t *testing.T) {
		node, modules := need(t, "node"), filepath.Join(root(t), "integration", "node")
		if _, err := os.Stat(filepath.Join(modules, "node_modules", "undici")); err != nil {
			missing(t, "npm ci --prefix integration/node: %v", err)
		}
		c := client(node, append([]string{"testdata/clients/clients.mjs", "undici"}, tr.urls()...)...)
		c.env = append(c.env, "CLIENTS_MODULES="+modules)
		got := c.answers(t, 2)
		got[0].is(t, 200, "hello from "+s3Name)
		got[1].failed(t, "permitted subtree violation")
	})
	t.Run("go", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "httpget")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./testdata/clients/httpget").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := client(path, tr.urls()...).answers(t, 2)
		got[0].is(t, 200, "hello from "+s3Name)
		got[1].failed(t, "is not permitted by any constraint")
	})
	t.Run("java", func(t *testing.T) {
		javac, err := exec.LookPath("javac")
		if err != nil {
			missing(t, "a JDK: %v", err)
		}
		host, port, err := net.SplitHostPort(tr.proxy)
		if err != nil {
			t.Fatal(err)
		}
		args := append([]string{"-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port, "testdata/clients/Trust.java"}, tr.urls()...)
		client(filepath.Join(filepath.Dir(javac), "java"), args...).run(t).succeeds(t, tr.urls()[0]+" 200", tr.urls()[1]+" javax.net.ssl.SSLHandshakeException")
	})
}
