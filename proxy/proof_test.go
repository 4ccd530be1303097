package proxy

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// revocable takes any password of anybody until the user is withdrawn.
type revocable struct {
	mu   sync.Mutex
	gone map[string]bool
}

func (v *revocable) withdraw(user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone == nil {
		v.gone = make(map[string]bool)
	}
	v.gone[user] = true
}

func (v *revocable) Knows(user string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.gone[user]
}

func (v *revocable) Authenticate(_ context.Context, _ policy.Source, user, _ string) (string, func() bool) {
	if !v.Knows(user) {
		return "", nil
	}
	return user, func() bool { return v.Knows(user) }
}

// TestWithdrawnSecret: who stands on a secret that is withdrawn is cut, and
// nobody else; a tunnel as well as an exchange.
func TestWithdrawnSecret(t *testing.T) {
	port := tcpOrigin(t, echo)
	slow := make(chan struct{})
	web := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-slow
	})
	defer close(slow)
	for _, cuts := range []bool{true, false} {
		t.Run(fmt.Sprintf("cut_denied %v", cuts), func(t *testing.T) {
			r := newRig(t, allow("tcp", port, "origin.test")+allow("http", web, "web.test"), func(c *Config) { c.CutDenied = cuts })
			who := new(revocable)
			r.Server.deps.Authenticator = who
			r.resolver.set("origin.test", "127.0.0.1")
			r.resolver.set("web.test", "127.0.0.1")
			as := func(user string) string {
				return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":x")) + "\r\n\r\n"
			}
			connect := fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\n", port)
			mine, others := r.send(connect+as("payments")), r.send(connect+as("batch"))
			exchange := r.send(fmt.Sprintf("GET http://web.test:%d/ HTTP/1.1\r\nHost: web.test\r\n", web) + as("payments"))
			for _, c := range []net.Conn{mine, others, exchange} {
				readHead(t, c)
			}
			waitFor(t, func() bool { return len(r.live.list()) == 3 })
			who.withdraw("payments")
			want := 0
			if cuts {
				want = 2
			}
			if n := r.CredentialsChanged(); n != want {
				t.Errorf("%d were cut", n)
			}
			if cuts {
				for _, c := range []io.Reader{mine, exchange} {
					_, _ = io.Copy(io.Discard, c)
				}
				for _, name := range []string{"origin.test", "web.test"} {
					if rec := r.events.ended(t, name); rec.EndedBy != flow.EndedByPolicy || rec.Principal != "payments" {
						t.Errorf("%s: %s, ended by %q", name, rec.Principal, rec.EndedBy)
					}
				}
			}
			_, _ = io.WriteString(others, "x")
			if _, err := io.ReadFull(others, make([]byte, 1)); err != nil {
				t.Errorf("another's tunnel: %v", err)
			}
		})
	}
}

// TestWithdrawnCertificate likewise; and it ends what the connection begins
// afterwards, too.
func TestWithdrawnCertificate(t *testing.T) {
	h := newHouse(t, tls.RequireAndVerifyClientCert)
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, h.speaks, func(c *Config) { c.CutDenied = true })
	open, _ := h.tlsTo(r, h.client("payments"))
	late, _ := h.tlsTo(r, h.client("batch"))
	request := fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	_, _ = io.WriteString(open, request)
	readHead(t, open)
	// In TLS 1.3 the client is done with the handshake before the proxy is.
	_, _ = io.WriteString(late, "GET http://nobody.test/ HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
	resp := readHead(t, late)
	_, _ = io.CopyN(io.Discard, late, resp.ContentLength)
	waitFor(t, func() bool { return len(r.live.list()) == 1 })
	err := fmt.Errorf("it was revoked")
	h.refuse.Store(&err)
	if n := r.CredentialsChanged(); n != 1 {
		t.Errorf("%d were cut", n)
	}
	_, _ = io.Copy(io.Discard, open)
	_, _ = io.WriteString(late, request)
	_, _ = io.Copy(io.Discard, late)
	for _, principal := range []string{"payments", "batch"} {
		rec := r.events.wait(t, "its end", func(e flow.Event) bool { return e.Kind == flow.Closed && e.Record.Principal == principal })
		if rec.EndedBy != flow.EndedByPolicy {
			t.Errorf("%s: ended by %q", principal, rec.EndedBy)
		}
	}
}
