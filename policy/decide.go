package policy

import (
	"net/netip"
	"slices"
)

// Policy is a compiled policy. It is immutable and safe for concurrent use;
// [Load] makes it. The zero Policy, and a nil one, deny everything.
type Policy struct {
	version     string
	standing    standing // of callers whose sources state no mode
	sources     []source
	rules       []Rule
	hosts       hostIndex
	addresses   prefixTable
	closed      bool    // some deny rule lists addresses
	closedTo    []int32 // the sources that such rules are about, sorted
	buckets     nameIndex
	accessPoint nameIndex
	shared      shares
	callers     callerIndex
	// unknownDenied means that callers who are not known are denied.
	unknownDenied bool
	principals    bool    // some source asks for one
	budgeted      []int32 // the sources with a budget
	warnings      []Warning
	notes         []Warning
	lapses        []lapse
}

// ruleMatch is what a rule asks of a query besides its destination. Its zero
// value asks for nothing.
type ruleMatch struct {
	ports   []portRange
	sources []int32
	s3      *s3Match
	// What the rule is indexed under, for those who lint and explain it.
	hosts        []string
	prefixes     []netip.Prefix
	buckets      []string
	accessPoints []string
}

// miss says what of a rule does not fit a query.
type miss uint8

const (
	missNothing miss = iota
	missWildcard
	missRegion
	missPort
	missProtocol
	missSource
	missOperation
	missAccount
)

// search is one run of Decide.
type search struct {
	policy    *Policy
	caller    caller
	port      uint16
	protocol  Protocol // ProtocolUnknown fits all
	s3        S3Ref
	inPath    bool  // the host leaves the bucket to the path
	asks      asks  // what is asked of S3, the zero value before inspection
	inspect   bool  // some rule must see the requests before it can say
	asksProof bool  // whether a principal would help is worth finding out
	proof     bool  // it would: some allow rule fits but for it
	closest   miss  // by how little the best allow rule missed a call
	deny      int32 // the first deny rule that fits, -1 for none
	allow     int32 // the allow rule that governs, -1 for none
	// While the protocol is not known, the first deny rules that fit one
	// protocol only.
	denyTLS, denyHTTP int32
}

// Decide answers a query. It is pure and total: any matching deny rule wins,
// whatever the order of the rules; then the allow rule that governs (see
// below); and when nothing matches the answer is no.
//
// Of several allow rules that match, one alone governs what the attempt must
// carry and where its name may lead: a rule with protocol tcp before others,
// then one with resolves_to, then the first in the documents' order. A deny
// rule for one protocol reaches a tunnel whose protocol is not known yet when
// the governing rule would let it carry that protocol.
//
// Where a rule that inspects could speak of the host, the answer to a query
// without a call is provisional, see [Decision.Inspect]. With the call, the
// bucket is the call's own, and a copy is allowed when some rule allows
// GetObject of its source, too.
//
// Whoever the policy's unknown_source denies is denied with that reason, before
// any rule. A caller that nothing allows, but that would be if it proved to be
// one of a source's principals, is asked for credentials where it can present
// them ([ViaConnect] and [ViaHTTP]).
//
// In report mode a denial becomes an allow that keeps the denial's reason and
// rule, see [Decision.WouldDeny]. An attempt without a name stays denied:
// there is nothing to connect to. Decide of a query without a call does not
// allocate.
func (p *Policy) Decide(q Query) Decision {
	if p == nil {
		return Decision{Reason: unmatched(q.Host, S3Ref{}), Enforcement: q.enforcement()}
	}
	var s search
	s.begin(p, &q)
	d := Decision{S3: s.s3, Enforcement: q.enforcement(), Mode: s.caller.mode}
	if p.closed || p.budgeted != nil {
		d.asked = asked{p, q.Source, s.port, s.protocol}
	}
	if s.caller.first >= 0 {
		d.Source = p.sources[s.caller.first].name
	}
	if q.S3 != nil && !sameEndpoint(q.Host, q.S3.Host) {
		d.Reason = ReasonNameMismatch
	} else {
		s.run(q.named())
		s.answer(&q, &d)
	}
	switch {
	case d.Verdict == Allow:
	case d.Mode == Report && d.Reason != ReasonNoName:
		d.Verdict, d.Protocol = Allow, ProtocolTCP
	case d.Reason == ReasonS3Bucket && q.S3 == nil:
		d.Inside = p.inspectsBeside(q)
	}
	return d
}

