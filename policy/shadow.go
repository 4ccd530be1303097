package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// shadowOf returns a rule without which, or because of which, the rule id
// changes nothing; -1 when there is none.
func (p *Policy) shadowOf(id int32) int32 {
	b := &p.rules[id]
	first := true
	var candidates []int32
	for covering := range p.destinations(b) {
		var here []int32
		covering(func(rules []int32, spelled bool) {
			for _, i := range rules[:min(len(rules), lintWidth)] {
				if i != id && (first || slices.Contains(candidates, i)) && covers(&p.rules[i], b, spelled) {
					here = append(here, i)
				}
			}
		})
		if len(here) == 0 {
			return -1
		}
		candidates, first = here, false
	}
	slices.Sort(candidates)
	for _, i := range candidates {
		if i > id && b.Budget != nil {
			continue // b goes first, and what is sent under it is counted
		}
		if a := &p.rules[i]; i < id || a.Verdict != b.Verdict || !p.coversAll(id, a) {
			return i
		}
	}
	return -1
}

// coversAll reports whether the rule id covers every destination of a, and
// asks for no more.
func (p *Policy) coversAll(id int32, a *Rule) bool {
	for covering := range p.destinations(a) {
		found := false
		covering(func(rules []int32, spelled bool) {
			found = found || (slices.Contains(rules, id) && covers(&p.rules[id], a, spelled))
		})
		if !found {
			return false
		}
	}
	return true
}

// destinations yields, for each destination of a rule, a function that visits
// the rules whose destinations cover it.
func (p *Policy) destinations(r *Rule) func(yield func(func(visit)) bool) {
	return func(yield func(func(visit)) bool) {
		for _, h := range r.match.hosts {
			if !yield(func(v visit) { p.hosts.covering(h, v) }) {
				return
			}
		}
		for _, prefix := range r.match.prefixes {
			if !yield(func(v visit) { p.addresses.covering(prefix, v) }) {
				return
			}
		}
		for _, b := range r.match.buckets {
			if !yield(func(v visit) { p.buckets.covering(b, v) }) {
				return
			}
		}
		for _, a := range r.match.accessPoints {
			if !yield(func(v visit) { p.accessPoint.covering(a, v) }) {
				return
			}
		}
	}
}

// covers reports whether the rule a, whose destination covers one of b's,
// fits whatever b fits there, and leaves b nothing to add.
func covers(a, b *Rule, spelled bool) bool {
	m, n := &a.match, &b.match
	if a.Protocol != b.Protocol && a.Protocol != ProtocolTCP {
		return false
	}
	if a.Verdict == Allow {
		if b.Verdict == Deny {
			return false
		}
		if m.s3 == nil && !spelled && slices.ContainsFunc(n.hosts, isS3Name) {
			return false
		}
		for _, p := range b.ResolvesTo {
			if !slices.ContainsFunc(a.ResolvesTo, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
				return false
			}
		}
	}
	return coversPorts(m.ports, n.ports) && coversSources(m.sources, n.sources) && m.s3.covers(n.s3, a.Verdict)
}

func isS3Name(name string) bool {
	h, err := ParseHost(name)
	if err != nil {
		return false
	}
	_, ok := ParseS3Host(h)
	return ok
}

// coversPorts reports whether the ranges a hold all of b; none mean all.
func coversPorts(a, b []portRange) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	for _, y := range b {
		if !slices.ContainsFunc(a, func(x portRange) bool { return x.low <= y.low && y.high <= x.high }) {
			return false
		}
	}
	return true
}

// coversSources reports whether the sources a hold all of b; none mean all.
func coversSources(a, b []int32) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	for _, s := range b {
		if !slices.Contains(a, s) {
			return false
		}
	}
	return true
}

// covers reports whether m fits every host and every request that n fits.
func (m *s3Match) covers(n *s3Match, v Verdict) bool {
	switch {
	case m == nil || n == nil:
		return m == n
	case n.opaque && !m.opaque, !m.s3Conditions.covers(&n.s3Conditions, v):
		return false
	case len(m.regions) == 0:
		return m.partition == "" || (n.partition == m.partition && len(n.regions) == 0) ||
			(len(n.regions) > 0 && !slices.ContainsFunc(n.regions, func(r string) bool { return regionPartition(r) != m.partition }))
	case len(n.regions) == 0:
		return false
	}
	return !slices.ContainsFunc(n.regions, func(r string) bool { return !slices.Contains(m.regions, r) })
}

// covering visits the rules with a pattern that certainly matches every name
// that the given one matches.
func (x *hostIndex) covering(pattern string, visit visit) {
	if !hasWildcard(pattern) {
		x.find(pattern, visit)
		return
	}
	_, suffix, _ := strings.Cut(pattern[strings.LastIndexByte(pattern, '*'):], ".")
	if n := x.nodes[suffix]; n != nil {
		if pattern == "*."+suffix {
			visit(n.one, false)
		}
		if n.globs != nil {
			visit(n.globs.same(pattern, suffix), false)
		}
	}
	for {
		if n := x.nodes[suffix]; n != nil {
			visit(n.many, false)
		}
		if suffix == "" {
			return
		}
		_, suffix, _ = strings.Cut(suffix, ".")
	}
}

func (x *nameIndex) covering(pattern string, visit visit) {
	if !hasWildcard(pattern) {
		x.find(pattern, visit)
		return
	}
	visit(x.globs.same(pattern, ""), false)
}

func (t *prefixTable) covering(p netip.Prefix, visit visit) {
	for bits := range p.Bits() + 1 {
		if ids := t.filed[netip.PrefixFrom(p.Addr(), bits).Masked()]; len(ids) > 0 {
			visit(ids, true)
		}
	}
}
