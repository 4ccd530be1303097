// Package integration tests the product as its users meet it: the built
// binary, real clients, real servers, the examples, and the house's own rules.
//
// # How a client is tested
//
// A test makes a world (world_test.go): a certificate authority, and origins
// that each have a loopback address of their own, so that all of them can have
// the ports 443 and 80 as in life. In it, it starts the product with a policy
// (rig_test.go), sends a client through it, once to a name that is allowed and
// once to one that is not, and asks three witnesses:
//
//   - the client: its exit code, and what it shows a person of a denial;
//   - the record: r.allowed, r.denied and r.ended return its line;
//   - the origin: what is denied was never connected to.
//
// The denied origin exists, answers and resolves: nothing but the proxy stands
// between it and the client. When the test ends, the rig stops the product by
// SIGTERM and holds every run to the same: exit code 0, each line of the flow
// log as the published schema says, one end for each attempt and an opening
// before it where it was allowed, no error and no panic in the log. With
// -race, the product has the race detector in it as well.
//
//	w := newWorld(t)
//	_, denied := w.twoOrigins()
//	r := w.serve(twoNames)
//	command{path: need(t, "curl"), args: ...}.run(t).succeeds(t, "hello from")
//	r.allowed("allowed.example.test", "connect")
//	...
//	denied.unreached(t)
//
// What the kernel was asked to do is strace's to tell: that nothing prohibited
// is connected to (rebind_test.go), and that splice(2) moves the bytes
// (splice_test.go).
//
// # What a machine must have
//
// A test whose client or privilege is missing on this machine is skipped and
// says what it misses; .ci/packages.txt lists all of them. Where CI is set
// such a test fails, so that CI skips none that Debian can provide.
package integration
