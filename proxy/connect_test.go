package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

// echo sends back what it gets and ends when its client ends.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func TestConnectCarriesTLS(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%t", h2), func(t *testing.T) {
			port, roots := tlsOrigin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s %s", r.Proto, r.Host)
			}))
			r := newRig(t, allow("tls", port, "example.com"))
			r.resolver.set("example.com", "127.0.0.1")
			client := r.client(roots)
			client.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
			resp, err := client.Get(fmt.Sprintf("https://example.com:%d/", port))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
			if !strings.HasPrefix(string(body), want) {
				t.Errorf("body %q, want %s", body, want)
			}
			client.CloseIdleConnections()
			rec := r.events.ended(t, "example.com")
			// A client that closes with something unread resets, and may.
			ended := rec.Outcome == flow.OutcomeOK || rec.EndedBy == flow.EndedByClient
			if rec.Verdict != policy.Allow || !ended || rec.TLS.ServerName != "example.com" || rec.BytesReceived == 0 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

func TestConnectDenied(t *testing.T) {
	r := newRig(t, allow("tls", 443, "example.com"))
	got := r.exchange("CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 403 Forbidden\r\n", "Proxy-Status: sallyport; error=http_request_denied; details=\"no_rule flow=", "other.example:443 is denied", "policy explain other.example:443"} {
		if !strings.Contains(got, want) {
			t.Errorf("answer lacks %q:\n%s", want, got)
		}
	}
	rec := r.events.ended(t, "other.example")
	if rec.Reason != policy.ReasonNoRule || rec.HTTP.Status != 403 {
		t.Errorf("record %+v", rec)
	}
	if n := r.resolver.total(); n != 0 {
		t.Errorf("a denied name was looked up (%d questions)", n)
	}
}

// TestConnectKeepsEarlyBytes fails without keepEarly: goproxy throws away what
// the client sends along with its CONNECT.
func TestConnectKeepsEarlyBytes(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := newRig(t, allow("tcp", port, "echo.test"))
	r.resolver.set("echo.test", "127.0.0.1")
	c := r.send(fmt.Sprintf("CONNECT echo.test:%d HTTP/1.1\r\nHost: echo.test\r\n\r\nEARLY", port))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasSuffix(string(got), "\r\n\r\nEARLY") {
		t.Errorf("got %q, %v", got, err)
	}
	if rec := r.events.ended(t, "echo.test"); rec.BytesSent != 5 || rec.BytesReceived != 5 || rec.Outcome != flow.OutcomeOK {
		t.Errorf("record %+v", rec)
	}
}

func TestConnectEarlyHello(t *testing.T) {
	port, roots := tlsOrigin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }))
	r := newRig(t, allow("tls", port, "example.com"))
	r.resolver.set("example.com", "127.0.0.1")
	c := r.dial()
	merged := &prefixed{Conn: c, prefix: fmt.Sprintf("CONNECT example.com:%d HTTP/1.1\r\nHost: x\r\n\r\n", port)}
	tc := tls.Client(merged, &tls.Config{ServerName: "example.com", RootCAs: roots})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
}

// prefixed sends prefix in one write with the first bytes, and swallows the
// CONNECT answer.
type prefixed struct {
	net.Conn
	prefix string
	br     *bufio.Reader
}

func (p *prefixed) Write(b []byte) (int, error) {
	if p.prefix != "" {
		b = append([]byte(p.prefix), b...)
		n, err := p.Conn.Write(b)
		n -= len(p.prefix)
		p.prefix = ""
		return n, err
	}
	return p.Conn.Write(b)
}

func (p *prefixed) Read(b []byte) (int, error) {
	if p.br == nil {
		p.br = bufio.NewReader(p.Conn)
		resp, err := http.ReadResponse(p.br, &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode != 200 {
			return 0, fmt.Errorf("CONNECT answer %v: %w", resp, err)
		}
	}
	return p.br.Read(b)
}

func TestTransparentTLS(t *testing.T) {
	port, roots := tlsOrigin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }))
	_ = port
	r := newRig(t, allow("tls", 443, "example.com"))
	r.resolver.set("example.com", "127.0.0.1")
	// Port 443 of loopback is nobody's: the attempt is allowed, and refused by the origin.
	tc := tls.Client(r.dial(), &tls.Config{ServerName: "example.com", RootCAs: roots})
	if err := tc.Handshake(); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("handshake: %v", err)
	}
	if rec := r.events.ended(t, "example.com"); rec.Outcome != flow.OutcomeConnectionRefused || rec.Via != policy.ViaTLS {
		t.Errorf("record %+v", rec)
	}
	tc = tls.Client(r.dial(), &tls.Config{ServerName: "denied.example", RootCAs: roots})
	if err := tc.Handshake(); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("handshake: %v", err)
	}
}
