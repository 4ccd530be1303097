package anomaly

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// The signs of a beacon: so many contacts in a day, hours apart from the first
// to the last, at intervals that vary little, the less the fewer they are, with
// little in each.
const (
	beaconContacts  = 12
	beaconMost      = 6 * 60 * 24 // a contact every ten seconds is no whisper
	beaconSpan      = time.Hour
	beaconVariation = .2
	beaconShort     = 5 * time.Second
	beaconSent      = 16 << 10
	beaconReceived  = 64 << 10
)

// beaconEvery is how often beacons are looked for, and beaconSites at how many
// sites in one look.
const (
	beaconEvery = time.Hour
	beaconSites = 100
	beaconFlows = 500
)

// clockwork finds rare sites that are contacted like clockwork.
func (w *Watcher) clockwork(ctx context.Context, now time.Time) error {
	if now.Sub(w.beacons) < beaconEvery {
		return nil
	}
	w.beacons = now
	since := now.Add(-24 * time.Hour)
	sites, err := w.store.Sites(ctx, history.Filter{Since: since})
	if err != nil {
		return fmt.Errorf("what was visited in a day: %w", err)
	}
	sites = slices.DeleteFunc(sites, func(s history.Site) bool { return !w.whispers(&s) })
	// The newest first: what was there for weeks was looked at for weeks.
	slices.SortStableFunc(sites, func(a, b history.Site) int { return b.First.Compare(a.First) })
	var errs []error
	for i := range sites[:min(len(sites), beaconSites)] {
		a, ok, err := w.beacon(ctx, &sites[i], since)
		if ok {
			err = errors.Join(err, w.raise(ctx, a, sites[i]))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// whispers reports whether a site may be a beacon's: few visit it, nobody has
// listed it, it is not part of what the caller has always done, and there is
// little in each of its contacts.
func (w *Watcher) whispers(s *history.Site) bool {
	c := w.callers[s.Name()]
	switch {
	case c == nil, s.Host == "", s.Host == history.Other, s.Visits < beaconContacts, s.Visits > beaconMost:
		return false
	case w.common(s.Host), ownEndpoint(s.Host), w.cfg.Explicit(s.Rule, hostOf(s)) && !s.WouldDeny:
		return false
	case s.BytesSent > s.Visits*beaconSent, s.BytesReceived > s.Visits*beaconReceived:
		return false
	}
	first, known := w.sites[w.visitOf(c.name, place(s))]
	return known && first.Sub(c.first) > w.cfg.Learn && c.mature(w.cfg.Learn, first)
}

// ownEndpoint reports whether a host is a service of AWS itself, which SDKs
// poll: SERVICE.REGION.amazonaws.com. What customers put there lies deeper.
func ownEndpoint(host string) bool {
	rest, ok := strings.CutSuffix(strings.TrimSuffix(host, ".cn"), ".amazonaws.com")
	return ok && strings.Count(rest, ".") == 1
}

// beacon looks at the contacts with a site one by one. Each client's are
// looked at by themselves: several clocks together are none.
func (w *Watcher) beacon(ctx context.Context, s *history.Site, since time.Time) (flow.Anomaly, bool, error) {
	starts := map[netip.Addr][]time.Time{}
	ids := map[netip.Addr][]string{}
	name := s.Name()
	for f, err := range w.store.Flows(ctx, history.Filter{Since: since, Service: name, Host: s.Host, Limit: beaconFlows}) {
		if err != nil {
			return flow.Anomaly{}, false, fmt.Errorf("the visits of %s: %w", s.Host, err)
		}
		if f.Name() != name || f.Host != s.Host {
			continue
		}
		a := f.Client.Addr()
		starts[a] = append(starts[a], f.Start)
		if len(ids[a]) < 3 {
			ids[a] = append(ids[a], f.ID)
		}
	}
	for client, times := range starts {
		r, ok := rhythmOf(times)
		if !ok {
			continue
		}
		e := siteEvidence(s)
		e.Contacts, e.Interval, e.Variation, e.Flows = r.contacts, math.Round(10*r.interval.Seconds())/10, math.Round(1000*r.variation)/1000, ids[client]
		e.Text = fmt.Sprintf("%s contacts %s every %s, %d times in %s, within %.0f%%; few others visit it",
			name, s.Host, r.interval.Round(time.Second), r.contacts, ageText(r.span), 100*r.variation)
		severity := flow.Medium
		if _, literal := hostOf(s).Addr(); s.Verdict == policy.Allow && (literal || r.variation <= beaconVariation/4) {
			severity = flow.High
		}
		return flow.Anomaly{
			Kind: flow.AnomalyBeacon, Caller: name, Subject: s.Host, Severity: severity, First: s.First, Last: s.Last, Evidence: e,
		}, true, nil
	}
	return flow.Anomaly{}, false, nil
}

// rhythm is how regular contacts are.
type rhythm struct {
	contacts  int
	span      time.Duration
	interval  time.Duration // the median
	variation float64
}

// rhythmOf measures contacts, and reports whether they are a beacon's. One
// interval in ten may be off either way: a contact that failed, a restart.
func rhythmOf(times []time.Time) (rhythm, bool) {
	slices.SortFunc(times, time.Time.Compare)
	if len(times) < beaconContacts {
		return rhythm{}, false
	}
	intervals := make([]float64, 0, len(times)-1)
	for i := 1; i < len(times); i++ {
		intervals = append(intervals, times[i].Sub(times[i-1]).Seconds())
	}
	slices.Sort(intervals)
	r := rhythm{contacts: len(times), span: times[len(times)-1].Sub(times[0])}
	r.interval = time.Duration(middle(intervals) * float64(time.Second))
	off := len(intervals) / 10
	inner := intervals[off : len(intervals)-off]
	var sum, squares float64
	for _, v := range inner {
		sum += v
	}
	mean := sum / float64(len(inner))
	for _, v := range inner {
		squares += (v - mean) * (v - mean)
	}
	if mean > 0 {
		r.variation = math.Sqrt(squares/float64(len(inner))) / mean
	}
	limit := beaconVariation
	if r.contacts < 2*beaconContacts {
		limit /= 4 // few contacts are regular by chance
	}
	return r, r.span >= beaconSpan && r.interval >= beaconShort && mean > 0 && r.variation <= limit
}
