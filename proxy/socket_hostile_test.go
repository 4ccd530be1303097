package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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
