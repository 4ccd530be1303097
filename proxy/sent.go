package proxy

import (
	"net/netip"
	"sync"
	"time"
)

// sent knows the connections that this process has just opened, so that one
// which comes back to it, because whatever redirects the others redirects its
// own, is told from theirs. There would be no end to it: each turn opens the
// next.
//
// A connection that comes back has the address that its other end has here,
// and the original destination that it was dialled at. Both must agree: in one
// network namespace the kernel gives the same port to the proxy and to the
// application, as long as they talk to different destinations. The same port
// to the same destination is given again only when the first has closed, and
// after all others: so what was accepted long after is another.
type sent struct {
	every time.Duration // for so long, at least, a connection is remembered
	once  sync.Once     // to say that one came back

	mu     sync.Mutex // guards the rest
	recent map[route]time.Time
	before map[route]time.Time // what was recent until began
	began  time.Time
}

// route is both ends of a connection as the one who dialled it sees them.
type route struct{ local, peer netip.AddrPort }

// returnTime is how long after its opening a connection may be accepted when
// it comes back. It is there at once unless the queue of those that wait to be
// accepted is long.
const returnTime = 5 * time.Second

// newSent returns one for connections whose first bytes come within hello.
func newSent(hello time.Duration) *sent {
	return &sent{every: hello + returnTime, recent: make(map[route]time.Time)}
}

// add notes a connection that was opened, before a byte is written on it: who
// has its first byte knows that it was noted. A nil sent notes nothing.
func (s *sent) add(tcp endpoint) {
	if s == nil {
		return
	}
	e := route{addrPortOf(tcp.LocalAddr()), peerOf(tcp)}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.began) > s.every {
		s.before, s.recent, s.began = s.recent, make(map[route]time.Time), now
	}
	s.recent[e] = now
}

// returned reports whether a connection that was accepted then, from and with
// an original destination, is one of this process's own.
func (s *sent) returned(from, original netip.AddrPort, accepted time.Time) bool {
	if s == nil || !original.IsValid() {
		return false
	}
	e := route{from, original}
	s.mu.Lock()
	defer s.mu.Unlock()
	opened, ok := s.recent[e]
	if !ok {
		opened, ok = s.before[e]
	}
	return ok && accepted.Sub(opened) < returnTime
}
