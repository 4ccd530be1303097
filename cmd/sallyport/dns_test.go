package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/steer"
)

func TestDNSConfiguration(t *testing.T) {
	l, talk := load(t, `{dns: {address: ":53", answer: [203.0.113.10, "2001:db8::10"], ttl: 30s, refused: refused}, resolver: {servers: [169.254.169.253]}}`, nil)
	if talk != "" {
		t.Fatal(talk)
	}
	if c := l.steerConfig(); c.Address != ":53" || len(c.Answer) != 2 || c.TTL != 30*time.Second || c.Refused.String() != "refused" {
		t.Errorf("got %+v", c)
	}
	tests := []struct{ name, file, want string }{
		{"no answer", `{dns: {address: ":53"}}`, "dns.answer is empty"},
		{"no server", `{dns: {answer: [203.0.113.10]}}`, "no dns.address to ask"},
		{"a port in an answer", `{dns: {address: ":53", answer: ["203.0.113.10:443"]}}`, "dns.answer[0]: \"203.0.113.10:443\" is not an IP address"},
		{"an answer nobody reaches", `{dns: {address: ":53", answer: [0.0.0.0]}}`, "dns.answer[0]: 0.0.0.0 is not an address that clients could connect to (file"},
		{"an answer twice", `{dns: {address: ":53", answer: [10.0.0.1, 10.0.0.1]}}`, "dns.answer[1]: 10.0.0.1 is there twice"},
		{"half a second", `{dns: {address: ":53", answer: [10.0.0.1], ttl: 500ms}}`, "dns.ttl: 500ms is not a number of whole seconds"},
		{"another refusal", `{dns: {address: ":53", answer: [10.0.0.1], refused: servfail}}`, "is not one of nxdomain, refused"},
		{"an unknown key", `{dns: {address: ":53", answers: [10.0.0.1]}}`, `did you mean "answer"?`},
		{"a listener's address", `{dns: {address: ":3128", answer: [10.0.0.1]}}`, "is a listener's address too"},
		{"the admin's address", `{dns: {address: "127.0.0.1:9901", answer: [10.0.0.1]}}`, "is the admin socket's address too"},
		{"itself, by address", `{dns: {address: "10.0.0.7:53", answer: [10.0.0.1]}, resolver: {servers: [10.0.0.7]}}`, "the proxy would ask itself"},
		{"itself, mapped", `{dns: {address: "10.0.0.7:53", answer: [10.0.0.1]}, resolver: {servers: ["[::ffff:10.0.0.7]:53"]}}`, "the proxy would ask itself"},
		{"itself, by loopback", `{dns: {address: ":53", answer: [10.0.0.1]}, resolver: {servers: [169.254.169.253, "127.0.0.53:53"]}}`, "resolver.servers[1] (file"},
		{"itself, by an answer", `{dns: {address: "10.0.0.7:53", answer: [10.0.0.1]}, resolver: {servers: [10.0.0.1]}}`, "the proxy would ask itself"},
		{"another port", `{dns: {address: ":5353", answer: [10.0.0.1]}, resolver: {servers: [127.0.0.1]}}`, ""},
		{"another address", `{dns: {address: "127.0.0.1:53", answer: [10.0.0.1]}, resolver: {servers: [127.0.0.2]}}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, talk := load(t, tt.file, nil)
			if (talk == "") != (tt.want == "") || !strings.Contains(talk, tt.want) {
				t.Errorf("got %q, want %q", talk, tt.want)
			}
		})
	}
}

// TestDNSSockets: an origin at an address that names lead to is the proxy
// itself, also where a balancer has that address.
func TestDNSSockets(t *testing.T) {
	l, talk := load(t, `{listeners: [{address: ":3128"}], dns: {address: "127.0.0.1:0", answer: [203.0.113.10, "2001:db8::10"]}}`, nil)
	if talk != "" {
		t.Fatal(talk)
	}
	d := &daemon{cfg: l}
	if d.dnsSockets() != nil || d.dnsTasks() != nil || d.dnsChecks() != nil {
		t.Error("there is no server yet")
	}
	var err error
	d.steering, err = steer.New(l.steerConfig(), steer.Deps{Decider: policy.NewLive(), Recorder: flow.NewBus(), NewID: flow.NewID})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.steering.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.steering.Close()
	all := d.dnsSockets()
	for _, want := range []string{
		d.steering.Addr().String(), "203.0.113.10:443", "203.0.113.10:80", "203.0.113.10:3128", "[2001:db8::10]:443",
		netip.AddrPortFrom(netip.MustParseAddr("203.0.113.10"), d.steering.Addr().Port()).String(),
	} {
		if !slices.Contains(all, netip.MustParseAddrPort(want)) {
			t.Errorf("%s is missing in %v", want, all)
		}
	}
	if c := d.dnsChecks(); len(c) != 1 || !c[0].OK || !strings.Contains(c[0].Detail, d.steering.Addr().String()) {
		t.Errorf("got %+v", c)
	}
}
