package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCases(t *testing.T) {
	p := mustLoad(t, `version: 1
sources:
  - {name: learning, cidrs: [10.1.0.0/16], mode: report, report_until: 2026-12-24T00:00:00Z}
rules:
  - {name: registries, hosts: ["registry-1.docker.io"]}
  - {name: no, action: deny, hosts: [no.example]}
`)
	c, err := LoadCases(Text{"cases.yaml", []byte(`version: 1
policy: [policy.yaml, more.yaml]
cases:
  - {name: reach, from: 10.0.0.1, to: "https://registry-1.docker.io", expect: allow, rule: registries, reason: rule}
  - {to: tcp://registry-1.docker.io:443, expect: deny, reason: no_rule}
  - {name: window, from: "::ffff:10.1.0.1", to: a.example:443, at: 2026-12-01T00:00:00Z, expect: report}
  - {name: outside, from: 10.1.0.1, to: a.example:443, expect: report}
  - {name: wrong-verdict, to: no.example, expect: allow}
  - {name: wrong-rule, to: no.example, expect: deny, rule: nope}
  - {name: wrong-reason, to: no.example, expect: deny, reason: no_rule}
`)})
	if err != nil {
		t.Fatal(detail(err))
	}
	if diff := cmp.Diff([]string{"policy.yaml", "more.yaml"}, c.Policy); diff != "" {
		t.Error(diff)
	}
	var got []string
	for _, r := range c.Run(p) {
		if r.OK() != (r.Failure == "") {
			t.Error("OK and Failure differ")
		}
		got = append(got, r.Case.Name+": "+r.Failure)
	}
	want := []string{
		"reach: ",
		": ",
		"window: ",
		"outside: want report, got deny (no_rule)",
		`wrong-verdict: want allow, got deny (deny_rule, rule "no" at policy.yaml:6:5)`,
		`wrong-rule: want rule "nope", got deny (deny_rule, rule "no" at policy.yaml:6:5)`,
		`wrong-reason: want reason no_rule, got deny (deny_rule, rule "no" at policy.yaml:6:5)`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCasesOfCallers: a case says who calls in every way that a source asks for.
func TestCasesOfCallers(t *testing.T) {
	p := mustLoad(t, `version: 1
sources:
  - {name: s, ecs: {cluster: prod, service: pay, family: web, revision: 7, tags: {team: x}}, principals: [a], vpc_endpoints: [vpce-0a1b2c3d]}
rules: [{name: r, hosts: [a.example], sources: [s]}]
`)
	c, err := LoadCases(Text{"cases.yaml", []byte(`version: 1
cases:
  - {name: all, service: prod/pay, family: "web:7", tags: {team: x, other: ""}, principal: a, vpc_endpoint: vpce-0a1b2c3d, to: a.example:443, expect: allow}
  - {name: no-tag, service: prod/pay, family: "web:7", principal: a, vpc_endpoint: vpce-0a1b2c3d, to: a.example:443, expect: deny, reason: no_rule}
  - {name: no-proof, service: prod/pay, family: "web:7", tags: {team: x}, vpc_endpoint: vpce-0a1b2c3d, to: a.example:443, expect: deny, reason: credentials}
  - {name: raw, service: prod/pay, family: "web:7", tags: {team: x}, vpc_endpoint: vpce-0a1b2c3d, to: "https://a.example", expect: deny, reason: no_rule}
  - {name: stranger, unidentified: true, to: a.example:443, expect: deny, reason: unknown_source}
`)})
	if err != nil {
		t.Fatal(detail(err))
	}
	for _, r := range c.Run(p) {
		if !r.OK() {
			t.Errorf("%s: %s", r.Case.Name, r.Failure)
		}
	}
}

func TestCasesRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "1:1: the document is empty"},
		{"no-version", "cases: [{to: a.example, expect: allow}]", `1:1: the key "version" is missing`},
		{"no-cases", "version: 1", `1:1: the key "cases" is missing`},
		{"list", "- a", "1:1: the document must be a mapping of keys to values, not a list"},
		{"no-to", "version: 1\ncases: [{name: x, expect: allow}]", `2:9: the case "x" lacks the key "to"`},
		{"no-expect", "version: 1\ncases: [{to: a.example}]", `2:9: the case lacks the key "expect"`},
		{"expect", "version: 1\ncases: [{to: a.example, expect: yes}]", `2:33: expect must be allow, deny or report, not "yes"`},
		{"reason", "version: 1\ncases: [{to: a.example, expect: deny, reason: ech}]", "2:47: reason must be rule, deny_rule, no_rule, ip_literal, name_mismatch, unknown_source, credentials, s3_bucket, s3_opaque, s3_operation or s3_account, not \"ech\""},
		{"from", "version: 1\ncases: [{from: 10.0.0.0/8, to: a.example, expect: deny}, {from: [], to: a.example, expect: deny}]", "2:16: from is not an address: \"10.0.0.0/8\"\ncases.yaml:2:65: from must be text, not a list"},
		{"to", "version: 1\ncases: [{to: \"ftp://a\", expect: deny}, {to: 1, expect: deny}]", "2:14: target \"ftp://a\": unknown scheme \"ftp\": write https://, http:// or tcp://\ncases.yaml:2:45: to must be text, not a number"},
		{"at", "version: 1\ncases: [{to: a.example, expect: deny, at: today}]", "2:43: at must be a date and time with a zone (RFC 3339)"},
		{"headers-alone", "version: 1\ncases: [{to: \"https://a.example\", headers: {a: b}, expect: deny}]", "2:44: headers belong to a request with a method"},
		{"headers-list", "version: 1\ncases: [{to: \"https://a.example\", method: GET, headers: [a], expect: deny}]", "2:57: headers must be a mapping, not a list"},
		{"header-number", "version: 1\ncases: [{to: \"https://a.example\", method: GET, headers: {a: 1}, expect: deny}]", "2:61: a header's value must be text, not a number"},
		{"method", "version: 1\ncases: [{to: \"https://a.example\", method: [GET], expect: deny}]", "2:43: method must be text, not a list"},
		{"no-url", "version: 1\ncases: [{to: a.example, method: GET, expect: deny}]", `2:14: request to "a.example": write a whole URL, https://HOST/PATH`},
		{"two-hosts", "version: 1\ncases: [{to: \"https://a.example\", method: GET, headers: {Host: [a, b]}, expect: deny}]", `2:14: request to "https://a.example": it has 2 Host headers`},
		{"twice", "version: 1\ncases: [{name: x, to: a.example, expect: deny}, {name: x, to: b.example, expect: deny}]", `2:49: the case "x" is there twice, first in line 2`},
		{"service", "version: 1\ncases: [{service: web, to: a.example, expect: deny}]", `2:19: the service "web" lacks its cluster`},
		{"service-glob", "version: 1\ncases: [{service: \"prod/*\", to: a.example, expect: deny}]", `2:25: '*' has no place here`},
		{"service-homograph", "version: 1\ncases: [{service: \"prod/\u0430\", to: a.example, expect: deny}]", `2:25: 'а' (U+0430) is not ASCII, though it may look so`},
		{"family", "version: 1\ncases: [{family: \"web:01\", to: a.example, expect: deny}]", `2:19: "web:01" is no family with a revision`},
		{"tags", "version: 1\ncases: [{tags: [team], to: a.example, expect: deny}]", "2:16: tags must be a mapping, not a list"},
		{"tag", "version: 1\ncases: [{tags: {team: 1}, to: a.example, expect: deny}]", "2:23: a tag's value must be text, not a number"},
		{"endpoint", "version: 1\ncases: [{vpc_endpoint: vpce-1, to: a.example, expect: deny}]", `2:24: "vpce-1" is not the ID of a VPC endpoint`},
		{"principal", "version: 1\ncases: [{principal: \"a \", to: a.example, expect: deny}]", `2:22: "a " has spaces around it`},
		{"unidentified", "version: 1\ncases: [{unidentified: true, service: prod/web, to: a.example, expect: deny}]", "2:39: the caller's task is given, so it is identified"},
		{"unknown", "version: 1\ncases: [{form: 10.0.0.1, to: a.example, expect: deny}]", `2:10: unknown key "form" in a case`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadCases(Text{"cases.yaml", []byte(tt.text)})
			if err == nil || strings.TrimPrefix(err.Error(), "cases.yaml:") != tt.want {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
}

// TestCaseRequests: cases of whole requests are decided as the proxy decides
// them: by the connection, and where that is inspected, by the request.
func TestCaseRequests(t *testing.T) {
	p := mustLoad(t, inspectPolicy)
	c, err := LoadCases(Text{"cases.yaml", []byte(`version: 1
cases:
  - name: read
    to: https://acme-prod.s3.us-west-2.amazonaws.com/a%2Fb?versionId=1#x
    method: GET
    headers: {authorization: "AWS4-HMAC-SHA256 Credential=ASIAQNZGKIQY56JQ7WML/20261101/us-west-2/s3/aws4_request, Signature=a"}
    expect: allow
    rule: data
  - {name: policy, to: "https://s3.us-west-2.amazonaws.com/acme-open?policyStatus&acl", method: GET, expect: deny, reason: s3_operation}
  - {name: unsigned, to: "https://s3.us-west-2.amazonaws.com/acme-prod/k", method: GET, expect: deny, reason: s3_account}
  - {name: host, to: "https://s3.us-west-2.amazonaws.com/acme-prod/k", method: GET, headers: {Host: [s3.us-east-1.amazonaws.com]}, expect: deny, reason: name_mismatch}
  - {name: learner, from: 10.9.0.1, to: "https://s3.us-west-2.amazonaws.com/evil/../k", method: GET, expect: report, reason: s3_opaque}
  - {name: unseen, to: "https://layers.s3.us-west-2.amazonaws.com/k", method: DELETE, expect: allow, rule: layers}
  - {name: elsewhere, to: "https://a.example/k", method: DELETE, expect: deny, reason: no_rule}
`)})
	if err != nil {
		t.Fatal(detail(err))
	}
	for _, r := range c.Run(p) {
		if !r.OK() {
			t.Errorf("%s: %s", r.Case.Name, r.Failure)
		}
	}
}
