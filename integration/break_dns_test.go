package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// dnsTrouble is a proxy whose name server does as it likes. Every name below
// trouble.test is allowed, and may lead to one of two origins.
type dnsTrouble struct {
	t       *testing.T
	rig     *rig
	dns     *proxytest.DNS
	here    netip.Addr // an origin
	there   netip.Addr // another
	origins map[string]bool
}

// newDNSTrouble starts one; further servers come before its own.
func newDNSTrouble(t *testing.T, before ...string) *dnsTrouble {
	t.Helper()
	w := newWorld(t)
	w.origin("honest.test", nil) // a static name: its resolver never fails
	here, there := w.originAt(loopback(), nil, "here"), w.originAt(loopback(), nil, "there")
	d := &dnsTrouble{
		t: t, dns: proxytest.NewDNS(t), here: netip.MustParseAddr(here.addr), there: netip.MustParseAddr(there.addr),
		origins: map[string]bool{here.addr: true, there.addr: true},
	}
	d.dns.HandleOther(func(proxytest.DNSQuery) proxytest.DNSAnswer { return d.at(d.here) })
	d.rig = w.serve(honestRules+`
  - {name: trouble, hosts: ["**.trouble.test"], ports: [80], protocol: tcp, resolves_to: [127.0.0.0/8]}
`, setting("resolver.servers", append(before, d.dns.Addr())), setting("resolver.min_ttl", "1s"), setting("resolver.stale", "0s"))
	return d
}

func (d *dnsTrouble) at(addresses ...netip.Addr) proxytest.DNSAnswer {
	return proxytest.DNSAnswer{Addresses: addresses, TTL: -1}
}

// ask asks for a tunnel, since connections to origins of plain HTTP are kept
// and need no lookup. It returns the status and the outcome that Proxy-Status
// tells; ok where there is none.
func (d *dnsTrouble) ask(name string) (status int, outcome string) {
	c, err := dialFrom("127.0.0.1", d.rig.addr)
	if err != nil {
		d.t.Errorf("%s: %v", name, err)
		return 0, ""
	}
	defer c.Close()
	resp, err := d.request(c, name)
	if err != nil {
		d.t.Errorf("%s: %v", name, err)
		return 0, ""
	}
	resp.Body.Close()
	_, outcome, found := strings.Cut(resp.Header.Get("Proxy-Status"), `details="`)
	if !found {
		return resp.StatusCode, "ok"
	}
	outcome, _, _ = strings.Cut(outcome, " ")
	return resp.StatusCode, outcome
}

func (d *dnsTrouble) request(c net.Conn, name string) (*http.Response, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s:80 HTTP/1.1\r\n\r\n", name); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
}

// strayed requires that nothing but the origins was ever connected to, and no
// address was believed that only a lie gives: it would be on record as denied.
func (d *dnsTrouble) strayed() {
	d.t.Helper()
	for _, l := range d.rig.lines() {
		if !strings.HasSuffix(l.Server.Address, "trouble.test") || l.Event.Name == "flow.open" {
			continue
		}
		if at := l.Network.Peer.Address; at != "" && !d.origins[at] || l.Sallyport.Outcome == "address_prohibited" && !strings.HasPrefix(l.Server.Address, "prohibited") {
			d.t.Errorf("a false answer was believed: %s", l.text)
		}
	}
}

