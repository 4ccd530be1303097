package history

import (
	"context"
	"time"

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
	// differ from that one's, as diff -u has it.
	Previous string
	Diff     string
}

// SaveVersion keeps a policy that came into force. It does nothing where the
// newest one of the store is the same. ID, Previous and Diff are the store's to
// fill.
func (s *Store) SaveVersion(ctx context.Context, v Version) error { return errUnwritten }

// Versions returns the newest n policies, newest first, without their texts; 0
// is all.
func (s *Store) Versions(ctx context.Context, n int) ([]Version, error) { return nil, errUnwritten }

// Version returns a policy with its texts, by its ID or its Version (the newest
// of that version); [ErrNotFound] when it is not there.
func (s *Store) Version(ctx context.Context, id string) (Version, error) {
	return Version{}, errUnwritten
}

// Overlay is a document of the policy language that somebody wrote into the
// store. It is never changed, only revoked.
type Overlay struct {
	ID      string // ULID
	At      time.Time
	Name    string // of the document, in messages: overlay:NAME
	Text    string // the document
	Author  string
	Reason  string
	Revoked time.Time // zero: it is active
	// RevokedBy and RevokedReason are by whom and why.
	RevokedBy, RevokedReason string
}

// AddOverlay keeps a document and tells all watchers; ID and At are the store's
// to fill. It is the caller's to compile it first.
func (s *Store) AddOverlay(ctx context.Context, o Overlay) (Overlay, error) {
	return Overlay{}, errUnwritten
}

// RevokeOverlay ends a document and tells all watchers; [ErrNotFound] when it is
// not there or was revoked before.
func (s *Store) RevokeOverlay(ctx context.Context, id, by, reason string) error { return errUnwritten }

// Overlays returns the active documents in the order they were written, or with
// all set every one.
func (s *Store) Overlays(ctx context.Context, all bool) ([]Overlay, error) {
	return nil, errUnwritten
}

// Changed returns a channel that gets a value, soon after, whenever an overlay
// was added or revoked by any proxy or person on the store; changes that come
// together are told once. Each call makes a channel of its own, closed when ctx
// ends. It needs Run: PostgreSQL tells at once (LISTEN), SQLite is asked every
// second.
func (s *Store) Changed(ctx context.Context) <-chan struct{} { return nil }
