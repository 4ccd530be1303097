package resolve

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
)

// penalty is how long a server that failed is asked last.
const penalty = 10 * time.Second

// upstream is the servers and what is known of their health.
type upstream struct {
	mu       sync.Mutex // protects failedAt of each server
	servers  []*server
	exchange func(context.Context, netip.AddrPort, question) (*dns.Msg, error)
	timeout  time.Duration
	attempts int
	now      func() time.Time
	log      zerolog.Logger
}

type server struct {
	addr     netip.AddrPort
	failedAt time.Time // zero while it answers
}

// order returns the servers as configured, those that failed lately last.
func (u *upstream) order() []*server {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	var well, ill []*server
	for _, s := range u.servers {
		if !s.failedAt.IsZero() && now.Sub(s.failedAt) < penalty {
			ill = append(ill, s)
		} else {
			well = append(well, s)
		}
	}
	return append(well, ill...)
}

// failed marks a server; a change of state is logged.
func (u *upstream) failed(s *server, why error) {
	u.mu.Lock()
	first := s.failedAt.IsZero()
	s.failedAt = u.now()
	u.mu.Unlock()
	if first {
		u.log.Warn().Stringer("dns.server", s.addr).Err(why).Msg("DNS server does not answer")
	}
}

// answered clears a server's mark; a change of state is logged.
func (u *upstream) answered(s *server) {
	u.mu.Lock()
	back := !s.failedAt.IsZero()
	s.failedAt = time.Time{}
	u.mu.Unlock()
	if back {
		u.log.Info().Stringer("dns.server", s.addr).Msg("DNS server answers again")
	}
}

// query asks the servers in turn until one gives an answer, positive or
// negative. Its fail is the most telling of the failures otherwise.
//
// A server that cannot be reached is marked at once. One that answers SERVFAIL
// or the like is marked only when another knows better: otherwise the fault is
// the name's, and whoever owns such a name could demote our servers.
func (u *upstream) query(ctx context.Context, q question) answer {
	servers := u.order()
	var telling *failure
	var doubtful []*server
	for range u.attempts {
		var again []*server
		for _, s := range servers {
			a := u.try(ctx, s, q)
			if a.fail == nil || a.fail.kind.negative() {
				for _, d := range doubtful {
					u.failed(d, errors.New("another server knows the answer"))
				}
				return a
			}
			switch a.fail.kind {
			case timedOut:
				again = append(again, s)
			case unreachable:
			default:
				doubtful = append(doubtful, s)
			}
			if telling == nil || a.fail.kind < telling.kind {
				telling = a.fail
			}
			if spent(ctx) {
				return answer{fail: telling}
			}
		}
		servers = again
	}
	return answer{fail: telling}
}

// spent reports whether ctx leaves no time for another try. The last try and
// the budget may end at the same moment, in either order.
func spent(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) <= 0
}

// try asks one server once.
func (u *upstream) try(ctx context.Context, s *server, q question) answer {
	tryCtx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	m, err := u.exchange(tryCtx, s.addr, q)
	if err != nil {
		fail, ok := errors.AsType[*failure](err)
		if !ok {
			fail = &failure{kind: unreachable, text: err.Error()}
		}
		fail.server = s.addr.String()
		if !spent(ctx) { // else it may not have been given its time
			u.failed(s, fail)
		}
		return answer{fail: fail}
	}
	a := interpret(m, q)
	if a.fail != nil {
		a.fail.server = s.addr.String()
	}
	if a.fail == nil || a.fail.kind.negative() {
		u.answered(s)
	}
	return a
}
