package anomaly

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// loads is how many callers' past is read in one look.
const loads = 50

// measure is a figure that has a norm.
type measure struct {
	kind  flow.AnomalyKind
	unit  string
	floor float64 // what is below is never told
	grain float64 // what makes no difference
	of    func(*history.Figures) float64
	deny  bool // of denied visits alone
	pick  func(*caller) **series
}

func measures() []measure {
	return []measure{
		{
			kind: flow.AnomalyBytesOut, unit: "bytes", floor: 64 << 20, grain: 4 << 20,
			of:   func(f *history.Figures) float64 { return float64(f.BytesSent) },
			pick: func(c *caller) **series { return &c.sent },
		},
		{
			kind: flow.AnomalyDenials, unit: "denials", floor: 30, grain: 3, deny: true,
			of:   func(f *history.Figures) float64 { return float64(f.Visits) },
			pick: func(c *caller) **series { return &c.denied },
		},
	}
}

func (m *measure) filter(since time.Time) history.Filter {
	f := history.Filter{Since: since}
	if m.deny {
		deny := policy.Deny
		f.Verdict = &deny
	}
	return f
}

// volumes holds the hour at hand, and the one before it, against the norm.
func (w *Watcher) volumes(ctx context.Context, now time.Time) error {
	var errs []error
	this := hour(now)
	since := time.Unix((this-1)*3600, 0)
	for _, m := range measures() {
		usage, err := w.store.Usage(ctx, m.filter(since), history.UsageBy{Caller: true})
		if err != nil {
			return fmt.Errorf("what was done in the last hour: %w", err)
		}
		loaded := 0
		for i := range usage {
			u := &usage[i]
			c := w.callers[u.Key.Caller]
			if c == nil {
				continue
			}
			s := *m.pick(c)
			if s == nil {
				if loaded++; loaded > loads {
					continue // the next look goes on
				}
				if s, err = w.load(ctx, c, &m, now); err != nil {
					return err
				}
				*m.pick(c) = s
			}
			h, v := hour(u.Start), m.of(&u.Figures)
			s.set(h, v)
			if a, ok := m.judge(c, s, h, v); ok && (m.deny || c.mature(w.cfg.Learn, now)) {
				a.First, a.Last = u.Start, now
				errs = append(errs, w.raise(ctx, a, history.Site{}))
			}
		}
	}
	return errors.Join(errs...)
}

// load reads a caller's past.
func (w *Watcher) load(ctx context.Context, c *caller, m *measure, now time.Time) (*series, error) {
	s := &series{since: hour(c.first)}
	f := m.filter(now.Add(-kept * time.Hour))
	f.Service = c.name
	usage, err := w.store.Usage(ctx, f, history.UsageBy{Caller: true})
	if err != nil {
		return nil, fmt.Errorf("the past of %s: %w", c.name, err)
	}
	for i := range usage {
		if u := &usage[i]; u.Key.Caller == c.name {
			s.set(hour(u.Start), m.of(&u.Figures))
		}
	}
	return s, nil
}

// judge holds the value of an hour against the norm.
func (m *measure) judge(c *caller, s *series, h int64, v float64) (flow.Anomaly, bool) {
	if v < m.floor {
		return flow.Anomaly{}, false
	}
	n, ok := s.norm(h, m.grain)
	if !ok {
		return flow.Anomaly{}, false
	}
	limit := n.limit(m.floor, m.grain)
	if v <= limit {
		return flow.Anomaly{}, false
	}
	severity := flow.Medium
	switch {
	case v <= 1.25*n.most: // it has done as much, at another time
		severity = flow.Low
	case v >= 8*limit:
		severity = flow.High
	}
	e := flow.Evidence{
		Value: v, Norm: math.Round(n.median), Limit: math.Round(limit), Unit: m.unit, Basis: n.basis, Samples: n.n,
		Text: fmt.Sprintf("%s: %s out in the hour, %s is usual and %s the limit", c.name, amount(v, m.unit), amount(n.median, m.unit), amount(limit, m.unit)),
	}
	if m.deny {
		e.Text = fmt.Sprintf("%s: %.0f attempts denied in the hour, %.0f are usual and %.0f the limit", c.name, v, n.median, limit)
	}
	return flow.Anomaly{Kind: m.kind, Caller: c.name, Severity: severity, Evidence: e}, true
}

// amount writes a number of bytes as people say it.
func amount(v float64, unit string) string {
	if unit != "bytes" {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	for _, u := range []struct {
		name string
		size float64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if v >= u.size {
			return fmt.Sprintf("%.1f %s", v/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.0f bytes", v)
}
