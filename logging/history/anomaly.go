package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
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
// store's to fill; Count is how often it was found this time, 0 for once.
func (s *Store) SaveAnomaly(ctx context.Context, a Anomaly) (kept Anomaly, isNew bool, err error) {
	id := flow.NewID()
	evidence := string(a.Evidence)
	if evidence == "" {
		evidence = "{}"
	}
	err = s.transact(ctx, "anomaly", func(tx *transaction, _ *database) error {
		insert := statement{"anomaly", strings.Split(anomalyColumns, ", "), `ON CONFLICT (kind, caller, subject) DO UPDATE SET
			site = excluded.site, severity = excluded.severity, evidence = excluded.evidence, times = anomaly.times + excluded.times,
			last_at = CASE WHEN excluded.last_at > anomaly.last_at THEN excluded.last_at ELSE anomaly.last_at END`}
		if err := insert.exec(ctx, tx, [][]any{{
			id, a.Kind, a.Caller, a.Subject, a.Site, int64(a.Severity), evidence, micros(a.First), micros(a.Last), max(a.Count, 1),
			int64(0), int64(0), "", "",
		}}); err != nil {
			return err
		}
		kept, err = scanAnomaly(tx.QueryRowContext(ctx, "SELECT "+anomalyColumns+" FROM anomaly WHERE kind = $1 AND caller = $2 AND subject = $3",
			a.Kind, a.Caller, a.Subject))
		return err
	})
	if err != nil {
		return Anomaly{}, false, err
	}
	return kept, kept.ID == id, nil
}

const anomalyColumns = "id, kind, caller, subject, site, severity, evidence, first_at, last_at, times, acknowledged_at, benign, who, why"

func scanAnomaly(row scanner) (Anomaly, error) {
	var a Anomaly
	var severity, first, last, acknowledged, benign int64
	var evidence string
	if err := row.Scan(&a.ID, &a.Kind, &a.Caller, &a.Subject, &a.Site, &severity, &evidence, &first, &last, &a.Count,
		&acknowledged, &benign, &a.By, &a.Why); err != nil {
		return a, err
	}
	a.Severity, a.Evidence, a.Benign = int(severity), json.RawMessage(evidence), benign != 0
	a.First, a.Last, a.Acknowledged = timeOf(first), timeOf(last), timeOf(acknowledged)
	return a, nil
}

// Anomalies returns findings, those found last first.
func (s *Store) Anomalies(ctx context.Context, f AnomalyFilter) ([]Anomaly, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	var w where
	for _, c := range []struct{ column, value string }{{"id", f.ID}, {"kind", f.Kind}, {"caller", f.Caller}} {
		if c.value != "" {
			w.add(c.column+" = ?", c.value)
		}
	}
	if !f.Since.IsZero() {
		w.add("last_at >= ?", micros(f.Since))
	}
	if f.Open {
		w.add("acknowledged_at = ?", int64(0))
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 1 << 30
	}
	rows, err := db.read.QueryContext(ctx, w.after("SELECT "+anomalyColumns+" FROM anomaly", "ORDER BY last_at DESC, id DESC LIMIT "+strconv.Itoa(limit)), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read anomalies: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var all []Anomaly
	for rows.Next() {
		a, err := scanAnomaly(rows)
		if err != nil {
			return nil, fmt.Errorf("read anomalies: %w", err)
		}
		all = append(all, a)
	}
	return all, rows.Err() //nolint:wrapcheck // it says what failed
}

// Acknowledge keeps what somebody says of a finding; [ErrNotFound] when it is not
// there.
func (s *Store) Acknowledge(ctx context.Context, id, by, why string, benign bool) error {
	return s.transact(ctx, "anomaly", func(tx *transaction, _ *database) error {
		result, err := tx.ExecContext(ctx, "UPDATE anomaly SET acknowledged_at = $1, benign = $2, who = $3, why = $4 WHERE id = $5",
			micros(s.cfg.Clock()), int64(bit(benign)), by, why, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("anomaly %q: %w", id, ErrNotFound))
		}
		return nil
	})
}

// SaveBaseline keeps a text under a key, in place of what was there. nil takes
// the key away.
func (s *Store) SaveBaseline(ctx context.Context, key string, data []byte) error {
	return s.transact(ctx, "baseline", func(tx *transaction, _ *database) error {
		if data == nil {
			_, err := tx.ExecContext(ctx, "DELETE FROM baseline WHERE name = $1", key)
			return err
		}
		insert := statement{"baseline", []string{"name", "at", "data"}, "ON CONFLICT (name) DO UPDATE SET at = excluded.at, data = excluded.data"}
		return insert.exec(ctx, tx, [][]any{{key, micros(s.cfg.Clock()), string(data)}})
	})
}

// Baselines returns the texts of all keys that begin with prefix.
func (s *Store) Baselines(ctx context.Context, prefix string) (map[string][]byte, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	rows, err := db.read.QueryContext(ctx, "SELECT name, data FROM baseline WHERE substr(name, 1, $1) = $2", int64(len([]rune(prefix))), prefix)
	if err != nil {
		return nil, fmt.Errorf("read baselines: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	all := map[string][]byte{}
	for rows.Next() {
		var name, data string
		if err := rows.Scan(&name, &data); err != nil {
			return nil, fmt.Errorf("read baselines: %w", err)
		}
		all[name] = []byte(data)
	}
	return all, rows.Err() //nolint:wrapcheck // it says what failed
}
