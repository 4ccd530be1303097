package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// suggestedCaller is a caller of kept observations.
type suggestedCaller struct {
	name    string   // of its source in the suggestion, "" for everybody
	text    []string // the source's conditions
	example Source
	order   string
}

// callerBook knows the callers of a set of observations, each by its service;
// a task that no service started by its family; others by the policy's source,
// or their principal.
type callerBook struct {
	policy  *Policy
	known   map[string]*suggestedCaller // by what the policy language asks
	names   map[string]bool
	someone bool // some caller is known
}

func newCallerBook(seen []Seen, p *Policy) *callerBook {
	b := &callerBook{policy: p, known: map[string]*suggestedCaller{}, names: map[string]bool{}}
	for i := range seen {
		if text, _, _ := b.conditions(&seen[i]); text != nil {
			b.someone = true
		}
	}
	return b
}

// find returns who called, or why nobody can be named.
func (b *callerBook) find(s *Seen) (c *suggestedCaller, problem string) {
	text, name, problem := b.conditions(s)
	switch {
	case problem != "":
		return nil, problem
	case text == nil && b.someone:
		return nil, "nobody knows who called, and of others it is known"
	}
	key := strings.Join(text, "\n")
	if c = b.known[key]; c == nil {
		c = &suggestedCaller{text: text, example: s.Query.Source, order: key}
		if text != nil {
			c.name = b.freeName(name)
		}
		b.known[key] = c
	}
	return c, ""
}

// conditions returns the lines of the source that the caller belongs to, nil
// for everybody, and what to call it.
func (b *callerBook) conditions(s *Seen) (text []string, name, problem string) {
	c := &s.Query.Source
	if t := c.Task; t != nil && (t.Service != "" || t.Family != "") {
		key, value := "service", t.Service
		if value == "" {
			key, value = "family", t.Family
		}
		for _, n := range []string{t.Cluster, value} {
			if checkName(n, "") != nil {
				return nil, "", "the caller's name is none that ECS gives: " + legible(n)
			}
		}
		if t.Cluster == "" {
			return []string{fmt.Sprintf("ecs: {%s: %q}", key, value)}, value, ""
		}
		return []string{fmt.Sprintf("ecs: {cluster: %q, %s: %q}", t.Cluster, key, value)}, value, ""
	}
	if text := b.policy.sourceText(s.SourceName); text != nil {
		return text, s.SourceName, ""
	}
	if p := c.Principal; p != "" {
		if checkPrincipal(p) != nil {
			return nil, "", "the caller's principal is none that a policy can name: " + legible(p)
		}
		return []string{"principals: [" + strconv.Quote(p) + "]"}, p, ""
	}
	return nil, "", ""
}

// freeName makes a source's name that no other has.
func (b *callerBook) freeName(wanted string) string {
	base := nameFrom(wanted)
	if base = strings.Trim(base[:min(len(base), 48)], "._-"); base == "" {
		base = "caller"
	}
	name := base
	for i := 2; b.names[name]; i++ {
		name = base + "-" + decimalOf(i)
	}
	b.names[name] = true
	return name
}

// ordered returns the callers in the order of their conditions.
func (b *callerBook) ordered(kept map[*suggestedCaller][]keptSeen) []*suggestedCaller {
	return slices.SortedFunc(maps.Keys(kept), func(c, d *suggestedCaller) int {
		return cmp.Or(cmp.Compare(c.name, d.name), cmp.Compare(c.order, d.order))
	})
}

// decimalOf writes a number.
func decimalOf(i int) string { return strconv.Itoa(i) }

// sourceText writes the conditions of one of the policy's sources, line by
// line; nil where there is no such source.
func (p *Policy) sourceText(name string) []string {
	if p == nil || name == "" {
		return nil
	}
	i := slices.IndexFunc(p.sources, func(s source) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	s := &p.sources[i]
	var lines []string
	if s.cidrs {
		lines = append(lines, "cidrs: "+quotedList(s.prefixes.texts()))
	}
	if len(s.endpoints) > 0 {
		lines = append(lines, "vpc_endpoints: "+quotedList(s.endpoints))
	}
	if s.ecs != nil {
		lines = append(lines, "ecs: "+s.ecs.text())
	}
	if len(s.principals) > 0 {
		lines = append(lines, "principals: "+quotedList(s.principals))
	}
	return lines
}

// text writes what is asked of a task, as a mapping.
func (m *ecsMatch) text() string {
	var parts []string
	for _, n := range []struct {
		key   string
		names []string
	}{{"cluster", m.cluster.written}, {"service", m.service.written}, {"family", m.family.written}} {
		if len(n.names) > 0 {
			parts = append(parts, n.key+": "+quotedList(n.names))
		}
	}
	var revisions []string
	for _, r := range m.revisions {
		if r.low == r.high {
			revisions = append(revisions, strconv.Itoa(r.low))
		} else {
			revisions = append(revisions, fmt.Sprintf("%d-%d", r.low, r.high))
		}
	}
	if len(revisions) > 0 {
		parts = append(parts, "revision: "+quotedList(revisions))
	}
	var tags []string
	for i := range m.tags {
		tags = append(tags, strconv.Quote(m.tags[i].key)+": "+quotedList(m.tags[i].values.written))
	}
	if len(tags) > 0 {
		parts = append(parts, "tags: {"+strings.Join(tags, ", ")+"}")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// texts writes the prefixes of the table, in order.
func (t *prefixTable) texts() []string {
	all := slices.SortedFunc(maps.Keys(t.filed), netip.Prefix.Compare)
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	return texts
}

// quotedList writes a list of scalars on one line.
func quotedList[T ~string](values []T) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.QuoteToASCII(string(v))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
