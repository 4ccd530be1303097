package policy

import (
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// sourceText is one entry of sources. A nil node is a key that is not there.
type sourceText struct {
	node       *yaml.Node // the mapping
	name       string
	prefixes   []netip.Prefix
	endpoints  []*yaml.Node
	principals []*yaml.Node
	ecs        *ecsText
	conditions []string  // the keys that are there
	standing   *standing // nil when the source states no mode
	budget     *budgetText
}

// ecsText is the value of a source's ecs key.
type ecsText struct {
	node                     *yaml.Node
	cluster, service, family []*yaml.Node
	revisions                []revisionRange
	revisionAt               *yaml.Node
	tags                     []tagText
}

// tagText is one entry of a source's tags.
type tagText struct {
	key      string
	patterns []*yaml.Node
}

// revisionRange is a range of a task definition's revisions, both ends
// included.
type revisionRange struct{ low, high int }

// unknownText is what a document says of callers that are not known.
type unknownText struct {
	deny bool
	node *yaml.Node
}

func sourceKeys() []string {
	return []string{"name", "cidrs", "ecs", "principals", "vpc_endpoints", "mode", "report_until", "budget"}
}

func ecsKeys() []string {
	return []string{"cluster", "service", "family", "revision", "tags"}
}

// readUnknown reads unknown_source, nil when it is not understood.
func (r *reader) readUnknown(n *yaml.Node) *unknownText {
	word := r.word(n, "unknown_source", "deny", "allow")
	if word == "" {
		return nil
	}
	return &unknownText{word == "deny", n}
}

func (r *reader) readSource(n *yaml.Node) sourceText {
	s := sourceText{node: n}
	var mode, until *yaml.Node
	before := r.faults()
	for key, value := range r.fields(n, "a source", sourceKeys()) {
		switch key.Value {
		case "name":
			s.name = r.readName(value, "the source's name")
		case "mode":
			mode = value
		case "report_until":
			until = value
		case "budget":
			s.budget = r.readBudget(value)
		default:
			s.conditions = append(s.conditions, key.Value)
			r.readCondition(&s, key.Value, value)
		}
	}
	s.standing = r.readMode(mode, until)
	if r.faults() > before {
		return s
	}
	switch {
	case s.name == "":
		r.fail(n, "write name: and a short name that rules refer to", "the source has no name")
	case len(s.conditions) == 0:
		r.fail(n, "write cidrs: [10.0.0.0/16], the addresses it calls from; or ecs, principals, vpc_endpoints", "the source %q has no condition", s.name)
	}
	return s
}

// readCondition reads a key that asks something of the caller.
func (r *reader) readCondition(s *sourceText, key string, n *yaml.Node) {
	switch key {
	case "cidrs":
		for _, p := range r.readPrefixes(n, key) {
			s.prefixes = append(s.prefixes, p.Prefix)
		}
	case "ecs":
		s.ecs = r.readECS(n)
	case "principals":
		s.principals = r.texts(n, key)
	case "vpc_endpoints":
		s.endpoints = r.texts(n, key)
	}
}

// readECS reads what a source asks of the caller's task.
func (r *reader) readECS(n *yaml.Node) *ecsText {
	e := &ecsText{node: n}
	before := r.faults()
	for key, value := range r.fields(n, "ecs", ecsKeys()) {
		switch key.Value {
		case "cluster":
			e.cluster = r.oneOrMore(value, key.Value)
		case "service":
			e.service = r.oneOrMore(value, key.Value)
		case "family":
			e.family = r.oneOrMore(value, key.Value)
		case "revision":
			e.revisionAt = value
			e.revisions = r.readRevisions(value)
		case "tags":
			e.tags = r.readTags(value)
		}
	}
	if r.faults() > before {
		return e
	}
	switch {
	case len(n.Content) == 0:
		r.fail(n, `write ecs: {cluster: prod, service: "payments-*"}`, "ecs has no condition")
	case e.revisionAt != nil && e.family == nil:
		r.fail(e.revisionAt, "write family: beside it", "a revision is one of a family, and none is named")
	}
	return e
}

// oneOrMore returns the texts of a list, or the one that stands in its place.
func (r *reader) oneOrMore(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.ScalarNode {
		return r.texts(n, what)
	}
	if _, ok := r.text(n, what); !ok {
		return nil
	}
	return []*yaml.Node{n}
}

// readTags reads a mapping of tags' keys to patterns of their values.
func (r *reader) readTags(n *yaml.Node) []tagText {
	const hint = "write tags: {team: payments}"
	switch {
	case n.Kind != yaml.MappingNode:
		r.fail(n, hint, "tags must be a mapping, not %s", kindOf(n))
		return nil
	case len(n.Content) == 0:
		r.fail(n, hint, "tags is empty")
	case len(n.Content) > 2*maxTags:
		r.fail(n, "", "tags has more than the %d entries that a task can have", maxTags)
		return nil
	}
	var all []tagText
	at := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		node := n.Content[i]
		key, ok := r.text(node, "a tag's key")
		if !ok {
			continue
		}
		if err := checkTagKey(key); err != nil {
			r.refuse(node, err)
			continue
		}
		if line, twice := at[key]; twice {
			r.fail(node, "list both values: [a, b]", "the tag %q stands twice, first in line %d", key, line)
			continue
		}
		at[key] = node.Line
		all = append(all, tagText{key, r.oneOrMore(n.Content[i+1], "the tag "+key)})
	}
	return all
}

// readRevisions reads a revision, a range of them, or a list of both.
func (r *reader) readRevisions(n *yaml.Node) []revisionRange {
	nodes := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode {
		nodes = nodes[:0]
		for item := range r.items(n, "revision") {
			nodes = append(nodes, item)
		}
	}
	var all []revisionRange
	for _, node := range nodes {
		if v, ok := r.readRevision(node); ok {
			all = append(all, v)
		}
	}
	return all
}

func (r *reader) readRevision(n *yaml.Node) (revisionRange, bool) {
	const hint = `write a number like 7, or a range in quotes like "7-9", or "7-" for 7 and above`
	low, high, ranged, ok := r.ends(n, "revision", hint)
	if !ok {
		return revisionRange{}, false
	}
	from, okFrom := parseRevision(low)
	to, okTo := parseRevision(high)
	if ranged && high == "" {
		to, okTo = maxRevision, true
	}
	switch {
	case !okFrom || !okTo:
		r.fail(n, hint, "a revision must be between 1 and %d, not %q", maxRevision, n.Value)
	case from > to:
		r.fail(n, fmt.Sprintf(`write "%d-%d"`, to, from), "the range %q runs backwards", n.Value)
	default:
		return revisionRange{from, to}, true
	}
	return revisionRange{}, false
}
