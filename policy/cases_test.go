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

func TestCasesRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "1:1: the document is empty"},
		{"no-version", "cases: [{to: a.example, expect: allow}]", `1:1: the key "version" is missing`},
		{"no-cases", "version: 1", `1:1: the key "cases" is missing`},
		{"list", "- a", "1:1: the document must be a mapping of keys to values, not a list"},
		{"no-to", "version: 1\ncases: [{name: x, expect: allow}]", `2:9: the case "x" lacks the key "to"`},
		{"no-expect", "version: 1\ncases: [{to: a.example}]", `2:9: the case lacks the key "expect"`},
		{"expect", "version: 1\ncases: [{to: a.example, expect: yes}]", `2:33: expect must be allow, deny or report, not "yes"`},
		{"reason", "version: 1\ncases: [{to: a.example, expect: deny, reason: ech}]", "2:47: reason must be rule, deny_rule, no_rule, ip_literal, s3_bucket or s3_opaque, not \"ech\""},
		{"from", "version: 1\ncases: [{from: 10.0.0.0/8, to: a.example, expect: deny}, {from: [], to: a.example, expect: deny}]", "2:16: from is not an address: \"10.0.0.0/8\"\ncases.yaml:2:65: from must be text, not a list"},
		{"to", "version: 1\ncases: [{to: \"ftp://a\", expect: deny}, {to: 1, expect: deny}]", "2:14: target \"ftp://a\": unknown scheme \"ftp\": write https://, http:// or tcp://\ncases.yaml:2:45: to must be text, not a number"},
		{"at", "version: 1\ncases: [{to: a.example, expect: deny, at: today}]", "2:43: at must be a date and time with a zone (RFC 3339)"},
		{"twice", "version: 1\ncases: [{name: x, to: a.example, expect: deny}, {name: x, to: b.example, expect: deny}]", `2:49: the case "x" is there twice, first in line 2`},
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