// TestBreakDNSAnswers gives answers that are slow, false, truncated, too many
// or none.
func TestBreakDNSAnswers(t *testing.T) {
	t.Parallel()
	d := newDNSTrouble(t)
	good := d.at(d.here)
	with := func(change func(*proxytest.DNSAnswer)) proxytest.DNSAnswer {
		a := good
		change(&a)
		return a
	}
	lies := func(kinds ...proxytest.DNSLie) proxytest.DNSAnswer {
		return with(func(a *proxytest.DNSAnswer) { a.Lies = kinds })
	}
	// Nobody listens at these: the next is tried at once.
	thousand := func(right int) proxytest.DNSAnswer {
		a := d.at()
		for i := range 1000 {
			addr := netip.AddrFrom4([4]byte{127, 63, byte(i >> 8), byte(i)})
			if i == right {
				addr = d.here
			}
			a.Addresses = append(a.Addresses, addr)
		}
		return a
	}
	cases := []struct {
		name    string
		answer  proxytest.DNSAnswer
		outcome string
	}{
		{"good", good, "ok"},
		{"slow", with(func(a *proxytest.DNSAnswer) { a.Delay = 400 * time.Millisecond }), "ok"},
		{"too-slow", with(func(a *proxytest.DNSAnswer) { a.Delay = 20 * time.Second }), "dns_timeout"},
		{"lie-id", lies(proxytest.LieID), "ok"},
		{"lie-question", lies(proxytest.LieQuestion), "ok"},
		{"lie-type", lies(proxytest.LieType), "ok"},
		{"lie-source", lies(proxytest.LieSource), "ok"},
		{"lie-query", lies(proxytest.LieQuery), "ok"},
		{"lie-garbage", lies(proxytest.LieGarbage), "ok"},
		{"lie-all", lies(proxytest.LieID, proxytest.LieQuestion, proxytest.LieType, proxytest.LieSource, proxytest.LieQuery, proxytest.LieGarbage, proxytest.LieID, proxytest.LieID), "ok"},
		{"lie-only", with(func(a *proxytest.DNSAnswer) {
			a.Lies = []proxytest.DNSLie{proxytest.LieID, proxytest.LieQuestion}
			a.Drop = true
		}), "dns_timeout"},
		{"truncated", with(func(a *proxytest.DNSAnswer) { a.Truncate = true }), "ok"},
		{"thousand", thousand(0), "ok"},
		{"thousand-16th", thousand(15), "ok"},
		{"thousand-last", thousand(999), "connection_refused"},
		{"prohibited", d.at(netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("10.0.0.1")), "address_prohibited"},
		{"alias", proxytest.DNSAnswer{CNAME: "good.trouble.test", TTL: -1}, "ok"},
		{"alias-loop", proxytest.DNSAnswer{CNAME: "alias-loop.trouble.test", TTL: -1}, "dns_error"},
		{"nothing", d.at(), "dns_error"},
		{"nxdomain", proxytest.DNSAnswer{RCode: "NXDOMAIN"}, "dns_error"},
		{"servfail", proxytest.DNSAnswer{RCode: "SERVFAIL"}, "dns_error"},
		{"refused", proxytest.DNSAnswer{RCode: "REFUSED"}, "dns_error"},
		{"lame", with(func(a *proxytest.DNSAnswer) { a.Lame = true }), "ok"},
		{"old", with(func(a *proxytest.DNSAnswer) { a.NoEDNS = true }), "ok"},
	}
	for _, c := range cases {
		d.dns.Answer(c.name+".trouble.test", c.answer)
	}
	rounds := extent(t, "dns", 1, 50)
	for range rounds {
		var asking sync.WaitGroup
		for _, c := range cases {
			asking.Go(func() {
				began := time.Now()
				status, outcome := d.ask(c.name + ".trouble.test")
				if outcome != c.outcome {
					t.Errorf("%s: %d %s, want %s", c.name, status, outcome, c.outcome)
				}
				if rounds == 1 {
					t.Logf("%s: %d %s after %s", c.name, status, outcome, time.Since(began).Round(time.Millisecond))
				}
			})
		}
		asking.Wait()
	}
	d.strayed()
}

// TestBreakDNSChanging asks for a name whose answer is another each time.
func TestBreakDNSChanging(t *testing.T) {
	t.Parallel()
	d := newDNSTrouble(t)
	var round atomic.Int64
	answers := []struct {
		answer  proxytest.DNSAnswer
		outcome string
	}{
		{d.at(d.here), "ok"},
		{d.at(d.there), "ok"},
		{d.at(netip.MustParseAddr("169.254.169.254")), "address_prohibited"},
		{d.at(d.there, d.here), "ok"},
		{proxytest.DNSAnswer{RCode: "NXDOMAIN", NegativeTTL: -1}, "dns_error"},
		{d.at(netip.MustParseAddr("10.1.2.3"), d.here), "ok"},
		{d.at(d.here), "ok"},
	}
	d.dns.Handle("prohibited-now-and-then.trouble.test", func(proxytest.DNSQuery) proxytest.DNSAnswer {
		return answers[round.Load()%int64(len(answers))].answer
	})
	for i := range len(answers) * extent(t, "dns", 1, 50) {
		round.Store(int64(i))
		want := answers[i%len(answers)].outcome
		// What was answered before may be remembered for a moment yet.
		var status int
		var got string
		for deadline := time.Now().Add(patience); got != want && time.Now().Before(deadline); {
			if status, got = d.ask("prohibited-now-and-then.trouble.test"); got != want {
				pause(20 * time.Millisecond)
			}
		}
		if got != want {
			t.Fatalf("answer %d: %d %s, want %s", i, status, got, want)
		}
	}
	d.strayed()
}

