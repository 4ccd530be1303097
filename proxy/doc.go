// Package proxy carries egress: it accepts connections, learns where each one
// wants to go, asks the policy, and joins the two ends of what is allowed.
//
// # The life of a connection
//
// conn.go tells it; this is the plot.
//
//	accept    door.go      a bare descriptor, until somebody needs more than to
//	          socket.go    read and write: it waits in a loop, not in the runtime
//	          listen.go    count it against the limits
//	aim       original.go  at whom it was aimed, where the listener asks
//	unwrap    clienttls.go TLS to the proxy itself, where the listener speaks it:
//	          bridge.go    its inside goes on over a pair of sockets (pair.go)
//	sniff     conn.go      the first byte tells TLS (0x16) from HTTP (a letter)
//	name      hello.go     raw TLS: the server_name of the ClientHello
//	          connect.go   CONNECT: the authority
//	          http.go      plain HTTP: the URL's authority, or Host
//	          plain.go     the same, for the requests that net/http need not read
//	transparent.go         no name: the address that it was aimed at, where a
//	                       cidrs rule lists that; sent.go knows what comes back
//	decide    attempt.go   pure, before any lookup: a lookup is itself a way out
//	resolve   gate.go      the proxy's own resolver; the client's choice of
//	                       address is never used
//	guard     gate.go      every address is judged, and again at the moment of
//	                       dialling
//	dial      dial.go      Happy Eyeballs (RFC 8305) over what the guard left
//	          dialsocket.go one attempt, for a bare descriptor
//	check     connect.go   CONNECT only: answer 200, read the ClientHello in the
//	                       tunnel; its server_name must be the CONNECT name
//	carry     tunnel.go    a stream, by io.Copy between two *net.TCPConn: the
//	          relay.go     kernel moves the bytes; half-closes and resets pass
//	          loop.go      questions and answers, by read and write: a silent
//	          settle.go    tunnel holds two sockets and nothing else
//	record    attempt.go   one record, whatever happened
//
// The gate (decide to dial) is one path for all. The ways in differ only in
// how they learn the name: there is no second way out to keep closed.
//
// # Who owns what
//
// A connection belongs to one goroutine at a time: handle's, and for HTTP
// then net/http's; a tunnel's, or the loop's in between.
// Whoever owns it releases it, once. An attempt, which is one
// tunnel or one HTTP exchange, belongs to the same goroutine; it alone writes
// the record and everybody else gets copies. Others may end what is under way
// (the idle sweep, a new policy, the end of a drain), but only by making its
// reads and writes fail: see [flight.cut]. Closing and recording stay with
// the owner. [Server.Run] returns when every owner has finished.
//
// # What is bounded
//
// Before the decision: bytes (32 KiB of HTTP head in 256 fields, 64 KiB of
// ClientHello) and time (Timeouts.Hello from accept). To the origin:
// Timeouts.Dial, and the client's patience. After it: response heads, and
// silence (Timeouts.Idle), which the kernel is asked about, since anything
// that wrapped the connections to watch them would cost splice(2). So it is
// about what was sent of a budget (budget.go), ten times a second.
//
// # What it never does
//
// It never dials an address that a client chose unless a cidrs rule lists it,
// never resolves a name that the policy denies, never takes a proxy from the
// environment, never follows a redirect, never adds Via or X-Forwarded-For
// (some origins answer differently to them), and decrypts nothing but S3, where
// a rule asks for it (inspect.go).
package proxy
