package anomaly

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/logging/history"
)

// Outbox keeps which messages were delivered.
type Outbox interface {
	Anomalies(ctx context.Context, f history.AnomalyFilter) ([]history.Anomaly, error)
	SaveBaseline(ctx context.Context, key string, data []byte) error
	Baselines(ctx context.Context, prefix string) (map[string][]byte, error)
}

// sent begins the keys of what was delivered, or given up.
const sent = "webhook/"

// A message is left to another proxy, or to the process after this one, when
// nobody has settled it for so long, and forgotten after so long.
const (
	orphaned  = 10 * time.Minute
	forgotten = 48 * time.Hour
)

// settled notes that a message needs no more tries.
func (w *Webhook) settled(ctx context.Context, id string) {
	if w.hook.Outbox == nil {
		return
	}
	at, err := w.hook.Clock().UTC().MarshalText()
	if err == nil {
		err = w.hook.Outbox.SaveBaseline(ctx, sent+id, at)
	}
	if err != nil && ctx.Err() == nil {
		w.hook.Log.Warn().Err(err).Str("message", id).Msg("that an anomaly was posted is not kept: it may be posted again")
	}
}

// resume queues the findings of late that nobody has posted, of a process that
// ended before it could. A receiver may get one twice, with the same id. A
// finding that came back has another id than it had when it was new: of these
// only the first is certain to be posted.
func (w *Webhook) resume(ctx context.Context) {
	if w.hook.Outbox == nil {
		return
	}
	now := w.hook.Clock()
	found, err := w.hook.Outbox.Anomalies(ctx, history.AnomalyFilter{Since: now.Add(-forgotten)})
	marks, marksErr := w.hook.Outbox.Baselines(ctx, sent)
	if err := errors.Join(err, marksErr); err != nil {
		w.hook.Log.Warn().Err(err).Msg("what was not posted before the start is not known")
		return
	}
	for key, text := range marks {
		var at time.Time
		if at.UnmarshalText(text) == nil && now.Sub(at) > forgotten {
			_ = w.hook.Outbox.SaveBaseline(ctx, key, nil) // if it fails, the next start finds it again
		}
	}
	for i := range found {
		kept := &found[i]
		a, err := Of(kept)
		a.Count = 1 // as it was when it was new
		_, done := marks[sent+messageID(&a)]
		if err != nil || done || kept.Benign || !kept.Acknowledged.IsZero() || now.Sub(kept.First) < orphaned || now.Sub(kept.First) > forgotten {
			continue
		}
		w.Tell(a)
	}
}
