package resolve

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// reply packs a reply to q under id 7 from zone file lines.
func reply(t testing.TB, q question, rcode int, answer, authority []string) []byte {
	t.Helper()
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: 7, Response: true, RecursionAvailable: true, Rcode: rcode}}
	m.Question = []dns.Question{{Name: dns.Fqdn(q.name), Qtype: q.qtype, Qclass: dns.ClassINET}}
	for section, lines := range map[*[]dns.RR][]string{&m.Answer: answer, &m.Ns: authority} {
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				t.Fatal(err)
			}
			*section = append(*section, rr)
		}
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestReadReply(t *testing.T) {
	q := question{"name.test", dns.TypeA}
	good := reply(t, q, dns.RcodeSuccess, []string{"name.test. 60 IN A 192.0.2.1"}, nil)
	edit := func(change func(b []byte)) []byte {
		b := slices.Clone(good)
		change(b)
		return b
	}
	formerr := make([]byte, headerSize)
	copy(formerr, []byte{0, 7, 0x80, dns.RcodeFormatError})
	empty := make([]byte, headerSize)
	copy(empty, []byte{0, 7, 0x80, 0})
	for _, tt := range []struct {
		name string
		wire []byte
		want bool
	}{
		{"the reply", good, true},
		{"in other letters", []byte(strings.Replace(string(good), "\x04name\x04test", "\x04NaMe\x04tEST", 1)), true},
		{"truncated", edit(func(b []byte) { b[2] |= 2 }), true},
		{"truncated in the middle of a record", edit(func(b []byte) { b[2] |= 2 })[:len(good)-3], true},
		{"truncated before the question", edit(func(b []byte) { b[2] |= 2 })[:headerSize+3], false},
		{"FORMERR without the question", formerr, true},
		{"no question", empty, false},
		{"another id", edit(func(b []byte) { b[1]++ }), false},
		{"a query", edit(func(b []byte) { b[2] &^= 0x80 }), false},
		{"another opcode", edit(func(b []byte) { b[2] |= 4 << 3 }), false},
		{"another name", edit(func(b []byte) { b[headerSize+1] = 'x' }), false},
		{"a longer name", reply(t, question{"a.name.test", dns.TypeA}, 0, nil, nil), false},
		{"another type", reply(t, question{"name.test", dns.TypeAAAA}, 0, nil, nil), false},
		{"another class", edit(func(b []byte) { b[headerSize+14] = dns.ClassCHAOS }), false},
		{"two questions", append(edit(func(b []byte) { b[5] = 2 }), 0, 0, 1, 0, 1), false},
		{"cut short", good[:len(good)-1], false},
		{"a header's half", good[:6], false},
		{"nothing", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, ok := readReply(tt.wire, q, 7); ok != tt.want {
				t.Errorf("accepted: %v, want %v", ok, tt.want)
			}
		})
	}
}

// What is asked tells nothing but the question.
func TestNewQuery(t *testing.T) {
	wire, err := newQuery(question{"name.test", dns.TypeAAAA}, 0x1234, true)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatal(err)
	}
	opt := m.IsEdns0()
	if m.Id != 0x1234 || !m.RecursionDesired || m.CheckingDisabled || m.AuthenticatedData || len(m.Extra) != 1 ||
		opt == nil || len(opt.Option) != 0 || opt.Do() || opt.UDPSize() != udpSize {
		t.Errorf("query %v", m)
	}
	if len(m.Question) != 1 || m.Question[0].String() != ";name.test.\tIN\t AAAA" {
		t.Errorf("question %v", m.Question)
	}
}

func TestChainBound(t *testing.T) {
	q := question{"n0.test", dns.TypeA}
	for _, hops := range []int{1, maxChain, maxChain + 1} {
		var lines []string
		for i := range hops {
			lines = append(lines, fmt.Sprintf("n%d.test. 60 IN CNAME n%d.test.", i, i+1))
		}
		slices.Reverse(lines) // the order of records means nothing
		lines = append(lines, fmt.Sprintf("n%d.test. 60 IN A 192.0.2.1", hops))
		m, ok := readReply(reply(t, q, 0, lines, nil), q, 7)
		if !ok {
			t.Fatal("not accepted")
		}
		if a := interpret(m, q); (len(a.addrs) == 1) != (hops <= maxChain) {
			t.Errorf("%d hops: %+v", hops, a)
		}
	}
}

