// Package steer brings clients to the proxy by their own name lookups: a DNS
// server that gives the proxy's addresses for every name that the policy
// allows, and refuses the others. The client then speaks TLS or HTTP to the
// proxy as if it were the origin, and the proxy finds the name again in what
// it says. No client needs a setting, and none needs a capability.
//
// # A question
//
//	read     udp.go, tcp.go   bounded in size, number and time
//	parse    question.go      one question, of a name, of the Internet's class
//	decide   decide.go        policy.Decide; nobody is asked about the name
//	answer   answer.go        the question as it was written, and what follows
//	record   record.go        a denied name, once a minute for each caller
//
// # What is answered
//
// A name is allowed if the caller may open TLS to its port 443, or plain HTTP
// to its port 80: that is all that a client which was led here by a name can
// do, since a connection tells neither the port nor the name that it was meant
// for except by the ClientHello and the Host field. A rule for other ports
// alone opens nothing here. An allowance that depends on what an inspected
// request asks for is one. In report mode every name is.
//
//	A, AAAA         the addresses of [Config].Answer, or none of that family
//	ANY             HINFO "RFC8482" (RFC 8482, section 4.2)
//	all others      the name exists, without a record of that type (NODATA)
//
// HTTPS and SVCB (RFC 9460) are among the others: their hints would lead
// clients to QUIC, to the origin's own addresses, or give them the key to hide
// the name from the proxy (ECH).
//
// A name that is not allowed does not exist (NXDOMAIN), or the question is
// REFUSED, as [Config].Refused says. NXDOMAIN is an answer, and clients leave
// it at that; REFUSED makes many of them ask their next server, which is a way
// round unless there is none. Neither has an SOA, so that no cache keeps it
// (RFC 2308, section 5): a policy that allows the name is in force at once,
// and no cache concludes from "example.com does not exist" that
// api.example.com does not either (RFC 8020). Whoever asked with EDNS also
// gets an extended error (RFC 8914): Blocked (15) with the policy's reason as
// its text, Prohibited (18) for a caller that is not known. Filtered (17)
// would mean that the caller asked for it. PTR is answered as a name that is
// not allowed; other classes, zone transfers and meta types are REFUSED, other
// operations NOTIMP, with Not Supported (21) where that fits.
//
// # Whom it trusts
//
// Nobody. A UDP question may come from anybody in anybody's name, so that an
// answer of more than the question's size goes to one network (an IPv4
// address, an IPv6 /64) only so many times a second; beyond that it is told to
// come again by TCP. An answer is never larger than 512 bytes, or what the
// question offers, 1,232 at most; and by TCP never larger than that. Of TCP
// connections there is a bounded number, in all and for each source, one
// question at a time; what a client pipelines waits in the kernel.
//
// # What it will never do
//
// Ask anybody: a denied name is never looked up, and an allowed one need not
// be. Forward, recurse, or hold a zone. Decide: the addresses that it gives
// away are no permission, and every connection is decided for itself. Serve
// the proxy's own lookups: they would lead the proxy to itself, and whoever
// configures it checks that.
package steer
