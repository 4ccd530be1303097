package main

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// lapseLook is how often it is looked whether a learning window has closed. The
// window closes by itself, to the moment; this is only to say so.
const lapseLook = 10 * time.Second

// lapses says when a learning window has closed, and what it let through that is
// denied from now on.
type lapses struct {
	live *policy.Live
	seen func(context.Context, time.Time) ([]policy.Seen, error) // since a moment; nil: nothing is remembered
	log  zerolog.Logger
	now  func() time.Time
}

// lapseTasks watch the learning windows.
func (d *daemon) lapseTasks() []task {
	l := &lapses{live: d.live, log: d.log, now: time.Now}
	if d.history != nil {
		l.seen = func(ctx context.Context, since time.Time) ([]policy.Seen, error) {
			e, err := seenIn(ctx, d.history, history.Filter{Since: since})
			return e.seen, err
		}
	}
	return []task{{"learning windows", l.run}}
}

// run looks until ctx ends.
func (l *lapses) run(ctx context.Context) error {
	ticker := time.NewTicker(lapseLook)
	defer ticker.Stop()
	for last := l.now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := l.now()
		for _, whose := range l.live.Current().Lapsed(last, now) {
			l.tell(ctx, whose)
		}
		last = now
	}
}

// mostTold bounds the sites that are named one by one.
const mostTold = 20

// tell says that a window has closed, and what it let through in its last week
// that is denied from now on.
func (l *lapses) tell(ctx context.Context, whose string) {
	event := l.log.Warn().Str("whose", whose)
	if l.seen == nil {
		event.Msg("the learning window has closed: it is enforced from now on")
		return
	}
	seen, err := l.seen(ctx, l.now().Add(-7*24*time.Hour))
	if err != nil {
		event.Err(err).Msg("the learning window has closed: it is enforced from now on; what it let through is not known")
		return
	}
	denied := policy.Replay(l.live.Current(), nil, seen).NewlyDenied
	attempts := int64(0)
	for _, c := range denied {
		attempts += c.Count
	}
	event.Int("sites", len(denied)).Int64("attempts", attempts).
		Msg("the learning window has closed: what it let through in the last week and no rule allows is denied from now on")
	for _, c := range denied[:min(len(denied), mostTold)] {
		l.log.Warn().Str("caller", c.Caller).Str("site", c.Site).Str("reason", string(c.After.Reason)).Int64("attempts", c.Count).
			Time("last", c.Last).Msg("denied from now on")
	}
}
