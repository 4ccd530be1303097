package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// What got past the proxy once. Each test failed before its defence was there.

// elsewhere is a policy that allows none of the names that tests use.
const elsewhere = "  - {name: elsewhere, hosts: [elsewhere.test]}\n"

// tighten puts a policy in force, as a reload does.
func (r *rig) tighten(text string) int {
	r.setPolicy(text)
	return r.PolicyChanged()
}

// TestHostileTunnelPendingAtReload holds an allowed CONNECT open without a
// byte in it until a policy that denies it is in force.
func TestHostileTunnelPendingAtReload(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("tls", port, "allowed.test"))
	r.resolver.set("allowed.test", "127.0.0.1")
	c := r.send(fmt.Sprintf("CONNECT allowed.test:%d HTTP/1.1\r\n\r\n", port))
	readHead(t, c)
	r.tighten(elsewhere)
	c.Write(hostileHello(t, "allowed.test"))
	io.Copy(io.Discard, c)
	if rec := r.events.ended(t, "allowed.test"); rec.EndedBy != flow.EndedByPolicy {
		t.Errorf("outcome %s, ended by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
	}
	if reached.Load() != 0 {
		t.Error("the origin got bytes")
	}
}

// hostileHello is the ClientHello of an ordinary client.
func hostileHello(t *testing.T, name string) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(near, &tls.Config{ServerName: name}).Handshake()
	}()
	b := make([]byte, 16<<10)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	<-done
	return b[:n]
}

// TestHostileDialPendingAtReload puts the new policy in force while the
// connection to the origin is being opened.
func TestHostileDialPendingAtReload(t *testing.T) {
	for name, tt := range map[string]struct{ before, after, request string }{
		"tunnel, name denied":         {allow("tcp", 1, "a.test"), elsewhere, "CONNECT a.test:%d HTTP/1.1\r\n\r\nx"},
		"request, name denied":        {allow("http", 1, "a.test"), elsewhere, "GET http://a.test:%d/ HTTP/1.1\r\nHost: a.test\r\n\r\n"},
		"tunnel, address prohibited":  {allow("tcp", 1, "a.test"), "  - {name: a, hosts: [a.test], ports: [%d], protocol: tcp}\n", "CONNECT a.test:%d HTTP/1.1\r\n\r\nx"},
		"request, address prohibited": {allow("http", 1, "a.test"), "  - {name: a, hosts: [a.test], ports: [%d], protocol: http}\n", "GET http://a.test:%d/ HTTP/1.1\r\nHost: a.test\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			port, reached := counted(t)
			r := newRig(t, strings.Replace(tt.before, "[1]", fmt.Sprintf("[%d]", port), 1))
			r.resolver.set("a.test", "127.0.0.1")
			after := tt.after
			if strings.Contains(after, "%d") {
				after = fmt.Sprintf(after, port)
			}
			r.dialer.connect = func(ctx context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
				tcp, err := connectTo(ctx, addr, vet)
				r.tighten(after)
				return tcp, err
			}
			c := r.send(fmt.Sprintf(tt.request, port))
			io.Copy(io.Discard, c)
			if rec := r.events.ended(t, "a.test"); rec.EndedBy != flow.EndedByPolicy {
				t.Errorf("outcome %s, ended by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
			}
			if reached.Load() != 0 {
				t.Error("the origin got bytes")
			}
		})
	}
}

// echoUntilCut keeps a tunnel to an origin that echoes busy until it ends.
func echoUntilCut(c net.Conn) {
	ping := make([]byte, 4)
	for {
		if _, err := c.Write(ping); err != nil {
			return
		}
		if _, err := io.ReadFull(c, ping); err != nil {
			return
		}
	}
}

// TestHostileTunnelOutlivesLearning keeps a tunnel busy that only report mode
// allowed. Nobody announces that the learning window has closed.
func TestHostileTunnelOutlivesLearning(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := newRig(t, "version: 1\nmode: report\nrules:\n"+fmt.Sprintf("  - {name: a, hosts: [other.test], ports: [%d], protocol: tcp, resolves_to: [127.0.0.0/8]}\n", port),
		func(c *Config) { c.Timeouts.Idle = time.Second })
	r.resolver.set("origin.test", "127.0.0.1")
	r.dialer.connect = func(ctx context.Context, _ netip.AddrPort, _ vetFunc) (*net.TCPConn, error) {
		// Report mode does not lead to loopback: another address is vetted here.
		return connectTo(ctx, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), func(netip.AddrPort) error { return nil })
	}
	r.resolver.set("origin.test", "10.0.0.1")
	c := tunnelTo(t, r, port)
	r.setPolicy(elsewhere) // as if report_until had passed: PolicyChanged is not called
	echoUntilCut(c)
	if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByPolicy || !rec.WouldDeny {
		t.Errorf("ended by %q, would deny %t: %s", rec.EndedBy, rec.WouldDeny, rec.Error)
	}
}

