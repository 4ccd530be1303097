package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Difference is one part of a policy that another has otherwise.
type Difference struct {
	// What is "rule", "source" or "policy", for what stands beside the rules.
	What string `json:"what"`
	Name string `json:"name"`
	// Before and After are its lines; nil where it is not there. Lines are for
	// people: what they say is what counts, not how the documents write it.
	Before []string `json:"before,omitempty"`
	After  []string `json:"after,omitempty"`
}

// Diff tells how the policy b differs from a, rule by rule, by name: not how
// their documents are written, nor in which order.
func Diff(a, b *Policy) []Difference {
	var all []Difference
	all = append(all, differ("policy", map[string][]string{"": a.standingText()}, map[string][]string{"": b.standingText()})...)
	all = append(all, differ("source", a.sourcesText(), b.sourcesText())...)
	return append(all, differ("rule", a.rulesText(), b.rulesText())...)
}

func differ(what string, a, b map[string][]string) []Difference {
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all []Difference
	for _, name := range names {
		if before, after := a[name], b[name]; !slices.Equal(before, after) {
			all = append(all, Difference{what, name, before, after})
		}
	}
	return all
}

// standingText tells what holds for callers and rules alike.
func (p *Policy) standingText() []string {
	if p == nil {
		return nil
	}
	lines := []string{p.standing.text()}
	if p.unknownDenied {
		lines = append(lines, "unknown_source: deny")
	} else {
		lines = append(lines, "unknown_source: allow")
	}
	return lines
}

// text tells a mode and its window.
func (s standing) text() string {
	if s.until.IsZero() {
		return "mode: " + s.mode.String()
	}
	return "mode: " + s.mode.String() + ", report_until: " + s.until.UTC().Format("2006-01-02T15:04:05Z")
}

func (p *Policy) sourcesText() map[string][]string {
	all := map[string][]string{}
	if p == nil {
		return all
	}
	for i := range p.sources {
		s := &p.sources[i]
		lines := p.sourceText(s.name)
		if s.standing != nil {
			lines = append(lines, s.standing.text())
		}
		lines = append(lines, s.budget.text()...)
		all[s.name] = lines
	}
	return all
}

func (p *Policy) rulesText() map[string][]string {
	all := map[string][]string{}
	if p == nil {
		return all
	}
	for i := range p.rules {
		all[p.rules[i].Name] = p.ruleText(&p.rules[i])
	}
	return all
}

// ruleText tells what a rule means, a line for each of its entries.
func (p *Policy) ruleText(r *Rule) []string {
	lines := []string{"action: " + r.Verdict.String()}
	list := func(key string, values []string) {
		values = slices.Clone(values)
		slices.Sort(values)
		for _, v := range values {
			lines = append(lines, key+": "+v)
		}
	}
	if r.Owner != "" {
		lines = append(lines, "owner: "+legible(r.Owner))
	}
	list("host", r.match.hosts)
	for _, prefix := range r.match.prefixes {
		lines = append(lines, "cidr: "+prefix.String())
	}
	list("bucket", r.match.buckets)
	list("access_point", r.match.accessPoints)
	if m := r.match.s3; m != nil {
		list("region", m.regions)
		list("operation", m.operations)
		list("account", m.accounts)
		for _, flag := range []struct {
			text string
			set  bool
		}{
			{"partition: " + m.partition, m.partition != ""},
			{"opaque: allow", m.opaque},
			{"inspect: true", m.inspect},
			{"anonymous: allow", m.anonymous},
			{"presigned: deny", m.noPresigned},
		} {
			if flag.set {
				lines = append(lines, flag.text)
			}
		}
	}
	lines = append(lines, "protocol: "+r.Protocol.String())
	if len(r.match.ports) > 0 {
		lines = append(lines, "ports: "+portsText(r.match.ports))
	}
	var names []string
	for _, id := range r.match.sources {
		names = append(names, p.sources[id].name)
	}
	list("source", names)
	for _, prefix := range r.ResolvesTo {
		lines = append(lines, "resolves_to: "+prefix.String())
	}
	return append(lines, r.Budget.text()...)
}

// text tells a budget, in a line.
func (b *Budget) text() []string {
	if b == nil {
		return nil
	}
	return []string{fmt.Sprintf("budget: %d bytes per %s, %s", b.BytesOut, b.Per, b.Action)}
}

// String tells a difference as lines with a sign, the way of a diff: what was
// there with "-", what is there with "+", and between them nothing that is the
// same.
func (d Difference) String() string {
	var b strings.Builder
	head := d.What
	if d.Name != "" {
		head += " " + strconv.QuoteToASCII(d.Name)
	}
	switch {
	case d.Before == nil:
		fmt.Fprintf(&b, "+ %s\n", head)
	case d.After == nil:
		fmt.Fprintf(&b, "- %s\n", head)
	default:
		fmt.Fprintf(&b, "~ %s\n", head)
	}
	for _, line := range d.Before {
		if !slices.Contains(d.After, line) {
			fmt.Fprintf(&b, "  - %s\n", line)
		}
	}
	for _, line := range d.After {
		if !slices.Contains(d.Before, line) {
			fmt.Fprintf(&b, "  + %s\n", line)
		}
	}
	return b.String()
}
