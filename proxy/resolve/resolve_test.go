package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// clock is a resolver's time, moved by hand.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// start makes a resolver that asks servers and ends with the test.
func start(t testing.TB, cfg Config, servers ...*proxytest.DNS) (*Resolver, *clock) {
	t.Helper()
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, s.Addr())
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := new(clock)
	r.now = c.now
	r.delay = time.Minute // the machine may be busy: see TestResolutionDelay
	t.Cleanup(r.Close)
	return r, c
}

func addrs(texts ...string) []netip.Addr {
	out := make([]netip.Addr, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

// expect looks a name up and compares.
func expect(t *testing.T, r *Resolver, name string, want ...string) {
	t.Helper()
	got, err := r.Lookup(t.Context(), name)
	if err != nil || !slices.Equal(got, addrs(want...)) {
		t.Errorf("Lookup(%q) = %v, %v, want %v", name, got, err, want)
	}
}

// expectError looks a name up and compares the error's word.
func expectError(t *testing.T, r *Resolver, name, word string) *net.DNSError {
	t.Helper()
	got, err := r.Lookup(t.Context(), name)
	e, ok := errors.AsType[*net.DNSError](err)
	if len(got) != 0 || !ok || e.Err != word || e.Name != name {
		t.Errorf("Lookup(%q) = %v, %v, want the error %q", name, got, err, word)
		return new(net.DNSError)
	}
	return e
}

// eventually polls until ok, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not yet after 10 s: %s", what)
		}
	}
}

