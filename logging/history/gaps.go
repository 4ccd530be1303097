package history

import (
	"context"
	"fmt"
	"time"
)

// Gap is a time in which a proxy could not keep everything.
type Gap struct {
	Instance string    `json:"instance"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Events   int64     `json:"events"` // lost before they were added up: in no figure
	Flows    int64     `json:"flows"`  // lost as flows; the figures have them
	Reason   string    `json:"reason"`
}

// Gaps returns the gaps that end at or after since, oldest first. One without
// losses tells that the store was away, and that all came to it later.
func (s *Store) Gaps(ctx context.Context, since time.Time) ([]Gap, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	rows, err := db.read.QueryContext(ctx, "SELECT instance, from_at, to_at, events, flows, reason FROM gap WHERE to_at >= $1 ORDER BY from_at, id", micros(since))
	if err != nil {
		return nil, fmt.Errorf("read gaps: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var all []Gap
	for rows.Next() {
		var g Gap
		var from, to int64
		if err := rows.Scan(&g.Instance, &from, &to, &g.Events, &g.Flows, &g.Reason); err != nil {
			return nil, fmt.Errorf("read gaps: %w", err)
		}
		g.From, g.To = timeOf(from), timeOf(to)
		all = append(all, g)
	}
	return all, rows.Err() //nolint:wrapcheck // it says what failed
}
