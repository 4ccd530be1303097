package history

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
)

// Memory is the store that lives as long as the process.
const Memory = "sqlite::memory:"

// Config says where the history is kept and for how long. Its zero value keeps
// it in memory, with [DefaultRetention].
type Config struct {
	// Store is "sqlite:PATH", [Memory], or a URL postgres://…; "" is [Memory].
	Store string
	// Credentials returns Store's URL as it reads now, for a database whose
	// password is changed while the proxy runs; nil where it never changes. It is
	// called when a PostgreSQL connection is made, at most every ten seconds and
	// for five, never twice at once, and may be called until Close returns. Only
	// the user and the password are taken from it. The host, the database and all
	// the rest stay as they were: one process writes one history, and half of its
	// connections must not lead to another. What it fails with is logged, and so
	// must not hold a secret; the last that is known then stays in use.
	Credentials func(context.Context) (string, error)
	// Instance names this proxy among those that share the store; "" is the
	// host's name.
	Instance string
	// Retention bounds what is kept; a zero field takes [DefaultRetention]'s.
	Retention Retention
	// Queue is how many flows may wait for the store; 0 is 4096.
	Queue int
	// PerSite is how many flows of one site are kept of a second, as long as there
	// are not very many of all; 0 is 16, and below 0 are all. Figures count every
	// one.
	PerSite int
	// Drain bounds how long Run writes after its context ended; 0 is
	// [flow.DefaultDrain].
	Drain time.Duration
	// Log is told of what an operator should know.
	Log zerolog.Logger
	// Clock is time.Now but in tests; nil is time.Now.
	Clock func() time.Time
	// ReadOnly opens a store to look at it: nothing is migrated, nothing made,
	// and Observe drops.
	ReadOnly bool
}

// drain returns how long the end may take.
func (c *Config) drain() time.Duration {
	if c.Drain > 0 {
		return c.Drain
	}
	return flow.DefaultDrain
}

// Retention bounds what is kept.
type Retention struct {
	Flows  time.Duration // flows, from their start
	Hourly time.Duration // roll-ups by hour
	Daily  time.Duration // roll-ups by day, sites, and what belongs to them
	// Size is about how many bytes the store may take. Beyond it the oldest
	// flows go first, and then the oldest roll-ups by hour. 0 is the engine's
	// default.
	Size int64
}

// DefaultRetention returns what holds where nothing else is said, for a store:
// 7 d of flows, 35 d of hours, 400 d of days; 8 MiB in memory, 1 GiB in a file,
// and no bound by size in PostgreSQL, whose owner has one.
func DefaultRetention(store string) Retention {
	r := Retention{Flows: 7 * 24 * time.Hour, Hourly: 35 * 24 * time.Hour, Daily: 400 * 24 * time.Hour}
	switch engineOf(store) {
	case engineMemory:
		r.Size = 8 << 20
	case engineFile:
		r.Size = 1 << 30
	case enginePostgres:
	}
	return r
}