func TestAnswers(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Set("both.test", "192.0.2.1", "2001:db8::1", "192.0.2.2")
	d.Set("four.test", "192.0.2.1")
	d.Set("six.test", "2001:db8::1")
	d.Set("mapped.test", "::ffff:192.0.2.9")
	d.Set("mapped-twice.test", "::ffff:192.0.2.9", "192.0.2.8", "192.0.2.9")
	d.Set("twice.test", "192.0.2.1", "192.0.2.1")
	d.Set("empty.test")
	d.Answer("alias.test", proxytest.DNSAnswer{CNAME: "Alias-Two.test"})
	d.Answer("alias-two.test", proxytest.DNSAnswer{CNAME: "both.test"})
	d.Answer("bare.test", proxytest.DNSAnswer{CNAME: "bare-two.test", CNAMEOnly: true, NoSOA: true})
	d.Answer("bare-two.test", proxytest.DNSAnswer{CNAME: "both.test", CNAMEOnly: true, NoSOA: true})
	d.Answer("dangling.test", proxytest.DNSAnswer{CNAME: "nowhere.test"})
	d.Answer("loop.test", proxytest.DNSAnswer{CNAME: "loop.test"})
	d.Answer("bare-loop.test", proxytest.DNSAnswer{CNAME: "bare-pool.test", CNAMEOnly: true, NoSOA: true})
	d.Answer("bare-pool.test", proxytest.DNSAnswer{CNAME: "bare-loop.test", CNAMEOnly: true, NoSOA: true})
	d.Answer("odd.test", proxytest.DNSAnswer{CNAME: `a\032b.test`})
	d.Answer("servfail.test", proxytest.DNSAnswer{RCode: "SERVFAIL"})
	d.Answer("refused.test", proxytest.DNSAnswer{RCode: "REFUSED"})
	d.Answer("notauth.test", proxytest.DNSAnswer{RCode: "NOTAUTH"})
	d.Answer("lame.test", proxytest.DNSAnswer{Lame: true, NoSOA: true, Authority: []string{"test. 60 IN NS ns.test."}})
	d.Answer("old-server.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), NoEDNS: true})
	d.Answer("truncated.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), Truncate: true})
	d.Answer("dropped.test", proxytest.DNSAnswer{Drop: true})
	r, _ := start(t, Config{Timeout: 300 * time.Millisecond}, d)

	for name, want := range map[string][]string{
		"both.test":         {"2001:db8::1", "192.0.2.1", "192.0.2.2"},
		"four.test":         {"192.0.2.1"},
		"six.test":          {"2001:db8::1"},
		"mapped.test":       {"192.0.2.9"},
		"mapped-twice.test": {"192.0.2.8", "192.0.2.9"},
		"twice.test":        {"192.0.2.1"},
		"alias.test":        {"2001:db8::1", "192.0.2.1", "192.0.2.2"},
		"bare.test":         {"2001:db8::1", "192.0.2.1", "192.0.2.2"},
		"old-server.test":   {"192.0.2.1"},
		"truncated.test":    {"192.0.2.1"},
		"localhost":         {"::1", "127.0.0.1"},
		"a.localhost":       {"::1", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := r.Lookup(t.Context(), name)
			got = slices.Clone(got)
			slices.SortFunc(got, func(a, b netip.Addr) int { return strings.Compare(b.String(), a.String()) })
			slices.SortFunc(want, func(a, b string) int { return strings.Compare(b, a) })
			if err != nil || !slices.Equal(got, addrs(want...)) {
				t.Errorf("Lookup(%q) = %v, %v, want %v", name, got, err, want)
			}
		})
	}
	for _, tt := range []struct {
		name, word                   string
		timeout, notFound, temporary bool
	}{
		{"nowhere.test", "NXDOMAIN", false, true, false},
		{"dangling.test", "NXDOMAIN", false, true, false},
		{"empty.test", "NODATA", false, true, false},
		{"servfail.test", "SERVFAIL", false, false, true},
		{"refused.test", "REFUSED", false, false, true},
		{"notauth.test", "NOTAUTH", false, false, true},
		{"lame.test", "the server does not recurse", false, false, true},
		{"loop.test", "the CNAME chain is too long, or a loop", false, false, true},
		{"bare-loop.test", "the CNAME chain is too long, or a loop", false, false, true},
		{"odd.test", `a CNAME leads to "a\\ b.test"`, false, false, true},
		{"dropped.test", "no DNS server answered in time", true, false, true},
		{"", "not a canonical host name", false, false, false},
		{"UPPER.test", "not a canonical host name", false, false, false},
		{"dot.test.", "not a canonical host name", false, false, false},
		{"a..test", "not a canonical host name", false, false, false},
		{".test", "not a canonical host name", false, false, false},
		{"a\x00b.test", "not a canonical host name", false, false, false},
		{`a\.b.test`, "not a canonical host name", false, false, false},
		{"192.0.2.1", "not a canonical host name", false, false, false},
		{"2001:db8::1", "not a canonical host name", false, false, false},
		{strings.Repeat("a", 64) + ".test", "not a canonical host name", false, false, false},
		{strings.Repeat("a.", 126) + "aa", "not a canonical host name", false, false, false},
	} {
		t.Run("error "+tt.name, func(t *testing.T) {
			e := expectError(t, r, tt.name, tt.word)
			if e.IsTimeout != tt.timeout || e.IsNotFound != tt.notFound || e.IsTemporary != tt.temporary {
				t.Errorf("timeout %v, not found %v, temporary %v", e.IsTimeout, e.IsNotFound, e.IsTemporary)
			}
		})
	}
	for _, q := range d.Queries() {
		if !validName(q.Name) || strings.Contains(q.Name, "localhost") {
			t.Errorf("%q was asked", q.Name)
		}
		if q.EDNS != 0 && q.EDNS != udpSize {
			t.Errorf("EDNS offered %d bytes", q.EDNS)
		}
	}
}

func TestHosts(t *testing.T) {
	d := proxytest.NewDNS(t)
	r, _ := start(t, Config{Hosts: []Host{
		{"Origin.Test.", addrs("127.0.0.2", "::ffff:127.0.0.3")},
		{"localhost", addrs("127.0.0.9")},
	}}, d)
	expect(t, r, "origin.test", "127.0.0.2", "127.0.0.3")
	expect(t, r, "localhost", "127.0.0.9")
	if n := len(d.Queries()); n != 0 {
		t.Errorf("%d questions were asked about static names", n)
	}
	if s := r.Stats(); s.Static != 2 || s.Lookups != 2 {
		t.Errorf("stats %+v", s)
	}
}

// No search domain, no retry with a suffix: exactly the name, twice.
func TestAsksExactly(t *testing.T) {
	d := proxytest.NewDNS(t)
	r, _ := start(t, Config{}, d)
	expectError(t, r, "single", "NXDOMAIN")
	expectError(t, r, "single", "NXDOMAIN")
	var got []string
	for _, q := range d.Queries() {
		got = append(got, q.Name+" "+q.Type+" "+q.Network)
	}
	slices.Sort(got)
	if want := []string{"single A udp", "single AAAA udp"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestTTL(t *testing.T) {
	cfg := Config{MinTTL: 5 * time.Second, MaxTTL: time.Hour, NegativeTTLMax: time.Minute}
	a4, a6 := addrs("192.0.2.1"), addrs("2001:db8::1")
	both := slices.Concat(a4, a6)
	for _, tt := range []struct {
		name   string
		answer proxytest.DNSHandler
		want   time.Duration
	}{
		{"the record's", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: both, TTL: 42}
		}, 42 * time.Second},
		{"the smaller of the families", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: both, TTL: map[string]int{"A": 30, "AAAA": 20}[q.Type]}
		}, 20 * time.Second},
		{"zero is raised", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: both, TTL: -1}
		}, 5 * time.Second},
		{"a day is cut", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: both, TTL: 86400}
		}, time.Hour},
		{"the top bit means zero", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: both, TTL: 1 << 31}
		}, 5 * time.Second},
		{"a CNAME's is smaller", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{CNAME: "target.test", TTL: 12}
		}, 12 * time.Second},
		{"a CNAME's, followed by hand", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{CNAME: "target.test", TTL: 12, CNAMEOnly: true, NoSOA: true}
		}, 12 * time.Second},
		{"a missing family's, to look again", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: a4, TTL: 300, NegativeTTL: 40}
		}, 40 * time.Second},
		{"a missing family without SOA", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Addresses: a6, TTL: 300, NoSOA: true}
		}, 300 * time.Second},
		{"a failing family is asked again soon", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
			if q.Type == "AAAA" {
				return proxytest.DNSAnswer{RCode: "SERVFAIL"}
			}
			return proxytest.DNSAnswer{Addresses: a4, TTL: 300}
		}, partialTTL},
		{"no such name", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{RCode: "NXDOMAIN", NegativeTTL: 33}
		}, 33 * time.Second},
		{"no such name, for a day", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{RCode: "NXDOMAIN", NegativeTTL: 86400}
		}, time.Minute},
		{"no such name, without SOA", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{RCode: "NXDOMAIN", NoSOA: true}
		}, failureTTL},
		{"the SOA of another zone says nothing", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{Authority: []string{"other. 50 IN SOA ns.other. h.other. 1 1 1 1 50"}}
		}, failureTTL},
		{"SERVFAIL", func(proxytest.DNSQuery) proxytest.DNSAnswer {
			return proxytest.DNSAnswer{RCode: "SERVFAIL"}
		}, failureTTL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := proxytest.NewDNS(t)
			d.Handle("name.test", tt.answer)
			d.Answer("target.test", proxytest.DNSAnswer{Addresses: both, TTL: 300})
			r, c := start(t, cfg, d)
			r.Lookup(t.Context(), "name.test")
			// A family that is late would land after the clock was moved.
			eventually(t, "the lookup's end", func() bool { return r.Stats().InFlight == 0 })
			asked := d.Count("name.test")
			c.advance(tt.want - 500*time.Millisecond)
			r.Lookup(t.Context(), "name.test")
			if n := d.Count("name.test"); n != asked {
				t.Errorf("asked again before %s", tt.want)
			}
			c.advance(501 * time.Millisecond)
			r.Lookup(t.Context(), "name.test")
			if n := d.Count("name.test"); n == asked {
				t.Errorf("not asked again after %s", tt.want)
			}
		})
	}
}

