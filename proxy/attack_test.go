package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The attacks of a container that wants out. Each test fails when its defence
// is taken away.

// counted is an origin that must not be reached; it counts who gets there.
func counted(t *testing.T) (port int, reached *atomic.Int64) {
	t.Helper()
	reached = new(atomic.Int64)
	return tcpOrigin(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		if n, _ := c.Read(b); n > 0 {
			reached.Add(1)
		}
	}), reached
}

func TestAttackConnectNameIsNotSNI(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("tls", port, "allowed.test", "also-allowed.test"))
	r.resolver.set("allowed.test", "127.0.0.1")
	for _, sni := range []string{"evil.test", "also-allowed.test"} {
		t.Run(sni, func(t *testing.T) {
			c := r.send(fmt.Sprintf("CONNECT allowed.test:%d HTTP/1.1\r\n\r\n", port))
			readHead(t, c)
			err := tls.Client(c, &tls.Config{ServerName: sni}).Handshake()
			if err == nil || !strings.Contains(err.Error(), "access denied") {
				t.Errorf("handshake: %v, want the alert access_denied", err)
			}
			rec := r.events.wait(t, "a mismatch", func(e flow.Event) bool { return e.Kind == flow.Denied && e.Record.TLS.ServerName == sni })
			if rec.Reason != policy.ReasonNameMismatch {
				t.Errorf("reason %s", rec.Reason)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d tunnels carried a byte", n)
	}
}

func TestAttackNoSNIInConnect(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("tls", port, "allowed.test"))
	r.resolver.set("allowed.test", "127.0.0.1")
	c := r.send(fmt.Sprintf("CONNECT allowed.test:%d HTTP/1.1\r\n\r\n", port))
	readHead(t, c)
	if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("the handshake went through")
	}
	if rec := r.events.ended(t, "allowed.test"); rec.Reason != policy.ReasonNoName {
		t.Errorf("reason %s", rec.Reason)
	}
	if reached.Load() != 0 {
		t.Error("the origin got bytes")
	}
}

