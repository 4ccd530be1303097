package policy

import (
	"slices"
	"strings"
)

// source is a compiled entry of sources. What it does not ask for is nil or
// empty; a caller belongs to it when all fits that it asks for.
type source struct {
	name       string
	prefixes   prefixTable
	cidrs      bool     // prefixes are asked for
	endpoints  []string // sorted
	principals []string // sorted
	ecs        *ecsMatch
	sole       bool      // it asks for one thing, which its place in the index has answered
	standing   *standing // nil when it states no mode
	budget     *Budget   // nil for none
	pos        Pos
}

// ecsMatch is what a source asks of the caller's task.
type ecsMatch struct {
	cluster, service, family names
	revisions                []revisionRange
	tags                     []tagMatch
}

// tagMatch asks for a tag, and for one of some values.
type tagMatch struct {
	key    string
	values names
}

// names are the patterns of which a name must fit one; none fit all.
type names struct {
	exact   []string // sorted
	globs   []matcher
	written []string // all of them, without braces
}

// longestName bounds the names that a pattern is tried on: beyond it nothing is
// ECS's, and a glob's price grows with the name.
const longestName = max(maxECSName, maxTagValue)

// fit reports whether a name fits.
func (n *names) fit(name string) bool {
	if len(n.written) == 0 {
		return true
	}
	if len(name) > longestName {
		return false
	}
	if _, ok := slices.BinarySearch(n.exact, name); ok {
		return true
	}
	for _, g := range n.globs {
		if g.Match(name) {
			return true
		}
	}
	return false
}

// lack is what a caller does not have to belong to a source.
type lack uint8

// lackPrincipal is the last to be looked for: a caller that lacks it would
// belong to the source if it proved to be one of the principals.
const (
	lackNothing lack = iota
	lackAddress
	lackEndpoint
	lackTask
	lackCluster
	lackService
	lackFamily
	lackRevision
	lackTag
	lackPrincipal
)

// lacks returns the first thing that c does not have.
func (s *source) lacks(c *Source) lack {
	if s.cidrs && !s.prefixes.holds(c.Addr.Unmap()) {
		return lackAddress
	}
	if len(s.endpoints) > 0 && !holdsText(s.endpoints, c.VPCEndpoint) {
		return lackEndpoint
	}
	if s.ecs != nil {
		if l, _ := s.ecs.lacks(c.Task); l != lackNothing {
			return l
		}
	}
	if len(s.principals) > 0 && !holdsText(s.principals, c.Principal) {
		return lackPrincipal
	}
	return lackNothing
}

func holdsText(sorted []string, text string) bool {
	_, ok := slices.BinarySearch(sorted, text)
	return ok
}

// lacks returns the first thing that a task does not have, and the tag's key
// when it is a tag. A name that is not known fits nothing, not even "*".
func (m *ecsMatch) lacks(t *Task) (what lack, tag string) {
	if t == nil {
		return lackTask, ""
	}
	for _, asked := range [...]struct {
		names *names
		name  string
		lack  lack
	}{
		{&m.cluster, t.Cluster, lackCluster},
		{&m.service, t.Service, lackService},
		{&m.family, t.Family, lackFamily},
	} {
		if len(asked.names.written) > 0 && (asked.name == "" || !asked.names.fit(asked.name)) {
			return asked.lack, ""
		}
	}
	if len(m.revisions) > 0 && !slices.ContainsFunc(m.revisions, func(r revisionRange) bool { return r.low <= t.Revision && t.Revision <= r.high }) {
		return lackRevision, ""
	}
	for i := range m.tags {
		if value, ok := t.Tags[m.tags[i].key]; !ok || !m.tags[i].values.fit(value) {
			return lackTag, m.tags[i].key
		}
	}
	return lackNothing, ""
}

// caller is who asks, and the sources that it belongs to.
type caller struct {
	Source
	in    [8]int32 // n of them, ascending
	n     int32
	first int32 // the lowest of all, -1 for none
	more  bool  // there are others: only the sources themselves can tell
	mode  Mode
}

// find finds the sources of a query's caller, and the mode in force for it: of
// its sources that state one the strictest, else the documents'.
func (c *caller) find(p *Policy, q *Query) {
	c.Source, c.first = q.Source, -1
	if len(p.sources) == 0 {
		c.mode = p.standing.modeAt(q.At)
		return
	}
	stated, mode := false, Report
	p.callers.find(&c.Source, func(ids []int32, _ bool) {
		for _, i := range ids {
			s := &p.sources[i]
			if !s.sole && s.lacks(&c.Source) != lackNothing {
				continue
			}
			c.first = first(c.first, i)
			if s.standing != nil {
				stated = true
				mode = min(mode, s.standing.modeAt(q.At))
			}
			c.add(i)
		}
	})
	if !stated {
		mode = p.standing.modeAt(q.At)
	}
	c.mode = mode
}

