package history

import (
	"context"
	"errors"
	"iter"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Store is a history. It is safe for concurrent use; [Open] makes it.
type Store struct{}

var errUnwritten = errors.New("the history is not written yet") // while the skeleton stands

// Open opens the store, or makes it. It fails for a Config that cannot be
// meant. A store that is merely not there (a server that does not answer, a
// folder that cannot be written) is no error but tried again by Run: see
// [Store.Health]. A ReadOnly store that is not there is an error.
func Open(ctx context.Context, c Config) (*Store, error) { return nil, errUnwritten }

// Observe implements [flow.Reader]. It never waits.
func (s *Store) Observe(e flow.Event) {}

// Run writes what was observed until ctx ends and all of it is written, for at
// most [flow.DefaultDrain]. It also ends what is old and tells watchers of
// changes. Call it once, and end ctx after the last connection was recorded.
func (s *Store) Run(ctx context.Context) error { return errUnwritten }

// Close lets go of the store. Call it after Run has returned.
func (s *Store) Close() error { return errUnwritten }

// Sites returns the sites that f selects, by caller, host, port. Figures are
// those between Since and Until, rounded outwards to whole hours, or to whole
// days where the hours are gone; without both they are those of all time.
func (s *Store) Sites(ctx context.Context, f Filter) ([]Site, error) { return nil, errUnwritten }

// Flows yields the flows that f selects, newest first. Nothing is held open in
// the store between two of them. It ends after an error.
func (s *Store) Flows(ctx context.Context, f Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) { yield(Flow{}, errUnwritten) }
}

// Flow returns one flow; [ErrNotFound] when it is not there.
func (s *Store) Flow(ctx context.Context, id string) (Flow, error) { return Flow{}, errUnwritten }

// ErrNotFound is what a question for one thing that is not there ends in.
var ErrNotFound = errors.New("not found")

// Query returns the question that the policy was asked, so that another can be
// asked it. It reports false where there is none: no name was learned, or the
// name is [Other]'s. At is the flow's start.
//
// A DNS question is asked as TLS on 443; the DNS server asks for HTTP on 80,
// too, and answers when either is allowed.
func (f *Flow) Query() (policy.Query, bool) { return policy.Query{}, false }

// Query returns the question of the site's last visitor, see [Flow.Query]. Its
// answer is the site's but for policies that ask for addresses, tasks' tags or
// revisions; then it is the last visitor's.
func (s *Site) Query() (policy.Query, bool) { return policy.Query{}, false }

// Decided reports whether r is a reason that [policy.Policy.Decide] gives; the
// others are found out on the way (a name that does not match, an address, a
// limit), and no replay of the question tells them.
func Decided(r policy.Reason) bool { return false }
