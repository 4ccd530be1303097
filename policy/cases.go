package policy

import (
	"fmt"

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
//	  - name: nobody may change who reads the bucket
//	    to: https://acme-prod.s3.us-east-1.amazonaws.com/?policy
//	    method: PUT              # a whole request, for rules that inspect
//	    headers: {Authorization: "AWS4-HMAC-SHA256 Credential=…"}
//	    expect: deny
//	  - name: a task of the payments service, that has proven a principal
//	    from: 10.0.16.7
//	    service: prod/payments-api   # CLUSTER/SERVICE, or CLUSTER/ for none
//	    family: payments:12          # FAMILY or FAMILY:REVISION
//	    tags: {team: payments}
//	    principal: payments
//	    vpc_endpoint: vpce-0a1b2c3d4e5f60718
//	    to: https://registry-1.docker.io
//	    expect: allow
//	  - {name: a stranger, unidentified: true, to: "https://registry-1.docker.io", expect: deny, reason: unknown_source}
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
	Name  string
	To    string // the target as written
	Query Query
	// Request is the request to S3 inside the connection, nil when the case is
	// about the connection alone.
	Request *S3Request
	Expect  string // "allow", "deny" or "report"
	Rule    string // "" for any
	Reason  Reason // "" for any
	Pos     Pos
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

func caseKeys() []string {
	return []string{
		"name", "from", "vpc_endpoint", "principal", "service", "family", "tags", "unidentified",
		"to", "method", "headers", "at", "expect", "rule", "reason",
	}
}

func (r *reader) readCase(n *yaml.Node) Case {
	c := Case{Pos: r.pos(n)}
	before := r.faults()
	var to, method, headers *yaml.Node
	for key, value := range r.fields(n, "a case", caseKeys()) {
		switch key.Value {
		case "name":
			c.Name, _ = r.text(value, "name")
		case "from", "vpc_endpoint", "principal", "service", "family", "tags", "unidentified":
			r.readCaller(&c.Query.Source, key.Value, value)
		case "to":
			to = value
		case "method":
			method = value
		case "headers":
			headers = value
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
	r.destination(&c, to, method, headers)
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

// readCaller reads a key that says who calls.
func (r *reader) readCaller(s *Source, key string, n *yaml.Node) {
	switch {
	case key == "unidentified":
		s.Unidentified = r.boolean(n, key)
	case key == "tags" && n.Kind != yaml.MappingNode:
		r.fail(n, "write tags: {team: payments}", "tags must be a mapping, not %s", kindOf(n))
	case key == "tags":
		for i := 0; i+1 < len(n.Content); i += 2 {
			value := n.Content[i+1]
			if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" { // it may be empty
				r.text(value, "a tag's value")
				continue
			}
			r.refuse(value, s.tag(n.Content[i].Value, value.Value))
		}
	default:
		if text, ok := r.text(n, key); ok {
			r.refuse(n, s.set(key, text))
		}
	}
	if s.Task != nil && s.Unidentified {
		r.fail(n, "leave unidentified out", "the caller's task is given, so it is identified")
	}
}

// refuse reports what is wrong with a scalar, unless it is nil.
func (r *reader) refuse(n *yaml.Node, err *patternError) {
	if err != nil {
		r.failIn(n, err.offset, err.hint, "%s", err.message)
	}
}

// destination reads where a case goes, and what it asks there.
func (r *reader) destination(c *Case, to, method, headers *yaml.Node) {
	if to == nil {
		return
	}
	var ok bool
	if c.To, ok = r.text(to, "to"); !ok {
		return
	}
	site := c.To
	switch {
	case method == nil && headers != nil:
		r.fail(headers, "write method: GET beside them", "headers belong to a request with a method")
	case method != nil:
		site = r.request(c, to, method, headers)
	}
	var err error
	if c.Query.Via, c.Query.Host, c.Query.Port, c.Query.Protocol, err = ParseTarget(site); err != nil && site != "" {
		r.fail(to, "write it like https://HOST, tcp://HOST:PORT or HOST:PORT", "%v", err)
	}
}

// request reads a case's request and returns where it goes, "" when it cannot
// be read.
func (r *reader) request(c *Case, to, method, headers *yaml.Node) string {
	name, ok := r.text(method, "method")
	if !ok {
		return ""
	}
	values := map[string][]string{}
	if headers != nil && headers.Kind != yaml.MappingNode {
		r.fail(headers, `write headers: {Authorization: "…"}`, "headers must be a mapping, not %s", kindOf(headers))
		return ""
	}
	for i := 0; headers != nil && i+1 < len(headers.Content); i += 2 {
		key, value := headers.Content[i].Value, headers.Content[i+1]
		if value.Kind == yaml.SequenceNode {
			for _, n := range r.texts(value, "a header") {
				values[key] = append(values[key], n.Value)
			}
		} else if text, ok := r.text(value, "a header's value"); ok {
			values[key] = append(values[key], text)
		}
	}
	site, request, err := ParseRequest(name, c.To, values)
	if err != nil {
		r.fail(to, "write it like https://HOST/PATH", "%v", err)
		return ""
	}
	c.Request = &request
	return site
}

// reasonWords lists the reasons that a policy itself can give.
func reasonWords() []string {
	return []string{
		string(ReasonRule), string(ReasonDenyRule), string(ReasonNoRule),
		string(ReasonIPLiteral), string(ReasonNameMismatch), string(ReasonUnknownSource), string(ReasonCredentials),
		string(ReasonS3Bucket), string(ReasonS3Opaque), string(ReasonS3Operation), string(ReasonS3Account),
	}
}

// Run puts the cases to a policy, in order.
func (c *Cases) Run(p *Policy) []CaseResult {
	results := make([]CaseResult, len(c.Cases))
	for i, one := range c.Cases {
		d := p.Decide(one.Query)
		if _, isS3 := ParseS3Host(one.Query.Host); isS3 && one.Request != nil {
			_, d, _, _ = p.decideRequest(one.Query, *one.Request)
		}
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