func TestChangingAnswers(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Handle("change.test", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
		return proxytest.DNSAnswer{Addresses: addrs(fmt.Sprintf("192.0.2.%d", q.N)), TTL: 10}
	})
	r, c := start(t, Config{}, d)
	expect(t, r, "change.test", "192.0.2.1")
	expect(t, r, "change.test", "192.0.2.1")
	c.advance(11 * time.Second)
	expect(t, r, "change.test", "192.0.2.2")
}

func TestThousandAddresses(t *testing.T) {
	d := proxytest.NewDNS(t)
	var many []netip.Addr
	for i := range 1000 {
		many = append(many, netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
	}
	d.Answer("many.test", proxytest.DNSAnswer{Addresses: many})
	var mapped []netip.Addr
	for i := range 16 {
		mapped = append(mapped, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom16(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).As16()))
	}
	d.Answer("mapped.test", proxytest.DNSAnswer{Addresses: mapped})
	r, _ := start(t, Config{}, d)
	if got, err := r.Lookup(t.Context(), "mapped.test"); err != nil || len(got) != maxAddresses {
		t.Errorf("got %d IPv4 addresses by way of A and AAAA, %v", len(got), err)
	}
	got, err := r.Lookup(t.Context(), "many.test")
	if err != nil || len(got) != 2*maxAddresses || !got[0].Is6() || !got[maxAddresses].Is4() {
		t.Fatalf("got %d addresses, %v: %v", len(got), err, got)
	}
	if s := r.Stats(); s.TCP != 2 {
		t.Errorf("%d questions over TCP, want 2", s.TCP)
	}
}

