package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
)

// resting waits until n tunnels rest.
func resting(t *testing.T, r *rig, n int) {
	t.Helper()
	waitFor(t, func() bool {
		tunnels := 0
		for _, l := range r.loops {
			l.mu.Lock()
			tunnels += l.tunnels
			l.mu.Unlock()
		}
		return tunnels == n
	})
}

// restingTunnel opens a tunnel to an origin that the test speaks for, and waits
// until it rests.
func restingTunnel(t *testing.T, opts ...func(*Config)) (r *rig, client, origin *net.TCPConn) {
	t.Helper()
	accepted := make(chan *net.TCPConn, 1)
	hold := make(chan struct{})
	port := tcpOrigin(t, func(c *net.TCPConn) {
		accepted <- c
		<-hold
	})
	t.Cleanup(func() { close(hold) })
	r = tcpRig(t, port, opts...)
	client = tunnelTo(t, r, port)
	origin = <-accepted
	resting(t, r, 1)
	return r, client, origin
}

func say(t *testing.T, from, to *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("%q arrived as %q, %v", text, got, err)
	}
}

func TestRestingTunnelWakes(t *testing.T) {
	r, client, origin := restingTunnel(t)
	for range 2 {
		say(t, client, origin, "from the client")
		say(t, origin, client, "from the origin")
		resting(t, r, 1)
		say(t, origin, client, "from the origin first")
		resting(t, r, 1)
	}
	// The end of either side is an event like any other.
	client.CloseWrite()
	if n, err := origin.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the origin read %d, %v", n, err)
	}
	resting(t, r, 1)
	say(t, origin, client, "after the client's end")
	origin.CloseWrite()
	if n, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the client read %d, %v", n, err)
	}
	rec := r.events.ended(t, "origin.test")
	if rec.Outcome != flow.OutcomeOK || rec.BytesSent != 30 || rec.BytesReceived != 94 {
		t.Errorf("outcome %s, %d bytes sent, %d received: %s", rec.Outcome, rec.BytesSent, rec.BytesReceived, rec.Error)
	}
}

// TestRestingTunnelKeepsAlive finds keepalive on while a tunnel rests.
func TestRestingTunnelKeepsAlive(t *testing.T) {
	r, _, _ := restingTunnel(t)
	for _, f := range r.live2().list() {
		tu := f.tunnel.Load()
		waitFor(t, func() bool {
			tu.mu.Lock()
			defer tu.mu.Unlock()
			return tu.alive
		})
		tu.mu.Lock()
		checkKeepAlive(t, tu.client.fd)
		checkKeepAlive(t, tu.server.fd)
		tu.mu.Unlock()
	}
}

func checkKeepAlive(t *testing.T, fd int) {
	t.Helper()
	for _, o := range []struct {
		name              string
		level, opt, value int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	} {
		if got, err := unix.GetsockoptInt(fd, o.level, o.opt); err != nil || got != o.value {
			t.Errorf("%s = %d, %v, want %d", o.name, got, err, o.value)
		}
	}
}

func TestRestingTunnelPassesAResetOn(t *testing.T) {
	r, client, origin := restingTunnel(t)
	origin.SetLinger(0)
	origin.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read %v, want a reset", err)
	}
	if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByOrigin {
		t.Errorf("ended by %q", rec.EndedBy)
	}
}

func TestRestingTunnelIsCut(t *testing.T) {
	t.Run("when idle for too long", func(t *testing.T) {
		r, client, _ := restingTunnel(t, func(c *Config) { c.Timeouts.Idle = 3 * time.Second })
		io.Copy(io.Discard, client)
		if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByIdle {
			t.Errorf("ended by %q", rec.EndedBy)
		}
	})
	t.Run("by a new policy", func(t *testing.T) {
		r, client, _ := restingTunnel(t)
		r.setPolicy(allow("tcp", 1, "other.test"))
		if n := r.PolicyChanged(); n != 1 {
			t.Errorf("%d were cut", n)
		}
		io.Copy(io.Discard, client)
		if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByPolicy {
			t.Errorf("ended by %q", rec.EndedBy)
		}
	})
	t.Run("by the end of a drain", func(t *testing.T) {
		r, client, _ := restingTunnel(t, func(c *Config) { c.Timeouts.Drain = 100 * time.Millisecond })
		r.stop()
		<-r.done
		io.Copy(io.Discard, client)
		if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByDrain {
			t.Errorf("ended by %q", rec.EndedBy)
		}
	})
}

// TestRestingTunnelsHoldNothing counts what idle tunnels hold: their sockets.
func TestRestingTunnelsHoldNothing(t *testing.T) {
	const n = 200
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port)
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	fds, routines := descriptors(), runtime.NumGoroutine()
	for range n {
		c := tunnelTo(t, r, port)
		io.WriteString(c, "x")
		io.ReadFull(c, make([]byte, 1))
	}
	resting(t, r, n)
	// Of each tunnel the test holds two sockets and the echo's goroutine, with
	// the two descriptors of a pipe; the rest is the proxy's.
	if got := descriptors() - fds - 4*n; got > 2*n+8 {
		t.Errorf("%d tunnels hold %d descriptors, want two each", n, got)
	}
	if got := runtime.NumGoroutine() - routines - n; got > 8 {
		t.Errorf("%d tunnels hold %d goroutines, want none", n, got)
	}
}

// TestTunnelRestsInAStream stops and starts a stream often, so that it goes to
// rest in every state, and compares what arrives.
func TestTunnelRestsInAStream(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port)
	c := tunnelTo(t, r, port)
	const rounds = 200
	block := make([]byte, 100_000)
	for i := range block {
		block[i] = byte(i * 7)
	}
	var writer sync.WaitGroup
	defer writer.Wait()
	stop := make(chan struct{})
	defer close(stop)
	writer.Go(func() { // what the sweep does once a second, all the time
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, f := range r.live2().list() {
				f.tunnel.Load().rest()
			}
			runtime.Gosched()
		}
	})
	got := make([]byte, len(block))
	for i := range rounds {
		size := 1 + i*len(block)/rounds
		go c.Write(block[:size])
		if _, err := io.ReadFull(c, got[:size]); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		for j := range got[:size] {
			if got[j] != block[j] {
				t.Fatalf("round %d differs at %d", i, j)
			}
		}
	}
}
