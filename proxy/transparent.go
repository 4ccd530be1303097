package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// A transparent connection was aimed at somebody else: it has an original
// destination. Where it carries a name that address decides nothing, and is not
// dialled either, whatever it says. Where it does not, cidrs rules are asked
// about the address, and what they allow is dialled as a literal, through the
// same gate.

// silence is how long a transparent client may say nothing before it is taken
// for one that waits for the server to begin (MySQL, SMTP, SSH of old).
const silence = 500 * time.Millisecond

// errReturned is why a connection of the proxy's own is refused.
var errReturned = errors.New("the connection comes from the proxy itself: whatever redirects connections must leave out the proxy's own, by its user ID")

// learnOriginal asks where the connection was aimed at.
func (c *conn) learnOriginal() {
	if c.listener.Original == OriginalNone {
		return
	}
	c.original = c.listener.Original.originalOf(c.tcp.(*net.TCPConn), c.s.self) //nolint:forcetypeassert // see Server.accept
	if c.local == c.original {                                                  // TPROXY: its local address is nobody's here
		c.local = c.s.boundTo(c.listener)
	}
}

// boundTo returns the address that a listener was bound to.
func (s *Server) boundTo(l *ListenerConfig) netip.AddrPort {
	for i := range s.doors {
		if l == &s.cfg.Listeners[i] {
			return s.doors[i].local
		}
	}
	return netip.AddrPort{}
}

// cameBack reports whether the connection is one of the proxy's own, and says
// so in the log, once: nothing works until somebody changes the rules.
func (c *conn) cameBack() bool {
	if !c.s.sent.returned(c.remote, c.original, c.accepted) {
		return false
	}
	c.s.sent.once.Do(func() {
		c.s.deps.Log.Error().Stringer("original", c.original).Msg(errReturned.Error())
	})
	return true
}

// sniffOriginal is sniff for a transparent connection. Where the client is
// silent and a rule lets anything pass to the address, the connection is
// carried from here, without a first byte: it is taken.
func (c *conn) sniffOriginal(ctx context.Context, buf []byte) (first []byte, taken bool) {
	for _, patience := range []time.Duration{min(silence, c.s.cfg.Timeouts.Hello), c.s.cfg.Timeouts.Hello} {
		if err := c.tcp.SetReadDeadline(c.accepted.Add(patience)); err != nil {
			return nil, false
		}
		n, err := c.tcp.Read(buf)
		switch {
		case n > 0:
			return buf[:n], false
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, false // it changed its mind
		}
		last := patience == c.s.cfg.Timeouts.Hello
		if c.serveSilent(ctx, last) || last {
			return nil, true
		}
	}
	return nil, false
}

// serveSilent carries a connection on which the client has said nothing yet,
// where a rule allows that. Otherwise the client may still speak, until it has
// had its time: last. Whoever is refused whatever it says need not wait so long.
func (c *conn) serveSilent(ctx context.Context, last bool) (taken bool) {
	c.returned = c.cameBack()
	c.identify(ctx)
	a := c.s.newAttempt(c, policy.ViaTCP, c.accepted)
	defer a.rescue()
	barred := c.barred()
	refused := barred
	if refused == nil {
		refused = a.decideOriginal(c, policy.ProtocolTCP, denial(policy.ReasonNotTLS,
			fmt.Errorf("no byte within %s; a protocol in which the server speaks first needs a cidrs rule with protocol: tcp", c.s.cfg.Timeouts.Hello)))
	}
	if !last && barred == nil && (refused != nil || a.decision.WouldDeny()) {
		return false
	}
	c.carryTCP(ctx, a, refused, nil)
	return true
}

// serveTCP is for what is neither TLS nor HTTP.
func (c *conn) serveTCP(ctx context.Context, first []byte) {
	unknown := denial(policy.ReasonNotTLS, fmt.Errorf("neither TLS nor HTTP: the first byte is 0x%02x", first[0]))
	if !c.original.IsValid() {
		a := c.s.newAttempt(c, policy.ViaUnknown, c.accepted)
		a.refuse(unknown)
		c.release()
		return
	}
	a := c.s.newAttempt(c, policy.ViaTCP, c.accepted)
	defer a.rescue()
	refused := c.barred()
	if refused == nil {
		refused = a.decideOriginal(c, policy.ProtocolTCP, unknown)
	}
	c.carryTCP(ctx, a, refused, first)
}

// decideOriginal decides about the address that the connection was aimed at,
// in place of a name. Where no rule lists it the attempt ends as it would
// without an address, as unnamed.
func (a *attempt) decideOriginal(c *conn, protocol policy.Protocol, unnamed *refusal) *refusal {
	host, err := policy.ParseHost(c.original.Addr().String())
	if err != nil {
		return unnamed
	}
	a.query.Via, a.rec.Via = policy.ViaTCP, policy.ViaTCP
	a.aim(host, c.original.Port(), protocol)
	refused := a.decide()
	switch {
	case a.decision.Reason != policy.ReasonIPLiteral:
		return refused
	case refused != nil:
		return unnamed
	}
	a.rec.Reason = policy.Reason(unnamed.outcome) // what enforcing would answer
	a.rec.Error = unnamed.text()
	return nil
}

// carryTCP carries an attempt that is neither TLS nor HTTP, from its first
// bytes on, or ends it with a reset: there is nothing else that any protocol
// would understand.
func (c *conn) carryTCP(ctx context.Context, a *attempt, refused *refusal, first []byte) {
	if err := c.tcp.SetReadDeadline(time.Time{}); err != nil && refused == nil {
		refused = &refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: err}
	}
	if refused == nil {
		origin, err := a.connect(ctx, c.home())
		if err == nil {
			(&tunnel{attempt: a, conn: c, origin: origin}).run(first)
			return
		}
		refused = classify(err)
	}
	a.refuse(refused)
	abort(c.tcp)
	c.release()
}
