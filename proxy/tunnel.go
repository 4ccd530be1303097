package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// tunnel carries an allowed attempt's bytes between two raw TCP connections
// until both directions have ended. It owns origin from the start, and the
// attempt's end; the client's connection stays its conn's.
type tunnel struct {
	attempt *attempt
	conn    *conn
	origin  *net.TCPConn
	flight  *flight // the attempt's, when it was under way before; nil when not
}

// run first writes preface, which was read from the client, to the origin,
// then splices: io.Copy between two *net.TCPConn moves the bytes in the
// kernel by splice(2). Nothing may wrap either end.
func (t *tunnel) run(preface []byte) {
	a, client, origin := t.attempt, t.conn.tcp, t.origin
	defer origin.Close() //nolint:errcheck // whatever failed is in the record already
	if a.query.Protocol == policy.ProtocolUnknown {
		a.query.Protocol = policy.ProtocolTCP
	}
	f := t.flight
	if f == nil {
		f = a.takeOff(client, origin)
	}
	defer a.s.live.land(f)
	a.open()

	n, sendErr := origin.Write(preface)
	receiveErr := sendErr
	a.rec.BytesSent = int64(n)
	if sendErr == nil {
		up := make(chan struct{})
		var sent, received int64
		go func() {
			defer close(up)
			defer t.rescue(&receiveErr)
			received, receiveErr = pump(client, origin)
		}()
		sent, sendErr = pump(origin, client)
		<-up
		a.rec.BytesSent += sent
		a.rec.BytesReceived += received
	}
	t.end(f, sendErr, receiveErr)
}

// rescue turns a panic on the second goroutine into an error of the tunnel.
func (t *tunnel) rescue(err *error) {
	if p := recover(); p != nil {
		t.attempt.s.panicked(p)
		*err = &refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)}
		interrupt(t.conn.tcp)
		interrupt(t.origin)
	}
}

// pump copies src to dst until src ends, and passes the end on: a half-close
// as a half-close. On an error it stops the other direction too. It is a
// named function for the sake of goroutine dumps.
func pump(dst, src *net.TCPConn) (int64, error) {
	n, err := io.Copy(dst, src)
	if err == nil {
		err = dst.CloseWrite()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ENOTCONN) {
			err = nil // dst's peer is gone already, which the other pump has seen
		}
	}
	if err != nil {
		interrupt(src)
		interrupt(dst)
	}
	return n, err
}

// end tells how the tunnel ended, passes a reset on as a reset, and closes
// the attempt. The errors are those of the two directions, client to origin
// and back.
func (t *tunnel) end(f *flight, sendErr, receiveErr error) {
	a, err := t.attempt, errors.Join(sendErr, receiveErr)
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
	if originReset && receiveErr == nil {
		a.close(flow.OutcomeOK, flow.EndedByOrigin, "")
		return
	}
	if clientReset && sendErr == nil {
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
