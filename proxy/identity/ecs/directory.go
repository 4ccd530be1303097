package ecs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sallyport/sallyport/policy"
)

// Directory knows the tasks of several clusters by their addresses. It is safe
// for concurrent use. [New] makes one, [Directory.Run] keeps it fresh.
type Directory struct {
	patience time.Duration
	reg      *registry
	watchers []*watcher
	at       map[string][]*watcher // by VPC endpoint
	events   *events               // nil without a queue
	unknown  absences
	stats    counters
	began    time.Time
}

// New makes a Directory that asks with sdk, which must go to AWS directly. It
// asks nobody anything yet.
func New(cfg Config, sdk aws.Config) (*Directory, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Directory{patience: defaultPatience, reg: newRegistry(), at: make(map[string][]*watcher), began: time.Now()}
	if cfg.Patience > 0 {
		d.patience = cfg.Patience
	}
	pacers := make(map[string]*pacer)
	sharing := make(map[*pacer]int)
	for i, cl := range cfg.Clusters {
		w, err := d.newWatcher(cfg, cl, sdk, pacers)
		if err != nil {
			return nil, fmt.Errorf("clusters[%d]: %w", i, err)
		}
		sharing[w.api.pacer]++
		d.watchers = append(d.watchers, w)
		for _, e := range cl.endpoints() {
			d.at[e] = append(d.at[e], w)
		}
	}
	for _, w := range d.watchers {
		w.sharing = sharing[w.api.pacer]
	}
	if cfg.EventsQueue != "" {
		var err error
		if d.events, err = newEvents(cfg, d, sdk); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Directory) newWatcher(cfg Config, cl Cluster, sdk aws.Config, pacers map[string]*pacer) (*watcher, error) {
	w := &watcher{
		cluster: cl, region: cl.region(), poll: defaultPoll, book: d.reg.newBook(cl.account(), cl.endpoints()),
		errors: func() { d.stats.errors.Add(1) }, wake: make(chan struct{}, 1),
	}
	if w.region == "" {
		w.region = sdk.Region
	}
	if w.region == "" {
		return nil, fmt.Errorf("region: no AWS Region is known for %q: name the cluster by its ARN, give it a region, or set AWS_REGION", cl.Cluster)
	}
	if cfg.Poll > 0 {
		w.poll = cfg.Poll
	}
	w.log = cfg.Logger.With().Str("cluster", cl.name()).Str("region", w.region).Logger()
	bucket := w.region + " " + cl.RoleARN // AWS counts by account and Region
	if pacers[bucket] == nil {
		pacers[bucket] = newPacer()
	}
	w.api = newAPI(sdk, w.region, cl.RoleARN, pacers[bucket])
	return w, nil
}

// Run keeps the map fresh until ctx ends, and returns nil then.
func (d *Directory) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, w := range d.watchers {
		running.Go(func() { w.run(ctx) })
	}
	if d.events != nil {
		running.Go(func() { d.events.run(ctx) })
	}
	running.Wait()
	return nil
}

// Identify returns source with the task that its address belongs to. Who is
// not known is asked about, for as long as the Directory's patience and ctx
// last, and is Unidentified if nobody knows then.
func (d *Directory) Identify(ctx context.Context, source policy.Source) policy.Source {
	k := key{source.Addr.Unmap(), source.VPCEndpoint}
	source.Task = d.reg.table.get(k)
	if source.Task != nil {
		d.stats.hit.Add(1)
	} else {
		source.Task = d.ask(ctx, k)
	}
	source.Unidentified = source.Task == nil
	return source
}

// ask has AWS asked about somebody unknown, unless that was just done.
func (d *Directory) ask(ctx context.Context, k key) *policy.Task {
	watchers := d.at[k.endpoint]
	if len(watchers) == 0 || d.unknown.has(k, time.Now()) {
		d.stats.absent.Add(1)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	flights := make([]*flight, 0, len(watchers))
	for _, w := range watchers {
		flights = append(flights, w.want()) // all of them now: one may be slow
	}
	remember := absence
	for _, f := range flights {
		task, landed := d.await(ctx, k, f)
		switch {
		case task != nil:
			d.stats.found.Add(1)
			return task
		case !landed:
			d.stats.unanswered.Add(1)
			return nil
		case f.err != nil:
			remember = leastGap // nobody was asked: that soon changes
		}
	}
	d.unknown.add(k, time.Now(), remember)
	if remember == leastGap {
		d.stats.unanswered.Add(1)
	} else {
		d.stats.unknown.Add(1)
	}
	return nil
}

// await returns who is behind k as soon as that is known, or whether the
// flight has landed.
func (d *Directory) await(ctx context.Context, k key, f *flight) (*policy.Task, bool) {
	for {
		change := d.reg.change() // first, so that no change is missed
		if task := d.reg.table.get(k); task != nil {
			return task, true
		}
		select {
		case <-change:
		case <-f.done:
			return d.reg.table.get(k), true
		case <-ctx.Done():
			return nil, false
		}
	}
}

const (
	// absence is how long somebody who was not found is not asked about.
	absence = 5 * time.Second
	// maxAbsences bounds how many are remembered so. Beyond it the others are
	// asked about together, which costs no more calls.
	maxAbsences = 10_000
)

// absences remembers who was asked about and is unknown.
type absences struct {
	mu    sync.Mutex // protects what follows
	until map[key]time.Time
	swept time.Time
}

func (a *absences) has(k key, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, there := a.until[k]
	return there && now.Before(until)
}

func (a *absences) add(k key, now time.Time, lasting time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.until) >= maxAbsences/2 && now.Sub(a.swept) >= time.Second {
		a.swept = now
		for k, until := range a.until {
			if !now.Before(until) {
				delete(a.until, k)
			}
		}
	}
	if a.until == nil {
		a.until = make(map[key]time.Time)
	}
	if len(a.until) < maxAbsences {
		a.until[k] = now.Add(lasting)
	}
}
