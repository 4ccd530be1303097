package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// lapse is a learning window and who is in it.
type lapse struct {
	pos   Pos
	until time.Time
	whose string
}

// Warnings returns what is allowed and probably not meant: rules that another
// shadows, permissions that nothing needs, learning windows that have closed
// at the moment given.
func (p *Policy) Warnings(at time.Time) []Warning {
	if p == nil {
		return nil
	}
	all := slices.Clone(p.warnings)
	for _, l := range p.lapses {
		if !at.Before(l.until) {
			all = append(all, Warning{
				Pos:     l.pos,
				Message: fmt.Sprintf("the report mode of %s ended at %s: it is enforced", l.whose, l.until.Format(time.RFC3339)),
				Hint:    "write mode: enforce, or a later report_until",
			})
		}
	}
	return all
}

// Lapsed names those whose learning window closed after one moment and until
// another.
func (p *Policy) Lapsed(after, until time.Time) []string {
	if p == nil {
		return nil
	}
	var whose []string
	for _, l := range p.lapses {
		if l.until.After(after) && !l.until.After(until) {
			whose = append(whose, l.whose)
		}
	}
	return whose
}

// Notes returns what the policy's author should know and can do nothing
// about in the policy.
func (p *Policy) Notes() []Warning {
	if p == nil {
		return nil
	}
	return slices.Clone(p.notes)
}

func (c *compiler) warn(pos Pos, hint, format string, args ...any) {
	c.policy.warnings = append(c.policy.warnings, Warning{pos, fmt.Sprintf(format, args...), hint})
}

func (c *compiler) note(pos Pos, hint, format string, args ...any) {
	c.policy.notes = append(c.policy.notes, Warning{pos, fmt.Sprintf(format, args...), hint})
}

// lintWidth bounds how many rules of one index entry are compared: the lint
// stays linear when thousands of rules list the same name.
const lintWidth = 16

// lint warns of rules that change nothing.
func (c *compiler) lint() {
	p := c.policy
	c.noteUninspected()
	c.noteSources()
	listed := map[string][]int32{}
	for i := range p.rules {
		id, b := int32(i), &p.rules[i]
		shadow := p.shadowOf(id)
		switch {
		case shadow < 0:
			if b.Verdict == Allow {
				c.warnRepeated(id, listed)
			}
		case b.Verdict == Allow && p.rules[shadow].Verdict == Deny:
			c.warn(b.Pos, "take it out, or narrow the deny rule", "the rule %q can allow nothing: the deny rule %q at %s covers it", b.Name, p.rules[shadow].Name, p.rules[shadow].Pos)
		default:
			c.warn(b.Pos, "take it out", "the rule %q changes nothing: the rule %q at %s covers it", b.Name, p.rules[shadow].Name, p.rules[shadow].Pos)
		}
		c.warnS3Only(b)
	}
	slices.SortStableFunc(p.warnings, func(a, b Warning) int {
		if a.Pos.File != b.Pos.File {
			return 0 // documents keep their order
		}
		return a.Pos.Line - b.Pos.Line
	})
}

// warnRepeated warns of a host pattern that an earlier allow rule lists for
// the same callers, port and protocol: only one of the two governs.
func (c *compiler) warnRepeated(id int32, listed map[string][]int32) {
	b := &c.policy.rules[id]
	for _, pattern := range b.match.hosts {
		earlier := listed[pattern]
		for _, i := range earlier[:min(len(earlier), lintWidth)] {
			if a := &c.policy.rules[i]; i != id && overlap(a, b) {
				c.warn(b.Pos, "list it once", "%q of the rule %q is in the rule %q at %s too", pattern, b.Name, a.Name, a.Pos)
				break
			}
		}
		listed[pattern] = append(earlier, id)
	}
}

// overlap reports whether some attempt fits the ports, protocol and sources
// of both rules.
func overlap(a, b *Rule) bool {
	if a.Protocol != b.Protocol {
		return false
	}
	ports := false
	for _, x := range a.match.ports {
		for _, y := range b.match.ports {
			ports = ports || (x.low <= y.high && y.low <= x.high)
		}
	}
	sources := len(a.match.sources) == 0 || len(b.match.sources) == 0
	for _, s := range a.match.sources {
		sources = sources || slices.Contains(b.match.sources, s)
	}
	return ports && sources
}

// warnS3Only warns of wildcards that match S3's hosts alone, which host rules
// with wildcards do not decide.
func (c *compiler) warnS3Only(b *Rule) {
	if b.Verdict == Deny {
		return
	}
	for _, pattern := range b.match.hosts {
		if !hasWildcard(pattern) {
			continue
		}
		sample := strings.ReplaceAll(strings.ReplaceAll(pattern, "**", "sample"), "*", "sample")
		h, err := ParseHost(sample)
		if err != nil {
			continue
		}
		if ref, ok := ParseS3Host(h); ok {
			c.warn(b.Pos, "list the buckets instead: s3: {buckets: [NAME]}",
				"%q of the rule %q matches S3 hosts (%s), which only s3 rules and hosts without a wildcard decide", pattern, b.Name, ref.Form)
		}
	}
}

// noteSources notes who can leave a source at will: deny rules hold nobody who
// can, and a source of principals has no members where none can be proven.
func (c *compiler) noteSources() {
	p := c.policy
	for i := range p.sources {
		if s := &p.sources[i]; len(s.principals) > 0 {
			c.note(s.pos, "send such clients through HTTPS_PROXY and HTTP_PROXY",
				"the source %q asks for a principal, which CONNECT and plain HTTP requests can prove, and client certificates on a listener with tls; other TLS that arrives without CONNECT proves none", s.name)
			break
		}
	}
	c.noteOverlap()
	for i := range p.rules {
		if r := &p.rules[i]; r.Verdict == Deny {
			c.noteEvaded(r)
		}
	}
}

// noteOverlap notes, where callers come through VPC endpoints, the first source
// that somebody of another VPC is in who has given himself an address of it.
func (c *compiler) noteOverlap() {
	all := c.policy.sources
	if !slices.ContainsFunc(all, func(s source) bool { return len(s.endpoints) > 0 }) {
		return
	}
	i := slices.IndexFunc(all, func(s source) bool { return s.cidrs && len(s.endpoints) == 0 && s.ecs == nil && len(s.principals) == 0 })
	if i >= 0 {
		c.note(all[i].pos, "write vpc_endpoints beside cidrs, or ecs, which knows who comes directly",
			"the source %q holds whoever has such an address in any VPC, through whichever VPC endpoint they come", all[i].name)
	}
}

// noteEvaded notes the first source of a deny rule that its callers can keep
// out of.
func (c *compiler) noteEvaded(r *Rule) {
	for _, id := range r.match.sources {
		switch s := &c.policy.sources[id]; {
		case len(s.principals) > 0:
			c.note(r.Pos, "name the callers by what they cannot leave out: cidrs, ecs or vpc_endpoints",
				"the deny rule %q holds the source %q only while its callers present credentials", r.Name, s.name)
			return
		case s.ecs != nil && !c.policy.unknownDenied:
			c.note(r.Pos, "write unknown_source: deny",
				"the deny rule %q does not hold a task of the source %q before it is identified, since unknown_source is allow", r.Name, s.name)
			return
		case s.ecs != nil && c.policy.principals:
			c.note(r.Pos, "name the callers by cidrs, too",
				"the deny rule %q does not hold a task of the source %q that proves a principal before it is identified", r.Name, s.name)
			return
		}
	}
}
