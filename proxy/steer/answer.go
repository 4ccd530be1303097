package steer

import (
	"context"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport/sallyport/policy"
)

// respond returns the answer to a message, nil for none.
func (s *Server) respond(ctx context.Context, wire []byte, from asker) []byte {
	q, bad := read(wire)
	switch {
	case bad != nil && bad.rcode == dns.RcodeNotImplemented:
		s.stats.unserved.Add(1)
		return bad.answer(wire)
	case bad != nil:
		s.stats.malformed.Add(1)
		return bad.answer(wire)
	case q.edns != nil && q.edns.Version() != 0:
		s.stats.malformed.Add(1)
		return q.pack(q.reply(dns.RcodeBadVers))
	case from.datagram && !s.rate.take(from.remote.Addr(), time.Now()):
		s.stats.limited.Add(1)
		m := q.reply(dns.RcodeSuccess)
		m.Truncated = true
		return q.pack(m)
	case !q.served():
		s.stats.unserved.Add(1)
		return q.pack(q.explain(q.reply(dns.RcodeRefused), dns.ExtendedErrorCodeNotSupported, ""))
	case q.qtype == dns.TypePTR:
		// Whom an address belongs to no rule can say, and every log that asks
		// would make records.
		s.stats.unserved.Add(1)
		return q.pack(q.explain(q.reply(s.cfg.Refused.rcode()), dns.ExtendedErrorCodeNotSupported, ""))
	}
	v := s.decide(ctx, q, from)
	if v.decision.Verdict == policy.Allow {
		s.stats.allowed.Add(1)
		return q.pack(s.allow(q))
	}
	s.stats.denied.Add(1)
	s.remember(q, from, &v)
	code := dns.ExtendedErrorCodeBlocked
	if v.decision.Reason == policy.ReasonUnknownSource {
		code = dns.ExtendedErrorCodeProhibited
	}
	return q.pack(q.explain(q.reply(s.cfg.Refused.rcode()), code, string(v.decision.Reason)))
}

func (r Refusal) rcode() int {
	if r == Refused {
		return dns.RcodeRefused
	}
	return dns.RcodeNameError
}

// reply begins an answer. It says that recursion is available, which is not so:
// stub resolvers take an empty answer of a server that neither recurses nor has
// authority for a referral, and go on to the next server.
func (q *question) reply(rcode int) *dns.Msg {
	m := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id: q.id, Response: true, Rcode: rcode,
			RecursionDesired: q.recurse, RecursionAvailable: true, CheckingDisabled: q.checking,
		},
		Question: []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: q.qclass}},
	}
	if q.edns != nil {
		m.SetEdns0(maxUDPAnswer, q.edns.Do())
	}
	return m
}

// explain adds an extended error, for whoever asked with EDNS.
func (q *question) explain(m *dns.Msg, code uint16, text string) *dns.Msg {
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
	}
	return m
}

// allow answers a question about a name that is allowed.
func (s *Server) allow(q *question) *dns.Msg {
	m := q.reply(dns.RcodeSuccess)
	h := dns.RR_Header{Name: q.name, Rrtype: q.qtype, Class: dns.ClassINET, Ttl: uint32(s.cfg.TTL / time.Second)}
	switch q.qtype {
	case dns.TypeA:
		for _, a := range s.v4 {
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		}
	case dns.TypeAAAA:
		for _, a := range s.v6 {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	case dns.TypeANY:
		h.Rrtype = dns.TypeHINFO
		m.Answer = append(m.Answer, &dns.HINFO{Hdr: h, Cpu: "RFC8482"})
	}
	if len(m.Answer) == 0 {
		// Its owner is the name itself: every cache believes that, whatever part
		// of the tree it sends here.
		h.Rrtype = dns.TypeSOA
		m.Ns = append(m.Ns, &dns.SOA{Hdr: h, Ns: ".", Mbox: ".", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: h.Ttl})
	}
	return m
}

// pack encodes an answer within the size that the question allows, nil if that
// cannot be.
func (q *question) pack(m *dns.Msg) []byte {
	limit := q.limit()
	m.Truncate(limit)
	m.Compress = true
	out, err := m.Pack()
	if err != nil || len(out) > limit {
		return nil
	}
	return out
}
