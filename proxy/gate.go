package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The gate is the one path that every byte takes out: decide (attempt.go),
// then resolve, guard and dial, here. The ways in differ only in how they
// learn the name.

// connect opens the connection to an allowed attempt's destination. The
// name, or the literal address, is the policy's; what is dialled is an
// address that the guard has vetted, never a name. The connection is one of l's,
// unless l is nil or the attempt is of a kind that needs a *net.TCPConn. The
// error is a *refusal.
func (a *attempt) connect(ctx context.Context, l *loop) (endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, a.s.cfg.Timeouts.Dial)
	defer cancel()
	addrs, err := a.resolve(ctx)
	if err != nil {
		return nil, classify(err)
	}
	addrs, refused := a.guard(addrs)
	if refused != nil {
		return nil, refused
	}
	start := time.Now()
	if a.decision.Inspect || a.decision.Protocol == policy.ProtocolHTTP {
		l = nil
	}
	origin, err := a.s.dialer.dial(ctx, l, addrs, a.vet)
	a.rec.Times.Dial = time.Since(start)
	if err != nil {
		return nil, classify(err)
	}
	a.s.sent.add(origin)
	a.rec.Peer = peerOf(origin)
	return origin, nil
}

// connectTCP is connect for those who keep what they get.
func (a *attempt) connectTCP(ctx context.Context) (*net.TCPConn, error) {
	origin, err := a.connect(ctx, nil)
	if err != nil {
		return nil, err
	}
	return origin.(*net.TCPConn), nil //nolint:forcetypeassert // no loop was given
}

// resolve returns where the destination may be, unvetted.
func (a *attempt) resolve(ctx context.Context) ([]netip.AddrPort, error) {
	port := a.query.Port
	if addr, ok := a.query.Host.Addr(); ok {
		return []netip.AddrPort{netip.AddrPortFrom(addr, port)}, nil
	}
	start := time.Now()
	addrs, err := a.s.deps.Resolver.Lookup(ctx, a.query.Host.String())
	a.rec.Times.Resolve = time.Since(start)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		out[i] = netip.AddrPortFrom(addr.Unmap(), port)
	}
	return out, nil
}

// guard keeps the addresses that may be dialled. Those that only report mode
// permits are used when there is no other, and mark the attempt.
func (a *attempt) guard(addrs []netip.AddrPort) ([]netip.AddrPort, *refusal) {
	var permitted, reported []netip.AddrPort
	var last *refusal
	for _, addr := range addrs {
		if a.s.self.includes(addr) {
			last = denial(policy.ReasonSelf, fmt.Errorf("%s is the proxy itself", addr))
			continue
		}
		switch reason, ok := a.decision.CheckAddress(addr.Addr()); {
		case ok && reason == "":
			permitted = append(permitted, addr)
		case ok:
			reported = append(reported, addr)
		case last == nil:
			last = a.prohibited(reason, addr.Addr())
		}
	}
	if len(permitted) > 0 {
		return permitted, nil
	}
	if len(reported) > 0 {
		reason, _ := a.decision.CheckAddress(reported[0].Addr())
		a.markAddress(reason, reported[0].Addr())
		return reported, nil
	}
	if last == nil {
		last = classify(&net.DNSError{Err: "NODATA", Name: a.rec.Host, IsNotFound: true})
	}
	return nil, last
}

// vet is asked again at the moment of dialling, for the address that the
// kernel is about to connect to: whatever went wrong before, nothing
// prohibited is dialled. It is called inside net.Dialer, which would not close
// its socket behind a panic, and on goroutines that nobody watches over: a
// panic here is a refusal.
func (a *attempt) vet(addr netip.AddrPort) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.s.panicked(p)
			err = &refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)}
		}
	}()
	if a.s.self.includes(addr) {
		return denial(policy.ReasonSelf, fmt.Errorf("%s is the proxy itself", addr))
	}
	if reason, ok := a.decision.CheckAddress(addr.Addr()); !ok {
		return a.prohibited(reason, addr.Addr())
	}
	return nil
}

// prohibited words a prohibited address. The client is told which only if it
// wrote the address itself: where a name leads inside is not its business.
func (a *attempt) prohibited(reason policy.Reason, addr netip.Addr) *refusal {
	if rule := a.decision.DenyingRule(addr); reason == policy.ReasonDenyRule && rule != nil {
		r := denial(reason, fmt.Errorf("%s is denied by the rule %s", addr, rule.Name))
		r.rule = rule
		return r
	}
	what := policy.AddressHint(addr)
	if what == "" {
		return denial(reason, fmt.Errorf("%s is %s", addr, policy.ClassifyAddress(addr)))
	}
	r := denial(reason, fmt.Errorf("%s is %s", addr, what))
	if _, literal := a.query.Host.Addr(); literal {
		r.hint = fmt.Sprintf("%s is %s, never reached through a proxy: add it to NO_PROXY (sallyport env prints the whole list)", addr, what)
	}
	return r
}

// markAddress notes that only report mode lets the attempt reach addr.
func (a *attempt) markAddress(reason policy.Reason, addr netip.Addr) {
	if !a.rec.WouldDeny {
		r := a.prohibited(reason, addr)
		a.charge(r.rule)
		a.mark(reason, r.err)
	}
}

// peerOf returns the address that e is connected to.
func peerOf(e endpoint) netip.AddrPort {
	if s, ok := e.(*socket); ok {
		return s.peer
	}
	return addrPortOf(e.RemoteAddr())
}

func addrPortOf(addr net.Addr) netip.AddrPort {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
