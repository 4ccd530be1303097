package integration

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// TestRebinding drives the proxy with a name server that changes its answers
// between one look and the next, under strace: whatever the names say, the
// kernel is never asked to connect to an address that is not permitted, and
// the name server never hears a denied name.
func TestRebinding(t *testing.T) {
	t.Parallel()
	path, strace := need(t, "curl"), need(t, "strace")
	w := newWorld(t)
	good := w.originAt(loopback(), nil, "rebind.example.test", "mixed.example.test", "alias.example.test", "allowed.example.test")
	trap := w.originAt(loopback(), nil, "rebind.example.test", "mixed.example.test", "alias.example.test") // what stands for an address inside
	dns := proxytest.NewDNS(t)
	metadata, private := netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr(trap.addr)
	permitted := netip.MustParseAddr(good.addr)
	// Each address family is asked for by itself, hence by type.
	dns.Handle("rebind.example.test", func(q proxytest.DNSQuery) proxytest.DNSAnswer {
		switch {
		case q.Type != "A":
			return proxytest.DNSAnswer{TTL: 1}
		case q.N == 1:
			return proxytest.DNSAnswer{Addresses: []netip.Addr{permitted}, TTL: 1}
		case q.N == 2:
			return proxytest.DNSAnswer{Addresses: []netip.Addr{private}, TTL: 1}
		}
		return proxytest.DNSAnswer{Addresses: []netip.Addr{metadata}, TTL: 1}
	})
	dns.Set("mixed.example.test", "169.254.169.254", trap.addr, good.addr, "::ffff:169.254.169.254", "fd00:ec2::254", "::ffff:"+trap.addr)
	dns.Answer("alias.example.test", proxytest.DNSAnswer{CNAME: "denied.example.test"})
	dns.Set("denied.example.test", trap.addr)
	dns.Set("allowed.example.test", good.addr)

	trace := filepath.Join(w.dir, "connects")
	r := w.serve(`
  - {name: web, hosts: [rebind.example.test, mixed.example.test, alias.example.test, allowed.example.test], resolves_to: [`+good.addr+`/32]}
  - {name: plain, hosts: [rebind.example.test], protocol: http, resolves_to: [`+good.addr+`/32]}
`,
		setting("resolver", map[string]any{"servers": []string{dns.Addr()}, "min_ttl": "1s", "max_ttl": "1s", "stale": "0s"}),
		func(c *rigConfig) {
			c.plain = true
			c.under = []string{strace, "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-o", trace}
		})
	curl := func(args ...string) result {
		t.Helper()
		return command{path: path, args: append([]string{"-sS", "-v", "--max-time", "60", "--cacert", w.caFile, "--proxy", r.url()}, args...)}.run(t)
	}

	curl("https://rebind.example.test/").succeeds(t, "hello from")
	if l := r.allowed("rebind.example.test", "connect"); l.Network.Peer.Address != good.addr {
		t.Errorf("the record: %s", l.text)
	}
	if n := countType(dns, "rebind.example.test", "A"); n != 1 {
		t.Errorf("one attempt asked for the address %d times: what was checked must be what is dialled", n)
	}
	// The first answer may be kept for a second yet; then comes the second,
	// then the third.
	denials := 0
	for deadline := time.Now().Add(patience); countType(dns, "rebind.example.test", "A") < 3 && time.Now().Before(deadline); {
		res := curl("https://rebind.example.test/")
		l := r.endedVia("rebind.example.test", "connect")
		switch {
		case l.Sallyport.Verdict == "allow" && denials == 0 && l.Network.Peer.Address == good.addr:
		case l.Sallyport.Reason == "address_prohibited" && l.Network.Peer.Address == "":
			denials++
			res.fails(t, "response 403", "destination_ip_prohibited")
		default:
			t.Fatalf("the record: %s", l.text)
		}
	}
	if denials < 2 {
		t.Errorf("%d attempts were denied, want one for the private address and one for the metadata address", denials)
	}
	reached := good.conns.Load()
	curl("http://rebind.example.test/").succeeds(t, "HTTP/1.1 403 Forbidden", "address_prohibited")
	r.denied("rebind.example.test", "http", "address_prohibited")
	if n := good.conns.Load(); n != reached {
		t.Errorf("denied attempts made %d connections", n-reached)
	}

	curl("https://mixed.example.test/").succeeds(t, "hello from")
	if l := r.allowed("mixed.example.test", "connect"); l.Network.Peer.Address != good.addr {
		t.Errorf("the record: %s", l.text)
	}
	curl("https://alias.example.test/").fails(t, "response 403")
	r.denied("alias.example.test", "connect", "address_prohibited")

	dns.Forget()
	for _, url := range []string{"https://denied.example.test/", "http://exfil-0123456789.denied.example.test/", "https://allowed.example.test:8443/"} {
		if res := curl(url); !strings.Contains(res.stderr, "403") {
			t.Errorf("%s: %s%s", url, res.stdout, res.stderr)
		}
	}
	client := command{path: path, args: []string{"-sS", "--max-time", "60", "--connect-to", "::" + r.addr, "https://denied.example.test/"}}.run(t)
	client.fails(t, "alert access denied")
	if names := dns.Names(); len(names) != 0 {
		t.Errorf("the name server was asked for %q, which the policy denies", names)
	}

	r.signal(syscall.SIGTERM)
	r.wait()
	for _, to := range connects(t, trace) {
		if to != good.addr && to+":" != strings.TrimRight(dns.Addr(), "0123456789") {
			t.Errorf("the proxy connected to %s", to)
		}
	}
	trap.unreached(t)
}

// connects returns the addresses that connect(2) was asked for.
func connects(t *testing.T, trace string) []string {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`connect\(.*AF_INET6?.*"([0-9a-f.:]+)"`).FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("the trace shows no connect, and would show none that is wrong:\n%s", text)
	}
	return all
}

func countType(dns *proxytest.DNS, name, kind string) int {
	n := 0
	for _, q := range dns.Queries() {
		if q.Name == name && q.Type == kind {
			n++
		}
	}
	return n
}
