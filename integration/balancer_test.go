package integration

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// balancer is a real sender of PROXY headers in front of the proxy at upstream.
type balancer struct {
	name   string
	launch func(t *testing.T, dir, listen, upstream string) *exec.Cmd
	checks bool // it makes health checks
}

func balancers() []balancer {
	return []balancer{
		{name: "HAProxy", launch: haproxySending("send-proxy-v2"), checks: true},
		{name: "HAProxy, version 1", launch: haproxySending("send-proxy"), checks: true},
		{name: "nginx", launch: nginxSending},
	}
}

func haproxySending(how string) func(t *testing.T, dir, listen, upstream string) *exec.Cmd {
	return func(t *testing.T, dir, listen, upstream string) *exec.Cmd {
		t.Helper()
		config := filepath.Join(dir, "haproxy.cfg")
		writeFile(t, config, fmt.Sprintf(`
global
	log stdout format raw local0 notice
defaults
	mode tcp
	log global
	timeout connect 10s
	timeout client 60s
	timeout server 60s
frontend clients
	bind %s
	default_backend proxy
backend proxy
	server sallyport %s %s check inter 100ms
`, listen, upstream, how))
		return exec.Command(need(t, "haproxy"), "-db", "-f", config)
	}
}

func nginxSending(t *testing.T, dir, listen, upstream string) *exec.Cmd {
	t.Helper()
	path := need(t, "nginx")
	module := "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(module); err == nil {
		module = "load_module " + module + ";"
	} else if out, _ := exec.Command(path, "-V").CombinedOutput(); strings.Contains(string(out), "--with-stream ") {
		module = "" // it is built in
	} else {
		missing(t, "nginx's stream module, see .ci/packages.txt")
	}
	config := filepath.Join(dir, "nginx.conf")
	writeFile(t, config, fmt.Sprintf(`%s
daemon off;
worker_processes 1;
pid %[2]s/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
stream {
	access_log off;
	server { listen %[3]s; proxy_pass %[4]s; proxy_protocol on; }
}
`, module, dir, listen, upstream))
	return exec.Command(path, "-e", "stderr", "-p", dir, "-c", config)
}

// start runs the balancer until the test ends, and returns what it says.
func (b *balancer) start(t *testing.T, listen, upstream string) (said func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "said")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := b.launch(t, dir, listen, upstream)
	cmd.Env, cmd.Stdout, cmd.Stderr = bareEnv(dir), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said = func() string {
		text, _ := os.ReadFile(log)
		return string(text)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // ends its workers, too
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", b.name, said())
		}
	})
	awaitPort(t, listen)
	return said
}

// forge connects from an address, sends a PROXY header of its own making and
// asks for what is allowed.
func forge(t *testing.T, from, to string) {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.7 192.0.2.8 4711 3128\r\nCONNECT allowed.example.test:443 HTTP/1.1\r\nHost: allowed.example.test\r\n\r\n")
	if got, _ := io.ReadAll(c); strings.Contains(string(got), " 200 ") {
		t.Errorf("a forged header is believed: %q", got)
	}
}

