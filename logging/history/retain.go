package history

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// chunk is how many rows one statement removes: a writer beside it waits no
// longer than for that.
const chunk = 2000

// retain removes what is old, and what is beyond the size.
func (r *run) retain(ctx context.Context) error {
	db := r.database()
	if db == nil {
		return nil
	}
	release, ours, err := db.alone(ctx)
	if err != nil || !ours {
		return err
	}
	defer release()
	sure, err := r.sure(ctx, db)
	if err != nil {
		return err
	}
	if sure {
		if err := r.expire(ctx, db); err != nil {
			return err
		}
	}
	return r.shrink(ctx, db)
}

// alone makes one of many proxies do the removing; the others find it done.
func (d *database) alone(ctx context.Context) (release func(), ours bool, err error) {
	if d.engine != enginePostgres {
		return func() {}, true, nil
	}
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return nil, false, err
	}
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(migrationLock+1)).Scan(&ours); err != nil || !ours {
		_ = conn.Close() // back to the pool
		return nil, false, err
	}
	return func() {
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = conn.ExecContext(over, "SELECT pg_advisory_unlock($1)", int64(migrationLock+1)) // the connection's end lets go of it, too
		_ = conn.Close()
	}, true, nil
}

// sure reports whether the clock can be trusted with what is old: one that is
// ahead would end everything. It is held against the database server's, or,
// where there is none, against the end of the last run.
func (r *run) sure(ctx context.Context, db *database) (bool, error) {
	now := r.cfg.Clock()
	if db.engine == enginePostgres {
		theirs, err := r.serverTime(ctx, db)
		if err != nil {
			return false, fmt.Errorf("ask for the time: %w", err)
		}
		skewed := now.Sub(theirs).Abs() > maxStep
		if skewed && !r.skewed {
			r.cfg.Log.Error().Time("ours", now).Time("theirs", theirs).
				Msg("the clock is not the database's: nothing is removed from the history for its age")
		}
		r.skewed = skewed
		return !skewed && !r.clock.doubted, nil
	}
	if !r.compared {
		var last int64
		err := db.write.QueryRowContext(ctx, "SELECT coalesce(max(at), 0) FROM writer WHERE session <> $1", r.writer.session).Scan(&last)
		if err != nil {
			return false, fmt.Errorf("read writer: %w", err)
		}
		r.compared = true
		if last > 0 && now.Sub(timeOf(last)) > trustOf {
			r.clock.doubt()
		}
	}
	return !r.clock.doubted, nil
}

// expire removes what is older than its time.
func (r *run) expire(ctx context.Context, db *database) error {
	now := r.cfg.Clock()
	keep := r.cfg.Retention
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMicro() }
	for _, step := range []struct {
		what string
		arg  any
	}{
		{"DELETE FROM flow WHERE id IN (SELECT id FROM flow WHERE id < $1 ORDER BY id LIMIT $2)", idAt(now.Add(-keep.Flows))},
		{"DELETE FROM hour WHERE (start, site) IN (SELECT start, site FROM hour WHERE start < $1 ORDER BY start, site LIMIT $2)", ago(keep.Hourly)},
		{"DELETE FROM day WHERE (start, site) IN (SELECT start, site FROM day WHERE start < $1 ORDER BY start, site LIMIT $2)", ago(keep.Daily)},
		{"DELETE FROM trait WHERE (site, kind, value) IN (SELECT site, kind, value FROM trait WHERE last_at < $1 LIMIT $2)", ago(keep.Daily)},
		{"DELETE FROM site WHERE id IN (SELECT id FROM site WHERE last_at < $1 LIMIT $2)", ago(keep.Daily)},
		{"DELETE FROM task WHERE id IN (SELECT id FROM task WHERE last_at < $1 LIMIT $2)", ago(keep.Daily)},
		// What somebody called benign is not to be told again.
		{"DELETE FROM anomaly WHERE id IN (SELECT id FROM anomaly WHERE last_at < $1 AND benign = 0 LIMIT $2)", ago(keep.Daily)},
		{"DELETE FROM baseline WHERE name IN (SELECT name FROM baseline WHERE at < $1 LIMIT $2)", ago(keep.Daily)},
		{"DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE to_at < $1 LIMIT $2)", ago(keep.Daily)},
		{"DELETE FROM writer WHERE session IN (SELECT session FROM writer WHERE at < $1 LIMIT $2)", ago(keep.Flows)},
	} {
		if err := db.removeAll(ctx, step.what, step.arg); err != nil {
			return err
		}
	}
	return nil
}

