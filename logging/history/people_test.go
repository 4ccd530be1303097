package history_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

func TestVersions(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store, Instance: "p1", Clock: fixedClock})
		text := func(body string) []policy.Text { return []policy.Text{{Name: "file:p.yaml", Data: []byte(body)}} }
		first, second := text("version: 1\nrules:\n- a\n- b\n- c\n"), text("version: 1\nrules:\n- a\n- B\n- c\n- d\n")
		for _, v := range []history.Version{
			{Version: "v1", Texts: first}, {Version: "v1", Texts: first}, {Version: "v2", Texts: second, Who: "ann", Note: "why not"}, {Version: "v1", Texts: first},
		} {
			if err := s.SaveVersion(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		}
		all, err := s.Versions(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range all {
			got = append(got, v.Version+" after "+v.Previous+" by "+v.Who+" on "+v.Instance)
		}
		if d := cmp.Diff([]string{"v1 after v2 by  on p1", "v2 after v1 by ann on p1", "v1 after  by  on p1"}, got); d != "" {
			t.Error(d)
		}
		v, err := s.Version(t.Context(), "v2")
		if err != nil || v.Note != "why not" || !bytes.Equal(v.Texts[0].Data, second[0].Data) || !v.At.Equal(fixedClock()) {
			t.Errorf("%+v, %v", v, err)
		}
		want := "--- file:p.yaml\n+++ file:p.yaml\n@@ -1,5 +1,6 @@\n version: 1\n rules:\n - a\n-- b\n+- B\n - c\n+- d\n"
		if v.Diff != want {
			t.Errorf("diff\n%s\nwant\n%s", v.Diff, want)
		}
		if one, err := s.Version(t.Context(), all[2].ID); err != nil || !strings.HasPrefix(one.Diff, "--- /dev/null\n+++ file:p.yaml\n@@ -0,0 +1,5 @@\n+version: 1\n") {
			t.Errorf("the first: %+v, %v", one, err)
		}
		if _, err := s.Version(t.Context(), "v3"); !errors.Is(err, history.ErrNotFound) {
			t.Error(err)
		}
		if few, err := s.Versions(t.Context(), 1); err != nil || len(few) != 1 {
			t.Errorf("%v, %v", few, err)
		}
	})
}

func TestRemember(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store})
		for _, v := range []string{"v1", "v2", "v2", "v3"} {
			s.Remember(history.Version{Version: v})
		}
		s.end()
		if all, err := s.Versions(t.Context(), 0); err != nil || len(all) != 3 || all[0].Version != "v3" {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

// TestOverlays: what one proxy or person writes, all others are told of.
func TestOverlays(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store})
		writer := s.Store
		if store != history.Memory {
			other, err := history.Open(t.Context(), history.Config{Store: store})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			writer = other
		}
		ctx, cancel := context.WithCancel(t.Context())
		changed, unheard := s.Changed(ctx), s.Changed(t.Context())
		<-changed // the beginning
		<-unheard
		o, err := writer.AddOverlay(t.Context(), history.Overlay{Name: "allow", Text: "version: 1\n", Author: "ann", Reason: "because"})
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the change is told", func() bool { return len(unheard) == 1 })
		<-changed
		active, err := s.Overlays(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]history.Overlay{o}, active); d != "" {
			t.Error(d)
		}
		for len(changed) > 0 {
			<-changed
		}
		if err := writer.RevokeOverlay(t.Context(), o.ID, "bob", "no more"); err != nil {
			t.Fatal(err)
		}
		if err := writer.RevokeOverlay(t.Context(), o.ID, "bob", "twice"); !errors.Is(err, history.ErrNotFound) {
			t.Errorf("revoked twice: %v", err)
		}
		await(t, "the end is told", func() bool { return len(changed) == 1 })
		if active, err := s.Overlays(t.Context(), false); err != nil || len(active) != 0 {
			t.Errorf("%+v, %v", active, err)
		}
		all, err := s.Overlays(t.Context(), true)
		if err != nil || len(all) != 1 || all[0].RevokedBy != "bob" || all[0].RevokedReason != "no more" || all[0].Revoked.IsZero() {
			t.Errorf("%+v, %v", all, err)
		}
		cancel()
		await(t, "the channel is closed", func() bool {
			select {
			case _, open := <-changed:
				return !open
			default:
				return false
			}
		})
		s.end()
		for range unheard { // closed with Run
		}
	})
}

