package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// schemaName is where the tables are, unless the URL says search_path.
const schemaName = "sallyport"

// migrationLock is the advisory lock of who changes the tables.
const migrationLock = 0x53414c4c59 // "SALLY"

func postgresConfig(store string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(store)
	if file, ok := errors.AsType[*fs.PathError](err); ok { // sslrootcert and the like
		return nil, fmt.Errorf("the URL names a file that cannot be read: %w", file)
	}
	if err != nil {
		return nil, errors.New("the URL cannot be read: write postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full") // pgx's words may quote the password
	}
	if c.RuntimeParams["search_path"] == "" {
		c.RuntimeParams["search_path"] = schemaName
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "sallyport"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	return c, nil
}

func checkPostgres(store string) error {
	_, err := postgresConfig(store)
	return err
}

func openPostgres(ctx context.Context, store string, as *credentials) (*database, error) {
	c, err := postgresConfig(store)
	if err != nil {
		return nil, err
	}
	var options []stdlib.OptionOpenDB
	if as != nil {
		options = append(options, stdlib.OptionBeforeConnect(as.give))
	}
	db := stdlib.OpenDB(*c, options...)
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour) // so that a fail-over is followed
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return &database{engine: enginePostgres, write: db, read: db}, nil
}

// lockedPostgres does what one proxy at a time may do, of all that start.
func (d *database) lockedPostgres(ctx context.Context, do func(context.Context) error) error {
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // back to the pool
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return fmt.Errorf("wait for other proxies: %w", err)
	}
	defer func() {
		// Also when ctx ended: the connection goes back to the pool.
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = conn.ExecContext(over, "SELECT pg_advisory_unlock($1)", int64(migrationLock)) // the connection's end lets go of it, too
	}()
	if err := makeSchema(ctx, conn); err != nil {
		return err
	}
	return do(ctx)
}

// makeSchema makes the schema that the search path begins with. Who may not
// make one is given one that is there.
func makeSchema(ctx context.Context, conn *sql.Conn) error {
	var there sql.NullString
	if err := conn.QueryRowContext(ctx, "SELECT current_schema()").Scan(&there); err != nil {
		return err
	}
	if there.Valid {
		return nil
	}
	if _, err := conn.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+schemaName); err != nil {
		return fmt.Errorf("make the schema %s: %w", schemaName, err)
	}
	return nil
}

// listen calls changed for each notice of the channel until ctx ends or the
// connection does.
func listenPostgres(ctx context.Context, db *sql.DB, channel string, changed func()) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only listened on
	return conn.Raw(func(raw any) error {
		c := raw.(*stdlib.Conn).Conn() //nolint:forcetypeassert // it is pgx's
		// The connection listens from now on: it must not go back to the pool.
		defer c.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only listened on
		if _, err := c.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
		changed() // what happened before it listened
		for {
			if _, err := c.WaitForNotification(ctx); err != nil {
				return err
			}
			changed()
		}
	})
}

// sizeOfPostgres returns about how many bytes the rows take. What the files take
// tells nothing of it: rows that were deleted leave holes, which are used again.
func sizeOfPostgres(ctx context.Context, db *sql.DB) (int64, error) {
	const flowBytes, rollupBytes, otherBytes = 520, 130, 400 // a row with its part of the indexes
	var n int64
	err := db.QueryRowContext(ctx, `
		SELECT coalesce(sum(CASE relname WHEN 'flow' THEN n_live_tup * $1::bigint
			WHEN 'hour' THEN n_live_tup * $2::bigint WHEN 'day' THEN n_live_tup * $2::bigint
			ELSE n_live_tup * $3::bigint END), 0)::bigint
		FROM pg_stat_user_tables WHERE schemaname = current_schema()`,
		flowBytes, rollupBytes, otherBytes).Scan(&n)
	return n, err
}

func timeOfPostgres(ctx context.Context, d *database) (now time.Time, err error) {
	err = d.write.QueryRowContext(ctx, "SELECT clock_timestamp()").Scan(&now)
	return now, err
}
