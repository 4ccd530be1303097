package steer

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// verdict is what was decided about a name, and for whom.
type verdict struct {
	source   policy.Source
	decision policy.Decision
	version  string // of the policy
	at       time.Time
}

// decide asks the policy whether the client may come to the name by TLS or by
// plain HTTP. When neither is allowed, the answer about TLS says why, unless it
// is only that no rule speaks of it.
func (s *Server) decide(ctx context.Context, q *question, from asker) verdict {
	v := verdict{source: s.identify(ctx, from), at: time.Now()}
	// A name that is no host name stays the zero Host, and is denied as no_name.
	host, err := policy.ParseHost(q.name)
	if err != nil {
		host = policy.Host{}
	}
	for { // until no other policy has come into force meanwhile
		v.version = s.deps.Decider.Version()
		v.decision = s.ask(policy.Query{Source: v.source, Host: host, At: v.at})
		if s.deps.Decider.Version() == v.version {
			return v
		}
	}
}

func (s *Server) ask(q policy.Query) policy.Decision {
	q.Via, q.Port, q.Protocol = policy.ViaTLS, 443, policy.ProtocolTLS
	tls := s.deps.Decider.Decide(q)
	if tls.Verdict == policy.Allow {
		return tls
	}
	q.Via, q.Port, q.Protocol = policy.ViaHTTP, 80, policy.ProtocolHTTP
	http := s.deps.Decider.Decide(q)
	if http.Verdict == policy.Allow || tls.Reason == policy.ReasonNoRule {
		return http
	}
	return tls
}

// identify finds out who asks.
func (s *Server) identify(ctx context.Context, from asker) policy.Source {
	source := policy.Source{Addr: from.remote.Addr()}
	if s.deps.Identifier == nil {
		return source
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	return s.deps.Identifier.Identify(ctx, source)
}