// add notes a source, once.
func (c *caller) add(id int32) {
	at := c.n
	for at > 0 && c.in[at-1] >= id {
		at--
	}
	switch {
	case at < c.n && c.in[at] == id:
	case int(c.n) == len(c.in):
		c.more = true
	default:
		copy(c.in[at+1:c.n+1], c.in[at:c.n])
		c.in[at] = id
		c.n++
	}
}

// fromAny reports whether the caller belongs to any of a rule's sources, which
// are sorted.
func (s *search) fromAny(sources []int32) bool {
	c := &s.caller
	for _, i := range c.in[:c.n] {
		if _, ok := slices.BinarySearch(sources, i); ok {
			return true
		}
	}
	return c.more && slices.ContainsFunc(sources, func(i int32) bool { return s.policy.sources[i].lacks(&c.Source) == lackNothing })
}

// provable reports whether the caller would belong to one of a rule's sources
// if it proved to be one of the source's principals.
func (s *search) provable(sources []int32) bool {
	return slices.ContainsFunc(sources, func(i int32) bool { return s.policy.sources[i].lacks(&s.caller.Source) == lackPrincipal })
}

// unknown reports whether the policy denies the caller because nobody knows who
// it is. Whoever has proven a principal is known.
func (p *Policy) unknown(s *Source) bool {
	return s.Unidentified && s.Principal == "" && p.unknownDenied
}

// asksProof reports whether a caller that is denied may be told to present
// credentials: there are principals, it has proven none, and what it speaks has
// a place for them.
func (p *Policy) asksProof(q *Query) bool {
	return p.principals && q.Source.Principal == "" && q.S3 == nil && (q.Via == ViaConnect || q.Via == ViaHTTP)
}

// callerIndex finds the sources that a caller may belong to. A source is filed
// under one of the things that it asks for, the most telling one.
type callerIndex struct {
	services, families, clusters nameIndex
	tags                         map[string]*nameIndex // by key
	tasks                        []int32               // that ask for a task, and for nothing to file them under
	principals, endpoints        map[string][]int32
	addresses                    prefixTable
}

// find visits the sources that a caller may belong to, some of them twice.
func (x *callerIndex) find(c *Source, visit visit) {
	x.addresses.find(c.Addr.Unmap(), visit)
	if c.Principal != "" && len(x.principals) > 0 {
		visit(x.principals[c.Principal], true)
	}
	if c.VPCEndpoint != "" && len(x.endpoints) > 0 {
		visit(x.endpoints[c.VPCEndpoint], true)
	}
	t := c.Task
	if t == nil {
		return
	}
	visit(x.tasks, true)
	x.services.findNamed(t.Service, visit)
	x.families.findNamed(t.Family, visit)
	x.clusters.findNamed(t.Cluster, visit)
	if len(x.tags) == 0 {
		return
	}
	for key, value := range t.Tags {
		if byValue := x.tags[key]; byValue != nil && len(value) <= longestName {
			byValue.find(value, visit)
		}
	}
}

// findNamed is find for a name that may not be known.
func (x *nameIndex) findNamed(name string, visit visit) {
	if name != "" && len(name) <= longestName {
		x.find(name, visit)
	}
}

// file files a source, and reports whether a visit of it says all that the
// source asks for.
func (x *callerIndex) file(s *source, text *sourceText, id int32, compile func(string) matcher) (sole bool) {
	asks := len(text.conditions)
	switch m := s.ecs; {
	case m != nil && m.service.telling():
		x.services.addAll(&m.service, id, compile)
	case m != nil && m.family.telling():
		x.families.addAll(&m.family, id, compile)
	case len(s.principals) > 0:
		x.principals = fileEach(x.principals, s.principals, id)
		return asks == 1
	case len(s.endpoints) > 0:
		x.endpoints = fileEach(x.endpoints, s.endpoints, id)
		return asks == 1
	case m != nil && len(m.tags) > 0 && m.tags[0].values.telling():
		x.fileTag(&m.tags[0], id, compile)
	case s.cidrs:
		for _, p := range text.prefixes {
			x.addresses.add(p, id)
		}
		return asks == 1
	case m != nil && m.cluster.telling():
		x.clusters.addAll(&m.cluster, id, compile)
	default:
		x.tasks = file(x.tasks, id)
	}
	return false
}

func (x *callerIndex) fileTag(t *tagMatch, id int32, compile func(string) matcher) {
	if x.tags == nil {
		x.tags = map[string]*nameIndex{}
	}
	if x.tags[t.key] == nil {
		x.tags[t.key] = &nameIndex{}
	}
	x.tags[t.key].addAll(&t.values, id, compile)
}

func fileEach(under map[string][]int32, keys []string, id int32) map[string][]int32 {
	if under == nil {
		under = map[string][]int32{}
	}
	for _, k := range keys {
		under[k] = file(under[k], id)
	}
	return under
}

func (x *nameIndex) addAll(n *names, id int32, compile func(string) matcher) {
	for _, p := range n.written {
		x.add(p, id, compile)
	}
}

// telling reports whether every pattern says more than "*".
func (n *names) telling() bool {
	return len(n.written) > 0 && !slices.ContainsFunc(n.written, func(p string) bool { return strings.Trim(p, "*") == "" })
}
