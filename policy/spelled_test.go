package policy

import (
	"testing"

	"golang.org/x/net/publicsuffix"
)

func TestRegisteredDomain(t *testing.T) {
	for name, want := range map[string]string{
		"a.b.example.com": "example.com", "example.com": "example.com", "com": "", "a.example.co.uk": "example.co.uk", "co.uk": "",
		"x.bucket.s3.amazonaws.com": "bucket.s3.amazonaws.com", "sqs.us-east-1.amazonaws.com": "sqs.us-east-1.amazonaws.com",
		"me.github.io": "me.github.io", "x.me.github.io": "me.github.io", "github.io": "",
		"a.b.kawasaki.jp": "a.b.kawasaki.jp", "x.city.kawasaki.jp": "city.kawasaki.jp", "z.a.b.kawasaki.jp": "a.b.kawasaki.jp",
		"host.internal": "host.internal", "192.0.2.1": "", "a.b.corp.unknowntld": "corp.unknowntld",
	} {
		h, err := ParseHost(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := RegisteredDomain(h); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		// The other list is of another day, but these names have not changed.
		if other, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil && want != "" && other != want {
			t.Errorf("%s: the other list says %q", name, other)
		}
	}
	if got := RegisteredDomain(Host{}); got != "" {
		t.Errorf("no name: %q", got)
	}
}

func TestSpells(t *testing.T) {
	p, err := Load(Text{"p", []byte(`version: 1
rules:
  - {name: api, hosts: [api.example.com, "*.cdn.example.com"]}
  - {name: net, cidrs: [203.0.113.0/24, 192.0.2.7], ports: [22], protocol: tcp}
  - {name: data, s3: {buckets: [exact, "acme-*"]}}
  - {name: base, preset: docker-hub}
`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rule, host string
		want       bool
	}{
		{"api", "api.example.com", true},
		{"api", "x.cdn.example.com", false},
		{"net", "203.0.113.9", false},
		{"net", "192.0.2.7", true},
		{"data", "exact.s3.eu-west-1.amazonaws.com", true},
		{"data", "acme-1.s3.eu-west-1.amazonaws.com", false},
		{"base/registry", "production.cloudflare.docker.com", true},
		{"gone", "api.example.com", false},
		{"", "api.example.com", false},
	} {
		h, err := ParseHost(tt.host)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Spells(tt.rule, h); got != tt.want {
			t.Errorf("%s spells %s: %t", tt.rule, tt.host, got)
		}
	}
}
