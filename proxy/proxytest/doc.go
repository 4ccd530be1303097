// Package proxytest holds the other ends of a connection: what a test needs
// on loopback so that a proxy has something to talk to.
//
// Everything here is real: it listens on a socket of 127.0.0.1, speaks the
// protocol, and ends with the test that started it, leaving no goroutine. It
// is also hostile where a test asks for that: servers that stall, lie, reset
// and change their minds are part of the world that a proxy lives in.
//
// [DNS] is a name server. It is told what to say, name by name, and keeps a
// log of what it was asked, because "a denied name is never looked up" is a
// promise that only the name server can witness:
//
//	d := proxytest.NewDNS(t)
//	d.Set("api.example.test", "127.0.0.2", "::1")
//	d.Handle("rebind.example.test", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
//		if q.N == 1 {
//			return proxytest.DNSAnswer{Addresses: public, TTL: 1}
//		}
//		return proxytest.DNSAnswer{Addresses: private}
//	})
//	r, err := resolve.New(resolve.Config{Servers: []string{d.Addr()}})
//	...
//	if n := d.Count("denied.example.test"); n != 0 { ... }
//
// [AWS] speaks for ECS, SQS and STS, well enough for the real SDK, over a socket
// or, in a bubble of testing/synctest, without one; [TaskMetadata] is the
// endpoint that tells a container of its own task. [Issue] makes certificates.
//
// The package imports nothing of ours, so that the tests of every package may
// use it. No production code may import it.
package proxytest
