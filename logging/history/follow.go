package history

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// followEvery is how often new flows are asked for, followBack how far back: a
// proxy writes its flows a second after they began, or later.
const (
	followEvery = 500 * time.Millisecond
	followBack  = time.Minute
)

// Follow yields the flows that f selects from now on, of all proxies of the
// store, in the order they come to it: each when it is first seen, and again
// when it has ended, if that is within a minute of its beginning. It ends when
// ctx does, or with an error.
func (s *Store) Follow(ctx context.Context, f Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		started := s.cfg.Clock()
		seen := map[string]bool{} // flows, and whether they had ended
		ticker := time.NewTicker(followEvery)
		defer ticker.Stop()
		for {
			now := s.cfg.Clock()
			f.Since, f.Until, f.Limit, f.Cursor = later(started, now.Add(-followBack)), time.Time{}, 0, ""
			var fresh []Flow
			for fl, err := range s.Flows(ctx, f) {
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					yield(Flow{}, err)
					return
				}
				if ended, known := seen[fl.ID]; !known || !ended && !fl.End.IsZero() {
					fresh = append(fresh, fl)
				}
			}
			for _, fl := range slices.Backward(fresh) {
				seen[fl.ID] = !fl.End.IsZero()
				if !yield(fl, nil) {
					return
				}
			}
			oldest := flow.IDAt(now.Add(-2 * followBack))
			for id := range seen {
				if id < oldest {
					delete(seen, id)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
