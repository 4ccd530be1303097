package ipfix

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
)

// patience is when a test gives up on what must happen.
const patience = 60 * time.Second

func numbered(i int) flow.Event {
	e := flow.Event{Kind: flow.Closed, Record: base()}
	e.Record.ID, e.Record.BytesSent = fmt.Sprintf("flow-%05d", i), int64(i)
	return e
}

// running starts x.Run; its end stops it.
func running(t *testing.T, x *Exporter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := x.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = func() { cancel(); group.Wait() }
	t.Cleanup(stop)
	return stop
}

func exporter(t *testing.T, c Config) *Exporter {
	t.Helper()
	c.Domain = 7
	x, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func at(network string, addr net.Addr) Collector {
	ap := netip.MustParseAddrPort(addr.String())
	return Collector{Network: network, Host: ap.Addr().String(), Port: ap.Port()}
}

func listenUDP(t *testing.T) net.PacketConn {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	if err := pc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return pc
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	l := ln.(*net.TCPListener)
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return l
}

// datagrams reads until the collector has n flows.
func (c *collector) datagrams(pc net.PacketConn, n, mtu int) {
	c.tb.Helper()
	buf := make([]byte, 64<<10)
	for len(c.flows) < n {
		size, _, err := pc.ReadFrom(buf)
		if err != nil {
			c.tb.Fatalf("%d of %d flows: %v", len(c.flows), n, err)
		}
		if size > mtu-datagramHeaders {
			c.tb.Fatalf("a datagram of %d octets for an MTU of %d", size, mtu)
		}
		c.take(bytes.Clone(buf[:size]))
	}
}

// stream reads one message of a TCP connection.
func (c *collector) stream(conn io.Reader) error {
	head := make([]byte, headerLength)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	msg := make([]byte, binary.BigEndian.Uint16(head[2:]))
	copy(msg, head)
	if _, err := io.ReadFull(conn, msg[headerLength:]); err != nil {
		return err
	}
	c.take(msg)
	return nil
}

func TestUDP(t *testing.T) {
	for _, mtu := range []int{MinMTU, DefaultMTU, 9000} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			pc := listenUDP(t)
			x := exporter(t, Config{Collector: at("udp", pc.LocalAddr()), MTU: mtu})
			c := newCollector(t)
			const flows = 200
			stop := running(t, x)
			for i := range flows {
				x.Observe(numbered(i))
				x.Observe(flow.Event{Kind: flow.Opened, Record: base()}) // not its affair
				c.datagrams(pc, i+1, mtu)                                // the socket's buffer is no collector
			}
			stop()
			for i, f := range c.flows {
				if f["1"] != uint64(i) {
					t.Fatalf("flow %d has %v octets", i, f["1"])
				}
			}
			if len(c.names) != len(Elements()) || x.Sent() != flows || x.Dropped() != 0 {
				t.Errorf("%d names, %d sent, %d dropped", len(c.names), x.Sent(), x.Dropped())
			}
		})
	}
}

// A collector that was started late, or anew, learns the templates.
func TestTemplatesAreRepeatedByUDP(t *testing.T) {
	pc := listenUDP(t)
	x := exporter(t, Config{Collector: at("udp", pc.LocalAddr()), TemplateRefresh: time.Nanosecond})
	running(t, x)
	c := newCollector(t)
	x.Observe(numbered(0))
	c.datagrams(pc, 1, DefaultMTU)
	before := c.announced
	for i := 1; c.announced < 3*before; i++ {
		x.Observe(numbered(i))
		c.datagrams(pc, i+1, DefaultMTU)
	}
}

func TestTCPReconnects(t *testing.T) {
	ln := listenTCP(t)
	x := exporter(t, Config{Collector: at("tcp", ln.Addr())})
	running(t, x)
	sent := 0
	observe := func() { x.Observe(numbered(sent)); sent++ }
	for session := range 3 {
		conn := nextSession(t, ln, observe)
		c := newCollector(t) // templates come again, and the sequence begins at 0
		c.sequence = new(uint32)
		for range 10 {
			observe()
			for len(c.flows) == 0 || c.flows[len(c.flows)-1]["1"] != uint64(sent-1) {
				if err := c.stream(conn); err != nil {
					t.Fatalf("session %d, flow %d: %v", session, sent, err)
				}
			}
		}
		_ = conn.Close()
	}
}

// nextSession accepts a connection. The end of the one before is noticed when
// there is something to send: observe makes some flows meanwhile.
func nextSession(t *testing.T, ln net.Listener, observe func()) net.Conn {
	t.Helper()
	type accepted struct {
		conn net.Conn
		err  error
	}
	next := make(chan accepted, 1)
	go func() {
		conn, err := ln.Accept()
		next <- accepted{conn, err}
	}()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case a := <-next:
			if a.err != nil {
				t.Fatal(a.err)
			}
			_ = a.conn.SetDeadline(time.Now().Add(patience))
			return a.conn
		case <-ticker.C:
			observe()
		}
	}
}

