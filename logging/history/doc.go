// Package history is the memory: what was visited, by whom, since when, and
// what was decided about it.
//
// # What is kept
//
//	site      one way in which one service uses one destination: all that a
//	          policy decides on but the time, the address and the task
//	hour, day what was done at a site in an hour, in a day: the roll-ups
//	trait     the tasks and revisions that were seen at a site
//	flow      one recent attempt, with all it takes to decide it again
//	task      who the callers of the flows were
//	version   every policy that was in force, with its texts
//	overlay   documents of the policy language that people wrote here
//	anomaly   findings, and what people said of them; baseline, their yardstick
//	gap       when a proxy could not write, and how much is missing
//
// # From connection to row
//
//	Observe ──► batch ──► one transaction a second
//	(sums by site, open and close made one)
//
// Observe adds an event to the batch under a lock and returns: that is a look-up
// or two, less than to hand the event to anybody else would cost, and nothing is
// waited for that could take long. What a batch has no room for is counted. A
// busy site costs a row an hour, not one a flow. When the store does not take a
// batch the sums are kept (flows up to a bound) and added again later: roll-ups
// lose nothing in an outage as long as the process lives, flows beyond the
// bound are counted into the gap, and the gap is stored when the store is back.
//
// # Two engines, one text
//
// SQLite (a file, or memory) for one proxy, PostgreSQL for a fleet. Statements
// are the same text for both: $N, ON CONFLICT, microseconds as bigint. Roll-ups
// are upserts that add, in the order of their keys: ten proxies lose no update
// and never wait for each other in a circle.
//
// A damaged file is set aside by rename, never deleted, and a new one begun.
// Whatever is wrong with the store, traffic flows: Observe, Run and the metrics
// say what is lost, and a store that could not be opened is tried again.
//
// # Bounds
//
// Names are chosen by clients. In one hour a service makes at most so many
// new sites of names; what is beyond them is counted under the name "(other)".
// Flows end by age or by size, roll-ups by age; policies, overlays and what
// people said stay.
//
// # What it will never do
//
// It never blocks a connection, never sees a secret (no header, no query string,
// no key of an object), and decides nothing.
package history
