// Command bench measures Sallyport beside its peers, in one run on one
// machine:
//
//	go run ./integration/bench
//
// It builds Sallyport and the Go references, makes a network namespace of its
// own, starts an origin there, and then each subject in turn, with equivalent
// settings: an allowlist, a log line for each connection, two workers. A
// client makes the load of a scenario; what the proxy's processes spent
// meanwhile is read from /proc. Results are medians over the repeats, and
// ratios to Sallyport of the same repeat, as text, Markdown, JSON and SVG.
//
// With -readme the figures go into the project's README, too (readme.go).
//
// # What to trust
//
// Origin, client and proxy share the machine, so rates compress the
// differences, and other programs disturb them. The proxy's CPU per unit of
// work is steadier, and stands beside every rate. How much CPU others used
// meanwhile ("foreign") stands there too: a run with more than a fifth of a
// core of it is for development and not for publication.
//
// # How it is made
//
//   - A scenario (scenario.go) is a list of loads for a way in: CONNECT, SNI,
//     plain HTTP. The ends (client*.go, origin.go) are single-threaded loops
//     on epoll (loop.go) without allocation, so that they cost little.
//   - A subject (subject*.go) is a name, what it misses on this machine, and a
//     function that writes its files and says how to start it.
//   - Every tunnel carries a real ClientHello, whose random bytes tell the
//     origin what to do next (hello.go). The origin answers raw bytes: what is
//     measured is the proxy, not TLS. Where the proxy itself ends TLS, the ends
//     speak it (client_tls.go, origin_s3.go, pki.go), with a goroutine for each
//     connection.
//   - Before it is measured, every subject is asked for a name that is on its
//     allowlist and for one that is not (probe.go).
//   - The namespace holds network, mounts and processes, and belongs to one
//     process: when that ends, however it ends, everything in it is gone
//     (namespace.go). Each subject has a network of its own inside, so that none
//     finds the ports occupied that another has left to linger. Without root all
//     stays on loopback addresses, in one network.
package main
