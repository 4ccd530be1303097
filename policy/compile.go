package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gobwas/glob"
)

// Text is a policy document and what to call it in messages: a file's name,
// or something like "env:SALLYPORT_POLICY".
type Text struct {
	Name string
	Data []byte
}

// Load reads, merges and compiles documents. It either returns a policy that
// means everything the documents say, or an error, which then is [Errors] and
// names everything that is wrong with all of them.
//
// Rules and sources of several documents are put together in the documents'
// order; a name may be used once in all of them. When documents state
// different modes, enforce wins; of two learning windows, the one that closes
// first. A document that states no mode leaves it to the others, and when none
// does it is enforce. Of two words on unknown_source, deny wins; where there is
// none it is deny if any source has an ecs condition, and else allow.
func Load(documents ...Text) (*Policy, error) {
	c := &compiler{
		policy:  &Policy{version: versionOf(documents)},
		sources: map[string]int32{},
		names:   map[string]Pos{},
	}
	all := make([]*document, len(documents))
	readers := make([]*reader, len(documents))
	for i, t := range documents {
		all[i] = readDocument(t)
		readers[i] = all[i].reader
	}
	c.merge(all)
	count := 0
	for _, d := range all {
		count += len(d.rules)
	}
	c.policy.rules = make([]Rule, 0, count)
	for _, d := range all {
		for i := range d.sources {
			c.source(d.reader, &d.sources[i])
		}
	}
	c.unknown(all)
	for _, d := range all {
		for i := range d.rules {
			c.rule(d.reader, &d.rules[i])
		}
	}
	if err := gather(readers...); err != nil {
		return nil, err
	}
	c.lint()
	return c.policy, nil
}

