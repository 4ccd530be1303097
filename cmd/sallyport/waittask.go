package main

import (
	"context"
	"strings"
	"time"

	caller "github.com/sallyport/sallyport/proxy/identity"
)

// lookEvery is the time between two looks at the task's other containers.
const lookEvery = 500 * time.Millisecond

// outlive keeps serving until the task's other containers have stopped, and
// drains then. ECS tells all containers at once to stop, and the others' last
// requests want a way out. All of it together has timeouts.drain: what is left
// then is cut.
func (d *daemon) outlive(ctx context.Context, stop func()) {
	over := time.NewTimer(d.cfg.Timeouts.Drain)
	defer over.Stop()
	d.note("not seen yet")
	d.draining.Store(true)
	stopped := d.awaitOthers(ctx, over.C)
	stop()
	if stopped {
		select { // the ordinary drain
		case <-over.C:
		case <-ctx.Done():
			return
		}
	}
	if ctx.Err() == nil {
		d.log.Warn().Int("connections", d.proxy.Active()).Stringer("after", d.cfg.Timeouts.Drain).
			Msg("timeouts.drain is over: what is left is cut")
		d.cut()
	}
}

// awaitOthers reports whether the other containers have stopped before over
// fires or ctx ends.
func (d *daemon) awaitOthers(ctx context.Context, over <-chan time.Time) bool {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	failing := false
	for said := ""; ; {
		all, err := d.callers.metadata.Others(ctx)
		names := unstopped(all)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil && !failing:
			d.log.Warn().Err(err).Msg("the task's other containers cannot be seen: they are waited for")
		case err == nil && len(names) == 0:
			d.note("")
			d.log.Info().Int("containers", len(all)).Msg("the task's other containers have stopped")
			return true
		case err == nil && strings.Join(names, ", ") != said:
			said = strings.Join(names, ", ")
			d.note(said)
			d.log.Info().Strs("containers", names).Stringer("at_most", d.cfg.Timeouts.Drain).
				Msg("serving until the task's other containers have stopped")
		}
		failing = err != nil
		select {
		case <-look.C:
		case <-over:
			d.note("")
			d.log.Warn().Strs("containers", names).Msg("the task's other containers have not stopped in time")
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// note says whom readiness names as waited for; "" for nobody.
func (d *daemon) note(names string) {
	if names == "" {
		d.outliving.Store(nil)
		return
	}
	d.outliving.Store(&names)
}

// unstopped returns the names of the containers that have not stopped.
func unstopped(all []caller.Container) []string {
	var names []string
	for _, c := range all {
		if !c.Stopped {
			names = append(names, c.Name)
		}
	}
	return names
}
