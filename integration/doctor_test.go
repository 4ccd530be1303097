package integration

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses of a VPC, and of the world outside it as doctor tries it.
const (
	vpcTask  = "10.0.1.5"
	vpcProxy = "10.0.1.1"
	vpcDNS   = "169.254.169.253"
	ecsTask  = "169.254.170.2"
	outside4 = "1.1.1.1"
	outside6 = "2606:4700:4700::1111"
	probe    = "sallyport-doctor.invalid"
)

// vpc is two network namespaces: a task, and all that is beyond its interface,
// whose input rules are the task's security group.
type vpc struct {
	*internet
	task, beyond string
}

func newVPC(t *testing.T) *vpc {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "network namespaces need root")
	}
	need(t, "ip")
	need(t, "nft")
	id := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	v := &vpc{internet: &internet{t: t}, task: "sp-t-" + id, beyond: "sp-b-" + id}
	for _, ns := range []string{v.task, v.beyond} {
		v.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", ns).Run() })
		v.ip("-n", ns, "link", "set", "lo", "up")
	}
	v.wire(v.task, "eth0", v.beyond, "task")
	v.ip("-n", v.task, "addr", "add", vpcTask+"/24", "dev", "eth0")
	v.ip("-n", v.task, "addr", "add", ecsTask+"/32", "dev", "lo")
	v.ip("-n", v.task, "addr", "add", "fd00:1::5/64", "dev", "eth0", "nodad")
	v.ip("-n", v.beyond, "addr", "add", vpcProxy+"/24", "dev", "task")
	v.ip("-n", v.beyond, "addr", "add", "fd00:1::1/64", "dev", "task", "nodad")
	for _, addr := range []string{outside4 + "/32", "8.8.8.8/32", vpcDNS + "/32", netOrigin + "/32", outside6 + "/128", "2001:4860:4860::8888/128"} {
		v.ip("-n", v.beyond, "addr", "add", addr, "dev", "lo")
	}
	v.ip("-n", v.task, "route", "add", "default", "via", vpcProxy)
	v.ip("-n", v.task, "-6", "route", "add", "default", "via", "fd00:1::1")
	return v
}

// group puts a security group's rules in force: what is in open, and for the
// rest what otherwise says.
func (v *vpc) group(t *testing.T, open, otherwise string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "group.nft")
	writeFile(t, file, `
table inet group
delete table inet group
table inet group {
	chain input {
		type filter hook input priority filter;
		iifname "lo" accept
		ct state established accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
		ip daddr `+vpcProxy+` tcp dport { 3128, 3129 } accept
		ip daddr `+vpcDNS+` udp dport 53 accept
		`+open+`
		`+otherwise+`
	}
}`)
	v.in(v.beyond, "nft", "-f", file)
}

// within runs f where its sockets belong to a namespace.
func (v *vpc) within(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, and so ends with this goroutine.
		runtime.LockOSThread()
		file, err := os.Open("/var/run/netns/" + ns)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// accept serves TCP connections in a namespace, each by serve, until the test
// ends.
func (v *vpc) accept(t *testing.T, ns, addr string, serve func(net.Conn)) {
	t.Helper()
	var ln net.Listener
	v.within(t, ns, func() (err error) {
		ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		return err
	})
	ended := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
}

// reply answers datagrams in a namespace until the test ends.
func (v *vpc) reply(t *testing.T, ns, addr string, answer func([]byte) []byte) {
	t.Helper()
	var conn net.PacketConn
	v.within(t, ns, func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr)
		return err
	})
	ended := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 4<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answer(slices.Clone(buf[:n])), from)
		}
	}()
}

