package history

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/pressly/goose/v3"
)

// engine is what keeps the rows.
type engine uint8

const (
	engineMemory engine = iota
	engineFile
	enginePostgres
)

// engineOf returns the engine of a store that was checked.
func engineOf(store string) engine {
	switch {
	case store == "" || store == Memory:
		return engineMemory
	case strings.HasPrefix(store, "sqlite:"):
		return engineFile
	}
	return enginePostgres
}

// CheckStore says what is wrong with a Config.Store; nil for nothing. It opens
// nothing, and its error never quotes what may hold a password.
func CheckStore(store string) error {
	path, isFile := strings.CutPrefix(store, "sqlite:")
	switch {
	case store == "":
		return nil
	case isFile && path == "":
		return errors.New(`"sqlite:" has no path`)
	case isFile && path != ":memory:" && strings.HasPrefix(path, ":"):
		return errors.New(`"sqlite:" takes a path, or ":memory:"`)
	case isFile:
		return nil
	case !strings.HasPrefix(store, "postgres://") && !strings.HasPrefix(store, "postgresql://"):
		return errors.New("neither sqlite:PATH nor a URL postgres://…")
	}
	return checkPostgres(store)
}

// database is an open store: two handles, so that who looks does not wait for
// who writes.
type database struct {
	engine engine
	write  *sql.DB
	read   *sql.DB
}

// close lets go of both handles.
func (d *database) close() error {
	err := d.write.Close()
	if d.read != d.write {
		err = errors.Join(err, d.read.Close())
	}
	return err
}

//go:embed migrations/*.sql
var migrations embed.FS

// open opens a store and brings its tables up to date; one that is only looked
// at must have them already.
func open(ctx context.Context, store string, as *credentials, readOnly bool) (*database, error) {
	var d *database
	var err error
	switch engineOf(store) {
	case enginePostgres:
		d, err = openPostgres(ctx, store, as)
	default:
		d, err = openSQLite(ctx, store, readOnly)
	}
	if err != nil {
		return nil, err
	}
	if err := d.prepare(ctx, readOnly); err != nil {
		_ = d.close() // the first error counts
		return nil, err
	}
	return d, nil
}

func (d *database) prepare(ctx context.Context, readOnly bool) error {
	if readOnly {
		var n int64
		if err := d.read.QueryRowContext(ctx, "SELECT count(*) FROM change").Scan(&n); err != nil {
			return fmt.Errorf("this is no history, or one that was never written: %w", err)
		}
		_, err := d.known(ctx)
		return err
	}
	if d.engine == enginePostgres {
		// Whoever may connect can hold the lock, also who may only look: nobody waits
		// for it to do nothing.
		if current, err := d.known(ctx); current || errors.Is(err, errNewer) {
			return err
		}
		return d.lockedPostgres(ctx, d.migrate)
	}
	return d.migrate(ctx)
}

// errNewer is for a store that a later version of this program has changed.
var errNewer = errors.New("the store was made by a newer sallyport")

func (d *database) migrate(ctx context.Context) error {
	dialect := goose.DialectSQLite3
	if d.engine == enginePostgres {
		dialect = goose.DialectPostgres
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	provider, err := goose.NewProvider(dialect, d.write, files,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the store: %w", err)
	}
	if current > target {
		return fmt.Errorf("%w: version %d, this one knows %d", errNewer, current, target)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the store up to date: %w", err)
	}
	return nil
}

// known reports whether a store's tables are this version's. Those are an error
// whose rows a later version may have given another meaning.
func (d *database) known(ctx context.Context) (current bool, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return false, fmt.Errorf("migrations: %w", err)
	}
	var version int64
	if err := d.read.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&version); err != nil {
		return false, fmt.Errorf("read the version of the store: %w", err)
	}
	target := int64(len(files)) // they are numbered from 1 on
	if version > target {
		return false, fmt.Errorf("%w: version %d, this one knows %d", errNewer, version, target)
	}
	return version == target, nil
}

// sqliteName returns the data source's name for a path.
func sqliteName(path string, parameters ...string) string {
	name := url.URL{Scheme: "file", Opaque: strings.ReplaceAll(url.PathEscape(path), "%2F", "/")}
	return name.String() + "?" + strings.Join(parameters, "&")
}
