package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/metrics"
	"github.com/sallyport/sallyport/policy"
)

const (
	// fetchPatience bounds one attempt to fetch a source: a server that does
	// not answer must hold up neither the other sources for long, nor SIGHUP.
	fetchPatience = 10 * time.Second
	// firstPatience bounds the first reading with all its attempts, so that a
	// missing route or role is said before the orchestrator gives the task up.
	firstPatience = 25 * time.Second
	firstAttempts = 5
	firstPause    = 500 * time.Millisecond // doubled after each attempt

	// mostBackOff is the longest that a source which fails is left alone.
	mostBackOff = 5 * time.Minute
)

// look says why the sources are read.
type look uint8

const (
	lookDue   look = iota // time has passed: sources that fail are spared
	lookAgain             // something changed a moment ago: has it settled?
	lookAsked             // somebody waits for the answer: every source is asked
)

// fetcher gets the document of a remote source.
type fetcher interface {
	// fetch returns the document, or none where it is still the one that fetch
	// returned last. Errors are *sourceError.
	fetch(ctx context.Context) (fetched, error)
}

// fetched is the answer of a remote source.
type fetched struct {
	unchanged bool // the rest is empty
	data      []byte
	version   string // of the document, as its home counts: an ETag, a number
}

// sourceError is why a remote source could not be read.
type sourceError struct {
	// class is the same as long as the same is wrong: texts differ from one
	// answer to the next, by a request's ID if nothing else.
	class     string
	transient bool // another attempt may do better, unlike one with a missing permission
	throttled bool
	err       error
	hint      string
}

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// sourceSet is the sources of one policy, in their order. One goroutine reads;
// ages and detail may be asked for by any.
type sourceSet struct {
	sources []*sourceState
	texts   []policy.Text // of the first policy
	every   time.Duration // reload.every
	log     zerolog.Logger
}

// sourceState is a source with what is known of it.
type sourceState struct {
	source
	fetcher fetcher // nil where the source is on this machine

	mu       sync.Mutex // guards the rest
	text     policy.Text
	version  string
	readAt   time.Time // when the source answered last; zero for never
	fault    *sourceError
	failedAt time.Time // since when
	failures int       // in a row
	due      time.Time // before this it is spared
}

// newSourceSet returns the sources of those names, none of them read yet.
func newSourceSet(names []string) (*sourceSet, error) {
	set := new(sourceSet)
	var errs []error
	session := newAWSSession()
	for _, name := range names {
		src, err := parseSource(name)
		if err != nil {
			errs = append(errs, &fault{code: exitUsage, err: fmt.Errorf("policy: %w", err), hint: sourceHint})
			continue
		}
		set.sources = append(set.sources, &sourceState{source: src, fetcher: newFetcher(src, session)})
	}
	return set, errors.Join(errs...)
}

// first reads the sources while there is nothing to fall back to. Sources that
// may do better at another attempt get a few.
func (s *sourceSet) first(ctx context.Context) ([]policy.Text, error) {
	ctx, cancel := context.WithTimeout(ctx, firstPatience)
	defer cancel()
	for attempt := 1; ; attempt++ {
		texts, err := s.read(ctx, lookAsked)
		if err == nil {
			return texts, nil
		}
		if attempt == firstAttempts || !hopeful(err) || !pause(ctx, jittered(firstPause<<(attempt-1))) {
			return nil, givenUp(err, attempt)
		}
	}
}

// hopeful reports whether another attempt may do better with all that failed.
func hopeful(err error) bool {
	return !slices.ContainsFunc(leaves(err), func(e error) bool {
		at, ok := errors.AsType[*sourceError](e)
		return !ok || !at.transient
	})
}

