package integration

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestBreakReload changes the policy again and again under a load of every
// road. a.test is always allowed, b.test never, c.test by every second policy:
// nothing of a is ever dropped, b never gets through, and every verdict on c is
// that of the policy which its record names.
func TestBreakReload(t *testing.T) {
	t.Parallel()
	n := extent(t, "reload", 50, 1000)
	w := newWorld(t)
	l := &reloadLoad{t: t, origin: w.breakOrigin("a.test", "b.test", "c.test"), did: make(chan struct{}, 20)}
	policyOf := func(round int) string {
		hosts := []string{"a.test"}
		if round%2 == 0 {
			hosts = append(hosts, "c.test")
		}
		return roadRules(fmt.Sprint("round-", round), hosts...)
	}
	l.rig = w.serve(policyOf(0), setting("reload.every", "0s"))
	opens := map[string]bool{l.rig.awaitLog("policy in force")["policy_version"].(string): true} // c.test, by version

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var workers sync.WaitGroup
	for i := range 2 * len(roads()) {
		workers.Go(func() { l.work(ctx, roads()[i%len(roads())]) })
	}
	start := time.Now()
	for round := 1; round <= n && !t.Failed(); round++ {
		for range cap(l.did) { // each policy decides something
			select {
			case <-l.did:
			case <-time.After(patience):
				t.Fatal("the load stopped")
			}
		}
		l.rig.writePolicy(policyOf(round))
		said := l.rig.saidAfter(func() { l.rig.signal(syscall.SIGHUP) }, "policy re", "policy unchanged")
		if said["message"] != "policy reloaded" {
			t.Fatalf("the log says %v", said)
		}
		opens[said["policy_version"].(string)] = round%2 == 0
	}
	took := time.Since(start)
	stop()
	workers.Wait()
	if got := l.rig.metric(`sallyport_policy_reloads_total{result="ok"}`); got != fmt.Sprint(n+1) && !t.Failed() {
		t.Errorf("the metrics know of %s loads, want %d", got, n+1)
	}
	l.rig.signal(syscall.SIGTERM)
	l.rig.wait()
	l.judge(opens)
	t.Logf("%d reloads in %v under %d attempts: a.test %d, b.test %d, c.test %d allowed, %d denied, %d of them cut by a policy",
		n, took.Round(time.Millisecond), len(l.rig.lines()), l.allowed.Load(), l.denied.Load(), l.open.Load(), l.shut.Load(), l.cut)
}

// reloadLoad is the load of TestBreakReload.
type reloadLoad struct {
	t      *testing.T
	rig    *rig
	origin *breakOrigin
	did    chan struct{} // has a value for each round of work, while there is room

	allowed, denied, open, shut atomic.Int64 // what clients saw: a, b, c and c
	cut                         int          // what the records say
}

// work asks for the three hosts by one road until ctx ends, and all the time
// holds a stream to the first.
func (l *reloadLoad) work(ctx context.Context, way road) {
	var held *stream
	if way.name != "HTTP" {
		var err error
		if held, err = way.open(l.rig.addr, "a.test", "echo"); err != nil {
			l.t.Errorf("%s to a.test: %v", way.name, err)
			return
		}
		defer held.Close()
	}
	for ctx.Err() == nil && !l.t.Failed() {
		if err := l.round(way, held); err != nil {
			l.t.Errorf("%s: %v", way.name, err)
		}
		select {
		case l.did <- struct{}{}:
		default:
		}
	}
	if held != nil {
		if text, err := held.answer(); text != "" || err != nil {
			l.t.Errorf("%s: the stream that was held ends with %q, %v", way.name, text, err)
		}
	}
}

func (l *reloadLoad) round(way road, held *stream) error {
	if status, err := l.use(way, "a.test"); status/100 == 4 || err != nil {
		return fmt.Errorf("a.test, always allowed: %d, %w", status, err)
	}
	l.allowed.Add(1)
	if status, err := l.use(way, "b.test"); status != http.StatusForbidden || err != nil {
		return fmt.Errorf("b.test, never allowed: %d, %w", status, err)
	}
	l.denied.Add(1)
	switch status, err := l.use(way, "c.test"); {
	case status == http.StatusForbidden:
		l.shut.Add(1)
	case err == nil:
		l.open.Add(1)
	} // else it was cut: its record will tell by whom
	if held != nil {
		if err := ping(held); err != nil {
			return fmt.Errorf("the stream that was held to a.test: %w", err)
		}
	}
	return nil
}

// use carries a little to host and back.
func (l *reloadLoad) use(way road, host string) (status int, err error) {
	at, order := (*transfer)(nil), "echo"
	if way.name == "HTTP" {
		at = l.origin.add(false, goes())
		defer l.origin.drop(at)
		order = at.order()
	}
	s, err := way.open(l.rig.addr, host, order)
	if s == nil {
		return 0, err
	}
	defer s.Close()
	switch {
	case err != nil, s.status/100 == 4, s.status/100 == 5:
		return s.status, err
	case at != nil:
		return s.status, at.receive(s)
	}
	if err := ping(s); err != nil {
		return s.status, err
	}
	text, err := s.answer()
	if text != "" {
		err = fmt.Errorf("%q is left over, %w", text, err)
	}
	return s.status, err
}

