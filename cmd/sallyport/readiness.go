package main

import (
	"slices"

	"github.com/sallyport/sallyport/console"
)

// ready says what must hold for clients to come.
func (d *daemon) ready() []console.Check {
	version := d.live.Version()
	inForce := console.Check{Name: "policy", OK: version != "", Detail: version}
	if !inForce.OK {
		inForce.Detail = "not in force before its overlays are"
	}
	traffic := console.Check{Name: "traffic", OK: !d.draining.Load(), Detail: "accepting"}
	switch {
	case !traffic.OK:
		traffic.Detail = "draining"
		if names := d.outliving.Load(); names != nil {
			traffic.Detail = "serving until the task's other containers have stopped: " + *names
		}
	case !d.opened.Load():
		traffic.OK, traffic.Detail = false, "none is accepted yet"
	}
	return append([]console.Check{
		inForce,
		// An old policy is in force none the less: no reason to send clients away.
		{Name: "policy_sources", OK: true, Detail: d.cfg.sources.detail()},
		traffic,
	}, slices.Concat(d.callers.checks(), d.advice.checks(), d.tls.checks(), d.dnsChecks(), d.historyChecks(), d.overlays.checks())...)
}
