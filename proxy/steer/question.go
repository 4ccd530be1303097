package steer

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const headerSize = 12

// question is what a client asks.
type question struct {
	id       uint16
	name     string // as written, with its final dot
	qtype    uint16
	qclass   uint16
	recurse  bool // RD
	checking bool // CD
	edns     *dns.OPT
}

// fault is why a message has no answer but a code, and no question that could
// be repeated.
type fault struct {
	rcode  int
	silent bool // not even that
}

// read parses a message. It is strict: what is no plain question nobody sends
// by accident.
func read(wire []byte) (*question, *fault) {
	if len(wire) < headerSize || wire[2]&0x80 != 0 {
		return nil, &fault{silent: true} // answering an answer makes a loop
	}
	if wire[2]>>3&0x0f != dns.OpcodeQuery {
		return nil, &fault{rcode: dns.RcodeNotImplemented}
	}
	malformed := &fault{rcode: dns.RcodeFormatError}
	// Counted before anything is parsed: an IXFR has a record in the second
	// section, EDNS and a signature make two in the third.
	if counts := wire[4:headerSize]; binary.BigEndian.Uint16(counts) != 1 || binary.BigEndian.Uint16(counts[2:]) != 0 ||
		binary.BigEndian.Uint16(counts[4:]) > 1 || binary.BigEndian.Uint16(counts[6:]) > 2 {
		return nil, malformed
	}
	if !plain(wire[headerSize:]) {
		return nil, malformed
	}
	var m dns.Msg
	if err := m.Unpack(wire); err != nil || len(m.Question) != 1 {
		return nil, malformed
	}
	q := &question{
		id: m.Id, name: m.Question[0].Name, qtype: m.Question[0].Qtype, qclass: m.Question[0].Qclass,
		recurse: m.RecursionDesired, checking: m.CheckingDisabled,
	}
	for _, rr := range m.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if q.edns != nil || opt.Hdr.Name != "." { // RFC 6891, section 6.1.1
			return nil, malformed
		}
		q.edns = opt
	}
	return q, nil
}

// plain reports whether a name is written out. Before the first name there is
// nothing that a pointer could sensibly point to, and an answer repeats what it
// would make of the header.
func plain(name []byte) bool {
	for len(name) > 0 && name[0] != 0 {
		if name[0] > 63 || int(name[0]) >= len(name) {
			return false
		}
		name = name[1+int(name[0]):]
	}
	return len(name) > 0
}

// served reports whether anybody is answered to such a question: of the
// Internet's class, about a type that records have.
func (q *question) served() bool {
	const firstMeta, lastMeta = 128, 254
	switch {
	case q.qclass != dns.ClassINET, q.qtype == dns.TypeNone, q.qtype == dns.TypeOPT:
		return false
	}
	return q.qtype < firstMeta || q.qtype > lastMeta
}

// limit is how large an answer may be.
func (q *question) limit() int {
	if q.edns == nil {
		return dns.MinMsgSize
	}
	return min(max(int(q.edns.UDPSize()), dns.MinMsgSize), maxUDPAnswer)
}

// answer is the answer to a message without a question.
func (f *fault) answer(wire []byte) []byte {
	if f.silent {
		return nil
	}
	out := make([]byte, headerSize)
	copy(out, wire[:2])
	out[2] = 0x80 | wire[2]&0x79 // QR, and the opcode and RD that were sent
	out[3] = byte(f.rcode)
	return out
}
