package flow

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func TestNewIDIsAULIDOfNow(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	id, err := ulid.ParseStrict(NewID())
	if err != nil {
		t.Fatal(err)
	}
	if at := ulid.Time(id.Time()); at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("it tells %v, made at %v", at, before)
	}
}

func TestNewIDIncreasesForEveryCaller(t *testing.T) {
	const callers, each = 8, 5000
	all := make([][]string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range each {
				all[i] = append(all[i], NewID())
			}
		})
	}
	wg.Wait()
	for i, ids := range all {
		if !slices.IsSortedFunc(ids, func(a, b string) int {
			if a == b {
				return 1 // not even twice the same
			}
			return bytes.Compare([]byte(a), []byte(b))
		}) {
			t.Errorf("caller %d saw identifiers that do not increase", i)
		}
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(slices.Concat(all...))))); n != callers*each {
		t.Errorf("%d of %d identifiers differ", n, callers*each)
	}
}

func TestIDsWhenTheClockStepsBack(t *testing.T) {
	g := newIDs()
	now := time.UnixMilli(1_800_000_000_000)
	a := g.next(now)
	b := g.next(now.Add(-time.Hour))
	c := g.next(now.Add(time.Millisecond))
	if a >= b || b >= c {
		t.Errorf("%s, %s, %s do not increase", a, b, c)
	}
}

func TestIDsOverflowIntoTheNextMillisecond(t *testing.T) {
	g := &ids{entropy: ulid.Monotonic(neverEnding(0xff), 0)} // the second identifier overflows
	now := time.UnixMilli(1_800_000_000_000)
	last := g.next(now)
	for range 10 {
		id := g.next(now)
		if id <= last {
			t.Fatalf("%s follows %s", id, last)
		}
		last = id
	}
	if at := ulid.MustParse(last).Time(); at == ulid.Timestamp(now) {
		t.Error("nothing overflowed: the test shows nothing")
	}
}

// neverEnding is a reader of one byte, for ever, and a source of the greatest
// steps.
type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func (neverEnding) Int63n(n int64) int64 { return n - 1 }

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewID()
	}
}
