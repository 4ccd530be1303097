package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Addresses of the namespaces. The client's are documentation addresses, so
// that nothing real is ever meant; the decoy is where the client believes its
// names to be, and nobody is there.
const (
	netClient   = "198.51.100.2"
	netRouterIn = "198.51.100.1"
	netRouter   = "192.0.2.1"
	netOrigin   = "192.0.2.2"
	netDecoy    = "203.0.113.80"
	net6Client  = "2001:db8:1::2"
	net6Router  = "2001:db8:1::1"
	net6Decoy   = "2001:db8:dead::80"
	net6RouterO = "2001:db8:2::1"
	net6Origin  = "2001:db8:2::2"
)

// internet is three network namespaces in a row: client, router, origin. The
// router forwards nothing by itself.
type internet struct {
	t                      *testing.T
	client, router, origin string
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "network namespaces need root")
	}
	need(t, "ip")
	id := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	n := &internet{t: t, client: "sp-c-" + id, router: "sp-r-" + id, origin: "sp-o-" + id}
	for _, ns := range []string{n.client, n.router, n.origin} {
		n.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", ns).Run() })
		n.ip("-n", ns, "link", "set", "lo", "up")
	}
	n.wire(n.client, "r0", n.router, "c0")
	n.wire(n.router, "o0", n.origin, "r0")
	n.ip("-n", n.client, "addr", "add", netClient+"/24", "dev", "r0")
	n.ip("-n", n.router, "addr", "add", netRouterIn+"/24", "dev", "c0")
	n.ip("-n", n.router, "addr", "add", netRouter+"/24", "dev", "o0")
	n.ip("-n", n.origin, "addr", "add", netOrigin+"/24", "dev", "r0")
	n.ip("-n", n.client, "route", "add", "default", "via", netRouterIn)
	n.ip("-n", n.client, "addr", "add", net6Client+"/64", "dev", "r0", "nodad")
	n.ip("-n", n.router, "addr", "add", net6Router+"/64", "dev", "c0", "nodad")
	n.ip("-n", n.client, "-6", "route", "add", "default", "via", net6Router)
	n.ip("-n", n.router, "addr", "add", net6RouterO+"/64", "dev", "o0", "nodad")
	n.ip("-n", n.origin, "addr", "add", net6Origin+"/64", "dev", "r0", "nodad")
	return n
}

// nft loads rules on the router.
func (n *internet) nft(rules string) {
	n.t.Helper()
	n.in(n.router, need(n.t, "nft"), "-f", n.file("rules.nft", rules))
}

func (n *internet) wire(a, deviceA, b, deviceB string) {
	n.t.Helper()
	n.ip("link", "add", deviceA, "netns", a, "type", "veth", "peer", "name", deviceB, "netns", b)
	n.ip("-n", a, "link", "set", deviceA, "up")
	n.ip("-n", b, "link", "set", deviceB, "up")
}

func (n *internet) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// in runs a command in a namespace to its end.
func (n *internet) in(ns string, args ...string) string {
	n.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *internet) file(name, text string) string {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), name)
	writeFile(n.t, path, text)
	return path
}

// start runs a server in a namespace until the test ends.
func (n *internet) start(ns string, args ...string) {
	n.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// serve is start for a server that prints a line when it is ready.
func (n *internet) serve(ns string, args ...string) {
	n.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = cmd.Wait()
		n.t.Fatalf("%s did not begin to serve: %v: %s", args[0], err, said.String())
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// curl runs curl in the client's namespace, with names at the decoy.
func (n *internet) curl(w *world, args ...string) result {
	n.t.Helper()
	all := []string{"netns", "exec", n.client, need(n.t, "curl"), "-sS", "--noproxy", "*", "--cacert", w.caFile, "--max-time", "60"}
	for _, name := range []string{"site.test", "other.test", "metadata.test"} {
		for _, port := range []string{"80", "443"} {
			all = append(all, "--resolve", name+":"+port+":"+netDecoy, "--resolve", "six-"+name+":"+port+":["+net6Decoy+"]")
		}
	}
	return command{path: need(n.t, "ip"), args: append(all, args...)}.run(n.t)
}

// web serves, at the origin, a page over HTTP and over TLS.
func (n *internet) web(t *testing.T, certFile, keyFile string) {
	t.Helper()
	www := t.TempDir()
	writeFile(t, filepath.Join(www, "page"), strings.Repeat("the true origin\n", 1000))
	n.start(n.origin, need(t, "python3"), "-c", fmt.Sprintf(`
import functools, http.server, ssl, threading
h = functools.partial(http.server.SimpleHTTPRequestHandler, directory=%q)
plain = http.server.ThreadingHTTPServer((%q, 80), h)
tls = http.server.ThreadingHTTPServer((%q, 443), h)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.load_cert_chain(%q, %q)
tls.socket = c.wrap_socket(tls.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
tls.serve_forever()
`, www, netOrigin, netOrigin, certFile, keyFile))
}

// TestTransparent shows the gateway: a client that knows of no proxy, and
// whose own idea of the names' addresses is false, reaches what the policy
// allows, at the proxy's idea of the address, and nothing else.
func TestTransparent(t *testing.T) {
	n := newInternet(t)
	n.nft(`
table inet sallyport {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		iifname "c0" tcp dport { 80, 443 } redirect to :3128
	}
}`)
	w := newWorld(t)
	w.name("site.test", netOrigin)
	w.name("six-site.test", netOrigin)
	w.name("metadata.test", "169.254.169.254")
	certFile, keyFile := w.pemFiles(w.certificate("site.test", "six-site.test"))
	n.web(t, certFile, keyFile)
	rules := `
  - {name: site, hosts: [site.test, six-site.test, metadata.test], resolves_to: [192.0.2.0/24]}
  - {name: plain, hosts: [site.test], protocol: http, resolves_to: [192.0.2.0/24]}
`
	r := w.serve(rules, setting("listeners", []any{map[string]any{"address": ":3128"}}), func(c *rigConfig) {
		c.under = []string{"ip", "netns", "exec", n.router}
	})
	n.curl(w, "--retry", "30", "--retry-delay", "1", "--retry-all-errors", "-o", "/dev/null", "https://site.test/page").succeeds(t)
	for r.ended("site.test").Sallyport.Outcome == "connection_refused" { // each time that curl came before the origin
	}

	n.curl(w, "https://site.test/page").succeeds(t, "the true origin")
	if l := r.allowed("site.test", "tls"); l.Network.Peer.Address != netOrigin || l.Client.Address != netClient {
		t.Errorf("from %s to %s", l.Client.Address, l.Network.Peer.Address)
	}
	n.curl(w, "https://six-site.test/page").succeeds(t, "the true origin")
	if l := r.allowed("six-site.test", "tls"); l.Client.Address != net6Client {
		t.Errorf("from %s", l.Client.Address)
	}
	n.curl(w, "http://site.test/page").succeeds(t, "the true origin")
	r.allowed("site.test", "http")

	n.curl(w, "https://other.test/").fails(t, "alert access denied")
	r.denied("other.test", "tls", "no_rule")
	n.curl(w, "-i", "http://other.test/").succeeds(t, "403 Forbidden", "no_rule")
	r.denied("other.test", "http", "no_rule")
	n.curl(w, "https://metadata.test/").fails(t, "alert access denied")
	r.denied("metadata.test", "tls", "address_prohibited")
	n.curl(w, "-k", "https://"+netOrigin+"/").fails(t, "alert access denied")
	r.denied("", "tls", "no_name")
	n.curl(w, "https://site.test:8443/").fails(t)
}
