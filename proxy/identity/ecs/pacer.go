package ecs

import (
	"context"
	"sync"
	"time"
)

// The bounds of what is asked of one account and Region. AWS refills some 20
// calls a second, for everybody in the account together.
const (
	callRate  = 10 // calls a second, in the long run
	callBurst = 60 // beyond that, so that 3,000 tasks are known at once
)

// pacer is a token bucket.
type pacer struct {
	mu     sync.Mutex // protects what follows
	tokens float64
	at     time.Time
}

func newPacer() *pacer { return &pacer{tokens: callBurst} }

// wait returns when the next call may be made.
func (p *pacer) wait(ctx context.Context) error {
	delay := p.take(time.Now())
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take takes a token, which may be one that is still to come, and returns how
// long that is.
func (p *pacer) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.at.IsZero() {
		p.tokens = min(callBurst, p.tokens+callRate*now.Sub(p.at).Seconds())
	}
	p.at = now
	p.tokens--
	return time.Duration(-p.tokens / callRate * float64(time.Second))
}
