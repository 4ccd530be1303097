package policy

import "sync/atomic"

// Live is the policy in force, swapped as a whole while decisions go on. It
// is safe for concurrent use, and its zero value denies everything.
type Live struct {
	current atomic.Pointer[Policy]
}

// NewLive returns a Live without a policy: it denies everything until the
// first [Live.Swap].
func NewLive() *Live { return &Live{} }

// Swap puts a policy in force and returns the one that was, nil when there
// was none. A nil policy denies everything.
func (l *Live) Swap(p *Policy) (old *Policy) { return l.current.Swap(p) }

// Current returns the policy in force, nil when there is none.
func (l *Live) Current() *Policy { return l.current.Load() }

// Decide answers a query by the policy in force at this moment.
func (l *Live) Decide(q Query) Decision { return l.Current().Decide(q) }

// Version names the policy in force, "" when there is none.
func (l *Live) Version() string { return l.Current().Version() }