// answer reads the decision off a search that has run.
func (s *search) answer(q *Query, d *Decision) {
	unknown := s.policy.unknown(&q.Source)
	switch {
	case s.deny >= 0 && !unknown:
		d.Rule, d.Reason = &s.policy.rules[s.deny], ReasonDenyRule
	case q.named().IsZero():
		d.Reason = ReasonNoName
	case s.proof && s.deny < 0 && (s.allow < 0 || unknown):
		d.Reason = ReasonCredentials
	case unknown:
		d.Reason = ReasonUnknownSource
	case s.allow < 0:
		d.Reason = s.unmatched(q.named())
	case s.copies() && !s.readsSource(d):
	default:
		d.Rule, d.Reason, d.Verdict = &s.policy.rules[s.allow], ReasonRule, Allow
		d.Protocol, d.Inspect = d.Rule.Protocol, s.inspect
		if s.inspect {
			d.Protocol = ProtocolTLS
		}
	}
}

// enforcement says on whose word a query is answered.
func (q *Query) enforcement() Enforcement { return EnforcementBy(q.Via, q.S3 != nil) }

// EnforcementBy says on whose word an attempt is judged that came in by via,
// and whether the request inside its TLS was seen; "" when nothing was learned.
func EnforcementBy(via Via, inspected bool) Enforcement {
	if inspected {
		return EnforcementInspect
	}
	switch via {
	case ViaConnect:
		return EnforcementConnect
	case ViaHTTP:
		return EnforcementHTTP
	case ViaTLS:
		return EnforcementSNI
	case ViaUnknown, ViaTCP, ViaDNS:
	}
	return ""
}

// begin makes s, which is zero, the search for a query that has not looked at a
// rule yet.
func (s *search) begin(p *Policy, q *Query) {
	s.policy, s.port, s.protocol = p, q.Port, q.Protocol
	s.deny, s.allow, s.denyTLS, s.denyHTTP = -1, -1, -1, -1
	s.caller.find(p, q)
	s.asksProof = p.asksProof(q)
	if s.protocol == ProtocolUnknown {
		switch q.Via {
		case ViaTLS:
			s.protocol = ProtocolTLS
		case ViaHTTP:
			s.protocol = ProtocolHTTP
		}
	}
	host, _ := readS3Host(q.named())
	s.s3, s.inPath = host.ref, host.inPath
	if q.S3 != nil {
		s.s3, s.asks.call = q.S3.Ref, q.S3
	}
}

// named returns the name that is decided about: a call's own, where there is
// one.
func (q *Query) named() Host {
	if q.S3 != nil {
		return q.S3.Host
	}
	return q.Host
}

// run looks at every rule whose destination fits the host.
func (s *search) run(h Host) {
	s.candidates(h, s.consider)
	carries := ProtocolTCP
	if s.inspect {
		carries = ProtocolTLS
	} else if s.allow >= 0 {
		carries = s.policy.rules[s.allow].Protocol
	}
	s.settle(carries)
}

// settle decides about the deny rules that fit one protocol only. What a
// tunnel may carry is the governing rule's to say: a deny rule of another
// protocol denies nothing that could pass.
func (s *search) settle(carries Protocol) {
	if carries != ProtocolHTTP {
		s.deny = first(s.deny, s.denyTLS)
	}
	if carries != ProtocolTLS {
		s.deny = first(s.deny, s.denyHTTP)
	}
}

// first returns the lower of two rules' numbers, -1 being none.
func first(i, j int32) int32 {
	if i < 0 || (j >= 0 && j < i) {
		return j
	}
	return i
}

// candidates visits the rules whose destination fits the host.
func (s *search) candidates(h Host, visit visit) {
	p := s.policy
	if a, literal := h.Addr(); literal {
		p.addresses.find(a, visit)
		return
	}
	if h.IsZero() {
		return
	}
	p.hosts.find(h.name, visit)
	if s.s3.Bucket != "" {
		p.buckets.find(s.s3.Bucket, visit)
	}
	if s.s3.AccessPoint != "" {
		p.findPoint(s.s3.AccessPoint, ownedName(h, s.s3), visit)
	}
	if s.inPath && s.s3.Opaque() {
		p.shared.find(s.s3, s.asks.call != nil, visit)
	}
}

