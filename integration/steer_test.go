package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nameServer is a DNS server in Python that knows the names of its second
// argument (NAME=IPv4, commas between), and writes down what it is asked.
const nameServer = `
import socket, struct, sys
names = dict(pair.split("=") for pair in sys.argv[2].split(","))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
while True:
    q, who = s.recvfrom(2000)
    at, labels = 12, []
    while q[at]:
        labels.append(q[at+1:at+1+q[at]].decode())
        at += 1 + q[at]
    name, kind = ".".join(labels), struct.unpack(">H", q[at+1:at+3])[0]
    with open(sys.argv[3], "a") as log:
        log.write(name + "\n")
    found = kind == 1 and name in names
    a = q[:2] + struct.pack(">HHHHH", 0x8180 if name in names else 0x8183, 1, found, 0, 0) + q[12:at+5]
    if found:
        a += struct.pack(">HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton(names[name])
    s.sendto(a, who)
`

// goResolver prints what Go's own resolver makes of names.
const goResolver = `package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

func main() {
	for _, name := range os.Args[1:] {
		all, err := (&net.Resolver{PreferGo: true}).LookupNetIP(context.Background(), "ip", name)
		var failed *net.DNSError
		if errors.As(err, &failed) {
			fmt.Println(name, "not found:", failed.IsNotFound)
			continue
		}
		fmt.Println(name, all)
	}
}
`

// netnsFiles is where ip-netns(8) looks for a namespace's own files.
const netnsFiles = "/etc/netns"

// steeredClient gives the client's namespace the proxy as its only resolver.
func steeredClient(t *testing.T, n *internet) {
	t.Helper()
	dir := filepath.Join(netnsFiles, n.client)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		missing(t, "ip netns's folder for resolv.conf: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	writeFile(t, filepath.Join(dir, "resolv.conf"), "nameserver "+netRouterIn+"\nnameserver "+net6Router+"\noptions timeout:2\n")
}

// as runs a program in the client's namespace.
func (n *internet) as(args ...string) result {
	n.t.Helper()
	return command{path: need(n.t, "ip"), args: append([]string{"netns", "exec", n.client}, args...)}.run(n.t)
}

// TestSteering shows clients without any setting but their resolver: names
// that the policy allows lead them to the proxy, which finds the true origin by
// a resolver of its own; others do not exist.
func TestSteering(t *testing.T) {
	n := newInternet(t)
	n.in(n.router, "nft", "flush", "ruleset") // names alone must lead here
	steeredClient(t, n)
	w := newWorld(t)
	certFile, keyFile := w.pemFiles(w.certificate("site.test", "plain.test"))
	n.web(t, certFile, keyFile)
	lookups := filepath.Join(t.TempDir(), "lookups")
	n.start(n.origin, need(t, "python3"), "-c", nameServer, netOrigin,
		"site.test="+netOrigin+",plain.test="+netOrigin+",evil.test="+netOrigin+",loop.test="+netRouterIn, lookups)
	r := w.serve(`
  - {name: site, hosts: [site.test], resolves_to: [192.0.2.0/24]}
  - {name: plain, hosts: [plain.test], protocol: http, resolves_to: [192.0.2.0/24]}
  - {name: loop, hosts: [loop.test], resolves_to: [198.51.100.0/24]}
`, setting("listeners", []any{map[string]any{"address": ":443"}, map[string]any{"address": ":80"}}),
		setting("resolver.servers", []any{netOrigin}),
		setting("dns", map[string]any{"address": ":53", "answer": []any{netRouterIn, net6Router}, "ttl": "30s"}),
		func(c *rigConfig) { c.under = []string{"ip", "netns", "exec", n.router} })

	t.Run("dig", func(t *testing.T) { digs(t, n) })
	t.Run("glibc", func(t *testing.T) {
		n.as("getent", "ahosts", "site.test").succeeds(t, netRouterIn, net6Router)
		n.as("getent", "ahosts", "evil.test").fails(t)
		n.as("getent", "hosts", "192.0.2.2").fails(t)
	})
	t.Run("Go", func(t *testing.T) {
		source, program := n.file("main.go", goResolver), filepath.Join(t.TempDir(), "lookup")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		n.as(program, "site.test", "evil.test").succeeds(t, "site.test [", netRouterIn, net6Router, "evil.test not found: true")
	})
	if asked, _ := os.ReadFile(lookups); len(asked) > 0 {
		t.Errorf("a question to the proxy made the proxy ask for: %s", asked)
	}
	t.Run("curl", func(t *testing.T) { steeredCurl(t, n, w, r) })

	asked, err := os.ReadFile(lookups)
	if err != nil {
		t.Fatal(err)
	}
	if names := strings.Fields(string(asked)); slices.Contains(names, "evil.test") || !slices.Contains(names, "site.test") {
		t.Errorf("the proxy asked for %v", names)
	}
	r.denied("evil.test", "dns", "no_rule")
	records := 0
	for _, l := range r.lines() {
		if l.Server.Address == "evil.test" && l.Sallyport.Via == "dns" && l.Client.Address == netClient {
			records++
		}
	}
	if records != 1 {
		t.Errorf("%d records of one client's denied name", records)
	}
	n.in(n.router, need(t, "curl"), "-sSf", "--noproxy", "*", "http://"+r.admin+"/readyz")
	metrics := n.in(n.router, need(t, "curl"), "-sSf", "--noproxy", "*", "http://"+r.admin+"/metrics")
	for _, want := range []string{`sallyport_dns_questions_total{verdict="allow"} `, `sallyport_dns_questions_total{verdict="deny"} `} {
		if _, after, found := strings.Cut(metrics, want); !found || strings.HasPrefix(after, "0\n") {
			t.Errorf("no %s above 0", want)
		}
	}
}

func digs(t *testing.T, n *internet) {
	dig := need(t, "dig")
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"A", []string{"+short", "site.test", "A"}, []string{netRouterIn}},
		{"A, cookie and 0x20", []string{"+qr", "SiTe.TEST", "A"}, []string{"SiTe.TEST.", "30", netRouterIn}},
		{"AAAA by TCP", []string{"+short", "+tcp", "site.test", "AAAA"}, []string{net6Router}},
		{"by IPv6", []string{"+short", "@" + net6Router, "site.test", "A"}, []string{netRouterIn}},
		{"at the other address", []string{"+short", "@" + netRouter, "site.test", "A"}, []string{netRouterIn}},
		{"pipelined", []string{"+short", "+tcp", "+keepopen", "site.test", "A", "site.test", "AAAA"}, []string{netRouterIn, net6Router}},
		{"HTTPS", []string{"site.test", "HTTPS"}, []string{"NOERROR", "ANSWER: 0", "AUTHORITY: 1"}},
		{"ANY", []string{"+notcp", "site.test", "ANY"}, []string{"NOERROR", "RFC8482"}},
		{"plain HTTP", []string{"+short", "plain.test", "A"}, []string{netRouterIn}},
		{"denied", []string{"evil.test", "A"}, []string{"NXDOMAIN", "EDE: 15 (Blocked): (no_rule)"}},
		{"no EDNS", []string{"+noedns", "evil.test", "A"}, []string{"NXDOMAIN"}},
		{"PTR", []string{"-x", netOrigin}, []string{"NXDOMAIN"}},
		{"CHAOS", []string{"version.bind", "TXT", "CH"}, []string{"REFUSED"}},
		{"AXFR", []string{"site.test", "AXFR"}, []string{"Transfer failed"}},
		{"an unknown EDNS version", []string{"+noednsneg", "+edns=9", "site.test", "A"}, []string{"BADVERS"}},
		{"unknown options", []string{"+short", "+ednsopt=65001:00ff", "+subnet=192.0.2.0/24", "+padding=128", "+nsid", "site.test", "A"}, []string{netRouterIn}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{dig, "+tries=1", "+time=20"}, tt.args...)
			n.as(args...).succeeds(t, tt.want...)
		})
	}
}

