package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// boom is the name whose attempts panic; calm is one beside it.
const (
	boom = "boom.test"
	calm = "calm.test"
)

// fuse stands for every port of a Server and panics in one call, its stage, of
// whatever is about boom.
type fuse struct {
	Decider
	Resolver
	Recorder
	stage   string
	mu      sync.Mutex
	armed   atomic.Bool // what has no name to go by panics once, while it is set
	dialled atomic.Bool
	blown   atomic.Int64
}

func (f *fuse) blow(stage string) {
	if f.stage == stage {
		f.blown.Add(1)
		panic("boom in " + stage)
	}
}

func (f *fuse) Decide(q policy.Query) policy.Decision {
	if q.Host.String() == boom {
		f.blow("decide")
		if f.dialled.Load() {
			f.blow("reconsider")
		}
	}
	return f.Decider.Decide(q)
}

func (f *fuse) Version() string {
	if f.stage == "version" && f.armed.CompareAndSwap(true, false) {
		f.blow("version")
	}
	if f.stage == "reconsider" && f.dialled.Load() {
		return "another" // a policy that has come into force meanwhile
	}
	return f.Decider.Version()
}

func (f *fuse) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if name == boom {
		f.blow("lookup")
	}
	return f.Resolver.Lookup(ctx, name)
}

// Observe tells the real one first: what is on record is looked at later.
func (f *fuse) Observe(e flow.Event) {
	f.Recorder.Observe(e)
	if e.Record.Host != boom {
		return
	}
	switch e.Kind {
	case flow.Opened:
		f.blow("opened")
	case flow.Closed:
		f.blow("closed")
	case flow.Denied:
		f.blow("denied")
	}
}

func (f *fuse) id() string {
	if f.stage == "id" && f.armed.CompareAndSwap(true, false) {
		f.blow("id")
	}
	return flow.NewID()
}

// connect is the dialer's one attempt. It goes to the echoing origin, whatever
// the port: raw TLS is always for 443.
func (f *fuse) connect(s *Server, port int) func(context.Context, netip.AddrPort, vetFunc) (*net.TCPConn, error) {
	return func(ctx context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
		if f.armed.Load() {
			f.blow("connect")
		}
		at := netip.AddrPortFrom(addr.Addr(), uint16(port))
		c, err := connectTo(ctx, at, func(a netip.AddrPort) error {
			if f.stage != "vet" || !f.armed.Load() {
				return vet(a)
			}
			f.mu.Lock() // the addresses of a race are vetted at one time
			defer f.mu.Unlock()
			f.blown.Add(1)
			self := s.self
			s.self = nil // the guard asks it
			defer func() { s.self = self }()
			return vet(a)
		})
		f.dialled.Store(true)
		return c, err
	}
}

// ways are the ways in, each as what the client sends; what begins with a
// CONNECT is waited for an answer before the rest is sent.
func panicWays(t *testing.T, port int) map[string][]string {
	t.Helper()
	connect := fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\n\r\n", boom, port)
	return map[string][]string{
		"CONNECT":        {connect, "some bytes"},
		"CONNECT, early": {connect + "some bytes"},
		"CONNECT, TLS":   {"CONNECT " + boom + ":443 HTTP/1.1\r\n\r\n", string(hostileHello(t, boom))},
		"TLS":            {string(hostileHello(t, boom))},
		"HTTP":           {fmt.Sprintf("GET http://%s:%d/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n", boom, port+1)},
		"HTTP, body":     {fmt.Sprintf("POST http://%s:%d/ HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 4\r\n\r\nbody", boom, port+1)},
	}
}

