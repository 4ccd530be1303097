package history

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sites returns the sites that f selects, by caller, host and port. Figures are
// those between Since and Until, rounded outwards to whole hours, or to whole
// days (UTC) where the hours are gone; without both they are those of all time.
// First and Last are always of all time. Cursor means nothing here.
func (s *Store) Sites(ctx context.Context, f Filter) ([]Site, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	rows, err := db.sites(ctx, &f)
	if err != nil {
		return nil, err
	}
	if !f.Since.IsZero() || !f.Until.IsZero() {
		if err := db.figures(ctx, &f, s.hoursFrom(), rows); err != nil {
			return nil, err
		}
	}
	if f.MinBytes > 0 {
		maps.DeleteFunc(rows, func(_ string, r *siteRow) bool { return r.BytesSent+r.BytesReceived < f.MinBytes })
	}
	sorted := slices.SortedFunc(maps.Values(rows), compareSites)
	if f.Limit > 0 && len(sorted) > f.Limit {
		sorted = sorted[:f.Limit]
		rows = nil
	}
	if err := db.traits(ctx, sorted, rows); err != nil {
		return nil, err
	}
	return db.withTasks(ctx, sorted)
}

func compareSites(a, b *siteRow) int {
	return cmp.Or(
		cmp.Compare(a.Caller.Name(), b.Caller.Name()), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.ID, b.ID),
	)
}

// hoursFrom returns since when there are roll-ups by hour.
func (s *Store) hoursFrom() time.Time { return s.cfg.Clock().Add(-s.cfg.Retention.Hourly) }

// stretch is a time that is answered from one table.
type stretch struct {
	table    string
	from, to int64 // microseconds, to excluded
}

// stretches covers a time with hours at its edges and days between them.
// Before oldest there are days only.
func stretches(since, until, oldest time.Time) []stretch {
	const h, d = time.Hour, 24 * time.Hour
	from := since.UTC().Truncate(h)
	if since.IsZero() || from.Before(oldest) {
		from = since.UTC().Truncate(d)
	}
	to := until.UTC().Truncate(h)
	if to.Before(until) {
		to = to.Add(h)
	}
	if since.IsZero() {
		from = time.UnixMicro(-1 << 60)
	}
	if until.IsZero() {
		to = time.UnixMicro(1 << 60)
	}
	firstDay, lastDay := from, to // whole days
	if !since.IsZero() && !from.Equal(from.Truncate(d)) {
		firstDay = from.Truncate(d).Add(d)
	}
	if !until.IsZero() {
		lastDay = to.Truncate(d)
		if !to.Equal(lastDay) && to.Before(oldest) {
			lastDay = lastDay.Add(d)
			to = lastDay
		}
	}
	if !firstDay.Before(lastDay) {
		return []stretch{{"hour", from.UnixMicro(), to.UnixMicro()}}
	}
	return []stretch{
		{"hour", from.UnixMicro(), firstDay.UnixMicro()},
		{"day", firstDay.UnixMicro(), lastDay.UnixMicro()},
		{"hour", lastDay.UnixMicro(), to.UnixMicro()},
	}
}

// figures replaces the figures of all time by those of the filter's, and
// leaves out the sites that nobody visited then.
func (d *database) figures(ctx context.Context, f *Filter, oldest time.Time, sites map[string]*siteRow) error {
	sums := make(map[string]Figures, len(sites))
	for _, st := range stretches(f.Since, f.Until, oldest) {
		if st.from >= st.to {
			continue
		}
		var w where
		w.add("start >= ? AND start < ?", st.from, st.to)
		rows, err := d.read.QueryContext(ctx,
			w.after("SELECT site, sum(visits), sum(failed), sum(sent), sum(received) FROM "+st.table, "GROUP BY site"), w.args...)
		if err != nil {
			return fmt.Errorf("read figures: %w", err)
		}
		if err := scanFigures(rows, sums); err != nil {
			return err
		}
	}
	maps.DeleteFunc(sites, func(id string, s *siteRow) bool {
		sum, there := sums[id]
		s.Figures = sum
		return !there
	})
	return nil
}

func scanFigures(rows *sql.Rows, sums map[string]Figures) error {
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var site string
		var f Figures
		if err := rows.Scan(&site, &f.Visits, &f.Failed, &f.BytesSent, &f.BytesReceived); err != nil {
			return fmt.Errorf("read figures: %w", err)
		}
		f.add(sums[site])
		sums[site] = f
	}
	return rows.Err() //nolint:wrapcheck // it says what failed
}

// traits adds the revisions and the number of tasks. all are the sites by ID,
// nil when they are not but those of sites.
func (d *database) traits(ctx context.Context, sites []*siteRow, all map[string]*siteRow) error {
	if len(sites) == 0 {
		return nil
	}
	var w where
	if all == nil || len(sites) <= 200 {
		all = make(map[string]*siteRow, len(sites))
		var ids []string
		for _, s := range sites {
			all[s.ID] = s
			ids = append(ids, s.ID)
		}
		if len(ids) <= 200 {
			w.in("site", ids)
		}
	}
	rows, err := d.read.QueryContext(ctx, w.after("SELECT site, kind, value FROM trait"), w.args...)
	if err != nil {
		return fmt.Errorf("read traits: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var site, kind, value string
		if err := rows.Scan(&site, &kind, &value); err != nil {
			return fmt.Errorf("read traits: %w", err)
		}
		s := all[site]
		switch {
		case s == nil:
		case kind == traitTask:
			s.Tasks++
		default:
			s.Revisions = append(s.Revisions, revisionOf(value))
		}
	}
	for _, s := range sites {
		s.Tasks = min(s.Tasks, MaxTasks)
		slices.SortFunc(s.Revisions, compareRevisions)
	}
	return rows.Err() //nolint:wrapcheck // it says what failed
}

func compareRevisions(a, b Revision) int {
	return cmp.Or(strings.Compare(a.Family, b.Family), cmp.Compare(a.Revision, b.Revision))
}

func revisionOf(value string) Revision {
	family, n, _ := strings.Cut(value, ":")
	number, _ := strconv.Atoi(n) // as it was written
	return Revision{family, number}
}

// String returns FAMILY:REVISION.
func (r Revision) String() string { return r.Family + ":" + strconv.Itoa(r.Revision) }

// withTasks adds the tasks of the examples.
func (d *database) withTasks(ctx context.Context, sites []*siteRow) ([]Site, error) {
	ids := map[string]bool{}
	for _, s := range sites {
		if s.task != "" {
			ids[s.task] = true
		}
	}
	tasks, err := d.tasks(ctx, slices.Sorted(maps.Keys(ids)))
	if err != nil {
		return nil, err
	}
	out := make([]Site, 0, len(sites))
	for _, s := range sites {
		s.Example.Task = tasks[s.task]
		out = append(out, s.Site)
	}
	return out, nil
}
