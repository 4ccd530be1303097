package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// overlayPatience bounds one reading of the overlays. The policy's own sources
// must not wait for a database for long.
const overlayPatience = 3 * time.Second

// overlays are the documents that people wrote into the store while the policy
// was in force. They come on top of its sources and can take nothing down with
// them: a store that does not answer leaves the last ones, and one that cannot
// be loaded with the policy is left out. A nil one has none.
type overlays struct {
	read  func(ctx context.Context) ([]history.Overlay, error)
	ended func(ctx context.Context) ([]history.Overlay, error) // all that ever were
	// restore writes one again that the store does not know any more.
	restore func(context.Context, history.Overlay) error
	admit   func(*policy.Policy) error
	log     zerolog.Logger
	must    bool // nothing is served before they were read once

	mu      sync.Mutex // protects what follows
	active  []history.Overlay
	readAt  time.Time // when the store answered last; zero for never
	fault   error     // why it does not
	refused map[string]string
	lost    map[string]bool // by ID: the store has lost it, and did not take it back
	seen    string          // version of the documents that used was made of
	used    []policy.Text
	who     string // wrote or ended the newest change
	note    string
}

// newOverlays returns the overlays of a store, nil where there is none.
func newOverlays(store *history.Store, admit func(*policy.Policy) error, log zerolog.Logger) *overlays {
	if store == nil {
		return nil
	}
	return &overlays{
		read:    func(ctx context.Context) ([]history.Overlay, error) { return store.Overlays(ctx, false) },
		ended:   func(ctx context.Context) ([]history.Overlay, error) { return store.Overlays(ctx, true) },
		restore: store.RestoreOverlay,
		admit:   admit, log: log, refused: map[string]string{}, lost: map[string]bool{},
	}
}

// awaited reports whether nothing may be served yet, for want of the overlays.
func (o *overlays) awaited() bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.must && o.readAt.IsZero()
}

