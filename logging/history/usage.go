package history

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Usage is what was done in an hour, or in a day, at all sites of a key.
type Usage struct {
	Start time.Time
	Key   UsageKey
	Figures
}

// UsageKey is what figures are added up by: fields that the question does not
// ask for are "".
type UsageKey struct {
	Caller string // [Caller.Name]
	Source string
	Rule   string
	Site   string
}

// UsageBy says what figures are added up by.
type UsageBy struct {
	Caller, Source, Rule, Site bool
	Daily                      bool // days instead of hours (UTC)
}

// key returns the key of a site.
func (by UsageBy) key(s *siteRow) UsageKey {
	var k UsageKey
	if by.Caller {
		k.Caller = s.Caller.Name()
	}
	if by.Source {
		k.Source = s.Source
	}
	if by.Rule {
		k.Rule = s.Rule
	}
	if by.Site {
		k.Site = s.ID
	}
	return k
}

// Usage returns the figures of the sites that f selects, of the hours or days
// that begin from Since until Until, by time and key. Hours are kept for
// [Retention].Hourly. What no proxy has written yet (a second's, while all is
// well) is not in it.
func (s *Store) Usage(ctx context.Context, f Filter, by UsageBy) ([]Usage, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	sites, err := db.sites(ctx, &f)
	if err != nil {
		return nil, err
	}
	table := "hour"
	if by.Daily {
		table = "day"
	}
	var w where
	if !f.Since.IsZero() {
		w.add("start >= ?", f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		w.add("start < ?", f.Until.UnixMicro())
	}
	rows, err := db.read.QueryContext(ctx, w.after("SELECT site, start, visits, failed, sent, received FROM "+table), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	type at struct {
		start int64
		key   UsageKey
	}
	sums := map[at]Figures{}
	for rows.Next() {
		var id string
		var start int64
		var fig Figures
		if err := rows.Scan(&id, &start, &fig.Visits, &fig.Failed, &fig.BytesSent, &fig.BytesReceived); err != nil {
			return nil, fmt.Errorf("read usage: %w", err)
		}
		if site := sites[id]; site != nil {
			k := at{start, by.key(site)}
			fig.add(sums[k])
			sums[k] = fig
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	keys := slices.SortedFunc(maps.Keys(sums), func(a, b at) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.key.Caller, b.key.Caller), cmp.Compare(a.key.Source, b.key.Source),
			cmp.Compare(a.key.Rule, b.key.Rule), cmp.Compare(a.key.Site, b.key.Site))
	})
	out := make([]Usage, 0, len(keys))
	for _, k := range keys {
		out = append(out, Usage{Start: timeOf(k.start), Key: k.key, Figures: sums[k]})
	}
	return out, nil
}
