package policy

import (
	"net/netip"
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
