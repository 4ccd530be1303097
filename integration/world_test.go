package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// world is one test's Internet: a certificate authority, origins on loopback
// addresses of their own, and the names that lead to them.
type world struct {
	t      *testing.T
	dir    string
	caFile string
	roots  *x509.CertPool
	ca     *tls.Certificate
	hosts  []map[string]any // resolver.hosts
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), roots: x509.NewCertPool()}
	// CreateCertificate derives the key identifiers, which OpenSSL's strict
	// clients ask for.
	w.ca = proxytest.Issue(t, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Sallyport integration tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true,
	}, nil)
	w.roots.AddCert(w.ca.Leaf)
	w.caFile = filepath.Join(w.dir, "ca.pem")
	writeFile(t, w.caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.Leaf.Raw})))
	return w
}

// certificate makes a server's certificate for names and addresses.
func (w *world) certificate(names ...string) tls.Certificate {
	w.t.Helper()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	made := proxytest.Issue(w.t, template, w.ca)
	made.Certificate = append(made.Certificate, w.ca.Leaf.Raw)
	return *made
}

// pemFiles writes a certificate where a foreign server can read it.
func (w *world) pemFiles(cert tls.Certificate) (certFile, keyFile string) {
	w.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	var chain strings.Builder
	for _, der := range cert.Certificate {
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	certFile, keyFile = filepath.Join(w.dir, "server.pem"), filepath.Join(w.dir, "server.key")
	writeFile(w.t, certFile, chain.String())
	writeFile(w.t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	return certFile, keyFile
}

// pin is the hash of a certificate's public key, as Chromium's
// --ignore-certificate-errors-spki-list takes it.
func pin(cert tls.Certificate) string {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// name lets the resolver of the world's proxies know a name.
func (w *world) name(name string, addresses ...string) {
	w.hosts = append(w.hosts, map[string]any{"name": name, "addresses": addresses})
}

var lastLoopback atomic.Uint32 // addresses are the process's, as ports are

// loopback returns an IPv4 loopback address that no other test, and no other
// run on this machine, uses: every origin can then have the ports 80 and 443.
func loopback() string {
	pid, n := os.Getpid(), lastLoopback.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(64 + pid>>8&0x7f), byte(pid), byte(n)}).String()
}

// origin is a web server under one name, on the ports 443 (TLS, HTTP/2 and
// HTTP/1.1) and 80.
type origin struct {
	name, addr string
	cert       tls.Certificate
	conns      atomic.Int64 // accepted on either port
}

// origin starts one; a nil handler is echo's.
func (w *world) origin(name string, handler http.Handler) *origin {
	w.t.Helper()
	o := w.originAt(loopback(), handler, name)
	w.name(name, o.addr)
	return o
}

// originAt starts an origin whose certificate holds the names.
func (w *world) originAt(addr string, handler http.Handler, names ...string) *origin {
	w.t.Helper()
	if handler == nil {
		handler = echo(names[0])
	}
	o := &origin{name: names[0], addr: addr, cert: w.certificate(names...)}
	o.serve(w.t, listen(w.t, net.JoinHostPort(addr, "443")), handler, true)
	o.serve(w.t, listen(w.t, net.JoinHostPort(addr, "80")), handler, false)
	return o
}

func (o *origin) serve(t *testing.T, ln net.Listener, handler http.Handler, overTLS bool) {
	srv := &http.Server{
		Handler: handler, ErrorLog: log.New(io.Discard, "", 0), // clients that vanish are what tests are about
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{o.cert}},
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				o.conns.Add(1)
			}
		},
	}
	ln = politeListener{ln}
	ended := make(chan error, 1)
	go func() {
		if overTLS {
			ended <- srv.ServeTLS(ln, "", "")
		} else {
			ended <- srv.Serve(ln)
		}
	}()
	t.Cleanup(func() {
		srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("origin %s: %v", o.name, err)
		}
	})
}

// politeListener accepts connections that close as those of grown web servers
// do: they send the end, and read away what still comes. Go's own close would
// now and then reset a client that answers close_notify with close_notify.
type politeListener struct{ net.Listener }

func (l politeListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return politeConn{c.(*net.TCPConn)}, nil
}

type politeConn struct{ *net.TCPConn }

func (c politeConn) Close() error {
	if c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(2*time.Second)) == nil {
		_, _ = io.Copy(io.Discard, c.TCPConn)
	}
	return c.TCPConn.Close()
}

// listen listens on a port of a loopback address, also below 1024.
func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	switch {
	case errors.Is(err, os.ErrPermission):
		missing(t, "the right to listen on %s: be root, or set net.ipv4.ip_unprivileged_port_start to 0", addr)
	case err != nil:
		t.Fatal(err)
	}
	return ln
}

// echo is what origins answer by default: who they are, what they were sent.
func echo(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Access-Control-Allow-Origin", "*")
		fmt.Fprintf(rw, "hello from %s over %s\n", name, r.Proto)
	})
	mux.HandleFunc("/upload", func(rw http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(rw, "%d %s expect=%q\n", n, hex.EncodeToString(sum.Sum(nil)), r.Header.Get("Expect"))
	})
	mux.HandleFunc("/bytes", func(rw http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.CopyN(rw, zeros{}, n)
	})
	mux.HandleFunc("/headers", func(rw http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(rw).Encode(r.Header)
	})
	mux.HandleFunc("/ws", func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any page's origin
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("echo "), text...)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/greet", func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		_ = c.Write(r.Context(), websocket.MessageText, []byte("welcome"))
	})
	return mux
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// need returns the path of a program that a test drives. Where CI is set a
// missing one fails the test, elsewhere it is skipped and says why.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, "%s, see .ci/packages.txt: %v", program, err)
	}
	return path
}

// needModule is need for a module of Debian's Python: another interpreter that
// comes first on PATH has none of Debian's modules.
func needModule(t *testing.T, module string) (python string) {
	t.Helper()
	python = need(t, "/usr/bin/python3")
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import "+module).CombinedOutput(); err != nil {
		missing(t, "Python's %s, see .ci/packages.txt: %v: %s", module, err, bytes.TrimSpace(out))
	}
	return python
}

func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if ci := os.Getenv("CI"); ci != "" && ci != "false" {
		t.Fatalf("needs "+format, args...)
	}
	t.Skipf("needs "+format, args...)
}

// bareEnv is an environment without anybody's proxies, configuration or home.
func bareEnv(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
	}
}

// command is a client to run.
type command struct {
	path  string
	args  []string
	env   []string // beside bareEnv
	dir   string
	stdin io.Reader
}

// result is what a client said, and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

func (c command) run(t *testing.T) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Env = append(bareEnv(t.TempDir()), c.env...)
	cmd.Dir, cmd.Stdin = c.dir, c.stdin
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("%s: %v", c.path, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// succeeds requires exit code 0 and the texts in what was said.
func (r result) succeeds(t *testing.T, texts ...string) {
	t.Helper()
	if r.code != 0 {
		t.Errorf("the client ended with %d", r.code)
	}
	r.says(t, texts...)
}

// fails requires an exit code other than 0 and the texts in what was said.
func (r result) fails(t *testing.T, texts ...string) {
	t.Helper()
	if r.code == 0 {
		t.Errorf("the client ended with 0")
	}
	r.says(t, texts...)
}

func (r result) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stdout, text) && !strings.Contains(r.stderr, text) {
			t.Errorf("the client did not say %q", text)
		}
	}
	if t.Failed() {
		t.Logf("the client said:\n%s\n%s", r.stdout, r.stderr)
	}
}