// versionOf hashes names and texts with their lengths, so that no two lists
// of documents read alike.
func versionOf(documents []Text) string {
	h := sha256.New()
	for _, t := range documents {
		fmt.Fprintf(h, "%d %d\n%s%s", len(t.Name), len(t.Data), t.Name, t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// compiler turns documents into a policy.
type compiler struct {
	policy  *Policy
	sources map[string]int32 // by name
	names   map[string]Pos   // of rules, a preset's rule included
	// broadUsed is set while a rule is compiled when something in it needs its
	// allow_broad.
	broadUsed bool
}

// merge finds the mode of callers whose sources state none.
func (c *compiler) merge(all []*document) {
	var merged *standing
	for _, d := range all {
		switch s := d.mode; {
		case s == nil:
			continue
		case merged == nil, merged.mode == Report && s.mode == Enforce:
			merged = s
		case merged.mode == Report && !s.until.IsZero() && (merged.until.IsZero() || s.until.Before(merged.until)):
			merged = s
		}
	}
	if merged != nil {
		c.policy.standing = *merged
		c.lapses(*merged, "the policy")
	}
}

// lapses remembers a learning window, to warn when it has closed.
func (c *compiler) lapses(s standing, whose string) {
	if !s.until.IsZero() {
		c.policy.lapses = append(c.policy.lapses, lapse{s.at, s.until, whose})
	}
}

// rule compiles one entry of rules.
func (c *compiler) rule(r *reader, text *ruleText) {
	if text.name != "" {
		if first, taken := c.names[text.name]; taken {
			r.fail(text.nameAt, "give it another name; records and metrics tell rules apart by it", "the name %q is taken, by the rule at %s", text.name, first)
		} else {
			c.names[text.name] = r.pos(text.nameAt)
		}
	}
	if text.with != nil && text.preset == nil {
		r.fail(text.with, "leave it out", "with belongs to a preset")
	}
	if text.preset != nil && len(text.targets) == 1 {
		c.preset(r, text)
		return
	}
	c.plainRule(r, text)
}

// plainRule compiles a rule that is no preset.
func (c *compiler) plainRule(r *reader, text *ruleText) {
	id := int32(len(c.policy.rules))
	c.broadUsed = false
	rule := Rule{
		Name: text.name, Owner: text.owner, Verdict: text.verdict, Pos: r.pos(text.node),
		match: ruleMatch{ports: text.ports},
	}
	c.carries(r, text, &rule)
	rule.match.sources = c.callers(r, text)
	rule.Budget = c.budget(r, text)
	c.resolvesTo(r, text, &rule)
	switch {
	case !text.listed:
	case text.hosts != nil:
		rule.match.hosts = c.hosts(r, text, id)
	case text.cidrs != nil:
		c.cidrs(r, text, &rule, id)
	case text.s3 != nil:
		c.s3Destination(r, text, &rule, id)
	}
	if text.allowBroad != nil && !c.broadUsed && text.listed {
		c.warn(r.pos(text.allowBroad), "leave it out", "allow_broad is not needed by the rule %q", text.name)
	}
	c.policy.rules = append(c.policy.rules, rule)
}

// carries compiles what a rule asks of the port and the protocol. A deny rule
// that says nothing means every port and protocol.
func (c *compiler) carries(r *reader, text *ruleText, rule *Rule) {
	rule.Protocol = text.protocol
	if text.verdict == Deny {
		if text.protocolAt == nil {
			rule.Protocol = ProtocolTCP
		}
		return
	}
	if text.protocolAt == nil {
		rule.Protocol = ProtocolTLS
	}
	if text.portsAt != nil {
		return
	}
	switch rule.Protocol {
	case ProtocolTLS:
		rule.match.ports = []portRange{{443, 443}}
	case ProtocolHTTP:
		rule.match.ports = []portRange{{80, 80}}
	case ProtocolTCP:
		r.fail(text.protocolAt, "write ports: [22], say", "protocol tcp has no default port")
	}
}

// callers returns the numbers of the sources that a rule lists.
func (c *compiler) callers(r *reader, text *ruleText) []int32 {
	var ids []int32
	for _, n := range text.sources {
		id, ok := c.sources[n.Value]
		if !ok {
			known := make([]string, 0, len(c.sources))
			for name := range c.sources {
				known = append(known, name)
			}
			slices.Sort(known)
			hint := "define it under sources"
			if near := nearest(n.Value, known); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			r.fail(n, hint, "there is no source %q", n.Value)
			continue
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// resolvesTo checks the private ranges that a rule's names may lead to.
func (c *compiler) resolvesTo(r *reader, text *ruleText, rule *Rule) {
	if len(text.resolvesTo) > 0 && text.verdict == Deny {
		r.fail(text.resolvesTo[0].node, "leave it out", "resolves_to has no meaning in a deny rule")
		return
	}
	for _, p := range text.resolvesTo {
		switch {
		case NeverPermitted(p.Prefix):
			r.fail(p.node, "leave it out", "%s is never permitted: cloud metadata and task credentials live there", p)
		case !ProhibitedRange(p.Prefix):
			r.fail(p.node, "leave it out if it is a public range: names may lead there anyway; else name private ranges only, like 10.0.0.0/8",
				"%s does not lie inside a prohibited range", p)
		}
		rule.ResolvesTo = append(rule.ResolvesTo, p.Prefix)
	}
}

// hosts files a rule's host patterns and returns them.
func (c *compiler) hosts(r *reader, text *ruleText, id int32) []string {
	var patterns []string
	for _, n := range text.hosts {
		all, err := parseHostPattern(n.Value)
		if err != nil {
			r.failIn(n, err.offset, err.hint, "%s", err.message)
			continue
		}
		for _, p := range all {
			c.policy.hosts.add(p, id, c.hostGlob)
		}
		patterns = append(patterns, all...)
		c.checkBroad(r, n, text, all)
	}
	return patterns
}

// cidrs files a rule's addresses. Listing a prohibited range is permission to
// go there, which the guard then reads from ResolvesTo.
func (c *compiler) cidrs(r *reader, text *ruleText, rule *Rule, id int32) {
	if len(text.resolvesTo) > 0 {
		r.fail(text.resolvesTo[0].node, "leave it out; a cidrs rule permits what it lists", "resolves_to belongs to a rule of names")
	}
	for _, p := range text.cidrs {
		if text.verdict == Allow && NeverPermitted(p.Prefix) {
			r.fail(p.node, "leave it out", "%s is never permitted: cloud metadata and task credentials live there", p)
		}
		if text.verdict == Allow && p.Bits() < widePrefix(p.Addr()) {
			if text.allowBroad != nil {
				c.broadUsed = true
			} else {
				c.warn(r.pos(p.node), "list the ranges that are meant, or write allow_broad: true in the rule", "%s lets clients reach a large part of the Internet by address, without a name to judge", p)
			}
		}
		c.policy.addresses.add(p.Prefix, id)
		if text.verdict == Deny {
			c.closes(rule.match.sources)
		}
		rule.match.prefixes = append(rule.match.prefixes, p.Prefix)
		if text.verdict == Allow && ProhibitedRange(p.Prefix) {
			rule.ResolvesTo = append(rule.ResolvesTo, p.Prefix)
		}
	}
}

// closes notes that a deny rule about these sources lists addresses.
func (c *compiler) closes(sources []int32) {
	c.policy.closed = true
	all := slices.Concat(c.policy.closedTo, sources)
	slices.Sort(all)
	c.policy.closedTo = slices.Compact(all)
}

// widePrefix returns the prefix length below which a range is more than any
// one organisation has.
func widePrefix(a netip.Addr) int {
	if a.Is4() {
		return 8
	}
	return 16
}

// hostGlob compiles a host pattern that the index cannot answer by itself.
func (c *compiler) hostGlob(pattern string) matcher { return c.glob(pattern, '.') }

// bucketGlob compiles a pattern of bucket names, where * crosses dots.
func (c *compiler) bucketGlob(pattern string) matcher { return c.glob(pattern) }

func (c *compiler) glob(pattern string, separators ...rune) matcher {
	g, err := glob.Compile(pattern, separators...)
	if err != nil {
		// The grammar admits nothing that glob refuses; should that ever change,
		// the pattern matches nothing.
		return nowhere{}
	}
	return g
}

// nowhere matches nothing.
type nowhere struct{}

// Match returns false.
func (nowhere) Match(string) bool { return false }

func (p prefixText) String() string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.Prefix.String()
}
