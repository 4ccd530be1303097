package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/policy"
)

// settle is how long a changed source must stay as it is before it is taken.
// Whoever writes a file in place writes it in pieces, and the first half of a
// policy may well be a policy, without the deny rules at its end.
const settle = 250 * time.Millisecond

// reloader keeps the policy in force as its sources say. What it cannot read
// or compile changes nothing but the log and the metrics.
type reloader struct {
	read    func(context.Context, look) ([]policy.Text, error)
	admit   func(*policy.Policy) error // refuses what this process cannot serve
	pause   func() time.Duration       // until the next look; 0: only when asked
	asked   <-chan struct{}            // SIGHUP
	changed <-chan struct{}            // somebody wrote an overlay; nil: nobody can
	live    *policy.Live
	swapped func() int                                // told of a new policy; returns how many connections it cut
	also    func(ctx context.Context, asked bool)     // reads what else is read again
	keep    func(version string, texts []policy.Text) // remembers what came into force
	metrics interface {
		PolicyLoaded(version string, at time.Time)
		PolicyFailed()
	}
	ends func() <-chan time.Time                 // when an overlay is over; nil: none ever is
	over func(ctx context.Context) []policy.Text // the overlays of now on the sources in force; nil: there are none
	log  zerolog.Logger

	// What follows belongs to Run.
	pending string // version that was seen once and has yet to settle
	refused string // what was refused last, so that it is said once; "" when nothing is
}

// Run looks at the sources until ctx ends.
func (r *reloader) Run(ctx context.Context) error {
	next := r.next()
	for {
		var settled <-chan time.Time
		if r.pending != "" {
			settled = time.After(settle)
		}
		var ended <-chan time.Time
		if r.ends != nil {
			ended = r.ends()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.asked:
			r.look(ctx, lookAsked)
			r.also(ctx, true)
		case _, open := <-r.changed:
			if !open {
				r.changed = nil // the store has ended
				continue
			}
			r.look(ctx, lookDue)
		case <-ended:
			r.look(ctx, lookDue)
		case <-next:
			r.look(ctx, lookDue)
			r.also(ctx, false)
			next = r.next()
		case <-settled:
			r.look(ctx, lookAgain)
		}
	}
}

// next fires when it is time to look; nil never does.
func (r *reloader) next() <-chan time.Time {
	if d := r.pause(); d > 0 {
		return time.After(d)
	}
	return nil
}

// look reads the sources and acts on what changed. Who asks wants an answer
// in the log even if nothing did, and says that the sources are complete.
func (r *reloader) look(ctx context.Context, why look) {
	asked := why == lookAsked
	texts, err := r.read(ctx, why)
	if err != nil {
		r.pending = ""
		r.refuse(err.Error(), "", err, asked)
		r.overlay(ctx)
		return
	}
	version := policy.VersionOf(texts...)
	switch {
	case version == r.live.Version():
		r.unchanged(asked)
	case version == r.refused && !asked:
		r.pending = ""
		r.overlay(ctx)
	case version != r.pending && !asked:
		r.pending = version
	default:
		r.load(ctx, version, texts, asked)
	}
}

// unchanged notes that the sources hold the policy in force, again or still.
func (r *reloader) unchanged(asked bool) {
	r.pending = ""
	if r.refused != "" {
		r.refused = ""
		r.metrics.PolicyLoaded(r.live.Version(), time.Now())
		r.log.Info().Str(logging.FieldPolicy, r.live.Version()).Msg("the policy's sources hold the policy in force again")
	} else if asked {
		r.log.Info().Str(logging.FieldPolicy, r.live.Version()).Msg("policy unchanged")
	}
}

func (r *reloader) load(ctx context.Context, version string, texts []policy.Text, asked bool) {
	r.pending = ""
	if err := r.force(texts); err != nil {
		r.refuse(version, version, err, asked)
		r.overlay(ctx)
		return
	}
	r.refused = ""
}

