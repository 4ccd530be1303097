package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func permitAll(netip.AddrPort) error { return nil }

// noLeftovers fails the test if, after every cleanup that the test registers
// from here on, a goroutine is left.
func noLeftovers(t *testing.T) {
	t.Helper()
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, current) })
}

// listen accepts on address and closes everything at the end.
func listen(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", address, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// closedPort is an address of loopback where nothing listens.
func closedPort(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", address, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// blackhole listens with a backlog that is already full, so that the kernel
// drops further SYNs and a connect hangs.
func blackhole(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 8 {
		c, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the kernel does not drop SYNs to a full backlog")
	return addr
}

func TestDialConnects(t *testing.T) {
	noLeftovers(t)
	for _, address := range []string{"127.0.0.2:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			addr := listen(t, address)
			conn, err := new(dialer).dial(t.Context(), nil, []netip.AddrPort{addr}, permitAll)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.RemoteAddr().String(); got != addr.String() {
				t.Errorf("connected to %s, want %s", got, addr)
			}
		})
	}
}

func TestDialPastDeadAddresses(t *testing.T) {
	noLeftovers(t)
	good := listen(t, "127.0.0.1:0")
	for name, bad := range map[string]func() netip.AddrPort{
		"refused":      func() netip.AddrPort { return closedPort(t, "127.0.0.3:0") },
		"refused IPv6": func() netip.AddrPort { return closedPort(t, "[::1]:0") },
		"blackhole":    func() netip.AddrPort { return blackhole(t) },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := new(dialer).dial(t.Context(), nil, []netip.AddrPort{bad(), good}, permitAll)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.RemoteAddr().String(); got != good.String() {
				t.Errorf("connected to %s, want %s", got, good)
			}
		})
	}
}

func TestDialDeadline(t *testing.T) {
	noLeftovers(t)
	hole := blackhole(t)
	for _, addrs := range [][]netip.AddrPort{{hole}, {hole, hole}} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := new(dialer).dial(ctx, nil, addrs, permitAll)
		cancel()
		if r := classify(err); r.outcome != "connection_timeout" {
			t.Errorf("%d addresses: outcome %q of %v, want connection_timeout", len(addrs), r.outcome, err)
		}
	}
}

func TestDialGivenUp(t *testing.T) {
	noLeftovers(t)
	hole := blackhole(t)
	gone := errors.New("the client is gone")
	for _, addrs := range [][]netip.AddrPort{{hole}, {hole, hole}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(20*time.Millisecond, func() { cancel(gone) })
		_, err := new(dialer).dial(ctx, nil, addrs, permitAll)
		timer.Stop()
		if !errors.Is(err, gone) {
			t.Errorf("%d addresses: error %v does not wrap the cause", len(addrs), err)
		}
	}
}

// The guard has the last word, at the moment of dialling, with the address
// that the kernel is given; the next address is still tried.
func TestDialVetsAgain(t *testing.T) {
	noLeftovers(t)
	prohibited, good := listen(t, "127.0.0.4:0"), listen(t, "127.0.0.5:0")
	veto := errors.New("prohibited")
	var asked sync.Map
	vet := func(addr netip.AddrPort) error {
		asked.Store(addr, true)
		if addr == prohibited {
			return veto
		}
		return nil
	}
	if _, err := new(dialer).dial(t.Context(), nil, []netip.AddrPort{prohibited}, vet); !errors.Is(err, veto) {
		t.Errorf("a prohibited address: error %v, want the veto", err)
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(prohibited.Addr().As16()), prohibited.Port())
	if _, err := new(dialer).dial(t.Context(), nil, []netip.AddrPort{mapped}, vet); !errors.Is(err, veto) {
		t.Errorf("a prohibited address, IPv4-mapped: error %v, want the veto", err)
	}
	conn, err := new(dialer).dial(t.Context(), nil, []netip.AddrPort{prohibited, good}, vet)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, ok := asked.Load(good); !ok {
		t.Error("the address that was dialled was not vetted")
	}
	if _, err := new(dialer).dial(t.Context(), nil, []netip.AddrPort{good}, nil); err == nil {
		t.Error("dialled without a guard")
	}
	if _, err := new(dialer).dial(t.Context(), nil, nil, vet); err == nil {
		t.Error("dialled nothing, without an error")
	}
}

// scripted is a fake connect: each address fails or hangs as told.
type scripted struct {
	start   time.Time
	after   map[netip.AddrPort]time.Duration // until the attempt ends; missing: hangs
	errs    map[netip.AddrPort]error         // missing: succeeds
	mu      sync.Mutex
	began   []string // "address at offset"
	running atomic.Int32
}

func (s *scripted) connect(ctx context.Context, addr netip.AddrPort, _ vetFunc) (*net.TCPConn, error) {
	s.running.Add(1)
	defer s.running.Add(-1)
	s.mu.Lock()
	s.began = append(s.began, fmt.Sprintf("%s at %s", addr.Addr(), time.Since(s.start)))
	s.mu.Unlock()
	after, ok := s.after[addr]
	if !ok {
		after = time.Hour
	}
	select {
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	case <-time.After(after):
	}
	if err := s.errs[addr]; err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	return &net.TCPConn{}, nil
}