// Replies that are not ours are ignored until ours comes.
func TestLies(t *testing.T) {
	t.Parallel()
	lies := map[string]proxytest.DNSLie{
		"id": proxytest.LieID, "question": proxytest.LieQuestion, "type": proxytest.LieType,
		"source": proxytest.LieSource, "query": proxytest.LieQuery, "garbage": proxytest.LieGarbage,
	}
	d := proxytest.NewDNS(t)
	for what, lie := range lies {
		truth := proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), Lies: []proxytest.DNSLie{lie, lie}}
		d.Answer(what+".test", truth)
		truth.Drop = true
		d.Answer(what+".only.test", truth)
		truth.Drop, truth.Lies = false, slices.Repeat([]proxytest.DNSLie{lie}, 20)
		d.Answer(what+".flood.test", truth)
	}
	for what := range lies {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r, _ := start(t, Config{Timeout: 300 * time.Millisecond}, d)
			expect(t, r, what+".test", "192.0.2.1")
			if n := r.Stats().Foreign; what == "source" && n != 0 || what != "source" && n != 4 {
				t.Errorf("%d replies ignored", n)
			}
			e := expectError(t, r, what+".only.test", "no DNS server answered in time")
			if !e.IsTimeout {
				t.Error("no timeout")
			}
			expect(t, r, what+".flood.test", "192.0.2.1")
			tcp := slices.ContainsFunc(d.Queries(), func(q proxytest.DNSQuery) bool {
				return q.Name == what+".flood.test" && q.Network == "tcp"
			})
			if tcp == (what == "source") {
				t.Errorf("asked over TCP: %v", tcp)
			}
		})
	}
}

// An answer may carry what nobody asked for. It is nobody's address: neither
// that of the name asked for nor, later, its own.
func TestUnrelatedRecords(t *testing.T) {
	d := proxytest.NewDNS(t)
	forged := proxytest.ForgedAddress().String()
	d.Answer("good.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), Records: []string{
		"victim.test. 3600 IN A " + forged, "sub.good.test. 3600 IN A " + forged, "xgood.test. 3600 IN A " + forged,
		"good.test. 3600 CH A " + forged, "victim.test. 3600 IN CNAME good.test.", "good.test. 3600 IN TXT \"" + forged + "\"",
	}})
	d.Answer("only.test", proxytest.DNSAnswer{Records: []string{"victim.test. 3600 IN A " + forged}})
	d.Answer("alias.test", proxytest.DNSAnswer{Records: []string{
		"alias.test. 60 IN CNAME true.test.", "true.test. 60 IN A 192.0.2.2", "false.test. 60 IN A " + forged,
	}})
	d.Set("victim.test", "192.0.2.3")
	r, _ := start(t, Config{}, d)
	expect(t, r, "good.test", "192.0.2.1")
	expectError(t, r, "only.test", "NODATA")
	expect(t, r, "alias.test", "192.0.2.2")
	expect(t, r, "victim.test", "192.0.2.3")
}

