package history

import "time"

// Health is how the store does.
type Health struct {
	OK     bool
	Detail string // for people: where it is, or what is wrong with it since when
}

// Stats are the figures of this process since its start.
type Stats struct {
	Up       bool   // the last batch was taken
	Events   uint64 // observed
	Dropped  uint64 // events or flows lost to a bound, or with a store that did not come back
	Flows    uint64 // written
	Unkept   uint64 // events that were counted without keeping their flow: there were too many
	Folded   uint64 // attempts counted under [Other]
	Batches  uint64 // written
	Failures uint64 // of writing, each try
	Pending  int    // flows and sums that wait for the store
	Bytes    int64  // of the store, as of the last look; 0: not known
	// LastWrite is when a batch was taken last, zero for never.
	LastWrite time.Time
}