// pause waits, and reports whether ctx lets it.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// givenUp makes what the first reading met faults of the configuration.
func givenUp(err error, attempts int) error {
	var errs []error
	for _, e := range leaves(err) {
		f := &fault{code: exitUsage, err: e}
		if at, ok := errors.AsType[*sourceError](e); ok {
			f.hint = at.hint
			if attempts > 1 {
				f.err = fmt.Errorf("%w (after %d attempts)", e, attempts)
			}
		}
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// read returns the documents of all sources, or every error. A remote source
// that was read before and fails now stands with its last text.
func (s *sourceSet) read(ctx context.Context, why look) ([]policy.Text, error) {
	texts, errs := make([]policy.Text, len(s.sources)), make([]error, len(s.sources))
	var fetching sync.WaitGroup
	for i, src := range s.sources {
		if src.fetcher == nil {
			texts[i], errs[i] = src.readHere()
			continue
		}
		fetching.Go(func() { texts[i], errs[i] = s.readRemote(ctx, src, why) })
	}
	fetching.Wait()
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("policy: %w", err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return texts, nil
}

func (s *sourceState) readHere() (policy.Text, error) {
	text, err := s.readLocal()
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.readAt = time.Now()
	}
	return text, err
}

// readRemote fetches the source unless it is to be spared.
func (s *sourceSet) readRemote(ctx context.Context, src *sourceState, why look) (policy.Text, error) {
	src.mu.Lock()
	spared := why == lookAgain || why == lookDue && time.Now().Before(src.due)
	text, known := src.text, !src.readAt.IsZero()
	src.mu.Unlock()
	if spared && known {
		return text, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	answer, err := src.fetcher.fetch(ctx)
	if err == nil {
		return s.answered(src, answer), nil
	}
	failed, ok := errors.AsType[*sourceError](err)
	if !ok {
		failed = &sourceError{class: "unknown", transient: true, err: err}
	}
	return s.failed(ctx, src, failed, why)
}

// answered notes what a source answered, and returns its document.
func (s *sourceSet) answered(src *sourceState, answer fetched) policy.Text {
	src.mu.Lock()
	defer src.mu.Unlock()
	src.readAt = time.Now()
	if src.fault != nil && src.text.Name != "" {
		s.log.Info().Stringer("source", src).Stringer("after", src.readAt.Sub(src.failedAt).Round(time.Second)).
			Msg("policy source is read again")
	}
	src.fault, src.failures, src.due = nil, 0, time.Time{}
	if !answer.unchanged {
		if src.text.Name != "" && answer.version != src.version {
			s.log.Info().Stringer("source", src).Str("version", answer.version).Str("old_version", src.version).Msg("policy source changed")
		}
		src.text, src.version = policy.Text{Name: src.document(), Data: answer.data}, answer.version
	}
	return src.text
}

// failed notes a failure, says it where it is news, and returns the last text
// where there is one.
func (s *sourceSet) failed(ctx context.Context, src *sourceState, failed *sourceError, why look) (policy.Text, error) {
	src.mu.Lock()
	defer src.mu.Unlock()
	now, known := time.Now(), !src.readAt.IsZero()
	if known && errors.Is(ctx.Err(), context.Canceled) {
		return src.text, nil // we are going away, not the source
	}
	news := src.fault == nil || src.fault.class != failed.class
	if src.fault == nil {
		src.failedAt = now
	}
	src.fault, src.failures = failed, src.failures+1
	src.due = now.Add(jittered(backOff(s.every, src.failures, failed.throttled)))
	if !known {
		return policy.Text{}, fmt.Errorf("%s: %w", src, failed)
	}
	if news || why == lookAsked {
		level := zerolog.ErrorLevel
		if failed.transient {
			level = zerolog.WarnLevel
		}
		event := s.log.WithLevel(level).Err(failed).Stringer("source", src).Str("failure", failed.class).
			Stringer("age", now.Sub(src.readAt).Round(time.Second))
		if failed.hint != "" {
			event.Str("hint", failed.hint)
		}
		event.Msg("policy source cannot be read, its last text stays")
	}
	return src.text, nil
}

// backOff returns how long a source is spared after so many failures in a row.
// One that asks for mercy gets more of it.
func backOff(every time.Duration, failures int, throttled bool) time.Duration {
	if throttled {
		failures += 2
	}
	least := max(every, time.Second)
	return min(least<<min(failures, 10), max(mostBackOff, every))
}

// jittered returns d, 20 % more or less, so that a fleet which was started at
// once does not ask at once for ever.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // no secret
}

// pause returns the time from one look to the next; 0 means never.
func (s *sourceSet) pause() time.Duration {
	if slices.ContainsFunc(s.sources, func(src *sourceState) bool { return src.fetcher != nil }) {
		return jittered(s.every)
	}
	return s.every
}

// ages tells how long ago each source answered.
func (s *sourceSet) ages() []metrics.PolicySource {
	all := make([]metrics.PolicySource, 0, len(s.sources))
	for _, src := range s.sources {
		src.mu.Lock()
		all = append(all, metrics.PolicySource{Kind: src.scheme, Age: time.Since(src.readAt)})
		src.mu.Unlock()
	}
	return all
}

// detail says for people which sources stand with an old text, "current" where
// none does.
func (s *sourceSet) detail() string {
	var stale []string
	for _, src := range s.sources {
		src.mu.Lock()
		if src.fault != nil {
			stale = append(stale, fmt.Sprintf("%s: %s, last read %s ago", src, src.fault.class, time.Since(src.readAt).Round(time.Second)))
		}
		src.mu.Unlock()
	}
	if len(stale) == 0 {
		return "current"
	}
	return strings.Join(stale, "; ")
}