// TestBalancers puts real senders of PROXY headers in front of the proxy: it
// sees the clients behind them, believes nobody else, and records no health
// check.
func TestBalancers(t *testing.T) {
	t.Parallel()
	for _, b := range balancers() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.origin("allowed.example.test", nil)
			r := w.serve(twoNames, setting("listeners", []any{map[string]any{
				"address": "127.0.0.1:0", "proxy_protocol": "required", "proxy_from": []any{"127.0.0.1/32"},
			}}))
			listen := net.JoinHostPort(loopback(), "13128")
			said := b.start(t, listen, r.addr)
			if b.checks {
				accepted := func() int {
					n, err := strconv.Atoi(r.metric("sallyport_connections_accepted_total"))
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
				for deadline := time.Now().Add(patience); accepted() < 10; {
					if time.Now().After(deadline) {
						t.Fatal("no health checks")
					}
				}
				if strings.Contains(said(), "DOWN") {
					t.Error("the proxy does not pass its health checks")
				}
			}
			if all := r.lines(); len(all) > 0 {
				t.Errorf("recorded, and nobody has asked for anything: %s", all[0].text)
			}
			client := loopback()
			curl := func(args ...string) result {
				t.Helper()
				return command{path: need(t, "curl"), args: append([]string{"-sS", "--max-time", "60", "--cacert", w.caFile, "--interface", client}, args...)}.run(t)
			}
			from := func(l *flowLine) {
				t.Helper()
				if l.Client.Address != client {
					t.Errorf("the client is %s, want %s", l.Client.Address, client)
				}
			}
			proxy := "http://" + listen
			curl("--proxy", proxy, "https://allowed.example.test/").succeeds(t, "hello from allowed")
			from(r.allowed("allowed.example.test", "connect"))
			curl("--proxy", proxy, "http://allowed.example.test/", "http://allowed.example.test/headers").succeeds(t, "hello from allowed")
			from(r.allowed("allowed.example.test", "http"))
			from(r.allowed("allowed.example.test", "http"))
			curl("--connect-to", "allowed.example.test:443:"+listen, "https://allowed.example.test/").succeeds(t, "hello from allowed")
			from(r.allowed("allowed.example.test", "tls"))
			curl("--proxy", proxy, "http://denied.example.test/").succeeds(t, "(no_rule)")
			from(r.denied("denied.example.test", "http", "no_rule"))
			forge(t, client, listen)
			from(r.denied("", "http", "no_name")) // a second header is no header

			// Straight to the proxy: from an address that is not believed, and from
			// one that is and sends no header.
			forge(t, client, r.addr)
			from(r.denied("", "unknown", "unknown_source"))
			client = "127.0.0.1"
			curl("--proxy", r.url(), "https://allowed.example.test/").fails(t)
			from(r.denied("", "unknown", "unknown_source"))
		})
	}
}

const principalRules = `
  - {name: web, hosts: [allowed.example.test], sources: [payments], resolves_to: [127.0.0.0/8]}
  - {name: plain, hosts: [allowed.example.test], sources: [payments], protocol: http, resolves_to: [127.0.0.0/8]}
  - {name: batch, hosts: [batch.example.test], sources: [batch], resolves_to: [127.0.0.0/8]}
sources:
  - {name: payments, principals: [payments]}
  - {name: batch, principals: [batch]}
`