// A collector that never reads, and one that is not there, cost flows and
// nothing else: nobody waits, every flow is accounted for, and Run ends.
func TestCollectorThatDoesNotRead(t *testing.T) {
	ln := listenTCP(t)
	silent := at("tcp", ln.Addr())
	gone := listenTCP(t)
	absent := at("tcp", gone.Addr())
	_ = gone.Close()
	unreached := listenUDP(t)
	nobody := at("udp", unreached.LocalAddr())
	_ = unreached.Close()
	tests := []struct {
		name    string
		c       Config
		dropped bool
	}{
		{"accepts and does not read", Config{Collector: silent}, true},
		{"refuses", Config{Collector: absent}, true},
		{"has no name", Config{Collector: Collector{Network: "tcp", Host: "collector.invalid", Port: 4739}, Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return nil, errors.New("no such host")
		}}, true},
		{"is not there by UDP", Config{Collector: nobody}, false}, // nobody can know how many
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Queue = 16
			var said strings.Builder
			tt.c.Log = zerolog.New(&said)
			x := exporter(t, tt.c)
			stop := running(t, x)
			const flows = 30_000
			for i := range flows {
				x.Observe(numbered(i)) // would wait forever if it ever waited
			}
			stop()
			if x.Sent()+x.Dropped() != flows {
				t.Errorf("%d sent and %d dropped of %d", x.Sent(), x.Dropped(), flows)
			}
			if tt.dropped && x.Dropped() == 0 {
				t.Error("nothing was dropped")
			}
			if x.Dropped() > 0 && !strings.Contains(said.String(), "flows were not exported") {
				t.Errorf("the log says %s", said.String())
			}
		})
	}
}

// What waits while the collector is away is delivered when it comes back.
func TestOutageIsBridged(t *testing.T) {
	ln := listenTCP(t)
	to := at("tcp", ln.Addr())
	back := make(chan struct{})
	failed := make(chan struct{}, 1)
	x := exporter(t, Config{
		Collector: Collector{Network: "tcp", Host: "collector.test", Port: to.Port},
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			select {
			case <-back:
				return []netip.Addr{netip.MustParseAddr(to.Host)}, nil
			default:
			}
			select {
			case failed <- struct{}{}:
			default:
			}
			return nil, errors.New("no such host")
		},
	})
	running(t, x)
	<-failed
	for i := range 100 {
		x.Observe(numbered(i))
	}
	close(back)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := newCollector(t)
	for len(c.flows) < 100 {
		if err := c.stream(conn); err != nil {
			t.Fatalf("%d flows: %v", len(c.flows), err)
		}
	}
}

// A collector that moved to another address is followed by UDP, where nobody
// says that it is gone.
func TestCollectorMoves(t *testing.T) {
	var first, second net.PacketConn
	var port uint16
	for second == nil { // a port that is free at both addresses
		first = listenUDP(t)
		port = netip.MustParseAddrPort(first.LocalAddr().String()).Port()
		second, _ = new(net.ListenConfig).ListenPacket(t.Context(), "udp", fmt.Sprintf("127.0.0.2:%d", port))
	}
	defer second.Close()
	_ = second.SetReadDeadline(time.Now().Add(patience))
	var mu sync.Mutex
	addr := netip.MustParseAddr("127.0.0.1")
	x := exporter(t, Config{
		Collector: Collector{Network: "udp", Host: "collector.test", Port: port}, TemplateRefresh: time.Nanosecond,
		Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			if name != "collector.test" {
				t.Errorf("asked for %q", name)
			}
			return []netip.Addr{addr}, nil
		},
	})
	running(t, x)
	x.Observe(numbered(0))
	newCollector(t).datagrams(first, 1, DefaultMTU)
	mu.Lock()
	addr = netip.MustParseAddr("127.0.0.2")
	mu.Unlock()
	x.Observe(numbered(1))
	newCollector(t).datagrams(second, 1, DefaultMTU)
}

func TestParseCollector(t *testing.T) {
	good := map[string]Collector{
		"udp://collector.corp.example:4739": {"udp", "collector.corp.example", 4739},
		"tcp://10.0.0.7:4740":               {"tcp", "10.0.0.7", 4740},
		"tcp://[2001:db8::1]:4739":          {"tcp", "2001:db8::1", 4739},
	}
	for text, want := range good {
		got, err := ParseCollector(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "collector:4739", "http://c:1", "udp://", "udp://c", "udp://c:", "udp://:4739", "udp://c:0", "udp://c:65536", "udp://c:-1",
		"udp://u@c:4739", "udp://c/x:4739", "tcp://a b:1", "UDP://c:1", "udp://::1:4739",
	} {
		if got, err := ParseCollector(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{MTU: MinMTU - 1}); err == nil {
		t.Error("an MTU below the least")
	}
}

// BenchmarkObserve is what a connection pays for its export, and how many
// flows a second reach the kernel meanwhile.
func BenchmarkObserve(b *testing.B) {
	pc, err := new(net.ListenConfig).ListenPacket(b.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer pc.Close()
	x, err := New(Config{Collector: at("udp", pc.LocalAddr()), Domain: 7})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	e := flow.Event{Kind: flow.Closed, Record: base()}
	b.ReportAllocs()
	for b.Loop() {
		x.Observe(e)
	}
	b.ReportMetric(float64(x.Sent())/b.Elapsed().Seconds(), "sent/s")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