// web serves HTTP in a namespace until the test ends.
func (v *vpc) web(t *testing.T, ns, addr string, handler http.HandlerFunc) {
	t.Helper()
	var ln net.Listener
	v.within(t, ns, func() (err error) {
		ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		return err
	})
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: patience}
	ended := make(chan struct{})
	t.Cleanup(func() {
		srv.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
}

// dnsAnswer answers each question with an address, or with code where there
// is none.
func dnsAnswer(addr []byte, code byte) func([]byte) []byte {
	return func(q []byte) []byte {
		q[2] |= 0x80
		q[3] = 0x80 | code
		if addr == nil {
			return q
		}
		q[7] = 1
		return append(append(q, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4), addr...)
	}
}

// quicAnswer does what RFC 9000, section 6.1, asks of a server.
func quicAnswer(p []byte) []byte {
	if len(p) < 1200 || p[0]&0xc0 != 0xc0 || p[5] != 8 || p[14] != 8 {
		return nil
	}
	return slices.Concat([]byte{0xc0, 0, 0, 0, 0}, p[14:23], p[5:14], []byte{0, 0, 0, 1})
}

// lengthFramed answers DNS over TCP.
func lengthFramed(answer func([]byte) []byte) func(net.Conn) {
	return func(c net.Conn) {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		q := make([]byte, int(size[0])<<8|int(size[1]))
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		a := answer(q)
		_, _ = c.Write(append([]byte{byte(len(a) >> 8), byte(len(a))}, a...))
		_, _ = io.Copy(io.Discard, c)
	}
}

func sayNothing(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func sayBadRequest(c net.Conn) {
	_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	_, _ = io.Copy(io.Discard, c)
}

// diagnosis is doctor's answer.
type diagnosis struct {
	Result string
	Checks []struct{ Check, Subject, Result, Sure, Seen, Change string }
	code   int
	text   string
}

// doctor runs it in the task.
func (v *vpc) doctor(t *testing.T, env []string, args ...string) *diagnosis {
	t.Helper()
	all := append([]string{"netns", "exec", v.task, binary(t), "doctor", "--json", "--timeout", "1500ms", "--resolver", vpcDNS}, args...)
	r := command{path: need(t, "ip"), args: all, env: env}.run(t)
	d := &diagnosis{code: r.code, text: r.stdout + r.stderr}
	if err := json.Unmarshal([]byte(r.stdout), d); err != nil {
		t.Fatalf("%v: exit code %d\n%s\n%s", err, r.code, r.stdout, r.stderr)
	}
	if wantCode := map[string]int{"ok": 0, "unknown": 0, "wrong": 1, "leak": 1}[d.Result]; r.code != wantCode || r.stderr != "" {
		t.Errorf("%s: exit code %d, %s", d.Result, r.code, r.stderr)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.text)
		}
	})
	return d
}

// is requires a check's result, and that what it saw contains text.
func (d *diagnosis) is(t *testing.T, name, want, text string) {
	t.Helper()
	found := false
	for _, c := range d.Checks {
		if strings.TrimSpace(c.Check+" "+c.Subject) != name {
			continue
		}
		found = true
		got := strings.TrimSpace(c.Result + " " + c.Sure)
		if got != want || !strings.Contains(c.Seen, text) {
			t.Errorf("%s is %s: %s; want %s: %s", name, got, c.Seen, want, text)
		}
		if (c.Result == "leak" || c.Result == "wrong") && c.Change == "" {
			t.Errorf("%s: nothing is said of what to change", name)
		}
	}
	if !found {
		t.Errorf("no check %s", name)
	}
}

// leaks requires that those checks and no others are leaks.
func (d *diagnosis) leaks(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, c := range d.Checks {
		if c.Result == "leak" {
			got = append(got, c.Check)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("leaks: %q, want %q", got, want)
	}
}

// variables are the six, as `sallyport env` prints them.
func proxyEnv(url string) []string {
	var all []string
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"} {
		all = append(all, name+"="+url)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		all = append(all, name+"=169.254.170.2,169.254.169.254,localhost,127.0.0.1")
	}
	return all
}