func TestDialStagger(t *testing.T) {
	ap := netip.MustParseAddrPort
	a4, b4, a6, b6 := ap("192.0.2.1:443"), ap("192.0.2.2:443"), ap("[2001:db8::1]:443"), ap("[2001:db8::2]:443")
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	unreachable := os.NewSyscallError("connect", syscall.ENETUNREACH)
	ms := time.Millisecond
	for _, tt := range []struct {
		name  string
		addrs []netip.AddrPort
		after map[netip.AddrPort]time.Duration
		errs  map[netip.AddrPort]error
		want  []string
		is    error
	}{
		{
			"all hang but the last",
			[]netip.AddrPort{a4, b4, a6, b6},
			map[netip.AddrPort]time.Duration{b4: 10 * ms},
			nil,
			[]string{"2001:db8::1 at 0s", "192.0.2.1 at 250ms", "2001:db8::2 at 500ms", "192.0.2.2 at 750ms"},
			nil,
		},
		{
			"a failure starts the next at once and the clock anew",
			[]netip.AddrPort{a6, b6, a4, b4},
			map[netip.AddrPort]time.Duration{a6: 100 * ms, b4: 0},
			map[netip.AddrPort]error{a6: refused},
			[]string{"2001:db8::1 at 0s", "192.0.2.1 at 100ms", "2001:db8::2 at 350ms", "192.0.2.2 at 600ms"},
			nil,
		},
		{
			"the first answers: nothing else is tried",
			[]netip.AddrPort{a4, a6},
			map[netip.AddrPort]time.Duration{a6: 249 * ms},
			nil,
			[]string{"2001:db8::1 at 0s"},
			nil,
		},
		{
			"refused tells more than unreachable",
			[]netip.AddrPort{a4, a6},
			map[netip.AddrPort]time.Duration{a6: 0, a4: 0},
			map[netip.AddrPort]error{a6: unreachable, a4: refused},
			[]string{"2001:db8::1 at 0s", "192.0.2.1 at 0s"},
			syscall.ECONNREFUSED,
		},
		{
			"a timeout tells more than unreachable",
			[]netip.AddrPort{a4, a6},
			map[netip.AddrPort]time.Duration{a6: 0},
			map[netip.AddrPort]error{a6: unreachable},
			[]string{"2001:db8::1 at 0s", "192.0.2.1 at 0s"},
			context.DeadlineExceeded,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{start: time.Now(), after: tt.after, errs: tt.errs}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := (&dialer{connect: s.connect}).dial(ctx, nil, tt.addrs, permitAll)
				if s.running.Load() != 0 {
					t.Error("an attempt outlived the dial")
				}
				if !slices.Equal(s.began, tt.want) {
					t.Errorf("attempts %q, want %q", s.began, tt.want)
				}
				if (conn != nil) != (tt.is == nil) || !errors.Is(err, tt.is) {
					t.Errorf("got %v, %v, want error %v", conn, err, tt.is)
				}
			})
		})
	}
}

// What is unwrapped is what the outcome table must see; the text tells all.
func TestDialErrorTellsAll(t *testing.T) {
	err := dialFailed(t.Context(), []error{
		os.NewSyscallError("connect", syscall.ENETUNREACH), os.ErrDeadlineExceeded, os.NewSyscallError("connect", syscall.ECONNREFUSED),
	})
	if want := "connect: connection refused; i/o timeout; connect: network is unreachable"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	if errors.Is(err, syscall.ENETUNREACH) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("another than the most telling error is unwrapped")
	}
}

// One address is one connect on the caller's goroutine.
func TestDialSingleSpawnsNothing(t *testing.T) {
	var goid string
	d := &dialer{connect: func(ctx context.Context, _ netip.AddrPort, _ vetFunc) (*net.TCPConn, error) {
		goid = goroutineOf()
		return &net.TCPConn{}, nil
	}}
	if _, err := d.dial(t.Context(), nil, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:443")}, permitAll); err != nil {
		t.Fatal(err)
	}
	if goid != goroutineOf() {
		t.Error("a single address was dialled on another goroutine")
	}
}

// goroutineOf returns the running goroutine's "goroutine N", as a trace names it.
func goroutineOf() string {
	buf := make([]byte, 64)
	id, _, _ := strings.Cut(string(buf[:runtime.Stack(buf, false)]), " [")
	return id
}

func BenchmarkDial(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer func() { l.Close(); <-done }()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			addrs := slices.Repeat([]netip.AddrPort{addr}, n)
			for b.Loop() {
				c, err := new(dialer).dial(b.Context(), nil, addrs, permitAll)
				if err != nil {
					b.Fatal(err)
				}
				c.SetLinger(0)
				c.Close()
			}
		})
	}
}

// An attempt that succeeds too late is closed, and waited for.
func TestDialClosesLosers(t *testing.T) {
	noLeftovers(t)
	winner, loser := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.2:0")
	var late *net.TCPConn
	d := &dialer{connect: func(ctx context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
		if addr == winner {
			return connectTo(ctx, addr, vet)
		}
		<-ctx.Done() // the winner is known
		conn, err := connectTo(context.WithoutCancel(ctx), addr, vet)
		late = conn
		return conn, err
	}}
	conn, err := d.dial(t.Context(), nil, []netip.AddrPort{loser, winner}, permitAll)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != winner.String() {
		t.Errorf("connected to %s, want %s", conn.RemoteAddr(), winner)
	}
	if err := late.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the late connection is open: %v", err)
	}
}

// TestDialBindsNothing: a port that was bound before it was connected is
// nobody else's, though what it leads to is another address.
func TestDialBindsNothing(t *testing.T) {
	first, second := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	conn, err := connectTo(t.Context(), first, permitAll)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	port := addrPortOf(conn.LocalAddr()).Port()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	only := int(port)<<16 | int(port) // the highest and the lowest port to choose from
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, only); err != nil {
		t.Skipf("a socket cannot be told its port without binding it: %v", err) // Linux before 6.3
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: second.Addr().As4(), Port: int(second.Port())}); err != nil {
		t.Errorf("port %d leads to %s and can lead nowhere else: %v", port, first, err)
	}
}
