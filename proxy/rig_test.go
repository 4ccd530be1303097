package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// rig is a running Server with everything around it that a test looks at.
type rig struct {
	*Server
	t        *testing.T
	addr     string
	policy   *policy.Live
	resolver *names
	events   *events
	stop     context.CancelFunc
	done     chan struct{}
}

// newRig starts a Server under the policy's rules (the YAML below "rules:").
// Names resolve as the test sets them in rig.resolver.
func newRig(t *testing.T, policyText string, opts ...func(*Config)) *rig {
	t.Helper()
	return newRigWith(t, policyText, func(*Deps) {}, opts...)
}

// newRigWith is newRig with other Deps.
func newRigWith(t *testing.T, policyText string, with func(*Deps), opts ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, policy: policy.NewLive(), resolver: newNames(), events: newEvents(), done: make(chan struct{})}
	r.setPolicy(policyText)
	cfg := Config{
		Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}},
		Timeouts:  Timeouts{Hello: 2 * time.Second, Dial: 2 * time.Second, Idle: time.Minute, Drain: 5 * time.Second},
		CutDenied: true,
	}
	for _, o := range opts {
		o(&cfg)
	}
	deps := Deps{Decider: r.policy, Resolver: r.resolver, Recorder: r.events, NewID: flow.NewID, Log: zerolog.New(zerolog.NewTestWriter(t))}
	with(&deps)
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.addr = s.Addrs()[0].String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		defer close(r.done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		stop()
		s.Cut()
		<-r.done
		r.events.check(t)
		if n := s.Active(); n != 0 {
			t.Errorf("%d connections are still counted after Run", n)
		}
	})
	return r
}

func (r *rig) setPolicy(text string) {
	r.t.Helper()
	if !strings.HasPrefix(text, "version:") {
		text = "version: 1\nrules:\n" + text
	}
	p, err := policy.Load(policy.Text{Name: "test.yaml", Data: []byte(text)})
	if err != nil {
		r.t.Fatalf("policy: %v\n%s", err, text)
	}
	r.policy.Swap(p)
}

// dial connects to the proxy.
func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// send writes text to a new connection to the proxy.
func (r *rig) send(text string) *net.TCPConn {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// exchange writes text and returns all that comes back until the end.
func (r *rig) exchange(text string) string {
	r.t.Helper()
	c := r.send(text)
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		return "error: " + err.Error()
	}
	return string(b)
}

// exchangeFrom is exchange for a client at an address of its own.
func (r *rig) exchangeFrom(source, text string) string {
	r.t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext(r.t.Context(), "tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	io.WriteString(c, text)
	b, _ := io.ReadAll(c)
	return string(b)
}

// client is an ordinary HTTP client that uses the proxy.
func (r *rig) client(roots *x509.CertPool) *http.Client {
	tr := &http.Transport{
		Proxy:           http.ProxyURL(mustURL("http://" + r.addr)),
		TLSClientConfig: &tls.Config{RootCAs: roots},
	}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 15 * time.Second}
}

// names is a Resolver that knows what a test tells it, and counts questions.
type names struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	fails map[string]error
	asked map[string]int
}

func newNames() *names {
	return &names{addrs: map[string][]netip.Addr{}, fails: map[string]error{}, asked: map[string]int{}}
}

func (n *names) set(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name] = nil
	for _, a := range addrs {
		n.addrs[name] = append(n.addrs[name], netip.MustParseAddr(a))
	}
}

func (n *names) fail(name string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fails[name] = err
}

func (n *names) total() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := 0
	for _, c := range n.asked {
		sum += c
	}
	return sum
}

// Lookup implements Resolver.
func (n *names) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[name]++
	if err := n.fails[name]; err != nil {
		return nil, err
	}
	if a, ok := n.addrs[name]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "NXDOMAIN", Name: name, IsNotFound: true}
}

// events is a Recorder that keeps everything.
type events struct {
	mu   sync.Mutex
	all  []flow.Event
	more chan struct{} // closed and replaced at each event
}

func newEvents() *events { return &events{more: make(chan struct{})} }

// Observe implements Recorder.
func (e *events) Observe(ev flow.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
	close(e.more)
	e.more = make(chan struct{})
}

func (e *events) list() ([]flow.Event, chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]flow.Event(nil), e.all...), e.more
}

// wait returns the first event that satisfies ok.
func (e *events) wait(t *testing.T, what string, ok func(flow.Event) bool) flow.Record {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		all, more := e.list()
		for _, ev := range all {
			if ok(ev) {
				return ev.Record
			}
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("no event: %s; have %s", what, e.text())
		}
	}
}

func (e *events) text() string {
	var b strings.Builder
	all, _ := e.list()
	for _, ev := range all {
		r := ev.Record
		fmt.Fprintf(&b, "\n  kind %d %s %s:%d %s/%s outcome %s by %q: %s", ev.Kind, r.Via, r.Host, r.Port, r.Verdict, r.Reason, r.Outcome, r.EndedBy, r.Error)
	}
	return b.String()
}

// ended waits for the end, allowed or denied, of an attempt at host.
func (e *events) ended(t *testing.T, host string) flow.Record {
	t.Helper()
	return e.wait(t, "the end of an attempt at "+host, func(ev flow.Event) bool {
		return ev.Kind != flow.Opened && ev.Record.Host == host
	})
}

// check asserts the one invariant of records: every attempt ends once, an
// allowed one after it was opened once, a denied one without.
func (e *events) check(t *testing.T) {
	t.Helper()
	type life struct{ opened, closed, denied int }
	lives := map[string]*life{}
	all, _ := e.list()
	for _, ev := range all {
		l := lives[ev.Record.ID]
		if l == nil {
			l = &life{}
			lives[ev.Record.ID] = l
		}
		switch ev.Kind {
		case flow.Opened:
			l.opened++
		case flow.Closed:
			l.closed++
		case flow.Denied:
			l.denied++
		}
	}
	for id, l := range lives {
		if *l != (life{opened: 1, closed: 1}) && *l != (life{denied: 1}) {
			t.Errorf("attempt %s has %d opened, %d closed and %d denied events%s", id, l.opened, l.closed, l.denied, e.text())
		}
	}
}

// tlsOrigin starts a TLS origin and returns its port and the roots to verify
// it by; its certificate is for example.com.
func tlsOrigin(t *testing.T, h http.Handler) (port int, roots *x509.CertPool) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots = x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return srv.Listener.Addr().(*net.TCPAddr).Port, roots
}

// httpOrigin starts a plain HTTP origin and returns its port.
func httpOrigin(t *testing.T, h http.HandlerFunc) int {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr).Port
}

// tcpOrigin accepts on loopback and hands every connection to serve. It outlives
// that it can accept nobody, for a test may have taken every descriptor.
func tcpOrigin(t *testing.T, serve func(*net.TCPConn)) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				pause(10 * time.Millisecond)
				continue
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(c.(*net.TCPConn))
			})
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// allow is a rule that lets names reach loopback on a port.
func allow(protocol string, port int, hosts ...string) string {
	return fmt.Sprintf("  - name: %s-%d\n    hosts: [\"%s\"]\n    ports: [%d]\n    protocol: %s\n    resolves_to: [127.0.0.0/8]\n",
		protocol, port, strings.Join(hosts, `", "`), port, protocol)
}