// TestDoctorLeaks opens one door after the other in a task's security group:
// doctor names each, and no other.
func TestDoctorLeaks(t *testing.T) {
	t.Parallel()
	v := newVPC(t)
	at := func(port string) string { return net.JoinHostPort(outside4, port) }
	tests := []struct {
		name, open string
		serve      func(*testing.T)
		leak, sure string // the check, "" for none, and how sure it is
		seen       string
	}{
		{name: "closed", leak: ""},
		{
			name: "tcp 443, answered", open: "tcp dport 443 ip daddr " + outside4 + " accept", leak: "direct-tcp-443", sure: "certain", seen: "1.1.1.1:443 answers HTTP 400",
			serve: func(t *testing.T) { t.Helper(); v.accept(t, v.beyond, at("443"), sayBadRequest) },
		},
		{
			name: "tcp 443, taken", open: "tcp dport 443 ip daddr " + outside4 + " accept", leak: "direct-tcp-443", sure: "likely", seen: "1.1.1.1:443 takes connections",
			serve: func(t *testing.T) { t.Helper(); v.accept(t, v.beyond, at("443"), sayNothing) },
		},
		{name: "tcp 443, refused out there", open: "tcp dport 443 ip daddr " + outside4 + " accept", leak: "direct-tcp-443", sure: "likely", seen: "1.1.1.1:443 refuses: what was sent has got there"},
		{
			name: "tcp 80", open: "tcp dport 80 ip daddr 8.8.8.8 accept", leak: "direct-tcp-80", sure: "certain", seen: "8.8.8.8:80 answers HTTP 400",
			serve: func(t *testing.T) { t.Helper(); v.accept(t, v.beyond, "8.8.8.8:80", sayBadRequest) },
		},
		{
			name: "tcp 53", open: "tcp dport 53 ip protocol tcp accept", leak: "direct-tcp-53", sure: "certain", seen: "1.1.1.1:53 answers DNS, REFUSED",
			serve: func(t *testing.T) {
				t.Helper()
				v.accept(t, v.beyond, at("53"), lengthFramed(dnsAnswer(nil, 5)))
			},
		},
		{
			name: "udp 53", open: "udp dport 53 ip daddr " + outside4 + " accept", leak: "direct-udp-53", sure: "certain", seen: "1.1.1.1:53 answers DNS, no error",
			serve: func(t *testing.T) {
				t.Helper()
				v.reply(t, v.beyond, at("53"), dnsAnswer([]byte{93, 184, 215, 14}, 0))
			},
		},
		{
			name: "udp 443", open: "udp dport 443 ip daddr " + outside4 + " accept", leak: "direct-udp-443", sure: "certain", seen: "1.1.1.1:443 answers QUIC",
			serve: func(t *testing.T) { t.Helper(); v.reply(t, v.beyond, at("443"), quicAnswer) },
		},
		{name: "udp 443, refused out there", open: "udp dport 443 ip daddr " + outside4 + " accept", leak: "direct-udp-443", sure: "likely", seen: "1.1.1.1:443 refuses"},
		{
			name: "IPv6, tcp", open: "tcp dport 443 ip6 daddr " + outside6 + " accept", leak: "direct-ipv6", sure: "certain", seen: "tcp 443: [2606:4700:4700::1111]:443 answers",
			serve: func(t *testing.T) {
				t.Helper()
				v.accept(t, v.beyond, "["+outside6+"]:443", sayBadRequest)
			},
		},
		{
			name: "IPv6, QUIC", open: "udp dport 443 ip6 daddr " + outside6 + " accept", leak: "direct-ipv6", sure: "certain", seen: "udp 443: [2606:4700:4700::1111]:443 answers QUIC",
			serve: func(t *testing.T) { t.Helper(); v.reply(t, v.beyond, "["+outside6+"]:443", quicAnswer) },
		},
	}
	for _, otherwise := range []string{"drop", "reject with icmpx admin-prohibited", "meta l4proto tcp reject with tcp reset; reject with icmpx port-unreachable"} {
		rest := strings.ReplaceAll(otherwise, "; ", "\n\t\t")
		if strings.Contains(otherwise, "reset") {
			// So that those who refuse do it for addresses where nobody is,
			// too: they refuse before they route.
			v.ip("-n", v.beyond, "addr", "replace", "192.0.2.1/32", "dev", "lo")
			v.ip("-n", v.beyond, "addr", "replace", "2001:db8::1/128", "dev", "lo")
		}
		for _, tt := range tests {
			if otherwise != "drop" && tt.leak != "" && tt.name != "tcp 443, answered" && tt.name != "udp 443" {
				continue
			}
			t.Run(otherwise[:4]+strings.Repeat("+", strings.Count(otherwise, ";"))+"/"+tt.name, func(t *testing.T) {
				v.group(t, tt.open, rest)
				if tt.serve != nil {
					tt.serve(t)
				}
				d := v.doctor(t, nil, "--proxy", "http://"+vpcProxy+":3128")
				if tt.leak == "" {
					d.leaks(t)
					for _, name := range []string{"direct-tcp-443", "direct-tcp-80", "direct-tcp-53", "direct-udp-53", "direct-udp-443", "direct-ipv6"} {
						if !strings.Contains(otherwise, "port-unreachable") { // ICMP's rate is limited, and so is what it tells
							d.is(t, name, "ok likely", "")
						}
					}
					return
				}
				d.leaks(t, tt.leak)
				d.is(t, tt.leak, "leak "+tt.sure, tt.seen)
			})
		}
	}
	t.Run("no route", func(t *testing.T) {
		v.ip("-n", v.task, "route", "delete", "default")
		v.ip("-n", v.task, "-6", "route", "delete", "default")
		d := v.doctor(t, nil, "--proxy", "http://"+vpcProxy+":3128")
		d.is(t, "direct-tcp-443", "ok certain", "no route")
		d.is(t, "direct-udp-443", "ok certain", "no route")
		d.is(t, "direct-ipv6", "ok certain", "an address for IPv6, and no route out")
	})
}

