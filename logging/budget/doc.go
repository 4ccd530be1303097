// Package budget keeps the accounts of the policy's budgets: what was sent in
// the hour, day, week or month at hand, by all proxies together.
//
// # Whose word counts
//
// Each proxy counts its own bytes as they flow, in memory: an account is two
// atomic numbers, its own share and that of the others. Every few seconds it
// writes its shares to the store under a key of its own and reads those of the
// others. So what this proxy sends counts at once, and what another sends after
// at most twice [Config].Every: a fleet may go beyond a budget by what it sends
// meanwhile.
//
// A share belongs to a run of a process, not to a machine. What a proxy wrote
// before it was restarted stays and counts until the period ends; what it had
// not written yet is lost. Without a store that outlives the process a restart
// begins at nothing. While the store is away each proxy goes on with what it
// knows: its own share, and the others' as they were.
//
// Roll-ups by hour would not do in place of shares: there the bytes of a tunnel
// are those of the hour in which it ended, and a night's upload would spend the
// budget of the morning.
//
// # What it will never do
//
// It never blocks who charges or asks, and it decides nothing: whoever carries
// the bytes asks whether a budget is spent.
package budget
