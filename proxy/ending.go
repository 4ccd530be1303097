package proxy

import (
	"context"
	"errors"

	"github.com/sallyport/sallyport/logging/flow"
)

// blame tells who is at fault when the origin did not answer.
func (ex *exchange) blame(err error) *refusal {
	r := classify(err)
	switch {
	case ex.cutBy() != "":
		return refusalOfCut(ex.flight, ex.cutBy(), err)
	case errors.Is(err, context.Canceled):
		return &refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: err}
	case ex.body != nil && ex.body.failed.Load() != nil:
		return blameClient(*ex.body.failed.Load())
	case r.outcome == flow.OutcomeDestinationUnavailable && ex.attempt.rec.Peer.IsValid():
		r.outcome = flow.OutcomeHTTPProtocolError // it was reached, and what it said is not HTTP
	}
	return r
}

// blameClient is for a request whose body the client did not bring to its end.
func blameClient(err error) *refusal {
	r := &refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: err}
	if classify(err).outcome == flow.OutcomeDestinationUnavailable {
		r.outcome = flow.OutcomeHTTPRequestError // it is there, and what it sends is no body
	}
	return r
}

// cutBy returns who ended the exchange from outside, "" when nobody did.
func (ex *exchange) cutBy() flow.EndedBy {
	if by := ex.flight.endedBy(); by != "" {
		return by
	}
	if ex.front.base.Err() != nil {
		return flow.EndedByDrain
	}
	return ""
}

// lose notes that the client did not take its answer.
func (ex *exchange) lose(err error) {
	if ex.lost == nil {
		ex.lost = err
	}
}

// left reports whether the client has gone away.
func (ex *exchange) left() bool {
	if ex.plain != nil {
		return ex.plain.watch.left()
	}
	return ex.ctx.Err() != nil
}

// finish records the exchange's end, also when the handler panics.
func (ex *exchange) finish() {
	if ex.plain != nil {
		ex.plain.watch.end()
	}
	by := ex.cutBy()
	ex.front.s.live.land(ex.flight)
	if ex.plain != nil {
		ex.leave()
	} else if ex.http.inspected == nil {
		ex.front.pool.done(ex.attempt.decision, ex.transport)
	}
	if ex.hijacked {
		defer ex.http.c.release()
	}
	if ex.attempt.ended {
		return // a WebSocket's tunnel has recorded its own end
	}
	ex.measure()
	a := ex.attempt
	switch {
	case !ex.carried: // attempt.rescue will record it
		ex.forsake()
	case ex.failed != nil:
		a.refuse(ex.failed)
	case by != "" && (ex.broken != nil || ex.lost != nil || ex.flight.endedBy() != ""):
		a.closeCut(ex.flight, by)
	case ex.lost != nil:
		a.close(flow.OutcomeConnectionTerminated, flow.EndedByClient, ex.lost.Error())
	case ex.broken != nil && ex.left():
		a.close(flow.OutcomeConnectionTerminated, flow.EndedByClient, ex.broken.Error())
	case ex.broken != nil:
		r := classify(ex.broken)
		if r.outcome != flow.OutcomeConnectionTimeout {
			r.outcome = flow.OutcomeHTTPResponseIncomplete
		}
		a.close(r.outcome, flow.EndedByOrigin, r.text())
	default:
		a.close(flow.OutcomeOK, flow.EndedByBoth, "")
	}
}

// forsake closes the origin's connection where a panic has come between the
// transport and its answer: the transport believes it to be in use for ever.
func (ex *exchange) forsake() {
	if origin := ex.flight.origin.Load(); origin != nil && ex.attempt.rec.Times.FirstByte == 0 {
		origin.Close() //nolint:errcheck // it is over either way
	}
}

// measure fills in what is known at the end only, and sees to it that nobody
// waits for the rest of a body that was answered before it came.
func (ex *exchange) measure() {
	a := ex.attempt
	a.rec.BytesReceived = ex.received
	if ex.body != nil {
		a.rec.BytesSent = ex.body.n.Load()
		if !ex.body.ended.Load() {
			ex.http.hurry()
		}
	}
	if times := ex.dialled.Load(); times != nil && !ex.reused {
		a.rec.Times.Resolve, a.rec.Times.Dial = times.Resolve, times.Dial
	}
	if client, ok := readTCPInfo(ex.http.TCPConn); ok {
		a.rec.ClientTCP = client.TCP
	}
}
