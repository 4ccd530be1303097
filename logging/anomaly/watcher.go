package anomaly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// Past is what was visited, as package history keeps it.
type Past interface {
	Sites(ctx context.Context, f history.Filter) ([]history.Site, error)
	Usage(ctx context.Context, f history.Filter, by history.UsageBy) ([]history.Usage, error)
}

// Flows are the attempts that are remembered one by one.
type Flows interface {
	Flows(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error]
}

// Findings is where anomalies are kept, and what people said of them.
type Findings interface {
	SaveAnomaly(ctx context.Context, a history.Anomaly) (kept history.Anomaly, isNew bool, err error)
	Anomalies(ctx context.Context, f history.AnomalyFilter) ([]history.Anomaly, error)
}

// Store is all that a [Watcher] asks of the history.
type Store interface {
	Past
	Flows
	Findings
}

// Config is what a [Watcher] needs to know. Its zero value is usable.
type Config struct {
	// Every is how often the history is looked at; 0 is [DefaultEvery].
	Every time.Duration
	// Learn is how long a caller is only learned from before its new sites are
	// told; 0 is [DefaultLearn].
	Learn time.Duration
	// Explicit reports whether a rule of the policy lists a host by itself, and not
	// by a wildcard. nil: none does.
	Explicit func(rule string, h policy.Host) bool
	// Tell is called from Run with each finding that is new, or that came back. It
	// must not wait, and may be nil.
	Tell func(flow.Anomaly)
	// Sites, Callers and Domains bound what is remembered of each; 0 stands for
	// 200,000, 2,000 and 20,000. One caller has at most a quarter of the sites
	// and of the domains.
	Sites, Callers, Domains int
	// Log is told when the history cannot be asked.
	Log zerolog.Logger
	// Clock is time.Now but in tests; nil is time.Now.
	Clock func() time.Time
}

// The defaults.
const (
	DefaultEvery = time.Minute
	DefaultLearn = 7 * 24 * time.Hour
)

// recent is how long before the start a site may have been found that is judged
// all the same: the proxy before this one may not have come to it.
const recent = 10 * time.Minute

// Stats are the figures of this process since its start.
type Stats struct {
	Looks     uint64
	Failures  uint64 // looks that the history did not answer, or not in full
	Unwatched uint64 // sites, callers and domains beyond a bound
	Sites     int    // remembered
	Callers   int
	LastLook  time.Time // that was answered in full
}

// Watcher watches the history. Make it with [New], then Run it.
type Watcher struct {
	cfg     Config
	store   Store
	spent   chan flow.Anomaly
	dropped atomic.Uint64

	mu    sync.Mutex // guards stats
	stats Stats

	seed maphash.Seed // of hashes, which are never stored

	// What follows belongs to Run.
	sites   map[visit]time.Time // when each was visited first
	callers map[string]*caller
	crowds  map[string]*crowd // by host: who visits it
	buckets map[visit]*bucket
	told    map[identity]time.Time // when each was saved last
	last    time.Time              // the look before, zero for none
	beacons time.Time              // when they were looked for last
}

// identity is what makes a finding one.
type identity struct {
	kind            flow.AnomalyKind
	caller, subject string
}

// New returns a Watcher of the store.
func New(c Config, store Store) *Watcher {
	c.Every, c.Learn = cmp.Or(c.Every, DefaultEvery), cmp.Or(c.Learn, DefaultLearn)
	c.Sites, c.Callers, c.Domains = cmp.Or(c.Sites, 200_000), cmp.Or(c.Callers, 2_000), cmp.Or(c.Domains, 20_000)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Explicit == nil {
		c.Explicit = func(string, policy.Host) bool { return false }
	}
	if c.Tell == nil {
		c.Tell = func(flow.Anomaly) {}
	}
	return &Watcher{
		cfg: c, store: store, seed: maphash.MakeSeed(), spent: make(chan flow.Anomaly, 64),
		sites: map[visit]time.Time{}, callers: map[string]*caller{}, crowds: map[string]*crowd{},
		buckets: map[visit]*bucket{}, told: map[identity]time.Time{},
	}
}

// Stats returns the figures.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Failures += w.dropped.Load()
	return s
}

