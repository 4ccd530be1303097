package history

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// flowSearch goes back in time through the flows of some sites. Where these
// make up much of all it reads everything and leaves out the rest; where they
// are few it asks for each site's own and puts them in order.
type flowSearch struct {
	*database
	f      *Filter
	sites  map[string]*siteRow
	host   *regexp.Regexp
	before string // only what is older
	rare   bool   // the sites are asked one by one
	common where  // what every statement asks for
	heads  map[string][]*flowRow
	ended  map[string]bool // sites with nothing more
	size   int             // of the next page
	none   bool
}

// maxSeeks is how many sites are asked one by one at most.
const maxSeeks = 400

// slack is by how much an identifier may be younger than its flow's start.
const slack = time.Hour

// plan chooses the way.
func (s *flowSearch) plan(ctx context.Context) error {
	f := s.f
	s.size = page
	if f.Limit > 0 {
		s.size = min(f.Limit+f.Limit/4+8, page)
	}
	if !f.Since.IsZero() {
		s.common.add("id >= ?", flow.IDAt(f.Since.Add(-time.Second)))
		s.common.add("start_at >= ?", f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		s.common.add("start_at < ?", f.Until.UnixMicro())
		if latest := flow.IDAt(f.Until.Add(slack)); s.before == "" || latest < s.before {
			s.before = latest
		}
	}
	if f.MinBytes > 0 {
		s.common.add("sent + received >= ?", f.MinBytes)
	}
	if f.Task != "" {
		ids, err := s.taskRows(ctx, f.Task)
		if err != nil {
			return err
		}
		if s.none = len(ids) == 0; s.none {
			return nil
		}
		s.common.in("task", ids)
	}
	if len(s.sites) > maxSeeks {
		return nil
	}
	var all int64
	if err := s.read.QueryRowContext(ctx, "SELECT coalesce(sum(visits), 0) FROM site").Scan(&all); err != nil {
		return err
	}
	var ours int64
	for _, site := range s.sites {
		ours += site.Visits
	}
	// A page of them lies within about page·all/ours flows.
	s.rare = ours*int64(len(s.sites)+1) < all
	s.heads, s.ended = map[string][]*flowRow{}, map[string]bool{}
	return nil
}

// next returns the next page and whether there may be another.
func (s *flowSearch) next(ctx context.Context) (rows []*flowRow, more bool, err error) {
	switch {
	case s.none:
		return nil, false, nil
	case s.rare:
		rows, more, err = s.seek(ctx)
	default:
		rows, more, err = s.scan(ctx)
	}
	return slices.DeleteFunc(rows, func(r *flowRow) bool { return !s.wanted(r) }), more, err
}

// wanted tells what the statement could not.
func (s *flowSearch) wanted(r *flowRow) bool {
	site := s.sites[r.Site]
	return site != nil && (r.host == "" || s.host == nil || s.host.MatchString(r.host)) &&
		(r.host != "" || site.Host != Other || s.host == nil)
}

// scan reads everything.
func (s *flowSearch) scan(ctx context.Context) ([]*flowRow, bool, error) {
	w := where{all: slices.Clone(s.common.all), args: slices.Clone(s.common.args)}
	if s.before != "" {
		w.add("id < ?", s.before)
	}
	// Who wants few gets them soon; who goes on gets ever more at once.
	size := s.size
	s.size = min(2*s.size, 4*page)
	rows, err := s.flowRows(ctx, w, size)
	if err != nil || len(rows) == 0 {
		return nil, false, err
	}
	s.before = rows[len(rows)-1].ID
	return rows, len(rows) == size, nil
}

// seek reads a page of every site that has more and of which none are at hand,
// and returns those that are surely the next ones.
func (s *flowSearch) seek(ctx context.Context) ([]*flowRow, bool, error) {
	for _, id := range slices.Sorted(maps.Keys(s.sites)) {
		if len(s.heads[id]) > 0 || s.ended[id] {
			continue
		}
		if err := s.fill(ctx, id); err != nil {
			return nil, false, err
		}
	}
	// What is younger than the oldest one at hand of every site with more is
	// complete.
	var edge string
	for id, head := range s.heads {
		if !s.ended[id] && len(head) > 0 {
			edge = max(edge, head[len(head)-1].ID)
		}
	}
	var out []*flowRow
	for id, head := range s.heads {
		n, _ := slices.BinarySearchFunc(head, edge, func(r *flowRow, edge string) int { return -strings.Compare(r.ID, edge) })
		if n < len(head) && head[n].ID == edge {
			n++
		}
		if edge == "" {
			n = len(head)
		}
		out = append(out, head[:n]...)
		s.heads[id] = head[n:]
	}
	slices.SortFunc(out, func(a, b *flowRow) int { return -cmp.Compare(a.ID, b.ID) })
	return out, edge != "", nil
}

// fill reads the next page of a site.
func (s *flowSearch) fill(ctx context.Context, id string) error {
	w := where{all: slices.Clone(s.common.all), args: slices.Clone(s.common.args)}
	w.add("site = ?", id)
	if before := cmp.Or(s.sites[id].read, s.before); before != "" {
		w.add("id < ?", before)
	}
	size := max(page/max(len(s.sites), 1), 20)
	rows, err := s.flowRows(ctx, w, size)
	if err != nil {
		return err
	}
	s.heads[id] = rows
	s.ended[id] = len(rows) < size
	if len(rows) > 0 {
		s.sites[id].read = rows[len(rows)-1].ID
	}
	return nil
}