// with reads the overlays and returns the policy's documents with those that
// can be loaded beside them.
func (o *overlays) with(ctx context.Context, base []policy.Text) []policy.Text {
	if o == nil {
		return base
	}
	ctx, cancel := context.WithTimeout(ctx, overlayPatience)
	defer cancel()
	active, err := o.read(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.took(ctx, active, err)
	all := slices.Clone(base)
	now := time.Now()
	for _, one := range o.active {
		if one.Until.IsZero() || now.Before(one.Until) {
			all = append(all, policy.Text{Name: policy.OverlayPrefix + one.Name, Data: []byte(one.Text)})
		}
	}
	if len(all) == len(base) {
		return base
	}
	if version := policy.VersionOf(all...); version != o.seen {
		o.used = o.sift(base, all)
		o.seen = version
	}
	return o.used
}

// took notes what the store answered. The lock is held.
func (o *overlays) took(ctx context.Context, active []history.Overlay, err error) {
	if first := o.readAt.IsZero(); err == nil && (!first || len(active) > 0) {
		active, err = o.compare(ctx, active)
	}
	if err != nil {
		switch {
		case o.fault != nil || errors.Is(ctx.Err(), context.Canceled):
		case o.must && o.readAt.IsZero():
			o.log.Error().Err(err).Msg("the overlays of the policy cannot be read: no traffic is served before they are, history.overlays is required")
		default:
			o.log.Warn().Err(err).Int("overlays", len(o.active)).Bool("never_read", o.readAt.IsZero()).
				Msg("the overlays of the policy cannot be read, the last ones stay")
		}
		o.fault = err
		return
	}
	switch {
	case o.fault == nil:
	case o.must && o.readAt.IsZero():
		o.log.Info().Int("overlays", len(active)).Msg("the overlays of the policy have been read: traffic is served from now on")
	default:
		o.log.Info().Int("overlays", len(active)).Msg("the overlays of the policy are read again")
	}
	o.fault = nil
	o.readAt, o.active = time.Now(), active
}

// compare tells what is new and what has ended, and returns what is in force:
// what nobody ended is, though the store has lost it. The lock is held.
func (o *overlays) compare(ctx context.Context, active []history.Overlay) ([]history.Overlay, error) {
	gone := map[string]history.Overlay{}
	for _, one := range o.active {
		gone[one.ID] = one
	}
	var begun []history.Overlay
	for _, one := range active {
		if _, before := gone[one.ID]; !before {
			begun = append(begun, one)
		}
		delete(gone, one.ID)
	}
	lost, err := o.bury(ctx, gone, active)
	if err != nil {
		return nil, err
	}
	for _, one := range begun {
		o.who, o.note = one.Author, one.Reason
		o.log.Info().Str("overlay", one.Name).Str("author", one.Author).Str("reason", one.Reason).Msg("overlay of the policy")
	}
	return slices.SortedFunc(slices.Values(slices.Concat(active, lost)), func(a, b history.Overlay) int {
		return strings.Compare(a.ID, b.ID) // as the store has them
	}), nil
}

// bury tells which of the overlays that are gone were revoked, and returns those
// that the store has lost, after writing them again. The lock is held.
func (o *overlays) bury(ctx context.Context, gone map[string]history.Overlay, active []history.Overlay) (lost []history.Overlay, err error) {
	if len(gone) == 0 {
		return nil, nil
	}
	all, err := o.ended(ctx)
	if err != nil {
		return nil, err // they may have been revoked, or not
	}
	for _, one := range all {
		if _, ended := gone[one.ID]; ended {
			o.who, o.note = one.RevokedBy, one.RevokedReason
			o.log.Info().Str("overlay", one.Name).Str("author", one.RevokedBy).Str("reason", one.RevokedReason).Msg("overlay of the policy revoked")
			delete(gone, one.ID)
		}
	}
	for id, one := range gone {
		if !one.Until.IsZero() && !time.Now().Before(one.Until) {
			continue
		}
		err := history.ErrThere
		if !slices.ContainsFunc(active, func(other history.Overlay) bool { return other.Name == one.Name }) {
			err = o.restore(ctx, one)
		}
		if errors.Is(err, history.ErrThere) {
			o.log.Error().Str("overlay", one.Name).Msg("the store has lost an overlay of the policy, and has another of its name now, which counts")
			continue
		}
		lost = append(lost, one)
		if err == nil || !o.lost[id] {
			o.log.Error().AnErr("not_yet", err).Str("overlay", one.Name).Str("author", one.Author).
				Msg("the store has lost an overlay of the policy: it stays in force, and is written again")
		}
		o.lost[id] = err != nil
	}
	return lost, nil
}

// sift returns the documents of which a policy can be made that this process
// can serve. Where the policy itself cannot be loaded, it is given back alone,
// for the reason to be told. The lock is held.
func (o *overlays) sift(base, all []policy.Text) []policy.Text {
	p, used, refused, err := policy.LoadOverlays(all...)
	if err != nil {
		return base
	}
	if refused == nil {
		refused = map[string]error{}
	}
	if o.admit(p) != nil {
		used = o.admitted(base, used, refused)
	}
	for name := range o.refused {
		if refused[name] == nil {
			delete(o.refused, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		if why := refused[name].Error(); o.refused[name] != why {
			o.refused[name] = why
			o.log.Error().Err(refused[name]).Str("overlay", name).Msg("overlay refused, the policy stands without it")
		}
	}
	return used
}

// admitted leaves out the overlays for whose sake a policy cannot be served that
// could be without them.
func (o *overlays) admitted(base, used []policy.Text, refused map[string]error) []policy.Text {
	kept := slices.Clone(base)
	if p, err := policy.Load(kept...); err != nil || o.admit(p) != nil {
		return used // it is not the overlays' fault
	}
	for _, t := range used[len(base):] {
		with := slices.Concat(kept, []policy.Text{t})
		p, err := policy.Load(with...)
		if err == nil {
			err = o.admit(p)
		}
		if err != nil {
			refused[t.Name] = err
			continue
		}
		kept = with
	}
	return kept
}

// next fires when the overlay is over that is so first; nil never does. Nobody
// writes anything then, and the sources may be looked at seldom, or never.
func (o *overlays) next() <-chan time.Time {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now, first := time.Now(), time.Time{}
	for _, one := range o.active {
		if one.Until.After(now) && (first.IsZero() || one.Until.Before(first)) {
			first = one.Until
		}
	}
	if first.IsZero() {
		return nil
	}
	return time.After(first.Sub(now))
}

// last returns who made the newest change, and why.
func (o *overlays) last() (who, note string) {
	if o == nil {
		return "", ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.who, o.note
}

// checks tell how the overlays are. Old ones are in force none the less: only
// those that must be read and never were are a reason to send clients away.
func (o *overlays) checks() []console.Check {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	detail := counted(len(o.active), "overlay")
	ok := !o.must || !o.readAt.IsZero()
	switch {
	case !ok:
		detail = "never read, and history.overlays is required: no traffic is served before they are"
		if o.fault != nil {
			detail += ": " + o.fault.Error()
		}
	case o.fault != nil && o.readAt.IsZero():
		detail = "never read: " + o.fault.Error()
	case o.fault != nil:
		detail += fmt.Sprintf(", last read %s ago: %v", time.Since(o.readAt).Round(time.Second), o.fault)
	}
	if n := len(o.refused); n > 0 {
		detail += "; refused: " + strings.Join(slices.Sorted(maps.Keys(o.refused)), ", ")
	}
	return []console.Check{{Name: "policy_overlays", OK: ok, Detail: detail}}
}
