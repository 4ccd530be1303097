package ecs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// leastGap is the least time between the beginnings of two listings that
	// unknown callers asked for.
	leastGap = time.Second
	// maxBackoff bounds the time between two tries while they fail.
	maxBackoff = time.Minute
	// maxHints bounds the tasks of events that wait to be described. When there
	// are more, the cluster is listed instead.
	maxHints = 1000
	// hintTries is how often a task of an event is described until the answer is
	// as new as the event.
	hintTries = 5
)

// watcher keeps one cluster's part of the map as AWS says.
type watcher struct {
	cluster Cluster
	region  string
	poll    time.Duration
	api     *api
	sharing int // watchers with the same pacer
	book    *book
	errors  func() // counts one
	log     zerolog.Logger
	wake    chan struct{} // something is wanted; buffered

	mu       sync.Mutex // protects what follows
	wanted   *flight    // who is unknown waits for the next listing; nil: nobody
	hints    map[string]hint
	next     time.Time // of the next listing
	earliest time.Time // for one that is wanted, and for hints
	failures int       // in a row
	failure  error     // the last listing's; nil when it was whole
	code     string    // AWS's word for it
	good     time.Time // when the last whole listing began; zero: never
}

// flight is a listing that unknown callers wait for. err is set before done is
// closed.
type flight struct {
	done chan struct{}
	err  error
}

// hint is what an event said of a task.
type hint struct {
	version int64
	tries   int
}

// run lists and describes until ctx ends.
func (w *watcher) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.wake:
		}
		list, hints := w.due(time.Now())
		switch {
		case list != nil:
			w.refresh(ctx, list)
		case len(hints) > 0:
			w.follow(ctx, hints)
		}
		timer.Reset(w.pause(time.Now()))
	}
}

// due returns what is to be done now: a listing, for those who wait for the
// flight; or tasks to describe; or nothing.
func (w *watcher) due(now time.Time) (*flight, map[string]hint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ready := !now.Before(w.earliest)
	switch {
	case w.wanted != nil && ready, !now.Before(w.next):
		f := w.wanted
		if f == nil {
			f = &flight{done: make(chan struct{})}
		}
		w.wanted = nil
		return f, nil
	case len(w.hints) > 0 && ready:
		hints := w.hints
		w.hints = nil
		return nil, hints
	}
	return nil, nil
}

// pause returns how long there is nothing to do.
func (w *watcher) pause(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.next
	if (w.wanted != nil || len(w.hints) > 0) && w.earliest.Before(at) {
		at = w.earliest
	}
	return max(at.Sub(now), 0)
}

// want joins the next listing to begin.
func (w *watcher) want() *flight {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted == nil {
		w.wanted = &flight{done: make(chan struct{})}
		w.nudge()
	}
	return w.wanted
}

func (w *watcher) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// refresh lists the cluster and describes what is worth it.
func (w *watcher) refresh(ctx context.Context, f *flight) {
	began := time.Now()
	w.api.calls = 0
	f.err = w.look(ctx)
	if ctx.Err() == nil { // else nothing failed: this is the end
		w.settle(began, f.err)
	}
	close(f.done)
}

func (w *watcher) look(ctx context.Context) error {
	w.book.begin()
	seen := make(map[string]bool) // where pages began: a loop of them must end
	for from, n := "", 0; ; n++ {
		arns, next, err := w.api.list(ctx, w.cluster.Cluster, from)
		if err != nil {
			return err
		}
		if err := w.describe(ctx, w.book.page(arns, time.Now())); err != nil {
			return err
		}
		if next == "" {
			break
		}
		if seen[next] || n >= maxPages {
			return fmt.Errorf("the listing does not end: its pages repeat, or there are more than %d", maxPages)
		}
		seen[next], from = true, next
	}
	return w.describe(ctx, w.book.vanished(time.Now()))
}

// describe takes in what AWS says of the tasks.
func (w *watcher) describe(ctx context.Context, arns []string) error {
	for some := range slices.Chunk(arns, batch) {
		found, missing, err := w.api.describe(ctx, w.cluster.Cluster, some)
		if err != nil {
			return err
		}
		w.book.apply(found, missing, time.Now())
	}
	return nil
}

// settle notes how a listing ended, and says when the next may begin.
func (w *watcher) settle(began time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	// Listings on demand take at most half of the calls that are allowed.
	spent := time.Duration(2*w.api.calls*w.sharing) * time.Second / callRate
	w.earliest = began.Add(max(leastGap, spent))
	w.next = now.Add(jitter(w.poll))
	if err == nil {
		w.recoveredLocked(began)
		return
	}
	w.errors()
	w.failures++
	w.failure = explain(err, w.cluster)
	pause := jitter(min(maxBackoff, leastGap<<min(w.failures, 10)))
	w.earliest = now.Add(max(pause, w.earliest.Sub(now)))
	w.next = w.earliest
	if c := code(err); w.failures == 1 || c != w.code {
		w.code = c
		w.log.Warn().Err(w.failure).Bool("known_before", !w.good.IsZero()).
			Msg("an ECS cluster cannot be read: what is known of it stays in force")
	}
}

func (w *watcher) recoveredLocked(began time.Time) {
	first := w.good.IsZero()
	if first || w.failures > 0 {
		w.log.Info().Int("tasks", w.book.size()).Int("failures", w.failures).Msg("an ECS cluster is known")
	}
	w.good, w.failures, w.failure, w.code = began, 0, nil, ""
}

// jitter returns d, less or more a quarter, so that the proxies of a fleet do
// not ask together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1) //nolint:gosec // spreads load, protects nothing
}

// hint asks for a task to be described: an event says that it has changed.
func (w *watcher) hint(taskARN string, version int64) {
	if w.book.current(taskARN, version) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hintLocked(taskARN, hint{version: version})
}

func (w *watcher) hintLocked(taskARN string, h hint) {
	old, there := w.hints[taskARN]
	if !there && len(w.hints) >= maxHints {
		if w.earliest.Before(w.next) {
			w.next = w.earliest // a listing finds it, too
		}
		w.nudge()
		return
	}
	if w.hints == nil {
		w.hints = make(map[string]hint)
	}
	w.hints[taskARN] = hint{version: max(h.version, old.version), tries: h.tries}
	w.nudge()
}

// follow describes the tasks of events. Where AWS's answer is older than the
// event it is asked again, a little later.
func (w *watcher) follow(ctx context.Context, hints map[string]hint) {
	began := time.Now()
	w.api.calls = 0
	arns := make([]string, 0, len(hints))
	for a := range hints {
		arns = append(arns, a)
	}
	slices.Sort(arns)
	err := w.describe(ctx, arns)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	gap := leastGap / 4
	if err != nil {
		w.errors()
		gap = leastGap * 2 // the next listing says what is wrong
	}
	w.earliest = began.Add(max(gap, time.Duration(2*w.api.calls*w.sharing)*time.Second/callRate))
	for _, a := range arns {
		if h := hints[a]; h.tries+1 < hintTries && !w.book.current(a, h.version) {
			w.hintLocked(a, hint{version: h.version, tries: h.tries + 1})
		}
	}
}
