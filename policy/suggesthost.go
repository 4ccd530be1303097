package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// hostGroup is a caller's names that one rule can hold together: the protocol,
// the ports and the private ranges are the same.
type hostGroup struct {
	protocol   Protocol
	ports      []uint16
	resolvesTo []netip.Prefix
	names      map[string][]*Seen
}

// hostRules writes the rules of hosts for a caller: one for each name that
// somebody registered, and each protocol and set of ports.
func (g *suggester) hostRules(c *suggestedCaller, kept []keptSeen) {
	for _, group := range groupHosts(kept) {
		patterns := map[string][]SuggestedHost{}
		for _, h := range g.generalise(slices.Sorted(maps.Keys(group.names))) {
			purpose := registrable(strings.TrimPrefix(h.Pattern, "*."))
			if purpose == "" {
				purpose = h.Pattern
			}
			patterns[purpose] = append(patterns[purpose], h)
		}
		for _, purpose := range slices.Sorted(maps.Keys(patterns)) {
			rule := g.newRule(c, purpose+group.suffix())
			rule.Hosts, rule.Protocol, rule.Ports, rule.ResolvesTo = patterns[purpose], group.protocol.String(), group.ports, group.resolvesTo
			for _, h := range rule.Hosts {
				for _, name := range h.all() {
					for _, s := range group.names[name] {
						rule.Evidence.add(s)
					}
				}
			}
			g.out.Rules = append(g.out.Rules, rule)
		}
	}
}

// all returns the names that were seen of a pattern.
func (h SuggestedHost) all() []string {
	if len(h.Names) > 0 {
		return h.Names
	}
	return []string{h.Pattern}
}

// suffix tells rules of one purpose apart by what they carry and where to.
func (h *hostGroup) suffix() string {
	standard := uint16(443)
	var parts []string
	if h.protocol != ProtocolTLS {
		parts = append(parts, "", h.protocol.String())
	}
	if h.protocol == ProtocolHTTP {
		standard = 80
	}
	if !slices.Equal(h.ports, []uint16{standard}) {
		if parts == nil {
			parts = []string{""}
		}
		for _, p := range h.ports[:min(len(h.ports), 3)] {
			parts = append(parts, decimalOf(int(p)))
		}
	}
	return strings.Join(parts, "-")
}

// groupHosts groups names by what else a rule of theirs must say, in order.
func groupHosts(kept []keptSeen) []*hostGroup {
	type place struct {
		name     string
		protocol Protocol
		ranges   string
	}
	// A tunnel that carries anything on a port leaves TLS there nothing to ask.
	anything := map[string]bool{}
	at := func(k *keptSeen) string { return fmt.Sprint(k.query.Host.name, " ", k.query.Port) }
	for i := range kept {
		if kept[i].query.Protocol == ProtocolTCP {
			anything[at(&kept[i])] = true
		}
	}
	ports, seen, ranges := map[place][]uint16{}, map[place][]*Seen{}, map[string][]netip.Prefix{}
	for i := range kept {
		k := &kept[i]
		p := place{k.query.Host.name, k.query.Protocol, fmt.Sprint(k.resolvesTo)}
		if anything[at(k)] {
			p.protocol = ProtocolTCP
		}
		ranges[p.ranges] = k.resolvesTo
		ports[p] = append(ports[p], k.query.Port)
		seen[p] = append(seen[p], k.Seen)
	}
	groups := map[string]*hostGroup{}
	for p, list := range ports {
		slices.Sort(list)
		list = slices.Compact(list)
		key := fmt.Sprintf("%d %05d %s", p.protocol, list, p.ranges)
		if groups[key] == nil {
			groups[key] = &hostGroup{p.protocol, list, ranges[p.ranges], map[string][]*Seen{}}
		}
		groups[key].names[p.name] = append(groups[key].names[p.name], seen[p]...)
	}
	var ordered []*hostGroup
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		for _, all := range groups[key].names {
			slices.SortFunc(all, compareSeen)
		}
		ordered = append(ordered, groups[key])
	}
	return ordered
}

// generalise returns patterns for sorted names: the names, or wildcards in
// their place where that is safe.
func (g *suggester) generalise(names []string) []SuggestedHost {
	below := map[string][]string{}
	for _, name := range names {
		if _, parent, found := strings.Cut(name, "."); found {
			below[parent] = append(below[parent], name)
		}
	}
	var all []SuggestedHost
	taken := map[string]bool{}
	for _, parent := range slices.Sorted(maps.Keys(below)) {
		if siblings := below[parent]; g.mayJoin(parent, siblings) {
			all = append(all, SuggestedHost{Pattern: "*." + parent, Names: siblings})
			for _, name := range siblings {
				taken[name] = true
			}
		}
	}
	for _, name := range names {
		if !taken[name] {
			all = append(all, SuggestedHost{Pattern: name})
		}
	}
	slices.SortFunc(all, func(a, b SuggestedHost) int { return cmp.Compare(a.Pattern, b.Pattern) })
	return all
}

// mayJoin reports whether a wildcard may stand for names with one parent: see
// [Suggest].
func (g *suggester) mayJoin(parent string, siblings []string) bool {
	if g.effort >= effortNoWildcards || g.MinSiblings < 0 || len(siblings) < g.MinSiblings ||
		!strings.Contains(parent, ".") || registrable(parent) == "" ||
		strangersBelow("*."+parent) != "" || tenanted(parent) != "" || g.closed[registrable(parent)] || g.ownPresets[registrable(parent)] {
		return false
	}
	labels := make([]string, len(siblings))
	for i, name := range siblings {
		labels[i], _, _ = strings.Cut(name, ".")
		if isS3Name(name) {
			return false
		}
	}
	return readsAsService(labels)
}