func TestAnomalies(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store, Clock: fixedClock})
		a := history.Anomaly{Kind: "first_contact", Caller: "billing-api", Subject: "new.example", Severity: 2, Evidence: json.RawMessage(`{"visits":1}`), First: noon, Last: noon}
		kept, isNew, err := s.SaveAnomaly(t.Context(), a)
		if err != nil || !isNew || kept.ID == "" || kept.Count != 1 {
			t.Fatalf("%+v, %v, %v", kept, isNew, err)
		}
		a.Last, a.Severity = noon.Add(time.Hour), 3
		again, isNew, err := s.SaveAnomaly(t.Context(), a)
		if err != nil || isNew || again.ID != kept.ID || again.Count != 2 || again.Severity != 3 || !again.First.Equal(noon) || !again.Last.Equal(a.Last) {
			t.Fatalf("%+v, %v, %v", again, isNew, err)
		}
		if err := s.Acknowledge(t.Context(), kept.ID, "ann", "our new vendor", true); err != nil {
			t.Fatal(err)
		}
		if again, _, err = s.SaveAnomaly(t.Context(), a); err != nil || !again.Benign || again.By != "ann" || again.Acknowledged.IsZero() {
			t.Errorf("feedback did not stick: %+v, %v", again, err)
		}
		if _, _, err := s.SaveAnomaly(t.Context(), history.Anomaly{Kind: "beacon", Caller: "web", Subject: "x.example", First: noon, Last: noon}); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			filter history.AnomalyFilter
			want   int
		}{
			"all": {history.AnomalyFilter{}, 2}, "open": {history.AnomalyFilter{Open: true}, 1}, "kind": {history.AnomalyFilter{Kind: "beacon"}, 1},
			"caller": {history.AnomalyFilter{Caller: "billing-api"}, 1}, "since": {history.AnomalyFilter{Since: noon.Add(time.Minute)}, 1},
			"ID": {history.AnomalyFilter{ID: kept.ID}, 1}, "limit": {history.AnomalyFilter{Limit: 1}, 1},
		} {
			if all, err := s.Anomalies(t.Context(), tt.filter); err != nil || len(all) != tt.want {
				t.Errorf("%s: %+v, %v", name, all, err)
			}
		}
		if err := s.Acknowledge(t.Context(), "nothing", "", "", false); !errors.Is(err, history.ErrNotFound) {
			t.Error(err)
		}
		for key, data := range map[string]string{"w/a": "1", "w/b": "2", "x/%": "3"} {
			for _, d := range []string{"old", data} {
				if err := s.SaveBaseline(t.Context(), key, []byte(d)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if all, err := s.Baselines(t.Context(), "w/"); err != nil || len(all) != 2 || string(all["w/b"]) != "2" {
			t.Errorf("%v, %v", all, err)
		}
	})
}

// TestLookOnly: who looks at a store changes nothing, and makes nothing.
func TestLookOnly(t *testing.T) {
	store := engines(t)["file"](t)
	if _, err := history.Open(t.Context(), history.Config{Store: store, ReadOnly: true}); err == nil {
		t.Error("a store that is not there was opened")
	}
	s := open(t, history.Config{PerSite: -1, Store: store, Clock: fixedClock})
	tell(s, record(nil))
	await(t, "it is written", func() bool { return s.Stats().Flows == 1 })
	look, err := history.Open(t.Context(), history.Config{Store: store, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	if n := visits(t, look); n != 1 {
		t.Errorf("%d visits beside the writer", n)
	}
	if err := look.SaveVersion(t.Context(), history.Version{}); !errors.Is(err, history.ErrNotWritable) {
		t.Error(err)
	}
}

// TestTogether observes, asks and writes at once.
func TestTogether(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { crowdOf(s, 500) })
		all.Go(func() {
			for range 10 {
				if _, err := s.Sites(t.Context(), history.Filter{}); err != nil {
					t.Error(err)
				}
				_, _ = s.Stats(), s.Health()
			}
		})
	}
	all.Wait()
	s.end()
	if n := visits(t, s.Store); n != 2000 {
		t.Errorf("%d visits of 2000", n)
	}
}

// TestCancelled: a question that is given up costs no rows, in memory either.
func TestCancelled(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock})
	crowd(s, 300)
	await(t, "it is written", func() bool { return s.Stats().Flows == 300 })
	for i := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		for _, err := range s.Flows(ctx, history.Filter{}) {
			if err != nil {
				break
			}
		}
		cancel()
	}
	s.end()
	if n := visits(t, s.Store); n != 300 {
		t.Errorf("%d visits of 300", n)
	}
}
