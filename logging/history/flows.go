package history

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

const flowColumns = `id, site, instance, task, start_at, end_at, host, client, peer, original, mode, policy_version,
	outcome, ended_by, sent, received, detail`

// page is how many flows are read at once.
const page = 500

// Flows yields the flows that f selects, newest first. Nothing is held open in
// the store between two pages of them. It ends after an error.
func (s *Store) Flows(ctx context.Context, f Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		db, err := s.reader()
		if err == nil {
			err = db.flows(ctx, f, func(fl Flow) bool { return yield(fl, nil) })
		}
		if err != nil {
			yield(Flow{}, err)
		}
	}
}

// Flow returns one flow; [ErrNotFound] when it is not there.
func (s *Store) Flow(ctx context.Context, id string) (Flow, error) {
	db, err := s.reader()
	if err != nil {
		return Flow{}, err
	}
	rows, err := db.flowRows(ctx, where{all: []string{"id = $1"}, args: []any{id}}, 1)
	if err != nil {
		return Flow{}, err
	}
	if len(rows) == 0 {
		return Flow{}, fmt.Errorf("flow %q: %w", id, ErrNotFound)
	}
	sites, err := db.sitesOf(ctx, rows)
	if err != nil {
		return Flow{}, err
	}
	all, err := db.join(ctx, rows, sites)
	if err != nil {
		return Flow{}, err
	}
	return all[0], nil
}

// flowRow is a flow as it is stored.
type flowRow struct {
	Flow
	host, task string
}

// flows yields flows, page by page.
func (d *database) flows(ctx context.Context, f Filter, yield func(Flow) bool) error {
	sites, err := d.sites(ctx, f.ofSites())
	if err != nil || len(sites) == 0 {
		return err
	}
	s := &flowSearch{database: d, f: &f, sites: sites, before: f.Cursor}
	if s.host, err = glob(f.Host); err != nil {
		return err
	}
	if err := s.plan(ctx); err != nil {
		return err
	}
	for left := cmp.Or(f.Limit, -1); left != 0; {
		rows, more, err := s.next(ctx)
		if err != nil {
			return err
		}
		flows, err := d.join(ctx, rows, sites)
		if err != nil {
			return err
		}
		for _, fl := range flows {
			if !yield(fl) {
				return nil
			}
			if left--; left == 0 {
				return nil
			}
		}
		if !more {
			return nil
		}
	}
	return nil
}

// ofSites returns the filter with what only flows can tell left out. A flow's
// site was visited from its start on.
func (f *Filter) ofSites() *Filter {
	g := *f
	g.MinBytes, g.Limit = 0, 0
	if !g.Since.IsZero() {
		g.Since = g.Since.Add(-time.Hour)
	}
	if !g.Until.IsZero() {
		g.Until = g.Until.Add(time.Hour)
	}
	return &g
}

// flowRows reads flows, newest first.
func (d *database) flowRows(ctx context.Context, w where, limit int) ([]*flowRow, error) {
	rows, err := d.read.QueryContext(ctx, w.after("SELECT "+flowColumns+" FROM flow", "ORDER BY id DESC LIMIT "+strconv.Itoa(limit)), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var all []*flowRow
	for rows.Next() {
		r, err := scanFlow(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err() //nolint:wrapcheck // it says what failed
}

func scanFlow(rows *sql.Rows) (*flowRow, error) {
	var (
		r                                        flowRow
		start, end, mode                         int64
		client, peer, original, outcome, by, txt string
	)
	err := rows.Scan(&r.ID, &r.Site, &r.Instance, &r.task, &start, &end, &r.host, &client, &peer, &original, &mode, &r.PolicyVersion,
		&outcome, &by, &r.BytesSent, &r.BytesReceived, &txt)
	if err != nil {
		return nil, fmt.Errorf("read a flow: %w", err)
	}
	r.Start, r.End = timeOf(start), timeOf(end)
	r.Client, _ = netip.ParseAddrPort(client) // "" is none, as below
	r.Peer, _ = netip.ParseAddrPort(peer)
	r.Original, _ = netip.ParseAddrPort(original)
	r.Mode, r.Outcome, r.EndedBy = policy.Mode(mode), flow.Outcome(outcome), flow.EndedBy(by)
	if txt != "" {
		r.Detail = json.RawMessage(txt)
	}
	return &r, nil
}

// join adds what the site and the task tell of flows. A flow whose site is gone
// is left out.
func (d *database) join(ctx context.Context, rows []*flowRow, sites map[string]*siteRow) ([]Flow, error) {
	ids := map[string]bool{}
	for _, r := range rows {
		if r.task != "" {
			ids[r.task] = true
		}
	}
	tasks, err := d.tasks(ctx, slices.Sorted(maps.Keys(ids)))
	if err != nil {
		return nil, err
	}
	out := make([]Flow, 0, len(rows))
	for _, r := range rows {
		s := sites[r.Site]
		if s == nil {
			continue
		}
		r.Caller, r.Target, r.Task = s.Caller, s.Target, tasks[r.task]
		r.Verdict, r.WouldDeny, r.Reason, r.Rule = s.Verdict, s.WouldDeny, s.Reason, s.Rule
		if r.host != "" {
			r.Host = r.host
			r.folded = true
		}
		out = append(out, r.Flow)
	}
	return out, nil
}

// sitesOf returns the sites of flows.
func (d *database) sitesOf(ctx context.Context, flows []*flowRow) (map[string]*siteRow, error) {
	ids := map[string]bool{}
	for _, r := range flows {
		ids[r.Site] = true
	}
	all := make(map[string]*siteRow, len(ids))
	for some := range slices.Chunk(slices.Sorted(maps.Keys(ids)), 500) {
		var w where
		w.in("id", some)
		if err := d.sitesInto(ctx, w, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (d *database) sitesInto(ctx context.Context, w where, all map[string]*siteRow) error {
	rows, err := d.read.QueryContext(ctx, w.after("SELECT "+siteColumns+" FROM site"), w.args...)
	if err != nil {
		return fmt.Errorf("read sites: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		s, err := scanSite(rows)
		if err != nil {
			return err
		}
		all[s.ID] = s
	}
	return rows.Err() //nolint:wrapcheck // it says what failed
}

// CallerName returns what people call who made the flow: see [Caller.Name].
func (f *Flow) CallerName() string { return f.Caller.Name() }

// Duration returns how long the flow took, 0 while it lasts.
func (f *Flow) Duration() time.Duration {
	if f.End.IsZero() {
		return 0
	}
	return max(f.End.Sub(f.Start), 0)
}

// Enforcement says on whose word the flow was judged, see
// [flow.Record.Enforcement].
func (f *Flow) Enforcement() string { return string(policy.EnforcementBy(f.Via, f.Inspected)) }

// taskRows returns the IDs of the rows of a task.
func (d *database) taskRows(ctx context.Context, id string) ([]string, error) {
	var w where
	if strings.HasPrefix(id, "arn:") {
		w.add("arn = ?", id)
	} else {
		w.add("arn LIKE ?", "%/"+strings.NewReplacer("%", "", "_", "").Replace(id))
	}
	rows, err := d.read.QueryContext(ctx, w.after("SELECT id FROM task"), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read tasks: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err() //nolint:wrapcheck // it says what failed
}
