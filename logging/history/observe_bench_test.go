package history_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
)

// BenchmarkObserve is what a connection pays for being remembered, the writing
// beside it included: an attempt is two events.
func BenchmarkObserve(b *testing.B) {
	s, err := history.Open(b.Context(), history.Config{Clock: fixedClock})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	records := make([]flow.Record, 64)
	for i := range records {
		records[i] = record(func(r *flow.Record) { r.Host = fmt.Sprintf("h%d.example.com", i) })
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := records[i%len(records)]
		r.ID = flow.NewID()
		tell(s, r)
	}
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
