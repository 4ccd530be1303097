package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// meshRules are what ECS programs into a task's namespace for a
// proxyConfiguration of type APPMESH, by its CNI plugin's documented
// behaviour, with IgnoredUID 1337, ProxyEgressPort 15001, ProxyIngressPort
// 15000, AppPorts 9, EgressIgnoredPorts 22 and EgressIgnoredIPs for task
// metadata.
func meshRules(ignoredIPs string) []string {
	return []string{
		"-N APPMESH_INGRESS",
		"-A APPMESH_INGRESS -p tcp -m multiport --dports 9 -j REDIRECT --to-port 15000",
		"-A PREROUTING -p tcp -m addrtype ! --src-type LOCAL -j APPMESH_INGRESS",
		"-N APPMESH_EGRESS",
		"-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN",
		"-A APPMESH_EGRESS -p tcp -m multiport --dports 22 -j RETURN",
		"-A APPMESH_EGRESS -p tcp -d " + ignoredIPs + " -j RETURN",
		"-A APPMESH_EGRESS -p tcp -j REDIRECT --to 15001",
		"-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j APPMESH_EGRESS",
	}
}

// unprivileged runs what follows as a container of a task does that is given
// nothing: uid 1337, and no capability that it has or could ever get.
func unprivileged(t *testing.T, dirs ...string) []string {
	t.Helper()
	return []string{
		need(t, "sh"), "-c", "chmod a+rx " + strings.Join(dirs, " ") + "; chmod a+r " + dirs[len(dirs)-1] + "/*; exec " + need(t, "setpriv") +
			` --reuid 1337 --regid 1337 --clear-groups --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs "$@"`, "sh",
	}
}

// sidecar is the task's namespace, with the rules of ECS, and behind it a
// router that only forwards.
func newSidecar(t *testing.T, w *world) (*internet, *rig) {
	t.Helper()
	n := newInternet(t)
	n.in(n.router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	n.ip("-n", n.origin, "route", "add", "default", "via", netRouter)
	n.ip("-n", n.origin, "-6", "route", "add", "default", "via", net6RouterO)
	n.ip("-n", n.router, "addr", "add", "169.254.170.2/32", "dev", "c0")
	for command, ignored := range map[string]string{"iptables": "169.254.170.2,169.254.169.254", "ip6tables": "fd00:ec2::254"} {
		for _, rule := range meshRules(ignored) {
			n.in(n.client, append([]string{need(t, command), "-t", "nat"}, strings.Fields(rule)...)...)
		}
	}
	r := n.transparent(w, n.client, "redirect", []string{"127.0.0.1:15001", "[::1]:15001"}, unprivileged(t, filepath.Dir(w.dir), built, w.dir)...)
	return n, r
}

// TestSidecar runs the proxy and the application in one namespace, as in a task
// with a proxyConfiguration.
func TestSidecar(t *testing.T) {
	w := newWorld(t)
	n, r := newSidecar(t, w)

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "Uid:\t1337\t1337\t1337\t1337", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), line+"\n") {
			t.Errorf("the proxy is not as unprivileged as it should be: no %q in\n%s", line, status)
		}
	}
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) { n.with(t).travel(w, r, f) })
	}

	// The application may know of the proxy all the same.
	n.curl(w, "--noproxy", "", "--proxy", "http://127.0.0.1:15001", "https://site.test/").succeeds(t, "the true origin")
	if l := r.allowed("site.test", "connect"); l.Sallyport.Original != "" {
		t.Errorf("%s", l.text)
	}
	// What is to be left alone is: metadata, an ignored port, whatever is local.
	n.serve(n.router, need(t, "python3"), "-c", `
import http.server
class Metadata(http.server.BaseHTTPRequestHandler):
	def do_GET(self):
		self.send_response(200); self.end_headers(); self.wfile.write(self.client_address[0].encode())
	def log_message(self, *args): pass
s = http.server.HTTPServer(("169.254.170.2", 80), Metadata)
print("serving", flush=True)
s.serve_forever()`)
	before := len(r.lines())
	n.curl(w, "http://169.254.170.2/v4/task").succeeds(t, netClient)
	n.say(n.client, netOrigin+":22", "x").fails(t, "ConnectionRefusedError")
	n.say(n.client, netClient+":7777", "x").fails(t, "ConnectionRefusedError")
	if now := r.lines(); len(now) != before {
		t.Errorf("recorded: %s", now[len(now)-1].text)
	}
	// Asked to reach itself, by any of its addresses, it does not.
	for _, self := range []string{netClient, "127.0.0.1"} {
		n.curl(w, "--noproxy", "", "--proxy", "http://127.0.0.1:15001", "--resolve", "x:1:127.0.0.1", "http://"+self+":15001/").succeeds(t, "ip_literal")
		r.denied(self, "http", "ip_literal")
	}
}

// TestSidecarLoop forgets the one rule that keeps the proxy's own connections
// from coming back to it.
func TestSidecarLoop(t *testing.T) {
	w := newWorld(t)
	n, r := newSidecar(t, w)
	r.expectFaults()
	for _, command := range []string{"iptables", "ip6tables"} {
		n.in(n.client, command, "-t", "nat", "-D", "APPMESH_EGRESS", "-m", "owner", "--uid-owner", "1337", "-j", "RETURN")
	}
	// turns requires that an attempt was carried once, and refused when it came
	// back.
	turns := func(what string) {
		t.Helper()
		var outer, inner int
		r.await("the two ends of "+what, func() bool {
			for _, l := range r.flows {
				switch {
				case l.taken:
				case l.Event.Name == "flow.close":
					l.taken = true
					outer++
				case l.Event.Name == "flow.deny":
					l.taken = true
					inner++
					if l.Sallyport.Reason != "self" {
						t.Errorf("%s: %s", what, l.text)
					}
				}
			}
			return outer > 0 && inner > 0
		})
		if outer != 1 || inner != 1 {
			t.Errorf("%s: carried %d times, refused %d times", what, outer, inner)
		}
	}
	for _, f := range families() {
		n.curl(w, "--resolve", f.site+":443:["+f.decoy+"]", "https://"+f.site+"/").fails(t, "alert access denied")
		turns("TLS")
		n.curl(w, "--resolve", f.site+":80:["+f.decoy+"]", "http://"+f.site+"/").succeeds(t, "sallyport", "(self)")
		turns("HTTP")
		at := "[" + f.origin + "]"
		n.say(n.client, at+":7777", "\x01").fails(t, "ConnectionResetError")
		turns("TCP")
		n.say(n.client, at+":3306", "").fails(t, "ConnectionResetError")
		turns("TCP, and the server speaks first")
	}
	n.curl(w, "--noproxy", "", "--proxy", "http://127.0.0.1:15001", "https://site.test/").fails(t, "alert access denied")
	turns("CONNECT")
	r.awaitLog("by its user ID")
}
