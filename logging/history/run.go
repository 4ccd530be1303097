package history

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	writeEvery  = time.Second
	retainEvery = time.Minute
	// writePatience bounds one try to write a batch.
	writePatience = 15 * time.Second
	// rowBytes is about what a row takes, with its part of the indexes.
	rowBytes = 500
	// maxPause is how long a store that fails is left alone at most.
	maxPause = 15 * time.Second
)

// Run writes what was observed until ctx ends and all of it is written, for at
// most [Config].Drain. It also ends what is old and tells watchers of
// changes. Call it once, and end ctx after the last connection was recorded.
// What is left then is lost, and said on the log. It always returns nil.
func (s *Store) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { s.watch(watching) })
	defer s.watchers.end()

	r := &run{Store: s, clock: newSteadiness(s.cfg.Clock)}
	next, due := time.NewTimer(writeEvery), s.due
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.drain(context.WithoutCancel(ctx))
		case <-due:
		case <-next.C:
		}
		pause := r.turn(ctx)
		due = s.due
		if pause > writeEvery {
			due = nil // it fails: a full batch does not make it come back
		}
		next.Reset(pause)
	}
}

// run is what Run remembers.
type run struct {
	*Store
	stuck    *batch // that was not taken
	n        uint64
	pause    time.Duration
	written  int64     // about how many bytes since retention was seen to
	retained time.Time // monotonic: when retention was last seen to
	clock    *steadiness
	compared bool // clock, with the last run
	skewed   bool // and it is not the database's: it was said
}

// turn writes what there is, and returns when to come again.
func (r *run) turn(ctx context.Context) time.Duration {
	err := r.flush(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.failed(err)
		}
		r.pause = min(max(2*r.pause, writeEvery), maxPause)
		return r.pause
	}
	r.pause = 0
	r.well()
	r.clock.look()
	if r.retained.IsZero() || time.Since(r.retained) >= retainEvery || r.written > r.cfg.Retention.Size/8 && r.cfg.Retention.Size > 0 {
		r.retained, r.written = time.Now(), 0
		if err := r.retain(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn().Err(err).Msg("what is old in the history was not removed")
		}
	}
	return writeEvery
}

// flush writes the batch that was not taken before, and then the one that has
// gathered since.
func (r *run) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	if err := r.connect(ctx); err != nil {
		r.hold()
		return err
	}
	for range 2 {
		if r.stuck == nil {
			if r.stuck = r.observer.take(); r.stuck == nil {
				return r.savePolicies(ctx)
			}
			r.n++
			r.stuck.n = r.n
		}
		if err := r.write(ctx); err != nil {
			return err
		}
	}
	return r.savePolicies(ctx)
}

// hold takes the first batch that finds no store, so that the gap begins with
// it.
func (r *run) hold() {
	now := r.cfg.Clock()
	r.observer.gapSince(now)
}

// write writes the batch that is due.
func (r *run) write(ctx context.Context) error {
	b := r.stuck
	db := r.database()
	err := db.put(ctx, &r.writer, b)
	b.tries++
	switch {
	case err == nil:
		r.stuck = nil
		r.written += int64(len(b.flows)+len(b.sums)) * rowBytes
		r.Store.took(b)
		return nil
	case damaged(err) && r.engine == engineFile:
		r.replace(err)
	case unacceptable(err):
		// It would be refused again: what it holds must not hold up the rest.
		r.observer.lose(b)
		r.observer.gap(Gap{From: r.cfg.Clock(), To: r.cfg.Clock(), Reason: "refused by the store: " + err.Error()})
		r.stuck = nil
	default:
		r.hold()
	}
	return r.scrub(err)
}

// replace closes a damaged file and sets it aside; the next try opens a new
// one.
func (r *run) replace(why error) {
	r.mu.Lock()
	db := r.db
	r.db = nil
	r.mu.Unlock()
	_ = db.close() // it is damaged
	if err := r.setAside(why); err != nil {
		r.failed(err)
	}
}

// unacceptable reports whether the store was there and found fault with the
// rows, which no later try changes.
func unacceptable(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23")
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
		return true
	}
	return false
}

// drain writes what is left.
func (r *run) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.drain())
	defer cancel()
	err := r.flush(ctx)
	if err == nil {
		return nil
	}
	r.failed(err)
	lost := r.Stats().Pending
	if r.stuck != nil {
		lost += len(r.stuck.flows) + len(r.stuck.sums)
	}
	if lost == 0 {
		return nil
	}
	r.cfg.Log.Error().Err(err).Int("lost", lost).Msg("the end of the history could not be written")
	return nil
}

// gap adds to what the next batch tells of losses.
func (o *observer) gap(g Gap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.batch.gap.merge(g)
}

// gapSince begins a gap, or draws it on until now.
func (o *observer) gapSince(now time.Time) {
	o.gap(Gap{From: now, To: now, Reason: "the store was not there"})
}

// steadiness tells whether the clock can be trusted with what is old. A clock
// that was set forward by mistake would otherwise end everything.
type steadiness struct {
	now     func() time.Time
	started time.Time // monotonic
	offset  time.Duration
	since   time.Time // monotonic: of this offset
	doubted bool
}

const (
	maxStep = time.Hour      // that a clock may be set by without being doubted
	trustOf = 24 * time.Hour // that an offset stands before it is believed
)

func newSteadiness(now func() time.Time) *steadiness {
	t := time.Now()
	c := &steadiness{now: now, started: t, since: t}
	c.offset = c.measure()
	return c
}

// measure returns by how much the clock is ahead of the time that has passed.
func (c *steadiness) measure() time.Duration {
	passed := time.Since(c.started)
	return time.Duration(c.now().UnixNano()) - time.Duration(c.started.UnixNano()) - passed
}

// doubt makes the clock one to be believed only after it has stood for a while.
func (c *steadiness) doubt() { c.since, c.doubted = time.Now(), true }

// look notes what the clock does.
func (c *steadiness) look() {
	o := c.measure()
	if d := (o - c.offset).Abs(); d > maxStep {
		c.offset = o
		c.doubt()
	}
	if c.doubted && time.Since(c.since) > trustOf {
		c.doubted = false
	}
}
