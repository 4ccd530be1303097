package policy

import (
	"net/netip"
	"strings"
	"testing"
)

// allowing returns the decision of a rule that lists the given ranges.
func allowing(ranges ...string) Decision {
	rule := &Rule{Verdict: Allow}
	for _, r := range ranges {
		rule.ResolvesTo = append(rule.ResolvesTo, netip.MustParsePrefix(r))
	}
	return Decision{Verdict: Allow, Reason: ReasonRule, Rule: rule}
}

var reporting = Decision{Verdict: Allow, Mode: Report, Reason: ReasonNoRule}

func TestCheckAddress(t *testing.T) {
	const yes, marked, no = "yes", "marked", "no"
	everything := []string{"0.0.0.0/0", "::/0"}
	tests := []struct {
		name string
		d    Decision
		addr string
		want string
	}{
		{"global", allowing(), "8.8.8.8", yes},
		{"global, IPv6", allowing(), "2600:9000::1", yes},
		{"global, mapped", allowing(), "::ffff:8.8.8.8", yes},
		{"global, no rule", reporting, "8.8.8.8", yes},
		{"global, denied", Decision{}, "8.8.8.8", no},
		{"listed, denied", Decision{Rule: allowing("10.0.0.0/8").Rule}, "10.0.0.1", no},
		{"private", allowing(), "10.0.0.1", no},
		{"private, listed", allowing("10.0.0.0/8"), "10.0.0.1", yes},
		{"private, mapped, listed", allowing("10.0.0.0/8"), "::ffff:10.0.0.1", yes},
		{"private, other listed", allowing("192.168.0.0/16", "10.1.0.0/16"), "10.0.0.1", no},
		{"private, second listed", allowing("192.168.0.0/16", "10.0.0.0/16"), "10.0.0.1", yes},
		{"loopback, listed", allowing("127.0.0.0/8"), "127.0.0.1", yes},
		{"loopback, IPv6, listed", allowing("::1/128"), "::1", yes},
		{"loopback, IPv4 listed", allowing("127.0.0.0/8"), "::1", no},
		{"reserved, listed", allowing("240.0.0.0/4"), "240.0.0.1", yes},
		{"not delegated, listed", allowing("4000::/3"), "4000::1", yes},
		{"invalid", allowing(everything...), "", no},

		{"metadata", allowing(everything...), "169.254.169.254", no},
		{"task credentials", allowing("169.254.170.2/32"), "169.254.170.2", no},
		{"link-local", allowing(everything...), "169.254.0.1", no},
		{"link-local, IPv6", allowing(everything...), "fe80::1", no},
		{"metadata, IPv6", allowing("fc00::/7"), "fd00:ec2::254", no},
		{"metadata, mapped", allowing(everything...), "::ffff:169.254.169.254", no},
		{"metadata, compatible", allowing(everything...), "::169.254.169.254", no},
		{"metadata, translated", allowing(everything...), "::ffff:0:169.254.169.254", no},
		{"metadata, NAT64", allowing(everything...), "64:ff9b::169.254.169.254", no},
		{"metadata, NAT64 local, /96", allowing(everything...), "64:ff9b:1::169.254.169.254", no},
		{"metadata, NAT64 local, /96 elsewhere", allowing(everything...), "64:ff9b:1:2:3:4:169.254.169.254", no},
		{"metadata, NAT64 local, /48", allowing(everything...), "64:ff9b:1:a9fe:a9:fe00:808:808", no},
		{"metadata, NAT64 local, /56", allowing(everything...), "64:ff9b:1:a9:fe:a9fe:808:808", no},
		{"metadata, NAT64 local, /64", allowing(everything...), "64:ff9b:1:0:a9:fea9:fe08:808", no},
		{"metadata, 6to4", allowing(everything...), "2002:a9fe:a9fe::1", no},
		{"metadata, Teredo client", allowing(everything...), "2001:0:808:808:0:0:5601:5601", no},
		{"metadata, Teredo server", allowing(everything...), "2001:0:a9fe:a9fe:0:0:f7f7:f7f7", no},
		{"multicast", allowing(everything...), "224.0.0.251", no},
		{"multicast, IPv6", allowing(everything...), "ff02::fb", no},
		{"multicast, NAT64", allowing(everything...), "64:ff9b::224.0.0.251", no},
		{"unspecified", allowing(everything...), "0.0.0.0", no},
		{"this network", allowing(everything...), "0.1.2.3", no},
		{"unspecified, IPv6", allowing(everything...), "::", no},
		{"broadcast", allowing(everything...), "255.255.255.255", no},
		{"broadcast, 6to4", allowing(everything...), "2002:ffff:ffff::1", no},

		{"NAT64, not listed", allowing(), "64:ff9b::8.8.8.8", no},
		{"NAT64, listed", allowing("64:ff9b::/96"), "64:ff9b::8.8.8.8", yes},
		{"NAT64 to private, prefix listed", allowing("64:ff9b::/96"), "64:ff9b::10.0.0.1", no},
		{"NAT64 to private, address listed", allowing("10.0.0.0/8"), "64:ff9b::10.0.0.1", no},
		{"NAT64 to private, both listed", allowing("64:ff9b::/96", "10.0.0.0/8"), "64:ff9b::10.0.0.1", yes},
		{"NAT64 local, listed", allowing("64:ff9b:1::/48"), "64:ff9b:1:ffff::8.8.8.8", yes},
		{"6to4 to loopback, prefix listed", allowing("2002::/16"), "2002:7f00:1::1", no},
		{"6to4 to loopback, both listed", allowing("2002::/16", "127.0.0.1/32"), "2002:7f00:1::1", yes},
		{"Teredo, listed", allowing("2001::/32"), "2001:0:808:808:0:0:f7f7:f7f7", yes},
		{"Teredo, private client", allowing("2001::/32"), "2001:0:808:808:0:0:f5ff:fffe", no},
		{"Teredo, private client listed", allowing("2001::/32", "10.0.0.0/8"), "2001:0:808:808:0:0:f5ff:fffe", yes},
		{"Teredo, private server", allowing("2001::/32"), "2001:0:a00:1:0:0:f7f7:f7f7", no},
		{"compatible, listed", allowing("::/96"), "::8.8.8.8", yes},
		{"compatible to private, prefix listed", allowing("::/96"), "::10.0.0.1", no},

		{"report: private", reporting, "10.0.0.1", marked},
		{"report: private, mapped", reporting, "::ffff:10.0.0.1", marked},
		{"report: unique local", reporting, "fd12::1", marked},
		{"report: shared", reporting, "100.64.0.1", marked},
		{"report: loopback", reporting, "127.0.0.1", no},
		{"report: loopback, IPv6", reporting, "::1", no},
		{"report: metadata", reporting, "169.254.169.254", no},
		{"report: metadata, IPv6", reporting, "fd00:ec2::254", no},
		{"report: NAT64 to private", reporting, "64:ff9b::10.0.0.1", no},
		{"report: documentation", reporting, "192.0.2.1", no},
		{"enforce: no rule", Decision{Verdict: Allow, Reason: ReasonNoRule}, "10.0.0.1", no},
		{"report: a rule allows it", Decision{Verdict: Allow, Mode: Report, Reason: ReasonRule, Rule: &Rule{}}, "10.0.0.1", marked},
		{"report: listed", Decision{Verdict: Allow, Mode: Report, Reason: ReasonRule, Rule: allowing("10.0.0.0/8").Rule}, "10.0.0.1", yes},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a netip.Addr
			if tt.addr != "" {
				a = netip.MustParseAddr(tt.addr)
			}
			reason, ok := tt.d.CheckAddress(a)
			got := map[bool]string{true: yes, false: no}[ok]
			if ok && reason == ReasonAddressProhibited {
				got = marked
			}
			if got != tt.want || (reason == "") != (got == yes) {
				t.Errorf("CheckAddress(%s) = %q, %v, want %s", tt.addr, reason, ok, tt.want)
			}
		})
	}
	if _, ok := allowing(everything...).CheckAddress(netip.MustParseAddr("2600:9000::1%eth0")); ok {
		t.Error("an address with a zone is permitted")
	}
}

