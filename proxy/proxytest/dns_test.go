package proxytest

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask asks d one question, over UDP unless network says otherwise.
func ask(t *testing.T, d *DNS, network, name, qtype string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	in, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).ExchangeContext(t.Context(), m, d.Addr())
	if err != nil {
		t.Fatalf("asking for %s: %v", name, err)
	}
	return in
}

// The server is right in the eyes of another resolver, Go's own.
func TestDNSForGo(t *testing.T) {
	d := NewDNS(t)
	d.Set("a.test", "127.0.0.2", "::1")
	d.Answer("alias.test", DNSAnswer{CNAME: "a.test"})
	d.Answer("big.test", DNSAnswer{Addresses: slices.Repeat([]netip.Addr{netip.MustParseAddr("127.0.0.3")}, 300)})
	d.Set("*.wild.test", "127.0.0.4")
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.Addr())
	}}
	for name, want := range map[string]int{"a.test.": 2, "alias.test.": 2, "big.test.": 300, "x.y.wild.test.": 1} {
		if got, err := r.LookupHost(t.Context(), name); err != nil || len(got) != want {
			t.Errorf("%s: %d addresses, %v, want %d", name, len(got), err, want)
		}
	}
	for _, name := range []string{"none.test.", "wild.test."} {
		if _, err := r.LookupHost(t.Context(), name); err == nil || !err.(*net.DNSError).IsNotFound { //nolint:errorlint // net.Resolver promises the type
			t.Errorf("%s: %v, want no such host", name, err)
		}
	}
}

func TestDNSLog(t *testing.T) {
	d := NewDNS(t)
	d.Handle("n.test", func(q DNSQuery) DNSAnswer {
		return DNSAnswer{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, byte(q.N)})}}
	})
	ask(t, d, "udp", "N.test", "A")
	if a := ask(t, d, "tcp", "n.test", "A").Answer[0].(*dns.A); a.A.String() != "127.0.0.2" {
		t.Errorf("the second answer is %s", a.A)
	}
	ask(t, d, "udp", "other.test", "AAAA")
	want := []DNSQuery{
		{Name: "n.test", Type: "A", Network: "udp", N: 1},
		{Name: "n.test", Type: "A", Network: "tcp", N: 2},
		{Name: "other.test", Type: "AAAA", Network: "udp", N: 1},
	}
	if got := d.Queries(); !slices.Equal(got, want) {
		t.Errorf("log %v, want %v", got, want)
	}
	if d.Count("n.test.") != 2 || d.Count("none.test") != 0 || !slices.Equal(d.Names(), []string{"n.test", "other.test"}) {
		t.Errorf("counts are wrong: %v", d.Queries())
	}
	d.Forget()
	if len(d.Queries()) != 0 {
		t.Error("the log is not empty")
	}
}

func TestDNSNegative(t *testing.T) {
	d := NewDNS(t)
	d.Set("empty.test")
	d.Answer("nosoa.test", DNSAnswer{NoSOA: true})
	d.Answer("cut.test", DNSAnswer{Truncate: true})
	for _, tt := range []struct {
		name  string
		rcode int
		soa   int
	}{{"none.test", dns.RcodeNameError, 1}, {"empty.test", dns.RcodeSuccess, 1}, {"nosoa.test", dns.RcodeSuccess, 0}} {
		if m := ask(t, d, "udp", tt.name, "A"); m.Rcode != tt.rcode || len(m.Ns) != tt.soa || len(m.Answer) != 0 {
			t.Errorf("%s: %v", tt.name, m)
		}
	}
	if m := ask(t, d, "udp", "cut.test", "A"); !m.Truncated {
		t.Error("not truncated over UDP")
	}
	if m := ask(t, d, "tcp", "cut.test", "A"); m.Truncated {
		t.Error("truncated over TCP")
	}
}
