package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// crowded is a store whose one caller went to more names than are kept, each
// through a rule, and at last to late.example and four times to names that report
// mode let through and nobody dialled.
func crowded(t *testing.T) *history.Store {
	t.Helper()
	s, err := history.Open(t.Context(), history.Config{PerSite: -1, Drain: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	visit := func(host string, peer netip.AddrPort) {
		now := time.Now()
		r := flow.Record{
			ID: flow.NewID(), Start: now, Via: policy.ViaConnect, Protocol: policy.ProtocolTLS, Client: netip.MustParseAddrPort("10.0.16.9:40000"), Source: "apps",
			Host: host, Port: 443, Verdict: policy.Allow, Reason: policy.ReasonRule, Rule: "all", Peer: peer,
		}
		s.Observe(flow.Event{Kind: flow.Opened, Record: r})
		r.End, r.Outcome, r.BytesSent = now, flow.OutcomeOK, 10
		s.Observe(flow.Event{Kind: flow.Closed, Record: r})
	}
	there := netip.MustParseAddrPort("93.184.215.14:443")
	for i := range 1024 {
		visit(fmt.Sprintf("x%d.example", i), there)
	}
	visit("late.example", there)
	for i := range 4 {
		visit(fmt.Sprintf("lost%d.example", i), netip.AddrPort{})
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Names that were too many to be kept are judged by the flow where there is one
// that tells its own, and told where there is none.
func TestReplayOfTooManyNames(t *testing.T) {
	e, err := seenIn(t.Context(), crowded(t), history.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	candidate, err := policy.Load(policy.Text{Name: "p", Data: []byte("version: 1\nrules: [{name: x, hosts: ['*.example']}, {name: no-late, action: deny, hosts: [late.example]}]\n")})
	if err != nil {
		t.Fatal(err)
	}
	r := e.replay(candidate, nil)
	if len(r.NewlyDenied) != 1 || r.NewlyDenied[0].Site != "late.example" || r.NewlyDenied[0].Count != 1 || r.NewlyDenied[0].Sent != 10 || len(r.NewlyAllowed) != 0 {
		t.Errorf("newly denied: %+v, allowed: %+v", r.NewlyDenied, r.NewlyAllowed)
	}
	if r.Attempts != 1025 || r.Undecided != 4 || r.Unjudged != 0 {
		t.Errorf("%d attempts, %d undecided, %d that no policy judges", r.Attempts, r.Undecided, r.Unjudged)
	}
	var out bytes.Buffer
	if err := talkReplay(&out, &r, ""); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "4 attempts cannot be decided: there were too many names to keep them\n") {
		t.Error(out.String())
	}
}

// Where nothing is left to judge it is not said that nothing was observed.
func TestReplayOfLostNames(t *testing.T) {
	r := policy.Replay(nil, nil, []policy.Seen{{Host: history.Other, Folded: true, Verdict: policy.Allow, Reason: policy.ReasonRule, Count: 7}})
	if r.Undecided != 7 || r.Attempts != 0 || len(r.NewlyDenied)+len(r.NewlyAllowed) != 0 {
		t.Errorf("%+v", r)
	}
	if err := nothingReplayed(&r); err == nil || !strings.Contains(err.Error(), "none of 7 attempts kept its name") {
		t.Error(err)
	}
	if err := nothingReplayed(&policy.Replayed{}); err == nil || !strings.Contains(err.Error(), "was never observed") {
		t.Error(err)
	}
}

// Of names that were too many to be kept nobody can say that they are the same.
func TestDiffOfTooManyNames(t *testing.T) {
	many := []history.Summary{{Caller: "apps", Host: history.Other, Verdict: policy.Allow}, {Caller: "apps", Host: "a.example", Port: 443, Verdict: policy.Allow}}
	cmd := flowDiffCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	err := diffRevisions(cmd, history.Revision{Family: "apps", Revision: 41}, history.Revision{Family: "apps", Revision: 42}, [2][]history.Summary{many, many})
	if !errors.Is(err, errNo) || !strings.Contains(out.String(), "apps:42 reaches 1 site that apps:41 never did") || !strings.Contains(out.String(), history.Other) {
		t.Errorf("%v: %s", err, out.String())
	}
}