func TestRanges(t *testing.T) {
	tests := []struct {
		prefix            string
		never, prohibited bool
	}{
		{"0.0.0.0/0", false, false},
		{"::/0", false, false},
		{"10.0.0.0/8", false, true},
		{"10.0.0.0/7", false, false},
		{"10.1.2.3/32", false, true},
		{"172.16.0.0/11", false, false},
		{"203.0.113.0/24", false, true},
		{"8.8.8.8/32", false, false},
		{"169.254.0.0/16", true, true},
		{"169.254.169.254/32", true, true},
		{"169.254.169.254/8", false, false}, // host bits are no matter
		{"224.0.0.0/4", true, true},
		{"224.0.0.0/3", false, true}, // with 240/4, which may be listed
		{"255.255.255.254/31", false, true},
		{"255.255.255.255/32", true, true},
		{"0.0.0.0/8", true, true},
		{"fc00::/7", false, true},
		{"fd00:ec2::/32", true, true},
		{"fd00:ec2::/31", false, true},
		{"fe80::/10", true, true},
		{"fe80::/9", false, true},
		{"ff00::/8", true, true},
		{"::/128", true, true},
		{"::/127", false, true},
		{"::/96", false, true},
		{"2000::/3", false, false},
		{"8000::/1", false, true},
		{"::ffff:0:0/96", false, false},
		{"::ffff:10.0.0.0/104", false, true},
		{"::ffff:169.254.0.0/112", true, true},
		{"::ffff:0:0/95", false, false},
		{"64:ff9b::/96", false, true},
		{"64:ff9b::169.254.0.0/112", true, true},
		{"64:ff9b::169.254.0.0/111", false, true},
		{"64:ff9b:1:2::169.254.1.0/120", true, true},
		{"64:ff9b:1:a9fe::/64", true, true},
		{"64:ff9b:1:a9fe::/63", false, true},
		{"2002:a9fe::/32", true, true},
		{"2002:e000::/20", true, true},
		{"2002:a9fe::/31", false, true},
		{"2001:0:a9fe::/48", true, true},
		{"2001:0:808:808:0:0:5601::/112", true, true},
		{"2001::/32", false, true},
	}
	for _, tt := range tests {
		p := netip.MustParsePrefix(tt.prefix)
		if got := NeverPermitted(p); got != tt.never {
			t.Errorf("NeverPermitted(%s) = %v", p, got)
		}
		if got := ProhibitedRange(p); got != tt.prohibited {
			t.Errorf("ProhibitedRange(%s) = %v", p, got)
		}
	}
	if !NeverPermitted(netip.Prefix{}) || !ProhibitedRange(netip.Prefix{}) {
		t.Error("the zero Prefix may be permitted")
	}
}

