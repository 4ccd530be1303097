package policy

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// source compiles one entry of sources.
func (c *compiler) source(r *reader, text *sourceText) {
	if text.name == "" {
		return
	}
	id := int32(len(c.policy.sources))
	if first, taken := c.sources[text.name]; taken {
		r.fail(text.node, "give it another name, or list its cidrs there", "the source %q is defined twice, first at %s", text.name, c.policy.sources[first].pos)
		return
	}
	c.sources[text.name] = id
	s := source{name: text.name, standing: text.standing, pos: r.pos(text.node), cidrs: len(text.prefixes) > 0}
	for _, p := range text.prefixes {
		s.prefixes.add(p, id)
	}
	s.endpoints = c.texts(r, text.endpoints, checkEndpoint)
	s.principals = c.texts(r, text.principals, checkPrincipal)
	c.policy.principals = c.policy.principals || len(s.principals) > 0
	if text.ecs != nil {
		s.ecs = c.ecs(r, text.ecs)
	}
	if r.faults() == 0 { // else nobody will ask, and something may be missing
		s.sole = c.policy.callers.file(&s, text, id, c.nameGlob)
	}
	if s.budget = text.budget.compile(r, BudgetOfSource, s.name); s.budget != nil {
		c.policy.budgeted = append(c.policy.budgeted, id)
	}
	c.policy.sources = append(c.policy.sources, s)
	if s.standing != nil {
		c.lapses(*s.standing, fmt.Sprintf("source %q", s.name))
	}
}

// texts returns whole names, checked and sorted.
func (c *compiler) texts(r *reader, nodes []*yaml.Node, check func(string) *patternError) []string {
	var all []string
	for _, n := range nodes {
		if err := check(n.Value); err != nil {
			r.refuse(n, err)
			continue
		}
		all = append(all, n.Value)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ecs compiles what a source asks of the caller's task.
func (c *compiler) ecs(r *reader, text *ecsText) *ecsMatch {
	m := &ecsMatch{revisions: text.revisions}
	for _, part := range []struct {
		what  string
		nodes []*yaml.Node
		names *names
	}{
		{"cluster", text.cluster, &m.cluster},
		{"service", text.service, &m.service},
		{"family", text.family, &m.family},
	} {
		*part.names = c.patterns(r, part.nodes, func(s string) ([]string, *patternError) { return parseNamePattern(s, part.what) })
	}
	for _, t := range text.tags {
		m.tags = append(m.tags, tagMatch{t.key, c.patterns(r, t.patterns, parseTagPattern)})
	}
	return m
}

// patterns compiles patterns of names.
func (c *compiler) patterns(r *reader, nodes []*yaml.Node, parse func(string) ([]string, *patternError)) names {
	var all names
	for _, n := range nodes {
		parsed, err := parse(n.Value)
		if err != nil {
			r.refuse(n, err)
			continue
		}
		all.written = append(all.written, parsed...)
	}
	slices.Sort(all.written)
	all.written = slices.Compact(all.written)
	for _, p := range all.written {
		if hasWildcard(p) {
			all.globs = append(all.globs, c.nameGlob(p))
		} else {
			all.exact = append(all.exact, p)
		}
	}
	return all
}

// nameGlob compiles a pattern of ECS names and of tags, where * crosses
// everything.
func (c *compiler) nameGlob(pattern string) matcher { return c.glob(pattern) }

// unknown finds what becomes of callers that nobody knows. Where sources ask
// for tasks, letting strangers pass by the rules for everybody is hardly meant.
func (c *compiler) unknown(all []*document) {
	stated := false
	for _, d := range all {
		if d.unknown != nil {
			stated = true
			c.policy.unknownDenied = c.policy.unknownDenied || d.unknown.deny
		}
	}
	if stated {
		return
	}
	for i := range c.policy.sources {
		if s := &c.policy.sources[i]; s.ecs != nil && !IsOverlay(s.pos.File) {
			c.policy.unknownDenied = true
			c.note(s.pos, "write unknown_source: allow to leave them to the rules for everybody, or unknown_source: deny to say so",
				"the source %q asks for ECS tasks, so callers that are not identified are denied (unknown_source)", s.name)
			return
		}
	}
}
