package proxy

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// TestHostileEndpoint: a VPC endpoint that cannot be read does not make of its
// caller one who comes directly.
func TestHostileEndpoint(t *testing.T) {
	endpoint := func(id string) proxyproto.TLV {
		return proxyproto.TLV{Type: 0xea, Value: append([]byte{1}, id...)}
	}
	const one, other = "vpce-08d2bf15fac5001c9", "vpce-0a1b2c3d4e5f60718"
	for name, tt := range map[string]struct {
		tlvs []proxyproto.TLV
		want string
		ok   bool
	}{
		"one":             {[]proxyproto.TLV{endpoint(one)}, one, true},
		"none":            {nil, "", true},
		"an empty one":    {[]proxyproto.TLV{endpoint("")}, "", true},
		"another subtype": {[]proxyproto.TLV{{Type: 0xea, Value: []byte{2, 'x'}}, {Type: 0xea}}, "", true},
		"one twice":       {[]proxyproto.TLV{endpoint(one), endpoint(one)}, one, true},
		"two":             {[]proxyproto.TLV{endpoint(one), endpoint(other)}, "", false},
		"not an ID":       {[]proxyproto.TLV{endpoint(one + "\x00")}, "", false},
		"a line":          {[]proxyproto.TLV{endpoint(one + "\n")}, "", false},
		"not an ID first": {[]proxyproto.TLV{endpoint("é"), endpoint(one)}, "", false},
		"a long one":      {[]proxyproto.TLV{endpoint(strings.Repeat("v", 256))}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := parseProxyHeader([]byte(headerV2(t, tt.tlvs...)))
			if (err == nil) != tt.ok || b.vpcEndpoint != tt.want {
				t.Errorf("%q, %v", b.vpcEndpoint, err)
			}
		})
	}
}

// TestHostileClients: a balancer's own loopback is not ours.
func TestHostileClients(t *testing.T) {
	for _, tt := range []struct {
		sender, client string
		ok             bool
	}{
		{"10.0.0.1", "10.0.16.7", true},
		{"10.0.0.1", "127.0.0.1", false},
		{"2001:db8::1", "::1", false},
		{"127.0.0.1", "127.0.0.1", true}, // a balancer in the same task
		{"127.0.0.1", "::1", true},
		{"10.0.0.1", "224.0.0.1", false},
		{"127.0.0.1", "ff02::1", false},
	} {
		b := behind{remote: netip.AddrPortFrom(netip.MustParseAddr(tt.client), 4711)}
		if err := b.credible(netip.MustParseAddr(tt.sender)); (err == nil) != tt.ok {
			t.Errorf("%s by %s: %v", tt.client, tt.sender, err)
		}
	}
	b, err := parseProxyHeader([]byte("PROXY TCP6 ::ffff:127.0.0.1 ::ffff:10.0.0.1 1 2\r\n"))
	if err == nil {
		err = b.credible(netip.MustParseAddr("10.0.0.1"))
	}
	if err == nil {
		t.Error("mapped loopback is believed")
	}
	if err := (behind{}).credible(netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Errorf("a health check: %v", err)
	}
}

// TestHostileWithoutHeader: a client that shares the balancer's subnet, and comes
// directly where headers are optional, is counted like any other.
func TestHostileWithoutHeader(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, behindBalancer(ProxyProtocolOptional, "127.0.0.0/8"), func(c *Config) { c.Limits.PerSource = 2 })
	for i, want := range []string{"200", "200", "429"} {
		c := r.dial()
		fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: x\r\n\r\n", port)
		got := make([]byte, len("HTTP/1.1 200"))
		io.ReadFull(c, got)
		if string(got[9:]) != want {
			t.Errorf("connection %d: %s, want %s", i, got, want)
		}
	}
}
