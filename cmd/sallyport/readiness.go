package main

import (
	"slices"

	"github.com/sallyport/sallyport/console"
)

// ready says what must hold for clients to come. The sockets were bound
// before the console could be asked.
func (d *daemon) ready() []console.Check {
	version := d.live.Version()
	traffic := console.Check{Name: "traffic", OK: !d.draining.Load(), Detail: "accepting"}
	if !traffic.OK {
		traffic.Detail = "draining"
		if names := d.outliving.Load(); names != nil {
			traffic.Detail = "serving until the task's other containers have stopped: " + *names
		}
	}
	return append([]console.Check{
		{Name: "policy", OK: version != "", Detail: version},
		// An old policy is in force none the less: no reason to send clients away.
		{Name: "policy_sources", OK: true, Detail: d.cfg.sources.detail()},
		traffic,
	}, slices.Concat(d.callers.checks(), d.advice.checks(), d.tls.checks(), d.dnsChecks(), d.historyChecks(), d.overlays.checks())...)
}
