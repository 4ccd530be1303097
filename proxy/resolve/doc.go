// Package resolve turns names into addresses: a caching stub resolver that a
// gate can rely on. It is asked only about names that the policy has allowed,
// because a lookup is itself a way out, and its answers are not trusted:
// whoever dials them vets each address first.
//
// # A lookup
//
//	Lookup ─► static hosts ─► cache ─► flight ─┬─► AAAA ─► servers in turn ─► UDP ─► (TC) TCP
//	                            ▲              └─► A    ─► servers in turn ─► UDP ─► (TC) TCP
//	                            └── at most one flight per name
//
// A hit costs no allocation. A miss joins the name's flight, or starts it. A
// flight belongs to the [Resolver], not to the caller that started it: it has
// its own time limit, and a caller that gives up disturbs nobody. Both address
// families are asked at once; when one has answered, the other has 50 ms
// (RFC 8305, section 3), after which the callers get what there is and the
// cache gets the rest when it arrives.
//
// # What is believed
//
// Each question goes out with a random id from a socket of its own, connected
// to the server, on a port that the kernel picks at random. A reply counts
// only if it comes from that server and port and repeats id and question
// (RFC 5452, section 9.1). Others are ignored and counted, and after a few of
// them the question is asked again over TCP, where guessing does not help. Of
// a reply only the records of the name asked for are read, and of the names
// that its CNAMEs lead to, at most 16 of them; records of other names are as
// good as absent. At most 16 addresses are kept per family.
//
// # What is remembered, and how long
//
//   - Addresses: the smallest TTL of the chain, within MinTTL and MaxTTL. The
//     floor exists because the VPC resolver drops what exceeds 1,024 packets a
//     second; at two packets a name, 5 s leaves room for 2,500 busy names.
//   - "No such name" and "no address": the SOA's word (RFC 2308, section 5), at
//     most NegativeTTLMax, so that a record just made is soon found.
//   - Failures (timeout, SERVFAIL, REFUSED, ...): one second (RFC 9520, section
//     3.2). That stops a storm, and recovery is never later than the next try.
//   - One family's addresses while the other's answer is missing: 5 s.
//
// While no server gives an answer, addresses that have expired are served for
// StaleFor longer (RFC 8767); a lookup waits at most 1.8 s before it gets them,
// and none once a failure is known, or when no flight is free. A server's "no
// such name" is an answer and ends that at once.
//
// # Bounds
//
// Cache entries, flights, the time of a try and of a flight, addresses, CNAMEs
// and message sizes are all bounded. With every server dead, a flood of names
// costs at most Flights times two questions in the air; beyond that a lookup
// fails at once.
//
// # What it will never do
//
// Append a search domain, read /etc/hosts or the environment, ask about
// "localhost" (RFC 6761), ask for anything but A and AAAA, tell a server who
// is asking, or believe a glue record.
package resolve