func steeredCurl(t *testing.T, n *internet, w *world, r *rig) {
	curl := func(args ...string) result {
		return n.as(append([]string{need(t, "curl"), "-sS", "--noproxy", "*", "--cacert", w.caFile, "--max-time", "60"}, args...)...)
	}
	curl("--retry", "30", "--retry-delay", "1", "--retry-all-errors", "-o", "/dev/null", "https://site.test/page").succeeds(t)
	r.ended("site.test")
	curl("-4", "https://site.test/page").succeeds(t, "the true origin")
	if l := r.allowed("site.test", "tls"); l.Network.Peer.Address != netOrigin || l.Client.Address != netClient {
		t.Errorf("from %s to %s", l.Client.Address, l.Network.Peer.Address)
	}
	curl("-6", "https://site.test/page").succeeds(t, "the true origin")
	if l := r.allowed("site.test", "tls"); l.Client.Address != net6Client {
		t.Errorf("from %s", l.Client.Address)
	}
	curl("http://plain.test/page").succeeds(t, "the true origin")
	r.allowed("plain.test", "http")

	// The steering is no permission: who comes without it is decided alike.
	curl("https://evil.test/").fails(t, "Could not resolve host")
	curl("--resolve", "evil.test:443:"+netRouterIn, "https://evil.test/").fails(t, "alert access denied")
	r.denied("evil.test", "tls", "no_rule")
	// The resolver of this one sends the proxy back to itself.
	curl("https://loop.test/").fails(t, "alert access denied")
	r.denied("loop.test", "tls", "self")
}
