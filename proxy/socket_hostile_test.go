package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// watched has the loop watch s.
func watched(t *testing.T, s *socket) {
	t.Helper()
	s.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a read that nothing comes for: %v", err)
	}
}

// TestHostileBytesAtTheDeadline: what comes in the moment in which its reader's
// time is up is still there for the tunnel that takes the socket over, and no
// new event tells of it.
func TestHostileBytesAtTheDeadline(t *testing.T) {
	s, peer := socketPair(t)
	watched(t, s)
	unread := func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.unread }
	peer.Write([]byte("late"))
	waitFor(t, unread)
	if n, err := s.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d, %v", n, err)
	}
	if !unread() {
		t.Error("nobody knows any more of the bytes that wait")
	}
}

// watchedBy counts what an epoll instance watches, closed descriptors included.
func watchedBy(t *testing.T, l *loop) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", l.fd))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "tfd:") {
			n++
		}
	}
	return n
}

// TestHostileDressedSocketIsNotWatched: a tunnel of which the one socket is bare,
// and the other cannot be, goes to the runtime whole. An epoll instance keeps
// watching a descriptor that was closed as long as there is a copy.
func TestHostileDressedSocketIsNotWatched(t *testing.T) {
	s, _ := socketPair(t)
	watched(t, s)
	_, client := socketPair(t)
	client.Close() // no copy is to be had of it, as when there are no descriptors
	tu := &tunnel{loop: s.loop, flight: new(flight), client: sideOf(client), server: sideOf(s)}
	tu.up, tu.down = relay{dst: &tu.server, src: &tu.client}, relay{dst: &tu.client, src: &tu.server}
	if tu.settle() {
		t.Fatal("it is in the loop")
	}
	defer tu.server.close()
	if tu.server.bare {
		t.Fatal("it is bare still")
	}
	if n := watchedBy(t, s.loop); n != 0 {
		t.Errorf("the loop watches %d descriptors that nobody has", n)
	}
}

// TestHostileTunnelHasOneLoop: a client that is not bare has no loop of its own
// before its tunnel, which waits in its origin's then.
func TestHostileTunnelHasOneLoop(t *testing.T) {
	old := runtime.GOMAXPROCS(8)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port)
	for range 8 {
		// One that net/http reads, for it comes in two pieces.
		c := r.send("CONNECT ")
		waitFor(t, func() bool { return r.Active() > 0 })
		fmt.Fprintf(c, "origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
		readHead(t, c)
	}
	waitFor(t, func() bool {
		flights := r.live2().list()
		for _, f := range flights {
			tu := f.tunnel.Load()
			if tu == nil {
				return false
			}
			tu.mu.Lock()
			looped := tu.looped
			if looped && (tu.client.sock.loop != tu.loop || tu.server.sock.loop != tu.loop) {
				t.Error("its sockets wait in different loops")
			}
			tu.mu.Unlock()
			if !looped {
				return false
			}
		}
		return len(flights) == 8
	})
}

// explosive is a Recorder that panics once it has recorded a denial.
type explosive struct{ Recorder }

func (e explosive) Observe(ev flow.Event) {
	e.Recorder.Observe(ev)
	if ev.Kind == flow.Denied {
		panic("boom")
	}
}

// TestHostilePanicClosesTheOrigin: nobody finalizes a bare descriptor.
func TestHostilePanicClosesTheOrigin(t *testing.T) {
	ended := make(chan error, 1)
	port := tcpOrigin(t, func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	r := newRig(t, allow("tls", port, "origin.test"))
	r.deps.Recorder = explosive{r.events}
	r.resolver.set("origin.test", "127.0.0.1")
	c := tunnelTo(t, r, port)
	io.WriteString(c, "this is no TLS")
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("the origin read %v", err)
	}
	waitFor(t, func() bool { return r.Active() == 0 && r.watchesNothing() })
}

// TestHostileBlockedRecorderKeepsNoListener: whose refusal cannot be recorded
// keeps nobody from closing the listener, and so the drain from beginning.
func TestHostileBlockedRecorderKeepsNoListener(t *testing.T) {
	r := newRig(t, allow("tcp", 1, "origin.test"), func(c *Config) { c.Limits.Connections = 1; c.Timeouts.Hello = time.Hour })
	r.events.mu.Lock()
	open := sync.OnceFunc(r.events.mu.Unlock)
	t.Cleanup(open)
	for range 1 + overLimitReserve + 3 {
		if c, err := net.Dial("tcp", r.addr); err == nil { // some are reset at once
			t.Cleanup(func() { c.Close() })
		}
	}
	waitFor(t, func() bool { return goroutineIn("(*attempt).refuse") })
	r.stop()
	waitFor(t, r.front.quiet.Load)
	open()
	r.events.wait(t, "an unanswered refusal", func(e flow.Event) bool {
		return e.Kind == flow.Denied && e.Record.Reason == policy.ReasonLimit
	})
	r.Cut()
	<-r.done
}

