package proxy

import (
	"context"
	"net"
	"runtime/debug"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// restAfter is how long a tunnel is quiet before it settles in the loop.
const restAfter = time.Second

// sweepMax and sweepMin bound the pause between two looks at the flights.
const (
	sweepMin = 50 * time.Millisecond
	sweepMax = time.Second
)

// sweep cuts the flights on which nothing moved for Timeouts.Idle. It asks
// the kernel when bytes last moved (tcp(7), TCP_INFO), so that no timer, no
// deadline and no wrapper sits on the data path.
func (s *Server) sweep(ctx context.Context) {
	idle := s.cfg.Timeouts.Idle
	ticker := time.NewTicker(min(max(idle/8, sweepMin), sweepMax))
	defer ticker.Stop()
	var tide tide
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if tide.ebbs(s.Counts().Accepted, time.Now()) {
			debug.FreeOSMemory()
		}
		for _, f := range s.live.list() {
			s.look(f)
		}
	}
}

// A burst of ebbBurst connections or more that ended ebbAfter ago has left
// memory behind that nobody needs. The runtime would keep as much again as is
// in use, which beside thousands of silent tunnels is most of what they cost;
// and a sidecar's memory is its application's.
const (
	ebbBurst = 1000
	ebbAfter = 3 * time.Second
)

// tide watches connections come in.
type tide struct {
	seen, freed uint64 // connections, in all and when memory was last given back
	since       time.Time
}

// ebbs reports, once after each burst, that it is over. accepted is how many
// connections there have been by now.
func (t *tide) ebbs(accepted uint64, now time.Time) bool {
	if accepted != t.seen {
		t.seen, t.since = accepted, now
		return false
	}
	if t.seen-t.freed < ebbBurst || now.Sub(t.since) < ebbAfter {
		return false
	}
	t.freed = t.seen
	return true
}

// look lays a flight to rest, or cuts it, if it has been quiet for long enough.
func (s *Server) look(f *flight) {
	// A learning window closes by itself: there is no new policy to say so.
	if f.learning.Load() && s.cfg.CutDenied && f.denied(s.deps.Decider, time.Now()) {
		f.cut(flow.EndedByPolicy)
		return
	}
	idle := s.cfg.Timeouts.Idle
	if time.Since(f.since) < min(idle, restAfter) {
		return
	}
	var quiet time.Duration
	t := f.tunnel.Load()
	if t != nil {
		quiet = t.quiet(idle)
	} else {
		quiet = f.quiet()
	}
	if f.bridge != nil {
		quiet = min(quiet, f.bridge.quiet())
	}
	switch {
	case quiet > idle:
		f.cut(flow.EndedByIdle)
	case t != nil && quiet > min(idle, restAfter):
		t.rest()
	}
}

// quiet returns how long nothing has moved on the flight, in or out: a client
// that reads slowly is sent something long after its origin has sent the last.
// A socket that cannot be asked is closed already, which is not quiet: its
// owner is at work.
func (f *flight) quiet() time.Duration {
	least := time.Since(f.since)
	client, _ := f.client.(*net.TCPConn) // as all are but a tunnel's, which sees to itself
	for _, tcp := range []*net.TCPConn{client, f.origin.Load()} {
		if tcp == nil {
			continue
		}
		info, ok := readTCPInfo(tcp)
		if !ok {
			return 0
		}
		least = min(least, info.lastReceived, info.lastSent)
	}
	return least
}
