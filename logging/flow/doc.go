// Package flow is the noun that every room shares: what is remembered of one
// attempt to leave.
//
// # One record, many readers
//
// The goroutine that carries a connection owns its [Record] and fills it in
// as the story goes on. At each moment worth telling (allowed, ended, denied)
// it hands a copy, an [Event], to a [Bus]. Everything that remembers is a
// [Reader] of that Bus: the log line, the metrics, later the history and the
// exporters. They agree because they read the same record.
//
//	connection ──► Bus ──► metrics          (synchronous: cheap, never waits)
//	                  └──► Queue ──► sink   (asynchronous: may write, may be slow)
//
// An allowed attempt has exactly one Opened and one Closed event, a denied
// one exactly one Denied event and no other.
//
// # Guarantees
//
//   - The Bus calls its readers in order, on the caller's goroutine. A reader
//     that panics loses that event for itself; the connection and the other
//     readers go on.
//   - A [Queue] is the only buffer between a connection and a slow writer. It
//     is bounded. When it is full it blocks or it drops, as configured, and
//     every drop is counted: observed = delivered + dropped, always.
//   - A Queue that was stopped never blocks anyone again.
//   - An [Outcome] is a word of a closed vocabulary ([Outcomes]), the same in
//     records, metrics, Proxy-Status headers and documents.
//
// # What it will never do
//
// It does no I/O and no logging, holds no sockets, and imports nothing of ours
// but policy. Strings that a client wrote pass through as they were sent:
// whoever writes them out escapes and caps them (package logging does).
package flow