func TestAddressHint(t *testing.T) {
	tests := []struct{ addr, want string }{
		{"169.254.169.254", "EC2 instance metadata"},
		{"fd00:ec2::254", "EC2 instance metadata"},
		{"fd00:ec2::254%eth0", "EC2 instance metadata"},
		{"::ffff:169.254.169.254", "EC2 instance metadata"},
		{"64:ff9b::169.254.170.2", "ECS task credentials and metadata"},
		{"2002:a9fe:aa02::", "ECS task credentials and metadata"},
		{"2001:0:808:808:0:0:5601:5602", "Amazon VPC DNS resolver"},
		{"169.254.169.253", "Amazon VPC DNS resolver"},
		{"169.254.169.123", "Amazon Time Sync Service"},
		{"169.254.170.23", "EKS Pod Identity credentials"},
		{"169.254.1.1", ""},
		{"8.8.8.8", ""},
		{"2600:9000::1", ""},
	}
	for _, tt := range tests {
		if got := AddressHint(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("AddressHint(%s) = %q, want %q", tt.addr, got, tt.want)
		}
	}
	if got := AddressHint(netip.Addr{}); got != "" {
		t.Errorf("AddressHint of the zero Addr = %q", got)
	}
}

func TestCheckAddressAllocates(t *testing.T) {
	d := allowing("10.0.0.0/8", "64:ff9b::/96")
	for _, s := range []string{"8.8.8.8", "10.0.0.1", "2600:9000::1", "64:ff9b::10.0.0.1", "169.254.169.254"} {
		a := netip.MustParseAddr(s)
		if n := testing.AllocsPerRun(100, func() { _, _ = d.CheckAddress(a) }); n != 0 {
			t.Errorf("CheckAddress(%s) allocates %v times", s, n)
		}
	}
}

func BenchmarkCheckAddress(b *testing.B) {
	d := allowing("10.0.0.0/8")
	a := netip.MustParseAddr("2600:9000::1")
	for b.Loop() {
		_, _ = d.CheckAddress(a)
	}
}

// neverOracle decides by how an address looks when it is written out.
func neverOracle(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return b[0] == 0 || b[0] == 169 && b[1] == 254 || b[0]>>4 == 14 || a.String() == "255.255.255.255"
	}
	x := a.StringExpanded()
	hex := strings.ReplaceAll(x, ":", "")
	v4 := func(digits string, mask byte) bool {
		var b [4]byte
		for i := range b {
			b[i] = (unhex(digits[2*i])<<4 | unhex(digits[2*i+1])) ^ mask
		}
		return neverOracle(netip.AddrFrom4(b))
	}
	switch {
	case a == netip.IPv6Loopback():
		return false
	case strings.HasPrefix(x, "ff"), strings.HasPrefix(x, "fd00:0ec2:"):
		return true
	case strings.HasPrefix(x, "fe8"), strings.HasPrefix(x, "fe9"), strings.HasPrefix(x, "fea"), strings.HasPrefix(x, "feb"):
		return true
	case strings.HasPrefix(x, "0000:0000:0000:0000:0000:0000:"),
		strings.HasPrefix(x, "0000:0000:0000:0000:ffff:0000:"),
		strings.HasPrefix(x, "0064:ff9b:0000:0000:0000:0000:"):
		return v4(hex[24:], 0)
	case strings.HasPrefix(x, "0064:ff9b:0001:"):
		return v4(hex[24:], 0) || hex[12:16] == "a9fe" || hex[14:16]+hex[18:20] == "a9fe" || hex[18:22] == "a9fe"
	case strings.HasPrefix(x, "2002:"):
		return v4(hex[4:], 0)
	case strings.HasPrefix(x, "2001:0000:"):
		return v4(hex[8:], 0) || v4(hex[24:], 0xff)
	}
	return false
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }

