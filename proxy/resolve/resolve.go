package resolve

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// staleWait is how long a lookup with an expired answer at hand waits for a
// better one: the client response timer of RFC 8767, section 5.
const staleWait = 1800 * time.Millisecond

// Resolver looks names up, remembers them and joins those who ask for the
// same. It is safe for concurrent use. [New] makes one, [Resolver.Close] ends it.
type Resolver struct {
	cfg   Config
	hosts map[string][]netip.Addr
	cache cache
	up    *upstream
	stats counters
	now   func() time.Time
	delay time.Duration // resolutionDelay

	life   context.Context // of the flights
	end    context.CancelFunc
	flying sync.WaitGroup

	mu      sync.Mutex // protects what follows
	flights map[string]*flight
	closed  bool
}

// flight is one name being asked for. landed is closed once the first usable
// outcome is in; what follows it is written before and never after.
type flight struct {
	landed chan struct{}
	addrs  []netip.Addr
	kind   kind
	err    error
	stale  bool
}

// New makes a Resolver. It reads /etc/resolv.conf when cfg names no servers,
// and opens no socket.
func New(cfg Config) (*Resolver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	servers, err := parseServers(cfg.Servers)
	if len(cfg.Servers) == 0 {
		servers, err = systemServers("/etc/resolv.conf")
	}
	if err != nil {
		return nil, err
	}
	hosts, err := parseHosts(cfg.Hosts)
	if err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	r := &Resolver{cfg: cfg, hosts: hosts, now: time.Now, delay: resolutionDelay, flights: make(map[string]*flight)}
	r.cache = cache{entries: make(map[string]*entry), limit: cfg.CacheSize}
	r.up = &upstream{timeout: cfg.Timeout, attempts: cfg.Attempts, log: cfg.Logger}
	r.up.now = func() time.Time { return r.now() }
	r.up.exchange = wire{&r.stats}.exchange
	for _, addr := range servers {
		r.up.servers = append(r.up.servers, &server{addr: addr})
	}
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// Servers returns the servers that are asked, in the configured order.
func (r *Resolver) Servers() []netip.AddrPort {
	out := make([]netip.AddrPort, len(r.up.servers))
	for i, s := range r.up.servers {
		out[i] = s.addr
	}
	return out
}

// Close ends every flight and returns when the last has ended. Lookups that
// wait for one fail; later ones answer from what is remembered, or fail.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.flying.Wait()
}

// Lookup returns the addresses of a canonical name: lower case, absolute
// without the trailing dot, no address. They are IPv6 first, then IPv4, each
// in the order of the server's answer, unmapped, and at most 16 of each; they
// are not vetted.
//
// The slice is shared by everyone who asks for the name: do not write to it.
// The same holds for the error, a [*net.DNSError] whose Err is the response
// code's word (NODATA for a name without an address). When ctx ends before
// there is an answer the error is ctx's cause; the question stays in the air,
// for others. What is remembered is returned even if ctx has ended.
func (r *Resolver) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	r.stats.lookups.Add(1)
	if addrs, ok := r.hosts[name]; ok {
		r.stats.static.Add(1)
		return addrs, nil
	}
	now := r.now()
	e := r.cache.get(name, now)
	if e != nil && now.Before(e.expires) {
		return r.hit(e)
	}
	if e == nil && (!validName(name) || strings.HasSuffix(name, ".localhost")) {
		return r.refuse(name)
	}
	return r.miss(ctx, name, e, now)
}

func (r *Resolver) hit(e *entry) ([]netip.Addr, error) {
	r.stats.hits.Add(1)
	if e.err != nil {
		r.stats.failures[e.kind].Add(1)
	}
	return e.addrs, e.err
}

func (r *Resolver) fail(name string, k kind) ([]netip.Addr, error) {
	r.stats.failures[k].Add(1)
	return nil, (&failure{kind: k}).dnsError(name)
}

// refuse answers for names that are never asked.
func (r *Resolver) refuse(name string) ([]netip.Addr, error) {
	if validName(name) {
		r.stats.static.Add(1)
		return loopback(), nil // RFC 6761, section 6.3
	}
	return r.fail(name, badName)
}

// old returns e's addresses although their time is over.
func (r *Resolver) old(e *entry) ([]netip.Addr, error) {
	r.stats.stale.Add(1)
	return e.addrs, nil
}

// miss waits for the name's flight. e is what was remembered, or nil.
func (r *Resolver) miss(ctx context.Context, name string, e *entry, now time.Time) ([]netip.Addr, error) {
	stale := e.usable(now)
	if stale && e.failing && now.Before(e.retry) {
		return r.old(e)
	}
	f, fresh, refusal := r.board(name) //nolint:contextcheck // a flight outlives the caller that started it: others may be waiting, too
	switch {
	case fresh != nil:
		return r.hit(fresh)
	case stale && (e.failing || f == nil):
		return r.old(e)
	case f == nil:
		return r.fail(name, refusal)
	}
	var patience <-chan time.Time
	if stale {
		timer := time.NewTimer(staleWait)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-f.landed:
	case <-patience:
		return r.old(e)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case f.stale:
		r.stats.stale.Add(1)
	case f.err != nil:
		r.stats.failures[f.kind].Add(1)
	}
	return f.addrs, f.err
}

// board returns the name's flight, starting it if there is none; or what has
// been remembered in the meantime; or why there is neither.
func (r *Resolver) board(name string) (*flight, *entry, kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.flights[name]; ok {
		return f, nil, 0
	}
	// A flight that has ended since the caller looked has left its outcome:
	// land comes before the end.
	now := r.now()
	if e := r.cache.get(name, now); e != nil && now.Before(e.expires) {
		return nil, e, 0
	}
	switch {
	case r.closed:
		return nil, nil, closed
	case len(r.flights) >= r.cfg.Flights:
		return nil, nil, overload
	}
	f := &flight{landed: make(chan struct{})}
	r.flights[name] = f
	r.flying.Add(1)
	go r.fly(name, f) // not under the caller's context: others may be waiting, too
	return f, nil, 0
}

// land remembers an outcome and, the first time, lets the callers have it.
func (r *Resolver) land(name string, f *flight, o outcome) {
	now := r.now()
	e := &entry{addrs: o.addrs, expires: now.Add(o.ttl)}
	stale := false
	if o.fail == nil {
		e.staleUntil = e.expires.Add(r.cfg.StaleFor)
	} else if old := r.cache.get(name, now); !o.fail.kind.negative() && old.usable(now) {
		stale = true
		e = &entry{addrs: old.addrs, expires: old.expires, staleUntil: old.staleUntil, failing: true, retry: now.Add(failureTTL)}
	} else {
		e.kind, e.err = o.fail.kind, o.fail.dnsError(name)
	}
	if r.life.Err() == nil {
		r.cache.put(name, e, now)
	} else if e.err != nil {
		e.kind, e.err = closed, (&failure{kind: closed}).dnsError(name)
	}
	select {
	case <-f.landed:
	default:
		f.addrs, f.kind, f.err, f.stale = e.addrs, e.kind, e.err, stale
		close(f.landed)
	}
}
