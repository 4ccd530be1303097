package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// caller says which sources the caller belongs to, why not to the others, and
// its mode.
func (e *Explanation) caller(p *Policy) {
	c := &e.Query.Source
	who := c.text()
	var names []string
	for i := range p.sources {
		if s := &p.sources[i]; s.lacks(c) == lackNothing {
			names = append(names, fmt.Sprintf("%q (%s)", s.name, s.pos))
			e.Sources = append(e.Sources, s.name)
		}
	}
	switch {
	case len(p.sources) == 0:
	case len(names) > 0:
		e.say("the caller %s belongs to %s", who, strings.Join(names, ", "))
	case who == "":
		e.say("the caller's address is not given, so it belongs to no source")
	default:
		e.say("the caller %s belongs to no source", who)
	}
	if who != "" {
		e.outside(p, c)
	}
	e.standing(p, c)
}

// outside says of the sources that the caller does not belong to what it lacks.
func (e *Explanation) outside(p *Policy, c *Source) {
	told, more := 0, 0
	for i := range p.sources {
		s := &p.sources[i]
		what := s.lacks(c)
		switch {
		case what == lackNothing:
		case told == explained:
			more++
		default:
			told++
			e.say("it is not of %q (%s): %s", s.name, s.pos, s.lacking(what, c))
		}
	}
	if more > 0 {
		e.say("nor of %d more sources", more)
	}
}

// standing says what follows from who the caller is, before any rule is asked.
func (e *Explanation) standing(p *Policy, c *Source) {
	switch {
	case p.unknown(c):
		e.say("who the caller is is not known, and unknown_source is deny: no rule can allow it")
	case c.Unidentified && c.Principal != "":
		e.say("no task is known at its address, but it has proven its principal")
	case c.Unidentified:
		e.say("who the caller is is not known, and unknown_source is allow: rules for everybody and by address apply")
	case p.unknownDenied && c.Task == nil && c.Principal == "":
		e.say("its task is not given; at the proxy, a caller that is not identified is denied (unknown_source)")
	}
	if e.Decision.Mode == Report {
		e.say("report mode: what would be denied is let through and marked")
	}
}

// lacking says what a caller lacks to belong to a source.
func (s *source) lacking(what lack, c *Source) string {
	switch what {
	case lackAddress:
		if !c.Addr.IsValid() {
			return "its address is not given"
		}
		return "its address is in none of the source's cidrs"
	case lackEndpoint:
		if c.VPCEndpoint == "" {
			return "it came through no VPC endpoint"
		}
		return "it came through another VPC endpoint"
	case lackPrincipal:
		if c.Principal == "" {
			return "it has proven no principal"
		}
		return fmt.Sprintf("its principal is not %s", orList(s.principals))
	case lackTask:
		return "its ECS task is not known"
	default:
		return s.ecs.lacking(what, c.Task)
	}
}

// lacking says what a task lacks.
func (m *ecsMatch) lacking(what lack, t *Task) string {
	var name string
	var asked []string
	key := what.key()
	switch what {
	case lackCluster:
		name, asked = t.Cluster, m.cluster.written
	case lackService:
		name, asked = t.Service, m.service.written
	case lackFamily:
		name, asked = t.Family, m.family.written
	case lackRevision:
		return fmt.Sprintf("its task definition's revision is %d, not %s", t.Revision, revisionsText(m.revisions))
	default:
		_, tag := m.lacks(t)
		value, there := t.Tags[tag]
		if !there {
			return fmt.Sprintf("its task has no tag %s", tag)
		}
		for i := range m.tags {
			if m.tags[i].key == tag {
				name, asked = value, m.tags[i].values.written
			}
		}
		return fmt.Sprintf("its tag %s is %q, not %s", tag, clip(name), orList(asked))
	}
	if name == "" {
		return fmt.Sprintf("its task has no %s that is known", key)
	}
	return fmt.Sprintf("its %s is %q, not %s", key, clip(name), orList(asked))
}

// key returns the key of an ecs condition.
func (l lack) key() string {
	switch l {
	case lackCluster:
		return "cluster"
	case lackService:
		return "service"
	default:
		return "family"
	}
}

// orList names the first few of what is asked for.
func orList(all []string) string {
	const most = 4
	last := len(all) - 1
	switch {
	case len(all) > most:
		return fmt.Sprintf("%s or one of %d more", strings.Join(all[:most], ", "), len(all)-most)
	case last > 0:
		return strings.Join(all[:last], ", ") + " or " + all[last]
	}
	return strings.Join(all, "")
}

func revisionsText(ranges []revisionRange) string {
	var all []string
	for _, r := range ranges {
		switch {
		case r.low == r.high:
			all = append(all, strconv.Itoa(r.low))
		case r.high == maxRevision:
			all = append(all, fmt.Sprintf("%d and above", r.low))
		default:
			all = append(all, fmt.Sprintf("%d-%d", r.low, r.high))
		}
	}
	return orList(all)
}
