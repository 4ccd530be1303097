package steer

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuestion sends anything, by UDP and TCP, to a server with as many
// addresses as it may have. Whatever comes, there is no panic; an answer is
// about the question, byte for byte; it is no larger than it may be; and its
// addresses are the configured ones, or it has none.
func FuzzQuestion(f *testing.F) {
	seed := func(m *dns.Msg) {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true)
		f.Add(wire, false)
	}
	long := strings.Repeat("a.", 121) + "site.test"
	for _, name := range []string{"site.test", "EVIL.test", `a\.b\000.site.test`, ".", long} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeANY, dns.TypePTR, dns.TypeAXFR} {
			seed(query(name, qtype))
			seed(query(name, qtype, edns))
		}
	}
	seed(query("site.test", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(65535, true); m.IsEdns0().SetVersion(9) }))
	seed(query("site.test", dns.TypeA, func(m *dns.Msg) { m.Response = true }))
	seed(query("site.test", dns.TypeA, func(m *dns.Msg) { m.Opcode = 5 }))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), true)                     // a name that is its own end
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x12\x00\x01\x00\x01\x04site\x04test\x00"), true) // behind the question
	f.Add([]byte("\x00\x01\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff"), true)
	f.Add(make([]byte, headerSize-1), false)

	var many []netip.Addr
	for i := range byte(MaxAnswers) {
		many = append(many, netip.AddrFrom4([4]byte{203, 0, 113, i + 1}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: i + 1}))
	}
	s, _ := newServer(f, func(c *Config, _ *Deps) { c.Answer, c.Rate, c.Burst = many, 1<<40, 1<<40 })
	f.Fuzz(func(t *testing.T, wire []byte, datagram bool) {
		from := client
		from.datagram = datagram
		out := s.respond(t.Context(), bytes.Clone(wire), from)
		if out == nil {
			if len(wire) >= headerSize && wire[2]&0x80 == 0 {
				t.Errorf("a question without an answer: %x", wire)
			}
			return
		}
		if len(wire) < headerSize || !bytes.Equal(out[:2], wire[:2]) || out[2]&0x80 == 0 || (out[2]^wire[2])&0x79 != 0 {
			t.Fatalf("%x is no answer to %x", out, wire)
		}
		var a dns.Msg
		if err := a.Unpack(out); err != nil {
			t.Fatalf("%v: %x", err, out)
		}
		if len(out) > len(wire)+MaxAnswers*28+64 {
			t.Errorf("%d bytes answer %d", len(out), len(wire))
		}
		if len(a.Question) == 0 {
			if len(out) != headerSize {
				t.Errorf("%x", out)
			}
			return
		}
		var q dns.Msg
		if err := q.Unpack(wire); err != nil {
			t.Fatalf("what cannot be read was answered: %v", err)
		}
		end := headerSize + nameLength(wire[headerSize:])
		if len(q.Question) != 1 || q.Question[0] != a.Question[0] || !bytes.HasPrefix(out[headerSize:], wire[headerSize:end]) {
			t.Fatalf("%v answers %v", a.Question, q.Question)
		}
		limit := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			limit = min(max(limit, int(opt.UDPSize())), maxUDPAnswer)
		}
		if len(out) > limit {
			t.Errorf("%d bytes, the limit is %d", len(out), limit)
		}
		for _, rr := range a.Answer {
			if rr.Header().Name != q.Question[0].Name || !strings.HasSuffix(strings.ToLower(rr.Header().Name), ".test.") && !strings.HasSuffix(strings.ToLower(rr.Header().Name), ".amazonaws.com.") {
				t.Errorf("a record of %s", rr.Header().Name)
			}
		}
	})
}

// nameLength returns where a plain name's last byte is.
func nameLength(name []byte) int {
	n := 0
	for name[n] != 0 {
		n += 1 + int(name[n])
	}
	return n
}
