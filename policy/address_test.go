package policy

import (
	"net/netip"
	"testing"
)

// TestClassifyAddressBorders walks both registries: the first and the last
// address of each range, and the ones just outside.
func TestClassifyAddressBorders(t *testing.T) {
	tests := []struct {
		before      AddressClass
		first, last string
		class       AddressClass
		after       AddressClass
	}{
		{AddressInvalid, "0.0.0.0", "0.255.255.255", AddressUnspecified, AddressGlobal},
		{AddressGlobal, "10.0.0.0", "10.255.255.255", AddressPrivate, AddressGlobal},
		{AddressGlobal, "100.64.0.0", "100.127.255.255", AddressShared, AddressGlobal},
		{AddressGlobal, "127.0.0.0", "127.255.255.255", AddressLoopback, AddressGlobal},
		{AddressGlobal, "169.254.0.0", "169.254.168.255", AddressLinkLocal, AddressMetadata},
		{AddressLinkLocal, "169.254.169.0", "169.254.170.255", AddressMetadata, AddressLinkLocal},
		{AddressMetadata, "169.254.171.0", "169.254.255.255", AddressLinkLocal, AddressGlobal},
		{AddressGlobal, "172.16.0.0", "172.31.255.255", AddressPrivate, AddressGlobal},
		{AddressGlobal, "192.0.0.0", "192.0.0.255", AddressProtocol, AddressGlobal},
		{AddressGlobal, "192.0.2.0", "192.0.2.255", AddressDocumentation, AddressGlobal},
		{AddressGlobal, "192.88.99.0", "192.88.99.255", Address6to4, AddressGlobal},
		{AddressGlobal, "192.168.0.0", "192.168.255.255", AddressPrivate, AddressGlobal},
		{AddressGlobal, "198.18.0.0", "198.19.255.255", AddressBenchmarking, AddressGlobal},
		{AddressGlobal, "198.51.100.0", "198.51.100.255", AddressDocumentation, AddressGlobal},
		{AddressGlobal, "203.0.113.0", "203.0.113.255", AddressDocumentation, AddressGlobal},
		{AddressGlobal, "224.0.0.0", "239.255.255.255", AddressMulticast, AddressReserved},
		{AddressMulticast, "240.0.0.0", "255.255.255.254", AddressReserved, AddressBroadcast},
		{AddressReserved, "255.255.255.255", "255.255.255.255", AddressBroadcast, AddressInvalid},

		{AddressInvalid, "::", "::", AddressUnspecified, AddressLoopback},
		{AddressUnspecified, "::1", "::1", AddressLoopback, AddressIPv4Compatible},
		{AddressLoopback, "::2", "::ffff:ffff", AddressIPv4Compatible, AddressReserved},
		{AddressReserved, "::ffff:0:0:0", "::ffff:0:ffff:ffff", AddressIPv4Translated, AddressReserved},
		{AddressReserved, "64:ff9b::", "64:ff9b::ffff:ffff", AddressNAT64, AddressReserved},
		{AddressReserved, "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", AddressNAT64Local, AddressReserved},
		{AddressReserved, "100::", "100::1:ffff:ffff:ffff:ffff", AddressDiscard, AddressReserved},
		{AddressReserved, "2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressGlobal, AddressTeredo},
		{AddressGlobal, "2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", AddressTeredo, AddressProtocol},
		{AddressTeredo, "2001:1::", "2001:1:ffff:ffff:ffff:ffff:ffff:ffff", AddressProtocol, AddressBenchmarking},
		{AddressProtocol, "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", AddressBenchmarking, AddressProtocol},
		{AddressBenchmarking, "2001:2:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", AddressProtocol, AddressGlobal},
		{AddressGlobal, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", AddressDocumentation, AddressGlobal},
		{AddressGlobal, "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Address6to4, AddressGlobal},
		{AddressGlobal, "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", AddressDocumentation, AddressGlobal},
		{AddressDocumentation, "3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressGlobal, AddressReserved},
		{AddressReserved, "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressSegmentRouting, AddressReserved},
		{AddressReserved, "fc00::", "fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff", AddressUniqueLocal, AddressMetadata},
		{AddressUniqueLocal, "fd00:ec2::", "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff", AddressMetadata, AddressUniqueLocal},
		{AddressMetadata, "fd00:ec3::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressUniqueLocal, AddressReserved},
		{AddressReserved, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressLinkLocal, AddressSiteLocal},
		{AddressLinkLocal, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressSiteLocal, AddressMulticast},
		{AddressSiteLocal, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AddressMulticast, AddressInvalid},
	}
	for _, tt := range tests {
		first, last := netip.MustParseAddr(tt.first), netip.MustParseAddr(tt.last)
		for _, c := range []struct {
			addr netip.Addr
			want AddressClass
		}{{first.Prev(), tt.before}, {first, tt.class}, {last, tt.class}, {last.Next(), tt.after}} {
			if got := ClassifyAddress(c.addr); got != c.want {
				t.Errorf("%s to %s: ClassifyAddress(%s) = %s, want %s", tt.first, tt.last, c.addr, got, c.want)
			}
		}
	}
}

func TestClassifyAddress(t *testing.T) {
	tests := []struct {
		addr string
		want AddressClass
	}{
		// Globally reachable by the registry, and refused all the same.
		{"192.0.0.9", AddressProtocol},
		{"192.0.0.10", AddressProtocol},
		{"2001:1::1", AddressProtocol},
		{"2001:1::3", AddressProtocol},
		{"2001:3::1", AddressProtocol},
		{"2001:4:112::1", AddressProtocol},
		{"2001:10::1", AddressProtocol},
		{"2001:20::1", AddressProtocol},
		{"2001:30::1", AddressProtocol},
		// In the registry, and ordinary.
		{"192.31.196.1", AddressGlobal},
		{"192.52.193.1", AddressGlobal},
		{"192.175.48.1", AddressGlobal},
		{"2620:4f:8000::1", AddressGlobal},
		// Ordinary.
		{"1.1.1.1", AddressGlobal},
		{"52.216.1.1", AddressGlobal},
		{"2600:9000::1", AddressGlobal},
		// IPv4-mapped.
		{"::ffff:10.0.0.1", AddressPrivate},
		{"::ffff:8.8.8.8", AddressGlobal},
		{"::ffff:169.254.169.254", AddressMetadata},
		// A zone.
		{"fe80::1%eth0", AddressInvalid},
		{"2600:9000::1%1", AddressInvalid},
	}
	for _, tt := range tests {
		if got := ClassifyAddress(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("ClassifyAddress(%s) = %s, want %s", tt.addr, got, tt.want)
		}
	}
	if got := ClassifyAddress(netip.Addr{}); got != AddressInvalid {
		t.Errorf("ClassifyAddress of the zero Addr = %s", got)
	}
}

// FuzzClassifyAddress holds the classes against what net/netip knows.
func FuzzClassifyAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "127.0.0.1", "8.8.8.8", "::", "::1", "fe80::1", "fec0::1", "2002:a00:1::", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			t.Skip("not an address")
		}
		class, u := ClassifyAddress(a), a.Unmap()
		if got := ClassifyAddress(u); got != class {
			t.Fatalf("%s is %s, %s is %s", a, class, u, got)
		}
		special := u.IsPrivate() || u.IsLoopback() || u.IsLinkLocalUnicast() || u.IsMulticast() || u.IsUnspecified() || !u.IsGlobalUnicast()
		if special && class == AddressGlobal {
			t.Fatalf("%s is global, and special to netip", a)
		}
		claims := map[AddressClass]bool{
			AddressLoopback:    u.IsLoopback(),
			AddressMulticast:   u.IsMulticast(),
			AddressPrivate:     u.IsPrivate() && u.Is4(),
			AddressUniqueLocal: u.IsPrivate() && u.Is6(),
			AddressLinkLocal:   u.IsLinkLocalUnicast(),
		}
		if agrees, known := claims[class]; known && !agrees {
			t.Fatalf("%s is %s, not to netip", a, class)
		}
		if class == AddressInvalid || class == "" {
			t.Fatalf("%s has class %q", a, class)
		}
	})
}
