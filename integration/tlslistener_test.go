package integration

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// tlsHouse is a product whose listener speaks TLS, with the files that its
// clients and itself go by. The listener's certificate is of the world's CA, for
// localhost; the clients' are of others.
type tlsHouse struct {
	*rig
	w               *world
	clients         *world // whose CA signs the clients' certificates
	caFile, crlFile string
	url, host, port string // of the proxy
}

// clientCertificate writes a client's certificate, and returns its file and its
// key's.
func (w *world) clientCertificate(serial int64, name string) (certFile, keyFile string) {
	w.t.Helper()
	cert := proxytest.Issue(w.t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, w.ca)
	own := *w
	own.dir = w.t.TempDir()
	return own.pemFiles(*cert)
}

// revoke writes the CRL of the clients' CA.
func (h *tlsHouse) revoke(serials ...int64) {
	h.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(24 * time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, h.clients.ca.Leaf, h.clients.ca.PrivateKey.(crypto.Signer))
	if err != nil {
		h.t.Fatal(err)
	}
	h.replace(h.crlFile, string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})))
}

// replace writes a file in one step.
func (h *tlsHouse) replace(path, text string) {
	h.t.Helper()
	writeFile(h.t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		h.t.Fatal(err)
	}
}

func newTLSHouse(t *testing.T, w *world, opts ...func(*rigConfig)) *tlsHouse {
	t.Helper()
	h := &tlsHouse{w: w, clients: newWorld(t)}
	h.rig = &rig{t: t} // for revoke, before there is another
	h.caFile, h.crlFile = filepath.Join(w.dir, "clients.pem"), filepath.Join(w.dir, "clients.crl")
	text, err := os.ReadFile(h.clients.caFile)
	if err != nil {
		t.Fatal(err)
	}
	h.replace(h.caFile, string(text))
	h.revoke()
	cert, key := w.pemFiles(w.certificate("localhost", "127.0.0.1"))
	h.rig = w.serve(principalRules, append([]func(*rigConfig){
		setting("reload.every", "0s"), // when asked
		setting("listeners", []any{map[string]any{"address": "127.0.0.1:0", "tls": map[string]any{
			"cert_file": cert, "key": "env:SALLYPORT_TLS_KEY", "client_ca_file": h.caFile, "crl_file": h.crlFile,
		}}}),
		func(c *rigConfig) {
			text, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			c.env = append(c.env, "SALLYPORT_TLS_KEY="+string(text))
		},
	}, opts...)...)
	if _, h.port, err = net.SplitHostPort(h.addr); err != nil {
		t.Fatal(err)
	}
	h.host = "localhost"
	h.url = "https://" + net.JoinHostPort(h.host, h.port)
	return h
}

