package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
)

// counts stands in for the metrics.
type counts struct{ loaded, failed int }

func (c *counts) PolicyLoaded(string, time.Time) { c.loaded++ }
func (c *counts) PolicyFailed()                  { c.failed++ }

// rig is a reloader at work on a text that the test changes.
type rig struct {
	mu      sync.Mutex // guards text and err
	text    string
	err     error
	asked   chan struct{}
	live    *policy.Live
	metrics counts
	swaps   int
	log     bytes.Buffer
}

func document(name string) string {
	return "version: 1\nrules: [{name: " + name + ", hosts: [a.test]}]\n"
}

// startReloader runs a reloader with document("first") in force until the
// test's function returns.
func startReloader(t *testing.T, every time.Duration) *rig {
	t.Helper()
	r := &rig{text: document("first"), asked: make(chan struct{}, 1), live: policy.NewLive()}
	p, err := policy.Load(policy.Text{Name: "p", Data: []byte(r.text)})
	if err != nil {
		t.Fatal(err)
	}
	r.live.Swap(p)
	reload := &reloader{
		read: func(context.Context, look) ([]policy.Text, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return []policy.Text{{Name: "p", Data: []byte(r.text)}}, r.err
		},
		admit: (&loaded{}).admit,
		pause: func() time.Duration { return every }, asked: r.asked, live: r.live, metrics: &r.metrics, log: zerolog.New(&r.log),
		swapped: func() int { r.swaps++; return 0 },
		also:    func(context.Context, bool) {},
		keep:    (&daemon{}).remember,
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reload.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// set changes what the sources hold.
func (r *rig) set(text string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text, r.err = text, err
}

// after lets time pass and everything come to rest.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *rig) rule() string { return r.live.Current().Rules()[0].Name }

func (r *rig) said(s string) int { return strings.Count(r.log.String(), s) }

func TestReloadTakesAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, 5*time.Second)
		r.set(document("second"), nil)
		after(6 * time.Second)
		if r.rule() != "second" || r.swaps != 1 || r.metrics != (counts{loaded: 1}) {
			t.Errorf("rule %s, %d swaps, %+v", r.rule(), r.swaps, r.metrics)
		}
		after(time.Minute)
		if r.swaps != 1 || r.said("policy reloaded") != 1 {
			t.Errorf("%d swaps without a change: %s", r.swaps, &r.log)
		}
	})
}

// A file that is written in place is seen half-written: its first half is a
// policy too, and not the one that is meant.
func TestReloadLetsAWriteSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, 5*time.Second)
		r.set(document("half"), nil)
		after(5*time.Second + settle/2) // seen once
		r.set(document("whole"), nil)
		after(settle)
		if r.rule() != "first" {
			t.Errorf("%s is in force, which was still being written", r.rule())
		}
		after(settle)
		if r.rule() != "whole" || r.swaps != 1 {
			t.Errorf("rule %s, %d swaps", r.rule(), r.swaps)
		}
	})
}

func TestReloadKeepsTheLastGoodPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, 5*time.Second)
		r.set("version: 1\nrulez: []\n", nil)
		after(time.Minute)
		if r.rule() != "first" || r.swaps != 0 || r.metrics.failed != 1 {
			t.Errorf("rule %s, %d swaps, %+v", r.rule(), r.swaps, r.metrics)
		}
		if r.said("policy refused") != 1 || r.said("p:2:1") != 1 || r.said(policy.VersionOf(policy.Text{Name: "p", Data: []byte(r.text)})) != 1 {
			t.Errorf("not said once, with place and version: %s", &r.log)
		}
		// Who asks is answered, even with the same.
		r.asked <- struct{}{}
		after(time.Millisecond)
		if r.said("policy refused") != 2 {
			t.Errorf("SIGHUP was not answered: %s", &r.log)
		}
		r.set(document("first"), nil)
		after(time.Minute)
		if r.said("in force again") != 1 || r.swaps != 0 || r.metrics.loaded != 1 {
			t.Errorf("%d swaps, %+v: %s", r.swaps, r.metrics, &r.log)
		}
	})
}

func TestReloadOutlivesAMissingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, 5*time.Second)
		r.set("", errors.New("open p: no such file"))
		after(time.Minute)
		if r.rule() != "first" || r.metrics.failed != 1 || r.said("no such file") != 1 {
			t.Errorf("rule %s, %+v: %s", r.rule(), r.metrics, &r.log)
		}
		r.set(document("second"), nil)
		after(time.Minute)
		if r.rule() != "second" || r.metrics.loaded != 1 {
			t.Errorf("rule %s, %+v", r.rule(), r.metrics)
		}
	})
}

func TestReloadWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, 0) // no polling
		r.set(document("second"), nil)
		after(time.Hour)
		if r.rule() != "first" {
			t.Errorf("%s is in force, and nobody asked", r.rule())
		}
		r.asked <- struct{}{}
		after(time.Millisecond)
		if r.rule() != "second" {
			t.Errorf("%s is in force", r.rule())
		}
		r.asked <- struct{}{}
		after(time.Millisecond)
		if r.said("policy unchanged") != 1 || r.swaps != 1 {
			t.Errorf("%d swaps: %s", r.swaps, &r.log)
		}
	})
}

func TestAnOpenGateIsSaid(t *testing.T) {
	for mode, want := range map[string]bool{"enforce": false, "report": true} {
		p, err := policy.Load(policy.Text{Name: "p", Data: []byte("mode: " + mode + "\n" + document("a"))})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		logWarnings(zerolog.New(&log), p)
		if strings.Contains(log.String(), "is let through") != want {
			t.Errorf("%s: %s", mode, &log)
		}
	}
}
