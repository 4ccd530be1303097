package history

import (
	"context"
	"encoding/json"
	"time"
)

// Anomaly is a finding. It is one for its Kind, Caller and Subject: found
// again, its Last, Count, Severity and Evidence change.
type Anomaly struct {
	ID       string // ULID
	Kind     string
	Caller   string // a [Caller.Name]
	Subject  string // what it is about: a host, a bucket, a domain
	Site     string // ID, "" for none
	Severity int    // 1 low, 2 medium, 3 high
	Evidence json.RawMessage
	First    time.Time
	Last     time.Time
	Count    int64
	// Acknowledged is when somebody said something of it, zero for never; Benign
	// means that it is none, and is not to be told again.
	Acknowledged time.Time
	Benign       bool
	By, Why      string
}

// AnomalyFilter selects anomalies; what is not set selects all.
type AnomalyFilter struct {
	ID           string
	Since        time.Time // found at or after
	Kind, Caller string
	Open         bool // nobody has said anything of it
	Limit        int
}

// SaveAnomaly keeps a finding, or adds it to what was found before. It returns
// what is now kept, whether it is new, and with it what people said. ID is the
// store's to fill.
func (s *Store) SaveAnomaly(ctx context.Context, a Anomaly) (kept Anomaly, isNew bool, err error) {
	return Anomaly{}, false, errUnwritten
}

// Anomalies returns findings, those found last first.
func (s *Store) Anomalies(ctx context.Context, f AnomalyFilter) ([]Anomaly, error) {
	return nil, errUnwritten
}

// Acknowledge keeps what somebody says of a finding; [ErrNotFound] when it is not
// there.
func (s *Store) Acknowledge(ctx context.Context, id, by, why string, benign bool) error {
	return errUnwritten
}

// SaveBaseline keeps a text under a key, in place of what was there.
func (s *Store) SaveBaseline(ctx context.Context, key string, data []byte) error { return errUnwritten }

// Baselines returns the texts of all keys that begin with prefix.
func (s *Store) Baselines(ctx context.Context, prefix string) (map[string][]byte, error) {
	return nil, errUnwritten
}

// Usage is what was done in an hour, or in a day, at all sites of a key.
type Usage struct {
	Start time.Time
	Key   UsageKey
	Figures
}

// UsageKey is what figures are added up by: fields that the question does not
// ask for are "".
type UsageKey struct {
	Caller string // [Caller.Name]
	Source string
	Rule   string
	Site   string
}

// UsageBy says what figures are added up by.
type UsageBy struct {
	Caller, Source, Rule, Site bool
	Daily                      bool // days instead of hours (UTC)
}

// Usage returns the figures of the sites that f selects, from Since until Until,
// by time and key. Hours are kept for [Retention].Hourly. What this proxy has
// not written yet (at most a second's) is not in it.
func (s *Store) Usage(ctx context.Context, f Filter, by UsageBy) ([]Usage, error) {
	return nil, errUnwritten
}