// TestPanicEverywhere injects a panic into every call that leaves the package,
// on every way in. Each costs the one connection on which it happens: others
// go on, the attempt is on record as proxy_internal_error, and no descriptor,
// goroutine, flight or count is left behind.
func TestPanicEverywhere(t *testing.T) {
	for _, c := range []struct {
		stage   string
		outcome flow.Outcome // "" where the record itself is what panics
		addrs   []string
	}{
		{"version", flow.OutcomeInternalError, one()},
		{"decide", flow.OutcomeInternalError, one()},
		{"reconsider", flow.OutcomeInternalError, one()},
		{"lookup", flow.OutcomeInternalError, one()},
		{"connect", flow.OutcomeInternalError, one()},
		{"vet", flow.OutcomeInternalError, one()},
		{"vet", flow.OutcomeInternalError, two()}, // a race, on goroutines of its own
		{"opened", flow.OutcomeInternalError, one()},
		{"closed", "", one()},
		{"denied", "", nil}, // prohibited
		{"id", "", one()},
	} {
		for way := range panicWays(t, 1) {
			t.Run(fmt.Sprintf("%s of %d, %s", c.stage, len(c.addrs), way), func(t *testing.T) {
				panicOnce(t, c.stage, way, c.outcome, c.addrs)
			})
		}
	}
}

func one() []string { return []string{"127.0.0.1"} }
func two() []string { return []string{"127.0.0.1", "127.0.0.2"} }

func panicOnce(t *testing.T, stage, way string, outcome flow.Outcome, addrs []string) {
	t.Helper()
	port := tcpOrigin(t, answerOnce)
	calmPort := tcpOrigin(t, echo)
	r := newRig(t, allow("tcp", port, boom)+allow("http", port+1, boom)+allow("tcp", calmPort, calm)+
		fmt.Sprintf("  - {name: tls, hosts: [%s], resolves_to: [127.0.0.0/8]}\n", boom))
	f := &fuse{Decider: r.policy, Resolver: r.resolver, Recorder: r.events, stage: stage}
	r.deps.Decider, r.deps.Resolver, r.deps.Recorder, r.deps.NewID = f, f, f, f.id
	r.resolver.set(calm, "127.0.0.1")
	if addrs == nil {
		addrs = []string{"10.0.0.1"}
	}
	r.resolver.set(boom, addrs...)

	beside := r.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\n\r\n", calm, calmPort))
	readHead(t, beside)
	echoes(t, beside)
	r.dialer.connect = f.connect(r.Server, port)
	waitFor(t, func() bool { return len(r.live.list()) == 1 })
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors(t)

	f.armed.Store(true)
	c := r.dial()
	for i, text := range panicWays(t, port)[way] {
		if i > 0 {
			if head := make([]byte, 12); firstError(io.ReadFull(c, head)) != nil || !strings.HasSuffix(string(head), " 200") {
				break // refused: that is how this stage ends
			}
		}
		if _, err := io.WriteString(c, text); err != nil {
			break
		}
	}
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c) // however it ends, as long as it does
	c.Close()
	f.armed.Store(false)

	waitFor(t, func() bool { return r.Active() == 1 })
	if f.blown.Load() == 0 {
		t.Fatal("nothing panicked")
	}
	waitFor(t, func() bool { return len(r.live.list()) == 1 })
	defer func() {
		if t.Failed() {
			listHeld(t, goroutines, descriptors)
		}
	}()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= goroutines && countDescriptors(t) <= descriptors })
	if outcome != "" {
		if rec := r.events.ended(t, boom); rec.Outcome != outcome {
			t.Errorf("outcome %s (%s), want %s", rec.Outcome, rec.Error, outcome)
		}
	}
	echoes(t, beside)
}

func firstError(_ int, err error) error { return err }

// answerOnce is an origin to all of the ways: it echoes, and ends.
func answerOnce(c *net.TCPConn) {
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	if isMethodByte(b[0]) && strings.Contains(string(b[:n]), "HTTP/1.1") {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		return
	}
	_, _ = c.Write(b[:n])
}

func echoes(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatalf("the tunnel beside: %v", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatalf("the tunnel beside: %v", err)
	}
}

// listHeld shows what the process holds, for whoever looks for a leak.
func listHeld(t *testing.T, goroutines, descriptors int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	t.Logf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, stacks[:runtime.Stack(stacks, true)])
	all, _ := os.ReadDir("/proc/self/fd")
	t.Logf("%d descriptors, %d before:", len(all), descriptors)
	for _, e := range all {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		t.Log(e.Name(), to)
	}
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
