package policy

import "net/netip"

// Host is a destination in canonical form: a lower-case ASCII name without a
// trailing dot, or an IP address. It is comparable; only [ParseHost] makes one.
type Host struct {
	name string
	addr netip.Addr
}

// String returns the name, or the address in its canonical form without
// brackets; "" for the zero Host.
func (h Host) String() string {
	if h.addr.IsValid() {
		return h.addr.String()
	}
	return h.name
}

// Addr returns the address of an IP literal and whether the host is one.
func (h Host) Addr() (netip.Addr, bool) { return h.addr, h.addr.IsValid() }

// IsZero reports whether h is the zero Host, which names nothing.
func (h Host) IsZero() bool { return h == Host{} }
