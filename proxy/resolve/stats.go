package resolve

import "sync/atomic"

// Stats is what a [Resolver] has done since it was made, and what it holds.
type Stats struct {
	Lookups uint64 // calls of Lookup; of these:
	Static  uint64 // answered from Config.Hosts
	Hits    uint64 // answered from the cache, with addresses or not
	Stale   uint64 // answered with addresses past their time, as no server answered

	// Failures counts the lookups that ended without addresses, cached
	// failures too, by "nxdomain", "nodata", "refused", "servfail", "rcode"
	// (another response code), "malformed", "timeout", "unreachable",
	// "overload", "bad_name" and "closed". All the keys are always there.
	Failures map[string]uint64

	Queries uint64 // questions sent to servers, each try and protocol
	TCP     uint64 // of these, those over TCP
	Foreign uint64 // replies ignored because they did not fit the question: somebody may be guessing
	Evicted uint64 // names forgotten to make room

	Entries  int // names remembered, those past their time too
	InFlight int // names being asked for
}

// counters are the moving parts of Stats.
type counters struct {
	lookups, static, hits, stale, queries, tcp, foreign atomic.Uint64
	failures                                            [kinds]atomic.Uint64
}

// Stats returns a snapshot. The figures are read one after the other: under
// load they need not add up.
func (r *Resolver) Stats() Stats {
	s := Stats{
		Lookups:  r.stats.lookups.Load(),
		Static:   r.stats.static.Load(),
		Hits:     r.stats.hits.Load(),
		Stale:    r.stats.stale.Load(),
		Failures: make(map[string]uint64, kinds),
		Queries:  r.stats.queries.Load(),
		TCP:      r.stats.tcp.Load(),
		Foreign:  r.stats.foreign.Load(),
	}
	for k := range kinds {
		s.Failures[k.String()] = r.stats.failures[k].Load()
	}
	s.Entries, s.Evicted = r.cache.size()
	r.mu.Lock()
	s.InFlight = len(r.flights)
	r.mu.Unlock()
	return s
}
