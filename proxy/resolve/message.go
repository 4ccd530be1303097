package resolve

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxAddresses = 16   // kept of one answer: nobody dials more
	maxChain     = 16   // CNAMEs between a name and its addresses
	udpSize      = 1232 // offered by EDNS0: no fragments on any sane path (DNS flag day 2020)

	headerSize   = 12
	maxUint31TTL = math.MaxInt32
)

// question is one name (canonical) and type.
type question struct {
	name  string
	qtype uint16
}

// newQuery makes the message that asks q. Recursion is desired, and nothing is
// told of who asks.
func newQuery(q question, id uint16, edns bool) ([]byte, error) {
	m := &dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: id, RecursionDesired: true},
		Question: []dns.Question{{Name: dns.Fqdn(q.name), Qtype: q.qtype, Qclass: dns.ClassINET}},
	}
	if edns {
		m.SetEdns0(udpSize, false)
	}
	return m.Pack()
}

// readReply parses wire and reports whether it is the reply to the question
// asked under id: RFC 5452, section 9.1. What is not is somebody else's, or a
// forgery.
func readReply(wire []byte, q question, id uint16) (*dns.Msg, bool) {
	if len(wire) < headerSize || binary.BigEndian.Uint16(wire) != id {
		return nil, false
	}
	m := new(dns.Msg)
	err := m.Unpack(wire)
	if !m.Response || m.Opcode != dns.OpcodeQuery || (err != nil && !m.Truncated) {
		return nil, false
	}
	if len(m.Question) == 0 && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		return m, true // a server that could not read as far as the question
	}
	if len(m.Question) != 1 {
		return nil, false
	}
	asked := m.Question[0]
	return m, asked.Qtype == q.qtype && asked.Qclass == dns.ClassINET && sameName(asked.Name, q.name)
}

// sameName compares a name of a message with a canonical one.
func sameName(wire, name string) bool {
	return len(wire) == len(name)+1 && wire[len(name)] == '.' && strings.EqualFold(wire[:len(name)], name)
}

// answer is what a reply says about one question.
type answer struct {
	addrs []netip.Addr  // unmapped, distinct, at most maxAddresses
	ttl   time.Duration // as the reply has it, unbounded; of a negative answer 0 when it gives none
	fail  *failure      // nil when there are addresses, or follow is set
	// follow is where the name's CNAMEs led, when the reply says nothing of
	// what is there; hops is how many they were.
	follow string
	hops   int
}

// interpret reads the reply to q. Of the answer section only the records of
// q's name, and of the names that its CNAMEs lead to, count.
func interpret(m *dns.Msg, q question) answer {
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeServerFailure:
		return answer{fail: &failure{kind: servFail}}
	case dns.RcodeRefused:
		return answer{fail: &failure{kind: refused}}
	default:
		return answer{fail: &failure{kind: otherCode, text: rcodeWord(m.Rcode)}}
	}
	owner, ttl, hops := q.name, uint32(maxUint31TTL), 0
	for {
		found := recordsOf(m.Answer, owner, q.qtype)
		ttl = min(ttl, found.ttl)
		if len(found.addrs) > 0 && m.Rcode == dns.RcodeSuccess {
			return answer{addrs: found.addrs, ttl: time.Duration(ttl) * time.Second, hops: hops}
		}
		if found.cname == "" {
			return absence(m, owner, ttl, hops)
		}
		if hops++; hops > maxChain {
			return answer{fail: &failure{kind: malformed, text: "the CNAME chain is too long, or a loop"}}
		}
		owner = strings.ToLower(strings.TrimSuffix(found.cname, "."))
		if !validName(owner) {
			return answer{fail: &failure{kind: malformed, text: fmt.Sprintf("a CNAME leads to %.255q", owner)}}
		}
	}
}

// absence reads a reply without addresses, whose chain of CNAMEs ends at owner.
func absence(m *dns.Msg, owner string, chainTTL uint32, hops int) answer {
	a := answer{hops: hops}
	soaTTL, known := negativeTTL(m.Ns, owner)
	if known {
		a.ttl = time.Duration(min(soaTTL, chainTTL)) * time.Second
	}
	switch {
	case m.Rcode == dns.RcodeNameError:
		a.fail = &failure{kind: nxDomain}
	case known:
		a.fail = &failure{kind: noData}
	case hops > 0:
		a.follow, a.ttl = owner, time.Duration(chainTTL)*time.Second
	case !m.Authoritative && !m.RecursionAvailable:
		a.fail = &failure{kind: malformed, text: "the server does not recurse"}
	default:
		a.fail = &failure{kind: noData}
	}
	return a
}

// negativeTTL returns what the SOA of owner's zone says about absence
// (RFC 2308, section 5). The SOA of a zone that owner is not in says nothing.
func negativeTTL(section []dns.RR, owner string) (ttl uint32, known bool) {
	for _, rr := range section {
		soa, ok := rr.(*dns.SOA)
		if ok && soa.Hdr.Class == dns.ClassINET && dns.IsSubDomain(soa.Hdr.Name, dns.Fqdn(owner)) {
			return min(wireTTL(soa.Hdr.Ttl), wireTTL(soa.Minttl)), true
		}
	}
	return 0, false
}

// recordSet is what an answer section holds of one owner.
type recordSet struct {
	addrs []netip.Addr
	cname string
	ttl   uint32
}

// recordsOf collects the addresses of one owner, and its CNAME.
func recordsOf(section []dns.RR, owner string, qtype uint16) recordSet {
	set := recordSet{ttl: maxUint31TTL}
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET || !sameName(h.Name, owner) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.CNAME:
			if set.cname == "" {
				set.cname = rr.Target
				set.ttl = min(set.ttl, wireTTL(h.Ttl))
			}
		case *dns.A:
			if qtype == dns.TypeA {
				set.add(rr.A, h.Ttl)
			}
		case *dns.AAAA:
			if qtype == dns.TypeAAAA {
				set.add(rr.AAAA, h.Ttl)
			}
		}
	}
	return set
}

func (s *recordSet) add(ip []byte, ttl uint32) {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok || len(s.addrs) == maxAddresses {
		return
	}
	s.ttl = min(s.ttl, wireTTL(ttl))
	if addr = addr.Unmap(); !slices.Contains(s.addrs, addr) {
		s.addrs = append(s.addrs, addr)
	}
}

// wireTTL reads a TTL: with the top bit set it means zero (RFC 2181, section 8).
func wireTTL(ttl uint32) uint32 {
	if ttl > maxUint31TTL {
		return 0
	}
	return ttl
}

func rcodeWord(rcode int) string {
	if word, ok := dns.RcodeToString[rcode]; ok {
		return word
	}
	return fmt.Sprintf("RCODE%d", rcode)
}
