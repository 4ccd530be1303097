package flow

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
)

// readerFunc is a Reader of one function.
type readerFunc func(Event)

func (f readerFunc) Observe(e Event) { f(e) }

func TestBusCallsReadersInOrder(t *testing.T) {
	var got []string
	note := func(name string) Reader {
		return readerFunc(func(e Event) { got = append(got, name+" "+e.Record.ID) })
	}
	readers := []Reader{note("a"), note("b")}
	bus := NewBus(readers...)
	readers[0] = note("changed later")
	bus.Observe(Event{Kind: Opened, Record: Record{ID: "1"}})
	bus.Observe(Event{Kind: Closed, Record: Record{ID: "1"}})
	if want := "a 1,b 1,a 1,b 1"; strings.Join(got, ",") != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBusSurvivesPanics(t *testing.T) {
	var calls int
	bad := readerFunc(func(Event) { panic("bad reader") })
	good := readerFunc(func(Event) { calls++ })

	NewBus(bad, good).Observe(Event{}) // nobody to report to

	var reports []string
	bus := NewBus(bad, good, bad, good).OnPanic(func(_ Reader, v any) {
		stack := string(debug.Stack())
		reports = append(reports, fmt.Sprint(v, strings.Contains(stack, "TestBusSurvivesPanics")))
		panic("bad report")
	})
	bus.Observe(Event{})
	if calls != 3 {
		t.Errorf("the good reader was called %d times, want 3", calls)
	}
	if len(reports) != 2 || reports[0] != "bad readertrue" {
		t.Errorf("reports are %q", reports)
	}
}

func TestBusDoesNotAllocate(t *testing.T) {
	bus := NewBus(readerFunc(func(Event) {}), readerFunc(func(Event) {}))
	e := Event{Kind: Closed}
	if n := testing.AllocsPerRun(100, func() { bus.Observe(e) }); n > 0 {
		t.Errorf("Observe allocates %v times", n)
	}
}

func BenchmarkBus(b *testing.B) {
	bus := NewBus(readerFunc(func(Event) {}), readerFunc(func(Event) {}))
	e := Event{Kind: Closed}
	b.ReportAllocs()
	for b.Loop() {
		bus.Observe(e)
	}
}
