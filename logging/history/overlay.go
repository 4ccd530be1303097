package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// Overlay is a document of the policy language that somebody wrote into the
// store. It is never changed, only revoked.
type Overlay struct {
	ID      string    `json:"id"` // ULID
	At      time.Time `json:"at"`
	Name    string    `json:"name"` // of the document, in messages
	Text    string    `json:"text"` // the document
	Author  string    `json:"author"`
	Reason  string    `json:"reason,omitempty"`
	Until   time.Time `json:"until,omitzero"`   // its readers end it then; zero: for good
	Revoked time.Time `json:"revoked,omitzero"` // zero: it is active
	// RevokedBy and RevokedReason are by whom and why.
	RevokedBy     string `json:"revoked_by,omitempty"`
	RevokedReason string `json:"revoked_reason,omitempty"`
}

// ErrThere is what an overlay ends in whose name an active one has.
var ErrThere = errors.New("there is one of that name already")

// ErrNotWritable is what a change of a store ends in that is only looked at.
var ErrNotWritable = errors.New("the history was opened to be looked at only")

// transact does something in one transaction.
func (s *Store) transact(ctx context.Context, what string, do func(*transaction, *database) error) error {
	if s.cfg.ReadOnly {
		return ErrNotWritable
	}
	db, err := s.reader()
	if err != nil {
		return err
	}
	begun, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	tx := &transaction{begun, db.engine}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	if err := do(tx, db); err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	return nil
}

// serialise makes transactions that read a table before they write to it wait for
// each other. SQLite's all do: they begin by taking the file. It is no advisory
// lock, which whoever may only look could hold against all writers.
func (d *database) serialise(ctx context.Context, tx *transaction, table string) error {
	if d.engine != enginePostgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "LOCK TABLE "+table+" IN SHARE ROW EXCLUSIVE MODE")
	return err
}

// AddOverlay keeps a document and tells all watchers; ID and At are the store's
// to fill. It is the caller's to compile it first. While one of its name is
// active it is [ErrThere]: who revokes one must not leave another.
func (s *Store) AddOverlay(ctx context.Context, o Overlay) (Overlay, error) {
	o.ID, o.At, o.Revoked, o.RevokedBy, o.RevokedReason = flow.NewID(), s.cfg.Clock().UTC().Truncate(time.Microsecond), time.Time{}, "", ""
	if err := s.RestoreOverlay(ctx, o); err != nil {
		return Overlay{}, err
	}
	return o, nil
}

// RestoreOverlay writes an active document that was read from this store and is
// not there any more, as it was: a damaged file was set aside, a server came back
// from an old copy. Where the store knows it after all (it was revoked), or has an
// active one of its name, that counts, and the error is [ErrThere].
func (s *Store) RestoreOverlay(ctx context.Context, o Overlay) error {
	return s.transact(ctx, "overlay", func(tx *transaction, db *database) error {
		if err := db.serialise(ctx, tx, "overlay"); err != nil {
			return err
		}
		var there int64
		err := tx.QueryRowContext(ctx, "SELECT count(*) FROM overlay WHERE id = $1 OR name = $2 AND revoked_at = 0", o.ID, o.Name).Scan(&there)
		if err != nil || there > 0 {
			return cmp.Or(err, ErrThere)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO overlay (id, at, name, document, author, reason, until_at, revoked_at, revoked_by, revoked_reason)
			VALUES ($1, $2, $3, $4, $5, $6, $7, 0, '', '')`, o.ID, micros(o.At), o.Name, o.Text, o.Author, o.Reason, micros(o.Until)); err != nil {
			return err
		}
		return db.tell(ctx, tx)
	})
}

// RevokeOverlay ends a document and tells all watchers; [ErrNotFound] when it is
// not there or was revoked before.
func (s *Store) RevokeOverlay(ctx context.Context, id, by, reason string) error {
	return s.transact(ctx, "overlay", func(tx *transaction, db *database) error {
		result, err := tx.ExecContext(ctx, "UPDATE overlay SET revoked_at = $1, revoked_by = $2, revoked_reason = $3 WHERE id = $4 AND revoked_at = 0",
			micros(s.cfg.Clock()), by, reason, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("active overlay %q: %w", id, ErrNotFound))
		}
		return db.tell(ctx, tx)
	})
}

// Overlays returns the active documents in the order they were written, or with
// all set every one.
func (s *Store) Overlays(ctx context.Context, all bool) ([]Overlay, error) {
	db, err := s.reader()
	if err != nil {
		return nil, err
	}
	var w where
	if !all {
		w.add("revoked_at = ?", int64(0))
	}
	rows, err := db.read.QueryContext(ctx, w.after("SELECT id, at, name, document, author, reason, until_at, revoked_at, revoked_by, revoked_reason FROM overlay", "ORDER BY id"), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read overlays: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []Overlay
	for rows.Next() {
		var o Overlay
		var at, until, revoked int64
		if err := rows.Scan(&o.ID, &at, &o.Name, &o.Text, &o.Author, &o.Reason, &until, &revoked, &o.RevokedBy, &o.RevokedReason); err != nil {
			return nil, fmt.Errorf("read overlays: %w", err)
		}
		o.At, o.Until, o.Revoked = timeOf(at), timeOf(until), timeOf(revoked)
		out = append(out, o)
	}
	return out, rows.Err() //nolint:wrapcheck // it says what failed
}

// changeName is the name of the overlays in the table of changes, and of the
// channel on which PostgreSQL tells of them.
const changeName = "sallyport_overlay"

// tell notes that overlays have changed.
func (d *database) tell(ctx context.Context, tx *transaction) error {
	s := statement{"change", []string{"name", "n"}, "ON CONFLICT (name) DO UPDATE SET n = change.n + 1"}
	if err := s.exec(ctx, tx, [][]any{{changeName, int64(1)}}); err != nil {
		return err
	}
	if d.engine != enginePostgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_notify($1, '')", changeName)
	return err
}
