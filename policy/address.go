package policy

import (
	"net/netip"
	"slices"
	"sync"
)

// AddressClass says what an IP address is for, after IANA's special-purpose
// and address-space registries.
type AddressClass string

// The classes. Only AddressGlobal may be dialled without being listed.
const (
	AddressGlobal         AddressClass = "global"          // global unicast
	AddressPrivate        AddressClass = "private"         // Private-Use: 10/8, 172.16/12, 192.168/16 (RFC 1918)
	AddressUniqueLocal    AddressClass = "unique_local"    // Unique-Local: fc00::/7 (RFC 4193)
	AddressShared         AddressClass = "shared"          // Shared Address Space, carrier-grade NAT: 100.64/10 (RFC 6598)
	AddressLoopback       AddressClass = "loopback"        // 127/8, ::1
	AddressLinkLocal      AddressClass = "link_local"      // 169.254/16, fe80::/10
	AddressMetadata       AddressClass = "metadata"        // where clouds keep metadata: 169.254.169/24, 169.254.170/24, fd00:ec2::/32
	AddressMulticast      AddressClass = "multicast"       // 224/4, ff00::/8
	AddressBroadcast      AddressClass = "broadcast"       // Limited Broadcast: 255.255.255.255
	AddressUnspecified    AddressClass = "unspecified"     // "This network", 0/8, which Linux takes for itself, and ::
	AddressDocumentation  AddressClass = "documentation"   // TEST-NET-1 to -3, 2001:db8::/32, 3fff::/20
	AddressBenchmarking   AddressClass = "benchmarking"    // 198.18/15, 2001:2::/48
	AddressProtocol       AddressClass = "protocol"        // IETF Protocol Assignments, 192.0.0/24 and 2001::/23, and what is assigned there
	AddressDiscard        AddressClass = "discard"         // Discard-Only and Dummy prefixes: 100::/64, 100:0:0:1::/64
	AddressSegmentRouting AddressClass = "segment_routing" // Segment Routing (SRv6) SIDs: 5f00::/16 (RFC 9602)
	AddressSiteLocal      AddressClass = "site_local"      // deprecated site-local: fec0::/10 (RFC 3879)
	AddressIPv4Compatible AddressClass = "ipv4_compatible" // deprecated ::/96 (RFC 4291, section 2.5.5.1)
	AddressIPv4Translated AddressClass = "ipv4_translated" // ::ffff:0:0:0/96 (RFC 2765)
	AddressNAT64          AddressClass = "nat64"           // IPv4-IPv6 translation: 64:ff9b::/96 (RFC 6052)
	AddressNAT64Local     AddressClass = "nat64_local"     // IPv4-IPv6 translation, local use: 64:ff9b:1::/48 (RFC 8215)
	Address6to4           AddressClass = "6to4"            // 2002::/16, and its relays' 192.88.99/24 (RFC 7526)
	AddressTeredo         AddressClass = "teredo"          // 2001::/32 (RFC 4380)
	AddressReserved       AddressClass = "reserved"        // 240/4, and IPv6 space that is not delegated for unicast
	AddressInvalid        AddressClass = "invalid"         // the zero netip.Addr, and any address with a zone
)

// ClassifyAddress returns the class of an address, which is never "". An
// IPv4-mapped IPv6 address is the IPv4 address that it maps.
//
// The anycast addresses and overlay prefixes inside IETF Protocol Assignments
// that the registries call globally reachable (192.0.0.9, 192.0.0.10,
// 2001:1::1 to ::3, AMT, AS112, ORCHIDv2, DRIP) are AddressProtocol all the
// same: nothing that a task talks to by name lives there.
func ClassifyAddress(a netip.Addr) AddressClass {
	if !a.IsValid() || a.Zone() != "" {
		return AddressInvalid
	}
	a = a.Unmap()
	for _, r := range addressRanges() {
		if r.Contains(a) {
			return r.class
		}
	}
	return AddressInvalid // not reached: the table covers every address
}

// local reports whether addresses of the class make up private networks.
func (c AddressClass) local() bool {
	return c == AddressPrivate || c == AddressUniqueLocal || c == AddressShared
}

// addressRange is one row of the table of classes.
type addressRange struct {
	netip.Prefix
	class AddressClass
}

