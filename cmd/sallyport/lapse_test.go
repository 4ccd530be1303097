package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
)

// A learning window that closes says what it let through.
func TestLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
		p, err := policy.Load(policy.Text{Name: "p", Data: []byte("version: 1\nmode: report\nreport_until: " + until + "\nrules: [{name: a, hosts: [a.test]}]\n")})
		if err != nil {
			t.Fatal(err)
		}
		live := policy.NewLive()
		live.Swap(p)
		var seen []policy.Seen
		for host, n := range map[string]int64{"a.test": 5, "b.test": 7} {
			h, err := policy.ParseHost(host)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, policy.Seen{
				Query: policy.Query{Via: policy.ViaTLS, Host: h, Port: 443, Protocol: policy.ProtocolTLS}, Host: host,
				Verdict: policy.Allow, WouldDeny: host == "b.test", Reason: policy.ReasonNoRule, Count: n,
			})
		}
		var out buffer
		var gone error
		l := &lapses{live: live, log: zerolog.New(&out), now: time.Now, seen: func(context.Context, time.Time) ([]policy.Seen, error) { return seen, gone }}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.run(ctx) }()
		<-time.After(45 * time.Second)
		synctest.Wait()
		if said := out.String(); said != "" {
			t.Errorf("said before: %s", said)
		}
		<-time.After(10 * time.Minute)
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if said := out.String(); strings.Count(said, "learning window has closed") != 1 || !strings.Contains(said, `"sites":1,"attempts":7`) || !strings.Contains(said, `"site":"b.test"`) {
			t.Errorf("said: %s", said)
		}
		gone = errors.New("no store")
		l.tell(t.Context(), "the policy")
		l.seen = nil
		l.tell(t.Context(), "the policy")
		if said := out.String(); strings.Count(said, "learning window has closed") != 3 || !strings.Contains(said, "no store") {
			t.Errorf("said: %s", said)
		}
	})
}
