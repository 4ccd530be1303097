package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// matcher is a compiled glob.
type matcher interface{ Match(string) bool }

// visit is told of rules whose destination fits: their numbers, ascending,
// and whether the rule spells the destination out without a wildcard.
type visit func(rules []int32, spelled bool)

// hostIndex finds the rules whose host patterns fit a name, at a price that
// depends on the name's labels and hardly on the number of patterns.
//
// Every pattern is filed in the node of its literal trailing labels, so a
// lookup walks the name's suffixes, shortest first. Names, `*.suffix` and
// `**.suffix` need no more than that; what is left is a glob, on the node's
// shelf.
type hostIndex struct {
	nodes map[string]*hostNode
	depth int // labels of the longest suffix that has a node
}

// hostNode holds the rules of the patterns that end in one suffix.
type hostNode struct {
	exact []int32 // the suffix itself
	one   []int32 // *.suffix
	many  []int32 // **.suffix, and ** in the node of ""
	globs *shelf
}

// add files a pattern without braces for a rule.
func (x *hostIndex) add(pattern string, rule int32, compile func(string) matcher) {
	star := strings.LastIndexByte(pattern, '*')
	if star < 0 {
		n := x.node(pattern)
		n.exact = file(n.exact, rule)
		return
	}
	_, suffix, _ := strings.Cut(pattern[star:], ".")
	n := x.node(suffix)
	switch head := strings.TrimSuffix(strings.TrimSuffix(pattern, suffix), "."); head {
	case "*":
		n.one = file(n.one, rule)
	case "**":
		n.many = file(n.many, rule)
	default:
		if n.globs == nil {
			n.globs = &shelf{}
		}
		n.globs.add(pattern, suffix, rule, compile)
	}
}

func (x *hostIndex) node(suffix string) *hostNode {
	n := x.nodes[suffix]
	if n == nil {
		if x.nodes == nil {
			x.nodes = make(map[string]*hostNode)
		}
		n = &hostNode{}
		x.nodes[suffix] = n
		if suffix != "" {
			x.depth = max(x.depth, 1+strings.Count(suffix, "."))
		}
	}
	return n
}

// file adds a rule's number to an ascending list, once.
func file(rules []int32, rule int32) []int32 {
	if n := len(rules); n > 0 && rules[n-1] == rule {
		return rules
	}
	return append(rules, rule)
}

// find visits the rules whose patterns fit the name.
func (x *hostIndex) find(name string, visit visit) {
	if n := x.nodes[name]; n != nil && len(n.exact) > 0 {
		visit(n.exact, true)
	}
	if n := x.nodes[""]; n != nil {
		n.below(name, "", visit)
	}
	end := len(name)
	for range x.depth {
		end = strings.LastIndexByte(name[:end], '.')
		if end < 0 {
			return
		}
		if n := x.nodes[name[end+1:]]; n != nil {
			n.below(name, name[end+1:], visit)
		}
	}
}

// below visits the rules of a suffix's node that fit a name below the suffix.
func (n *hostNode) below(name, suffix string, visit visit) {
	if len(n.many) > 0 {
		visit(n.many, false)
	}
	if len(n.one) > 0 && strings.IndexByte(name, '.') == len(name)-len(suffix)-1 {
		visit(n.one, false)
	}
	if n.globs != nil {
		n.globs.find(name, suffix, visit)
	}
}

// nameIndex finds the rules whose bucket or access point patterns fit a name.
type nameIndex struct {
	exact map[string][]int32
	globs shelf
}

func (x *nameIndex) add(pattern string, rule int32, compile func(string) matcher) {
	if hasWildcard(pattern) {
		x.globs.add(pattern, "", rule, compile)
		return
	}
	if x.exact == nil {
		x.exact = make(map[string][]int32)
	}
	x.exact[pattern] = file(x.exact[pattern], rule)
}

func (x *nameIndex) find(name string, visit visit) {
	if rules := x.exact[name]; len(rules) > 0 {
		visit(rules, true)
	}
	x.globs.find(name, "", visit)
}