// addressRanges returns the table of classes, the longest prefixes first, so
// that the first row that holds an address is the one that counts. Together
// the rows cover both families. It is shared: callers only read it.
var addressRanges = sync.OnceValue(func() []addressRange {
	var rows []addressRange
	add := func(class AddressClass, prefixes ...string) {
		for _, p := range prefixes {
			rows = append(rows, addressRange{netip.MustParsePrefix(p), class})
		}
	}
	// IANA IPv4 Special-Purpose Address Registry. Its globally reachable rows
	// outside 192.0.0.0/24 (AS112, AMT) are ordinary addresses.
	add(AddressGlobal, "0.0.0.0/0")
	add(AddressUnspecified, "0.0.0.0/8")
	add(AddressPrivate, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
	add(AddressShared, "100.64.0.0/10")
	add(AddressLoopback, "127.0.0.0/8")
	add(AddressLinkLocal, "169.254.0.0/16")
	add(AddressMetadata, "169.254.169.0/24", "169.254.170.0/24")
	add(AddressProtocol, "192.0.0.0/24")
	add(AddressDocumentation, "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
	add(Address6to4, "192.88.99.0/24")
	add(AddressBenchmarking, "198.18.0.0/15")
	add(AddressMulticast, "224.0.0.0/4")
	add(AddressReserved, "240.0.0.0/4")
	add(AddressBroadcast, "255.255.255.255/32")

	// IANA IPv6 Address Space and IPv6 Special-Purpose Address Registries.
	// Of the space only 2000::/3 is delegated for global unicast.
	add(AddressReserved, "::/0")
	add(AddressReserved, "::ffff:0:0/96") // a border for everyPart; its addresses are unmapped before they are looked up
	add(AddressGlobal, "2000::/3")
	add(AddressUnspecified, "::/128")
	add(AddressLoopback, "::1/128")
	add(AddressIPv4Compatible, "::/96")
	add(AddressIPv4Translated, "::ffff:0:0:0/96")
	add(AddressNAT64, "64:ff9b::/96")
	add(AddressNAT64Local, "64:ff9b:1::/48")
	add(AddressDiscard, "100::/64", "100:0:0:1::/64")
	add(AddressProtocol, "2001::/23")
	add(AddressTeredo, "2001::/32")
	add(AddressBenchmarking, "2001:2::/48")
	add(AddressDocumentation, "2001:db8::/32", "3fff::/20")
	add(Address6to4, "2002::/16")
	add(AddressSegmentRouting, "5f00::/16")
	add(AddressUniqueLocal, "fc00::/7")
	add(AddressMetadata, "fd00:ec2::/32")
	add(AddressLinkLocal, "fe80::/10")
	add(AddressSiteLocal, "fec0::/10")
	add(AddressMulticast, "ff00::/8")

	slices.SortStableFunc(rows, func(a, b addressRange) int { return b.Bits() - a.Bits() })
	return rows
})

// everyPart reports whether is holds for every part of p, where a part is a
// prefix whose addresses are all of one class. It halves p until no row of the
// table begins inside, which takes it along the few paths that lead to rows.
func everyPart(p netip.Prefix, is func(netip.Prefix, AddressClass) bool) bool {
	p = p.Masked()
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if !p.IsSingleIP() && divided(p) {
		low, high := halves(p)
		return everyPart(low, is) && everyPart(high, is)
	}
	return is(p, ClassifyAddress(p.Addr()))
}

// divided reports whether a row of the table lies inside p and is not all of it.
func divided(p netip.Prefix) bool {
	return slices.ContainsFunc(addressRanges(), func(r addressRange) bool {
		return r.Bits() > p.Bits() && p.Contains(r.Addr())
	})
}

// halves splits a prefix that holds more than one address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits()
	low = netip.PrefixFrom(p.Addr(), bits+1)
	if p.Addr().Is4() {
		b := p.Addr().As4()
		b[bits/8] |= 0x80 >> (bits % 8)
		return low, netip.PrefixFrom(netip.AddrFrom4(b), bits+1)
	}
	b := p.Addr().As16()
	b[bits/8] |= 0x80 >> (bits % 8)
	return low, netip.PrefixFrom(netip.AddrFrom16(b), bits+1)
}