// TestHostileDialOutlivesClient leaves while the proxy connects: what is under
// way then would be bounded by no limit, since its client is not counted.
func TestHostileDialOutlivesClient(t *testing.T) {
	r := newRig(t, allow("http", 80, "slow.test"), func(c *Config) { c.Timeouts.Dial = time.Hour })
	r.resolver.set("slow.test", "127.0.0.1")
	begun, ended := make(chan struct{}), make(chan struct{})
	r.dialer.connect = func(ctx context.Context, _ netip.AddrPort, _ vetFunc) (*net.TCPConn, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	c := r.send("GET http://slow.test/ HTTP/1.1\r\nHost: slow.test\r\n\r\n")
	<-begun
	c.Close()
	waitFor(t, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}

// fields returns n header fields that take as little room as can be.
func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%x:\r\n", i)
	}
	return b.String()
}

// TestHostileRequestHeads hold a hundred times their size in memory.
func TestHostileRequestHeads(t *testing.T) {
	port := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	r := newRig(t, allow("http", port, "web.test"), func(c *Config) { c.Timeouts.Hello = time.Minute })
	r.resolver.set("web.test", "127.0.0.1")
	head := fmt.Sprintf("%%s http://web.test:%d/ HTTP/1.1\r\nHost: x\r\n", port)
	get, post := fmt.Sprintf(head, "GET"), fmt.Sprintf(head, "POST")
	whole := get + fields(200) + "\r\n"
	lines := strings.Repeat("\n", 4000)
	body := post + "Content-Length: 4000\r\n\r\n" + lines
	for name, tt := range map[string]struct {
		send string
		want []int // the answers' status codes
	}{
		"many fields":                    {whole, []int{200}},
		"a body of empty lines":          {body, []int{200}},
		"many times many fields":         {strings.Repeat(whole, 5), []int{200, 200, 200, 200, 200}},
		"too many":                       {get + fields(5000), []int{400}},
		"too many, behind another":       {whole + get + fields(5000), []int{200, 400}},
		"too many, behind a body":        {body + get + fields(5000), []int{200, 400}},
		"too many, with bare line feeds": {get + strings.ReplaceAll(fields(5000), "\r", ""), []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			go io.WriteString(c, tt.send)
			br := bufio.NewReader(c)
			for i, want := range tt.want {
				resp, err := http.ReadResponse(br, nil)
				if err != nil && want == http.StatusBadRequest {
					return // a reset has overtaken it: there was more to read
				}
				if err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
				if resp.StatusCode != want {
					t.Fatalf("answer %d: %s, want %d", i, resp.Status, want)
				}
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	rec := r.events.wait(t, "a refusal", func(e flow.Event) bool { return e.Kind == flow.Denied })
	if rec.Reason != policy.ReasonNoName || !strings.Contains(rec.Error, "fields") {
		t.Errorf("reason %s: %s", rec.Reason, rec.Error)
	}
}

// TestHostileResponseHeads come from an origin that is allowed and hostile.
func TestHostileResponseHeads(t *testing.T) {
	for name, tt := range map[string]struct {
		head string
		want string
	}{
		"many fields":        {"HTTP/1.1 200 OK\r\n" + fields(200) + "Content-Length: 0\r\n\r\n", "HTTP/1.1 200"},
		"too many":           {"HTTP/1.1 200 OK\r\n" + fields(1000) + "Content-Length: 0\r\n\r\n", "HTTP/1.1 502"},
		"too many interim":   {"HTTP/1.1 103 Early Hints\r\n" + fields(1000) + "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 502"},
		"one long field":     {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 60<<10) + "\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200"},
		"one too long field": {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 70<<10) + "\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 502"},
	} {
		t.Run(name, func(t *testing.T) {
			port := tcpOrigin(t, func(c *net.TCPConn) {
				c.Read(make([]byte, 4096))
				io.WriteString(c, tt.head)
				io.Copy(io.Discard, c)
			})
			r := newRig(t, allow("http", port, "web.test"))
			r.resolver.set("web.test", "127.0.0.1")
			got := r.exchange(fmt.Sprintf("GET http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", port))
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("%.100q, want %s", got, tt.want)
			}
			rec := r.events.ended(t, "web.test")
			if ok := rec.Outcome == flow.OutcomeOK; ok != (tt.want == "HTTP/1.1 200") || !ok && rec.Outcome != flow.OutcomeHTTPProtocolError {
				t.Errorf("outcome %s: %s", rec.Outcome, rec.Error)
			}
		})
	}
}

