package flow

import (
	"bufio"
	"crypto/rand"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// NewID returns a new ULID, 26 characters of Crockford's base 32: it sorts by
// the time it was made, and identifiers of one process strictly increase even
// within a millisecond or when the clock steps back. It is safe for concurrent
// use.
func NewID() string { return process().next(time.Now()) }

// process is the maker that this process shares: only one that every caller
// shares can keep its promise of order.
var process = sync.OnceValue(newIDs)

// ids makes identifiers. The random part of the first one in a millisecond
// comes from crypto/rand, later ones add a random step of up to 2³² to it, so
// that one identifier does not give away the next.
type ids struct {
	mu      sync.Mutex // protects what follows
	last    uint64     // milliseconds since the epoch
	entropy *ulid.MonotonicEntropy
}

func newIDs() *ids {
	// Buffered, because a system call an identifier is what makes one dear.
	return &ids{entropy: ulid.Monotonic(bufio.NewReader(rand.Reader), 0)}
}

func (g *ids) next(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, ulid.Timestamp(now))
	id, err := ulid.New(g.last, g.entropy)
	for err != nil {
		// The 80 random bits overflowed within this millisecond: borrow the
		// next one. crypto/rand itself never fails.
		g.last++
		id, err = ulid.New(g.last, g.entropy)
	}
	return id.String()
}
