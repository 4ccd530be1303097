package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// twoNames is the policy and the world of most client tests: one name that is
// allowed, over TLS and plain HTTP, and one that is not.
const twoNames = `
  - {name: web, hosts: [allowed.example.test], resolves_to: [127.0.0.0/8]}
  - {name: plain, hosts: [allowed.example.test], protocol: http, resolves_to: [127.0.0.0/8]}
`

// twoOrigins starts both; denied stands ready, so that only the proxy keeps a
// client from it.
func (w *world) twoOrigins() (allowed, denied *origin) {
	w.t.Helper()
	return w.origin("allowed.example.test", nil), w.origin("denied.example.test", nil)
}

// unreached requires that nobody connected to the origin.
func (o *origin) unreached(t *testing.T) {
	t.Helper()
	if n := o.conns.Load(); n != 0 {
		t.Errorf("%s, which is denied, got %d connections", o.name, n)
	}
}

func TestCurl(t *testing.T) {
	t.Parallel()
	path := need(t, "curl")
	w := newWorld(t)
	_, denied := w.twoOrigins()
	r := w.serve(twoNames)
	curl := func(t *testing.T, args ...string) result {
		t.Helper()
		return command{path: path, args: append([]string{"-sS", "--max-time", "60", "--cacert", w.caFile}, args...)}.run(t)
	}
	proxied := func(t *testing.T, args ...string) result {
		t.Helper()
		return curl(t, append([]string{"--proxy", r.url()}, args...)...)
	}

	t.Run("http/1.1 through CONNECT", func(t *testing.T) {
		proxied(t, "--http1.1", "https://allowed.example.test/").succeeds(t, "hello from allowed.example.test over HTTP/1.1")
		l := r.allowed("allowed.example.test", "connect")
		if l.Server.Port != 443 || l.HTTP.Request.Method != "CONNECT" || l.HTTP.Response.StatusCode != 200 ||
			l.TLS.Client.ServerName != "allowed.example.test" || l.Rule.Name != "web" || l.Sallyport.BytesReceived == 0 {
			t.Errorf("the record: %s", l.text)
		}
	})
	t.Run("http/2 through CONNECT", func(t *testing.T) {
		proxied(t, "--http2", "https://allowed.example.test/").succeeds(t, "hello from allowed.example.test over HTTP/2.0")
		if l := r.allowed("allowed.example.test", "connect"); strings.Join(l.TLS.Client.ALPN, " ") != "h2 http/1.1" {
			t.Errorf("the record: %s", l.text)
		}
	})
	t.Run("denied CONNECT", func(t *testing.T) {
		res := proxied(t, "-v", "https://denied.example.test/")
		res.fails(t, "HTTP/1.1 403 Forbidden", "Proxy-Status: sallyport; error=http_request_denied; details=\"no_rule flow=", "CONNECT tunnel failed, response 403")
		if res.code != 56 {
			t.Errorf("curl ended with %d, want 56, as for any proxy that refuses", res.code)
		}
		r.denied("denied.example.test", "connect", "no_rule")
	})
	t.Run("plain http", func(t *testing.T) {
		proxied(t, "http://allowed.example.test/").succeeds(t, "hello from allowed.example.test over HTTP/1.1")
		if l := r.allowed("allowed.example.test", "http"); l.Server.Port != 80 || l.Rule.Name != "plain" || l.HTTP.Response.StatusCode != 200 {
			t.Errorf("the record: %s", l.text)
		}
	})
	t.Run("plain http denied", func(t *testing.T) {
		res := proxied(t, "-i", "http://denied.example.test/secret?token=1")
		res.succeeds(t, "HTTP/1.1 403 Forbidden", "sallyport: denied.example.test:80 is denied", "no rule of the policy allows it (no_rule)",
			"sallyport policy explain http://denied.example.test:80/", "flow: ")
		if l := r.denied("denied.example.test", "http", "no_rule"); l.URL.Path != "/secret" || strings.Contains(l.text, "token") {
			t.Errorf("the record: %s", l.text)
		}
	})
	t.Run("plain http in a tunnel", func(t *testing.T) {
		proxied(t, "--proxytunnel", "http://allowed.example.test/").succeeds(t, "hello from allowed.example.test over HTTP/1.1")
		if l := r.allowed("allowed.example.test", "connect"); l.Server.Port != 80 || l.HTTP.Request.Method != "GET" {
			t.Errorf("the record: %s", l.text)
		}
		proxied(t, "--proxytunnel", "http://denied.example.test/").fails(t, "response 403")
		r.denied("denied.example.test", "connect", "no_rule")
	})
	t.Run("headers pass as sent", func(t *testing.T) {
		// curl's -H without a value removes a header; with ";" it sends it empty.
		res := proxied(t, "-A", "", "-H", "Accept-Encoding: br;q=1.0, zz", "-H", "X-Empty;", "-H", "TE: trailers", "-H", "Connection: x-secret, te",
			"-H", "X-Secret: 1", "-H", "Proxy-Authorization: Basic eDp5", "-U", "user:password", "http://allowed.example.test/headers")
		res.succeeds(t)
		var got http.Header
		if err := json.Unmarshal([]byte(res.stdout), &got); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"Accept-Encoding": "br;q=1.0, zz", "Accept": "*/*"} {
			if got.Get(name) != want {
				t.Errorf("the origin got %s: %q, want %q", name, got.Get(name), want)
			}
		}
		for _, name := range []string{"X-Secret", "Proxy-Authorization", "Proxy-Connection", "Via", "X-Forwarded-For", "User-Agent", "Connection"} {
			if v, ok := got[name]; ok {
				t.Errorf("the origin got %s: %q", name, v)
			}
		}
		if _, ok := got["X-Empty"]; !ok {
			t.Error("the origin did not get X-Empty")
		}
		r.allowed("allowed.example.test", "http")
	})
	t.Run("upload", func(t *testing.T) {
		body := make([]byte, 3<<20)
		for i := range body {
			body[i] = byte(i * 7)
		}
		file := filepath.Join(t.TempDir(), "body")
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(body)
		want := hex.EncodeToString(sum[:])
		for _, url := range []string{"http://allowed.example.test/upload", "https://allowed.example.test/upload"} {
			for _, chunked := range []string{"X-Sized: 1", "Transfer-Encoding: chunked"} {
				res := proxied(t, "-v", "--http1.1", "-T", file, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "-H", chunked, url)
				res.succeeds(t, want, "HTTP/1.1 100 Continue", `expect="100-continue"`)
				via := "connect"
				if strings.HasPrefix(url, "http:") {
					via = "http"
				}
				if l := r.allowed("allowed.example.test", via); l.Sallyport.BytesSent < int64(len(body)) {
					t.Errorf("%d bytes recorded of %d: %s", l.Sallyport.BytesSent, len(body), l.text)
				}
			}
		}
		// What is denied is answered before curl has sent the body it holds back.
		proxied(t, "-v", "-T", file, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "http://denied.example.test/upload").says(t, "HTTP/1.1 403 Forbidden")
		if l := r.denied("denied.example.test", "http", "no_rule"); l.Sallyport.BytesSent != 0 {
			t.Errorf("the record: %s", l.text)
		}
	})
	t.Run("websocket handshake", func(t *testing.T) {
		for _, scheme := range []string{"http", "https"} {
			// By itself curl of this age speaks no WebSocket: it shakes hands
			// and prints what then comes, frames and all.
			res := proxied(t, "-i", "-N", "--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket",
				"-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", scheme+"://allowed.example.test/greet")
			res.says(t, "HTTP/1.1 101 Switching Protocols", "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "\x81\x07welcome")
			via := "connect"
			if scheme == "http" {
				via = "http"
			}
			r.allowed("allowed.example.test", via)
		}
	})
	t.Run("raw TLS", func(t *testing.T) {
		// What DNS steering or a redirect does to a client that knows no proxy.
		host, port, _ := net.SplitHostPort(r.addr)
		to := "::" + host + ":" + port
		curl(t, "--connect-to", to, "--http2", "https://allowed.example.test/").succeeds(t, "hello from allowed.example.test over HTTP/2.0")
		if l := r.allowed("allowed.example.test", "tls"); l.Sallyport.Enforcement != "sni" {
			t.Errorf("the record: %s", l.text)
		}
		curl(t, "--connect-to", to, "https://denied.example.test/").fails(t, "alert access denied")
		r.denied("denied.example.test", "tls", "no_rule")

		curl(t, "--connect-to", to, "http://allowed.example.test/").succeeds(t, "hello from allowed.example.test")
		r.allowed("allowed.example.test", "http")
		curl(t, "--connect-to", to, "http://denied.example.test/").succeeds(t, "no rule of the policy allows it")
		r.denied("denied.example.test", "http", "no_rule")
	})
	t.Run("no such name", func(t *testing.T) {
		proxied(t, "-v", "https://not-listed.example.test/").fails(t, "response 403")
		r.denied("not-listed.example.test", "connect", "no_rule")
	})
	denied.unreached(t)
}

