package proxy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// meterEvery is how often the bytes of attempts under way are charged. What a
// stream sends between two looks, with what the kernel has yet to send, is what
// may go beyond a budget: at 1 Gbit/s some 13 MB and the socket's buffer.
const meterEvery = 100 * time.Millisecond

// meter charges what an attempt sends to the accounts of its budgets: while it
// is under way what the kernel has seen acknowledged, at its end what was
// counted. Attempts without a budget have none.
type meter struct {
	entries []metered // not changed once the attempt is under way

	mu      sync.Mutex // guards the rest
	charged int64
	base    uint64 // acknowledged before the attempt began
	over    bool   // charged for good
}

// metered is one account that an attempt is charged to.
type metered struct {
	budget  *policy.Budget
	account Account
}

// overrun is a budget that is spent: why an attempt is refused, marked or cut.
type overrun struct {
	budget *policy.Budget
	resets time.Time
}

// Error is the overrun for the record.
func (o *overrun) Error() string {
	return fmt.Sprintf("%s, until %s", o.meaning(), o.resets.Format(time.RFC3339))
}

// meaning is the overrun for the caller: it names nothing that the caller may
// not know.
func (o *overrun) meaning() string {
	return fmt.Sprintf("the budget of the %s is spent: %s out per %s",
		o.budget.Subject(), policy.SizeText(o.budget.BytesOut), o.budget.Per)
}

// account opens the attempt's meter, and refuses the attempt if one of its
// budgets is spent that denies.
func (a *attempt) account() *refusal {
	a.meter = nil
	if a.s.deps.Ledger == nil {
		return nil
	}
	for b := range a.decision.Budgets() {
		if a.meter == nil {
			a.meter = &meter{}
		}
		a.meter.entries = append(a.meter.entries, metered{b, a.s.deps.Ledger.Account(b)})
	}
	over := a.meter.spent()
	if over == nil {
		return nil
	}
	if a.decision.Mode == policy.Report {
		a.mark(policy.ReasonLimit, over)
		return nil
	}
	return overBudget(over)
}

// overBudget is the refusal of an attempt whose budget is spent.
func overBudget(over *overrun) *refusal {
	r := denial(policy.ReasonLimit, over)
	r.over = over
	r.hint = fmt.Sprintf("wait until %s, when it begins anew, or ask the policy's owner for more", over.resets.Format(time.RFC3339))
	return r
}

// spent returns the first of the budgets that deny which is spent, nil for
// none.
func (m *meter) spent() *overrun {
	if m == nil {
		return nil
	}
	for _, e := range m.entries {
		if e.budget.Action != policy.BudgetDeny {
			continue
		}
		if spent, resets := e.account.Spent(); spent {
			return &overrun{e.budget, resets}
		}
	}
	return nil
}

// begin notes what origin had acknowledged before the attempt ran on it.
func (m *meter) begin(origin *net.TCPConn) {
	if m == nil {
		return
	}
	info, ok := readTCPInfo(origin)
	m.mu.Lock()
	defer m.mu.Unlock()
	if ok {
		m.base = info.acked
	}
}

// read charges what was acknowledged since the last look.
func (m *meter) read(acked uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over && acked > m.base {
		m.chargeLocked(max(int64(acked-m.base), m.charged))
	}
}

// settle charges what was sent in all, once; nothing is charged after it. What
// was acknowledged holds what the record does not count (heads, TLS), which is
// given back.
func (m *meter) settle(sent int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over {
		m.over = true
		m.chargeLocked(sent)
	}
}

func (m *meter) chargeLocked(total int64) {
	if n := total - m.charged; n != 0 {
		for _, e := range m.entries {
			e.account.Charge(n)
		}
	}
	m.charged = total
}

// settle ends the attempt's meter. Report mode is told what enforcing would
// have cut.
func (a *attempt) settle() {
	a.meter.settle(a.rec.BytesSent)
	if a.decision.Mode == policy.Report {
		if over := a.meter.spent(); over != nil {
			a.mark(policy.ReasonLimit, over)
		}
	}
}

// watchBudgets charges the flights that have a budget, and cuts those whose
// budget is spent. While there are none it sleeps.
func (s *Server) watchBudgets(ctx context.Context) {
	ticker := time.NewTicker(meterEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.live.measured:
		}
		for flights := s.live.listMetered(); flights != nil; flights = s.live.listMetered() {
			for _, f := range flights {
				f.charge()
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}
}

// charge charges what the flight has sent, and cuts it if it must not go on.
func (f *flight) charge() {
	if acked, ok := f.acknowledged(); ok {
		f.meter.read(acked)
	}
	if f.learning.Load() {
		return
	}
	if over := f.meter.spent(); over != nil {
		f.over.CompareAndSwap(nil, over)
		f.cut(flow.EndedByPolicy)
	}
}

// acknowledged returns what the flight's origin has acknowledged, in the life
// of its connection. A socket that cannot be asked is closed: its owner is at
// work.
func (f *flight) acknowledged() (uint64, bool) {
	if t := f.tunnel.Load(); t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		info, ok := t.server.info()
		return info.acked, ok
	}
	origin := f.origin.Load()
	if origin == nil {
		return 0, false
	}
	info, ok := readTCPInfo(origin)
	return info.acked, ok
}

// closeCut ends an attempt whose flight was cut from outside.
func (a *attempt) closeCut(f *flight, by flow.EndedBy) {
	if over := f.over.Load(); over != nil && by == flow.EndedByPolicy {
		a.close(flow.Outcome(policy.ReasonLimit), by, over.Error())
		return
	}
	a.close(outcomeOfCut(by), by, "")
}

// refusalOfCut is what a client is told whose exchange was cut before it was
// answered.
func refusalOfCut(f *flight, by flow.EndedBy, err error) *refusal {
	if over := f.over.Load(); over != nil && by == flow.EndedByPolicy {
		r := overBudget(over)
		r.endedBy = by
		return r
	}
	return &refusal{outcome: outcomeOfCut(by), endedBy: by, err: err}
}
