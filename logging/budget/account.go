package budget

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Account is what was sent of one budget. It is safe for concurrent use; its
// [Ledger] makes it.
type Account struct {
	clock  func() time.Time
	budget atomic.Pointer[policy.Budget] // as the policy has it that was asked last
	period atomic.Pointer[period]
}

// period is the account in one period of the calendar.
type period struct {
	start, end  time.Time
	own, others atomic.Int64
	told        atomic.Bool // that the budget is spent
}

// current returns the period at hand.
func (a *Account) current() *period {
	for {
		p, now := a.period.Load(), a.clock()
		if p != nil && now.Before(p.end) {
			return p // also when the clock was set back: what is spent stays spent
		}
		next := &period{}
		next.start, next.end = a.budget.Load().Per.Bounds(now)
		if a.period.CompareAndSwap(p, next) {
			return next
		}
	}
}

// Charge adds bytes that were sent. A negative number gives back what was
// charged too much.
func (a *Account) Charge(n int64) { a.current().own.Add(n) }

// Spent reports whether the budget is spent, and when the next period begins.
func (a *Account) Spent() (spent bool, resets time.Time) {
	p := a.current()
	return p.sum() >= a.budget.Load().BytesOut, p.end
}

// sum is what all have sent. A bill that was corrected after the period turned
// may leave a share below nothing.
func (p *period) sum() int64 {
	own, others := max(p.own.Load(), 0), p.others.Load()
	return own + min(others, math.MaxInt64-own) // others may say anything
}

// Balance is the state of an account.
type Balance struct {
	Budget     *policy.Budget
	Sent       int64 // in the period, by all proxies
	Start, End time.Time
}

// Balance returns the state of the account.
func (a *Account) Balance() Balance {
	p := a.current()
	return Balance{Budget: a.budget.Load(), Sent: p.sum(), Start: p.start, End: p.end}
}