// TestCurlAddresses: destinations that are addresses, IPv6 among them.
func TestCurlAddresses(t *testing.T) {
	t.Parallel()
	path := need(t, "curl")
	w := newWorld(t)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on this machine: %v", err)
	}
	sixOrigin := &origin{name: "::1", cert: w.certificate("::1")}
	sixOrigin.serve(t, ln, echo("::1"), true)
	_, six, _ := net.SplitHostPort(ln.Addr().String())
	addr4 := loopback()
	w.originAt(addr4, nil, addr4)
	other := w.originAt(loopback(), nil, "other.example.test")
	r := w.serve(`
  - {name: four, cidrs: [` + addr4 + `/32]}
  - {name: six, cidrs: ["::1/128"], ports: [` + six + `]}
`)
	curl := func(args ...string) result {
		t.Helper()
		return command{path: path, args: append([]string{"-sS", "-g", "-v", "--max-time", "60", "--cacert", w.caFile, "--proxy", r.url()}, args...)}.run(t)
	}
	curl("https://"+addr4+"/").succeeds(t, "hello from "+addr4)
	r.allowed(addr4, "connect")
	curl("https://[::1]:"+six+"/").succeeds(t, "hello from ::1")
	if l := r.allowed("::1", "connect"); l.Network.Peer.Address != "::1" {
		t.Errorf("the record: %s", l.text)
	}
	curl("https://"+other.addr+"/").fails(t, "response 403")
	r.denied(other.addr, "connect", "ip_literal")
	curl("https://[::1]:1/").fails(t, "response 403")
	r.denied("::1", "connect", "ip_literal")
	curl("http://169.254.169.254/latest/meta-data/").succeeds(t, "169.254.169.254:80 is denied")
	r.denied("169.254.169.254", "http", "ip_literal")
	other.unreached(t)
}
