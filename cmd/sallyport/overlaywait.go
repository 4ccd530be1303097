package main

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// overlaysRequired is history.overlays of those for whom no traffic is better
// than traffic that an overlay denies.
const overlaysRequired = "required"

// overlayPause is between two tries to read the overlays that must be read.
const overlayPause = time.Second

// checkOverlays finds overlays that are required of a store that can hold none
// from before.
func (l *loaded) checkOverlays() error { return l.outlasts(l.History.Store) }

// outlasts refuses a store whose overlays are not there after a start, where they
// are required.
func (l *loaded) outlasts(store string) error {
	if l.History.Overlays != overlaysRequired {
		return nil
	}
	none := l.place("history.store")
	switch store {
	case historyOff:
		none += " is off"
	case history.Memory:
		none = "those in memory (" + none + ") ended with the process before"
	default:
		return nil
	}
	return refuse("set history.store to a file or a database, or leave history.overlays optional",
		"%s: there are no overlays to wait for, %s", l.place("history.overlays"), none)
}

// trafficTasks are the tasks that serve traffic. Where the overlays are required
// and were not read yet they begin once they have been; until then the sockets
// of the listeners are not open, so that no balancer takes them for healthy, and
// questions to the DNS server wait.
func (d *daemon) trafficTasks(reload *reloader, all []task) []task {
	if d.first == nil {
		d.announceTraffic()
		return all
	}
	return []task{{"traffic", func(ctx context.Context) error {
		if err := d.awaitOverlays(ctx, reload); err != nil || ctx.Err() != nil {
			d.draining.Store(true)
			d.resolver.Close()
			if d.steering != nil {
				d.steering.Close()
			}
			return err
		}
		d.announceTraffic()
		return inStages(ctx, all)
	}}}
}

// awaitOverlays reads the overlays until they have been read once, and begins
// with them and the sources of now, however long it took. Sources that are no good
// any more are those of the start. It returns nil, too, when ctx ends.
func (d *daemon) awaitOverlays(ctx context.Context, reload *reloader) error {
	for pause(ctx, overlayPause) {
		p, err := d.overlaid(ctx, d.first)
		if err != nil {
			return err
		}
		if !d.overlays.awaited() {
			d.enforce(p)
			reload.look(ctx, lookAsked)
			reload.also(ctx, true)
			return d.listen(ctx)
		}
	}
	return nil
}

// enforce puts the first policy in force.
func (d *daemon) enforce(p *policy.Policy) {
	d.live.Swap(p)
	d.metrics.PolicyLoaded(p.Version(), time.Now())
	d.remember(p.Version(), d.cfg.sources.texts)
}

// listen binds the listeners.
func (d *daemon) listen(ctx context.Context) error {
	if err := d.proxy.Listen(ctx); err != nil {
		return bindFault("listeners", d.cfg.origins["listeners"], err)
	}
	d.opened.Store(true)
	return nil
}
