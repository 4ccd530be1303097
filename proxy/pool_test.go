package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// tally is an origin that numbers its connections, tells each request which it
// came on, and knows which are open.
type tally struct {
	mu     sync.Mutex // guards the rest
	opened int
	open   map[int]*net.TCPConn
}

func newTally(t *testing.T) (port int, ty *tally) {
	t.Helper()
	ty = &tally{open: map[int]*net.TCPConn{}}
	return tcpOrigin(t, func(c *net.TCPConn) {
		ty.mu.Lock()
		ty.opened++
		n := ty.opened
		ty.open[n] = c
		ty.mu.Unlock()
		defer func() {
			ty.mu.Lock()
			delete(ty.open, n)
			ty.mu.Unlock()
		}()
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			body := fmt.Sprintf("connection %d", n)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}), ty
}

func (ty *tally) count() (opened, open int) {
	ty.mu.Lock()
	defer ty.mu.Unlock()
	return ty.opened, len(ty.open)
}

// closeAll closes what is open, as an origin does that has waited long enough.
func (ty *tally) closeAll() {
	ty.mu.Lock()
	defer ty.mu.Unlock()
	for _, c := range ty.open {
		c.Close()
	}
}

func (r *rig) ask(method, host string, port int) string {
	r.t.Helper()
	length := "Content-Length: 0\r\n"
	if method == "GET" {
		length = "" // plain
	}
	return bodyOf(r.exchange(fmt.Sprintf("%s http://%s:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, host, port, length)))
}

func TestPoolKeepsConnections(t *testing.T) {
	for _, method := range []string{"GET", "POST"} { // a pool each
		t.Run(method, func(t *testing.T) {
			port, ty := newTally(t)
			r := newRig(t, allow("http", port, "one.test", "two.test"))
			r.resolver.set("one.test", "127.0.0.1")
			r.resolver.set("two.test", "127.0.0.1")
			for _, step := range []struct{ host, want string }{
				{"one.test", "connection 1"},
				{"one.test", "connection 1"}, // another client's, the same origin connection
				{"two.test", "connection 2"}, // another name, though the address is one
				{"one.test", "connection 1"},
			} {
				if got := r.ask(method, step.host, port); got != step.want {
					t.Errorf("%s: %q, want %q", step.host, got, step.want)
				}
			}
			if n := r.resolver.total(); n != 2 {
				t.Errorf("%d lookups", n)
			}
			if opened, _ := ty.count(); opened != 2 {
				t.Errorf("%d connections", opened)
			}
		})
	}
}

// TestPoolIsPerRule keeps what one rule may reach from what another governs:
// a caller that no rule leads inside must not ride on a connection that was
// opened for one that is.
func TestPoolIsPerRule(t *testing.T) {
	port, ty := newTally(t)
	const doc = "version: 1\nmode: enforce\nsources:\n  - {name: insiders, cidrs: [127.0.0.2/32]}\nrules:\n" +
		"  - {name: inside, hosts: [web.test], ports: [%[1]d], protocol: http, sources: [insiders], resolves_to: [127.0.0.0/8]}\n" +
		"  - {name: outside, hosts: ['*.test'], ports: [%[1]d], protocol: http}\n"
	r := newRig(t, fmt.Sprintf(doc, port))
	r.resolver.set("web.test", "127.0.0.1")
	askFrom := func(source string) string {
		t.Helper()
		return r.exchangeFrom(source, fmt.Sprintf("GET http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", port))
	}
	if got := askFrom("127.0.0.2"); bodyOf(got) != "connection 1" {
		t.Errorf("the insider: %q", got)
	}
	if got := askFrom("127.0.0.1"); !strings.HasPrefix(got, "HTTP/1.1 403") || !strings.Contains(got, "destination_ip_prohibited") {
		t.Errorf("the outsider: %q", got)
	}
	if got := askFrom("127.0.0.2"); bodyOf(got) != "connection 1" {
		t.Errorf("the insider again: %q", got)
	}
	if opened, _ := ty.count(); opened != 1 {
		t.Errorf("%d connections", opened)
	}
	rec := r.events.wait(t, "a denial", func(e flow.Event) bool { return e.Kind == flow.Denied })
	if rec.Rule != "outside" || rec.Reason != policy.ReasonAddressProhibited {
		t.Errorf("record %+v", rec)
	}
}

func TestPoolForgetsOnPolicyChange(t *testing.T) {
	for _, method := range []string{"GET", "POST"} { // a pool each
		t.Run(method, func(t *testing.T) { poolForgets(t, method) })
	}
}

func poolForgets(t *testing.T, method string) {
	t.Helper()
	port, ty := newTally(t)
	r := webRig(t, port)
	r.ask(method, "web.test", port)
	r.PolicyChanged()
	waitFor(t, func() bool { _, open := ty.count(); return open == 0 })
	r.resolver.set("web.test", "127.0.0.3") // the origin listens on 127.0.0.1 alone
	if got := r.ask(method, "web.test", port); !strings.Contains(got, "connection_refused") {
		t.Errorf("got %q", got)
	}
	r.resolver.set("web.test", "127.0.0.1")
	if got := r.ask(method, "web.test", port); got != "connection 2" {
		t.Errorf("got %q", got)
	}
	// A new policy's rule is another rule, whatever it is called.
	r.setPolicy(allow("http", port, "web.test"))
	if got := r.ask(method, "web.test", port); got != "connection 3" {
		t.Errorf("got %q", got)
	}
}

// TestPoolForgetsWhatIsUnderWay drops, too, the connection of an exchange that
// had its transport before the policy changed.
func TestPoolForgetsWhatIsUnderWay(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	port := tcpOrigin(t, func(c *net.TCPConn) {
		defer close(ended)
		br := bufio.NewReader(c)
		readRawHead(br)
		begun <- struct{}{}
		<-goOn
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
		br.ReadByte() // until the proxy closes
	})
	r := webRig(t, port)
	c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	<-begun
	if n := r.PolicyChanged(); n != 0 {
		t.Errorf("%d were cut", n)
	}
	close(goOn)
	if resp, body := reply(t, bufio.NewReader(c), "GET"); resp.StatusCode != 200 || body != "hi" {
		t.Errorf("%s %q", resp.Status, body)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the connection is kept")
	}
}

// TestPoolForgetsWhatBeginsLate is the other order: a transport that was taken
// before the change is first used after it, and by that learns to keep
// connections again.
func TestPoolForgetsWhatBeginsLate(t *testing.T) {
	port, ty := newTally(t)
	p := newPool((&net.Dialer{}).DialContext)
	d := policy.Decision{Rule: &policy.Rule{}}
	ask := func(tr *http.Transport) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	current := p.transport(d)
	ask(current)
	p.done(d, current)
	if _, open := ty.count(); open != 1 {
		t.Error("a transport that is in use lost its connection")
	}
	p.reset()
	waitFor(t, func() bool { _, open := ty.count(); return open == 0 })
	ask(current)
	p.done(d, current)
	waitFor(t, func() bool { _, open := ty.count(); return open == 0 })
}

// TestPoolRetries has the origin close kept connections: what may be asked
// twice is, on another.
func TestPoolRetries(t *testing.T) {
	port, ty := newTally(t)
	r := webRig(t, port)
	want := 1
	for _, method := range []string{"GET", "GET", "POST", "PUT"} {
		if got := r.ask(method, "web.test", port); got != fmt.Sprintf("connection %d", want) {
			t.Errorf("%s: %q, want connection %d", method, got, want)
		}
		ty.closeAll()
		waitFor(t, func() bool { _, open := ty.count(); return open == 0 })
		want++
	}
	t.Run("closed under the request", func(t *testing.T) {
		// The second request on the connection is read and not answered.
		var n atomic.Int64
		port := tcpOrigin(t, func(c *net.TCPConn) {
			nth := n.Add(1)
			br := bufio.NewReader(c)
			for i := range 2 {
				head, err := readRawHead(br)
				if err != nil || nth == 1 && i == 1 {
					return
				}
				mirror(head, c, br)
			}
		})
		r := webRig(t, port)
		r.ask("GET", "web.test", port)
		if got := r.ask("GET", "web.test", port); !strings.HasPrefix(got, "GET / ") {
			t.Errorf("got %q", got)
		}
		r.events.wait(t, "the second's end", func(e flow.Event) bool { return e.Kind == flow.Closed && e.Record.Outcome == flow.OutcomeOK })
	})
	t.Run("not what must not be asked twice", func(t *testing.T) {
		var n atomic.Int64
		port := tcpOrigin(t, func(c *net.TCPConn) {
			n.Add(1)
			br := bufio.NewReader(c)
			for i := range 2 {
				head, err := readRawHead(br)
				if err != nil || i == 1 {
					return
				}
				mirror(head, c, br)
			}
		})
		r := webRig(t, port)
		r.ask("PUT", "web.test", port) // GET has another pool
		got := r.exchange(fmt.Sprintf("POST http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", port))
		if !strings.HasPrefix(got, "HTTP/1.1 502") {
			t.Errorf("got %q", got)
		}
		if n := n.Load(); n != 1 {
			t.Errorf("the origin was asked on %d connections", n)
		}
	})
}

// TestPoolModes keeps report mode's connections from those of enforcement.
func TestPoolModes(t *testing.T) {
	p := newPool(refuseDial)
	rule, other := &policy.Rule{Name: "a"}, &policy.Rule{Name: "a"}
	seen := map[*http.Transport]bool{}
	for _, d := range []policy.Decision{{Rule: rule}, {Rule: other}, {Rule: rule, Mode: policy.Report}, {Mode: policy.Report}} {
		tr := p.transport(d)
		if seen[tr] {
			t.Errorf("%+v shares a transport", d)
		}
		seen[tr] = true
		if p.transport(d) != tr {
			t.Errorf("%+v got two", d)
		}
		if tr.Proxy != nil || !tr.DisableCompression || tr.DialTLSContext == nil {
			t.Error("a transport is not contained")
		}
	}
	p.reset()
	if seen[p.transport(policy.Decision{Rule: rule})] {
		t.Error("reset keeps a transport")
	}
}