// ping sends a word by a stream to an echo.
func ping(s *stream) error {
	const word = "are you there?"
	if _, err := io.WriteString(s, word); err != nil {
		return err
	}
	var b [len(word)]byte
	if _, err := io.ReadFull(s, b[:]); err != nil || string(b[:]) != word {
		return fmt.Errorf("%q came back, %w", b, err)
	}
	return nil
}

// goes is the rest of a transfer that never rests.
func goes() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// judge holds every record to the policy that it names.
func (l *reloadLoad) judge(opens map[string]bool) {
	shut := 0
	for _, line := range l.rig.lines() {
		s := line.Sallyport
		open, known := opens[s.PolicyVersion]
		denied := line.Event.Name == "flow.deny"
		ok := known
		switch line.Server.Address {
		case "a.test":
			ok = ok && !denied && s.EndedBy != "policy" && s.EndedBy != "drain"
		case "b.test":
			ok = ok && denied
		default:
			ok = ok && denied == !open && s.EndedBy != "drain"
			if denied {
				shut++
			} else if s.EndedBy == "policy" {
				l.cut++
			}
		}
		if !ok {
			l.t.Errorf("the record (c.test open: %v, version known: %v): %s", open, known, line.text)
		}
	}
	if int64(shut) != l.shut.Load() {
		l.t.Errorf("c.test was denied %d times on record, and clients saw %d", shut, l.shut.Load())
	}
}

// TestBreakReloadCuts denies a host with many attempts under way, some at
// work and some silent, by every road. Each is cut and recorded; those to
// another host go on.
func TestBreakReloadCuts(t *testing.T) {
	t.Parallel()
	n := extent(t, "reload", 100, 1000)
	w := newWorld(t)
	origin := w.breakOrigin("a.test", "c.test")
	r := w.serve(roadRules("both", "a.test", "c.test"), setting("reload.every", "0s"), setting("reload.cut_denied", true))
	goOn, never := make(chan struct{}), make(chan struct{})
	defer close(never)

	var cut, kept sync.WaitGroup
	var failed atomic.Int64
	var all []*transfer
	var last atomic.Int64 // when the last was cut, in nanoseconds
	for i := range n + n/4 {
		way, host, group, until := roads()[i%len(roads())], "c.test", &cut, never
		if i >= n {
			host, group, until = "a.test", &kept, goOn
		}
		x := origin.add(false, until)
		all = append(all, x)
		group.Go(func() {
			err := x.carry(r, way, host)
			if i < n {
				last.Store(time.Now().UnixNano())
			}
			if goes := i >= n; goes && err != nil || !goes && !wasCut(err) {
				failed.Add(1)
				t.Errorf("%s to %s: %v", way.name, host, err)
			}
		})
	}
	awaitHalves(t, all, &failed)
	var busy sync.WaitGroup
	for _, way := range roads()[:4] {
		for _, host := range []string{"a.test", "c.test"} {
			s, err := way.open(r.addr, host, "echo")
			if err != nil {
				t.Fatalf("%s to %s: %v", way.name, host, err)
			}
			busy.Go(func() { pingUntil(t, s, way.name+" to "+host, goOn, host == "c.test") })
		}
	}
	r.writePolicy(roadRules("one", "a.test"))
	start := time.Now()
	said := r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "policy re", "policy unchanged")
	cut.Wait()
	t.Logf("%d attempts cut, the last %v after the signal", n+4, time.Duration(last.Load()-start.UnixNano()).Round(100*time.Microsecond))
	close(goOn)
	kept.Wait()
	busy.Wait()
	if said["cut"] != float64(n+4) {
		t.Errorf("the log says %v, want %d cut", said, n+4)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	ended := make(map[string]int)
	for _, l := range r.lines() {
		if l.Event.Name != "flow.open" {
			ended[l.Event.Name+" "+l.Server.Address+" "+map[bool]string{true: "by policy"}[l.Sallyport.EndedBy == "policy"]]++
		}
	}
	want := map[string]int{"flow.close c.test by policy": n + 4, "flow.close a.test ": n/4 + 4}
	if !maps.Equal(ended, want) {
		t.Errorf("on record are %v, want %v", ended, want)
	}
}

// pingUntil pings until done, or until the stream is cut, if that is its lot.
func pingUntil(t *testing.T, s *stream, name string, done <-chan struct{}, cut bool) {
	t.Helper()
	defer s.Close()
	var err error
	for over := false; err == nil && !over; {
		err = ping(s)
		select {
		case <-done:
			over = true
		default:
		}
	}
	if err != nil && !cut || cut && !wasCut(err) {
		t.Errorf("%s, at work: %v", name, err)
	}
}
