package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// readPolicy reads the policy's sources, and what people wrote on top of them.
func (d *daemon) readPolicy(ctx context.Context, why look) ([]policy.Text, error) {
	base, err := d.cfg.sources.read(ctx, why)
	if err != nil {
		return nil, err
	}
	return d.overlays.with(ctx, base), nil
}

// overlaid puts the overlays on top of the first policy. A store that is not
// there is said, and tried again: what they allow is denied until then, and what
// they deny is as the policy says, unless the overlays are required.
func (d *daemon) overlaid(ctx context.Context, p *policy.Policy) (*policy.Policy, error) {
	texts := d.overlays.with(ctx, d.cfg.sources.texts)
	if len(texts) == len(d.cfg.sources.texts) {
		return p, nil
	}
	d.cfg.sources.texts = texts
	p, err := policy.Load(texts...)
	if err != nil {
		return nil, policyFaults(err, exitUsage)
	}
	return p, nil
}

// overlaysChanged tells when somebody wrote an overlay; nil where nobody can.
func (d *daemon) overlaysChanged(ctx context.Context) <-chan struct{} {
	if d.history == nil {
		return nil
	}
	return d.history.Changed(ctx)
}

// overInForce returns the documents of the policy in force with the overlays of
// now in place of those of then.
func (d *daemon) overInForce(ctx context.Context) []policy.Text {
	return d.overlays.with(ctx, underneath(d.inForce()))
}

// inForce returns the documents of the policy in force.
func (d *daemon) inForce() []policy.Text {
	if texts := d.texts.Load(); texts != nil {
		return *texts
	}
	return nil
}

// base returns the documents of the policy in force that are no overlays. While
// none is in force there is nothing that a change could be checked with.
func (d *daemon) base() ([]policy.Text, error) {
	texts := d.inForce()
	if texts == nil {
		return nil, fmt.Errorf("%w: no policy is in force before its overlays have been read", history.ErrUnavailable)
	}
	return underneath(texts), nil
}

// underneath returns the documents that are no overlays.
func underneath(texts []policy.Text) []policy.Text {
	return slices.DeleteFunc(slices.Clone(texts), func(t policy.Text) bool { return policy.IsOverlay(t.Name) })
}
