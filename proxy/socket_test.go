package proxy

import (
	"bytes"
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
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waits reports whether as many owners wait for their socket.
func (r *rig) waits(n int) bool {
	asleep := 0
	if r.Counts().Accepted == 0 { // the loops are there from the first on
		return false
	}
	for _, l := range r.loops {
		l.mu.Lock()
		places := append([]place(nil), l.places...)
		l.mu.Unlock()
		for _, p := range places {
			if p.socket != nil {
				p.socket.mu.Lock()
				if p.socket.asleep {
					asleep++
				}
				p.socket.mu.Unlock()
			}
		}
	}
	return asleep == n
}

// watchesNothing reports whether the loops watch nothing.
func (r *rig) watchesNothing() bool {
	if r.Counts().Accepted == 0 { // the loops are there from the first on
		return false
	}
	for _, l := range r.loops {
		l.mu.Lock()
		n := len(l.places) - len(l.free)
		l.mu.Unlock()
		if n != 0 {
			return false
		}
	}
	return true
}

// socketPair returns a socket of its own loop, and its peer.
func socketPair(t *testing.T) (*socket, *net.TCPConn) {
	t.Helper()
	l, err := openLoop()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.run(ctx) }()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	e, err := l.connect(t.Context(), addrPortOf(ln.Addr()), permitAll)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		peer.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e.(*socket), peer.(*net.TCPConn)
}

func TestSocketReadsAndWrites(t *testing.T) {
	s, peer := socketPair(t)
	block := make([]byte, 8<<20) // more than all buffers hold
	for i := range block {
		block[i] = byte(i * 11)
	}
	for name, ends := range map[string][2]net.Conn{"out": {s, peer}, "in": {peer, s}} {
		wrote := make(chan error)
		go func() { _, err := ends[0].Write(block); wrote <- err }()
		got := make([]byte, len(block))
		if _, err := io.ReadFull(ends[1], got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := <-wrote; err != nil || !bytes.Equal(got, block) {
			t.Errorf("%s: %v, or other bytes", name, err)
		}
	}
	if s.LocalAddr().String() != peer.RemoteAddr().String() || s.RemoteAddr().String() != peer.LocalAddr().String() {
		t.Errorf("from %s to %s, and the other end says to %s from %s", s.LocalAddr(), s.RemoteAddr(), peer.RemoteAddr(), peer.LocalAddr())
	}
	if err := s.CloseWrite(); err != nil {
		t.Error(err)
	}
	if n, err := peer.Read(block); !errors.Is(err, io.EOF) {
		t.Errorf("the peer read %d, %v", n, err)
	}
	peer.CloseWrite()
	if n, err := s.Read(block); !errors.Is(err, io.EOF) {
		t.Errorf("the socket read %d, %v", n, err)
	}
}

// TestSocketDeadlines has each kind of wait end by a deadline that was set before
// it, or by somebody else meanwhile.
func TestSocketDeadlines(t *testing.T) {
	write := func(s *socket) error { _, err := s.Write(make([]byte, 32<<20)); return err }
	read := func(s *socket) error { _, err := s.Read(make([]byte, 1)); return err }
	for name, wait := range map[string]func(*socket) error{"read": read, "write": write} {
		for when, set := range map[string]func(*socket){
			"before":    func(s *socket) { s.SetDeadline(time.Now().Add(20 * time.Millisecond)) },
			"past":      func(s *socket) { s.SetDeadline(time.Unix(1, 0)) },
			"meanwhile": func(*socket) {},
			"put off": func(s *socket) {
				s.SetDeadline(time.Now().Add(time.Hour))
				s.SetDeadline(time.Now().Add(20 * time.Millisecond))
			},
		} {
			t.Run(name+", "+when, func(t *testing.T) {
				s, _ := socketPair(t)
				set(s)
				ended := make(chan error)
				go func() { ended <- wait(s) }()
				if when == "meanwhile" {
					waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.asleep })
					interrupt(s)
				}
				err := <-ended
				ne, ok := errors.AsType[net.Error](err)
				if !errors.Is(err, os.ErrDeadlineExceeded) || !ok || !ne.Timeout() {
					t.Errorf("it ended with %v", err)
				}
				if err := wait(s); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("once more: %v", err)
				}
				s.SetDeadline(time.Time{})
				if n, err := s.Write(nil); n != 0 || err != nil {
					t.Errorf("without a deadline: %d, %v", n, err)
				}
			})
		}
	}
}

