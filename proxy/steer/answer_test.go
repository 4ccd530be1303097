package steer

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// told puts an answer in one line: code, the data of its records, the types of
// its authority, the extended error.
func told(m *dns.Msg) string {
	if m == nil {
		return "nothing"
	}
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			words = append(words, rr.A.String())
		case *dns.AAAA:
			words = append(words, rr.AAAA.String())
		default:
			words = append(words, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	for _, rr := range m.Ns {
		words = append(words, dns.TypeToString[rr.Header().Rrtype])
	}
	if e := extended(m); e != nil {
		words = append(words, fmt.Sprint(e.InfoCode), e.ExtraText)
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func TestAnswers(t *testing.T) {
	from := func(a string) asker {
		c := client
		c.remote = netip.AddrPortFrom(netip.MustParseAddr(a), 40000)
		return c
	}
	tests := []struct {
		name  string
		qname string
		qtype uint16
		from  string
		want  string
	}{
		{name: "A", qname: "site.test", qtype: dns.TypeA, want: "NOERROR 203.0.113.10 203.0.113.11"},
		{name: "AAAA", qname: "a.site.test", qtype: dns.TypeAAAA, want: "NOERROR 2001:db8::10"},
		{name: "HTTPS", qname: "site.test", qtype: dns.TypeHTTPS, want: "NOERROR SOA"},
		{name: "SVCB", qname: "site.test", qtype: dns.TypeSVCB, want: "NOERROR SOA"},
		{name: "MX", qname: "site.test", qtype: dns.TypeMX, want: "NOERROR SOA"},
		{name: "TXT", qname: "site.test", qtype: dns.TypeTXT, want: "NOERROR SOA"},
		{name: "unheard of", qname: "site.test", qtype: 65280, want: "NOERROR SOA"},
		{name: "ANY", qname: "site.test", qtype: dns.TypeANY, want: `NOERROR "RFC8482" ""`},
		{name: "plain HTTP only", qname: "plain.test", qtype: dns.TypeA, want: "NOERROR 203.0.113.10 203.0.113.11"},
		{name: "other ports only", qname: "ssh.test", qtype: dns.TypeA, want: "NXDOMAIN 15 no_rule"},
		{name: "no rule", qname: "evil.test", qtype: dns.TypeA, want: "NXDOMAIN 15 no_rule"},
		{name: "no rule, HTTPS", qname: "evil.test", qtype: dns.TypeHTTPS, want: "NXDOMAIN 15 no_rule"},
		{name: "no rule, ANY", qname: "evil.test", qtype: dns.TypeANY, want: "NXDOMAIN 15 no_rule"},
		{name: "deny rule", qname: "paste.site.test", qtype: dns.TypeA, want: "NXDOMAIN 15 deny_rule"},
		{name: "another caller's", qname: "batch.test", qtype: dns.TypeA, want: "NXDOMAIN 15 no_rule"},
		{name: "the caller's own", qname: "batch.test", qtype: dns.TypeA, from: "10.0.16.9", want: "NOERROR 203.0.113.10 203.0.113.11"},
		{name: "report mode", qname: "evil.test", qtype: dns.TypeA, from: "10.0.32.9", want: "NOERROR 203.0.113.10 203.0.113.11"},
		{name: "report mode, no host name", qname: `a\.b.test`, qtype: dns.TypeA, from: "10.0.32.9", want: "NXDOMAIN 15 no_name"},
		{name: "inspected", qname: "acme-prod.s3.us-east-1.amazonaws.com", qtype: dns.TypeA, want: "NOERROR 203.0.113.10 203.0.113.11"},
		{name: "another bucket", qname: "other.s3.us-east-1.amazonaws.com", qtype: dns.TypeA, want: "NXDOMAIN 15 s3_bucket"},
		{name: "an address that a rule lists", qname: "192.0.2.7", qtype: dns.TypeA, want: "NXDOMAIN 15 no_name"},
		{name: "the root", qname: ".", qtype: dns.TypeNS, want: "NXDOMAIN 15 no_name"},
		{name: "a NUL", qname: `site\000.test`, qtype: dns.TypeA, want: "NXDOMAIN 15 no_name"},
		{name: "PTR", qname: "10.113.0.203.in-addr.arpa", qtype: dns.TypePTR, want: "NXDOMAIN 21"},
		{name: "PTR of an allowed name", qname: "site.test", qtype: dns.TypePTR, want: "NXDOMAIN 21"},
		{name: "AXFR", qname: "site.test", qtype: dns.TypeAXFR, want: "REFUSED 21"},
		{name: "IXFR", qname: "site.test", qtype: dns.TypeIXFR, want: "REFUSED 21"},
		{name: "TKEY", qname: "site.test", qtype: dns.TypeTKEY, want: "REFUSED 21"},
		{name: "type 0", qname: "site.test", qtype: 0, want: "REFUSED 21"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newServer(t, nil)
			c := client
			if tt.from != "" {
				c = from(tt.from)
			}
			got := put(t, s, query(tt.qname, tt.qtype, edns), c)
			if told(got) != tt.want {
				t.Errorf("got %q, want %q", told(got), tt.want)
			}
			// The same without EDNS: no OPT, and no extended error.
			plain := put(t, s, query(tt.qname, tt.qtype), c)
			if plain.IsEdns0() != nil {
				t.Error("EDNS was answered to whoever did not speak it")
			}
			if plain.Rcode != got.Rcode || len(plain.Answer) != len(got.Answer) {
				t.Errorf("without EDNS %q, with it %q", told(plain), told(got))
			}
			if !got.RecursionAvailable || got.Authoritative || !got.Response || got.Id != 4711 || !got.RecursionDesired {
				t.Errorf("header %+v", got.MsgHdr)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	s, _ := newServer(t, func(c *Config, _ *Deps) { c.Refused = Refused })
	for name, want := range map[string]string{"evil.test": "REFUSED 15 no_rule", "site.test": "NOERROR 203.0.113.10 203.0.113.11"} {
		if got := told(put(t, s, query(name, dns.TypeA, edns), client)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := told(put(t, s, query("1.0.0.10.in-addr.arpa", dns.TypePTR, edns), client)); got != "REFUSED 21" {
		t.Errorf("PTR: got %q", got)
	}
}

// TestOneFamily: where there is no IPv6 address, names have none, and exist.
func TestOneFamily(t *testing.T) {
	s, _ := newServer(t, func(c *Config, _ *Deps) { c.Answer, c.TTL = addrs("203.0.113.10"), 0 })
	r := put(t, s, query("site.test", dns.TypeAAAA), client)
	if got := told(r); got != "NOERROR SOA" {
		t.Errorf("got %q", got)
	}
	if h := r.Ns[0].Header(); h.Ttl != 0 || h.Name != "site.test." {
		t.Errorf("SOA %v", h)
	}
}

// TestCase: the question comes back letter for letter (0x20), and so does the
// name of the records; the policy does not mind.
func TestCase(t *testing.T) {
	s, _ := newServer(t, nil)
	for _, name := range []string{"SiTe.TeSt.", "EVIL.test."} {
		r := put(t, s, query(name, dns.TypeA, edns), client)
		if r.Question[0].Name != name {
			t.Errorf("got %s, want %s", r.Question[0].Name, name)
		}
		for _, rr := range r.Answer {
			if rr.Header().Name != name || rr.Header().Ttl != 60 {
				t.Errorf("got %v", rr.Header())
			}
		}
	}
}

func TestEdges(t *testing.T) {
	tests := []struct {
		name   string
		change func(*dns.Msg)
		want   string
	}{
		{"CHAOS", func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		}, "REFUSED"},
		{"any class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED"},
		{"an answer", func(m *dns.Msg) { m.Response = true }, "nothing"},
		{"UPDATE", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		{"NOTIFY", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "NOTIMP"},
		{"no question", func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR"},
		{"records in a question", func(m *dns.Msg) {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "site.test.", Rrtype: dns.TypeA, Class: 1}, A: []byte{1, 2, 3, 4}})
		}, "FORMERR"},
		{"two OPT", func(m *dns.Msg) { m.SetEdns0(1232, false); m.SetEdns0(512, false) }, "FORMERR"},
		{"EDNS 1", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, "BADVERS"},
		{"DO and CD", func(m *dns.Msg) { m.SetEdns0(1232, true); m.CheckingDisabled = true }, "NOERROR 203.0.113.10 203.0.113.11"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, recorded := newServer(t, nil)
			r := put(t, s, query("site.test", dns.TypeA, tt.change), client)
			got := told(r)
			if r != nil && r.Rcode == dns.RcodeBadVers {
				got = "BADVERS" // the library has two words for it
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.name == "DO and CD" && (!r.IsEdns0().Do() || !r.CheckingDisabled) {
				t.Errorf("DO and CD were not repeated: %v", r)
			}
			if n := len(recorded.take()); n != 0 {
				t.Errorf("%d records", n)
			}
		})
	}
}

// TestIdentity: rules for a caller that only the Identifier knows, and callers
// that it does not.
func TestIdentity(t *testing.T) {
	task := &policy.Task{ARN: "arn:aws:ecs:us-east-1:111122223333:task/prod/1", Cluster: "prod", Service: "payments"}
	const text = `
version: 1
sources: [{name: payments, ecs: {service: payments}}]
rules: [{name: bank, hosts: [bank.test], sources: [payments]}]
`
	s, recorded := newServer(t, func(_ *Config, d *Deps) {
		d.Decider = live(t, text)
		d.Identifier = identify(func(_ context.Context, s policy.Source) policy.Source {
			if s.Addr == netip.MustParseAddr("10.0.0.7") {
				s.Task = task
			} else {
				s.Unidentified = true
			}
			return s
		})
	})
	if got := told(put(t, s, query("bank.test", dns.TypeA), client)); got != "NOERROR 203.0.113.10 203.0.113.11" {
		t.Errorf("the task got %q", got)
	}
	put(t, s, query("evil.test", dns.TypeA), client)
	stranger := client
	stranger.remote = netip.MustParseAddrPort("10.0.0.8:1")
	if got := told(put(t, s, query("bank.test", dns.TypeA, edns), stranger)); got != "NXDOMAIN 18 unknown_source" {
		t.Errorf("a stranger got %q", got)
	}
	all := recorded.take()
	if len(all) != 2 || all[0].Task != task || all[0].Source != "payments" || all[1].Reason != policy.ReasonUnknownSource {
		t.Errorf("got %+v", all)
	}
}

// TestRecords: one record a minute for each client and name, whatever its case
// and the type; allowed names have none.
func TestRecords(t *testing.T) {
	s, recorded := newServer(t, nil)
	for _, name := range []string{"Evil.test", "evil.test", "site.test", "EVIL.TEST"} {
		put(t, s, query(name, dns.TypeA), client)
		put(t, s, query(name, dns.TypeAAAA), client)
	}
	all := recorded.take()
	if len(all) != 1 {
		t.Fatalf("%d records", len(all))
	}
	r := all[0]
	if r.Via != policy.ViaDNS || !r.Datagram || r.Host != "evil.test" || r.Reason != policy.ReasonNoRule || r.Outcome != flow.Outcome(policy.ReasonNoRule) ||
		r.Verdict != policy.Deny || r.Client != client.remote || r.Listener != client.local || r.PolicyVersion == "" || !strings.Contains(r.Error, " A records") {
		t.Errorf("got %+v", r)
	}
	other := client
	other.remote = netip.MustParseAddrPort("10.0.0.8:1")
	other.datagram = false
	put(t, s, query("evil.test", dns.TypeA), other)
	put(t, s, query("paste.site.test", dns.TypeA), client)
	if all = recorded.take(); len(all) != 2 || all[0].Datagram || all[1].Rule != "no-paste" {
		t.Errorf("got %+v", all)
	}
	if st := s.Stats(); st.Allowed != 2 || st.Denied != 8 || st.Unrecorded != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestFame(t *testing.T) {
	f, now := newFame(), time.Unix(1e9, 0)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	if f.first(a, "x.test.", now) != firstTime || f.first(a, "X.test.", now.Add(59*time.Second)) != again || f.first(a, "x.test.", now.Add(time.Minute)) != firstTime {
		t.Error("not once a minute")
	}
	got := map[sight]int{}
	for i := range 1000 {
		got[f.first(a, fmt.Sprintf("%d.test.", i), now.Add(time.Hour))]++
	}
	if got[firstTime] != fameOfOne {
		t.Errorf("one client may have %v records at once", got)
	}
	if f.first(b, "x.test.", now.Add(time.Hour)) != firstTime {
		t.Error("one client's flood hides another's record")
	}
	// Many clients fill it; after their minute there is room again.
	full := now.Add(2 * time.Hour)
	for i := range 2 * fameNames {
		f.first(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "y.test.", full)
	}
	if len(f.seen) > fameNames {
		t.Errorf("%d names are remembered", len(f.seen))
	}
	if f.first(b, "z.test.", full.Add(time.Second)) != crowded || f.first(b, "z.test.", full.Add(time.Minute)) != firstTime {
		t.Error("no room when there should be, or the other way round")
	}
}

// TestRate: a network that asks too much by UDP is sent to TCP with answers no
// larger than its questions; by TCP, and to others, nothing changes.
func TestRate(t *testing.T) {
	s, _ := newServer(t, func(c *Config, _ *Deps) { c.Rate, c.Burst = 1, 5 })
	limited := 0
	for range 20 {
		m := query("site.test", dns.TypeA, edns)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := s.respond(t.Context(), wire, client)
		var r dns.Msg
		if err := r.Unpack(out); err != nil {
			t.Fatal(err)
		}
		if r.Truncated {
			limited++
			if len(out) > len(wire) || len(r.Answer) > 0 {
				t.Errorf("%d bytes answer %d: %v", len(out), len(wire), &r)
			}
		}
	}
	if limited < 10 || limited > 15 || s.Stats().Limited != uint64(limited) {
		t.Errorf("%d of 20 were limited, %+v", limited, s.Stats())
	}
	byTCP := client
	byTCP.datagram = false
	if r := put(t, s, query("site.test", dns.TypeA), byTCP); r.Truncated {
		t.Error("TCP is limited, too")
	}
	other := client
	other.remote = netip.MustParseAddrPort("10.9.9.9:1")
	if r := put(t, s, query("site.test", dns.TypeA), other); r.Truncated {
		t.Error("another network is limited, too")
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::",
	} {
		if got := network(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	nine := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.9")
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"empty", Config{}, "no address"},
		{"unspecified", Config{Answer: addrs("0.0.0.0")}, "answer[0]: 0.0.0.0 is not"},
		{"multicast", Config{Answer: addrs("10.0.0.1", "ff02::1")}, "answer[1]: ff02::1 is not"},
		{"broadcast", Config{Answer: addrs("255.255.255.255")}, "is not an address that"},
		{"twice", Config{Answer: addrs("10.0.0.1", "::ffff:10.0.0.1")}, "twice"},
		{"many", Config{Answer: nine}, "more than 8"},
		{"TTL", Config{Answer: nine[:1], TTL: 1500 * time.Millisecond}, "whole seconds"},
		{"right", Config{Answer: append(nine[:8:8], addrs("2001:db8::1")...), TTL: time.Second}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := New(Config{Answer: nine[:1]}, Deps{}); err == nil {
		t.Error("a server without a policy")
	}
}
