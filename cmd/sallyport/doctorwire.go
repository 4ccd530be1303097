package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// dnsQuestion is a query for the A records of a name (RFC 1035, section 4),
// with an ID that others cannot guess.
func dnsQuestion(name string) []byte {
	q := make([]byte, 12, 64)
	_, _ = rand.Read(q[:2]) // never fails (crypto/rand)
	q[2] = 1                // recursion desired
	q[5] = 1                // one question
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(q, byte(len(label)))
		q = append(q, label...)
	}
	return append(q, 0, 0, 1, 0, 1) // the root, A, IN
}

// dnsReply is what a resolver answered.
type dnsReply struct {
	code  int // RFC 1035, section 4.1.1: 0 is good, 3 no such name, 5 refused
	addrs []netip.Addr
}

func (r dnsReply) codeText() string {
	names := []string{"no error", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	if r.code < len(names) {
		return names[r.code]
	}
	return "an error"
}

// parseDNSReply reads the answer to a question, ok only if it is one.
func parseDNSReply(question, reply []byte) (r dnsReply, ok bool) {
	if len(reply) < 12 || !bytes.Equal(reply[:2], question[:2]) || reply[2]&0x80 == 0 {
		return dnsReply{}, false
	}
	r.code = int(reply[3] & 0x0f)
	rest := reply[12:]
	if binary.BigEndian.Uint16(reply[4:]) == 1 {
		asked := question[12:]
		if len(rest) < len(asked) || !bytes.EqualFold(rest[:len(asked)], asked) {
			return dnsReply{}, false
		}
		rest = rest[len(asked):]
	}
	for range binary.BigEndian.Uint16(reply[6:]) {
		var record []byte
		if record, rest = cutRecord(rest); record == nil {
			break // what was read still tells that there was an answer
		}
		if addr, ok := netip.AddrFromSlice(record); ok {
			r.addrs = append(r.addrs, addr)
		}
	}
	return r, true
}

// cutRecord takes a resource record off b, and returns its data if it is an
// address, an empty slice if it is another, nil if it is cut short.
func cutRecord(b []byte) (data, rest []byte) {
	for {
		if len(b) == 0 {
			return nil, nil
		}
		n := int(b[0])
		if n >= 0xc0 { // a pointer ends the name
			n = 1
		}
		if len(b) < n+1 {
			return nil, nil
		}
		end := b[0] == 0 || b[0] >= 0xc0
		if b = b[n+1:]; end {
			break
		}
	}
	if len(b) < 10 {
		return nil, nil
	}
	kind, size := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[8:]))
	if b = b[10:]; len(b) < size {
		return nil, nil
	}
	if kind == 1 && size == 4 {
		return b[:size], b[size:]
	}
	return []byte{}, b[size:]
}

// quicMinimum is the size below which a server ignores the first packet of a
// connection (RFC 9000, section 14.1).
const quicMinimum = 1200

// quicProbe is a packet of a version that exists nowhere, to which each QUIC
// server answers with the versions that it speaks (RFC 9000, sections 6.1 and
// 15). It opens no connection.
func quicProbe() []byte {
	p := make([]byte, quicMinimum)
	_, _ = rand.Read(p) // never fails (crypto/rand)
	p[0] |= 0xc0        // a long header
	copy(p[1:], []byte{0x1a, 0x2a, 0x3a, 0x4a})
	p[5], p[14] = 8, 8 // the lengths of both connection IDs
	return p
}

// isVersionNegotiation reports whether reply is a QUIC server's to probe (RFC
// 8999, section 6).
func isVersionNegotiation(probe, reply []byte) bool {
	return len(reply) >= 23 && reply[0]&0x80 != 0 && slices.Equal(reply[1:5], []byte{0, 0, 0, 0}) &&
		bytes.Equal(reply[5:14], probe[14:23]) && bytes.Equal(reply[14:23], probe[5:14])
}