// TestSocketEnds has the peer vanish while the owner waits, in both ways.
func TestSocketEnds(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(*net.TCPConn)
		want error
	}{
		"closed": {func(c *net.TCPConn) { c.Close() }, io.EOF},
		"reset":  {reset, unix.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			s, peer := socketPair(t)
			ended := make(chan error)
			go func() { _, err := s.Read(make([]byte, 1)); ended <- err }()
			waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.asleep })
			end.do(peer)
			if err := <-ended; !errors.Is(err, end.want) {
				t.Errorf("the owner read %v, want %v", err, end.want)
			}
		})
	}
}

// TestClosedSocketNamesNoDescriptor: others may be about to set a deadline, or
// the loop to tell of something, when the number is somebody else's already.
func TestClosedSocketNamesNoDescriptor(t *testing.T) {
	s, peer := socketPair(t)
	s.SetReadDeadline(time.Now().Add(time.Millisecond))
	s.Read(make([]byte, 1)) // so that it is watched
	l, old := s.loop, s.ticket
	if old == (ticket{}) {
		t.Fatal("it is not watched")
	}
	fd := s.fd
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := l.connect(t.Context(), addrPortOf(peer.LocalAddr()), permitAll)
	if err == nil {
		defer other.Close()
		t.Logf("descriptor %d, then %d", fd, other.(*socket).fd)
	}
	if got := l.find(old.event(unix.EPOLLIN)); got != nil {
		t.Errorf("an old event is about %v", got)
	}
	if s.SetDeadline(time.Now()) == nil || s.CloseWrite() == nil || s.Close() == nil || s.SetLinger(0) == nil {
		t.Error("something was done to a closed socket")
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading: %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing: %v", err)
	}
	s.happen(unix.EPOLLIN, nil, time.Now())
}

// TestConnectIsJudgedAndGivenUp: an address is vetted at the moment of
// connecting, a panic of the guard's costs no descriptor, and a connection that
// does not come about is waited for only as long as it may.
func TestConnectIsJudgedAndGivenUp(t *testing.T) {
	noLeftovers(t)
	l, err := openLoop()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.run(ctx) }()
	defer func() { cancel(); <-ended }()
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := descriptors()
	at := netip.MustParseAddrPort("127.0.0.1:1")
	if _, err := l.connect(t.Context(), at, permitAll); !errors.Is(err, unix.ECONNREFUSED) || !strings.HasPrefix(err.Error(), "dial tcp 127.0.0.1:1: connect: ") {
		t.Errorf("nobody listens: %v", err)
	}
	no := errors.New("no")
	_, err = l.connect(t.Context(), at, func(got netip.AddrPort) error {
		if got != at {
			t.Errorf("vetted %s", got)
		}
		return no
	})
	if _, ok := errors.AsType[*vetoError](err); !ok || !errors.Is(err, no) {
		t.Errorf("denied: %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = l.connect(t.Context(), at, func(netip.AddrPort) error { panic("guard") })
		t.Error("no panic")
	}()
	// Whoever listens and accepts nothing lets two connections in.
	full, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	if err := errors.Join(unix.Bind(full, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(full, 0)); err != nil {
		t.Fatal(err)
	}
	before++
	at = localAddrOf(full)
	for range 4 {
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		var e endpoint
		if e, err = l.connect(short, at, permitAll); err == nil {
			t.Cleanup(func() { e.Close() })
			before++
		}
		cancel()
	}
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("nobody answers: %v", err)
	}
	short, stop := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, stop)
	if _, err := l.connect(short, at, permitAll); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if got := descriptors(); got != before {
		t.Errorf("%d descriptors, want %d", got, before)
	}
}

// TestSilentConnections: whoever says nothing in time is let go, and nothing is
// left of the wait; a cut ends it at once.
func TestSilentConnections(t *testing.T) {
	const n = 50
	t.Run("until the deadline", func(t *testing.T) {
		r := tcpRig(t, tcpOrigin(t, echo), func(c *Config) { c.Timeouts.Hello = 300 * time.Millisecond })
		for range n {
			c := r.dial()
			t.Cleanup(func() { c.Close() })
		}
		waitFor(t, func() bool { return r.Counts().Accepted >= n && r.Active() == 0 && r.watchesNothing() })
	})
	t.Run("until they are cut", func(t *testing.T) {
		r := tcpRig(t, tcpOrigin(t, echo), func(c *Config) { c.Timeouts.Hello = time.Hour; c.Timeouts.Drain = time.Millisecond })
		for range n {
			c := r.dial()
			t.Cleanup(func() { c.Close() })
		}
		waitFor(t, func() bool { return r.waits(n) })
		r.stop()
		<-r.done
		if r.Active() != 0 || !r.watchesNothing() {
			t.Errorf("%d are left", r.Active())
		}
	})
	t.Run("until they go", func(t *testing.T) {
		r := tcpRig(t, tcpOrigin(t, echo), func(c *Config) { c.Timeouts.Hello = time.Hour })
		var all []*net.TCPConn
		for range n {
			all = append(all, r.dial())
		}
		waitFor(t, func() bool { return r.waits(n) })
		for i, c := range all {
			if i%2 == 0 {
				c.SetLinger(0)
			}
			c.Close()
		}
		waitFor(t, func() bool { return r.Active() == 0 && r.watchesNothing() })
	})
}

