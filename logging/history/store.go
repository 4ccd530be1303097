package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// ErrNotFound is what a question for one thing that is not there ends in.
var ErrNotFound = errors.New("not found")

// ErrUnavailable is what questions end in while the store cannot be opened.
var ErrUnavailable = errors.New("the history's store is not there")

// Store is a history. It is safe for concurrent use; [Open] makes it.
type Store struct {
	cfg      Config
	engine   engine
	as       *credentials // nil: as the URL says
	writer   writer
	observer *observer
	due      chan struct{} // a batch is large enough to be written at once
	watchers watchers
	// serverTime asks the database's server for the time.
	serverTime func(context.Context, *database) (time.Time, error)

	mu     sync.Mutex // protects what follows
	db     *database  // nil while it is not open
	fault  error      // why it is not, or takes nothing; nil when all is well
	since  time.Time  // of fault
	bytes  int64
	last   time.Time // a batch was taken
	counts struct{ flows, batches, failures uint64 }
	// policies came into force and are to be kept.
	policies []Version
}

// openPatience bounds the first try to open a store: traffic waits for it.
const openPatience = 3 * time.Second

// Open opens the store, or makes it. It fails for a Config that cannot be
// meant. A store that is merely not there (a server that does not answer, a
// folder that cannot be written) is no error but tried again by Run: see
// [Store.Health]. For a ReadOnly store it is one.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := CheckStore(c.Store); err != nil {
		return nil, err
	}
	s := newStore(c)
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	err := s.connect(ctx)
	if err == nil {
		return s, nil
	}
	if c.ReadOnly || errors.Is(err, errNewer) {
		return nil, fmt.Errorf("open the history %s: %w", s.Name(), err)
	}
	s.failed(err)
	return s, nil
}

func newStore(c Config) *Store {
	c.Store = cmp.Or(c.Store, Memory)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Instance == "" {
		c.Instance, _ = os.Hostname() // "" is a name as good as any where there is none
	}
	c.Queue = cmp.Or(max(c.Queue, 0), 4096)
	c.PerSite = cmp.Or(c.PerSite, 16)
	d := DefaultRetention(c.Store)
	c.Retention.Flows = cmp.Or(c.Retention.Flows, d.Flows)
	c.Retention.Hourly = cmp.Or(c.Retention.Hourly, d.Hourly)
	c.Retention.Daily = cmp.Or(c.Retention.Daily, d.Daily)
	c.Retention.Size = cmp.Or(c.Retention.Size, d.Size)
	return &Store{
		cfg: c, engine: engineOf(c.Store), as: newCredentials(&c), observer: newObserver(c.Queue, c.PerSite), due: make(chan struct{}, 1),
		writer: writer{session: flow.NewID(), instance: c.Instance, clock: c.Clock}, serverTime: timeOfPostgres,
	}
}

// Name says where the store is, without secrets.
func (s *Store) Name() string {
	if s.engine != enginePostgres {
		return s.cfg.Store
	}
	c, err := postgresConfig(s.cfg.Store)
	if err != nil {
		return "postgres"
	}
	return fmt.Sprintf("postgres://%s:%d/%s", c.Host, c.Port, c.Database)
}

// Instance returns the name of this proxy.
func (s *Store) Instance() string { return s.cfg.Instance }

// connect opens the database unless it is open. A damaged file is set aside
// first.
func (s *Store) connect(ctx context.Context) error {
	if s.database() != nil {
		return nil
	}
	db, err := open(ctx, s.cfg.Store, s.as, s.cfg.ReadOnly)
	if damaged(err) && s.engine == engineFile && !s.cfg.ReadOnly {
		if err := s.setAside(err); err != nil {
			return err
		}
		db, err = open(ctx, s.cfg.Store, s.as, false)
	}
	if err != nil {
		return s.scrub(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
	return nil
}

// setAside makes room for a new file.
func (s *Store) setAside(why error) error {
	aside, err := setAside(strings.TrimPrefix(s.cfg.Store, "sqlite:"), s.cfg.Clock())
	if err != nil {
		return fmt.Errorf("the file is damaged (%w), and cannot be set aside: %w", why, err)
	}
	s.cfg.Log.Error().Err(why).Str("store", s.Name()).Str("kept_as", aside).
		Msg("the history's file is damaged: it was set aside and a new one begun")
	now := s.cfg.Clock()
	s.observer.gap(Gap{From: now, To: now, Reason: "the file was damaged; it is kept as " + aside})
	return nil
}

// scrub removes what may be secret from an error: pgx repeats the user and the
// host, never the password, but a URL may be anywhere.
func (s *Store) scrub(err error) error {
	if s.engine != enginePostgres || !strings.Contains(err.Error(), s.cfg.Store) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), s.cfg.Store, s.Name()))
}

func (s *Store) database() *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db
}

// reader returns the database to look at.
func (s *Store) reader() (*database, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, s.fault)
	}
	return s.db, nil
}

// Observe implements [flow.Reader]. It never waits.
func (s *Store) Observe(e flow.Event) { s.Borrow(&e) }

// Borrow implements [flow.Borrower].
func (s *Store) Borrow(e *flow.Event) {
	if s.observer.observe(e, s.cfg.Clock()) {
		select {
		case s.due <- struct{}{}:
		default: // it is known
		}
	}
}

// Close lets go of the store. Call it after Run has returned.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.db.close()
	s.db = nil
	s.fault = cmp.Or(s.fault, errClosed)
	return err
}

var errClosed = errors.New("it was closed")

// failed notes what is wrong, and says it once.
func (s *Store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.failures++
	if s.fault == nil {
		s.since = s.cfg.Clock()
		s.cfg.Log.Error().Err(err).Str("store", s.Name()).Msg("the history is not written; what is seen meanwhile is kept as far as there is room")
	}
	s.fault = err
}

// took notes that the store took a batch, and says so if it did not before.
func (s *Store) took(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.batches++
	s.counts.flows += uint64(len(b.flows))
	s.last = s.cfg.Clock()
}

// well notes that nothing is wrong any more, and says so if something was.
func (s *Store) well() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		s.cfg.Log.Info().Str("store", s.Name()).Float64("seconds", s.cfg.Clock().Sub(s.since).Seconds()).Msg("the history is written again")
	}
	s.fault = nil
}

// Health says how the store does.
func (s *Store) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		return Health{OK: true, Detail: s.Name()}
	}
	return Health{Detail: fmt.Sprintf("%s: not written since %s: %v", s.Name(), s.since.UTC().Format(time.RFC3339), s.fault)}
}

// Stats returns the figures.
func (s *Store) Stats() Stats {
	stats, pending := s.observer.snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Pending = pending
	stats.Up = s.fault == nil
	stats.Flows, stats.Batches, stats.Failures = s.counts.flows, s.counts.batches, s.counts.failures
	stats.Bytes, stats.LastWrite = s.bytes, s.last
	return stats
}
