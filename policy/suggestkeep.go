package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// LeftOutWhy says why an observation is not in a suggestion. The words are a
// published vocabulary.
type LeftOutWhy string

// Why something is left out.
const (
	LeftOutOnce       LeftOutWhy = "one_off"    // it happened too seldom to be a habit
	LeftOutAddress    LeftOutWhy = "ip_literal" // an address was asked for, not a name
	LeftOutNoName     LeftOutWhy = "no_name"    // no name was learned, or none that a rule can have
	LeftOutDenied     LeftOutWhy = "denied"     // the policy in force denies it
	LeftOutGuard      LeftOutWhy = "address"    // the name leads to an address that is prohibited
	LeftOutPrivate    LeftOutWhy = "private"    // the name leads to a private address
	LeftOutUnclear    LeftOutWhy = "unclear"    // the connection was not what it said
	LeftOutNotTLS     LeftOutWhy = "not_tls"    // something else than TLS on port 443
	LeftOutFailed     LeftOutWhy = "failed"     // no attempt reached its origin
	LeftOutSuspicious LeftOutWhy = "suspicious" // the names look as if they carried data
	LeftOutOpaque     LeftOutWhy = "s3_opaque"  // the request to S3 does not tell its bucket, or is none that is known
	LeftOutCaller     LeftOutWhy = "caller"     // nobody knows who called
)

// LeftOut is what a suggestion does not allow, and why.
type LeftOut struct {
	Why    LeftOutWhy `json:"why"`
	Caller string     `json:"caller"` // as [Seen.Caller]
	Site   string     `json:"site"`   // as [Seen.Site]
	Detail string     `json:"detail"`
	Count  int64      `json:"count"`
	First  time.Time  `json:"first"`
	Last   time.Time  `json:"last"`

	query Query // its Host is zero where there is none to be asked
}

// sift takes the observations that the suggestion shall allow, and keeps the
// others with the reason.
func (g *suggester) sift() {
	g.close()
	for i := range g.sums {
		s := &g.sums[i]
		if s.Query.Via == ViaDNS {
			continue // the connection behind the question is an observation itself
		}
		k := keptSeen{Seen: s, query: s.asked()}
		why, detail := g.why(&k)
		if why == "" {
			g.out.kept = append(g.out.kept, k)
			g.out.allowUnknown = g.out.allowUnknown || (s.Query.Source.Unidentified && s.Query.Source.Principal == "")
			continue
		}
		g.out.LeftOut = append(g.out.LeftOut, LeftOut{
			Why: why, Caller: s.Caller(), Site: s.Site(), Detail: detail,
			Count: s.Count, First: s.First, Last: s.Last, query: k.query,
		})
	}
	slices.SortStableFunc(g.out.LeftOut, func(a, b LeftOut) int { return strings.Compare(string(a.Why), string(b.Why)) })
}

// close notes the domains over which there shall be no wildcard: something
// below them is to stay out.
func (g *suggester) close() {
	for i := range g.sums {
		s := &g.sums[i]
		_, odd := g.odd[s]
		if odd || s.Reason == ReasonDenyRule || s.Reason == ReasonAddressProhibited || s.Peer.IsValid() && ProhibitedRange(single(s.Peer)) {
			g.closed[registrable(s.Query.Host.name)] = true
		}
	}
}

// why says why an observation is left out, "" where it is kept. It finds the
// caller, and the private ranges that the name may lead to.
func (g *suggester) why(k *keptSeen) (why LeftOutWhy, detail string) {
	s, h := k.Seen, k.query.Host
	_, literal := h.Addr()
	switch odd := g.odd[s]; {
	case s.Folded:
		return LeftOutNoName, "there were too many names to keep them"
	case h.IsZero():
		return LeftOutNoName, "no rule can name it"
	case odd != "":
		return LeftOutSuspicious, odd
	case s.Verdict == Deny:
		return whyDenied(s)
	case s.WouldDeny && s.Reason == ReasonDenyRule:
		return LeftOutDenied, byRule(s)
	case s.WouldDeny && unclear(s.Reason) && s.Reason != ReasonAddressProhibited:
		return LeftOutUnclear, "enforcing would end it with " + string(s.Reason)
	case literal:
		return LeftOutAddress, "a rule with cidrs allows it, if it has no name"
	case s.reached() == 0:
		return LeftOutFailed, "no attempt reached its origin"
	case s.reached() < g.MinCount:
		return LeftOutOnce, fmt.Sprintf("it happened %s", times(s.reached()))
	case k.query.Protocol == ProtocolTCP && k.query.Port == 443:
		return LeftOutNotTLS, "protocol: tcp in a rule allows it, and with it anything that a client sends there"
	}
	if k.resolvesTo = g.leadsTo(s); k.resolvesTo == nil && s.Reason == ReasonAddressProhibited {
		return LeftOutPrivate, "it leads to private addresses; resolves_to in a rule allows that"
	}
	if detail = whyOpaque(s); detail != "" {
		return LeftOutOpaque, detail
	}
	if k.caller, detail = g.callers.find(s); detail != "" {
		return LeftOutCaller, detail
	}
	return "", ""
}

// whyDenied says why something that was denied stays so.
func whyDenied(s *Seen) (LeftOutWhy, string) {
	switch s.Reason {
	case ReasonAddressProhibited, ReasonSelf:
		return LeftOutGuard, "the address that it leads to is prohibited (" + string(s.Reason) + ")"
	case ReasonDenyRule:
		return LeftOutDenied, byRule(s)
	}
	return LeftOutDenied, "it was denied: " + legible(string(s.Reason))
}

