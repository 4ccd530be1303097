package steer

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// buckets give each network so many tokens a second. Their number is fixed:
// networks that share one by chance share its tokens, and a flood of forged
// addresses takes no memory.
type buckets struct {
	rate, burst float64
	seed        maphash.Seed

	mu  sync.Mutex // guards all
	all [4096]bucket
}

type bucket struct {
	spent float64 // tokens that are not there yet
	at    time.Time
}

func newBuckets(perSecond, burst int) *buckets {
	return &buckets{rate: float64(perSecond), burst: float64(burst), seed: maphash.MakeSeed()}
}

// take takes a token of the network that addr is in, if there is one.
func (b *buckets) take(addr netip.Addr, now time.Time) bool {
	i := maphash.Comparable(b.seed, network(addr)) % uint64(len(b.all))
	b.mu.Lock()
	defer b.mu.Unlock()
	one := &b.all[i]
	spent := max(0, one.spent-max(0, now.Sub(one.at).Seconds())*b.rate)
	if spent+1 > b.burst {
		return false
	}
	one.spent, one.at = spent+1, now
	return true
}

// network is whom an answer hits: an IPv4 address, or the /64 of an IPv6 one,
// of which one host has all.
func network(addr netip.Addr) netip.Addr {
	if addr.Is4() || addr.Is4In6() {
		return addr.Unmap()
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return p.Addr()
}
