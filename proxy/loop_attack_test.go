package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
)

// arena is a rig whose tunnels all lead to ends that the test holds, and share
// one loop.
type arena struct {
	*rig
	port     int
	accepted chan *net.TCPConn
}

// ends are both ends of a tunnel, and what is between them.
type ends struct {
	client, origin *net.TCPConn
	between        *tunnel
}

func newArena(t *testing.T, opts ...func(*Config)) *arena {
	t.Helper()
	old := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
	a := &arena{accepted: make(chan *net.TCPConn)}
	over := make(chan struct{})
	a.port = tcpOrigin(t, func(c *net.TCPConn) {
		select {
		case a.accepted <- c:
			<-over
		case <-over:
		}
	})
	t.Cleanup(func() { close(over) })
	a.rig = tcpRig(t, a.port, opts...)
	return a
}

// open opens a tunnel and waits until it is in the loop.
func (a *arena) open() *ends {
	a.t.Helper()
	e := &ends{client: tunnelTo(a.t, a.rig, a.port), origin: <-a.accepted}
	waitFor(a.t, func() bool {
		for _, f := range a.live2().list() {
			if t := f.tunnel.Load(); t != nil && t.conn.remote == addrPortOf(e.client.LocalAddr()) {
				e.between = t
				return e.looped()
			}
		}
		return false
	})
	return e
}

func (e *ends) looped() bool {
	e.between.mu.Lock()
	defer e.between.mu.Unlock()
	return e.between.looped
}

// stall keeps the loop from looking at anything until release is called: what
// happens meanwhile comes to it at once.
func (a *arena) stall() (release func()) {
	a.t.Helper()
	e := a.open()
	e.between.mu.Lock()
	if _, err := e.client.Write([]byte("x")); err != nil {
		a.t.Fatal(err)
	}
	waitFor(a.t, func() bool { return goroutineIn("(*tunnel).stir") })
	return e.between.mu.Unlock
}

func goroutineIn(function string) bool {
	buf := make([]byte, 1<<20)
	return bytes.Contains(buf[:runtime.Stack(buf, true)], []byte(function))
}

// closedRecord waits for the record of the tunnel's end.
func (a *arena) closedRecord(e *ends) flow.Record {
	a.t.Helper()
	return a.events.wait(a.t, "the end of the tunnel", func(ev flow.Event) bool {
		return ev.Kind == flow.Closed && ev.Record.Client == e.between.conn.remote
	})
}

// reset closes c with a reset.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// TestLoopPassesUrgentData: a read ends at urgent data, with more behind it
// that no new event tells of.
func TestLoopPassesUrgentData(t *testing.T) {
	a := newArena(t)
	for _, way := range []string{"up", "down"} {
		t.Run(way, func(t *testing.T) {
			e := a.open()
			from, to := e.client, e.origin
			if way == "down" {
				from, to = to, from
			}
			release := a.stall()
			io.WriteString(from, "before")
			raw, _ := from.SyscallConn()
			raw.Write(func(fd uintptr) bool {
				if err := unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil); err != nil && !errors.Is(err, unix.EISCONN) {
					t.Error(err)
				}
				return true
			})
			io.WriteString(from, "after")
			waitFor(t, func() bool { return arrived(t, e.between, 12) })
			release()
			to.SetReadDeadline(time.Now().Add(5 * time.Second))
			got := make([]byte, 11)
			if n, err := io.ReadFull(to, got); err != nil || string(got) != "beforeafter" {
				t.Fatalf("%q arrived, %v", got[:n], err)
			}
			to.SetReadDeadline(time.Now().Add(15 * time.Second))
			say(t, from, to, "and on")
			say(t, to, from, "and back")
		})
	}
}

// arrived reports whether n bytes wait for t on one of its sides.
func arrived(t *testing.T, tu *tunnel, n int) bool {
	t.Helper()
	tu.mu.Lock()
	defer tu.mu.Unlock()
	for _, s := range []*side{&tu.client, &tu.server} {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if info.Bytes_received >= uint64(n) {
			return true
		}
	}
	return false
}

