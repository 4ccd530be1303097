package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// TestUnansweredCommit: a batch whose commit was never answered is not added
// twice, whether it came through or not.
func TestUnansweredCommit(t *testing.T) {
	db, err := open(t.Context(), Memory, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	w := &writer{session: flow.NewID(), clock: time.Now}
	for n := uint64(1); n <= 3; n++ {
		o := newObserver(10, -1)
		now := time.Now()
		o.observe(&flow.Event{Kind: flow.Denied, Record: flow.Record{ID: flow.NewID(), Start: now, End: now, Host: "a.example", Reason: policy.ReasonNoRule}}, now)
		b := o.take()
		b.n = n
		for range 3 {
			if err := db.put(t.Context(), w, b); err != nil {
				t.Fatal(err)
			}
			b.tries++
		}
		sites, err := db.sites(t.Context(), &Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sites {
			if s.Visits != int64(n) {
				t.Errorf("%d visits after %d batches", s.Visits, n)
			}
		}
	}
}

// TestScrub: no password is told.
func TestScrub(t *testing.T) {
	for _, url := range []string{
		"postgres://user:hunter2@127.0.0.1:1/db?connect_timeout=1", "postgres://user@127.0.0.1:1/db?password=hunter2&connect_timeout=1", "postgres://user:hunter2@127.0.0.1:x/db",
	} {
		s, err := Open(t.Context(), Config{Store: url})
		if err == nil {
			err = s.fault
			if text := s.Name() + s.Health().Detail; strings.Contains(text, "hunter2") {
				t.Error(text)
			}
		}
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"a.example", "a.example", true},
		{"a.example", "A.Example", true},
		{"a.example", "aXexample", false},
		{"*.example", "a.example", true},
		{"*.example", "b.a.example", false},
		{"**.example", "b.a.example", true},
		{"**.example", "example", false},
		{"*-prod-*", "acme-prod-data", true},
		{"{a,b}.example", "b.example", true},
		{"{a,b}.example", "c.example", false},
		{"a}", "a}", true},
		{"a+(b)", "a+(b)", true},
		{"a+(b)", "aab", false},
	} {
		re, err := glob(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := re.MatchString(tt.text); got != tt.want {
			t.Errorf("%q on %q: %v", tt.pattern, tt.text, got)
		}
	}
}

// FuzzLegible: whatever a client writes is printable ASCII of bounded length.
func FuzzLegible(f *testing.F) {
	for _, s := range []string{"", "a.example", "\x00\x1b[2J", strings.Repeat("é", 300), "\xff\xfe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := legible(s)
		if len(out) > maxText {
			t.Errorf("%d bytes", len(out))
		}
		for i := range len(out) {
			if out[i] < ' ' || out[i] >= 0x7f {
				t.Errorf("%q", out)
			}
		}
		if legible(out) != out {
			t.Errorf("%q is not the same again", out)
		}
	})
}

// TestSeek: sites asked one by one give what all flows read through give, in
// the same order, however their flows lie.
func TestSeek(t *testing.T) {
	db, err := open(t.Context(), Memory, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	o := newObserver(1<<15, -1)
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 3000 {
		at := start.Add(time.Duration(i) * time.Second)
		host := []string{"a.example", "b.example", "c.example", "d.example"}[min(rng.IntN(20), 3)]
		if i > 1000 && i < 1500 {
			host = "a.example" // a stretch of one site's alone
		}
		o.observe(&flow.Event{Kind: flow.Denied, Record: flow.Record{
			ID: fmt.Sprintf("%s%016d", flow.IDAt(at)[:10], i), Start: at, End: at, Host: host, Reason: policy.ReasonNoRule,
		}}, at)
	}
	b := o.take()
	b.n = 1
	if err := db.put(t.Context(), &writer{session: flow.NewID(), clock: time.Now}, b); err != nil {
		t.Fatal(err)
	}
	read := func(rare bool) (ids []string) {
		t.Helper()
		f := Filter{Host: "{a,b,c}.example"}
		sites, err := db.sites(t.Context(), &f)
		if err != nil {
			t.Fatal(err)
		}
		s := &flowSearch{database: db, f: &f, sites: sites}
		if err := s.plan(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.rare = rare
		for more := true; more; {
			var rows []*flowRow
			if rows, more, err = s.next(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
		}
		return ids
	}
	scanned, sought := read(false), read(true)
	if len(scanned) < 800 || !slices.Equal(scanned, sought) {
		t.Errorf("%d flows one by one, %d read through", len(sought), len(scanned))
	}
}
