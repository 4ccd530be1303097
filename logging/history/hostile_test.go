package history_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to write what no store would

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
)

// TestAllowedNamesMadeUp: names that a wildcard or report mode lets pass take no
// more room than the store has, and leave some to the flows of now.
func TestAllowedNamesMadeUp(t *testing.T) {
	const size = 1 << 20
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock, Retention: history.Retention{Size: size}})
	for i := range 8000 {
		tell(s, record(func(r *flow.Record) {
			r.ID, r.Host = flow.NewID(), fmt.Sprintf("x%d.evil.example", i)
			r.Source = fmt.Sprintf("s%d", i/1000) // a day's bound for each
		}))
		if i%500 == 499 {
			await(t, "it is written", func() bool { return s.Stats().Pending == 0 })
		}
	}
	var last string
	for range 50 {
		last = flow.NewID()
		tell(s, record(func(r *flow.Record) { r.ID, r.Host = last, "new.example.com" }))
	}
	await(t, "the store is small", func() bool { return s.Stats().Pending == 0 && s.Stats().Bytes > 0 && s.Stats().Bytes <= 3*size/2 })
	s.end()
	if _, err := s.Flow(t.Context(), last); err != nil {
		t.Errorf("the newest flow: %v", err)
	}
}

// TestFindingsGo: anomalies and what was kept beside them end with the days, but
// for what somebody called benign, which is not to be told again.
func TestFindingsGo(t *testing.T) {
	for _, engine := range []string{"file", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			c := history.Config{
				Store: engines(t)[engine](t), Clock: fixedClock,
				Retention: history.Retention{Daily: 96 * time.Hour, Hourly: 48 * time.Hour, Flows: time.Hour},
			}
			first, err := history.Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			old, benign := noon.Add(-100*time.Hour), ""
			for i, at := range []time.Time{noon, old, old} {
				a, _, err := first.SaveAnomaly(t.Context(), history.Anomaly{Kind: "first_contact", Caller: "c", Subject: fmt.Sprint(i), First: at, Last: at})
				if err != nil {
					t.Fatal(err)
				}
				benign = a.ID
			}
			if err := first.Acknowledge(t.Context(), benign, "ann", "known", true); err != nil {
				t.Fatal(err)
			}
			_ = first.Close()
			s := open(t, c)
			await(t, "the old one is gone", func() bool {
				all, err := s.Anomalies(t.Context(), history.AnomalyFilter{})
				return err == nil && len(all) == 2
			})
			all, err := s.Anomalies(t.Context(), history.AnomalyFilter{ID: benign})
			if err != nil || len(all) != 1 {
				t.Errorf("what was called benign: %v, %v", all, err)
			}
		})
	}
}

// TestOverlayTwice: an overlay that is active is not written again under its
// name: who revokes it would leave the other.
func TestOverlayTwice(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{Store: store})
		o := history.Overlay{Name: "accept-a.test-1", Text: "version: 1\n", Author: "ann"}
		var all sync.WaitGroup
		for range 4 { // two rollbacks at once
			all.Go(func() {
				if _, err := s.AddOverlay(t.Context(), o); err != nil && !errors.Is(err, history.ErrThere) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		active, err := s.Overlays(t.Context(), false)
		if err != nil || len(active) != 1 {
			t.Fatalf("%d active, %v", len(active), err)
		}
		if err := s.RevokeOverlay(t.Context(), active[0].ID, "bob", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddOverlay(t.Context(), o); err != nil {
			t.Errorf("after it was revoked: %v", err)
		}
	})
}

// TestLookAtNewer: a store that a newer version has changed is not read as if it
// were known what its rows mean.
func TestLookAtNewer(t *testing.T) {
	store := engines(t)["file"](t)
	s, err := history.Open(t.Context(), history.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	db, err := sql.Open("sqlite", strings.TrimPrefix(store, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)"); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	for _, readOnly := range []bool{true, false} {
		if s, err := history.Open(t.Context(), history.Config{Store: store, ReadOnly: readOnly}); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Errorf("read only %v: %v", readOnly, err)
			if err == nil {
				_ = s.Close()
			}
		}
	}
}

// Whoever may connect to the database may notify, be it only to read: that makes
// no proxy read its policy again.
func TestNoticesOfNothing(t *testing.T) {
	store := engines(t)["postgres"](t)
	s := open(t, history.Config{Store: store})
	changed := s.Changed(t.Context())
	<-changed // the beginning
	o, err := s.AddOverlay(t.Context(), history.Overlay{Name: "first", Text: "version: 1\n"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a change is told", func() bool { return len(changed) == 1 })
	db, err := sql.Open("pgx", store)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	told := 0
	for range 200 {
		if _, err := db.ExecContext(t.Context(), "SELECT pg_notify('sallyport_overlay', '')"); err != nil {
			t.Fatal(err)
		}
		for len(changed) > 0 {
			<-changed
			told++
		}
	}
	if told > 3 { // the store as it was found, and the change above
		t.Errorf("told %d times of nothing", told)
	}
	if err := s.RevokeOverlay(t.Context(), o.ID, "ann", ""); err != nil {
		t.Fatal(err)
	}
	await(t, "the next change is told", func() bool { return len(changed) == 1 })
}
