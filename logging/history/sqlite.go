package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sallyport/sallyport/logging/flow"
)

// openSQLite opens a file, or memory. One connection writes; a few read beside
// it, each from the last commit.
func openSQLite(ctx context.Context, store string, readOnly bool) (*database, error) {
	path := strings.TrimPrefix(store, "sqlite:")
	pragmas := []string{"_txlock=immediate", "_pragma=busy_timeout(5000)"}
	d := &database{engine: engineOf(store)}
	switch {
	case d.engine == engineMemory:
		// memdb is shared by its connections and lives as long as any of them: one
		// that is lost to a cancelled statement loses no rows.
		// Its name must be nobody else's in the process.
		path = "/sallyport-history-" + flow.NewID()
		pragmas = append(pragmas, "vfs=memdb", "_pragma=auto_vacuum(2)", "_pragma=cache_size(-128)")
	case readOnly:
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		pragmas = append(pragmas, "mode=ro")
	default:
		// NORMAL: a killed process loses nothing that was committed, a machine that
		// loses power the last seconds.
		pragmas = append(pragmas, "_pragma=auto_vacuum(2)", "_pragma=journal_mode(WAL)", "_pragma=synchronous(NORMAL)",
			"_pragma=journal_size_limit(16777216)", "_pragma=cache_size(-4096)")
	}
	name := sqliteName(path, pragmas...)
	var err error
	if d.write, err = sql.Open("sqlite", name); err != nil {
		return nil, err
	}
	d.write.SetMaxOpenConns(1)
	if d.read, err = sql.Open("sqlite", name+"&_pragma=query_only(1)"); err != nil {
		_ = d.write.Close()
		return nil, err
	}
	d.read.SetMaxOpenConns(4)
	d.read.SetMaxIdleConns(1)
	d.read.SetConnMaxIdleTime(time.Minute)
	if err := d.write.PingContext(ctx); err != nil {
		_ = d.close()
		return nil, err
	}
	return d, nil
}

// sqliteCode returns the primary result code of SQLite, 0 when err is none of
// its errors.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// damaged reports whether err says that the file itself is no good.
func damaged(err error) bool {
	code := sqliteCode(err)
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// setAside renames a damaged file and what belongs to it, so that a new one can
// be begun and the old one be looked at.
func setAside(path string, now time.Time) (string, error) {
	aside := fmt.Sprintf("%s.corrupt-%s", path, now.UTC().Format("20060102T150405.000Z"))
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, tail := range []string{"-wal", "-shm"} {
		// They are not always there.
		if err := os.Rename(path+tail, aside+tail); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return filepath.Base(aside), nil
}

// sizeOfSQLite returns how many bytes the rows take; pages that are free are
// not theirs.
func sizeOfSQLite(ctx context.Context, db *sql.DB) (int64, error) {
	var pages, free, page int64
	for _, q := range []struct {
		pragma string
		to     *int64
	}{{"page_count", &pages}, {"freelist_count", &free}, {"page_size", &page}} {
		if err := db.QueryRowContext(ctx, "PRAGMA "+q.pragma).Scan(q.to); err != nil {
			return 0, err
		}
	}
	return (pages - free) * page, nil
}
