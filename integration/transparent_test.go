package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// servers are what the origin runs, on both families: HTTP, TLS on two ports,
// an echo, and a protocol in which the server speaks first.
const servers = `
import http.server, socket, socketserver, ssl, sys, threading
class Web(http.server.BaseHTTPRequestHandler):
	protocol_version = "HTTP/1.1"
	def do_GET(self):
		text = ("the true origin, as %s\n" % self.headers.get("Host")).encode()
		self.send_response(200)
		self.send_header("Content-Length", str(len(text)))
		self.end_headers()
		self.wfile.write(text)
	def log_message(self, *args): pass
class Server(socketserver.ThreadingTCPServer):
	address_family, allow_reuse_address, daemon_threads, request_queue_size = socket.AF_INET6, True, True, 50
	def server_bind(self):
		self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
		super().server_bind()
	def handle_error(self, *args): pass
class Echo(socketserver.BaseRequestHandler):
	greeting = b""
	def handle(self):
		self.request.sendall(self.greeting)
		while data := self.request.recv(4096):
			self.request.sendall(data)
class Database(Echo):
	greeting = b"J\0\0\0\x0a8.0.36-sallyport\0"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
for port, handler, tls in (80, Web, False), (8080, Web, False), (443, Web, True), (8443, Web, True), (7777, Echo, False), (3306, Database, False):
	server = Server(("::", port), handler)
	if tls:
		server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
	threading.Thread(target=server.serve_forever, daemon=True).start()
print("serving", flush=True)
threading.Event().wait()
`

// entrance is one way in which connections reach the proxy.
type entrance struct {
	name, original string
	rules          string     // of nft
	routes         [][]string // of ip, on the router
}

func entrances() []entrance {
	return []entrance{
		{name: "redirect", original: "redirect", rules: `
table inet sallyport {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		iifname "c0" meta l4proto tcp redirect to :15001
	}
}`},
		{name: "tproxy", original: "tproxy", rules: `
table inet sallyport {
	chain prerouting {
		type filter hook prerouting priority mangle;
		iifname "c0" fib daddr type local accept
		iifname "c0" meta nfproto ipv4 meta l4proto tcp tproxy ip to :15001 meta mark set 1 accept
		iifname "c0" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15001 meta mark set 1 accept
	}
}`, routes: [][]string{
			{"rule", "add", "fwmark", "1", "lookup", "100"},
			{"route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"},
			{"-6", "rule", "add", "fwmark", "1", "lookup", "100"},
			{"-6", "route", "add", "local", "::/0", "dev", "lo", "table", "100"},
		}},
	}
}

const transparentRules = `
  - {name: web, hosts: [site.test, six-site.test, metadata.test], ports: [443, 8443], resolves_to: [192.0.2.0/24, "2001:db8:2::/64"]}
  - {name: plain, hosts: [site.test, six-site.test], ports: [80, 8080], protocol: http, resolves_to: [192.0.2.0/24, "2001:db8:2::/64"]}
  - {name: by-address, cidrs: [192.0.2.2/32, "2001:db8:2::2/128"], ports: [443], protocol: tls}
  - {name: raw, cidrs: [192.0.2.2/32, "2001:db8:2::2/128"], ports: [7777, 3306], protocol: tcp}
`

// transparent starts the origin's servers, and the proxy in a namespace.
func (n *internet) transparent(w *world, ns, original string, addresses []string, under ...string) *rig {
	n.t.Helper()
	for name, addr := range map[string]string{"site.test": netOrigin, "six-site.test": net6Origin, "metadata.test": "169.254.169.253"} {
		w.name(name, addr)
	}
	cert, key := w.pemFiles(w.certificate("site.test", "six-site.test"))
	n.serve(n.origin, need(n.t, "python3"), "-c", servers, cert, key)
	var listeners []any
	for _, a := range addresses {
		listeners = append(listeners, map[string]any{"address": a, "original_destination": original})
	}
	return w.serve(transparentRules, setting("listeners", listeners), func(c *rigConfig) {
		c.under = append([]string{"ip", "netns", "exec", ns}, under...)
	})
}

// with is n for a subtest.
func (n *internet) with(t *testing.T) *internet {
	own := *n
	own.t = t
	return &own
}

