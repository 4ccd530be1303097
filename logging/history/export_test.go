package history

import (
	"context"
	"time"
)

// SetServerClock makes the database's clock one of a test's.
func SetServerClock(s *Store, clock func() time.Time) {
	s.serverTime = func(context.Context, *database) (time.Time, error) { return clock(), nil }
}

// Retain removes what is old and beyond the size, as Run does at its start.
func Retain(ctx context.Context, s *Store) error {
	r := &run{Store: s, clock: newSteadiness(s.cfg.Clock)}
	return r.retain(ctx)
}