// state returns the TCP state of a tunnel's bare side.
func (e *ends) state(s *side) uint8 {
	e.between.mu.Lock()
	defer e.between.mu.Unlock()
	info, _ := s.info()
	return info.state
}

// TestLoopKeepsTheFirstError: what the client sends with its end cannot be
// written any more. The end that is read behind it does not undo that.
func TestLoopKeepsTheFirstError(t *testing.T) {
	a := newArena(t)
	e := a.open()
	release := a.stall()
	io.WriteString(e.client, "lost")
	e.client.CloseWrite()
	waitFor(t, func() bool { return e.state(&e.between.client) == 8 }) // TCP_CLOSE_WAIT
	reset(e.origin)
	waitFor(t, func() bool { return e.state(&e.between.server) == tcpClose })
	release()
	if _, err := e.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read %v, want a reset", err)
	}
	if rec := a.closedRecord(e); rec.Outcome != flow.OutcomeConnectionTerminated || rec.EndedBy != flow.EndedByOrigin || rec.BytesSent != 0 {
		t.Errorf("outcome %s, ended by %q, %d bytes sent: %s", rec.Outcome, rec.EndedBy, rec.BytesSent, rec.Error)
	}
}

// TestLoopDeliversWhatCameBeforeAReset: an origin that answers and is gone,
// with a reset because the client goes on sending, has answered all the same.
func TestLoopDeliversWhatCameBeforeAReset(t *testing.T) {
	a := newArena(t)
	e := a.open()
	release := a.stall()
	io.WriteString(e.client, "more of the request") // its event is the first
	waitFor(t, func() bool { return arrived(t, e.between, 19) })
	answer := bytes.Repeat([]byte("answer "), 2000)
	e.origin.Write(answer)
	waitFor(t, func() bool { return arrived(t, e.between, len(answer)) })
	reset(e.origin)
	waitFor(t, func() bool { return e.state(&e.between.server) == tcpClose })
	release()
	got, err := io.ReadAll(e.client)
	if !bytes.Equal(got, answer) {
		t.Errorf("%d of %d bytes arrived", len(got), len(answer))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("then came %v, want a reset", err)
	}
	if rec := a.closedRecord(e); rec.Outcome != flow.OutcomeConnectionTerminated || rec.EndedBy != flow.EndedByOrigin || rec.BytesReceived != int64(len(answer)) {
		t.Errorf("outcome %s, ended by %q, %d bytes received: %s", rec.Outcome, rec.EndedBy, rec.BytesReceived, rec.Error)
	}
}

// TestLoopSeesAnEndAndAResetAtOnce: the end hides the reset, which no later
// event tells of. The tunnel must not wait for an origin that has nothing to say.
func TestLoopSeesAnEndAndAResetAtOnce(t *testing.T) {
	a := newArena(t)
	for _, way := range []string{"client", "origin"} {
		t.Run(way, func(t *testing.T) {
			e := a.open()
			gone, stays, side := e.client, e.origin, &e.between.client
			if way == "origin" {
				gone, stays, side = stays, gone, &e.between.server
			}
			release := a.stall()
			io.WriteString(gone, "last")
			gone.CloseWrite()
			waitFor(t, func() bool { return e.state(side) == 8 }) // TCP_CLOSE_WAIT
			reset(gone)
			waitFor(t, func() bool { return e.state(side) == tcpClose })
			release()
			stays.SetReadDeadline(time.Now().Add(5 * time.Second))
			if got, err := io.ReadAll(stays); string(got) != "last" || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the other end read %q, %v", got, err)
			}
			rec := a.closedRecord(e)
			if string(rec.EndedBy) != way {
				t.Errorf("outcome %s, ended by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
			}
		})
	}
}