// python runs a script in a namespace.
func (n *internet) python(ns, script string, args ...string) result {
	n.t.Helper()
	return command{path: need(n.t, "ip"), args: append([]string{"netns", "exec", ns, need(n.t, "python3"), "-c", "import socket, sys\n" + script}, args...)}.run(n.t)
}

// say connects to an address, sends a text and prints what comes back until as
// much has come; nothing is sent of an empty one.
func (n *internet) say(ns, address, text string) result {
	n.t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.python(ns, `
c = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
c.sendall(sys.argv[3].encode("latin-1"))
print(c.recv(100))
`, host, port, text)
}

// TestRoads brings clients to the proxy that know of none, by either road and
// either family.
func TestRoads(t *testing.T) {
	for _, way := range entrances() {
		t.Run(way.name, func(t *testing.T) {
			n := newInternet(t)
			n.nft(way.rules)
			for _, args := range way.routes {
				n.ip(append([]string{"-n", n.router}, args...)...)
			}
			w := newWorld(t)
			r := n.transparent(w, n.router, way.original, []string{":15001"})
			for _, f := range families() {
				t.Run(f.name, func(t *testing.T) { n.with(t).travel(w, r, f) })
			}
			t.Run("explicit", func(t *testing.T) {
				n := n.with(t)
				for _, router := range []string{netRouterIn, "[" + net6Router + "]"} {
					n.curl(w, "--noproxy", "", "--proxy", "http://"+router+":15001", "https://site.test/").succeeds(t, "the true origin")
					if l := r.allowed("site.test", "connect"); l.Sallyport.Original != "" {
						t.Errorf("an explicit connection has the original destination %s", l.Sallyport.Original)
					}
				}
				n.say(n.client, netRouterIn+":15001", "\x01\x02").succeeds(t, "b''\n")
				r.denied("", "unknown", "not_tls")
			})
		})
	}
}

// family is what differs between IPv4 and IPv6.
type family struct {
	name, site, origin, decoy, client string
	number                            int
}

func families() []family {
	return []family{
		{"IPv4", "site.test", netOrigin, netDecoy, netClient, 4},
		{"IPv6", "six-site.test", net6Origin, net6Decoy, net6Client, 6},
	}
}

// travel is all that one family must show from the client's namespace.
func (n *internet) travel(w *world, r *rig, f family) {
	t := n.t
	t.Helper()
	// came checks where the client was bound for, which the record tells.
	came := func(l *flowLine, original, port, peer string) {
		t.Helper()
		if l.Sallyport.Original != net.JoinHostPort(original, port) || l.Client.Address != f.client || l.Network.Peer.Address != peer {
			t.Errorf("from %s, bound for %s, led to %s: %s", l.Client.Address, l.Sallyport.Original, l.Network.Peer.Address, l.text)
		}
		if !strings.HasSuffix(l.Sallyport.Listener, ":15001") {
			t.Errorf("the listener is %s", l.Sallyport.Listener)
		}
	}
	curl := func(args ...string) result {
		t.Helper()
		all := []string{"-sS", "--noproxy", "*", "--cacert", w.caFile, "--max-time", "60"}
		for _, port := range []string{"80", "443", "8080", "8443", "7"} {
			all = append(all, "--resolve", f.site+":"+port+":["+f.decoy+"]", "--resolve", "other.test:"+port+":["+f.decoy+"]",
				"--resolve", "metadata.test:"+port+":["+f.decoy+"]")
		}
		return command{path: need(t, "ip"), args: append(append([]string{"netns", "exec", n.client, need(t, "curl")}, all...), args...)}.run(t)
	}

	curl("https://"+f.site+"/").succeeds(t, "the true origin, as "+f.site)
	came(r.allowed(f.site, "tls"), f.decoy, "443", f.origin)
	curl("https://"+f.site+":8443/").succeeds(t, "the true origin")
	if l := r.allowed(f.site, "tls"); l.Server.Port != 8443 || l.Network.Peer.Port != 8443 {
		t.Errorf("port %d, led to %d", l.Server.Port, l.Network.Peer.Port)
	}
	curl("http://"+f.site+"/").succeeds(t, "the true origin, as "+f.site)
	came(r.allowed(f.site, "http"), f.decoy, "80", f.origin)
	curl("http://"+f.site+":8080/").succeeds(t, "the true origin, as "+f.site+":8080")
	came(r.allowed(f.site, "http"), f.decoy, "8080", f.origin)
	curl("-H", "Host: "+f.site, "http://"+f.site+":8080/").succeeds(t, "the true origin, as "+f.site+"\n")
	if l := r.allowed(f.site, "http"); l.Server.Port != 8080 {
		t.Errorf("Host without a port, and port %d", l.Server.Port)
	}
	curl("https://"+f.site+":7/").fails(t, "alert access denied")
	r.denied(f.site, "tls", "no_rule")
	curl("https://other.test/").fails(t, "alert access denied")
	r.denied("other.test", "tls", "no_rule")
	curl("https://metadata.test/").fails(t, "alert access denied")
	r.denied("metadata.test", "tls", "address_prohibited")

	n.openssl(r, f)
	n.raw(r, f)

	// A false address is recorded, and misleads nobody.
	if f.name == "IPv4" {
		curl("--resolve", f.site+":443:169.254.169.253", "https://"+f.site+"/").succeeds(t, "the true origin")
		came(r.allowed(f.site, "tls"), "169.254.169.253", "443", f.origin)
		n.say(n.client, "169.254.169.253:80", "\x01").fails(t, "ConnectionResetError")
		r.denied("169.254.169.253", "tcp", "not_tls")
	}
	n.node(w, f)
	came(r.allowed(f.site, "tls"), f.decoy, "443", f.origin)
}

