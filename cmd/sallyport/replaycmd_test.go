package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// aged is a store that keeps flows for seven days, with private addresses behind
// the names: old.example was visited ten days ago, new.example today, and
// failed.example and denied.example led nowhere ten days ago.
func aged(t *testing.T, now time.Time) *history.Store {
	t.Helper()
	s, err := history.Open(t.Context(), history.Config{Drain: time.Minute, Retention: history.Retention{Flows: 7 * 24 * time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	visit := func(host string, at time.Time, change func(*flow.Record)) {
		r := flow.Record{
			ID: flow.IDAt(at) + flow.NewID()[10:], Start: at, End: at, Via: policy.ViaConnect, Protocol: policy.ProtocolTLS, Client: netip.MustParseAddrPort("10.0.16.9:40000"),
			Source: "apps", Host: host, Port: 443, Verdict: policy.Allow, Reason: policy.ReasonRule, Rule: "all", Peer: netip.MustParseAddrPort("10.1.2.3:443"),
			Outcome: flow.OutcomeOK, BytesSent: 10, BytesReceived: 10,
		}
		if change != nil {
			change(&r)
		}
		if r.Verdict == policy.Deny {
			s.Observe(flow.Event{Kind: flow.Denied, Record: r})
			return
		}
		s.Observe(flow.Event{Kind: flow.Opened, Record: r})
		s.Observe(flow.Event{Kind: flow.Closed, Record: r})
	}
	long := now.Add(-10 * 24 * time.Hour)
	visit("old.example", long, nil)
	visit("new.example", now, nil)
	visit("failed.example", long, func(r *flow.Record) {
		r.Outcome, r.Peer, r.BytesSent, r.BytesReceived = flow.OutcomeConnectionRefused, netip.AddrPort{}, 0, 0
	})
	visit("denied.example", long, func(r *flow.Record) {
		r.Verdict, r.Reason, r.Rule, r.Peer, r.Outcome, r.BytesSent, r.BytesReceived = policy.Deny, policy.ReasonNoRule, "", netip.AddrPort{}, "", 0, 0
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-poll.C {
		n := 0
		for _, err := range s.Flows(t.Context(), history.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if s.Stats().Flows == 4 && n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d flows are there, of %d that were written", n, s.Stats().Flows)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s
}

// Of a site whose flows are gone nobody knows whether it led to a private
// address: it is judged by its name, and a replay says so.
func TestReplayOlderThanFlows(t *testing.T) {
	now := time.Now().Truncate(time.Minute)
	s := aged(t, now)
	const everything = "{name: all, hosts: ['*.example']"
	for name, c := range map[string]struct {
		rules, said string
		since       time.Duration
		denied      []string
		unaddressed int
	}{
		"without private addresses":  {everything + "}", "1 site judged by name alone: none of the flows looked at, back to " + now.UTC().Format("2006-01-02 15:04 UTC") + ", tells the address", 14 * 24 * time.Hour, []string{"new.example"}, 1},
		"denied by name":             {everything + "}, {name: no, action: deny, hosts: [old.example]}", "", 14 * 24 * time.Hour, []string{"new.example", "old.example"}, 0},
		"as long as there are flows": {everything + "}", "", 24 * time.Hour, []string{"new.example"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			candidate, err := policy.Load(policy.Text{Name: "p", Data: []byte("version: 1\nrules: [" + c.rules + "]\n")})
			if err != nil {
				t.Fatal(err)
			}
			e, err := seenIn(t.Context(), s, history.Filter{Since: now.Add(-c.since)})
			if err != nil {
				t.Fatal(err)
			}
			r := e.replay(candidate, nil)
			var denied []string
			for _, d := range r.NewlyDenied {
				denied = append(denied, d.Site)
			}
			if strings.Join(denied, " ") != strings.Join(c.denied, " ") {
				t.Errorf("newly denied: %v, want %v", denied, c.denied)
			}
			var out bytes.Buffer
			if err := talkReplay(&out, &r, ""); err != nil {
				t.Fatal(err)
			}
			if told := strings.Contains(out.String(), "by name alone"); told != (c.said != "") || !strings.Contains(out.String(), c.said) {
				t.Errorf("no %q in\n%s", c.said, &out)
			}
			out.Reset()
			if err := writeIndented(&out, r); err != nil {
				t.Fatal(err)
			}
			var read struct {
				Unaddressed int
				Since       time.Time `json:"flows_since"`
				Attempts    int
			}
			if err := json.Unmarshal(out.Bytes(), &read); err != nil || read.Unaddressed != c.unaddressed || read.Attempts == 0 || read.Since.Equal(now) != (c.said != "") {
				t.Errorf("%v: %s", err, &out)
			}
		})
	}
}