// TestBlockedDirectionStopsNoOther: an origin that has much to say to a client
// that is not reading goes on hearing what the client says.
func TestBlockedDirectionStopsNoOther(t *testing.T) {
	a := newArena(t)
	e := a.open()
	e.client.SetReadBuffer(4096)
	go e.origin.Write(make([]byte, 32<<20)) // more than all buffers hold
	waitFor(t, func() bool { return !e.looped() })
	stuck := func() int64 { info, _ := e.between.serverInfo(); return int64(info) }
	for last := int64(-1); ; { // until nothing moves
		now := stuck()
		if now > 0 && now == last {
			break
		}
		last = now
		pause(50 * time.Millisecond)
	}
	e.between.rest() // as the sweep does
	pause(50 * time.Millisecond)
	io.WriteString(e.client, "hello")
	e.origin.SetReadDeadline(time.Now().Add(5 * time.Second))
	got := make([]byte, 5)
	if n, err := io.ReadFull(e.origin, got); err != nil {
		t.Errorf("the origin read %d bytes, %v", n, err)
	}
	reset(e.origin)
}

func (t *tunnel) serverInfo() (received uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.server.bare {
		return 0, nil
	}
	raw, err := t.server.tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return info.Bytes_received, nil
}

func pause(d time.Duration) { <-time.After(d) }

// TestStreamEndsByResetIsNoEnd: the direction that writes learns of a reset
// first and takes the error with it; to the one that reads it then looks like an end.
func TestStreamEndsByResetIsNoEnd(t *testing.T) {
	a := newArena(t)
	for i := range 60 {
		e := a.open()
		client := e.client
		var upload sync.WaitGroup
		var written error
		upload.Go(func() {
			block := make([]byte, 64<<10)
			for written == nil {
				_, written = client.Write(block)
			}
		})
		io.CopyN(io.Discard, e.origin, 2<<20)
		e.origin.Write([]byte("half an answer"))
		for range 4 + i%4 {
			io.CopyN(io.Discard, e.origin, 100_000)
		}
		reset(e.origin)
		answer, read := io.ReadAll(client)
		upload.Wait()
		rec := a.closedRecord(e)
		if rec.Outcome != flow.OutcomeConnectionTerminated || rec.EndedBy != flow.EndedByOrigin {
			t.Fatalf("round %d: outcome %s, ended by %q: %s", i, rec.Outcome, rec.EndedBy, rec.Error)
		}
		// Had the end come first, neither would have been told of the reset.
		if !errors.Is(read, syscall.ECONNRESET) && !errors.Is(written, syscall.ECONNRESET) {
			t.Fatalf("round %d: the client read %q and then %v, and writing it was told %v", i, answer, read, written)
		}
		if string(answer) != "half an answer" {
			t.Fatalf("round %d: the client read %q", i, answer)
		}
	}
}

// TestStreamEndsAndIsReset: here there was an end, and then the reset that
// answers what still comes. All was delivered.
func TestStreamEndsAndIsReset(t *testing.T) {
	a := newArena(t)
	for i := range 60 {
		e := a.open()
		var upload sync.WaitGroup
		upload.Go(func() {
			block := make([]byte, 64<<10)
			for {
				if _, err := e.client.Write(block); err != nil {
					return
				}
			}
		})
		io.CopyN(io.Discard, e.origin, int64(1<<20+i*10_000))
		e.origin.Write([]byte("the answer"))
		e.origin.CloseWrite()
		reset(e.origin)
		answer, _ := io.ReadAll(e.client)
		upload.Wait()
		if rec := a.closedRecord(e); rec.Outcome != flow.OutcomeOK || rec.EndedBy != flow.EndedByOrigin || string(answer) != "the answer" {
			t.Fatalf("round %d: outcome %s, ended by %q: %s; the client read %q", i, rec.Outcome, rec.EndedBy, rec.Error, answer)
		}
	}
}