func TestAttackNotTLSInConnect(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("tls", port, "allowed.test"), func(c *Config) { c.Timeouts.Hello = 300 * time.Millisecond })
	r.resolver.set("allowed.test", "127.0.0.1")
	for name, inner := range map[string]string{
		"ssh":                 "SSH-2.0-OpenSSH_9.2\r\n",
		"plain HTTP":          "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
		"nested CONNECT":      "CONNECT evil.test:443 HTTP/1.1\r\n\r\n",
		"SOCKS":               "\x05\x01\x00",
		"SSLv2 hello":         "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
		"application data":    "\x17\x03\x03\x00\x05hello",
		"change cipher spec":  "\x14\x03\x03\x00\x01\x01",
		"silence":             "",
		"half a hello":        "\x16\x03\x01",
		"early, with CONNECT": "",
	} {
		t.Run(name, func(t *testing.T) {
			head := fmt.Sprintf("CONNECT allowed.test:%d HTTP/1.1\r\n\r\n", port)
			if strings.HasPrefix(name, "early") {
				head += "SSH-2.0-early\r\n"
			}
			c := r.send(head)
			readHead(t, c)
			io.WriteString(c, inner)
			io.Copy(io.Discard, c) // until the proxy ends it
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d tunnels carried a byte", n)
	}
	all, _ := r.events.list()
	for _, e := range all {
		if e.Kind != flow.Denied || e.Record.Reason != policy.ReasonNotTLS && e.Record.Reason != policy.ReasonMalformedHello {
			t.Errorf("event kind %d, reason %s", e.Kind, e.Record.Reason)
		}
	}
}

func TestAttackConnectTargets(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("tcp", port, "allowed.test", "**.allowed.test"))
	r.resolver.set("allowed.test", "127.0.0.1")
	for _, target := range []string{
		fmt.Sprintf("allowed.test@127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port),
		fmt.Sprintf("[::ffff:127.0.0.1]:%d", port), fmt.Sprintf("[::1%%25lo]:%d", port), fmt.Sprintf("0177.0.0.1:%d", port),
		fmt.Sprintf("0x7f.1:%d", port), fmt.Sprintf("2130706433:%d", port), fmt.Sprintf("127.1:%d", port), fmt.Sprintf(":%d", port),
		fmt.Sprintf("/:%d", port), fmt.Sprintf("allowed.test:%d/path", port), fmt.Sprintf("allowed.test:0%d", port), "allowed.test:0",
		"allowed.test:65536", "allowed.test:-1", "allowed.test:https", "allowed.test", "allowed.test:", fmt.Sprintf("ａllowed.test:%d", port),
		fmt.Sprintf("allowed。test:%d", port), fmt.Sprintf("evil.test%%00.allowed.test:%d", port), fmt.Sprintf("evil.test#.allowed.test:%d", port),
		fmt.Sprintf("http://allowed.test:%d", port), fmt.Sprintf("evil.test:%d", port), fmt.Sprintf("notallowed.test:%d", port),
		fmt.Sprintf("[allowed.test]:%d", port), fmt.Sprintf("allowed.test..:%d", port), fmt.Sprintf(".allowed.test:%d", port), "*:443", "*",
		fmt.Sprintf("①②⑦.0.0.1:%d", port), fmt.Sprintf("127.0.0.1.:%d", port), fmt.Sprintf("localhost:%d", port),
	} {
		got := r.exchange(fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: allowed.test\r\n\r\nX", target))
		if !strings.HasPrefix(got, "HTTP/1.1 4") {
			t.Errorf("CONNECT %s: %.80q", target, got)
		}
	}
	if reached.Load() != 0 {
		t.Error("the origin was reached")
	}
	if n := r.resolver.total(); n != 0 {
		t.Errorf("%d lookups for refused targets", n)
	}
}

func TestAttackAddresses(t *testing.T) {
	r := newRig(t, "  - {name: all, hosts: ['**.test'], ports: [80, 443, 8080], protocol: tcp}\n  - {name: corp, hosts: ['**.corp'], ports: [443], protocol: tcp, resolves_to: [10.0.0.0/8, 64:ff9b::/96], allow_broad: true}\n  - {name: net, cidrs: [0.0.0.0/0, '::/0'], ports: [80, 443], protocol: tcp}\n")
	for _, addr := range []string{
		"127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.170.2", "0.0.0.0",
		"224.0.0.1", "255.255.255.255", "::1", "fd00:ec2::254", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "198.18.0.1", "240.0.0.1",
	} {
		name := "n" + strings.NewReplacer(".", "-", ":", "-").Replace(addr) + ".test"
		r.resolver.set(name, addr)
		literal := addr
		if strings.Contains(addr, ":") {
			literal = "[" + addr + "]"
		}
		for _, target := range []string{name + ":443", literal + ":443"} {
			got := r.exchange("CONNECT " + target + " HTTP/1.1\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 403") || !strings.Contains(got, "address_prohibited") {
				t.Errorf("CONNECT %s (%s): %.120q", target, addr, got)
			}
		}
	}
	// What a rule opens, it opens no further: metadata stays shut in every embedding.
	for _, addr := range []string{"64:ff9b::a9fe:a9fe", "169.254.169.254", "192.168.0.1", "64:ff9b::c0a8:1"} {
		r.resolver.set("x.corp", addr)
		if got := r.exchange("CONNECT x.corp:443 HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
			t.Errorf("x.corp at %s: %.80q", addr, got)
		}
	}
	got := r.exchange("GET http://169.254.170.2/v2/credentials HTTP/1.1\r\nHost: 169.254.170.2\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, "NO_PROXY") || !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("credentials endpoint: %s", got)
	}
}

func TestAttackReportModeStillGuards(t *testing.T) {
	r := newRig(t, "version: 1\nmode: report\nrules:\n  - {name: none, hosts: [nothing.test]}\n")
	for _, addr := range []string{"127.0.0.1", "169.254.169.254", "fd00:ec2::254", "fe80::1", "0.0.0.0"} {
		r.resolver.set("x.test", addr)
		if got := r.exchange("CONNECT x.test:443 HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
			t.Errorf("%s in report mode: %.80q", addr, got)
		}
	}
}

// TestAttackRebinding lets the name change its mind between the policy's
// answer and each lookup: only what the guard has seen is dialled.
func TestAttackRebinding(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, fmt.Sprintf("  - {name: r, hosts: [rebind.test], ports: [%d], protocol: tcp}\n", port))
	r.resolver.set("rebind.test", "127.0.0.1", "203.0.113.1")
	r.dialer.connect = func(_ context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
		if addr.Addr().IsLoopback() {
			t.Errorf("%s was dialled", addr)
		}
		if vet(netip.MustParseAddrPort("127.0.0.1:1")) == nil {
			t.Error("the dialer's own check lets loopback pass")
		}
		return nil, errors.New("not here")
	}
	r.exchange(fmt.Sprintf("CONNECT rebind.test:%d HTTP/1.1\r\n\r\n", port))
	if reached.Load() != 0 {
		t.Error("the private address was reached")
	}
}

func TestAttackProxyToItself(t *testing.T) {
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	r := newRig(t, "  - {name: open, hosts: ['**.test'], ports: ['1-65535'], protocol: tcp, resolves_to: [127.0.0.0/8]}\n",
		func(c *Config) {
			c.OwnSockets = []netip.AddrPort{netip.MustParseAddrPort(admin.Addr().String())}
			c.Listeners = []ListenerConfig{{Address: "127.0.0.1:0"}, {Address: ":0"}}
		})
	r.resolver.set("self.test", "127.0.0.1")
	r.resolver.set("self2.test", "127.0.0.5")
	wild := r.Addrs()[1].(*net.TCPAddr).Port
	for _, target := range []string{
		"self.test:" + portOf(r.addr), "self.test:" + portOf(admin.Addr().String()),
		fmt.Sprintf("self.test:%d", wild), fmt.Sprintf("self2.test:%d", wild),
	} {
		got := r.exchange("CONNECT " + target + " HTTP/1.1\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 403") || !strings.Contains(got, "proxy_loop_detected") {
			t.Errorf("%s: %.200q", target, got)
		}
	}
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func TestAttackHostileHellos(t *testing.T) {
	r := newRig(t, allow("tls", 443, "allowed.test"), func(c *Config) { c.Timeouts.Hello = 300 * time.Millisecond })
	r.resolver.set("allowed.test", "127.0.0.1")
	t.Run("endless records", func(t *testing.T) {
		c := r.dial()
		var sent int
		for sent < 64<<20 {
			n, err := c.Write([]byte(strings.Repeat("\x16\x03\x01\x00\x01\x01", 1000)))
			sent += n
			if err != nil {
				break
			}
		}
		if sent > 8<<20 { // kernel buffers take some
			t.Errorf("%d bytes were taken", sent)
		}
	})
	t.Run("a byte at a time", func(t *testing.T) {
		c := r.dial()
		for range 100 {
			if _, err := c.Write([]byte("\x16")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the attack is slowness
		}
		if _, err := c.Read(make([]byte, 16)); err == nil {
			return // an alert
		}
	})
}