// overlay takes what people wrote in the meantime while the sources are no
// good: what they deny must not wait, nor what is over go on.
func (r *reloader) overlay(ctx context.Context) {
	if r.over == nil {
		return
	}
	texts := r.over(ctx)
	if len(texts) == 0 || policy.VersionOf(texts...) == r.live.Version() {
		return
	}
	if err := r.force(texts); err != nil {
		r.log.Error().Err(err).Msg("the overlays of the policy cannot be taken, those in force stay")
	}
}

// force puts a policy in force.
func (r *reloader) force(texts []policy.Text) error {
	p, err := policy.Load(texts...)
	if err == nil {
		err = r.admit(p)
	}
	if err != nil {
		return err
	}
	old := r.live.Swap(p)
	cut := r.swapped()
	r.metrics.PolicyLoaded(p.Version(), time.Now())
	r.keep(p.Version(), texts)
	r.log.Info().Str(logging.FieldPolicy, p.Version()).Str("old_policy_version", old.Version()).
		Int("rules", len(p.Rules())).Int("old_rules", len(old.Rules())).Int("cut", cut).Msg("policy reloaded")
	logWarnings(r.log, p)
	return nil
}

// refuse says once what is wrong with the sources; the policy in force stays.
func (r *reloader) refuse(what, version string, err error, asked bool) {
	if what == r.refused && !asked {
		return
	}
	r.refused = what
	r.metrics.PolicyFailed()
	for _, e := range leaves(err) {
		event := r.log.Error().Err(e).Str(logging.FieldPolicy, r.live.Version())
		if version != "" {
			event.Str("refused_version", version)
		}
		if at, ok := errors.AsType[*policy.Error](e); ok && at.Hint != "" {
			event.Str("hint", at.Hint)
		} else if f, ok := errors.AsType[*fault](e); ok && f.hint != "" {
			event.Str("hint", f.hint)
		}
		event.Msg("policy refused, the one in force stays")
	}
}

// logWarnings says what is probably not meant in a policy that comes into force.
func logWarnings(log zerolog.Logger, p *policy.Policy) {
	if letsThrough(p) {
		log.Warn().Msg("report mode: a name that no rule lists is let through")
	}
	for _, w := range p.Warnings(time.Now()) {
		log.Warn().Stringer("at", w.Pos).Str("warning", w.Message).Str("hint", w.Hint).Msg("policy warning")
	}
	for _, n := range p.Notes() {
		log.Info().Stringer("at", n.Pos).Str("note", n.Message).Str("hint", n.Hint).Msg("policy note")
	}
}

// letsThrough asks for a name that no policy lists (RFC 6761, section 6.4): a
// gate that stands open must say so, whatever its documents seem to say.
func letsThrough(p *policy.Policy) bool {
	canary, err := policy.ParseHost("canary.sallyport.invalid")
	if err != nil {
		return true
	}
	d := p.Decide(policy.Query{
		Source: policy.Source{Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		Via:    policy.ViaConnect, Host: canary, Port: 443, At: time.Now(),
	})
	return d.Verdict == policy.Allow
}

// reloadAlso reads again what else is read from where the configuration says.
func (d *daemon) reloadAlso(ctx context.Context, asked bool) {
	secrets, certificates := d.credentials.reload(ctx, asked), d.tls.reload(ctx, asked)
	if secrets || certificates {
		if cut := d.proxy.CredentialsChanged(); cut > 0 {
			d.log.Info().Int("cut", cut).Msg("callers are cut whose secret or certificate was withdrawn")
		}
	}
	d.rereadToken(ctx, asked)
	d.advice.say()
}

// policyChanged tells everybody of a new policy, and returns how many
// connections that cut.
func (d *daemon) policyChanged() int {
	d.advice.forget() // it is said with the next look, of this policy
	return d.proxy.PolicyChanged()
}
