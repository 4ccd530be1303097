package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func event(id string) Event { return Event{Kind: Closed, Record: Record{ID: id}} }

// start runs q and returns the function that stops it and waits.
func start(t *testing.T, q *Queue) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func TestQueueDeliversInOrderAndDrains(t *testing.T) {
	var got []string
	q := NewQueue(8, Drop, func(e *Event) { got = append(got, e.Record.ID) }, nil)
	q.Observe(event("a")) // before Run
	stop := start(t, q)
	q.Observe(event("b"))
	q.Observe(event("c"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) || q.Dropped() != 0 {
		t.Errorf("got %v, dropped %d", got, q.Dropped())
	}
	q.Observe(event("late"))
	if q.Dropped() != 1 || len(got) != 3 {
		t.Errorf("a late event: got %v, dropped %d", got, q.Dropped())
	}
}

func TestFullQueueDropsAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var story []string
		q := NewQueue(2, Drop,
			func(e *Event) { <-gate; story = append(story, e.Record.ID) },
			func(n uint64) { story = append(story, fmt.Sprint("lost ", n)) })
		stop := start(t, q)
		q.Observe(event("a"))
		synctest.Wait() // a is inside the sink
		for _, id := range []string{"b", "c", "x", "x", "x"} {
			q.Observe(event(id))
		}
		close(gate)
		synctest.Wait()
		q.Observe(event("d"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want := []string{"a", "lost 3", "b", "c", "d"}
		if !slices.Equal(story, want) || q.Dropped() != 3 {
			t.Errorf("story is %q, want %q; dropped %d", story, want, q.Dropped())
		}
	})
}

func TestFullQueueBlocksUntilThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var got []string
		q := NewQueue(1, Block, func(e *Event) { <-gate; got = append(got, e.Record.ID) }, nil)
		stop := start(t, q)
		q.Observe(event("a"))
		synctest.Wait()
		q.Observe(event("b"))
		returned := make(chan struct{})
		go func() { q.Observe(event("c")); close(returned) }()
		synctest.Wait()
		select {
		case <-returned:
			t.Error("the third event did not wait")
		default:
		}
		close(gate)
		<-returned
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []string{"a", "b", "c"}) || q.Dropped() != 0 {
			t.Errorf("got %v, dropped %d", got, q.Dropped())
		}
	})
}

func TestHurriedQueueLetsGoOfWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		q := NewQueue(1, Block, func(*Event) { <-gate }, nil)
		stop := start(t, q)
		q.Observe(event("a"))
		synctest.Wait() // a is inside the sink
		q.Observe(event("b"))
		let := make(chan struct{})
		go func() { q.Observe(event("waits")); close(let) }()
		synctest.Wait()
		q.Hurry()
		q.Hurry() // once is enough
		<-let
		q.Observe(event("late"))
		if q.Dropped() != 2 {
			t.Errorf("dropped %d, want 2", q.Dropped())
		}
		close(gate)
		if err := stop(); err != nil || q.Dropped() != 2 {
			t.Errorf("%v, dropped %d", err, q.Dropped())
		}
	})
}

func TestStalledSinkHoldsNobodyAfterTheStop(t *testing.T) {
	for _, full := range []Full{Drop, Block} {
		t.Run(full.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				var delivered atomic.Uint64
				q := NewQueue(2, full, func(*Event) { <-gate; delivered.Add(1) }, nil)
				stop := start(t, q)
				var observers sync.WaitGroup
				began := time.Now()
				for range 10 {
					observers.Go(func() {
						q.Observe(event("x"))
						if waited := time.Since(began); waited != 0 { // bubble time: it stands still until Run waits
							t.Errorf("an observer was held for %v after the stop", waited)
						}
					})
				}
				synctest.Wait()
				if err := stop(); !errors.Is(err, ErrStalled) {
					t.Errorf("Run returned %v, want ErrStalled", err)
				}
				if took := time.Since(began); took != DefaultDrain {
					t.Errorf("Run waited %v of bubble time, want %v", took, DefaultDrain)
				}
				observers.Wait()
				q.Observe(event("late"))
				if q.Dropped() != 10 { // the one inside the sink is in the sink's hands
					t.Errorf("dropped %d, want 10", q.Dropped())
				}
				close(gate)
				synctest.Wait()
				if delivered.Load() != 1 || q.Dropped() != 10 {
					t.Errorf("delivered %d and dropped %d after the end", delivered.Load(), q.Dropped())
				}
			})
		})
	}
}

func TestSinkThatPanicsLosesThatEventOnly(t *testing.T) {
	var got []string
	q := NewQueue(8, Drop, func(e *Event) {
		if e.Record.ID == "bad" {
			panic("bad sink")
		}
		got = append(got, e.Record.ID)
	}, nil)
	stop := start(t, q)
	for _, id := range []string{"a", "bad", "b"} {
		q.Observe(event(id))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"a", "b"}) || q.Dropped() != 1 {
		t.Errorf("got %v, dropped %d", got, q.Dropped())
	}
}

// Whatever the interleaving of observers and the stop: observed = delivered +
// dropped, and what lost was told adds up to what was dropped before its last
// call.
func TestQueueLosesNothingUncounted(t *testing.T) {
	for round := range 300 {
		full := Full(round % 2)
		var delivered, told atomic.Uint64
		q := NewQueue(1+round%5, full,
			func(*Event) { delivered.Add(1) },
			func(n uint64) { told.Add(n) })
		stop := start(t, q)
		const observers, each = 4, 20
		var wg sync.WaitGroup
		for range observers {
			wg.Go(func() {
				for range each {
					q.Observe(Event{})
				}
			})
		}
		if round%3 == 0 {
			wg.Wait()
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if n := delivered.Load() + q.Dropped(); n != observers*each {
			t.Fatalf("round %d (%v): delivered %d + dropped %d, want %d",
				round, full, delivered.Load(), q.Dropped(), observers*each)
		}
		if told.Load() > q.Dropped() {
			t.Fatalf("round %d: told %d, dropped %d", round, told.Load(), q.Dropped())
		}
		if full == Block && round%3 == 0 && q.Dropped() != 0 {
			t.Fatalf("round %d: a blocking queue dropped %d before its stop", round, q.Dropped())
		}
	}
}

func TestParseFull(t *testing.T) {
	for _, f := range []Full{Drop, Block} {
		if got, err := ParseFull(f.String()); err != nil || got != f {
			t.Errorf("ParseFull(%q) = %v, %v", f, got, err)
		}
	}
	if _, err := ParseFull("Block"); err == nil {
		t.Error("another spelling is accepted")
	}
}

func BenchmarkQueueObserve(b *testing.B) {
	q := NewQueue(1024, Block, func(*Event) {}, nil)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	e := event("x")
	b.ReportAllocs()
	for b.Loop() {
		q.Observe(e)
	}
	cancel()
	<-ended
}
