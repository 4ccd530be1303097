package history_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// engines are the stores that every test of the table is run on.
func engines(t *testing.T) map[string]func(*testing.T) string {
	t.Helper()
	return map[string]func(*testing.T) string{
		"memory":   func(*testing.T) string { return history.Memory },
		"file":     func(t *testing.T) string { t.Helper(); return "sqlite:" + filepath.Join(t.TempDir(), "history.db") },
		"postgres": func(t *testing.T) string { t.Helper(); return postgres.Database(t) },
	}
}

// onEach runs a test on every engine.
func onEach(t *testing.T, test func(t *testing.T, store string)) {
	t.Helper()
	all := engines(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) { test(t, all[name](t)) })
	}
}

// running is a store with its Run under way.
type running struct {
	*history.Store
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func open(t *testing.T, c history.Config) *running {
	t.Helper()
	if c.Drain == 0 {
		c.Drain = time.Minute // the machine may be busy
	}
	s, err := history.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Clock != nil {
		history.SetServerClock(s, c.Clock)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{Store: s, t: t, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() { r.end() })
	return r
}

// end ends Run, which writes all there is. The store stays open to be looked at
// until the test ends.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	if r.done == nil {
		return
	}
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
	r.done = nil
	r.t.Cleanup(func() { _ = r.Close() })
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for poll := time.NewTicker(10 * time.Millisecond); ; <-poll.C {
		if holds() {
			poll.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// record is an allowed attempt of billing's.
func record(change func(*flow.Record)) flow.Record {
	r := flow.Record{
		ID: flow.NewID(), Start: noon, End: noon.Add(time.Second), Via: policy.ViaConnect, Protocol: policy.ProtocolTLS,
		Client: netip.MustParseAddrPort("10.0.16.9:40000"), Source: "apps",
		Task: &policy.Task{
			ARN: "arn:aws:ecs:us-east-1:111122223333:task/prod/0a1", Cluster: "prod", Service: "billing-api", Family: "billing", Revision: 41,
			Tags: map[string]string{"team": "pay"},
		},
		Host: "api.example.com", Port: 443, Peer: netip.MustParseAddrPort("203.0.113.7:443"),
		TLS:     flow.TLS{ServerName: "api.example.com", Version: "1.3", ALPN: []string{"h2"}},
		Verdict: policy.Allow, Reason: policy.ReasonRule, Rule: "apis", PolicyVersion: "v1",
		Outcome: flow.OutcomeOK, BytesSent: 10, BytesReceived: 100,
	}
	if change != nil {
		change(&r)
	}
	return r
}

// tell tells a store of an attempt as the proxy does.
func tell(s flow.Reader, r flow.Record) {
	if r.Verdict == policy.Deny {
		s.Observe(flow.Event{Kind: flow.Denied, Record: r})
		return
	}
	opened := r
	opened.End, opened.Outcome, opened.EndedBy, opened.BytesSent, opened.BytesReceived = time.Time{}, "", "", 0, 0
	s.Observe(flow.Event{Kind: flow.Opened, Record: opened})
	if !r.End.IsZero() {
		s.Observe(flow.Event{Kind: flow.Closed, Record: r})
	}
}

func fixedClock() time.Time { return noon.Add(time.Hour) }

func TestSiteOfOneFlow(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store, Instance: "p1", Clock: fixedClock})
		r := record(nil)
		tell(s, r)
		s.end()
		sites, err := s.Sites(t.Context(), history.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		want := []history.Site{{
			Caller:  history.Caller{Cluster: "prod", Service: "billing-api", Family: "billing", Source: "apps"},
			Target:  history.Target{Via: policy.ViaConnect, Protocol: policy.ProtocolTLS, Host: "api.example.com", Port: 443},
			Verdict: policy.Allow, Reason: policy.ReasonRule, Rule: "apis",
			Figures: history.Figures{Visits: 1, BytesSent: 10, BytesReceived: 100},
			First:   r.Start, Last: r.End, Tasks: 1, Revisions: []history.Revision{{Family: "billing", Revision: 41}},
			Example: history.Example{Client: r.Client.Addr(), Task: r.Task, At: r.End},
		}}
		if d := cmp.Diff(want, sites, cmpopts.IgnoreFields(history.Site{}, "ID"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Error(d)
		}
		f, err := s.Flow(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if f.Site != sites[0].ID || f.Instance != "p1" || f.Outcome != flow.OutcomeOK || f.Duration() != time.Second ||
			f.Client != r.Client || f.Peer != r.Peer || f.Task.Tags["team"] != "pay" || f.PolicyVersion != "v1" {
			t.Errorf("flow: %+v", f)
		}
		if _, err := s.Flow(t.Context(), "nothing"); err == nil {
			t.Error("a flow that is not there was found")
		}
	})
}

func siteName(host string, v policy.Verdict) string { return host + "/" + v.String() }

func hourKey(site string, hour time.Time) string {
	return site + "/" + strconv.FormatInt(hour.UnixMicro(), 10)
}

// TestFigures: the roll-ups equal what a reader of all events counts who keeps
// everything.
func TestFigures(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store, Clock: fixedClock, Retention: history.Retention{Size: 1 << 30}})
		rng := rand.New(rand.NewPCG(1, 2))
		naive := map[string]history.Figures{} // by host, verdict, hour
		total := map[string]history.Figures{}
		for i := range 3000 {
			start := noon.Add(-time.Duration(rng.IntN(72*60)) * time.Minute)
			r := record(func(r *flow.Record) {
				r.Start, r.End = start, start.Add(time.Duration(rng.IntN(7200))*time.Second)
				r.Host = fmt.Sprintf("h%d.example.com", rng.IntN(20))
				r.BytesSent, r.BytesReceived = rng.Int64N(1<<20), rng.Int64N(1<<30)
				if rng.IntN(4) == 0 {
					r.Verdict, r.Reason, r.Rule = policy.Deny, policy.ReasonNoRule, ""
					r.Outcome, r.End, r.BytesSent, r.BytesReceived = "no_rule", r.Start, 0, 0
				} else if rng.IntN(5) == 0 {
					r.Outcome = flow.OutcomeConnectionRefused
				}
			})
			tell(s, r)
			add := func(at time.Time, f history.Figures) {
				for m, k := range map[*map[string]history.Figures]string{
					&naive: hourKey(siteName(r.Host, r.Verdict), at.Truncate(time.Hour)), &total: siteName(r.Host, r.Verdict),
				} {
					g := (*m)[k]
					(*m)[k] = history.Figures{Visits: g.Visits + f.Visits, Failed: g.Failed + f.Failed, BytesSent: g.BytesSent + f.BytesSent, BytesReceived: g.BytesReceived + f.BytesReceived}
				}
			}
			add(r.Start, history.Figures{Visits: 1})
			f := history.Figures{BytesSent: r.BytesSent, BytesReceived: r.BytesReceived}
			if r.Verdict == policy.Allow && r.Outcome != flow.OutcomeOK {
				f.Failed = 1
			}
			add(r.End, f)
			if i%1500 == 0 {
				n := s.Stats().Batches
				await(t, "a batch is written", func() bool { return s.Stats().Batches > n || s.Stats().Pending == 0 })
			}
		}
		s.end()
		sites, err := s.Sites(t.Context(), history.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]history.Figures{}
		byID := map[string]string{}
		for _, site := range sites {
			byID[site.ID] = siteName(site.Host, site.Verdict)
			got[byID[site.ID]] = site.Figures
		}
		if d := cmp.Diff(total, got); d != "" {
			t.Error("all time:", d)
		}
		hours, err := s.Usage(t.Context(), history.Filter{}, history.UsageBy{Site: true})
		if err != nil {
			t.Fatal(err)
		}
		got = map[string]history.Figures{}
		for _, u := range hours {
			got[hourKey(byID[u.Key.Site], u.Start)] = u.Figures
		}
		if d := cmp.Diff(naive, got); d != "" {
			t.Error("by hour:", d)
		}
		checkWindows(t, s, byID, naive)
	})
}

