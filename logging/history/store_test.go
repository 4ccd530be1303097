package history_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/logging/history/historytest"
	"github.com/sallyport/sallyport/policy"
)

// visits adds the visits of all sites up.
func visits(t *testing.T, s *history.Store) (n int64) {
	t.Helper()
	sites, err := s.Sites(t.Context(), history.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, site := range sites {
		n += site.Visits
	}
	return n
}

// talk is a log that a test looks at.
type talk struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *talk) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *talk) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// TestTenWriters: ten proxies add up on one PostgreSQL, and none is lost.
func TestTenWriters(t *testing.T) {
	store := postgres.Database(t)
	const proxies, each = 10, 400
	var opening sync.WaitGroup
	all := make([]*history.Store, proxies)
	for i := range proxies {
		opening.Go(func() { // at once: they make the tables together
			var err error
			if all[i], err = history.Open(t.Context(), history.Config{PerSite: -1, Drain: time.Minute, Store: store, Instance: strconv.Itoa(i), Clock: fixedClock}); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		return
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running, telling sync.WaitGroup
	for i, s := range all {
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		telling.Go(func() {
			for j := range each {
				tell(s, record(func(r *flow.Record) { r.ID, r.Host = flow.NewID(), fmt.Sprintf("h%d.example.com", (i*7+j)%50) }))
				if j%100 == 99 { // in several batches, against each other
					n := s.Stats().Batches
					await(t, "a batch is written", func() bool { return s.Stats().Batches > n || s.Stats().Pending == 0 })
				}
			}
		})
	}
	telling.Wait()
	stop()
	running.Wait()
	for _, s := range all {
		if st := s.Stats(); st.Failures > 0 || st.Dropped > 0 {
			t.Errorf("%s: %+v", s.Instance(), st)
		}
	}
	if n := visits(t, all[3]); n != proxies*each {
		t.Errorf("%d visits, want %d", n, proxies*each)
	}
	for _, s := range all {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPostgresKilled: a server that is killed and started again under load
// loses nothing, counts nothing twice, and the gap is told.
func TestPostgresKilled(t *testing.T) {
	server := historytest.New(t)
	var log talk
	s := open(t, history.Config{PerSite: -1, Store: server.Database(t, "history"), Instance: "p1", Log: zerolog.New(&log)})
	var told atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var telling sync.WaitGroup
	for range 3 {
		telling.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				now := time.Now()
				tell(s, record(func(r *flow.Record) { r.ID, r.Start, r.End = flow.NewID(), now, now }))
				told.Add(1)
				<-tick.C
			}
		})
	}
	for range 3 {
		n := s.Stats().Batches
		await(t, "a batch is written", func() bool { return s.Stats().Batches > n })
		server.Kill()
		failures := s.Stats().Failures
		await(t, "the store is missed", func() bool { return s.Stats().Failures > failures })
		if h := s.Health(); h.OK || !strings.Contains(h.Detail, "not written since") {
			t.Errorf("health without a server: %+v", h)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the store is well", func() bool { return s.Health().OK })
	}
	stop()
	telling.Wait()
	s.end()
	if n := visits(t, s.Store); n != told.Load() {
		t.Errorf("%d visits, %d were told", n, told.Load())
	}
	gaps, err := s.Gaps(t.Context(), time.Time{})
	if err != nil || len(gaps) == 0 {
		t.Errorf("gaps: %v, %v", gaps, err)
	}
	for _, g := range gaps {
		if g.Events != 0 || g.Instance != "p1" || g.To.Before(g.From) {
			t.Errorf("gap %+v", g)
		}
	}
	if lost, back := log.count("history is not written"), log.count("written again"); lost != 3 || back != 3 {
		t.Errorf("said %d times that it is away, %d times that it is back:\n%s", lost, back, &log.text)
	}
}

// TestOutage: while the store is away, memory is bounded, sums are kept, and
// what was beyond the bounds is told when it is back.
func TestOutage(t *testing.T) {
	server := historytest.New(t)
	store := server.Database(t, "history")
	server.Kill()
	s := open(t, history.Config{PerSite: -1, Store: store, Queue: 100, Clock: fixedClock})
	if s.Health().OK {
		t.Error("well without a server")
	}
	const n = 5000
	for range n {
		tell(s, record(func(r *flow.Record) { r.ID = flow.NewID() }))
	}
	if st := s.Stats(); st.Pending > 200 || st.Dropped < n-200 {
		t.Errorf("%+v", st)
	}
	if _, err := s.Sites(t.Context(), history.Filter{}); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("asked without a server: %v", err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the store is well", func() bool { return s.Health().OK && s.Stats().Pending == 0 })
	s.end()
	if got := visits(t, s.Store); got != n {
		t.Errorf("%d visits, want %d", got, n)
	}
	gaps, err := s.Gaps(t.Context(), time.Time{})
	var flows int64
	for _, g := range gaps {
		flows += g.Flows
	}
	// Each flow was opened and closed: what was not kept is told of twice.
	if kept := int64(len(s.flowsOf(history.Filter{}))); err != nil || kept == 0 || flows != 2*(n-kept) {
		t.Errorf("%d flows kept, %d told as lost: %v", kept, flows, err)
	}
}

// TestReadOnlyFolder: where nothing can be written the traffic goes on, it is
// said once, and a folder that becomes writable is used.
func TestReadOnlyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	var log talk
	s := open(t, history.Config{PerSite: -1, Store: "sqlite:" + filepath.Join(dir, "history.db"), Log: zerolog.New(&log), Clock: fixedClock})
	tell(s, record(nil))
	await(t, "it is tried again", func() bool { return s.Stats().Failures >= 2 })
	if h := s.Health(); h.OK || log.count("history is not written") != 1 {
		t.Errorf("%+v\n%s", h, &log.text)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, "it is written", func() bool { return s.Health().OK && s.Stats().Flows == 1 })
}

// TestCorrupt: a damaged file is kept under another name, and a new one begun.
func TestCorrupt(t *testing.T) {
	for name, text := range map[string]string{
		"no database": strings.Repeat("this is no database\n", 1000),
		"torn":        "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "history.db")
			if text == "" {
				s := open(t, history.Config{PerSite: -1, Store: "sqlite:" + path, Clock: fixedClock})
				crowd(s, 500)
				s.end()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for i := 4096; i < len(data); i += 7 {
					data[i] ^= 0x5a
				}
				text = string(data)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log talk
			s := open(t, history.Config{PerSite: -1, Store: "sqlite:" + path, Log: zerolog.New(&log), Clock: fixedClock})
			tell(s, record(nil))
			await(t, "it is written", func() bool { return s.Stats().Flows == 1 })
			s.end()
			if n := visits(t, s.Store); n != 1 {
				t.Errorf("%d visits", n)
			}
			kept, err := filepath.Glob(filepath.Join(dir, "history.db.corrupt-*Z"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept %v, %v", kept, err)
			}
			if again, err := os.ReadFile(kept[0]); err != nil || string(again) != text {
				t.Errorf("what was kept is not what was there: %d bytes of %d, %v", len(again), len(text), err)
			}
			if gaps, err := s.Gaps(t.Context(), time.Time{}); err != nil || len(gaps) == 0 || !strings.Contains(gaps[0].Reason, "damaged") {
				t.Errorf("gaps %+v, %v", gaps, err)
			}
		})
	}
}

// TestDiskFull: a full disk costs flows, not what is stored, and a disk with
// room again is written.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no tmpfs of a test's own: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	ballast := filepath.Join(dir, "ballast")
	s := open(t, history.Config{PerSite: -1, Store: "sqlite:" + filepath.Join(dir, "history.db"), Clock: fixedClock})
	told := len(crowd(s, 50))
	await(t, "it is written", func() bool { return s.Stats().Flows == 50 })
	err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for i := 0; s.Health().OK; i++ {
		if i > 2000 {
			t.Fatal("a full disk is not noticed")
		}
		now := s.Stats().Batches + s.Stats().Failures
		for range 200 {
			tell(s, record(func(r *flow.Record) { r.ID = flow.NewID() }))
			told++
		}
		await(t, "it is tried", func() bool { return s.Stats().Batches+s.Stats().Failures > now })
	}
	if n := visits(t, s.Store); n < 50 {
		t.Errorf("%d visits are left", n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	await(t, "it is written again", func() bool { return s.Health().OK && s.Stats().Pending == 0 })
	s.end()
	if n := visits(t, s.Store); n != int64(told) {
		t.Errorf("%d visits, want %d", n, told)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestMillionNames: a client that makes names up fills neither the disk nor the
// memory, and is counted.
func TestMillionNames(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock})
	const n = 50_000
	for i := range n {
		tell(s, record(func(r *flow.Record) {
			r.ID, r.Host = flow.NewID(), fmt.Sprintf("x%d.evil.example", i)
			r.Verdict, r.Reason, r.Rule, r.Outcome = policy.Deny, policy.ReasonNoRule, "", "no_rule"
		}))
	}
	s.end()
	sites, err := s.Sites(t.Context(), history.Filter{})
	if err != nil || len(sites) == 0 || len(sites) > 1100 {
		t.Fatalf("%d sites, %v", len(sites), err)
	}
	var other int64
	for _, site := range sites {
		if site.Host == history.Other {
			other += site.Visits
		}
	}
	if total := visits(t, s.Store); total != n || other < n-1100 {
		t.Errorf("%d visits, %d of them of others", total, other)
	}
	if st := s.Stats(); st.Folded != uint64(other) {
		t.Errorf("%+v", st)
	}
	found := false
	for _, f := range s.flowsOf(history.Filter{Host: "**.evil.example", Limit: 3000}) {
		if f.Site == sites[0].ID && f.Folded() {
			found = true
		}
	}
	if found != (sites[0].Host == history.Other) {
		t.Error("flows of the rest cannot be told from others")
	}
}

// TestClock: a clock that is set back, or forward by mistake, ends nothing that
// is stored.
func TestClock(t *testing.T) {
	var now atomic.Int64
	now.Store(noon.UnixNano())
	clock := func() time.Time { return time.Unix(0, now.Load()).UTC() }
	// So small a store looks for what is old after every batch.
	s := open(t, history.Config{PerSite: -1, Clock: clock, Retention: history.Retention{Size: 1 << 20}})
	const each = 300
	write := func(at time.Time) {
		t.Helper()
		n := s.Stats().Flows
		for range each {
			tell(s, record(func(r *flow.Record) { r.ID, r.Start, r.End = flow.NewID(), at, at.Add(time.Second) }))
		}
		await(t, "it is written", func() bool { return s.Stats().Pending == 0 && s.Stats().Flows >= n+each })
	}
	write(clock())
	now.Store(noon.Add(-48 * time.Hour).UnixNano())
	write(clock())
	now.Store(noon.AddDate(20, 0, 0).UnixNano())
	write(clock())
	now.Store(noon.Add(time.Minute).UnixNano())
	write(clock())
	s.end()
	if n := visits(t, s.Store); n != 4*each {
		t.Errorf("%d visits of %d", n, 4*each)
	}
	if n := len(s.flowsOf(history.Filter{})); n != 4*each {
		t.Errorf("%d flows of %d", n, 4*each)
	}
}

// TestClockAtStart: a proxy whose clock is far ahead from its start on removes
// nothing for its age; one whose clock is right removes what is old.
func TestClockAtStart(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		if store == history.Memory {
			return // nothing in it is older than the process
		}
		const each = 100
		run := func(now, theirs time.Time) (flows int) {
			s, err := history.Open(t.Context(), history.Config{
				PerSite: -1, Store: store, Clock: func() time.Time { return now }, Retention: history.Retention{Flows: time.Hour}, Drain: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			history.SetServerClock(s, func() time.Time { return theirs })
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			for range each {
				tell(s, record(func(r *flow.Record) {
					r.ID, r.Start, r.End = flow.IDAt(now)[:10]+flow.NewID()[10:], now, now.Add(time.Second)
				}))
			}
			await(t, "it is written", func() bool { return s.Stats().Flows >= each })
			stop()
			if err := errors.Join(<-done, history.Retain(t.Context(), s)); err != nil {
				t.Error(err)
			}
			for _, err := range s.Flows(t.Context(), history.Filter{}) {
				if err != nil {
					t.Fatal(err)
				}
				flows++
			}
			return flows
		}
		ahead := noon.AddDate(20, 0, 0)
		for _, step := range []struct {
			name        string
			now, theirs time.Time
			want        int
		}{
			{"first", noon, noon, each},
			{"ahead", ahead, noon, 2 * each},
			{"right again", noon.Add(2 * time.Hour), noon.Add(2 * time.Hour), 2 * each}, // the first are over, those ahead are not
		} {
			if n := run(step.now, step.theirs); n != step.want {
				t.Errorf("%s: %d flows, want %d", step.name, n, step.want)
			}
		}
	})
}

// TestKilled: kill -9 loses what was not yet written, at most a second's, and
// nothing that was.
func TestKilled(t *testing.T) {
	if path := os.Getenv("HISTORY_TEST_WRITE"); path != "" {
		writeForEver(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "history.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "HISTORY_TEST_WRITE="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var written int
	for lines := bufio.NewScanner(out); written < 2000 && lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "written "); ok {
			written, _ = strconv.Atoi(n)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	s, err := history.Open(t.Context(), history.Config{PerSite: -1, Store: "sqlite:" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := visits(t, s); written < 2000 || n < int64(written) {
		t.Errorf("%d visits are left, %d were written", n, written)
	}
}

// writeForEver writes until it is killed, and prints how much was written.
func writeForEver(t *testing.T, path string) {
	t.Helper()
	s := open(t, history.Config{PerSite: -1, Store: "sqlite:" + path})
	for {
		now := time.Now()
		for range 500 {
			tell(s, record(func(r *flow.Record) { r.ID, r.Start, r.End = flow.NewID(), now, now }))
		}
		await(t, "it is written", func() bool { return s.Stats().Pending == 0 })
		fmt.Fprintf(os.Stdout, "written %d\n", s.Stats().Flows)
	}
}

// TestRetention: what is old ends, by its own time, and figures outlive flows.
func TestRetention(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		old := noon.Add(-100 * time.Hour)
		s := open(t, history.Config{PerSite: -1, Store: store, Clock: fixedClock, Retention: history.Retention{Flows: 24 * time.Hour, Hourly: 48 * time.Hour, Daily: 96 * 24 * time.Hour}})
		tell(s, record(func(r *flow.Record) {
			r.Start, r.End = old, old.Add(time.Second)
			r.ID = flow.IDAt(old)
		}))
		tell(s, record(func(r *flow.Record) { r.ID = flow.IDAt(noon) }))
		await(t, "the old flow is gone", func() bool { return s.Stats().Flows == 2 && len(s.flowsOf(history.Filter{})) == 1 })
		await(t, "the old hour is gone", func() bool {
			hours, err := s.Usage(t.Context(), history.Filter{}, history.UsageBy{})
			return err == nil && len(hours) == 1
		})
		s.end()
		days, err := s.Usage(t.Context(), history.Filter{}, history.UsageBy{Daily: true})
		if err != nil || len(days) != 2 {
			t.Errorf("days %v, %v", days, err)
		}
		sites, err := s.Sites(t.Context(), history.Filter{Since: old.Add(-time.Hour)})
		if err != nil || len(sites) != 1 || sites[0].Visits != 2 {
			t.Errorf("sites %+v, %v", sites, err)
		}
	})
}

// TestSize: a store stays about as small as it was told to, and the newest
// flows are those that stay.
func TestSize(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock, Retention: history.Retention{Size: 1 << 20}})
	var last string
	for i := range 12_000 {
		last = flow.NewID()
		tell(s, record(func(r *flow.Record) { r.ID = last }))
		if i%1000 == 999 {
			await(t, "it is written", func() bool { return s.Stats().Pending == 0 })
		}
	}
	await(t, "the store is small", func() bool { return s.Stats().Bytes > 0 && s.Stats().Bytes <= 3<<19 })
	s.end()
	flows := s.flowsOf(history.Filter{})
	if len(flows) == 0 || len(flows) > 8000 || flows[0].ID != last {
		t.Errorf("%d flows are left", len(flows))
	}
	if n := visits(t, s.Store); n != 12_000 {
		t.Errorf("%d visits", n)
	}
}

// TestBusySite: of a busy site some flows are kept, whole, and all are counted.
func TestBusySite(t *testing.T) {
	s := open(t, history.Config{Clock: fixedClock})
	for range 3000 {
		crowdOf(s, 1)
	}
	tell(s, record(func(r *flow.Record) { r.ID, r.Host = flow.NewID(), "rare.example" }))
	s.end()
	if n := visits(t, s.Store); n != 3001 {
		t.Errorf("%d visits", n)
	}
	flows := s.flowsOf(history.Filter{})
	if len(flows) < 17 || len(flows) > 1500 {
		t.Errorf("%d flows are kept", len(flows))
	}
	rare := false
	for _, f := range flows {
		if f.End.IsZero() {
			t.Errorf("the end of %s was not kept", f.ID)
		}
		rare = rare || f.Host == "rare.example"
	}
	if !rare || s.Stats().Unkept == 0 || s.Stats().Dropped != 0 {
		t.Errorf("rare %v, %+v", rare, s.Stats())
	}
}