// openssl asks by address, without a server_name.
func (n *internet) openssl(r *rig, f family) {
	t := n.t
	t.Helper()
	ask := func(addr string) result {
		return command{path: need(t, "ip"), args: []string{
			"netns", "exec", n.client, need(t, "openssl"), "s_client", "-connect", net.JoinHostPort(addr, "443"), "-noservername", "-brief",
		}, stdin: strings.NewReader("")}.run(t)
	}
	ask(f.origin).succeeds(t, "CONNECTION ESTABLISHED")
	if l := r.allowed(f.origin, "tcp"); l.Rule.Name != "by-address" || l.Network.Peer.Address != f.origin || l.TLS.Client.Version == "" {
		t.Errorf("%s", l.text)
	}
	ask(f.decoy).fails(t, "alert access denied")
	r.denied(f.decoy, "tcp", "no_name")
}

// raw speaks what is neither TLS nor HTTP.
func (n *internet) raw(r *rig, f family) {
	t := n.t
	t.Helper()
	at := func(port string) string { return net.JoinHostPort(f.origin, port) }
	n.say(n.client, at("7777"), "\x01 anything").succeeds(t, `b'\x01 anything'`)
	if l := r.allowed(f.origin, "tcp"); l.Rule.Name != "raw" || l.Network.Peer.Port != 7777 || l.Sallyport.Original != at("7777") {
		t.Errorf("%s", l.text)
	}
	n.say(n.client, at("3306"), "").succeeds(t, "8.0.36-sallyport")
	if l := r.allowed(f.origin, "tcp"); l.Network.Peer.Port != 3306 {
		t.Errorf("%s", l.text)
	}
	n.say(n.client, at("7778"), "\x01 anything").fails(t, "ConnectionResetError")
	r.denied(f.origin, "tcp", "not_tls")
	n.say(n.client, at("5432"), "").fails(t, "ConnectionResetError") // after timeouts.hello
	r.denied(f.origin, "tcp", "not_tls")
}

// node asks with Node's own client, which heeds no proxy variables.
func (n *internet) node(w *world, f family) {
	t := n.t
	t.Helper()
	command{
		path: need(t, "ip"),
		args: []string{"netns", "exec", n.client, need(t, "node"), "-e", fmt.Sprintf(`
require("https").get({host: %q, lookup: (name, options, done) => options.all ? done(null, [{address: %q, family: %d}]) : done(null, %q, %d)},
	answer => answer.pipe(process.stdout)).on("error", e => { console.error(e); process.exit(1) })`,
			f.site, f.decoy, f.number, f.decoy, f.number)},
		env: []string{"NODE_EXTRA_CA_CERTS=" + w.caFile, "HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1"},
	}.run(t).succeeds(t, "the true origin")
}