// TestDoctorProxy shows doctor a task as it should be, through the product,
// and then what goes wrong with variables, bundles and metadata.
func TestDoctorProxy(t *testing.T) {
	t.Parallel()
	v := newVPC(t)
	v.group(t, "", "drop")
	w := newWorld(t)
	w.name("site.test", netOrigin)
	origin := w.certificate("site.test")
	v.accept(t, v.beyond, netOrigin+":443", serveTLS(t, origin))
	v.reply(t, v.beyond, vpcDNS+":53", dnsAnswer(nil, 3))
	var broken atomic.Bool
	v.web(t, v.task, ecsTask+":80", func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case broken.Load():
			rw.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == "/v4/abc", r.URL.Path == "/v2/credentials/handle":
			_, _ = io.WriteString(rw, `{"SecretAccessKey": "a-secret"}`)
		default:
			rw.WriteHeader(http.StatusNotFound)
		}
	})
	r := w.serve("  - {name: site, hosts: [site.test], resolves_to: [192.0.2.0/24]}\n",
		setting("listeners", []any{map[string]any{"address": vpcProxy + ":3128"}}),
		func(c *rigConfig) { c.under = []string{"ip", "netns", "exec", v.beyond} })
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	writeFile(t, bundle, command{path: binary(t), args: []string{"ca", "bundle", "--ca", w.caFile, "--roots", "builtin"}}.run(t).stdout)
	url := "http://" + r.addr
	good := append(proxyEnv(url), "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/abc",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/handle", "AWS_EXECUTION_ENV=AWS_ECS_FARGATE")
	for _, name := range []string{"SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"} {
		good = append(good, name+"="+bundle)
	}
	good = append(good, "NODE_EXTRA_CA_CERTS="+w.caFile, "NODE_USE_ENV_PROXY=1")

	t.Run("as it should be", func(t *testing.T) {
		d := v.doctor(t, good, "--target", "site.test")
		if d.code != 0 {
			t.Errorf("exit code %d", d.code)
		}
		d.leaks(t)
		d.is(t, "resolver "+vpcDNS, "ok likely", "the VPC's resolver answers NXDOMAIN")
		d.is(t, "proxy-variables", "ok certain", "all four are "+url)
		d.is(t, "no-proxy", "ok certain", "169.254.170.2,169.254.169.254,localhost,127.0.0.1")
		d.is(t, "proxy", "ok certain", "denies "+probe)
		d.is(t, "target site.test:443", "ok certain", "is trusted")
		d.is(t, "proxy-tls", "ok certain", "takes raw TLS")
		d.is(t, "credentials-refused", "ok certain", "carries nothing")
		d.is(t, "metadata", "ok certain", "answers directly")
		d.is(t, "credentials", "ok certain", "answers directly")
		d.is(t, "ca-trust", "ok certain", "all bundles hold")
		d.is(t, "source", "ok certain", "the proxy sees "+vpcTask+", this task's address")
		for _, secret := range []string{"a-secret", "handle"} {
			if strings.Contains(d.text, secret) {
				t.Errorf("it says %q", secret)
			}
		}
		l := r.denied(probe, "connect", "no_rule")
		if l.Client.Address != vpcTask {
			t.Errorf("the record is of %s from %s", l.Sallyport.FlowID, l.Client.Address)
		}
	})

	with := func(change ...string) []string { return append(slices.Clone(good), change...) } // the last one counts
	wrong := []struct {
		name  string
		env   []string
		check string
		want  string
		seen  string
	}{
		{"one case is missing", with("http_proxy="), "proxy-variables", "wrong certain", "http_proxy not set"},
		{"they differ", with("https_proxy=http://10.0.1.1:3129"), "proxy-variables", "wrong certain", "HTTPS_PROXY and https_proxy differ"},
		{"no URL", with("HTTPS_PROXY=10.0.1.1:3128"), "proxy-variables", "wrong certain", "HTTPS_PROXY: "},
		{"a proxy that is not there", with(proxyEnv("http://10.0.1.1:3129")...), "proxy", "wrong certain", "refuses"},
		{"a proxy that is closed off", with(proxyEnv("http://10.0.1.1:3130")...), "proxy", "wrong certain", "no answer in time"},
		{"NO_PROXY of all", with("NO_PROXY=*", "no_proxy=*"), "no-proxy", "wrong certain", `"*" sends everything past the proxy`},
		{"NO_PROXY of the target", with("NO_PROXY=169.254.170.2,localhost,127.0.0.1,.test", "no_proxy=169.254.170.2,localhost,127.0.0.1,.test"), "no-proxy", "wrong certain", `".test" covers site.test, which is to go through the proxy`},
		{"NO_PROXY without credentials", with("NO_PROXY=localhost,127.0.0.1", "no_proxy=localhost,127.0.0.1"), "no-proxy", "wrong certain", "NO_PROXY lacks 169.254.170.2"},
		{"bundle not there", with("AWS_CA_BUNDLE=/nowhere/bundle.pem"), "ca-trust", "wrong certain", "AWS_CA_BUNDLE=/nowhere/bundle.pem: "},
		{"bundle of the CA alone", with("AWS_CA_BUNDLE=" + w.caFile), "ca-trust", "wrong certain", "holds no public root"},
	}
	for _, tt := range wrong {
		t.Run(tt.name, func(t *testing.T) {
			d := v.doctor(t, tt.env, "--target", "site.test")
			d.is(t, tt.check, tt.want, tt.seen)
			if d.Result != "wrong" {
				t.Errorf("the result is %s", d.Result)
			}
		})
	}
	t.Run("another CA", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "public.pem")
		text := command{path: binary(t), args: []string{"ca", "bundle", "--ca", w.caFile, "--roots", "builtin"}}.run(t).stdout
		_, public, _ := strings.Cut(text, "-----END CERTIFICATE-----\n")
		writeFile(t, other, public)
		d := v.doctor(t, with("AWS_CA_BUNDLE="+other), "--target", "site.test")
		d.is(t, "target site.test:443", "wrong certain", "is not trusted here")
		d.is(t, "ca-trust", "wrong certain", "SSL_CERT_FILE and AWS_CA_BUNDLE trust different private CAs")
	})
	t.Run("a target that is denied", func(t *testing.T) {
		v.doctor(t, good, "--target", "other.test").is(t, "target other.test:443", "wrong certain", "denied: no_rule, flow ")
	})
	t.Run("metadata broken", func(t *testing.T) {
		broken.Store(true)
		defer broken.Store(false)
		d := v.doctor(t, good)
		d.is(t, "metadata", "wrong likely", "directly: 500")
		d.is(t, "credentials", "wrong likely", "directly: 500")
	})
	t.Run("a resolver that asks the world", func(t *testing.T) {
		v.reply(t, v.beyond, vpcProxy+":5353", dnsAnswer([]byte{93, 184, 215, 14}, 0))
		v.group(t, "udp dport 5353 accept", "drop")
		defer v.group(t, "", "drop")
		v.doctor(t, good, "--resolver", vpcProxy+":5353").is(t, "resolver "+vpcProxy, "unknown", "lookups leave through it")
	})
	t.Run("a proxy that gives credentials away", func(t *testing.T) {
		v.web(t, v.beyond, vpcProxy+":3129", func(rw http.ResponseWriter, r *http.Request) {
			if r.Host == "169.254.170.2" {
				_, _ = io.WriteString(rw, `{"SecretAccessKey": "a-secret"}`)
				return
			}
			rw.WriteHeader(http.StatusForbidden)
		})
		d := v.doctor(t, with(proxyEnv("http://10.0.1.1:3129")...))
		d.leaks(t, "credentials-refused")
		d.is(t, "credentials-refused", "leak certain", "GET http://169.254.170.2/ through the proxy: 200")
		d.is(t, "proxy", "unknown", "answers 403, and not as a Sallyport does")
	})
	t.Run("transparent", func(t *testing.T) {
		rules := filepath.Join(t.TempDir(), "redirect.nft")
		writeFile(t, rules, "table ip steer {\n chain prerouting {\n type nat hook prerouting priority dstnat;\n ip daddr != "+vpcProxy+" meta l4proto tcp redirect to :3128\n }\n}\n")
		v.in(v.beyond, "nft", "-f", rules)
		defer v.in(v.beyond, "nft", "delete", "table", "ip", "steer")
		d := v.doctor(t, nil)
		d.leaks(t)
		for _, name := range []string{"direct-tcp-443", "direct-tcp-80", "direct-tcp-53"} {
			d.is(t, name, "ok certain", "a Sallyport answers in its place")
		}
		d.is(t, "proxy-variables", "ok certain", "not set, nor needed")
		d.is(t, "proxy", "ok certain", "a Sallyport answers")
	})
}

// serveTLS completes handshakes and says no more.
func serveTLS(t *testing.T, cert tls.Certificate) func(net.Conn) {
	t.Helper()
	return func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
		_ = s.HandshakeContext(context.Background())
		_, _ = io.Copy(io.Discard, s)
	}
}
