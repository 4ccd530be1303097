package flow

import (
	"crypto/rand"
	"errors"
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
	return &ids{entropy: ulid.Monotonic(rand.Reader, 0)} // which buffers it
}

func (g *ids) next(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, ulid.Timestamp(now))
	id, err := ulid.New(g.last, g.entropy)
	for errors.Is(err, ulid.ErrMonotonicOverflow) {
		// The 80 random bits overflowed within this millisecond: borrow the
		// next one.
		g.last++
		id, err = ulid.New(g.last, g.entropy)
	}
	if err != nil {
		panic(err) // crypto/rand never fails, and the year is not 10889
	}
	return id.String()
}

// IDAt returns the lowest identifier that can be made at t: those made before
// are below it, those made at t or later are not.
func IDAt(t time.Time) string {
	var id ulid.ULID
	ms := min(max(t.UnixMilli(), 0), int64(ulid.MaxTime()))
	_ = id.SetTime(uint64(ms))
	return id.String()
}