// consider takes the better of what was found so far and some rules.
func (s *search) consider(rules []int32, spelled bool) {
	for _, i := range rules {
		r := &s.policy.rules[i]
		if r.Verdict == Deny {
			best := s.denies(r)
			if (first(*best, i) != i && !r.inspects()) || s.misses(r, spelled) != missNothing {
				continue
			}
			if s.waits(r) {
				s.inspect = true
			} else {
				*best = first(*best, i)
			}
			continue
		}
		if m := s.misses(r, spelled); m != missNothing {
			if m >= missOperation {
				s.closest = max(s.closest, m)
			}
			if m == missSource && s.asksProof && !s.proof {
				s.proof = s.provable(r.match.sources)
			}
			continue
		}
		s.inspect = s.inspect || s.waits(r)
		if s.allow < 0 || s.policy.governs(i, s.allow) {
			s.allow = i
		}
	}
}

// denies returns where a deny rule that fits is kept.
func (s *search) denies(r *Rule) *int32 {
	switch {
	case s.protocol == ProtocolUnknown && r.Protocol == ProtocolTLS:
		return &s.denyTLS
	case s.protocol == ProtocolUnknown && r.Protocol == ProtocolHTTP:
		return &s.denyHTTP
	}
	return &s.deny
}

// governs reports whether the allow rule i goes before j.
func (p *Policy) governs(i, j int32) bool {
	a, b := &p.rules[i], &p.rules[j]
	if at, bt := a.Protocol == ProtocolTCP, b.Protocol == ProtocolTCP; at != bt {
		return at
	}
	if at, bt := len(a.ResolvesTo) > 0, len(b.ResolvesTo) > 0; at != bt {
		return at
	}
	return i < j
}

// misses says what of a rule, whose destination fits, does not fit.
func (s *search) misses(r *Rule, spelled bool) miss {
	m := &r.match
	if m.s3 != nil {
		if !s.fits(m.s3, r.Verdict) {
			return missRegion
		}
	} else if s.s3.Form != "" && !spelled && r.Verdict == Allow {
		return missWildcard
	}
	switch {
	case !fitsPort(m.ports, s.port):
		return missPort
	case s.protocol != ProtocolUnknown && r.Protocol != s.protocol && r.Protocol != ProtocolTCP:
		return missProtocol
	case len(m.sources) > 0 && !s.fromAny(m.sources):
		return missSource
	case m.s3 != nil && s.asks.call != nil:
		return s.missesCall(m.s3, r.Verdict)
	}
	return missNothing
}

func fitsPort(ranges []portRange, port uint16) bool {
	for _, r := range ranges {
		if r.low <= port && port <= r.high {
			return true
		}
	}
	return len(ranges) == 0
}

// unmatched is the reason when no rule speaks of a host.
func unmatched(h Host, s3 S3Ref) Reason {
	switch _, literal := h.Addr(); {
	case h.IsZero():
		return ReasonNoName
	case literal:
		return ReasonIPLiteral
	case s3.Form == "":
		return ReasonNoRule
	case s3.Opaque():
		return ReasonS3Opaque
	}
	return ReasonS3Bucket
}

// Version names the policy: the first 12 hexadecimal digits of the SHA-256
// of its documents' names and texts; "" for a policy that was not loaded.
func (p *Policy) Version() string {
	if p == nil {
		return ""
	}
	return p.version
}

// Inspects reports whether any rule asks for inspection, without which such
// rules allow nothing: whoever cannot inspect must not serve the policy.
func (p *Policy) Inspects() bool {
	return p != nil && slices.ContainsFunc(p.rules, func(r Rule) bool { return r.inspects() })
}

// Rules returns the rules in the documents' order, a preset's parts in the
// place of the rule that names it. The rules are shared: do not change them.
func (p *Policy) Rules() []Rule {
	if p == nil {
		return nil
	}
	return slices.Clip(p.rules)
}
