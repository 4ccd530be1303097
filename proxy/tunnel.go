package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// tunnel carries an allowed attempt's bytes between two raw TCP connections
// until both directions have ended. It owns both, and the attempt's end. One
// goroutine at a time owns it, with a helper for the second direction; none
// while it rests in the lot.
type tunnel struct {
	attempt *attempt
	conn    *conn
	origin  *net.TCPConn
	flight  *flight // the attempt's, when it was under way before
	up      relay   // client to origin
	down    relay   // origin to client

	// What the lot keeps, see lot.go.
	space   int32
	watched bool
	alive   bool // keepalive is on
}

// run first writes preface, which was read from the client, to the origin,
// then carries both directions. Nothing may wrap either end: io.Copy between
// two *net.TCPConn moves the bytes in the kernel, by splice(2).
//
// When it returns the tunnel has ended, or rests and ends on some other
// goroutine.
func (t *tunnel) run(preface []byte) {
	a, client, origin := t.attempt, t.conn.tcp, t.origin
	t.up, t.down = relay{dst: origin, src: client}, relay{dst: client, src: origin}
	if a.query.Protocol == policy.ProtocolUnknown {
		a.query.Protocol = policy.ProtocolTCP
	}
	if t.flight == nil {
		t.flight = a.takeOff(client, origin)
		t.flight.tunnel.Store(t)
	}
	a.open()
	n, err := origin.Write(preface)
	t.up.n = int64(n)
	if err != nil {
		t.up.done, t.up.err, t.down.done, t.down.err = true, err, true, err
	}
	t.carry()
}

// carry goes on until the tunnel ends or rests. It is called anew, on another
// goroutine, each time that the tunnel is woken.
func (t *tunnel) carry() {
	defer t.conn.rescue()
	defer t.attempt.rescue()
	defer t.salvage()
	t.flight.parked.Store(false)
	for {
		t.pump()
		if t.over() {
			t.end()
			return
		}
		if t.rest() {
			return
		}
	}
}

// salvage closes what a panic leaves open, and lets it go on.
func (t *tunnel) salvage() {
	if p := recover(); p != nil {
		t.attempt.s.live.land(t.flight)
		t.origin.Close() //nolint:errcheck // it is over either way
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
		down := make(chan struct{})
		go func() {
			defer close(down)
			defer t.rescue(&t.down)
			t.down.pump(buffers)
		}()
		t.up.pump(buffers)
		<-down
	}
}

// over reports whether nothing is left to carry: both directions have ended,
// one has failed, or the tunnel was cut.
func (t *tunnel) over() bool {
	return t.up.done && t.down.done || t.up.err != nil || t.down.err != nil || t.flight.endedBy() != ""
}

// rest lays an interrupted tunnel in the lot. It returns false when the
// tunnel must go on at once. Keepalive is a matter of the lot: who sends finds
// out without it that the other end is gone.
func (t *tunnel) rest() bool {
	for _, tcp := range []*net.TCPConn{t.conn.tcp, t.origin} {
		if !t.alive {
			_ = tcp.SetKeepAliveConfig(keepAlive()) // without it the idle timeout has the last word
		}
		if err := tcp.SetReadDeadline(time.Time{}); err != nil {
			return false // closed under our hands; the next read says how
		}
	}
	t.alive = true
	if t.flight.endedBy() != "" { // what was cleared may have been the mark of a cut
		interrupt(t.conn.tcp)
		interrupt(t.origin)
		return false
	}
	t.flight.parked.Store(true)
	if t.attempt.s.lot.park(t) {
		return true
	}
	t.flight.parked.Store(false)
	return false
}

// rescue turns a panic on the second goroutine into an error of its direction.
func (t *tunnel) rescue(r *relay) {
	if p := recover(); p != nil {
		t.attempt.s.panicked(p)
		r.done, r.err = true, &refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)}
		interrupt(t.conn.tcp)
		interrupt(t.origin)
	}
}

// end records the tunnel's end and closes what it owns.
func (t *tunnel) end() {
	t.record()
	t.attempt.s.live.land(t.flight)
	t.origin.Close() //nolint:errcheck // whatever failed is in the record already
	t.conn.release()
}

// record tells how the tunnel ended, passes a reset on as a reset, and closes
// the attempt.
func (t *tunnel) record() {
	a, f, err := t.attempt, t.flight, errors.Join(t.up.err, t.down.err)
	a.rec.BytesSent += t.up.n
	a.rec.BytesReceived += t.down.n
	client, clientOK := readTCPInfo(t.conn.tcp)
	origin, originOK := readTCPInfo(t.origin)
	a.rec.ClientTCP, a.rec.OriginTCP = client.TCP, origin.TCP
	if by := f.endedBy(); by != "" {
		a.close(outcomeOfCut(by), by, "")
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
	if originReset && t.down.done && t.down.err == nil {
		a.close(flow.OutcomeOK, flow.EndedByOrigin, "")
		return
	}
	if clientReset && t.up.done && t.up.err == nil {
		a.close(flow.OutcomeOK, flow.EndedByClient, "")
		return
	}
	if originReset {
		_ = t.conn.tcp.SetLinger(0) // its conn's close then resets
		a.close(flow.OutcomeConnectionTerminated, flow.EndedByOrigin, plain(err))
		return
	}
	if clientReset {
		_ = t.origin.SetLinger(0)
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