// TestTLSListener has real clients speak TLS to the proxy, and prove who they
// are by certificates.
func TestTLSListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const site = "allowed.example.test"
	git := filepath.Join(w.dir, "git")
	web := http.NewServeMux()
	web.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "welcome") })
	web.Handle("/repo.git/", &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + git, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + w.dir}, Stderr: os.Stderr,
	})
	w.origin(site, web)
	h := newTLSHouse(t, w)
	payments, paymentsKey := h.clients.clientCertificate(101, "payments")
	is := func(l *flowLine, principal string) {
		t.Helper()
		if l.User.Name != principal || l.Client.Address != "127.0.0.1" {
			t.Errorf("the principal is %q, want %q: %s", l.User.Name, principal, l.text)
		}
	}
	curl := func(cert, key string, args ...string) result {
		t.Helper()
		all := []string{"-sS", "--max-time", "60", "--cacert", w.caFile, "--proxy", h.url, "--proxy-cacert", w.caFile}
		if cert != "" {
			all = append(all, "--proxy-cert", cert, "--proxy-key", key)
		}
		return command{path: need(t, "curl"), args: append(all, args...)}.run(t)
	}
	curl(payments, paymentsKey, "https://"+site+"/").succeeds(t, "welcome")
	is(h.allowed(site, "connect"), "payments")
	curl(payments, paymentsKey, "http://"+site+"/", "http://"+site+"/again").succeeds(t, "welcomewelcome")
	is(h.allowed(site, "http"), "payments")
	is(h.allowed(site, "http"), "payments")
	batch, batchKey := h.clients.clientCertificate(102, "batch")
	curl(batch, batchKey, "https://"+site+"/").fails(t, "403")
	is(h.denied(site, "connect", "no_rule"), "batch")
	curl("", "", "https://"+site+"/").fails(t, "certificate required")
	h.denied("", "unknown", "credentials")
	strange, strangeKey := newWorld(t).clientCertificate(101, "payments")
	curl(strange, strangeKey, "https://"+site+"/").fails(t, "unknown ca")
	h.denied("", "unknown", "credentials")
	command{path: need(t, "curl"), args: []string{"-sS", "-i", "--proxy", h.rig.url(), "http://" + site + "/"}}.run(t).succeeds(t, "400 Bad Request", "https://")
	h.denied("", "unknown", "not_tls")

	t.Run("clients", func(t *testing.T) { h.greet(t, payments, paymentsKey, git) })

	// A CRL, while it runs; then another CA.
	reload := func(want string) {
		t.Helper()
		said := h.saidAfter(func() { h.signal(syscall.SIGHUP) }, "the listener's TLS is")
		if said["message"] != want {
			t.Errorf("the log says %v", said)
		}
	}
	open := h.stay(t, payments, paymentsKey, site)
	h.revoke(101)
	reload("the listener's TLS is reloaded")
	if _, err := open.Read(make([]byte, 1)); !wasCut(err) {
		t.Errorf("the tunnel of a certificate that was revoked is not cut: %v", err)
	}
	if l := h.endedVia(site, "connect"); l.Sallyport.EndedBy != "policy" || l.User.Name != "payments" {
		t.Errorf("%s", l.text)
	}
	curl(payments, paymentsKey, "https://"+site+"/").fails(t, "bad certificate")
	if l := h.denied("", "unknown", "credentials"); !strings.Contains(l.Error.Message, "was revoked") {
		t.Errorf("the record says %s", l.Error.Message)
	}
	again, againKey := h.clients.clientCertificate(103, "payments")
	curl(again, againKey, "https://"+site+"/").succeeds(t, "welcome")
	is(h.allowed(site, "connect"), "payments")

	open = h.stay(t, again, againKey, site)
	h.clients = newWorld(t)
	text, err := os.ReadFile(h.clients.caFile)
	if err != nil {
		t.Fatal(err)
	}
	h.replace(h.caFile, string(text))
	h.expectFaults()
	reload("the listener's TLS is refused, the one in force stays") // the CRL is still the old CA's
	if h.metric(`sallyport_listener_tls_reload_failed{listener="127.0.0.1:0"}`) != "1" || !strings.Contains(h.readyz(), "the last reload failed") {
		t.Errorf("/readyz: %s", h.readyz())
	}
	curl(again, againKey, "https://"+site+"/").succeeds(t, "welcome")
	is(h.allowed(site, "connect"), "payments")
	h.revoke()
	reload("the listener's TLS is reloaded")
	if _, err := open.Read(make([]byte, 1)); !wasCut(err) {
		t.Errorf("the tunnel of a CA that was replaced is not cut: %v", err)
	}
	if l := h.endedVia(site, "connect"); l.Sallyport.EndedBy != "policy" {
		t.Errorf("%s", l.text)
	}
	curl(again, againKey, "https://"+site+"/").fails(t, "unknown ca")
	h.denied("", "unknown", "credentials")
	anew, anewKey := h.clients.clientCertificate(101, "payments")
	curl(anew, anewKey, "https://"+site+"/").succeeds(t, "welcome")
	is(h.allowed(site, "connect"), "payments")
}

