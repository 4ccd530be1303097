// Package logging is what the proxy says: one JSON line on standard output for
// each moment of an attempt, and the daemon's own talk on standard error.
//
// # The flow log
//
// A [FlowWriter] is a reader of the flow.Bus. It turns each event into one
// line ([AppendFlow]): a JSON object whose nested names, flattened with dots,
// follow OpenTelemetry's semantic conventions where they have one
// (client.address, server.address, network.peer.address, error.type, ...), and
// are ours below "sallyport" where they have none. Who called is user.name (the
// principal) and aws.ecs (task, cluster, service): not service.name, which is
// the conventions' word for whoever writes the line. [FlowSchema] describes every
// line; a test holds the two together, and closed vocabularies are enums there.
//
//	event.name   level  when
//	flow.open    info   an attempt was allowed
//	flow.close   info   an allowed attempt ended
//	flow.deny    warn   an attempt was denied
//
// Between the connections and standard output stands a bounded flow.Queue. A
// reader of standard output that stalls therefore costs lines (counted, and
// said on standard error) or, if the operator chose so, holds up connections;
// it never does either silently.
//
// Those who read other formats get them in the place of ours: [AppendOCSF] and
// [AppendVPCFlow]. Where somebody else writes lines to standard output as well
// (CloudWatch's metrics), [Shared] keeps lines apart.
//
// # Nothing a client sends can forge a line
//
// What a client wrote (Host, SNI, ALPN, method, path) is cut to a bound and
// written in printable ASCII with Go's escapes for everything else, so that it
// is harmless in a terminal even after a JSON decoder has been over it. The
// backslash is doubled, so nothing is ambiguous. On top of that every byte of
// a line is printable ASCII whatever a caller passes: [New] and [AppendFlow]
// escape the rest as JSON does. Messages are fixed texts; the variable is
// always a field.
//
// # The daemon's log
//
// [New] makes a zerolog.Logger, in JSON or for people. [Async] puts a bounded
// buffer in front of standard error, for a log that nobody reads must not hold
// up the proxy. [Slog] brings libraries in.
//
// The package sets none of zerolog's package variables, starts no goroutine
// but inside the Run methods, and knows no files: it is handed its writers.
package logging
