package proxy

import (
	"net/netip"
	"testing"
)

// TestHostileTranslatedSelf: a translator is no way back in.
func TestHostileTranslatedSelf(t *testing.T) {
	s := &self{sockets: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.5:3128"), netip.MustParseAddrPort("[2600:1f18::5]:3128"), netip.MustParseAddrPort("[::]:9901")}}
	for dst, want := range map[string]bool{
		"10.0.0.5:3128":                   true,
		"[::ffff:10.0.0.5]:3128":          true,
		"[64:ff9b::a00:5]:3128":           true,
		"[64:ff9b:1::a00:5]:3128":         true,
		"[2002:a00:5::1]:3128":            true,
		"[64:ff9b::7f00:1]:9901":          true,
		"[2600:1f18::5]:3128":             true,
		"10.0.0.5:443":                    false,
		"[64:ff9b::a00:5]:443":            false,
		"[64:ff9b::a00:6]:3128":           false,
		"[2600:1f18::6]:3128":             false,
		"[2600:1f18:64:ff9b::a00:5]:3128": false,
	} {
		if got := s.includes(netip.MustParseAddrPort(dst)); got != want {
			t.Errorf("%s: %v", dst, got)
		}
	}
}