// TestStreamKeepsAliveAgain: to come back from goroutines resets what was set.
func TestStreamKeepsAliveAgain(t *testing.T) {
	a := newArena(t)
	e := a.open()
	waitFor(t, func() bool { // the sweep has come by
		e.between.mu.Lock()
		defer e.between.mu.Unlock()
		return e.between.alive
	})
	go e.client.Write(make([]byte, 4<<20))
	io.CopyN(io.Discard, e.origin, 4<<20)
	waitFor(t, e.looped)
	waitFor(t, func() bool {
		e.between.mu.Lock()
		defer e.between.mu.Unlock()
		if !e.between.looped {
			return false
		}
		idle, err := unix.GetsockoptInt(e.between.client.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		return err == nil && idle == 60
	})
	e.between.mu.Lock()
	defer e.between.mu.Unlock()
	checkKeepAlive(t, e.between.client.fd)
	checkKeepAlive(t, e.between.server.fd)
}

// TestEndedTunnelNamesNoDescriptor: whoever still knows the tunnel must not ask
// about, or change, the socket that has got its descriptor.
func TestEndedTunnelNamesNoDescriptor(t *testing.T) {
	a := newArena(t)
	e := a.open()
	if !e.between.flight.cut(flow.EndedByPolicy) {
		t.Fatal("not cut")
	}
	a.closedRecord(e)
	waitFor(t, func() bool { return a.Active() == 0 })
	e.between.mu.Lock()
	fd := e.between.client.fd
	e.between.mu.Unlock()
	for range 64 { // one of these has the descriptor, if it is named still
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	pause(50 * time.Millisecond)
	if q := e.between.quiet(0); q != 0 {
		t.Errorf("quiet for %s, by the socket that has descriptor %d now", q, fd)
	}
	e.between.rest()
	e.between.cut()
	e.between.flight.cut(flow.EndedByDrain)
}

// exhaust leaves the process free descriptors, until the test calls restore.
func exhaust(t *testing.T, free int) (restore func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	var held []*os.File
	for { // fills the gaps below the highest, of which there may be none
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, f)
		if all, err := os.ReadDir("/proc/self/fd"); err == nil && len(held) > free && int(f.Fd()) >= len(all)-2 {
			break
		}
	}
	limit := was
	limit.Cur = uint64(held[len(held)-1].Fd()) + 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for range free {
		held[len(held)-1].Close()
		held = held[:len(held)-1]
	}
	var once sync.Once
	restore = func() {
		once.Do(func() {
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
				t.Error(err)
			}
			for _, f := range held {
				f.Close()
			}
		})
	}
	t.Cleanup(restore)
	return restore
}

// TestTunnelsOutliveDescriptors carries on, in every state, when the process
// has no descriptor left.
func TestTunnelsOutliveDescriptors(t *testing.T) {
	for free := range 4 {
		t.Run(fmt.Sprintf("%d free", free), func(t *testing.T) {
			a := newArena(t)
			inLoop, streaming, becoming := a.open(), a.open(), a.open()
			stop := make(chan struct{})
			var stream sync.WaitGroup
			stream.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						streaming.client.Write(make([]byte, 64<<10))
					}
				}
			})
			stream.Go(func() { io.Copy(io.Discard, streaming.origin) })
			waitFor(t, func() bool { return !streaming.looped() })
			restore := exhaust(t, free)
			say(t, inLoop.client, inLoop.origin, "in the loop")
			say(t, inLoop.origin, inLoop.client, "and back")
			streaming.between.rest() // which lets it settle, or not
			say(t, streaming.origin, streaming.client, "beside a stream")
			// This one wants to be a stream, which it cannot be as others are.
			block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			go becoming.client.Write(block)
			becoming.origin.SetReadDeadline(time.Now().Add(5 * time.Second))
			got := make([]byte, len(block))
			if n, err := io.ReadFull(becoming.origin, got); err != nil {
				t.Errorf("%d bytes of a new stream arrived, %v", n, err)
			}
			// The end of any of them is not held up either.
			inLoop.between.flight.cut(flow.EndedByPolicy)
			a.closedRecord(inLoop)
			restore()
			becoming.origin.SetReadDeadline(time.Now().Add(5 * time.Second))
			if !t.Failed() {
				say(t, becoming.origin, becoming.client, "after all")
				if !bytes.Equal(got, block) {
					t.Error("the stream differs")
				}
			}
			close(stop)
			streaming.client.CloseWrite()
			stream.Wait()
		})
	}
}

