package proxy

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// tunnel carries an allowed attempt's bytes between two raw TCP connections
// until both directions have ended. It owns both, and the attempt's end.
//
// The loop carries it while it has little to say (loop.go). Goroutines carry
// it as a stream: one owns it then, with a helper for the second direction.
type tunnel struct {
	attempt *attempt
	conn    *conn
	origin  endpoint     // as connected
	flight  *flight      // the attempt's, when it was under way before
	up      relay        // client to origin
	down    relay        // origin to client
	moved   atomic.Int64 // when the loop last had something to move, in Unix nanoseconds
	bound   bool         // it never enters the loop: its flight is not its own

	mu     sync.Mutex // held by whoever moves, cuts or looks at what follows
	client side
	server side
	loop   *loop // the one that it settles in
	looped bool  // it is there now
	alive  bool  // keepalive is on
	broken bool  // one direction has ended so that the other cannot go on
}

// run first writes preface, which was read from the client, to the origin,
// then carries both directions. Nothing may wrap either end: io.Copy between
// two *net.TCPConn moves the bytes in the kernel, by splice(2).
//
// When it returns the tunnel has ended, or is the loop's and ends on some
// other goroutine.
func (t *tunnel) run(preface []byte) {
	a, client, origin := t.attempt, t.conn.tcp, t.origin
	t.loop = a.s.homeOf(client, origin)
	t.client, t.server = sideOf(client), sideOf(origin)
	t.up, t.down = relay{dst: &t.server, src: &t.client}, relay{dst: &t.client, src: &t.server}
	if a.query.Protocol == policy.ProtocolUnknown {
		a.query.Protocol = policy.ProtocolTCP
	}
	if t.bound = t.flight != nil; !t.bound {
		t.flight = a.s.live.take(a, client, origin)
	}
	defer t.salvage() // until carry sees to it
	if !t.bound {
		a.reconsider(t.flight)
		t.flight.tunnel.Store(t)
	}
	a.open()
	n, err := origin.Write(preface)
	t.up.n = int64(n)
	if err != nil {
		t.up.fail(err)
		t.down.fail(err)
	}
	t.carry(t.settle)
}

// carry goes on until the tunnel ends or settles in the loop. enter is what
// it begins with; it returns true when the tunnel is somebody else's already.
func (t *tunnel) carry(enter func() bool) {
	defer t.conn.rescue()
	defer t.attempt.rescue()
	defer t.salvage()
	for ; ; enter = t.settle {
		if !t.over() && enter() {
			return
		}
		if t.over() {
			t.end()
			return
		}
		t.pump()
	}
}

// salvage closes what a panic leaves open, and lets it go on.
func (t *tunnel) salvage() {
	if p := recover(); p != nil {
		t.attempt.s.live.land(t.flight)
		t.close()
		panic(p)
	}
}

// pump carries every direction that has not ended yet, until it has or is
// interrupted.
func (t *tunnel) pump() {
	buffers := &t.attempt.s.buffers
	switch {
	case t.up.done && t.down.done:
	case t.down.done:
		t.up.pump(buffers)
	case t.up.done:
		t.down.pump(buffers)
	default:
		meet, up, down := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(down)
			defer t.rescue(&t.down)
			t.persist(&t.down, meet, up)
		}()
		t.persist(&t.up, meet, down)
		close(up)
		<-down
		t.mourn()
	}
}

// meetPause is how long an interrupted direction waits for the other.
const meetPause = 50 * time.Millisecond

// persist pumps r until it ends, or both directions are interrupted, which
// meet at meet, or the other has gone. A direction that goes on because nobody
// takes what it has written must not keep the other from its work.
func (t *tunnel) persist(r *relay, meet chan struct{}, gone <-chan struct{}) {
	for {
		r.pump(&t.attempt.s.buffers)
		if r.done {
			t.fell(r)
			return
		}
		select {
		case meet <- struct{}{}:
			return
		case <-meet:
			return
		case <-gone:
			return
		case <-time.After(meetPause):
		}
		if !t.resume(r.src) {
			return
		}
	}
}

// resume lets s be read again, unless there is no use in it.
func (t *tunnel) resume(s *side) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken || t.flight.endedBy() != "" {
		return false
	}
	_ = s.tcp.SetReadDeadline(time.Time{}) // if it fails, so will the next read
	return true
}