// TestCredentials has clients prove who they are, each in its own way.
func TestCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin("allowed.example.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "welcome, and %q came along", r.Header["Proxy-Authorization"])
	}))
	w.origin("batch.example.test", nil)
	const first, second, batch = "first-0123456789abcdef", "second-0123456789abcdef", "batch-0123456789abcdef"
	secret := filepath.Join(w.dir, "secret")
	writeFile(t, secret, first+"\n")
	r := w.serve(principalRules, setting("credentials", []any{
		map[string]any{"principal": "payments", "secret": "file:" + secret},
		map[string]any{"principal": "batch", "secret": "env:SALLYPORT_BATCH_SECRET"},
	}), func(c *rigConfig) { c.env = append(c.env, "SALLYPORT_BATCH_SECRET="+batch) })
	curl := func(args ...string) result {
		t.Helper()
		return command{path: need(t, "curl"), args: append([]string{"-sS", "--max-time", "60", "--cacert", w.caFile, "--proxy", r.url()}, args...)}.run(t)
	}
	is := func(l *flowLine, principal string) {
		t.Helper()
		if l.User.Name != principal {
			t.Errorf("the principal is %q, want %q: %s", l.User.Name, principal, l.text)
		}
	}
	const site, welcome = "allowed.example.test", "welcome, and [] came along"
	curl("-U", "payments:"+first, "https://"+site+"/").succeeds(t, welcome)
	is(r.allowed(site, "connect"), "payments")
	curl("-U", "payments:"+first, "http://"+site+"/").succeeds(t, welcome)
	is(r.allowed(site, "http"), "payments")
	curl("https://"+site+"/").fails(t, "407")
	is(r.denied(site, "connect", "credentials"), "")
	curl("-U", "payments:"+first, "--proxy-anyauth", "http://"+site+"/").succeeds(t, welcome) // asked first
	r.denied(site, "http", "credentials")
	is(r.allowed(site, "http"), "payments")
	curl("-U", "batch:"+batch, "https://"+site+"/").fails(t, "403")
	is(r.denied(site, "connect", "no_rule"), "batch")
	curl("-U", "payments:"+batch, "https://"+site+"/").fails(t, "407")
	is(r.denied(site, "connect", "credentials"), "")

	t.Run("requests", func(t *testing.T) {
		command{path: needModule(t, "requests"), args: []string{"-c", `
import os, requests
for scheme in "https", "http":
	print(requests.get(scheme + "://allowed.example.test/", timeout=60).text)
`}, env: []string{"HTTPS_PROXY=http://payments:" + first + "@" + r.addr, "HTTP_PROXY=http://payments:" + first + "@" + r.addr, "REQUESTS_CA_BUNDLE=" + w.caFile}}.
			run(t).succeeds(t, welcome+"\n"+welcome)
		is(r.allowed(site, "connect"), "payments")
		is(r.allowed(site, "http"), "payments")
	})
	t.Run("java", func(t *testing.T) {
		path, err := exec.LookPath("javac")
		if err != nil {
			missing(t, "a JDK: %v", err)
		}
		program := filepath.Join(t.TempDir(), "Ask.java")
		writeFile(t, program, `
import java.net.*;
import java.net.http.*;
class Ask {
	public static void main(String[] args) throws Exception {
		var client = HttpClient.newBuilder()
			.proxy(ProxySelector.of(new InetSocketAddress(args[0], Integer.parseInt(args[1]))))
			.authenticator(new Authenticator() {
				protected PasswordAuthentication getPasswordAuthentication() { return new PasswordAuthentication("payments", args[2].toCharArray()); }
			}).build();
		System.out.println(client.send(HttpRequest.newBuilder(URI.create("http://allowed.example.test/")).build(), HttpResponse.BodyHandlers.ofString()).body());
	}
}
`)
		host, port, _ := net.SplitHostPort(r.addr)
		command{path: filepath.Join(filepath.Dir(path), "java"), args: []string{program, host, port, first}}.run(t).succeeds(t, welcome)
		r.denied(site, "http", "credentials")
		is(r.allowed(site, "http"), "payments")
	})

	// Who stands on a secret that is replaced is cut, and who does not is not.
	as := func(user, password string) string {
		return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	}
	open, other := r.tunnel(w, site, as("payments", first)), r.tunnel(w, "batch.example.test", as("batch", batch))
	for _, tu := range []*tunnel{open, other} {
		tu.send(t, "/")
		tu.receive(t)
	}
	writeFile(t, secret, second)
	r.signal(syscall.SIGHUP)
	r.awaitLog("callers are cut whose secret or certificate was withdrawn")
	if _, err := open.in.ReadByte(); !wasCut(err) {
		t.Errorf("the tunnel is not cut: %v", err)
	}
	if l := r.endedVia(site, "connect"); l.Sallyport.EndedBy != "policy" || l.User.Name != "payments" {
		t.Errorf("%s", l.text)
	}
	other.send(t, "/")
	other.receive(t)
	_ = other.conn.Close()
	is(r.allowed("batch.example.test", "connect"), "batch")
	curl("-U", "payments:"+second, "https://"+site+"/").succeeds(t, welcome)
	is(r.allowed(site, "connect"), "payments")
	curl("-U", "payments:"+first, "https://"+site+"/").fails(t, "407")
	r.denied(site, "connect", "credentials")

	// Who goes on guessing is not listened to any more.
	for range 5 {
		curl("-U", "payments:wrong", "https://"+site+"/").fails(t, "407")
		r.denied(site, "connect", "credentials")
	}
	curl("-U", "payments:"+second, "https://"+site+"/").fails(t, "407")
	r.denied(site, "connect", "credentials")

	r.mu.Lock()
	defer r.mu.Unlock()
	var said strings.Builder
	said.WriteString(strings.Join(r.log, "\n"))
	for _, l := range r.flows {
		said.WriteString(l.text)
	}
	for _, secret := range []string{first, second, batch} {
		if strings.Contains(said.String(), secret) {
			t.Errorf("%s is in a log", secret)
		}
	}
}