// blocking is a Recorder that lets nothing be recorded while it is shut.
type blocking struct {
	Recorder
	shut    atomic.Bool
	waiting atomic.Int64
	opened  chan struct{}
}

func (b *blocking) Observe(ev flow.Event) {
	if ev.Kind != flow.Opened && b.shut.Load() {
		b.waiting.Add(1)
		<-b.opened
	}
	b.Recorder.Observe(ev)
}

// TestBlockedRecorderStopsNoTunnel: whose end cannot be recorded waits alone.
func TestBlockedRecorderStopsNoTunnel(t *testing.T) {
	a := newArena(t)
	b := &blocking{Recorder: a.events, opened: make(chan struct{})}
	a.deps.Recorder = b
	e, others := a.open(), []*ends{a.open(), a.open(), a.open()}
	b.shut.Store(true)
	reset(others[0].origin)
	others[1].client.CloseWrite()
	others[1].origin.CloseWrite()
	others[2].between.flight.cut(flow.EndedByPolicy)
	waitFor(t, func() bool { return b.waiting.Load() == 3 })
	say(t, e.client, e.origin, "still")
	say(t, e.origin, e.client, "there")
	a.setPolicy(allow("tcp", 1, "other.test"))
	if n := a.PolicyChanged(); n == 0 {
		t.Error("nothing was cut")
	}
	close(b.opened)
	for _, e := range append(others, e) {
		a.closedRecord(e)
	}
}

// TestRunOutlivesWhatItTook: a connection that is accepted at the very end is
// somebody's to wait for.
func TestRunOutlivesWhatItTook(t *testing.T) {
	for range 60 {
		t.Run("", func(t *testing.T) {
			r := newRig(t, allow("tcp", 1, "origin.test"))
			stop := make(chan struct{})
			var flood sync.WaitGroup
			for range 4 {
				flood.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if c, err := net.Dial("tcp", r.addr); err == nil {
							c.Close()
						}
					}
				})
			}
			waitFor(t, func() bool { return r.Counts().Accepted > 5 })
			r.stop()
			<-r.done
			if n := r.Active(); n != 0 {
				t.Errorf("%d connections are open behind Run", n)
			}
			close(stop)
			flood.Wait()
		})
	}
}

// TestEarlyBytesAreTheirOwn has many tunnels begin at once with bytes behind
// their CONNECT, in as many sizes, and looks for those of others among them.
func TestEarlyBytesAreTheirOwn(t *testing.T) {
	arrivals := make(chan []byte, 1000)
	port := tcpOrigin(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		arrivals <- all
	})
	r := tcpRig(t, port)
	sizes := []int{0, 1, 100, 3000, 3990, 4096, 5000, 20_000}
	const rounds = 160
	var clients sync.WaitGroup
	for i := range rounds {
		clients.Go(func() {
			id := fmt.Sprintf("%08d", i)
			body := strings.Repeat(id, 1+sizes[i%len(sizes)]/8)
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)+body[:len(body)/2])
			readHead(t, c)
			io.WriteString(c, body[len(body)/2:])
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		})
	}
	for range rounds {
		got := string(<-arrivals)
		if len(got) < 8 || strings.Repeat(got[:8], len(got)/8) != got {
			t.Errorf("%d bytes of %.40q...", len(got), got)
		}
		var i int
		fmt.Sscanf(got[:min(8, len(got))], "%d", &i)
		if want := 8 * (1 + sizes[i%len(sizes)]/8); len(got) != want {
			t.Errorf("tunnel %d: %d bytes, want %d", i, len(got), want)
		}
	}
	clients.Wait()
}

