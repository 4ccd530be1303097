package steer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport/sallyport/policy"
)

// patience bounds what must happen; it is no measure.
const patience = 30 * time.Second

func exchange(t testing.TB, network, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: patience}
	r, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", network, addr, err)
	}
	return r
}

// TestServe asks every family and protocol, and the second of two addresses:
// an answer from another address than the one that was asked nobody takes.
func TestServe(t *testing.T) {
	for _, tt := range []struct {
		bind string
		ask  []string
	}{
		{"127.0.0.1:0", []string{"127.0.0.1"}},
		{":0", []string{"127.0.0.1", "127.0.0.2", "::1"}},
		{"0.0.0.0:0", []string{"127.0.0.1", "127.0.0.3"}},
		{"[::1]:0", []string{"::1"}},
	} {
		t.Run(tt.bind, func(t *testing.T) {
			s, recorded := newServer(t, func(c *Config, _ *Deps) { c.Address = tt.bind })
			start(t, s)
			for _, host := range tt.ask {
				at := netip.AddrPortFrom(netip.MustParseAddr(host), s.Addr().Port()).String()
				for _, network := range []string{"udp", "tcp"} {
					if got := told(exchange(t, network, at, query("site.test", dns.TypeA))); got != "NOERROR 203.0.113.10 203.0.113.11" {
						t.Errorf("%s %s: got %q", network, at, got)
					}
				}
			}
			exchange(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr(tt.ask[0]), s.Addr().Port()).String(), query("evil.test", dns.TypeA))
			if all := recorded.take(); len(all) != 1 || all[0].Client.Addr() != netip.MustParseAddr(tt.ask[0]) || all[0].Datagram {
				t.Errorf("got %+v", all)
			}
		})
	}
}

// TestPipeline sends many questions before it reads an answer.
func TestPipeline(t *testing.T) {
	s, _ := newServer(t, nil)
	start(t, s)
	c := dial(t, s)
	const n = 300
	go func() {
		for i := range n {
			m := query("site.test", dns.TypeA)
			m.Id = uint16(i)
			wire, err := m.Pack()
			if err != nil {
				panic(err)
			}
			if _, err := c.Write(frame(wire)); err != nil {
				return // the reader says so
			}
		}
	}()
	buf := make([]byte, maxTCPQuestion)
	for i := range n {
		wire, err := readFrame(c, buf)
		if err != nil {
			t.Fatal(err)
		}
		if id := binary.BigEndian.Uint16(wire); id != uint16(i) {
			t.Fatalf("answer %d is to question %d", i, id)
		}
	}
}

func dial(t testing.TB, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// gone waits for the server to close a connection.
func gone(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n > 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("%d bytes, %v: the connection is still open", n, err)
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// TestHostileTCP: silence, a length without a message, a message that is too
// long, and rubbish end a connection, and nothing else.
func TestHostileTCP(t *testing.T) {
	for name, sent := range map[string][]byte{
		"silence": nil, "half a length": {0}, "no message": {0, 40}, "too long": {0xff, 0xff, 1, 2, 3},
		"empty": {0, 0}, "an answer": append([]byte{0, 12, 0, 1, 0x80}, make([]byte, 9)...),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newServer(t, func(c *Config, _ *Deps) { c.Idle = 100 * time.Millisecond })
			start(t, s)
			c := dial(t, s)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			gone(t, c)
			if got := told(exchange(t, "tcp", s.Addr().String(), query("site.test", dns.TypeA))); got != "NOERROR 203.0.113.10 203.0.113.11" {
				t.Errorf("the next client got %q", got)
			}
		})
	}
}

// TestTooManyConnections: those beyond the bound are closed, the others stay.
func TestTooManyConnections(t *testing.T) {
	s, _ := newServer(t, func(c *Config, _ *Deps) { c.PerSource, c.Idle = 3, patience })
	start(t, s)
	kept := []net.Conn{dial(t, s), dial(t, s), dial(t, s)}
	gone(t, dial(t, s))
	wire, err := query("site.test", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range kept {
		if _, err := c.Write(frame(wire)); err != nil {
			t.Fatal(err)
		}
		if _, err := readFrame(c, make([]byte, maxTCPQuestion)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Stats().Dropped != 1 {
		t.Errorf("got %+v", s.Stats())
	}
}

// TestBusy: while nobody can be identified, questions wait up to a bound, the
// rest is dropped; those that wait are answered before Run returns.
func TestBusy(t *testing.T) {
	asked, release := make(chan struct{}, 16), make(chan struct{})
	s, _ := newServer(t, func(c *Config, d *Deps) {
		c.Questions, c.Patience = 2, patience
		d.Identifier = identify(func(_ context.Context, src policy.Source) policy.Source {
			asked <- struct{}{}
			<-release
			return src
		})
	})
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wire, err := query("site.test", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := c.Write(wire); err != nil {
			t.Fatal(err)
		}
	}
	<-asked
	<-asked
	for deadline := time.Now().Add(patience); s.Stats().Dropped < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("got %+v", s.Stats())
		}
		pause(ctx, time.Millisecond)
	}
	stop()
	close(release)
	running.Wait()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Read(make([]byte, 1500)); err != nil {
			t.Errorf("a question that was read has no answer: %v", err)
		}
	}
	if st := s.Stats(); st.Allowed != 2 || st.Dropped != 3 {
		t.Errorf("got %+v", st)
	}
}

// TestStop: an open connection holds nobody up.
func TestStop(t *testing.T) {
	s, _ := newServer(t, func(c *Config, _ *Deps) { c.Idle = time.Hour })
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	dial(t, s)
	exchange(t, "udp", s.Addr().String(), query("site.test", dns.TypeA))
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if ln, err := net.Listen("tcp", s.Addr().String()); err != nil {
		t.Error(err)
	} else {
		ln.Close()
	}
}

// TestTaken: a port that is taken for either protocol is an error, and leaves
// nothing open.
func TestTaken(t *testing.T) {
	// Another process may hold the same number by TCP, and never five in a row.
	for range 5 {
		taken, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { taken.Close() })
		s, _ := newServer(t, func(c *Config, _ *Deps) { c.Address = taken.LocalAddr().String() })
		if err := s.Listen(t.Context()); err == nil {
			t.Fatal("two servers on one port")
		}
		ln, err := net.Listen("tcp", taken.LocalAddr().String())
		if err == nil {
			ln.Close()
			return
		}
		t.Log(err)
	}
	t.Error("the failed server leaves its socket open")
}