// FuzzReply holds what a reply can never do, whatever its bytes: give more
// addresses than the bound, an address of a name that the question's chain
// does not lead to, one of another family's record, an address twice, or a
// TTL that no record has.
func FuzzReply(f *testing.F) {
	q := question{"name.test", dns.TypeA}
	for _, lines := range [][]string{
		{"name.test. 60 IN A 192.0.2.1"},
		{"name.test. 60 IN CNAME b.test.", "b.test. 30 IN CNAME c.test.", "c.test. 10 IN A 192.0.2.1", "d.test. 10 IN A 192.0.2.2"},
		{"name.test. 60 IN CNAME name.test."},
		{"name.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME name.test.", "x.test. 1 IN A 192.0.2.1"},
		{"name.test. 60 IN AAAA ::ffff:192.0.2.1", "name.test. 60 IN A 192.0.2.1", "name.test. 60 CH A 192.0.2.3"},
		{},
		slices.Collect(func(yield func(string) bool) {
			for i := range 40 {
				if !yield(fmt.Sprintf("name.test. 60 IN A 192.0.2.%d", i)) {
					return
				}
			}
		}),
	} {
		f.Add(reply(f, q, dns.RcodeSuccess, lines, nil), false)
		f.Add(reply(f, q, dns.RcodeNameError, lines, []string{"test. 60 IN SOA n.test. h.test. 1 1 1 1 60"}), false)
		f.Add(reply(f, question{q.name, dns.TypeAAAA}, dns.RcodeSuccess, lines, nil), true)
	}
	f.Add(reply(f, q, dns.RcodeServerFailure, nil, nil), false)
	f.Add(reply(f, q, dns.RcodeRefused, nil, nil), false)
	f.Fuzz(func(t *testing.T, wire []byte, six bool) {
		q := q
		if six {
			q.qtype = dns.TypeAAAA
		}
		if len(wire) >= 2 {
			binary.BigEndian.PutUint16(wire, 7)
		}
		m, ok := readReply(wire, q, 7)
		if !ok {
			return
		}
		a := interpret(m, q)
		if n := len(a.addrs); n > maxAddresses || (n > 0) != (a.fail == nil && a.follow == "") {
			t.Fatalf("%d addresses, fail %v, follow %q", n, a.fail, a.follow)
		}
		if a.hops > maxChain || (a.follow != "" && (!validName(a.follow) || a.hops == 0)) {
			t.Fatalf("%d hops to %q", a.hops, a.follow)
		}
		rightful, ttls := reachable(m, q)
		for i, addr := range a.addrs {
			if !slices.Contains(rightful, addr) || addr.Is4In6() || slices.Contains(a.addrs[:i], addr) {
				t.Fatalf("%v of %v: not rightful", addr, a.addrs)
			}
		}
		if len(a.addrs) > 0 && (m.Rcode != dns.RcodeSuccess || !slices.Contains(ttls, a.ttl)) {
			t.Fatalf("ttl %v is no record's, or code %d", a.ttl, m.Rcode)
		}
	})
}

// reachable is the oracle: every address of every name that any CNAME of the
// reply leads to from the question, and the TTLs of its records, found without walking the chain in order.
func reachable(m *dns.Msg, q question) (out []netip.Addr, ttls []time.Duration) {
	names := map[string]bool{q.name + ".": true}
	for grown := true; grown; {
		grown = false
		for _, rr := range m.Answer {
			if c, ok := rr.(*dns.CNAME); ok && names[strings.ToLower(c.Hdr.Name)] && !names[strings.ToLower(c.Target)] {
				names[strings.ToLower(c.Target)] = true
				grown = true
			}
		}
	}
	for _, rr := range m.Answer {
		if names[strings.ToLower(rr.Header().Name)] {
			ttls = append(ttls, time.Duration(wireTTL(rr.Header().Ttl))*time.Second)
		}
		if !names[strings.ToLower(rr.Header().Name)] || rr.Header().Class != dns.ClassINET || rr.Header().Rrtype != q.qtype {
			continue
		}
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		out = append(out, addr.Unmap())
	}
	return out, ttls
}