// TestMultipathTunnel: where the kernel offers it, a client may come by
// Multipath TCP, whose sockets are not quite those of TCP.
func TestMultipathTunnel(t *testing.T) {
	a := newArena(t)
	d := net.Dialer{}
	d.SetMultipathTCP(true)
	nc, err := d.DialContext(t.Context(), "tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	client := nc.(*net.TCPConn)
	defer client.Close()
	if on, _ := client.MultipathTCP(); !on {
		t.Skip("no Multipath TCP here")
	}
	client.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(client, "CONNECT origin.test:%d HTTP/1.1\r\n\r\n", a.port)
	readHead(t, client)
	origin := <-a.accepted
	resting(t, a.rig, 1)
	say(t, client, origin, "hello")
	say(t, origin, client, "hello yourself")
	block := make([]byte, 4<<20)
	go client.Write(block)
	if _, err := io.CopyN(io.Discard, origin, int64(len(block))); err != nil {
		t.Fatal(err)
	}
	resting(t, a.rig, 1)
	say(t, origin, client, "back again")
	client.CloseWrite()
	if _, err := origin.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the origin read %v", err)
	}
	origin.CloseWrite()
	io.Copy(io.Discard, client)
	if rec := a.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeOK || rec.BytesSent != int64(5+len(block)) {
		t.Errorf("outcome %s, %d bytes sent: %s", rec.Outcome, rec.BytesSent, rec.Error)
	}
}

// TestEarlyRequestInConnect sends a tunnel's first requests along with its
// CONNECT: what they are read from is a buffer that others get next.
func TestEarlyRequestInConnect(t *testing.T) {
	port := wire(t, mirror)
	r := newRig(t, allow("http", port, "web.test"))
	r.resolver.set("web.test", "127.0.0.1")
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(15 * time.Second))
			fmt.Fprintf(c, "CONNECT web.test:%d HTTP/1.1\r\n\r\nGET /%d/a HTTP/1.1\r\nHost: web.test:%d\r\n\r\nGET /%d/b HTTP/1.1\r\nHost: web.test:%d\r\nConnection: close\r\n\r\n", port, i, port, i, port)
			got, err := io.ReadAll(c)
			a, b := bytes.Index(got, fmt.Appendf(nil, "GET /%d/a ", i)), bytes.Index(got, fmt.Appendf(nil, "GET /%d/b ", i))
			if err != nil || a < 0 || b < a {
				t.Errorf("client %d got %q, %v", i, got, err)
			}
		})
	}
	clients.Wait()
}

// TestGreedyTunnelLeavesOthersTheirTurn: who sends without a pause gets no more
// of the loop than anybody else.
func TestGreedyTunnelLeavesOthersTheirTurn(t *testing.T) {
	a := newArena(t)
	modest := a.open()
	var greedy sync.WaitGroup
	var all []*ends
	for _, size := range []int{1, 1000, loopBuffer - 1, loopBuffer} {
		e := a.open()
		greedy.Go(func() {
			for block := make([]byte, size); ; {
				if _, err := e.client.Write(block); err != nil {
					return
				}
			}
		})
		greedy.Go(func() { io.Copy(io.Discard, e.origin) })
		all = append(all, e)
	}
	defer greedy.Wait()
	defer func() {
		for _, e := range all {
			e.client.Close()
		}
	}()
	for range 300 {
		say(t, modest.client, modest.origin, "my")
		say(t, modest.origin, modest.client, "turn")
	}
	if !modest.looped() {
		t.Error("the modest tunnel has left the loop")
	}
}
