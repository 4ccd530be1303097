package policy

import "net/netip"

// CheckAddress says whether a may be dialled for a destination that d allows:
//
//	"", true                         it may
//	ReasonAddressProhibited, true   only because of [Report] mode: mark it
//	ReasonAddressProhibited, false  it may not
//	ReasonDenyRule                  likewise: [Decision.DenyingRule] lists it
//
// Global addresses may be dialled. Addresses that are never permitted
// ([NeverPermitted]) may not, whatever the rule or the mode says. Every other
// one needs a rule whose ResolvesTo lists it. An address that carries an IPv4
// address (NAT64, 6to4, Teredo, ...) needs itself listed, and that IPv4
// address global or listed. In report mode a destination may also lead to
// private, unique local and shared addresses, since those are what a policy
// yet to be written would list; loopback and the rest are no part of the
// network that is being learned.
//
// A decision that denies permits no address.
func (d Decision) CheckAddress(a netip.Addr) (Reason, bool) {
	a = a.Unmap()
	if d.Verdict != Allow || NeverPermitted(single(a)) {
		return ReasonAddressProhibited, false
	}
	class, reported := ClassifyAddress(a), d.Mode == Report
	permitted := class == AddressGlobal || d.listed(a)
	learned := reported && class.local()
	switch {
	case !permitted && !learned:
		return ReasonAddressProhibited, false
	case d.DenyingRule(a) != nil:
		return ReasonDenyRule, reported
	case !permitted:
		return ReasonAddressProhibited, true
	}
	return "", true
}

// asked is what a decision remembers of its query, when deny rules list
// addresses or sources have budgets. Its zero value asks nobody.
type asked struct {
	policy   *Policy
	source   Source
	port     uint16
	protocol Protocol
}

// DenyingRule returns the deny rule that lists an address to which the
// destination's name leads, nil when there is none. Deny beats allow here,
// too: else a name of one's own would be the way round it.
func (d Decision) DenyingRule(a netip.Addr) *Rule {
	q := d.asked
	if q.policy == nil {
		return nil
	}
	s := search{policy: q.policy, port: q.port, protocol: q.protocol, deny: -1, allow: -1, denyTLS: -1, denyHTTP: -1}
	s.caller.find(q.policy, &Query{Source: q.source})
	q.policy.addresses.find(a.Unmap(), s.consider)
	for _, e := range embedded(single(a.Unmap())) {
		if e.IsValid() && !e.aside { // a translator takes it there
			q.policy.addresses.find(e.Addr(), s.consider)
		}
	}
	s.settle(d.Protocol)
	if s.deny < 0 {
		return nil
	}
	return &q.policy.rules[s.deny]
}

// Apart tells the callers apart for whom deny rules list different addresses. A
// connection to an address that [Decision.CheckAddress] permitted is permitted
// by every decision of the same policy about the same destination with the same
// Rule, Mode and Apart.
func (d Decision) Apart() uint64 {
	p := d.asked.policy
	if p == nil {
		return 0
	}
	sum := uint64(0)
	for _, i := range p.closedTo {
		if p.sources[i].lacks(&d.asked.source) == lackNothing {
			sum = (sum ^ uint64(i+1)) * 1_099_511_628_211 // as FNV-1a does, of which that is the prime
		}
	}
	return sum
}

// listed reports whether the rule's ResolvesTo permits a, which is not global.
func (d Decision) listed(a netip.Addr) bool {
	if !d.names(a) {
		return false
	}
	for _, e := range embedded(single(a)) {
		if !e.IsValid() || e.aside {
			continue
		}
		if v4 := e.Addr(); ClassifyAddress(v4) != AddressGlobal && !d.names(v4) {
			return false
		}
	}
	return true
}