// greet asks with every client that can show a proxy a certificate.
func (h *tlsHouse) greet(t *testing.T, cert, key, git string) {
	const site = "allowed.example.test"
	passed := func(via string) {
		t.Helper()
		if l := h.allowed(site, via); l.User.Name != "payments" {
			t.Errorf("the principal is %q: %s", l.User.Name, l.text)
		}
	}
	t.Run("Go", func(t *testing.T) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		proxy, err := url.Parse(h.url)
		if err != nil {
			t.Fatal(err)
		}
		c := &http.Client{Timeout: patience, Transport: &http.Transport{
			Proxy: http.ProxyURL(proxy), DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: h.w.roots, Certificates: []tls.Certificate{pair}},
		}}
		for scheme, via := range map[string]string{"https": "connect", "http": "http"} {
			status, body, err := get(t.Context(), c, scheme+"://"+site+"/")
			if err != nil || status != http.StatusOK || body != "welcome" {
				t.Errorf("%s: %d %q, %v", scheme, status, body, err)
			}
			passed(via)
		}
	})
	t.Run("urllib3", func(t *testing.T) {
		command{path: needModule(t, "urllib3"), args: []string{"-c", `
import ssl, sys, urllib3
ca, cert, key, proxy = sys.argv[1:]
outer = ssl.create_default_context(cafile=ca)
outer.load_cert_chain(cert, key)
pool = urllib3.ProxyManager(proxy, proxy_ssl_context=outer, ca_certs=ca, cert_file=cert, key_file=key)
for url in "https://allowed.example.test/", "http://allowed.example.test/":
	print(pool.request("GET", url).data.decode())
`, h.w.caFile, cert, key, h.url}}.run(t).succeeds(t, "welcome\nwelcome")
		passed("connect")
		passed("http")
	})
	t.Run("urllib", func(t *testing.T) { // by tunnel it cannot: it speaks no TLS to proxies then
		command{path: needModule(t, "urllib"), args: []string{"-c", `
import ssl, sys, urllib.request
ca, cert, key, proxy = sys.argv[1:]
outer = ssl.create_default_context(cafile=ca)
outer.load_cert_chain(cert, key)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}), urllib.request.HTTPSHandler(context=outer))
print(opener.open("http://allowed.example.test/", timeout=60).read().decode())
`, h.w.caFile, cert, key, h.url}}.run(t).succeeds(t, "welcome")
		passed("http")
	})
	t.Run("Node", func(t *testing.T) {
		command{path: need(t, "node"), args: []string{"-e", `
const fs = require("fs"), https = require("https"), tls = require("tls");
const [ca, cert, key] = process.argv.slice(1, 4).map(f => fs.readFileSync(f)), [host, port] = process.argv.slice(4);
let left = 2;
const print = page => { page.setEncoding("utf8").on("data", text => process.stdout.write(text)).on("end", () => { if (--left === 0) process.exit(0) }) };
const fail = e => { console.error(e); process.exit(1) };
https.request({host, port, ca, cert, key, method: "CONNECT", path: "allowed.example.test:443"}).on("connect", (answer, socket) => {
	if (answer.statusCode !== 200) fail(answer.statusCode);
	https.get({host: "allowed.example.test", createConnection: () => tls.connect({socket, ca, servername: "allowed.example.test"})},
		print).on("error", fail);
}).on("error", fail).end();
https.request({host, port, ca, cert, key, servername: host, path: "http://allowed.example.test/", headers: {Host: "allowed.example.test"}, agent: false},
	print).on("error", fail).end();
`, h.w.caFile, cert, key, h.host, h.port}}.run(t).succeeds(t, "welcomewelcome")
		passed("connect")
		passed("http")
	})
	t.Run("git", func(t *testing.T) {
		path := need(t, "git")
		command{path: path, args: []string{"init", "-q", "--bare", filepath.Join(git, "repo.git")}}.run(t).succeeds(t)
		command{path: path, args: []string{
			"-c", "http.proxy=" + h.url, "-c", "http.proxySSLCAInfo=" + h.w.caFile, "-c", "http.proxySSLCert=" + cert, "-c", "http.proxySSLKey=" + key,
			"ls-remote", "https://" + site + "/repo.git",
		}, env: []string{"GIT_SSL_CAINFO=" + h.w.caFile, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0"}}.run(t).succeeds(t)
		passed("connect")
	})
	t.Run("TLS in TLS", func(t *testing.T) { // TLS in TLS without a CONNECT: the inner server_name
		var got bytes.Buffer
		outer := h.dial(t, cert, key)
		inner := tls.Client(outer, &tls.Config{ServerName: site, RootCAs: h.w.roots})
		_ = inner.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(inner, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", site)
		if _, err := io.Copy(&got, inner); err != nil || !strings.Contains(got.String(), "welcome") {
			t.Errorf("%q, %v", got.String(), err)
		}
		outer.Close()
		passed("tls")
	})
}

// dial makes a connection to the proxy with a certificate.
func (h *tlsHouse) dial(t *testing.T, cert, key string) *tls.Conn {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", h.addr, &tls.Config{ServerName: h.host, RootCAs: h.w.roots, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// stay makes a tunnel with a certificate, and leaves it open.
func (h *tlsHouse) stay(t *testing.T, cert, key, site string) net.Conn {
	t.Helper()
	outer := h.dial(t, cert, key)
	_ = outer.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(outer, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", site)
	if err := readAnswer(outer); err != nil {
		t.Fatal(err)
	}
	inner := tls.Client(outer, &tls.Config{ServerName: site, RootCAs: h.w.roots})
	if err := inner.Handshake(); err != nil {
		t.Fatal(err)
	}
	return inner
}
