package proxy

import (
	"fmt"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// attempt is one try to leave: a tunnel, or one plain HTTP exchange. One
// goroutine owns it, and it alone writes the record; everyone else sees the
// copies that open, deny and close publish.
type attempt struct {
	s        *Server
	bridge   *bridge // the connection's
	rec      flow.Record
	query    policy.Query
	decision policy.Decision
	meter    *meter // nil without a budget
	opened   bool
	ended    bool

	tolerated bool          // see tolerate
	proofs    []func() bool // that its principal rests on
}

// newAttempt begins an attempt on c. Its clock starts when c was accepted, or
// now for a further request on a kept connection.
func (s *Server) newAttempt(c *conn, via policy.Via, start time.Time) *attempt {
	return &attempt{
		s: s, bridge: c.bridge, proofs: c.proofs,
		rec: flow.Record{
			ID:       s.deps.NewID(),
			Start:    start,
			Via:      via,
			Listener: c.local,
			Client:   c.remote,
			Original: c.original,

			Principal: c.source.Principal, VPCEndpoint: c.source.VPCEndpoint, Task: c.source.Task,
			Unidentified: c.source.Unidentified,
		},
		query: policy.Query{
			Source: c.source,
			Via:    via,
		},
	}
}

// aim names the destination, before anything is decided about it.
func (a *attempt) aim(host policy.Host, port uint16, protocol policy.Protocol) {
	a.query.Host, a.query.Port, a.query.Protocol = host, port, protocol
	a.rec.Host, a.rec.Port = host.String(), port
	a.rec.Times.Hello = time.Since(a.rec.Start)
}

// decide asks the policy. It returns nil when the attempt may go on, which in
// report mode it may with a reason against it.
func (a *attempt) decide() *refusal {
	a.query.At = time.Now()
	for { // until no other policy has come into force meanwhile
		a.rec.PolicyVersion = a.s.deps.Decider.Version()
		a.decision = a.s.deps.Decider.Decide(a.query)
		if a.s.deps.Decider.Version() == a.rec.PolicyVersion {
			break
		}
	}
	d := &a.decision
	a.rec.Source, a.rec.S3 = d.Source, d.S3
	a.rec.Mode, a.rec.Reason, a.rec.WouldDeny = d.Mode, d.Reason, d.WouldDeny()
	a.rec.Rule = d.RuleName()
	if d.Rule != nil {
		a.rec.Owner = d.Rule.Owner
	}
	if d.Verdict == policy.Deny {
		return &refusal{outcome: flow.Outcome(d.Reason), denied: true}
	}
	return a.account()
}

// tolerate is what becomes of a finding against an attempt that a rule has
// allowed already: in report mode it is marked and nil is returned, otherwise
// it is a refusal.
func (a *attempt) tolerate(reason policy.Reason, err error) *refusal {
	if a.decision.Mode == policy.Report {
		a.tolerated = true
		a.mark(reason, err)
		return nil
	}
	return &refusal{outcome: flow.Outcome(reason), denied: true, err: err}
}

// mark notes that the attempt passes only because of report mode. The first
// finding stays: it is what enforcing would have answered.
func (a *attempt) mark(reason policy.Reason, err error) {
	if a.rec.WouldDeny {
		return
	}
	a.rec.Reason, a.rec.WouldDeny = reason, true
	if err != nil {
		a.rec.Error = err.Error()
	}
}

// charge names rule as the one that denies, unless it is nil.
func (a *attempt) charge(rule *policy.Rule) {
	if rule != nil {
		a.rec.Rule, a.rec.Owner = rule.Name, rule.Owner
	}
}

// open publishes, once, that the attempt is allowed.
func (a *attempt) open() {
	if a.opened || a.ended {
		return
	}
	a.opened = true
	a.rec.Verdict = policy.Allow
	a.tell(flow.Opened)
}

// refuse ends an attempt that never carried a byte: denied, or allowed and
// failed.
func (a *attempt) refuse(r *refusal) {
	if a.ended {
		return
	}
	if a.opened || !r.denied && a.decision.Verdict == policy.Allow {
		a.close(r.outcome, r.endedBy, r.text())
		return
	}
	a.ended = true
	a.charge(r.rule)
	a.rec.Verdict, a.rec.WouldDeny = policy.Deny, false
	if r.denied {
		a.rec.Reason = policy.Reason(r.outcome)
	}
	a.rec.Outcome, a.rec.Error, a.rec.End = r.outcome, r.text(), time.Now()
	a.tell(flow.Denied)
}

// rescue records an attempt that a panic ends, and lets the panic go on to
// whoever owns the connection.
func (a *attempt) rescue() {
	p := recover()
	if p == nil {
		return
	}
	a.refuse(&refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)})
	panic(p)
}

// close ends an allowed attempt, once.
func (a *attempt) close(outcome flow.Outcome, by flow.EndedBy, text string) {
	if a.ended {
		return
	}
	a.open()
	a.ended = true
	a.settle()
	a.rec.Outcome, a.rec.EndedBy = outcome, by
	if text != "" {
		a.rec.Error = text
	}
	if a.bridge != nil {
		a.rec.ClientTCP = a.bridge.tcp()
	}
	a.rec.End = time.Now()
	a.tell(flow.Closed)
}

// tell publishes a copy of the record, with what the policy was last asked.
func (a *attempt) tell(kind flow.Kind) {
	a.rec.Protocol, a.rec.Asked = a.query.Protocol, a.query.S3
	e := a.s.events.New(kind, &a.rec)
	defer a.s.events.Put(e)
	if b, ok := a.s.deps.Recorder.(flow.Borrower); ok {
		b.Borrow(e)
		return
	}
	a.s.give(e)
}

// give is for a Recorder that takes a copy, in a frame of its own: the stack of
// every connection's goroutine would grow for it.
//
//go:noinline
func (s *Server) give(e *flow.Event) { s.deps.Recorder.Observe(*e) }
