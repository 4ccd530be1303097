package proxy

import (
	"sync"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// keptEvery is how often kept connections are looked at that nobody uses.
const keptEvery = originIdleTimeout / 3

// keptKey tells connections apart by what they lead to, and by what their dial
// was permitted.
type keptKey struct {
	poolKey

	host policy.Host
	port uint16
}

// kept keeps connections to origins for plain requests, as the transports of
// pool do for all others, and apart like theirs.
type kept struct {
	mu    sync.Mutex // guards the rest
	era   uint64     // grows when all are forgotten
	n     int
	idle  map[keptKey][]*originConn // the one used last is the last
	timer *time.Timer               // runs sweep while there are any
}

// now returns the era of this moment. A connection is kept only if it is still
// the one in which its exchange was decided.
func (k *kept) now() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.era
}

// take returns the connection that was used last, nil when there is none. It
// is the caller's then.
func (k *kept) take(key keptKey) *originConn {
	for {
		oc := k.pop(key)
		if oc == nil || oc.silent() {
			return oc
		}
		oc.close()
	}
}

func (k *kept) pop(key keptKey) *originConn {
	k.mu.Lock()
	defer k.mu.Unlock()
	conns := k.idle[key]
	if len(conns) == 0 {
		return nil
	}
	last := len(conns) - 1
	oc := conns[last]
	conns[last] = nil
	k.idle[key] = conns[:last]
	k.n--
	return oc
}

// put keeps oc for others, or closes it.
func (k *kept) put(oc *originConn) {
	if !k.keep(oc) {
		oc.close()
	}
}

func (k *kept) keep(oc *originConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if oc.era != k.era || len(k.idle[oc.key]) >= originIdlePerHost || k.n >= originIdleInAll {
		return false
	}
	oc.since = time.Now()
	if k.idle == nil {
		k.idle = make(map[keptKey][]*originConn)
	}
	k.idle[oc.key] = append(k.idle[oc.key], oc)
	if k.n++; k.n == 1 {
		if k.timer == nil {
			k.timer = time.AfterFunc(keptEvery, k.sweep)
		} else {
			k.timer.Reset(keptEvery)
		}
	}
	return true
}

// sweep closes what was not used for long, and what its origin has closed.
func (k *kept) sweep() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n = 0
	for key, conns := range k.idle {
		rest := conns[:0]
		for _, oc := range conns {
			if time.Since(oc.since) > originIdleTimeout-keptEvery || !oc.silent() {
				oc.close()
			} else {
				rest = append(rest, oc)
			}
		}
		clear(conns[len(rest):])
		if k.idle[key] = rest; len(rest) == 0 {
			delete(k.idle, key)
		}
		k.n += len(rest)
	}
	if k.n > 0 {
		k.timer.Reset(keptEvery)
	}
}

// reset closes every kept connection; those in use are not kept.
func (k *kept) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.era++
	for _, conns := range k.idle {
		for _, oc := range conns {
			oc.close()
		}
	}
	k.idle, k.n = nil, 0
	if k.timer != nil {
		k.timer.Stop()
	}
}
