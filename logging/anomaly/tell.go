package anomaly

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
)

// quiet is how long a finding must not have been found for it to be told when
// it comes back.
const quiet = 24 * time.Hour

// again is how often a finding that lasts is saved.
const again = time.Hour

// examples is how many flows a finding names.
const examples = 3

// raise keeps a finding and tells of it, if nobody else does. The site, whose ID
// may be "", is what it was found at.
func (w *Watcher) raise(ctx context.Context, a flow.Anomaly, s history.Site) error {
	id := identity{a.Kind, a.Caller, a.Subject}
	if at, told := w.told[id]; told && w.cfg.Clock().Sub(at) < again {
		return nil
	}
	before, err := w.before(ctx, id)
	if err != nil {
		return err
	}
	if a.Evidence.Flows == nil && s.ID != "" {
		a.Evidence.Flows = w.flowsOf(ctx, &s)
	}
	evidence, err := json.Marshal(a.Evidence)
	if err != nil {
		return fmt.Errorf("word the evidence of %s: %w", a.Kind, err)
	}
	kept, isNew, err := w.store.SaveAnomaly(ctx, history.Anomaly{
		Kind: string(a.Kind), Caller: a.Caller, Subject: a.Subject, Site: s.ID, Severity: int(a.Severity),
		Evidence: evidence, First: a.First, Last: a.Last, Count: 1,
	})
	if err != nil {
		return fmt.Errorf("keep an anomaly: %w", err)
	}
	w.told[id] = w.cfg.Clock()
	if kept.Benign || !isNew && !returned(before, &kept) {
		return nil
	}
	a.ID, a.First, a.Last, a.Count = kept.ID, kept.First, kept.Last, kept.Count
	w.cfg.Tell(a)
	return nil
}

// before returns what was kept of a finding until now, nil for nothing.
func (w *Watcher) before(ctx context.Context, id identity) (*history.Anomaly, error) {
	all, err := w.store.Anomalies(ctx, history.AnomalyFilter{Kind: string(id.kind), Caller: id.caller})
	if err != nil {
		return nil, fmt.Errorf("what was found before: %w", err)
	}
	for i := range all {
		if all[i].Subject == id.subject {
			return &all[i], nil
		}
	}
	return nil, nil //nolint:nilnil // documented
}

// returned reports whether a finding is back after a quiet time, and this
// proxy the first to have found it: whoever comes second counts higher.
func returned(before, kept *history.Anomaly) bool {
	return before != nil && kept.Count == before.Count+1 && kept.Last.Sub(before.Last) >= quiet
}

// flowsOf returns the IDs of a few flows at a site. They are a help, no more:
// without them the finding is the same.
func (w *Watcher) flowsOf(ctx context.Context, s *history.Site) []string {
	var ids []string
	name := s.Name()
	for f, err := range w.store.Flows(ctx, history.Filter{Service: name, Host: s.Host, Limit: 4 * examples}) {
		if err != nil {
			break
		}
		if f.Name() != name || f.Host != s.Host {
			continue
		}
		if ids = append(ids, f.ID); len(ids) == examples {
			break
		}
	}
	return ids
}

// Of returns the anomaly that the store keeps, as it is told.
func Of(kept *history.Anomaly) (flow.Anomaly, error) {
	a := flow.Anomaly{
		ID: kept.ID, Kind: flow.AnomalyKind(kept.Kind), Caller: kept.Caller, Subject: kept.Subject,
		Severity: flow.Severity(kept.Severity), First: kept.First, Last: kept.Last, Count: kept.Count,
	}
	if err := json.Unmarshal(kept.Evidence, &a.Evidence); err != nil {
		return a, fmt.Errorf("the evidence of the anomaly %s: %w", kept.ID, err)
	}
	return a, nil
}