// TestHostileNameOfDeniedAddress reaches a denied range by a name that leads
// there.
func TestHostileNameOfDeniedAddress(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("tcp", port, "**.a.test")+"  - {name: no, action: deny, cidrs: [127.0.0.9/32]}\n")
	r.resolver.set("denied.a.test", "127.0.0.9")
	r.resolver.set("mixed.a.test", "127.0.0.9", "127.0.0.1")
	got := r.exchange(fmt.Sprintf("CONNECT denied.a.test:%d HTTP/1.1\r\n\r\nx", port))
	if !strings.HasPrefix(got, "HTTP/1.1 403") || !strings.Contains(got, "(deny_rule)") || !strings.Contains(got, "rule: no\n") {
		t.Errorf("%s", got)
	}
	if rec := r.events.ended(t, "denied.a.test"); rec.Reason != policy.ReasonDenyRule || rec.Rule != "no" {
		t.Errorf("reason %s, rule %s", rec.Reason, rec.Rule)
	}
	if reached.Load() != 0 {
		t.Error("the origin got bytes")
	}
	c := r.send(fmt.Sprintf("CONNECT mixed.a.test:%d HTTP/1.1\r\n\r\nx", port))
	readHead(t, c)
	c.Close()
	if rec := r.events.ended(t, "mixed.a.test"); rec.Peer.Addr().String() != "127.0.0.1" || rec.Rule == "no" {
		t.Errorf("peer %s, rule %s", rec.Peer, rec.Rule)
	}
}

// TestHostileBodyEndsAsItsAnswerDoes has a request's body end, on a goroutine
// of the transport, just as its handler stops waiting for it. The race
// detector is the judge.
func TestHostileBodyEndsAsItsAnswerDoes(t *testing.T) {
	r := newRig(t, elsewhere)
	c := r.dial()
	h := &httpConn{TCPConn: c, c: &conn{s: r.Server, tcp: c}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			_ = h.SetReadDeadline(time.Time{})
		}
	}()
	for range 100 {
		h.hurry()
	}
	<-done
	h.begin()
	if !h.readBy.IsZero() {
		t.Error("the next request is bounded by what bounded this one")
	}
}

// TestHostileTrailersOfAnsweredRequest: an answer may come before the request
// is sent. net/http then reads the rest of the body away, and its trailers,
// while the transport is at work on its own. Two goroutines in one map are the
// end of the process, which nothing rescues.
func TestHostileTrailersOfAnsweredRequest(t *testing.T) {
	from := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://web.test/", io.NopCloser(strings.NewReader("body")))
	from.TransferEncoding, from.Trailer = []string{"chunked"}, http.Header{"Announced": nil}
	ex := &exchange{http: &httpConn{}, attempt: &attempt{}, writer: exchangeWriter{}}
	out := ex.outgoing(from)
	from.Trailer["Late"] = []string{"1"}
	if _, shared := out.Trailer["Late"]; shared {
		t.Fatal("the transport reads the map that net/http writes to")
	}
	if _, err := io.Copy(io.Discard, out.Body); err != nil {
		t.Fatal(err)
	}
	if out.Trailer.Get("Late") != "1" {
		t.Errorf("trailers %v", out.Trailer)
	}

	port := tcpOrigin(t, func(c *net.TCPConn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	r := newRig(t, allow("http", port, "web.test"))
	r.resolver.set("web.test", "127.0.0.1")
	request := fmt.Sprintf("POST http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: %s\r\n\r\n0\r\nA1: x\r\n\r\n",
		port, strings.ReplaceAll(fields(2000), ":\r\n", ",")+"end")
	for range 50 { // for the race detector
		r.exchange(request)
	}
}

// TestHostileTunnelCutAsItLiesDown: to lie down a tunnel clears the deadlines
// that a cut has just set. It would then go on, or keep a drain from ending.
func TestHostileTunnelCutAsItLiesDown(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port)
	client, origin := tunnelTo(t, r, port), tunnelTo(t, r, port) // two connections that echo what they get
	f := &flight{client: client}
	f.origin.Store(origin)
	lying := &tunnel{attempt: &attempt{s: r.Server}, conn: &conn{s: r.Server, tcp: client}, origin: origin, flight: f}
	lying.loop = r.nextLoop()
	lying.client, lying.server = side{tcp: client}, side{tcp: origin}
	by := flow.EndedByPolicy
	f.cutBy.Store(&by)
	interrupt(client)
	interrupt(origin)
	if lying.settle() {
		t.Fatal("it rests although it was cut")
	}
	for name, tcp := range map[string]*net.TCPConn{"client": client, "origin": origin} {
		if _, err := tcp.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: writing: %v", name, err)
		}
		_ = tcp.SetWriteDeadline(time.Time{})
		tcp.Write([]byte("x")) // so that a read which is not cut ends
		if _, err := tcp.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: reading: %v, want it cut", name, err)
		}
	}
}
