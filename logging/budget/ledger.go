package budget

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
)

// Store is where proxies leave their shares for each other.
type Store interface {
	// SaveBaseline keeps a text under a key, in place of what was there.
	SaveBaseline(ctx context.Context, key string, data []byte) error
	// Baselines returns the texts of all keys that begin with prefix.
	Baselines(ctx context.Context, prefix string) (map[string][]byte, error)
}

// Config is what a [Ledger] needs to know. Only Session is required.
type Config struct {
	// Session names this run of this process among all that share the store.
	Session string
	// Every is how often shares are exchanged; 0 is [DefaultEvery].
	Every time.Duration
	// Over is called from Run, once a period, for each budget that is spent. It
	// must not wait. It may be nil.
	Over func(Balance)
	// Log is told when the store cannot be asked.
	Log zerolog.Logger
	// Clock is time.Now but in tests; nil is time.Now.
	Clock func() time.Time
}

// DefaultEvery is how often shares are exchanged.
const DefaultEvery = 5 * time.Second

// prefix begins the keys of shares.
const prefix = "budget/"

// keep is how long a share is kept beyond its last period.
const keep = time.Hour

// Ledger has the accounts of all budgets. Make it with [New], then Run it.
type Ledger struct {
	cfg   Config
	store Store // nil: this proxy is alone

	accounts atomic.Pointer[map[key]*Account]
	mu       sync.Mutex // guards the replacing of accounts

	// What follows belongs to Run.
	saved string // as it was written last
	away  bool   // the store was not there at the last look
}

// key is what makes budgets of several policies the same account.
type key struct {
	of   policy.BudgetOf
	name string
	per  policy.Period
}

func keyOf(b *policy.Budget) key { return key{b.Of, b.Name, b.Per} }

// String returns the key as a share has it.
func (k key) String() string { return string(k.of) + "/" + k.name + "/" + k.per.String() }

// New returns a Ledger that shares with all others on the store; nil stands for
// none.
func New(c Config, store Store) *Ledger {
	c.Every = cmp.Or(c.Every, DefaultEvery)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	l := &Ledger{cfg: c, store: store}
	l.accounts.Store(&map[key]*Account{})
	return l
}

// Account returns the account of a budget: the same one for as long as the
// budget is of the same source or rule and for the same period, whatever policy
// it stands in. The policy that was asked last says how large it is.
func (l *Ledger) Account(b *policy.Budget) *Account {
	a := (*l.accounts.Load())[keyOf(b)]
	if a == nil {
		a = l.open(b)
	}
	if a.budget.Load() != b {
		a.budget.Store(b)
	}
	return a
}

func (l *Ledger) open(b *policy.Budget) *Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.accounts.Load()
	if a := old[keyOf(b)]; a != nil {
		return a
	}
	a := &Account{clock: l.cfg.Clock}
	a.budget.Store(b)
	all := maps.Clone(old)
	all[keyOf(b)] = a
	l.accounts.Store(&all)
	return a
}

// Balances returns the state of all accounts, by name.
func (l *Ledger) Balances() []Balance {
	var all []Balance
	for _, a := range *l.accounts.Load() {
		all = append(all, a.Balance())
	}
	slices.SortFunc(all, func(a, b Balance) int {
		return strings.Compare(keyOf(a.Budget).String(), keyOf(b.Budget).String())
	})
	return all
}

// Run exchanges shares until ctx ends, and writes the last one. Call it once,
// and end ctx after the last connection was recorded.
func (l *Ledger) Run(ctx context.Context) error {
	ticker := time.NewTicker(l.cfg.Every)
	defer ticker.Stop()
	for {
		l.look(ctx)
		select {
		case <-ctx.Done():
			l.last(context.WithoutCancel(ctx))
			return nil
		case <-ticker.C:
		}
	}
}

// last exchanges shares at the end, if that takes no time.
func (l *Ledger) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l.look(ctx)
}

// look exchanges shares once, and tells of what is spent.
func (l *Ledger) look(ctx context.Context) {
	if l.store != nil {
		ctx, cancel := context.WithTimeout(ctx, l.cfg.Every)
		defer cancel()
		err := l.write(ctx)
		if err == nil {
			err = l.read(ctx)
		}
		if away := err != nil; away != l.away && ctx.Err() == nil {
			l.away = away
			if away {
				l.cfg.Log.Warn().Err(err).Msg("what other proxies send of the budgets is not known")
			} else {
				l.cfg.Log.Info().Msg("what other proxies send of the budgets is known again")
			}
		}
	}
	for _, a := range *l.accounts.Load() {
		p := a.current()
		if spent, _ := a.Spent(); spent && p.told.CompareAndSwap(false, true) && l.cfg.Over != nil {
			l.cfg.Over(a.Balance())
		}
	}
}

// share is what one run of a process has sent, as the store has it.
type share struct {
	Until    time.Time       `json:"until"` // the end of the last of its periods
	Accounts map[string]part `json:"accounts"`
}

// part is what was sent of one budget in the period that began at Start.
type part struct {
	Start time.Time `json:"start"`
	Bytes int64     `json:"bytes"`
}

// write saves this proxy's share if it has changed.
func (l *Ledger) write(ctx context.Context) error {
	s := share{Accounts: make(map[string]part)}
	for k, a := range *l.accounts.Load() {
		p := a.current()
		if n := p.own.Load(); n > 0 {
			s.Accounts[k.String()] = part{p.start, n}
			if p.end.After(s.Until) {
				s.Until = p.end
			}
		}
	}
	if len(s.Accounts) == 0 && l.saved == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("word the shares of budgets: %w", err)
	}
	if string(data) == l.saved {
		return nil
	}
	if err := l.store.SaveBaseline(ctx, prefix+l.cfg.Session, data); err != nil {
		return fmt.Errorf("save the shares of budgets: %w", err)
	}
	l.saved = string(data)
	return nil
}

// read adds up what the others have sent, and takes away what nobody needs any
// more.
func (l *Ledger) read(ctx context.Context) error {
	texts, err := l.store.Baselines(ctx, prefix)
	if err != nil {
		return fmt.Errorf("read the shares of budgets: %w", err)
	}
	accounts := *l.accounts.Load()
	sums := make(map[string]int64)
	starts := make(map[string]*period)
	for k, a := range accounts {
		starts[k.String()] = a.current()
	}
	for name, text := range texts {
		if name == prefix+l.cfg.Session {
			continue
		}
		var s share
		if json.Unmarshal(text, &s) != nil {
			continue // nobody's, or of another version of this program
		}
		if len(text) > 0 && l.cfg.Clock().After(s.Until.Add(keep)) {
			_ = l.store.SaveBaseline(ctx, name, nil) // if it fails, the next look finds it again
			continue
		}
		for k, part := range s.Accounts {
			if p := starts[k]; p != nil && part.Start.Equal(p.start) {
				sums[k] += min(max(part.Bytes, 0), math.MaxInt64-sums[k])
			}
		}
	}
	for k, p := range starts {
		p.others.Store(sums[k])
	}
	return nil
}
