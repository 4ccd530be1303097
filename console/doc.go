// Package console is the window: what an operator, a health check or a
// Prometheus may ask of a running proxy. Only cmd imports it.
//
//	GET /healthz   200 while the process lives
//	GET /readyz    200 when it takes traffic, else 503; JSON says what is missing
//	GET /metrics   Prometheus
//	GET /version   the build, as JSON
//	GET /schema    the JSON Schema of the flow log
//
//	GET /api/v1/sites         what was visited; detail=true tells sites apart
//	GET /api/v1/flows         recent attempts, newest first; cursor is the next page's
//	GET /api/v1/flows/{id}    one of them
//	GET /api/v1/flows/follow  those to come, a line of JSON each
//	GET /api/v1/gaps          when something could not be remembered
//
// Anything else is 404, any method but GET and HEAD is 405. What the API tells
// is the operator's alone: it asks for the bearer token of admin.token, in
// constant time, and without one answers this host only. The rest changes
// nothing and is no secret; yet a web page in an operator's browser must not
// read it through DNS rebinding. A request must therefore
// name its host as an IP address, as localhost, or as one of the names that
// were configured; another one is 421. No answer may be stored, framed,
// sniffed or read by another origin.
//
// The window has a socket of its own and never shares one with traffic. It
// outlives the proxy's drain, so that /readyz can say 503 meanwhile.
package console