func TestSingleFlight(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Answer("slow.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), Delay: 100 * time.Millisecond})
	r, _ := start(t, Config{}, d)
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() { expect(t, r, "slow.test", "192.0.2.1") })
	}
	callers.Wait()
	if n := d.Count("slow.test"); n != 2 {
		t.Errorf("%d questions, want one of each family", n)
	}
}

// A caller that gives up gets its own cause and takes nobody with it, not even
// when it started the flight.
func TestCancelledCaller(t *testing.T) {
	d := proxytest.NewDNS(t)
	release := make(chan struct{})
	d.Handle("slow.test", func(proxytest.DNSQuery) proxytest.DNSAnswer {
		<-release
		return proxytest.DNSAnswer{Addresses: addrs("192.0.2.1")}
	})
	r, _ := start(t, Config{}, d)
	gone := errors.New("the client is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	first := make(chan error)
	go func() {
		_, err := r.Lookup(ctx, "slow.test")
		first <- err
	}()
	eventually(t, "the question is asked", func() bool { return d.Count("slow.test") == 2 })
	second := make(chan error)
	go func() {
		_, err := r.Lookup(t.Context(), "slow.test")
		second <- err
	}()
	cancel(gone)
	if err := <-first; !errors.Is(err, gone) {
		t.Errorf("the first caller got %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the second caller got %v", err)
	}
	expect(t, r, "slow.test", "192.0.2.1")
	if n := d.Count("slow.test"); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
}

// Beyond the bound a lookup fails at once and nothing is started for it.
func TestPileUp(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Mute(true)
	r, _ := start(t, Config{Flights: 3, Timeout: 5 * time.Second, Budget: 5 * time.Second}, d)
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for i := range 3 {
		callers.Go(func() { r.Lookup(ctx, fmt.Sprintf("n%d.test", i)) })
	}
	eventually(t, "three flights", func() bool { return r.Stats().InFlight == 3 })
	for i := range 50 {
		expectError(t, r, fmt.Sprintf("more%d.test", i), "too many lookups in flight")
	}
	cancel()
	callers.Wait()
	r.Close()
	if s := r.Stats(); s.InFlight != 0 || s.Failures["overload"] != 50 {
		t.Errorf("stats %+v", s)
	}
}

func TestOtherServers(t *testing.T) {
	for what, bad := range map[string]proxytest.DNSAnswer{
		"dead": {Drop: true}, "SERVFAIL": {RCode: "SERVFAIL"}, "REFUSED": {RCode: "REFUSED"},
	} {
		t.Run(what, func(t *testing.T) {
			first, second := proxytest.NewDNS(t), proxytest.NewDNS(t)
			first.HandleOther(func(proxytest.DNSQuery) proxytest.DNSAnswer { return bad })
			second.Set("*.test", "192.0.2.1")
			r, c := start(t, Config{Timeout: 200 * time.Millisecond}, first, second)
			expect(t, r, "a.test", "192.0.2.1")
			if n := first.Count("a.test"); n != 2 {
				t.Errorf("the first server was asked %d times, want 2", n)
			}
			expect(t, r, "b.test", "192.0.2.1")
			if n := first.Count("b.test"); n != 0 {
				t.Errorf("the failing server was still asked first")
			}
			c.advance(penalty + time.Second)
			expect(t, r, "c.test", "192.0.2.1")
			if n := first.Count("c.test"); n != 2 {
				t.Errorf("the first server was not tried again after its penalty")
			}
		})
	}
}

// A name that fails everywhere is the name's fault: no server is demoted.
func TestBrokenNameDemotesNobody(t *testing.T) {
	first, second := proxytest.NewDNS(t), proxytest.NewDNS(t)
	for _, d := range []*proxytest.DNS{first, second} {
		d.Answer("broken.test", proxytest.DNSAnswer{RCode: "SERVFAIL"})
		d.Set("fine.test", "192.0.2.1")
	}
	r, _ := start(t, Config{}, first, second)
	expectError(t, r, "broken.test", "SERVFAIL")
	expect(t, r, "fine.test", "192.0.2.1")
	if first.Count("fine.test") != 2 || second.Count("fine.test") != 0 {
		t.Error("the first server was demoted")
	}
	if n := first.Count("broken.test"); n != 2 {
		t.Errorf("a server that said SERVFAIL was asked %d times, want 2", n)
	}
}

// NXDOMAIN is an answer: nobody else is asked.
func TestNoSecondOpinion(t *testing.T) {
	first, second := proxytest.NewDNS(t), proxytest.NewDNS(t)
	second.Set("name.test", "192.0.2.1")
	r, _ := start(t, Config{}, first, second)
	expectError(t, r, "name.test", "NXDOMAIN")
	if n := len(second.Queries()); n != 0 {
		t.Errorf("the second server was asked %d times", n)
	}
}

func TestClosedPort(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r, _ := start(t, Config{Servers: []string{l.LocalAddr().String()}})
	_, err = r.Lookup(t.Context(), "name.test")
	if e, ok := errors.AsType[*net.DNSError](err); !ok || e.IsTimeout || e.IsNotFound || !strings.Contains(e.Err, "refused") {
		t.Errorf("error %v", err)
	}
	if s := r.Stats(); s.Failures["unreachable"] != 1 {
		t.Errorf("stats %+v", s)
	}
}

// All servers die: what was known is served, for a bounded time; what was not
// fails; and all is well as soon as one is back.
func TestOutage(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Answer("known.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), TTL: 10})
	d.Set("new.test", "192.0.2.2")
	r, c := start(t, Config{Timeout: 200 * time.Millisecond, StaleFor: 30 * time.Second}, d)
	expect(t, r, "known.test", "192.0.2.1")
	eventually(t, "both families", func() bool { return r.Stats().InFlight == 0 }) // else the late one lands after the clock was moved

	d.Mute(true)
	c.advance(11 * time.Second)
	for range 3 {
		expect(t, r, "known.test", "192.0.2.1")
		expectError(t, r, "new.test", "no DNS server answered in time")
	}
	if s := r.Stats(); s.Stale != 3 {
		t.Errorf("%d stale answers, want 3", s.Stale)
	}
	// Within a second of a failure nobody asks again.
	asked := d.Count("known.test")
	expect(t, r, "known.test", "192.0.2.1")
	if n := r.Stats().InFlight; n != 0 {
		t.Error("asked again within a second of a failure")
	}
	// Then one flight does, behind the answers.
	c.advance(1100 * time.Millisecond)
	expect(t, r, "known.test", "192.0.2.1")
	eventually(t, "a refresh", func() bool { return d.Count("known.test") > asked && r.Stats().InFlight == 0 })

	c.advance(30 * time.Second)
	expectError(t, r, "known.test", "no DNS server answered in time")

	d.Mute(false)
	c.advance(1100 * time.Millisecond) // the failure is forgotten
	expect(t, r, "known.test", "192.0.2.1")
	expect(t, r, "new.test", "192.0.2.2")
}

// While stale answers are served, the first refresh that succeeds ends it.
func TestStaleEnds(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Answer("name.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), TTL: 10})
	r, c := start(t, Config{Timeout: 200 * time.Millisecond}, d)
	expect(t, r, "name.test", "192.0.2.1")
	d.Answer("name.test", proxytest.DNSAnswer{RCode: "SERVFAIL"})
	c.advance(11 * time.Second)
	expect(t, r, "name.test", "192.0.2.1")
	d.Set("name.test", "192.0.2.2")
	c.advance(1100 * time.Millisecond)
	r.Lookup(t.Context(), "name.test") // starts the refresh
	eventually(t, "the new address", func() bool {
		got, err := r.Lookup(t.Context(), "name.test")
		return err == nil && slices.Equal(got, addrs("192.0.2.2"))
	})
	// "No such name" is an answer, too: nothing stale survives it.
	d.Answer("name.test", proxytest.DNSAnswer{RCode: "NXDOMAIN"})
	c.advance(time.Minute + time.Second)
	expectError(t, r, "name.test", "NXDOMAIN")
}

func TestStaleNever(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Answer("name.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), TTL: 10})
	r, c := start(t, Config{Timeout: 200 * time.Millisecond, StaleFor: -1}, d)
	expect(t, r, "name.test", "192.0.2.1")
	d.Mute(true)
	c.advance(11 * time.Second)
	expectError(t, r, "name.test", "no DNS server answered in time")
}

// A flood of names that do not exist evicts itself, not the names in use.
func TestCacheBound(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Set("used.test", "192.0.2.1")
	r, _ := start(t, Config{CacheSize: 50}, d)
	for i := range 500 {
		expect(t, r, "used.test", "192.0.2.1")
		expectError(t, r, fmt.Sprintf("flood%d.test", i), "NXDOMAIN")
	}
	if s := r.Stats(); s.Entries != 50 || s.Evicted != 451 {
		t.Errorf("%d entries, %d evicted, want 50 and 451", s.Entries, s.Evicted)
	}
	if n := d.Count("used.test"); n != 2 {
		t.Errorf("the name in use was asked %d times, want 2", n)
	}
}

// Of names that exist, those in use stay.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Answer("*.test", proxytest.DNSAnswer{Addresses: addrs("192.0.2.1"), TTL: 3600, NegativeTTL: 3600})
	r, c := start(t, Config{CacheSize: 20}, d)
	for i := range 200 {
		expect(t, r, "used.test", "192.0.2.1")
		c.advance(time.Second)
		expect(t, r, fmt.Sprintf("flood%d.test", i), "192.0.2.1")
	}
	if n := d.Count("used.test"); n != 2 {
		t.Errorf("the name in use was asked %d times, want 2", n)
	}
}

func TestClose(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Set("known.test", "192.0.2.1")
	d.Answer("dead.test", proxytest.DNSAnswer{Drop: true})
	r, _ := start(t, Config{Timeout: time.Minute, Budget: time.Minute}, d)
	expect(t, r, "known.test", "192.0.2.1")
	got := make(chan error)
	go func() {
		_, err := r.Lookup(t.Context(), "dead.test")
		got <- err
	}()
	eventually(t, "the question is asked", func() bool { return d.Count("dead.test") == 2 })
	r.Close()
	if err := <-got; err == nil || !strings.Contains(err.Error(), "the resolver is closed") {
		t.Errorf("the waiting caller got %v", err)
	}
	expect(t, r, "known.test", "192.0.2.1")
	expectError(t, r, "unknown.test", "the resolver is closed")
	r.Close() // again: nothing happens
}

func TestConcurrentUse(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Set("*.test", "192.0.2.1", "2001:db8::1")
	r, c := start(t, Config{CacheSize: 8}, d)
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 100 {
				expect(t, r, fmt.Sprintf("n%d.test", (i*j)%16), "2001:db8::1", "192.0.2.1")
				c.advance(time.Second)
				r.Stats()
			}
		})
	}
	callers.Wait()
}

