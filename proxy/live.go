package proxy

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// live knows every open connection, and every flight: an allowed attempt
// whose bytes are moving. Whoever must end one from outside (the idle sweep,
// a new policy, the end of a drain) goes through it.
type live struct {
	measured chan struct{} // gets a value when there is a first flight with a budget

	mu      sync.Mutex // guards the rest
	conns   map[*conn]struct{}
	flights map[*flight]struct{}
	metered map[*flight]struct{} // those with a budget
	over    bool                 // the drain is over: what begins now is cut at once
}

func newLive() *live {
	return &live{
		conns: make(map[*conn]struct{}), flights: make(map[*flight]struct{}),
		metered: make(map[*flight]struct{}), measured: make(chan struct{}, 1),
	}
}

// flight is an allowed attempt under way. Its goroutine owns the attempt;
// others may only look at what is copied here, and cut.
type flight struct {
	query  policy.Query // as it was decided
	client endpoint
	server endpoint // the origin, nil where the flight began without one
	since  time.Time
	origin atomic.Pointer[net.TCPConn] // that setOrigin has named, nil until then
	cutBy  atomic.Pointer[flow.EndedBy]
	tunnel atomic.Pointer[tunnel]  // nil where the flight is not a tunnel's own
	bridge *bridge                 // between client and the client itself; nil where there is none
	meter  *meter                  // nil without a budget
	over   atomic.Pointer[overrun] // the budget for which it was cut

	proofs []func() bool // the attempt's

	learning  atomic.Bool // it was last decided in report mode
	tolerated atomic.Bool // it carries what its rule does not allow, see attempt.tolerate
}

// setOrigin names the origin's connection, and ends it too if a cut came first.
func (f *flight) setOrigin(origin *net.TCPConn) {
	f.origin.Store(origin)
	if f.cutBy.Load() != nil {
		interrupt(origin)
	}
}

// cut ends the flight from outside: every read and write on its connections
// fails from now on. The first to cut says why.
func (f *flight) cut(by flow.EndedBy) bool {
	if !f.cutBy.CompareAndSwap(nil, &by) {
		return false
	}
	interrupt(f.client)
	interrupt(f.server)
	interrupt(f.origin.Load())
	if t := f.tunnel.Load(); t != nil {
		t.cut()
	}
	return true
}

// endedBy returns who cut the flight, "" when nobody did.
func (f *flight) endedBy() flow.EndedBy {
	if by := f.cutBy.Load(); by != nil {
		return *by
	}
	return ""
}

// interrupt makes every pending and later read and write on e fail with a
// deadline error, and leaves closing to its owner. There may be none.
func interrupt(e endpoint) {
	if tcp, ok := e.(*net.TCPConn); e == nil || ok && tcp == nil {
		return
	}
	_ = e.SetDeadline(time.Unix(1, 0)) // fails only when it is closed already
}

func (l *live) addConn(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
}

func (l *live) removeConn(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// takeOff registers the attempt's flight on client; the caller gives it back
// with land. origin is nil where it is not known yet. A policy that came into
// force since the decision, and has dealt with the flights that there were, is
// asked about this one, too.
func (a *attempt) takeOff(client, origin endpoint) *flight {
	f := a.s.live.take(a, client, origin)
	a.reconsider(f)
	return f
}

// reconsider cuts f if another policy than the one that decided denies it, or
// what its principal rests on was withdrawn meanwhile.
func (a *attempt) reconsider(f *flight) {
	s := a.s
	f.tolerated.Store(a.tolerated)
	if s.cfg.CutDenied && (f.unfounded() || s.deps.Decider.Version() != a.rec.PolicyVersion && f.denied(s.deps.Decider, time.Now())) {
		f.cut(flow.EndedByPolicy)
	}
}

// take registers a's flight on client; the caller gives it back with land.
func (l *live) take(a *attempt, client, origin endpoint) *flight {
	f := &flight{
		query: a.query, client: client, server: origin, since: time.Now(),
		bridge: a.bridge, meter: a.meter, proofs: a.proofs,
	}
	f.learning.Store(a.decision.Mode == policy.Report)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flights[f] = struct{}{}
	if f.meter != nil {
		l.metered[f] = struct{}{}
		select {
		case l.measured <- struct{}{}:
		default: // somebody is told already
		}
	}
	if l.over {
		f.cut(flow.EndedByDrain)
	}
	return f
}

// land ends a flight. It can not be cut afterwards: its connections may be
// carrying another by then.
func (l *live) land(f *flight) {
	nobody := flow.EndedBy("")
	f.cutBy.CompareAndSwap(nil, &nobody)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.flights, f)
	delete(l.metered, f)
}

// list copies the flights, so that nothing slow happens under the lock.
func (l *live) list() []*flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*flight, 0, len(l.flights))
	for f := range l.flights {
		out = append(out, f)
	}
	return out
}

// listMetered copies the flights that have a budget, nil for none.
func (l *live) listMetered() []*flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.metered))
}

// cutAll ends everything: the drain is over.
func (l *live) cutAll() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	for _, f := range l.list() {
		f.cut(flow.EndedByDrain)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		interrupt(c.tcp)
	}
}

// swap makes tcp the connection of c, in place of another: one that was the same
// socket, or the client's, which is on the far side of a bridge from then on.
func (l *live) swap(c *conn, tcp *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.tcp = tcp
	if l.over {
		interrupt(tcp)
	}
}

// cutDenied ends the flights that the policy now in force denies, by name or
// by address, and returns how many.
func (l *live) cutDenied(decider Decider, now time.Time) int {
	n := 0
	for _, f := range l.list() {
		if (f.unfounded() || f.denied(decider, now)) && f.cut(flow.EndedByPolicy) {
			n++
		}
	}
	return n
}

// unfounded reports whether f's principal could not prove any more who it is.
func (f *flight) unfounded() bool {
	return slices.ContainsFunc(f.proofs, func(stands func() bool) bool { return !stands() })
}

// cutUnfounded ends the flights of such principals, and returns how many.
func (l *live) cutUnfounded() int {
	n := 0
	for _, f := range l.list() {
		if f.unfounded() && f.cut(flow.EndedByPolicy) {
			n++
		}
	}
	return n
}

// denied reports whether the policy now in force denies f.
func (f *flight) denied(decider Decider, now time.Time) bool {
	q := f.query
	q.At = now
	anything := f.tolerated.Load()
	if q.Via == policy.ViaConnect && q.Protocol == policy.ProtocolTCP {
		q.Protocol, anything = policy.ProtocolUnknown, true // as it was when it came
	}
	d := decider.Decide(q)
	f.learning.Store(d.Mode == policy.Report)
	// What nobody looks into must not go on where somebody is to.
	blind := d.Inspect && q.S3 == nil || anything && d.Protocol != policy.ProtocolTCP
	if d.Verdict == policy.Deny || blind && d.Mode != policy.Report {
		return true
	}
	origin := f.peer()
	if !origin.IsValid() {
		return false
	}
	_, ok := d.CheckAddress(origin.Addr())
	return !ok
}

// peer returns the origin's address, zero until it is known.
func (f *flight) peer() netip.AddrPort {
	if origin := f.origin.Load(); origin != nil {
		return addrPortOf(origin.RemoteAddr())
	}
	if f.server == nil {
		return netip.AddrPort{}
	}
	return peerOf(f.server)
}