// byRule names the deny rule that speaks against something.
func byRule(s *Seen) string {
	if s.Rule == "" {
		return "a deny rule speaks against it"
	}
	return "the deny rule " + legible(s.Rule) + " speaks against it"
}

// unclear reports whether a reason is about what the connection carried, which
// no rule cures.
func unclear(r Reason) bool {
	switch r {
	case ReasonNoRule, ReasonRule, ReasonDenyRule, ReasonUnknownSource, ReasonCredentials, ReasonIPLiteral,
		ReasonS3Bucket, ReasonS3Operation, ReasonS3Account, ReasonS3Opaque:
		return false
	}
	return true
}

// whyOpaque says why no rule can be written for a request to S3, "" where one
// can, or where it is none.
func whyOpaque(s *Seen) string {
	ref, call := s.s3(), s.Query.S3
	switch {
	case ref.Form == "":
		return ""
	case ref.Opaque() && call == nil:
		return "the bucket is in the path, which only inspection sees"
	case ref.Opaque():
		return "it is about no bucket; list its operation in a rule that inspects, if it is meant"
	case call != nil && (!isS3Operation(call.Operation) || call.ACL != "" && !isS3Operation(call.ACL)):
		return "the request is no operation of S3's that is known"
	}
	if problem := unlistable(ref); problem != "" || call == nil || call.Source.Ref.Form == "" {
		return problem
	}
	if problem := unlistable(call.Source.Ref); problem != "" {
		return "of what it copies, " + problem
	}
	return ""
}

// unlistable says why no rule can list what a reference names, "" where one can.
func unlistable(ref S3Ref) string {
	if !slices.Contains(partitions(), ref.Partition) || (ref.Region != "" && (!isRegion(ref.Region) || regionPartition(ref.Region) != ref.Partition)) {
		return "no bucket lies where it is said to"
	}
	name := ref.Bucket
	if name == "" {
		if name = ref.AccessPoint; aliasSuffix(name) == "" && !isAccount(ref.Account) {
			return "the access point's account is not known"
		}
	}
	if _, err := parseBucketPattern(name); err != nil || strings.ContainsAny(name, "*{},") || (ref.Bucket != "" && aliasSuffix(name) != "") {
		return "the name is none that a bucket has"
	}
	return ""
}

func isS3Operation(name string) bool {
	_, known := s3Guarded()[name]
	return known
}

// leadsTo returns the private ranges that a name needs: those of the rule that
// allowed it, or around the private address that it led to, as large as a VPC's
// block of addresses can be.
func (g *suggester) leadsTo(s *Seen) []netip.Prefix {
	if s.Reason == ReasonRule && g.Policy != nil {
		for i := range g.Policy.rules {
			if r := &g.Policy.rules[i]; r.Name == s.Rule && r.match.prefixes == nil {
				return r.ResolvesTo
			}
		}
	}
	peer := s.Peer.Unmap()
	if !peer.IsValid() || !ClassifyAddress(peer).local() {
		return nil
	}
	bits := 56
	if peer.Is4() {
		bits = 16
	}
	return []netip.Prefix{netip.PrefixFrom(peer, bits).Masked()}
}

// times writes how often something happened.
func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// suspicious finds the observations whose names look as if they carried data
// out: many machine-drawn names, or a flood of names, below one domain, each
// asked for hardly ever; or one very long one.
func suspicious(sums []Seen) map[*Seen]string {
	odd := map[*Seen]string{}
	groups := map[string][]*Seen{}
	var order []string
	for i := range sums {
		s := &sums[i]
		name := s.Query.Host.name
		if name == "" || s.s3().Form != "" {
			continue
		}
		domain := registrable(name)
		if domain == "" || domain == name {
			continue
		}
		key := s.Caller() + "\n" + domain
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], s)
	}
	for _, key := range order {
		_, domain, _ := strings.Cut(key, "\n")
		judgeNames(domain, groups[key], odd)
	}
	return odd
}

const (
	drawnNames = 5  // machine-drawn names below one domain, seldom asked for, are suspicious
	floodNames = 50 // any names are
	seldom     = 3  // asked for no more often than that
	dataName   = 60 // characters below the domain that hold a machine-drawn label
)

// judgeNames marks what is suspicious among one caller's names below a domain.
func judgeNames(domain string, group []*Seen, odd map[*Seen]string) {
	counts := map[string]int64{}
	for _, s := range group {
		counts[s.Query.Host.name] += s.Count
	}
	drawn, rare := 0, 0
	for name, n := range counts {
		if n > seldom {
			continue
		}
		rare++
		if drawnName(name, domain) {
			drawn++
		}
	}
	for _, s := range group {
		name := s.Query.Host.name
		switch n := counts[name]; {
		case n <= seldom && rare >= floodNames:
			odd[s] = fmt.Sprintf("%d names below %s, each seen at most %s: data may leave in names", rare, domain, times(seldom))
		case n <= seldom && drawn >= drawnNames && drawnName(name, domain):
			odd[s] = fmt.Sprintf("%d machine-drawn names below %s, each seen at most %s: data may leave in names", drawn, domain, times(seldom))
		case n < 10 && len(name)-len(domain) > dataName && drawnName(name, domain):
			odd[s] = "a long machine-drawn name, seen " + times(n)
		}
	}
}

// drawnName reports whether a label below the domain looks machine-drawn.
func drawnName(name, domain string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSuffix(name, domain), "."), ".") {
		if drawnLabel(label) {
			return true
		}
	}
	return false
}
