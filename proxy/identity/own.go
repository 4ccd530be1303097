package identity

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
)

// Own knows the task that the proxy itself is part of. It is safe for
// concurrent use. [NewOwn] makes one, [Own.Run] finds out who it is.
type Own struct {
	metadata *Metadata
	strict   bool
	log      zerolog.Logger
	self     atomic.Pointer[Self]
	shared   atomic.Bool // the network is other tasks' too

	mu      sync.Mutex // protects failing
	failing error
}

// NewOwn returns an Own that asks m. When strict, who is not of the task is
// Unidentified; otherwise others may know, and Own says nothing of strangers.
func NewOwn(m *Metadata, strict bool, log zerolog.Logger) *Own {
	return &Own{metadata: m, strict: strict, log: log}
}

// Run asks until the endpoint has answered, or ctx ends. The answer holds for
// the life of the task. It returns nil.
func (o *Own) Run(ctx context.Context) error {
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 15*time.Second) {
		if o.ask(ctx) {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// ask asks once, and reports whether that was enough.
func (o *Own) ask(ctx context.Context) bool {
	s, err := o.metadata.Self(ctx)
	if err == nil && s.HostNetwork {
		o.shared.Store(true)
		err = errors.New("the task's network mode is host: its callers cannot be told from those of other tasks")
	}
	o.mu.Lock()
	before := o.failing
	o.failing = err
	o.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		o.self.Store(&s)
		event := o.log.Info().Str("task", s.Task.ARN).Str("family", s.Task.Family).Int("tags", len(s.Task.Tags))
		if s.NoTags != nil {
			event = event.AnErr("no_tags", s.NoTags)
		}
		event.Msg("this is the task whose callers are known")
	case before == nil:
		o.log.Warn().Err(err).Msg("the task's own metadata cannot be read: its callers are not known")
	}
	return err == nil || s.HostNetwork
}

// Status returns the task, nil while it is not known, and then why.
func (o *Own) Status() (*policy.Task, error) {
	if s := o.self.Load(); s != nil {
		return s.Task, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return nil, o.failing
}

// Identify implements [Identifier]. It never waits.
func (o *Own) Identify(_ context.Context, source policy.Source) policy.Source {
	s, addr := o.self.Load(), source.Addr.Unmap()
	if o.shared.Load() && !o.strict {
		return source
	}
	own := source.VPCEndpoint == "" && (addr.IsLoopback() || s != nil && slices.Contains(s.Addresses, addr))
	switch {
	case own && s != nil:
		source.Task, source.Unidentified = s.Task, false
	case own, o.strict:
		source.Unidentified = true
	}
	return source
}