// checkWindows compares what is read of a time, from hours and days together,
// with the hours of the naive reader.
func checkWindows(t *testing.T, s *running, byID map[string]string, naive map[string]history.Figures) {
	t.Helper()
	for _, w := range []struct{ since, until time.Time }{
		{noon.Add(-72 * time.Hour), noon.Add(3 * time.Hour)},
		{noon.Add(-50 * time.Hour), time.Time{}},
		{time.Time{}, noon.Add(-30 * time.Hour)},
		{noon.Add(-7 * time.Hour), noon.Add(-2 * time.Hour)},
		{noon.Add(-25 * time.Hour), noon.Add(-time.Hour)},
	} {
		sites, err := s.Sites(t.Context(), history.Filter{Since: w.since, Until: w.until})
		if err != nil {
			t.Fatal(err)
		}
		for _, site := range sites {
			var want history.Figures
			for h := noon.Add(-96 * time.Hour); h.Before(noon.Add(96 * time.Hour)); h = h.Add(time.Hour) {
				if !w.since.IsZero() && h.Before(w.since.Truncate(time.Hour)) || !w.until.IsZero() && !h.Before(w.until) {
					continue
				}
				f := naive[hourKey(byID[site.ID], h)]
				want = history.Figures{Visits: want.Visits + f.Visits, Failed: want.Failed + f.Failed, BytesSent: want.BytesSent + f.BytesSent, BytesReceived: want.BytesReceived + f.BytesReceived}
			}
			if site.Figures != want {
				t.Errorf("%s from %s until %s: %+v, want %+v", site.Host, w.since, w.until, site.Figures, want)
			}
		}
	}
}
