package policy

import (
	"net/netip"
	"strings"
	"testing"
)

// TestHostileNamesOfDeniedAddresses asks where names may lead when deny rules
// list addresses: deny beats allow, by whatever name one comes.
func TestHostileNamesOfDeniedAddresses(t *testing.T) {
	const text = `version: 1
sources: [{name: s, cidrs: [10.9.0.0/16]}, {name: learner, cidrs: [10.8.0.0/16], mode: report}]
rules:
  - {name: any, hosts: ["**.a.example"], ports: [443], resolves_to: [10.0.0.0/8]}
  - {name: tcp, hosts: [raw.example], ports: [443], protocol: tcp}
  - {name: bad, action: deny, cidrs: [203.0.113.0/24, 8.8.8.0/24, 10.1.0.0/16, "2606:4700::/32"]}
  - {name: port, action: deny, cidrs: [8.8.4.4], ports: [22]}
  - {name: http, action: deny, cidrs: [9.9.9.9], protocol: http}
  - {name: for-s, action: deny, cidrs: [1.1.1.1], sources: [s]}
`
	p, err := Load(Text{Name: "test.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, source, host, addr string
		reason                   Reason
		ok                       bool
		rule                     string
	}{
		{"a public address", "10.0.0.1", "x.a.example", "8.8.8.8", ReasonDenyRule, false, "bad"},
		{"mapped", "10.0.0.1", "x.a.example", "::ffff:8.8.8.8", ReasonDenyRule, false, "bad"},
		{"IPv6", "10.0.0.1", "x.a.example", "2606:4700::1111", ReasonDenyRule, false, "bad"},
		{"listed and denied", "10.0.0.1", "x.a.example", "10.1.2.3", ReasonDenyRule, false, "bad"},
		{"listed", "10.0.0.1", "x.a.example", "10.2.2.3", "", true, ""},
		{"prohibited before denied", "10.0.0.1", "x.a.example", "203.0.113.1", ReasonAddressProhibited, false, "bad"},
		{"another address", "10.0.0.1", "x.a.example", "8.8.9.1", "", true, ""},
		{"another port", "10.0.0.1", "x.a.example", "8.8.4.4", "", true, ""},
		{"another protocol", "10.0.0.1", "x.a.example", "9.9.9.9", "", true, ""},
		{"a tunnel that may carry that protocol", "10.0.0.1", "raw.example", "9.9.9.9", ReasonDenyRule, false, "http"},
		{"another source", "10.0.0.1", "x.a.example", "1.1.1.1", "", true, ""},
		{"that source", "10.9.0.1", "x.a.example", "1.1.1.1", ReasonDenyRule, false, "for-s"},
		{"report mode", "10.8.0.1", "x.a.example", "8.8.8.8", ReasonDenyRule, true, "bad"},
		{"report mode, no rule", "10.8.0.1", "other.example", "8.8.8.8", ReasonDenyRule, true, "bad"},
		{"report mode, metadata", "10.8.0.1", "other.example", "169.254.169.254", ReasonAddressProhibited, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host, err := ParseHost(tt.host)
			if err != nil {
				t.Fatal(err)
			}
			addr := netip.MustParseAddr(tt.addr)
			d := p.Decide(Query{Source: Source{Addr: netip.MustParseAddr(tt.source)}, Via: ViaConnect, Host: host, Port: 443})
			if reason, ok := d.CheckAddress(addr); reason != tt.reason || ok != tt.ok {
				t.Errorf("CheckAddress: %q, %t, want %q, %t", reason, ok, tt.reason, tt.ok)
			}
			name := ""
			if r := d.DenyingRule(addr); r != nil {
				name = r.Name
			}
			if name != tt.rule {
				t.Errorf("DenyingRule: %q, want %q", name, tt.rule)
			}
		})
	}
	if r := (Decision{Verdict: Allow}).DenyingRule(netip.MustParseAddr("8.8.8.8")); r != nil {
		t.Errorf("a decision of no policy is denied by %s", r.Name)
	}
}

// TestHostileTranslators: whoever owns an allowed name does not lead it to a
// denied address by way of a translator that the policy lets names lead to.
func TestHostileTranslators(t *testing.T) {
	p := mustLoad(t, `version: 1
rules:
  - {name: any, hosts: ["**.a.example"], resolves_to: ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"]}
  - {name: bad, action: deny, cidrs: [8.8.8.0/24]}
`)
	d := p.Decide(ask(t, "x.a.example:443"))
	for _, tt := range []struct {
		addr   string
		reason Reason
	}{
		{"64:ff9b::808:808", ReasonDenyRule},
		{"64:ff9b:1::808:808", ReasonDenyRule},
		{"2002:808:808::1", ReasonDenyRule},
		{"64:ff9b::808:908", ""},
		{"2002:808:908::808:808", ""},
	} {
		if reason, ok := d.CheckAddress(netip.MustParseAddr(tt.addr)); reason != tt.reason || ok != (tt.reason == "") {
			t.Errorf("CheckAddress(%s): %q, %t, want %q", tt.addr, reason, ok, tt.reason)
		}
	}
}

// TestApart: who shares connections with whom, where deny rules are about some
// callers only.
func TestApart(t *testing.T) {
	p := mustLoad(t, `version: 1
sources: [{name: a, cidrs: [10.1.0.0/16]}, {name: b, principals: [bob]}, {name: c, cidrs: [10.0.0.0/8]}]
rules:
  - {name: any, hosts: [a.example]}
  - {name: no, action: deny, hosts: [b.example], sources: [c]}
  - {name: no-a, action: deny, cidrs: [192.0.2.1], sources: [a]}
  - {name: no-b, action: deny, cidrs: [192.0.2.2], sources: [b]}
`)
	seen := map[uint64]string{}
	for _, caller := range []string{"", " from 10.1.1.1", " principal bob", " from 10.1.1.1 principal bob"} {
		one := p.Decide(ask(t, "a.example:443"+caller)).Apart()
		if other, taken := seen[one]; taken {
			t.Errorf("%q is not apart from %q", caller, other)
		}
		seen[one] = caller
	}
	for _, caller := range []string{" from 10.2.1.1", " principal alice"} {
		if got := p.Decide(ask(t, "a.example:443"+caller)).Apart(); seen[got] != "" || got != 0 {
			t.Errorf("%q is apart", caller)
		}
	}
}

// TestHostileNeighbour: a tenant of another VPC gives himself the address of one
// of ours. The policy's author hears of it.
func TestHostileNeighbour(t *testing.T) {
	const rest = "\nrules:\n  - {name: r, hosts: [a.example], sources: [ours, theirs]}\n"
	const theirs = "\n  - {name: theirs, vpc_endpoints: [vpce-0a1b2c3d]}"
	for ours, want := range map[string]int{
		"cidrs: [10.0.0.0/8]": 1,
		"cidrs: [10.0.0.0/8], vpc_endpoints: [vpce-0a1b2c3e]": 0,
		"cidrs: [10.0.0.0/8], ecs: {cluster: prod}":           0,
	} {
		p := mustLoad(t, "version: 1\nunknown_source: deny\nsources:\n  - {name: ours, "+ours+"}"+theirs+rest)
		notes := 0
		for _, n := range p.Notes() {
			if strings.Contains(n.Message, "in any VPC") {
				notes++
			}
		}
		if notes != want {
			t.Errorf("%s: %d notes", ours, notes)
		}
	}
}