// FuzzCheckAddress: what is never permitted is refused whatever is listed, and
// listing or reporting never takes anything away.
func FuzzCheckAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "8.8.8.8", "::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00:808:808", "2002:a9fe:a9fe::", "2001::5601:5601", "::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "fd00:ec2::254"} {
		a := netip.MustParseAddr(s)
		f.Add(a.AsSlice(), a.AsSlice(), uint8(8))
		f.Add(a.AsSlice(), netip.IPv6Unspecified().AsSlice(), uint8(0))
	}
	f.Fuzz(func(t *testing.T, addr, prefix []byte, bits uint8) {
		a, ok := netip.AddrFromSlice(addr)
		q, ok2 := netip.AddrFromSlice(prefix)
		p := netip.PrefixFrom(q, int(bits))
		if !ok || !ok2 || !p.IsValid() {
			t.Skip("not an address and a prefix")
		}
		everything := allowing("0.0.0.0/0", "::/0")
		never := neverOracle(a)
		if _, ok := everything.CheckAddress(a); ok == never {
			t.Fatalf("%s: never permitted is %v, permitted with everything listed is %v", a, never, ok)
		}
		if NeverPermitted(netip.PrefixFrom(a, a.BitLen())) != never {
			t.Fatalf("NeverPermitted(%s) = %v", a, !never)
		}
		_, plain := allowing().CheckAddress(a)
		if plain != (ClassifyAddress(a) == AddressGlobal) {
			t.Fatalf("%s is %s, permitted %v", a, ClassifyAddress(a), plain)
		}
		_, listed := allowing(p.String()).CheckAddress(a)
		if plain && !listed {
			t.Fatalf("%s is permitted, and not when %s is listed", a, p)
		}
		if listed && !plain && !p.Contains(a.Unmap()) {
			t.Fatalf("%s is permitted because of %s", a, p)
		}
		reason, marked := reporting.CheckAddress(a)
		if plain && (!marked || reason != "") || marked && never {
			t.Fatalf("%s: permitted %v, never %v, reporting %q, %v", a, plain, never, reason, marked)
		}
		_, _ = AddressHint(a), AddressHint(a.WithZone("x"))
	})
}

// FuzzRanges holds the answers about a range against those about each of its
// addresses, or against some of them where the range is large.
func FuzzRanges(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "255.255.255.0/24", "::/120", "::ffff:169.254.0.0/112", "64:ff9b::/96", "64:ff9b:1:a9fe::/64", "2002:a9fe::/32", "2001:0:a9fe::/48", "fe80::/9"} {
		p := netip.MustParsePrefix(s)
		f.Add(p.Addr().AsSlice(), uint8(p.Bits()), p.Addr().AsSlice())
	}
	f.Fuzz(func(t *testing.T, addr []byte, bits uint8, other []byte) {
		a, ok := netip.AddrFromSlice(addr)
		p := netip.PrefixFrom(a, int(bits)).Masked()
		if !ok || !p.IsValid() {
			t.Skip("not a prefix")
		}
		never, prohibited := NeverPermitted(p), ProhibitedRange(p)
		if never && !prohibited {
			t.Fatalf("%s is never permitted, and not prohibited", p)
		}
		if a.BitLen()-p.Bits() <= 8 {
			allNever, allProhibited := true, true
			for x := p.Addr(); x.IsValid() && p.Contains(x); x = x.Next() {
				allNever = allNever && neverOracle(x)
				allProhibited = allProhibited && ClassifyAddress(x) != AddressGlobal
			}
			if never != allNever || prohibited != allProhibited {
				t.Fatalf("%s: never %v, each %v; prohibited %v, each %v", p, never, allNever, prohibited, allProhibited)
			}
			return
		}
		if o, ok := netip.AddrFromSlice(other); ok && p.Contains(o) {
			if never && !neverOracle(o) || prohibited && ClassifyAddress(o) == AddressGlobal {
				t.Fatalf("%s: never %v, prohibited %v, and %s in it", p, never, prohibited, o)
			}
		}
	})
}