// shelf holds globs that end in one suffix, filed by the literal text at
// their beginning, or by the one before the suffix when that is longer, so
// that thousands of `app-17-*.example.com` cost no more than one.
type shelf struct {
	heads textTable
	tails textTable
}

// globEntry is a compiled pattern and the rules that it belongs to.
type globEntry struct {
	pattern string
	matcher matcher
	rules   []int32
}

func (s *shelf) add(pattern, suffix string, rule int32, compile func(string) matcher) {
	table, text := s.place(pattern, suffix)
	table.add(text, pattern, rule, compile)
}

// place returns where a pattern is filed.
func (s *shelf) place(pattern, suffix string) (*textTable, string) {
	head := pattern[:strings.IndexByte(pattern, '*')]
	tail := strings.TrimSuffix(pattern[strings.LastIndexByte(pattern, '*')+1:], suffix)
	if suffix != "" {
		tail = strings.TrimSuffix(tail, ".")
	}
	if len(tail) > len(head) {
		return &s.tails, tail
	}
	return &s.heads, head
}

// same returns the rules with the very same glob.
func (s *shelf) same(pattern, suffix string) []int32 {
	table, text := s.place(pattern, suffix)
	for _, g := range table.globs[text] {
		if g.pattern == pattern {
			return g.rules
		}
	}
	return nil
}

func (s *shelf) find(name, suffix string, visit visit) {
	for _, n := range s.heads.lengths {
		if n <= len(name) {
			matchAll(s.heads.globs[name[:n]], name, visit)
		}
	}
	inner := name
	if suffix != "" {
		inner = name[:len(name)-len(suffix)-1]
	}
	for _, n := range s.tails.lengths {
		if n <= len(inner) {
			matchAll(s.tails.globs[inner[len(inner)-n:]], name, visit)
		}
	}
}

func matchAll(globs []*globEntry, name string, visit visit) {
	for _, g := range globs {
		if g.matcher.Match(name) {
			visit(g.rules, false)
		}
	}
}

// textTable files globs by a text of theirs, and knows which lengths of texts
// it has.
type textTable struct {
	lengths []int
	globs   map[string][]*globEntry
}

func (t *textTable) add(text, pattern string, rule int32, compile func(string) matcher) {
	for _, g := range t.globs[text] {
		if g.pattern == pattern {
			g.rules = file(g.rules, rule)
			return
		}
	}
	if t.globs == nil {
		t.globs = make(map[string][]*globEntry)
	}
	t.globs[text] = append(t.globs[text], &globEntry{pattern, compile(pattern), []int32{rule}})
	if !slices.Contains(t.lengths, len(text)) {
		t.lengths = append(t.lengths, len(text))
	}
}

// prefixTable finds what is filed under the prefixes that hold an address:
// one lookup for each prefix length in use.
type prefixTable struct {
	filed  map[netip.Prefix][]int32
	v4, v6 []int // the lengths in use
}

func (t *prefixTable) add(p netip.Prefix, id int32) {
	if t.filed == nil {
		t.filed = make(map[netip.Prefix][]int32)
	}
	lengths := &t.v6
	if p.Addr().Is4() {
		lengths = &t.v4
	}
	if !slices.Contains(*lengths, p.Bits()) {
		*lengths = append(*lengths, p.Bits())
	}
	t.filed[p] = file(t.filed[p], id)
}

// find visits what is filed under the prefixes of an address.
func (t *prefixTable) find(a netip.Addr, visit visit) {
	lengths := t.v6
	if a.Is4() {
		lengths = t.v4
	}
	for _, bits := range lengths {
		p, err := a.Prefix(bits)
		if err != nil {
			return // the zero Addr
		}
		if ids := t.filed[p]; len(ids) > 0 {
			visit(ids, true)
		}
	}
}

// holds reports whether any prefix holds the address.
func (t *prefixTable) holds(a netip.Addr) bool {
	found := false
	t.find(a, func([]int32, bool) { found = true })
	return found
}
