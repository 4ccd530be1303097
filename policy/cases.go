package policy

import (
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// Cases is a document of policy unit tests:
//
//	version: 1
//	policy: [policy.yaml]
//	cases:
//	  - name: the registry is reachable from payments
//	    from: 10.0.16.7
//	    to: https://registry-1.docker.io
//	    expect: allow            # allow | deny | report
//	    rule: registries         # optional: the rule that must decide
//	    reason: rule             # optional
//	    at: 2026-12-01T00:00:00Z # optional: when it is asked
//
// A target is written as [ParseTarget] reads it. report means an attempt that
// only report mode lets through. A case that does not say when it is asked is
// outside of every learning window.
type Cases struct {
	// Policy names the documents under test, as written; reading them is the
	// caller's.
	Policy []string
	Cases  []Case
}

// Case is one question and the answer that it must have.
type Case struct {
	Name   string
	To     string // the target as written
	Query  Query
	Expect string // "allow", "deny" or "report"
	Rule   string // "" for any
	Reason Reason // "" for any
	Pos    Pos
}

// CaseResult is what became of one case.
type CaseResult struct {
	Case     Case
	Decision Decision
	// Failure says what is not as expected, "" when all is.
	Failure string
}

// OK reports whether the decision was the expected one.
func (r CaseResult) OK() bool { return r.Failure == "" }

// LoadCases reads a document of cases, as strictly as [Load] reads a policy.
// Its error is [Errors].
func LoadCases(t Text) (*Cases, error) {
	r := &reader{}
	c := &Cases{}
	root := r.read(t)
	if root == nil {
		return nil, gather(r)
	}
	var version, cases *yaml.Node
	for key, n := range r.fields(root, "the document", []string{"version", "policy", "cases"}) {
		switch key.Value {
		case "version":
			version = n
		case "policy":
			for _, file := range r.texts(n, "policy") {
				c.Policy = append(c.Policy, file.Value)
			}
		case "cases":
			cases = n
			r.cases(n, c)
		}
	}
	r.checkVersion(root, version)
	if cases == nil && root.Kind == yaml.MappingNode {
		r.fail(root, "write cases: and a list", "the key \"cases\" is missing")
	}
	if err := gather(r); err != nil {
		return nil, err
	}
	return c, nil
}

func (r *reader) cases(n *yaml.Node, c *Cases) {
	names := map[string]int{}
	for item := range r.items(n, "cases") {
		one := r.readCase(item)
		if first, taken := names[one.Name]; taken && one.Name != "" {
			r.fail(item, "give it another name", "the case %q is there twice, first in line %d", one.Name, first)
		}
		names[one.Name] = item.Line
		c.Cases = append(c.Cases, one)
	}
}

func (r *reader) readCase(n *yaml.Node) Case {
	c := Case{Pos: r.pos(n)}
	before := r.faults()
	for key, value := range r.fields(n, "a case", []string{"name", "from", "to", "at", "expect", "rule", "reason"}) {
		switch key.Value {
		case "name":
			c.Name, _ = r.text(value, "name")
		case "from":
			c.Query.Source.Addr = r.address(value, "from")
		case "to":
			c.To = r.target(value, &c.Query)
		case "at":
			c.Query.At = r.instant(value, "at")
		case "expect":
			c.Expect = r.word(value, "expect", "allow", "deny", "report")
		case "rule":
			c.Rule, _ = r.text(value, "rule")
		case "reason":
			c.Reason = Reason(r.word(value, "reason", reasonWords()...))
		}
	}
	if r.faults() > before {
		return c
	}
	for _, missing := range []struct{ key, value, hint string }{
		{"to", c.To, "write to: https://HOST"},
		{"expect", c.Expect, "write expect: allow, deny or report"},
	} {
		if missing.value == "" {
			r.fail(n, missing.hint, "the case%s lacks the key %q", quoted(c.Name), missing.key)
		}
	}
	return c
}

func (r *reader) address(n *yaml.Node, what string) netip.Addr {
	text, ok := r.text(n, what)
	if !ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		r.fail(n, "write one address, like 10.0.16.7", "%s is not an address: %q", what, text)
		return netip.Addr{}
	}
	return a.Unmap()
}

func (r *reader) target(n *yaml.Node, q *Query) string {
	text, ok := r.text(n, "to")
	if !ok {
		return ""
	}
	var err error
	if q.Via, q.Host, q.Port, q.Protocol, err = ParseTarget(text); err != nil {
		r.fail(n, "write it like https://HOST, tcp://HOST:PORT or HOST:PORT", "%v", err)
	}
	return text
}

// reasonWords lists the reasons that a policy itself can give.
func reasonWords() []string {
	return []string{
		string(ReasonRule), string(ReasonDenyRule), string(ReasonNoRule),
		string(ReasonIPLiteral), string(ReasonS3Bucket), string(ReasonS3Opaque),
	}
}

// Run puts the cases to a policy, in order.
func (c *Cases) Run(p *Policy) []CaseResult {
	results := make([]CaseResult, len(c.Cases))
	for i, one := range c.Cases {
		d := p.Decide(one.Query)
		results[i] = CaseResult{Case: one, Decision: d, Failure: one.failure(d)}
	}
	return results
}

// failure says how a decision differs from what the case expects.
func (c Case) failure(d Decision) string {
	got := d.Verdict.String()
	if d.WouldDeny() {
		got = "report"
	}
	told := fmt.Sprintf("%s (%s)", got, d.Reason)
	if d.Rule != nil {
		told = fmt.Sprintf("%s (%s, rule %q at %s)", got, d.Reason, d.Rule.Name, d.Rule.Pos)
	}
	switch {
	case got != c.Expect:
		return fmt.Sprintf("want %s, got %s", c.Expect, told)
	case c.Reason != "" && d.Reason != c.Reason:
		return fmt.Sprintf("want reason %s, got %s", c.Reason, told)
	case c.Rule != "" && d.RuleName() != c.Rule:
		return fmt.Sprintf("want rule %q, got %s", c.Rule, told)
	}
	return ""
}