// TestVanishAtEveryStage has clients leave behind every piece of what they would
// have to send, politely and not, and looks for what is left of them.
func TestVanishAtEveryStage(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port)
	connect := fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	text := connect + strings.Repeat("x", 100)
	var clients sync.WaitGroup
	routines := runtime.NumGoroutine()
	for i := range len(text) {
		clients.Go(func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, text[:i])
			switch i % 4 {
			case 0:
				reset(c.(*net.TCPConn))
			case 1:
				c.Close()
			case 2:
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
				c.Close()
			case 3:
				c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				io.Copy(io.Discard, c)
				c.Close()
			}
		})
	}
	clients.Wait()
	waitFor(t, func() bool { return r.Active() == 0 && r.watchesNothing() && len(r.live2().list()) == 0 })
	waitFor(t, func() bool { return runtime.NumGoroutine() <= routines+8 })
	r.events.check(t)
}

// TestEarlyEndIsSeen: what has happened to a socket before its tunnel settles is
// told nobody else: bytes, an end, and more than one read takes.
func TestEarlyEndIsSeen(t *testing.T) {
	for name, size := range map[string]int{"an end": 0, "little": 100, "a full buffer": sniffSize, "more": 3*sniffSize + 1} {
		t.Run(name, func(t *testing.T) {
			got := make(chan int, 1)
			port := tcpOrigin(t, func(c *net.TCPConn) {
				all, _ := io.ReadAll(c)
				got <- len(all)
				io.WriteString(c, "done")
			})
			r := tcpRig(t, port)
			for range 20 {
				c := r.dial()
				fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port)
				if size%2 == 0 {
					readHead(t, c) // so that what follows is waited for
				}
				c.Write(make([]byte, size))
				c.CloseWrite()
				if n := <-got; n != size {
					t.Errorf("the origin got %d bytes, want %d", n, size)
				}
				if all, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(all), "done") {
					t.Errorf("the client got %q, %v", all, err)
				}
				c.Close()
			}
		})
	}
}

// TestOriginThatSpeaksFirst: what comes while a connection is being made is told
// along with it.
func TestOriginThatSpeaksFirst(t *testing.T) {
	port := tcpOrigin(t, func(c *net.TCPConn) {
		io.WriteString(c, "220 ready")
		io.Copy(io.Discard, c)
	})
	r := tcpRig(t, port)
	var clients sync.WaitGroup
	for range 300 {
		clients.Go(func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(15 * time.Second))
			fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port)
			const want = "HTTP/1.1 200 Connection established\r\n\r\n220 ready"
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	clients.Wait()
}

// TestNoDelayIsInherited: it is set on the listener, once.
func TestNoDelayIsInherited(t *testing.T) {
	a := newArena(t)
	e := a.open()
	e.between.mu.Lock()
	defer e.between.mu.Unlock()
	for _, s := range []*side{&e.between.client, &e.between.server} {
		if on, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on == 0 {
			t.Errorf("TCP_NODELAY is %d, %v", on, err)
		}
	}
}

// TestLoopThatCannotGoOn: what it has settled is carried by goroutines, what waits
// in it is let go, and what comes is package net's.
func TestLoopThatCannotGoOn(t *testing.T) {
	a := newArena(t)
	e := a.open()
	silent := a.dial()
	waitFor(t, func() bool { return a.waits(1) })
	for _, l := range a.loops {
		l.empty()
	}
	if n, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the silent one read %d, %v", n, err)
	}
	waitFor(t, func() bool { return !e.looped() })
	say(t, e.client, e.origin, "still")
	say(t, e.origin, e.client, "there")
	client, origin := tunnelTo(t, a.rig, a.port), <-a.accepted
	say(t, client, origin, "all")
	say(t, origin, client, "the same")
}
