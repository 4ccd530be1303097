package history

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"
)

// watchers are told of changes.
type watchers struct {
	mu    sync.Mutex // protects what follows
	all   map[chan struct{}]bool
	ended bool
}

// Changed returns a channel that holds a value, and gets another, soon after,
// whenever an overlay was added or revoked by any proxy or person on the store;
// changes that come together are told once, and now and then there was none.
// Each call makes a channel of its own, closed when ctx or Run ends. It needs Run: PostgreSQL tells at once (LISTEN), and either
// engine is asked every second, or every ten where it tells by itself.
func (s *Store) Changed(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	s.watchers.add(ch)
	context.AfterFunc(ctx, func() { s.watchers.remove(ch) })
	return ch
}

func (w *watchers) add(ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		close(ch)
		return
	}
	if w.all == nil {
		w.all = map[chan struct{}]bool{}
	}
	w.all[ch] = true
}

func (w *watchers) remove(ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all[ch] {
		delete(w.all, ch)
		close(ch)
	}
}

func (w *watchers) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.all {
		select {
		case ch <- struct{}{}:
		default: // it has not yet heard of the change before
		}
	}
}

func (w *watchers) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for ch := range w.all {
		close(ch)
	}
	clear(w.all)
}

const (
	pollEvery   = time.Second
	listenEvery = 10 * time.Second // beside LISTEN, whose connection may be dead without a word
	noticeEvery = 100 * time.Millisecond
)

// watch looks for changes until ctx ends.
func (s *Store) watch(ctx context.Context) {
	every := pollEvery
	told := make(chan struct{}, 1)
	if s.engine == enginePostgres {
		every = listenEvery
		var listening sync.WaitGroup
		defer listening.Wait()
		listening.Go(func() { s.listen(ctx, told) })
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	seen := int64(-1)
	for {
		if db := s.database(); db != nil {
			if n, err := db.changes(ctx); err == nil && n != seen {
				s.watchers.tell()
				seen = n
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-told:
			select { // whoever may connect may notify, as often as he likes
			case <-ctx.Done():
				return
			case <-time.After(noticeEvery):
			}
		case <-ticker.C:
		}
	}
}

// listen is told by PostgreSQL, and listens again when that ends.
func (s *Store) listen(ctx context.Context, told chan<- struct{}) {
	for ctx.Err() == nil {
		if db := s.database(); db != nil {
			_ = listenPostgres(ctx, db.read, changeName, func() { // it is tried again, and polled beside it
				select {
				case told <- struct{}{}:
				default: // it is known
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// changes returns how often overlays have changed.
func (d *database) changes(ctx context.Context) (int64, error) {
	var n int64
	err := d.read.QueryRowContext(ctx, "SELECT n FROM change WHERE name = $1", changeName).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}