// fell stops the other direction, too, where r has not ended in good order.
func (t *tunnel) fell(r *relay) {
	if r.err == nil && !r.gone {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = true
	switch {
	case r.gone:
		_ = r.dst.tcp.SetReadDeadline(time.Unix(1, 0)) // what it says, nobody hears
	case r.dst.gone():
		// It may have said why: that is read to its end, and delivered if it is
		// taken at once.
		_ = r.src.tcp.SetWriteDeadline(time.Now().Add(farewellTime))
	default:
		interrupt(r.src.tcp)
		interrupt(r.dst.tcp)
	}
}

// mourn tells what became of a side that was gone altogether when its end was
// seen. Either it ended in good order, and then nothing can be told to it any
// more; or it was reset, and the direction that writes to it was told of that.
func (t *tunnel) mourn() {
	for _, d := range []struct{ r, other *relay }{{&t.up, &t.down}, {&t.down, &t.up}} {
		switch {
		case !d.r.gone:
		case !d.other.done:
			d.other.fail(unix.EPIPE)
		case d.other.err != nil && !t.finished(d.r):
			d.r.fail(unix.ECONNRESET)
		}
	}
}

// finished reports whether the end of r's src was one for certain: the kernel
// counts it as a byte received. What was read from a client before it had a
// tunnel is not known, and splice(2) does not always say which error it was.
func (t *tunnel) finished(r *relay) bool {
	info, ok := r.src.info()
	return ok && r == &t.down && !t.bound && info.received > uint64(r.n)
}

// over reports whether nothing is left to carry: both directions have ended,
// one has failed, or the tunnel was cut.
func (t *tunnel) over() bool {
	return t.up.done && t.down.done || t.up.err != nil || t.down.err != nil || t.flight.endedBy() != ""
}

// rescue turns a panic on the second goroutine into an error of its direction.
func (t *tunnel) rescue(r *relay) {
	if p := recover(); p != nil {
		t.attempt.s.panicked(p)
		r.fail(&refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)})
		t.mu.Lock()
		defer t.mu.Unlock()
		t.broken = true
		t.halt()
	}
}

// halt makes what goroutines read and write on the tunnel fail from now on.
func (t *tunnel) halt() {
	for _, s := range []*side{&t.client, &t.server} {
		interrupt(s.end())
	}
}

// end records the tunnel's end and closes what it owns.
func (t *tunnel) end() {
	t.record()
	t.attempt.s.live.land(t.flight)
	t.close()
	t.conn.release()
}

// close closes both sides. Others may still ask about them.
func (t *tunnel) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.server.close()
	t.client.close()
}

// record tells how the tunnel ended, passes a reset on as a reset, and closes
// the attempt.
func (t *tunnel) record() {
	a, f, err := t.attempt, t.flight, errors.Join(t.up.err, t.down.err)
	a.rec.BytesSent += t.up.n
	a.rec.BytesReceived += t.down.n
	client, clientOK := t.client.info()
	origin, originOK := t.server.info()
	a.rec.ClientTCP, a.rec.OriginTCP = client.TCP, origin.TCP
	if by := f.endedBy(); by != "" {
		if f.over.Load() != nil {
			t.server.resetOnClose() // what the kernel has yet to send stays here
		}
		a.closeCut(f, by)
		return
	}
	if err == nil {
		a.close(flow.OutcomeOK, flow.EndedByBoth, "")
		return
	}
	originReset, clientReset := originOK && origin.state == tcpClose, clientOK && client.state == tcpClose
	// Who has finished and then closes for good resets what still comes, a TLS
	// close_notify as a rule. That is how many a tunnel ends when all is well,
	// and a reset passed on would destroy what the other side has yet to read.
	// Where writing was answered by a reset there was no end before it, though
	// reading, when the error had been told, could see one.
	if originReset && t.down.done && t.down.err == nil && !errors.Is(t.up.err, unix.ECONNRESET) {
		a.close(flow.OutcomeOK, flow.EndedByOrigin, "")
		return
	}
	if clientReset && t.up.done && t.up.err == nil && !errors.Is(t.down.err, unix.ECONNRESET) {
		a.close(flow.OutcomeOK, flow.EndedByClient, "")
		return
	}
	if originReset {
		t.client.resetOnClose()
		a.close(flow.OutcomeConnectionTerminated, flow.EndedByOrigin, plain(err))
		return
	}
	if clientReset {
		t.server.resetOnClose()
		a.close(flow.OutcomeConnectionTerminated, flow.EndedByClient, plain(err))
		return
	}
	r := classify(err)
	a.close(r.outcome, flow.EndedByBoth, plain(err))
}

// outcomeOfCut is the outcome of a flight that was cut from outside.
func outcomeOfCut(by flow.EndedBy) flow.Outcome {
	if by == flow.EndedByIdle {
		return flow.OutcomeConnectionReadTimeout
	}
	return flow.OutcomeConnectionTerminated
}

// plain words err without the deadline that interrupt set: that is how the
// other direction was stopped, not what happened.
func plain(err error) string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err.Error()
	}
	for _, e := range joined.Unwrap() {
		if !errors.Is(e, os.ErrDeadlineExceeded) {
			return e.Error()
		}
	}
	return err.Error()
}
