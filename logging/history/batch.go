package history

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// maxSums bounds the sums of a batch that no store takes: sites by hours.
const maxSums = 1 << 15

// batch is what one transaction writes.
type batch struct {
	n     uint64 // its number in the run
	tries int
	sums  map[sumKey]*sum
	tasks map[string]taskRow
	flows map[string]*row // by the flow's ID
	gap   Gap             // what was lost before it
}

// sumKey is a site in an hour.
type sumKey struct {
	site string
	hour int64 // hours since 1970
}

// sum is what was done at a site in an hour.
type sum struct {
	Figures
	state       *siteState
	kept        int // flows
	first, last time.Time
	client      netip.Addr
	task        string
	traits      map[trait]times
}

type times struct{ first, last time.Time }

type taskRow struct {
	task *policy.Task
	at   time.Time
}

// row is a flow.
type row struct {
	site *siteState
	rec  flow.Record
	kind flow.Kind
}

func newBatch() *batch {
	return &batch{sums: map[sumKey]*sum{}, tasks: map[string]taskRow{}, flows: map[string]*row{}}
}

func (b *batch) empty() bool { return len(b.sums) == 0 && len(b.flows) == 0 && b.gap == Gap{} }

// sum returns the sum of a site in an hour, nil when there are too many.
func (b *batch) sum(state *siteState, hour int64, at time.Time) *sum {
	k := sumKey{state.id, hour}
	s := b.sums[k]
	if s == nil {
		if len(b.sums) >= maxSums {
			return nil
		}
		s = &sum{state: state, first: at, last: at}
		b.sums[k] = s
	}
	return s
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// add adds an event.
func (s *sum) add(e *flow.Event, at time.Time) {
	r := &e.Record
	if at.Before(s.first) {
		s.first = at
	}
	if !at.Before(s.last) {
		s.last = at
		s.client = r.Client.Addr().Unmap()
	}
	switch e.Kind {
	case flow.Opened:
		s.Visits++
		return
	case flow.Denied:
		s.Visits++
	case flow.Closed:
		if r.Outcome != flow.OutcomeOK {
			s.Failed++
		}
	}
	s.BytesSent += r.BytesSent
	s.BytesReceived += r.BytesReceived
}

func (s *sum) seen(t trait, at time.Time) {
	if s.traits == nil {
		s.traits = map[trait]times{}
	}
	s.traits[t] = times{at, at}
}

// add adds others' figures.
func (f *Figures) add(g Figures) {
	f.Visits += g.Visits
	f.Failed += g.Failed
	f.BytesSent += g.BytesSent
	f.BytesReceived += g.BytesReceived
}

// bySite joins the sums of a site's hours.
func (b *batch) bySite() map[string]*sum {
	out := make(map[string]*sum, len(b.sums))
	for k, s := range b.sums {
		t := out[k.site]
		if t == nil {
			c := *s
			c.traits = maps.Clone(s.traits)
			out[k.site] = &c
			continue
		}
		t.Figures.add(s.Figures)
		if s.first.Before(t.first) {
			t.first = s.first
		}
		if s.last.After(t.last) {
			t.last, t.client, t.task = s.last, s.client, cmp.Or(s.task, t.task)
		}
		for k, v := range s.traits {
			t.traits = joined(t.traits, k, v)
		}
	}
	return out
}

func joined(all map[trait]times, k trait, v times) map[trait]times {
	if all == nil {
		all = map[trait]times{}
	}
	if old, there := all[k]; there {
		if old.first.Before(v.first) {
			v.first = old.first
		}
		if old.last.After(v.last) {
			v.last = old.last
		}
	}
	all[k] = v
	return all
}

// periodKey is a row of a roll-up.
type periodKey struct {
	start int64 // microseconds
	site  string
}

// periods adds the sums up by periods of so many hours (UTC), in the order of
// their keys.
func (b *batch) periods(hours int64) ([]periodKey, map[periodKey]Figures) {
	all := make(map[periodKey]Figures, len(b.sums))
	for k, s := range b.sums {
		at := periodKey{floorDiv(k.hour, hours) * hours * 3600 * 1e6, k.site}
		f := all[at]
		f.add(s.Figures)
		all[at] = f
	}
	keys := slices.SortedFunc(maps.Keys(all), func(a, b periodKey) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.site, b.site))
	})
	return keys, all
}

// merge adds what another gap tells.
func (g *Gap) merge(o Gap) {
	if o == (Gap{}) {
		return
	}
	if g.From.IsZero() || !o.From.IsZero() && o.From.Before(g.From) {
		g.From = o.From
	}
	if o.To.After(g.To) {
		g.To = o.To
	}
	g.Events += o.Events
	g.Flows += o.Flows
	g.Reason = cmp.Or(g.Reason, o.Reason)
}
