package resolve

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// entry is what is remembered of one name. It is immutable but for used.
type entry struct {
	addrs []netip.Addr // shared with callers: never written again
	kind  kind         // of err
	err   error        // a *net.DNSError, nil when there are addresses

	expires    time.Time // answered without asking until then
	staleUntil time.Time // addrs may be served until then, while no server answers
	// failing says that the last flight for the name got no answer: addrs are
	// served at once, and a flight tries again behind them, from retry on.
	failing bool
	retry   time.Time

	used atomic.Int64 // last hit, Unix seconds
}

// usable reports whether e may be served while no server answers.
func (e *entry) usable(now time.Time) bool {
	return e != nil && len(e.addrs) > 0 && now.Before(e.staleUntil)
}

// cache holds at most limit entries.
type cache struct {
	mu      sync.RWMutex // protects what follows
	entries map[string]*entry
	evicted uint64
	limit   int
}

// get returns the name's entry, of whatever age, or nil.
func (c *cache) get(name string, now time.Time) *entry {
	c.mu.RLock()
	e := c.entries[name]
	c.mu.RUnlock()
	if e != nil {
		// Once a second is enough to tell which names are in use, and keeps
		// the processors from fighting over the line.
		if at := now.Unix(); e.used.Load() != at {
			e.used.Store(at)
		}
	}
	return e
}

// put remembers e and, when there is no room, forgets another.
func (c *cache) put(name string, e *entry, now time.Time) {
	e.used.Store(now.Unix())
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.entries[name]; !known && len(c.entries) >= c.limit {
		c.evictLocked(now)
	}
	c.entries[name] = e
}

// evictLocked forgets one of a few entries that chance picks (the order of a
// map is random): one past its time, else a negative one, else the longest
// unused. So a flood of names that do not exist washes out itself, not the
// names in use.
func (c *cache) evictLocked(now time.Time) {
	const sample = 16
	var victim string
	var worst int64
	n := 0
	for name, e := range c.entries {
		if rank := e.worth(now); n == 0 || rank < worst {
			victim, worst = name, rank
		}
		if n++; n == sample {
			break
		}
	}
	delete(c.entries, victim)
	c.evicted++
}

// worth ranks entries for eviction, the least first.
func (e *entry) worth(now time.Time) int64 {
	switch {
	case !now.Before(e.expires) && !e.usable(now):
		return -2
	case e.err != nil:
		return -1
	}
	return e.used.Load()
}

func (c *cache) size() (entries int, evicted uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries), c.evicted
}
