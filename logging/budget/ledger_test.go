package budget

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a Store in memory.
type shelf struct {
	mu    sync.Mutex
	texts map[string][]byte
	down  error
}

func (s *shelf) SaveBaseline(_ context.Context, key string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down
	}
	if s.texts == nil {
		s.texts = make(map[string][]byte)
	}
	if s.texts[key] = data; data == nil {
		delete(s.texts, key)
	}
	return nil
}

func (s *shelf) Baselines(_ context.Context, prefix string) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.texts)
	maps.DeleteFunc(out, func(k string, _ []byte) bool { return !strings.HasPrefix(k, prefix) })
	return out, s.down
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

func (s *shelf) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.texts)
}

func daily(limit int64) *policy.Budget {
	return &policy.Budget{Of: policy.BudgetOfRule, Name: "up", BytesOut: limit, Per: policy.PerDay, Action: policy.BudgetDeny}
}

// start runs a ledger until the returned function is called.
func start(t *testing.T, store Store, session string, over func(Balance)) (*Ledger, func()) {
	t.Helper()
	l := New(Config{Session: session, Over: over}, store)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return l, func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func spent(l *Ledger, b *policy.Budget) bool {
	s, _ := l.Account(b).Spent()
	return s
}

func TestPeriodsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Session: "a"}, nil)
		b := daily(100)
		l.Account(b).Charge(99)
		if spent(l, b) {
			t.Error("99 of 100 is spent")
		}
		l.Account(b).Charge(1)
		if !spent(l, b) {
			t.Error("100 of 100 is not spent")
		}
		if larger := daily(200); spent(l, larger) {
			t.Error("a larger budget of the same rule is spent")
		}
		_, resets := l.Account(b).Spent()
		if want := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC); !resets.Equal(want) { // synctest begins at 2000
			t.Errorf("it begins anew at %s", resets)
		}
		<-time.After(time.Until(resets) - time.Second)
		if !spent(l, b) {
			t.Error("it is whole before the day ends")
		}
		<-time.After(time.Second)
		l.Account(b).Charge(-5) // a correction of what was charged yesterday
		l.Account(b).Charge(99)
		if spent(l, b) {
			t.Error("yesterday's bytes count today")
		}
	})
}

func TestFleetShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shelf{}
		var mu sync.Mutex
		told := map[string]int{}
		over := func(name string) func(Balance) {
			return func(b Balance) {
				mu.Lock()
				defer mu.Unlock()
				told[fmt.Sprintf("%s %d of %d", name, b.Sent, b.Budget.BytesOut)]++
			}
		}
		a, stopA := start(t, store, "a", over("a"))
		b, stopB := start(t, store, "b", over("b"))
		a.Account(daily(100)).Charge(60)
		b.Account(daily(100)).Charge(50)
		<-time.After(2 * DefaultEvery)
		synctest.Wait()
		for name, l := range map[string]*Ledger{"a": a, "b": b} {
			if !spent(l, daily(100)) || l.Balances()[0].Sent != 110 {
				t.Errorf("%s: %+v", name, l.Balances())
			}
		}
		<-time.After(10 * DefaultEvery)
		stopA()
		if len(told) != 2 || told["a 110 of 100"] != 1 || told["b 110 of 100"] != 1 {
			t.Errorf("told: %v", told)
		}
		// A new process in a's place finds what a has sent.
		c, stopC := start(t, store, "c", nil)
		c.Account(daily(100))
		<-time.After(2 * DefaultEvery)
		synctest.Wait()
		if got := c.Balances()[0].Sent; got != 110 {
			t.Errorf("after a restart: %d", got)
		}
		store.fail(errors.New("away"))
		c.Account(daily(100)).Charge(7)
		<-time.After(2 * DefaultEvery)
		synctest.Wait()
		if got := c.Balances()[0].Sent; got != 117 {
			t.Errorf("without the store: %d", got)
		}
		store.fail(nil)
		// The next day the shares of the past are taken away.
		<-time.After(26 * time.Hour)
		synctest.Wait()
		if got := c.Balances()[0].Sent; got != 0 || store.len() > 2 {
			t.Errorf("the next day: %d, %d shares", got, store.len())
		}
		stopB()
		stopC()
	})
}

func TestForeignShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shelf{}
		far := time.Now().Add(1000 * time.Hour).Format(time.RFC3339)
		today := time.Now().UTC().Truncate(24 * time.Hour).Format(time.RFC3339)
		for k, text := range map[string]string{
			"budget/x": "not JSON",
			"budget/y": `{"until":"` + far + `","accounts":{"rule/up/day":{"start":"` + today + `","bytes":-500}}}`,
			"budget/z": `{"until":"` + far + `","accounts":{"rule/up/day":{"start":"1999-01-01T00:00:00Z","bytes":500},"rule/other/day":{"start":"` + today + `","bytes":9}}}`,
		} {
			if err := store.SaveBaseline(t.Context(), k, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		l, stop := start(t, store, "a", nil)
		l.Account(daily(100)).Charge(1)
		<-time.After(2 * DefaultEvery)
		synctest.Wait()
		if got := l.Balances()[0].Sent; got != 1 {
			t.Errorf("sent %d", got)
		}
		stop()
	})
}

func TestChargeConcurrently(t *testing.T) {
	l := New(Config{Session: "a"}, nil)
	b := daily(1 << 40)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				l.Account(b).Charge(3)
			}
		})
	}
	wg.Wait()
	if got := l.Balances()[0].Sent; got != 24_000 {
		t.Errorf("sent %d", got)
	}
}

func BenchmarkCharge(b *testing.B) {
	l := New(Config{Session: "a"}, nil)
	budget := daily(1 << 40)
	b.ReportAllocs()
	for b.Loop() {
		a := l.Account(budget)
		a.Charge(1)
		if s, _ := a.Spent(); s {
			b.Fatal("spent")
		}
	}
}