// names reports whether a prefix of the rule's ResolvesTo holds a.
func (d Decision) names(a netip.Addr) bool {
	if d.Rule == nil {
		return false
	}
	for _, p := range d.Rule.ResolvesTo {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// NeverPermitted reports whether no address of p may ever be dialled: the
// link-local ranges in which clouds keep metadata and credentials
// (169.254.0.0/16, fe80::/10, fd00:ec2::/32), multicast, unspecified and
// broadcast addresses, and every address that carries one of them in IPv4
// (IPv4-mapped, IPv4-compatible, IPv4-translated, NAT64, 6to4, Teredo).
//
// The prefix of a zone, and the invalid prefix, are never permitted.
func NeverPermitted(p netip.Prefix) bool {
	if !p.IsValid() {
		return true
	}
	return everyPart(p, neverPermitted)
}

// ProhibitedRange reports whether every address of p is one that a rule must
// list in resolves_to before it may be dialled, or that is never permitted:
// none of them is global.
func ProhibitedRange(p netip.Prefix) bool {
	if !p.IsValid() {
		return true
	}
	return everyPart(p, func(_ netip.Prefix, c AddressClass) bool { return c != AddressGlobal })
}

// neverPermitted decides for a prefix whose addresses are all of class c.
func neverPermitted(p netip.Prefix, c AddressClass) bool {
	switch c {
	case AddressInvalid, AddressUnspecified, AddressLinkLocal, AddressMetadata, AddressMulticast, AddressBroadcast:
		return true
	default: // what the address carries decides
	}
	for _, e := range embedded(p) {
		switch {
		case !e.IsValid():
		case e.aside:
			if linkLocal := netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16); within(e.Prefix, linkLocal) {
				return true
			}
		case NeverPermitted(e.Prefix):
			return true
		}
	}
	return false
}

// embedding is the IPv4 address, or range of them, that IPv6 addresses carry.
type embedding struct {
	netip.Prefix
	// aside marks a place where the address stands only if the translator is
	// configured so, and where other bits may stand as well.
	aside bool
}

// embedded returns the IPv4 addresses that the addresses of p carry, in the
// first elements; the others are invalid. All of p is of one class.
//
// 64:ff9b:1::/48 (RFC 8215) is the operator's to divide: RFC 6052, section 2.2
// puts the address in one of four places. The last 32 bits count as its home,
// as below a /96; a translator that looks elsewhere ignores those, so the
// metadata addresses must not stand in the other places either.
func embedded(p netip.Prefix) [4]embedding {
	if p.Addr().Is4() {
		return [4]embedding{}
	}
	switch ClassifyAddress(p.Addr()) {
	case AddressIPv4Compatible, AddressIPv4Translated, AddressNAT64:
		return [4]embedding{{Prefix: carried(p, 12, 13, 14, 15, 0)}}
	case AddressNAT64Local:
		return [4]embedding{
			{Prefix: carried(p, 12, 13, 14, 15, 0)},
			{Prefix: carried(p, 6, 7, 9, 10, 0), aside: true},
			{Prefix: carried(p, 7, 9, 10, 11, 0), aside: true},
			{Prefix: carried(p, 9, 10, 11, 12, 0), aside: true},
		}
	case Address6to4:
		return [4]embedding{{Prefix: carried(p, 2, 3, 4, 5, 0)}}
	case AddressTeredo: // the server, and the client with its bits inverted (RFC 4380, section 4)
		return [4]embedding{
			{Prefix: carried(p, 4, 5, 6, 7, 0)},
			{Prefix: carried(p, 12, 13, 14, 15, 0xff)},
		}
	default:
		return [4]embedding{}
	}
}

// Carried returns the IPv4 addresses that an IPv6 address carries for those who
// translate it (NAT64, 6to4, Teredo and the like), nil for nearly every address.
func Carried(a netip.Addr) []netip.Addr {
	var all []netip.Addr
	for _, e := range embedded(single(a.Unmap())) {
		if e.IsValid() {
			all = append(all, e.Addr())
		}
	}
	return all
}

// carried reads the IPv4 prefix that stands in four bytes of p's addresses,
// given in ascending order, each combined with mask. Bits that p leaves open
// stay open.
func carried(p netip.Prefix, i, j, k, l int, mask byte) netip.Prefix {
	b := p.Addr().As16()
	addr := netip.AddrFrom4([4]byte{b[i] ^ mask, b[j] ^ mask, b[k] ^ mask, b[l] ^ mask})
	bits := 0
	for _, at := range [...]int{i, j, k, l} {
		bits += min(max(p.Bits()-8*at, 0), 8)
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// AddressHint names what a well-known address of AWS's is, for messages, also
// where it is embedded in an IPv6 address; "" for every other address.
func AddressHint(a netip.Addr) string {
	a = a.WithZone("").Unmap()
	if !a.IsValid() {
		return ""
	}
	if hint := awsHint(a); hint != "" {
		return hint
	}
	for _, e := range embedded(single(a)) {
		if e.IsValid() && awsHint(e.Addr()) != "" {
			return awsHint(e.Addr())
		}
	}
	return ""
}

// awsHint names an address that is not embedded.
func awsHint(a netip.Addr) string {
	switch a.String() {
	case "169.254.169.254", "fd00:ec2::254":
		return "EC2 instance metadata"
	case "169.254.170.2":
		return "ECS task credentials and metadata"
	case "169.254.170.23", "fd00:ec2::23":
		return "EKS Pod Identity credentials"
	case "169.254.169.253", "fd00:ec2::253":
		return "Amazon VPC DNS resolver"
	case "169.254.169.123", "fd00:ec2::123":
		return "Amazon Time Sync Service"
	case "169.254.169.250", "169.254.169.251":
		return "Windows licence activation of EC2"
	}
	return ""
}

// single is the prefix of one address, invalid when a has a zone.
func single(a netip.Addr) netip.Prefix {
	if a.Zone() != "" {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// within reports whether every address of p is one of q's.
func within(p, q netip.Prefix) bool { return p.Bits() >= q.Bits() && q.Contains(p.Addr()) }