// removeAll repeats a statement until it removes less than it might.
func (d *database) removeAll(ctx context.Context, statement string, arg any) error {
	for {
		n, err := d.remove(ctx, statement, arg, chunk)
		if err != nil || n < chunk {
			return err
		}
	}
}

func (d *database) remove(ctx context.Context, statement string, args ...any) (int64, error) {
	result, err := d.write.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, fmt.Errorf("remove what is old: %w", err)
	}
	return result.RowsAffected() //nolint:wrapcheck // both drivers always know
}

// shrink removes the oldest flows, then the oldest hours, then the denied
// sites that were visited longest ago, until the store takes no more than it
// may. It goes below that by a twentieth, so as not to come back at once.
func (r *run) shrink(ctx context.Context, db *database) error {
	size, err := db.size(ctx)
	if err != nil {
		return err
	}
	defer func() { r.measured(size) }()
	limit := r.cfg.Retention.Size
	if limit <= 0 || size <= limit {
		return db.vacuum(ctx)
	}
	if err := db.fewer(ctx, limit/siteRoom); err != nil {
		return err
	}
	if size, err = db.size(ctx); err != nil {
		return err
	}
	for _, statement := range []string{
		"DELETE FROM flow WHERE id IN (SELECT id FROM flow ORDER BY id LIMIT $1)",
		"DELETE FROM hour WHERE (start, site) IN (SELECT start, site FROM hour ORDER BY start, site LIMIT $1)",
		"DELETE FROM trait WHERE site IN (SELECT id FROM site WHERE verdict = 0 ORDER BY last_at LIMIT $1)",
		"DELETE FROM site WHERE id IN (SELECT id FROM site WHERE verdict = 0 ORDER BY last_at LIMIT $1)",
		"DELETE FROM day WHERE (start, site) IN (SELECT start, site FROM day ORDER BY start, site LIMIT $1)",
	} {
		for size > limit-limit/20 {
			n, err := db.remove(ctx, statement, chunk)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			if db.engine == enginePostgres {
				size -= n * 400 // the statistics lag behind
				continue
			}
			if size, err = db.size(ctx); err != nil {
				return err
			}
		}
	}
	return db.vacuum(ctx)
}

// siteRoom is how much of a store there is for each site: what belongs to one
// takes about half of it. Names can be made up, and must not take the room of
// the flows.
const siteRoom = 2048

// fewer removes sites until there are no more than most: of those that no rule
// allows first, and of either those that were visited longest ago.
func (d *database) fewer(ctx context.Context, most int64) error {
	var n int64
	if err := d.write.QueryRowContext(ctx, "SELECT count(*) FROM site").Scan(&n); err != nil || n <= most {
		return err
	}
	const oldest = "(SELECT id FROM site ORDER BY verdict - would_deny, last_at LIMIT $1)"
	for n -= most; n > 0; n -= chunk {
		for _, statement := range []string{"DELETE FROM trait WHERE site IN " + oldest, "DELETE FROM site WHERE id IN " + oldest} {
			if _, err := d.remove(ctx, statement, min(n, chunk)); err != nil {
				return err
			}
		}
	}
	for _, table := range []string{"hour", "day"} {
		statement := "DELETE FROM " + table + " WHERE (start, site) IN (SELECT start, site FROM " + table + " WHERE site NOT IN (SELECT id FROM site) LIMIT $1)"
		for removed := int64(chunk); removed == chunk; {
			var err error
			if removed, err = d.remove(ctx, statement, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}

// measured notes the store's size.
func (s *Store) measured(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes = size
}

func (d *database) size(ctx context.Context) (int64, error) {
	if d.engine == enginePostgres {
		return sizeOfPostgres(ctx, d.read)
	}
	return sizeOfSQLite(ctx, d.write)
}

// vacuum gives pages that are free back, a few thousand at a time.
func (d *database) vacuum(ctx context.Context) error {
	if d.engine == enginePostgres {
		return nil // autovacuum
	}
	rows, err := d.write.QueryContext(ctx, "PRAGMA incremental_vacuum(4096)")
	if err != nil {
		return err
	}
	return drained(rows)
}

// drained reads rows that say nothing to their end.
func drained(rows *sql.Rows) error {
	for rows.Next() {
	}
	if err := rows.Err(); err != nil {
		_ = rows.Close()
		return err
	}
	return rows.Close()
}

// idAt returns an identifier that is below all that are made at t or later.
func idAt(t time.Time) string {
	return flow.IDAt(t)
}
