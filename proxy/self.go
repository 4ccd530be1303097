package proxy

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// selfRefresh bounds how old the list of this machine's addresses may be: an
// interface that appears later must not open a way back in for long.
const selfRefresh = 10 * time.Second

// self knows which addresses lead back to this process, so that nobody makes
// the proxy connect to itself: a loop, or a way to the admin port.
type self struct {
	sockets []netip.AddrPort // bound by this process; an unspecified address stands for all

	mu    sync.Mutex // guards local, asked
	local []netip.Addr
	asked time.Time
}

// includes reports whether connecting to dst would reach one of this
// process's own sockets, by way of a translator (NAT64, 6to4) too.
func (s *self) includes(dst netip.AddrPort) bool {
	return s.reaches(dst) || slices.ContainsFunc(policy.Carried(dst.Addr()), func(a netip.Addr) bool {
		return s.reaches(netip.AddrPortFrom(a, dst.Port()))
	})
}

// reaches is includes where dst is taken as it stands.
func (s *self) reaches(dst netip.AddrPort) bool {
	addr := dst.Addr().Unmap()
	for _, sock := range s.sockets {
		if sock.Port() != dst.Port() {
			continue
		}
		if sock.Addr().Unmap() == addr {
			return true
		}
		if sock.Addr().IsUnspecified() && (addr.IsLoopback() || addr.IsUnspecified() || s.isLocal(addr)) {
			return true
		}
	}
	return false
}

func (s *self) isLocal(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.asked) > selfRefresh {
		s.asked, s.local = now, localAddrs()
	}
	return slices.Contains(s.local, addr)
}

// localAddrs lists the addresses of this machine's interfaces. A failure
// yields none: the check of loopback does not need it.
func localAddrs() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
