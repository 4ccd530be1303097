package policy

import (
	"fmt"
	"strings"
	"testing"
)

func overlayOf(name, body string) Text {
	return Text{OverlayPrefix + name, []byte("version: 1\n" + body)}
}

func TestOverlayIsHeld(t *testing.T) {
	base := Text{"policy.yaml", []byte("version: 1\nrules: [{name: a, hosts: [a.example]}]\n")}
	for body, want := range map[string]string{
		"rules: [{name: b, hosts: [b.example]}]":                                          "",
		"rules: [{name: b, hosts: [\"*.b.example\"]}]":                                    "",
		"rules: [{name: b, action: deny, hosts: [\"**\"]}]":                               "",
		"rules: [{name: b, cidrs: [198.51.100.0/24]}]":                                    "cannot allow 198.51.100.0/24", // documentation
		"rules: [{name: b, cidrs: [8.8.8.0/24, \"2600::/48\"]}]":                          "",
		"rules: [{name: b, cidrs: [8.0.0.0/9]}]":                                          "cannot allow 8.0.0.0/9",
		"rules: [{name: b, cidrs: [10.0.0.1]}]":                                           "cannot allow 10.0.0.1",
		"rules: [{name: b, cidrs: [169.254.169.254]}]":                                    "169.254.169.254",
		"rules: [{name: b, action: deny, cidrs: [10.0.0.0/8]}]":                           "",
		"rules: [{name: b, hosts: [\"*.github.io\"]}]":                                    "strangers can register",
		"rules: [{name: b, hosts: [\"*.github.io\"], allow_broad: true}]":                 "cannot allow_broad",
		"rules: [{name: b, hosts: [b.example], resolves_to: [10.0.0.0/8]}]":               "private addresses",
		"rules: [{name: b, s3: {buckets: [bucket], opaque: allow}}]":                      "do not tell their bucket",
		"mode: report\nrules: [{name: b, hosts: [b.example]}]":                            `no "mode"`,
		"unknown_source: allow\nrules: [{name: b, hosts: [b.example]}]":                   `no "unknown_source"`,
		"sources: [{name: s, cidrs: [10.0.0.0/8], mode: report}]":                         "states a mode",
		"sources: [{name: s, ecs: {service: x}}]\nrules: [{name: b, hosts: [b.example]}]": "",
		"rules: [{name: a, hosts: [b.example]}]":                                          "is taken",
		"rules: [{name: b, hosts: [b.example], sources: [nobody]}]":                       `no source "nobody"`,
	} {
		_, err := Load(base, overlayOf("x", body))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", body, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	// The same texts that are no overlays may say all of it.
	if _, err := Load(base, Text{"more.yaml", []byte("version: 1\nmode: report\nrules: [{name: b, hosts: [b.example], resolves_to: [10.0.0.0/8]}]")}); err != nil {
		t.Error(err)
	}
}

// An overlay's source does not change what becomes of those whom nobody knows.
func TestOverlayLeavesStrangers(t *testing.T) {
	base := Text{"policy.yaml", []byte("version: 1\nrules: [{name: a, hosts: [a.example]}]\n")}
	p, err := Load(base, overlayOf("x", "sources: [{name: s, ecs: {service: x}}]\nrules: [{name: b, hosts: [b.example], sources: [s]}]"))
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]Reason{
		"https://a.example unidentified true": ReasonRule,
		"https://b.example unidentified true": ReasonNoRule,
		"https://b.example service prod/x":    ReasonRule,
	} {
		if d := p.Decide(ask(t, line)); d.Reason != want {
			t.Errorf("%s: %s, want %s", line, d.Reason, want)
		}
	}
}

func TestLoadOverlays(t *testing.T) {
	base := Text{"policy.yaml", []byte("version: 1\nrules: [{name: a, hosts: [a.example]}]\n")}
	good, broad := overlayOf("good", "rules: [{name: b, hosts: [b.example]}]"), overlayOf("broad", "rules: [{name: c, hosts: [\"*.com\"]}]")
	twice, broken := overlayOf("twice", "rules: [{name: b, hosts: [d.example]}]"), Text{OverlayPrefix + "broken", []byte("{")}
	p, used, refused, err := LoadOverlays(base, broad, good, twice, broken)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range used {
		names = append(names, u.Name)
	}
	if got := fmt.Sprint(names); got != "[policy.yaml overlay:good]" || len(refused) != 3 || len(p.Rules()) != 2 {
		t.Errorf("used %s, refused %v", got, refused)
	}
	if p.Version() != VersionOf(used...) {
		t.Error("the version is not that of what was used")
	}
	if _, _, _, err := LoadOverlays(Text{"policy.yaml", []byte("{")}, good); err == nil {
		t.Error("an overlay makes up for a broken policy")
	}
	if _, used, refused, err := LoadOverlays(base, good); err != nil || len(used) != 2 || refused != nil {
		t.Errorf("%v %v %v", used, refused, err)
	}
}

func TestMerge(t *testing.T) {
	one := Text{"one.yaml", []byte(`# the platform's
version: 1
mode: report
report_until: 2026-12-24T00:00:00Z
sources:
  - {name: web, ecs: {cluster: prod, service: "web-*"}}
rules:
  # why this is here
  - name: a # who asked
    hosts: [a.example, "*.wide.example"]
`)}
	two := Text{"two.yaml", []byte(`{"version": 1, "rules": [{"name": "b", "preset": "npm", "sources": ["web"]}]}`)}
	over := overlayOf("x", "rules:\n  # by alice: incident 7\n  - {name: c, action: deny, hosts: [bad.example]}\n")
	merged, err := Merge(one, two, over)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# from one.yaml", "# why this is here", "# who asked", "# from overlay:x", "# by alice: incident 7", "unknown_source: deny", "report_until: 2026-12-24T00:00:00Z"} {
		if !strings.Contains(string(merged), want) {
			t.Errorf("no %q in\n%s", want, merged)
		}
	}
	p, err := Load(one, two, over)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(Text{"merged.yaml", merged})
	if err != nil {
		t.Fatalf("%s\n%s", detail(err), merged)
	}
	if d := Diff(p, again); d != nil {
		t.Errorf("it means something else: %v", d)
	}
	if _, err := Merge(); err == nil {
		t.Error("nothing was merged")
	}
}