func BenchmarkHit(b *testing.B) {
	d := proxytest.NewDNS(b)
	d.Set("name.test", "192.0.2.1", "2001:db8::1")
	r, _ := start(b, Config{}, d)
	r.now = time.Now
	if _, err := r.Lookup(b.Context(), "name.test"); err != nil {
		b.Fatal(err)
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Lookup(b.Context(), "name.test")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.Lookup(b.Context(), "name.test")
			}
		})
	})
}

func BenchmarkMiss(b *testing.B) {
	d := proxytest.NewDNS(b)
	d.Set("*.test", "192.0.2.1", "2001:db8::1")
	r, _ := start(b, Config{}, d)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.Lookup(b.Context(), fmt.Sprintf("n%d.test", i)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	d := proxytest.NewDNS(t)
	d.Set("name.test", "192.0.2.1", "2001:db8::1")
	r, _ := start(t, Config{}, d)
	expect(t, r, "name.test", "2001:db8::1", "192.0.2.1")
	expectError(t, r, "none.test", "NXDOMAIN")
	for _, name := range []string{"name.test", "none.test", "localhost"} {
		if n := testing.AllocsPerRun(100, func() { r.Lookup(t.Context(), name) }); n != 0 {
			t.Errorf("%s: %v allocations a hit", name, n)
		}
	}
}
