package history

import (
	"context"
	"time"
)

// Gap is a time in which a proxy could not keep everything.
type Gap struct {
	Instance string
	From, To time.Time
	Events   int64 // lost before they were added up: in no figure
	Flows    int64 // lost as flows; the figures have them
	Reason   string
}

// Gaps returns the gaps that end at or after since, oldest first.
func (s *Store) Gaps(ctx context.Context, since time.Time) ([]Gap, error) { return nil, errUnwritten }

// Health is how the store does.
type Health struct {
	OK     bool
	Detail string // for people: where it is, or what is wrong with it since when
}

// Health says how the store does.
func (s *Store) Health() Health { return Health{} }

// Stats are the figures of this process since its start.
type Stats struct {
	Up       bool   // the last batch was taken
	Dropped  uint64 // events that found the queue full, or no store in time
	Flows    uint64 // flows written
	Unkept   uint64 // flows counted and not kept, beyond a bound
	Folded   uint64 // attempts counted under [Other]
	Batches  uint64
	Failures uint64 // batches that the store did not take, each try
	Waiting  int    // events in the queue
	Pending  int    // flows and sums that wait for the store
	Bytes    int64  // of the store, as of the last look; 0: not known
	// LastWrite is when a batch was taken last, zero for never.
	LastWrite time.Time
}

// Stats returns the figures.
func (s *Store) Stats() Stats { return Stats{} }