// bareFuse is a fuse for origins that are bare sockets: no dialler of the test's
// tells that it has dialled.
type bareFuse struct{ *fuse }

func (f bareFuse) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	f.dialled.Store(name == boom)
	return f.fuse.Lookup(ctx, name)
}

// TestHostilePanicsWithBareOrigins: whatever panics around a bare origin, it is
// closed, nothing waits for it, and the connection beside goes on.
func TestHostilePanicsWithBareOrigins(t *testing.T) {
	for _, stage := range []string{"reconsider", "opened", "closed"} {
		for _, protocol := range []string{"tcp", "tls"} {
			t.Run(stage+", "+protocol, func(t *testing.T) {
				port := tcpOrigin(t, answerOnce)
				r := newRig(t, allow(protocol, port, boom))
				f := bareFuse{&fuse{Decider: r.policy, Resolver: r.resolver, Recorder: r.events, stage: stage}}
				r.deps.Decider, r.deps.Resolver, r.deps.Recorder = f, f, f
				r.resolver.set(boom, "127.0.0.1")
				r.dial().Close() // the loops are there from the first on
				waitFor(t, func() bool { return r.Active() == 0 && r.watchesNothing() })
				before := countDescriptors(t)
				for range 5 {
					c := r.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\n\r\n", boom, port))
					head := make([]byte, 12)
					if _, err := io.ReadFull(c, head); err == nil && strings.HasSuffix(string(head), " 200") {
						c.Write(hostileHello(t, boom))
						c.CloseWrite()
					}
					_, _ = io.Copy(io.Discard, c) // however it ends, as long as it does
					c.Close()
				}
				waitFor(t, func() bool { return r.Active() == 0 && r.watchesNothing() && len(r.live2().list()) == 0 })
				waitFor(t, func() bool { return countDescriptors(t) <= before })
				if f.blown.Load() == 0 {
					t.Error("nothing panicked")
				}
			})
		}
	}
}

// TestHostileFewDescriptors: a tunnel between a client of package net's and a bare
// origin begins when the process has hardly a descriptor left. It may have to wait
// for one, and then carries what it has to, or it is refused; nothing is lost.
func TestHostileFewDescriptors(t *testing.T) {
	for free := 1; free <= 7; free++ {
		t.Run(fmt.Sprintf("%d free", free), func(t *testing.T) {
			port := tcpOrigin(t, echo)
			h := newHouse(t, tls.NoClientCert)
			r := tcpRig(t, port, h.speaks)
			first, _ := h.tunnel(r, port) // whatever opens files once has
			first.Close()
			waitFor(t, func() bool { return r.Active() == 0 })
			c, _ := h.tlsTo(r)
			before := countDescriptors(t)
			restore := exhaust(t, free)
			fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
			time.AfterFunc(300*time.Millisecond, restore)
			head := make([]byte, 12)
			_, err := io.ReadFull(c, head)
			if err == nil && strings.HasSuffix(string(head), " 200") {
				skipHead(c)
				io.WriteString(c, "through")
				got := make([]byte, 7)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "through" {
					t.Errorf("%q, %v", got, err)
				}
			}
			t.Logf("%q, %v", head, err)
			c.Close()
			restore()
			waitFor(t, func() bool { return r.Active() == 0 && r.watchesNothing() })
			defer func() {
				if t.Failed() {
					listHeld(t, 0, before)
				}
			}()
			waitFor(t, func() bool { return countDescriptors(t) <= before })
		})
	}
}

// TestHostileSelfConnect: where nobody listens at a port that the kernel also
// gives away, it may connect a socket to itself, each time. That is no origin.
func TestHostileSelfConnect(t *testing.T) {
	ln, err := net.Listen("tcp", "127.9.8.7:0")
	if err != nil {
		t.Fatal(err)
	}
	at := addrPortOf(ln.Addr())
	ln.Close()
	sockets := func() map[int]bool {
		found := make(map[int]bool)
		all, _ := os.ReadDir("/proc/self/fd")
		for _, e := range all {
			fd, _ := strconv.Atoi(e.Name())
			if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(to, "socket:") {
				found[fd] = true
			}
		}
		return found
	}
	s, _ := socketPair(t)
	before, tries := sockets(), 0
	e, err := s.loop.connect(t.Context(), at, func(netip.AddrPort) error {
		tries++
		for fd := range sockets() {
			if !before[fd] {
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
				return unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}) // as the kernel may
			}
		}
		return errors.New("no socket")
	})
	if err == nil {
		e.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) || tries != connectTries {
		t.Errorf("after %d tries: %v", tries, err)
	}
}