// Run looks at the history until ctx ends. Call it once.
func (w *Watcher) Run(ctx context.Context) error {
	ticker := time.NewTicker(w.cfg.Every)
	defer ticker.Stop()
	away := false
	for {
		err := w.Look(ctx)
		switch failed := err != nil; {
		case ctx.Err() != nil:
			return nil
		case failed && !away:
			w.cfg.Log.Warn().Err(err).Msg("the history cannot be watched for anomalies")
			away = true
		case !failed && away:
			w.cfg.Log.Info().Msg("the history is watched for anomalies again")
			away = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case a := <-w.spent:
			if err := w.raise(ctx, a, history.Site{}); err != nil {
				w.cfg.Log.Warn().Err(err).Msg("a spent budget is not kept as an anomaly")
			}
		}
	}
}

// Look looks at the history once: Run does so by itself.
func (w *Watcher) Look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(w.cfg.Every, 30*time.Second))
	defer cancel()
	now := w.cfg.Clock()
	err := w.look(ctx, now)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Looks++
	w.stats.Sites, w.stats.Callers = len(w.sites), len(w.callers)
	if err != nil {
		w.stats.Failures++
		return err
	}
	w.stats.LastLook = now
	return nil
}

func (w *Watcher) look(ctx context.Context, now time.Time) error {
	if w.last.IsZero() {
		if err := w.remember(ctx, now); err != nil {
			return err
		}
	}
	// A site is written within seconds of its visit, later when the store was
	// away: looks overlap, and what was seen already is known.
	sites, err := w.store.Sites(ctx, history.Filter{Since: w.last.Add(-recent)})
	if err != nil {
		return fmt.Errorf("what was visited since %s: %w", w.last.Format(time.RFC3339), err)
	}
	for i := range sites {
		w.meet(&sites[i], now)
	}
	if now.Sub(w.last) > time.Hour { // the store was away, or this process asleep
		if err := w.catchUp(ctx, now); err != nil {
			return err
		}
	}
	err = errors.Join(w.contacts(ctx, sites, now), w.volumes(ctx, now), w.writes(ctx, sites, now), w.clockwork(ctx, now))
	w.forget(now)
	w.last = now
	return err
}

// remember learns all that the history knows, but for what is so new that the
// first look judges it.
func (w *Watcher) remember(ctx context.Context, now time.Time) error {
	sites, err := w.store.Sites(ctx, history.Filter{})
	if err != nil {
		return fmt.Errorf("what was ever visited: %w", err)
	}
	slices.SortFunc(sites, func(a, b history.Site) int { return a.First.Compare(b.First) })
	for i := range sites {
		if s := &sites[i]; s.First.Before(now.Add(-recent)) {
			w.meet(s, now)
			w.know(s)
			w.learnBucket(s)
		}
	}
	w.last = now
	return w.recall(ctx, now)
}

// catchUp reads again what is added up look by look.
func (w *Watcher) catchUp(ctx context.Context, now time.Time) error {
	for _, c := range w.callers {
		c.sent, c.denied = nil, nil
	}
	return w.recall(ctx, now)
}

// recall learns on which days callers were there.
func (w *Watcher) recall(ctx context.Context, now time.Time) error {
	days, err := w.store.Usage(ctx, history.Filter{Since: now.Add(-w.cfg.Learn - 48*time.Hour)}, history.UsageBy{Caller: true, Daily: true})
	if err != nil {
		return fmt.Errorf("on which days callers were there: %w", err)
	}
	for _, u := range days {
		if c := w.callers[u.Key.Caller]; c != nil && u.Visits > 0 {
			c.active(u.Start)
		}
	}
	return nil
}

// Spent notes that a budget of the policy is spent. It never waits.
func (w *Watcher) Spent(a flow.Anomaly) {
	select {
	case w.spent <- a:
	default:
		w.dropped.Add(1)
	}
}

// unwatched counts something beyond a bound.
func (w *Watcher) unwatched() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Unwatched++
}

// forget drops what is of no use any more.
func (w *Watcher) forget(now time.Time) {
	maps.DeleteFunc(w.told, func(_ identity, at time.Time) bool { return now.Sub(at) > quiet })
	for _, c := range w.callers {
		c.forget(now)
	}
}