// TestBreakDNSDead lets every server fall silent under hundreds of clients,
// and come back: nothing piles up, names that need no server are served, and
// all is well within the time that a failure is remembered.
func TestBreakDNSDead(t *testing.T) {
	t.Parallel()
	const clients = 500
	const flights = 256 // of the resolver at one time, two sockets each
	d := newDNSTrouble(t)
	r := d.rig
	if _, outcome := d.ask("first.trouble.test"); outcome != "ok" {
		t.Fatalf("before: %s", outcome)
	}
	before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
	for wave := range extent(t, "dns", 1, 20) {
		d.dns.Mute(true)
		h := r.honest("127.0.0.1")
		var asking sync.WaitGroup
		var mu sync.Mutex
		outcomes := make(map[string]int)
		conns := r.crowd(clients, "127.0.0.2", nil)
		for i, c := range conns {
			asking.Go(func() {
				resp, err := d.request(c, fmt.Sprintf("wave-%d-%d.trouble.test", wave, i))
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				resp.Body.Close()
				mu.Lock()
				defer mu.Unlock()
				outcomes[resp.Header.Get("Proxy-Status")[:len("sallyport; error=dns_")+5]]++
			})
		}
		var most vitals
		answered := make(chan struct{})
		go func() { asking.Wait(); close(answered) }()
		for waiting := true; waiting; {
			select {
			case <-answered:
				waiting = false
			case <-time.After(20 * time.Millisecond):
				v := r.vitals()
				most.goroutines, most.descriptors = max(most.goroutines, v.goroutines), max(most.descriptors, v.descriptors)
				most.rss, most.connections = max(most.rss, v.rss), max(most.connections, v.connections)
			}
		}
		t.Logf("wave %d: at most %s; %v", wave+1, most, outcomes)
		if limit := before.descriptors + clients + 2*flights + 4*floodSlack; most.descriptors > limit {
			t.Errorf("%.0f descriptors, more than %.0f", most.descriptors, limit)
		}
		if limit := before.goroutines + 4*clients + 5*flights + 4*floodSlack; most.goroutines > limit {
			t.Errorf("%.0f goroutines, more than %.0f", most.goroutines, limit)
		}
		h.served("a dead resolver's")
		d.dns.Mute(false)
		began, tries := time.Now(), 1
		for deadline := began.Add(patience); ; tries++ {
			pause(20 * time.Millisecond)
			if _, outcome := d.ask(fmt.Sprintf("wave-%d-0.trouble.test", wave)); outcome == "ok" {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("the resolver is back, and a name still fails: %s", outcome)
			}
		}
		t.Logf("the resolver is back: a name that failed is found after %s, at try %d", time.Since(began).Round(time.Millisecond), tries)
		dismiss(conns)
		r.recovers(before)
	}
	d.strayed()
}

// TestBreakDNSFirstServer has a first server that is silent, and one that
// refuses: the second answers for it.
func TestBreakDNSFirstServer(t *testing.T) {
	t.Parallel()
	silent := proxytest.NewDNS(t)
	silent.Mute(true)
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := closed.LocalAddr().String()
	closed.Close()
	for name, first := range map[string]string{"silent": silent.Addr(), "refusing": refusing} {
		d := newDNSTrouble(t, first)
		for i := range 10 {
			began := time.Now()
			if status, outcome := d.ask(fmt.Sprintf("name-%d.trouble.test", i)); outcome != "ok" {
				t.Errorf("behind a %s server: %d %s", name, status, outcome)
			}
			if i < 2 {
				t.Logf("behind a %s server, name %d is found after %s", name, i+1, time.Since(began).Round(time.Millisecond))
			}
		}
		d.strayed()
	}
}
