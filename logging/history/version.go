package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Version is a policy that was in force, or that somebody put there.
type Version struct {
	ID       string // ULID
	Version  string // policy.Policy.Version
	At       time.Time
	Instance string // the proxy that took it
	Who      string // "" for the sources' owner
	Note     string
	Texts    []policy.Text // in their order, with their sources' names
	// Previous is the Version before it, "" for the first; Diff is how the texts
	// differ from that one's, in the unified format.
	Previous string
	Diff     string
}

// versionText is how a text is stored.
type versionText struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// SaveVersion keeps a policy that came into force. It does nothing where the
// newest of the store is the same version: ten proxies take it at once. ID,
// Previous and Diff are the store's to fill, At and Instance where they are
// zero.
func (s *Store) SaveVersion(ctx context.Context, v Version) error {
	return s.transact(ctx, "policy version", func(tx *transaction, db *database) error {
		if err := db.serialise(ctx, tx, "version"); err != nil {
			return err
		}
		last, err := newestVersion(ctx, tx)
		if err != nil || last.Version == v.Version {
			return err
		}
		if v.At.IsZero() {
			v.At = s.cfg.Clock()
		}
		if v.Instance == "" {
			v.Instance = s.cfg.Instance
		}
		texts := make([]versionText, 0, len(v.Texts))
		for _, t := range v.Texts {
			texts = append(texts, versionText{t.Name, string(t.Data)})
		}
		encoded, err := json.Marshal(texts)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO version (id, version, at, instance, who, note, texts, previous, diff)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			flow.NewID(), v.Version, micros(v.At), v.Instance, v.Who, v.Note, string(encoded), last.Version, diffTexts(last.Texts, v.Texts))
		return err
	})
}

// maxPolicies bounds the policies that wait for the store.
const maxPolicies = 16

// Remember is [Store.SaveVersion] that never waits: Run does it, when the store
// is there. Of very many that wait, the oldest are forgotten.
func (s *Store) Remember(v Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = append(s.policies, v)
	if n := len(s.policies) - maxPolicies; n > 0 {
		s.policies = slices.Delete(s.policies, 0, n)
	}
}

// savePolicies does what [Store.Remember] was asked for.
func (s *Store) savePolicies(ctx context.Context) error {
	for {
		s.mu.Lock()
		if len(s.policies) == 0 {
			s.mu.Unlock()
			return nil
		}
		v := s.policies[0]
		s.mu.Unlock()
		if err := s.SaveVersion(ctx, v); err != nil {
			return err
		}
		s.mu.Lock()
		s.policies = s.policies[1:]
		s.mu.Unlock()
	}
}

const versionColumns = "id, version, at, instance, who, note, texts, previous, diff"

type scanner interface{ Scan(into ...any) error }

func scanVersion(row scanner) (Version, error) {
	var v Version
	var at int64
	var texts string
	if err := row.Scan(&v.ID, &v.Version, &at, &v.Instance, &v.Who, &v.Note, &texts, &v.Previous, &v.Diff); err != nil {
		return v, err
	}
	v.At = timeOf(at)
	var stored []versionText
	if err := json.Unmarshal([]byte(texts), &stored); err != nil {
		return v, fmt.Errorf("texts of version %s: %w", v.ID, err)
	}
	for _, t := range stored {
		v.Texts = append(v.Texts, policy.Text{Name: t.Name, Data: []byte(t.Text)})
	}
	return v, nil
}

// newestVersion returns the zero Version where there is none.
func newestVersion(ctx context.Context, tx *transaction) (Version, error) {
	v, err := scanVersion(tx.QueryRowContext(ctx, "SELECT "+versionColumns+" FROM version ORDER BY id DESC LIMIT 1"))
	if errors.Is(err, sql.ErrNoRows) {
		return Version{}, nil
	}
	return v, err
}

// Versions returns the newest n policies, newest first, without their texts; 0
// is all.
func (s *Store) Versions(ctx context.Context, n int) ([]Version, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	if n <= 0 {
		n = 1 << 30
	}
	rows, err := db.read.QueryContext(ctx, "SELECT id, version, at, instance, who, note, '[]', previous, diff FROM version ORDER BY id DESC LIMIT $1", int64(n))
	if err != nil {
		return nil, fmt.Errorf("read policy versions: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var all []Version
	for rows.Next() {
		v, err := scanVersion(rows)
		if err != nil {
			return nil, fmt.Errorf("read policy versions: %w", err)
		}
		all = append(all, v)
	}
	return all, rows.Err() //nolint:wrapcheck // it says what failed
}

// Version returns a policy with its texts, by its ID or its Version (the newest
// of that version); [ErrNotFound] when it is not there.
func (s *Store) Version(ctx context.Context, id string) (Version, error) {
	db, err := s.reader()
	if err != nil {
		return Version{}, err
	}
	v, err := scanVersion(db.read.QueryRowContext(ctx,
		"SELECT "+versionColumns+" FROM version WHERE id = $1 OR version = $2 ORDER BY id DESC LIMIT 1", id, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Version{}, fmt.Errorf("policy version %q: %w", id, ErrNotFound)
	}
	if err != nil {
		return Version{}, fmt.Errorf("read policy version %q: %w", id, err)
	}
	return v, nil
}
