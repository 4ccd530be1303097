package integration

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// conntrackRoom is how many connections the kernel tracks.
const conntrackRoom = 24

// crowd bounds what the router's kernel tracks; relent lifts that. Most kernels
// have one bound for all namespaces, which is not a test's to set: then new
// connections are dropped as they would be there, without a word.
func (n *internet) crowd() (relent func()) {
	n.t.Helper()
	const most = "/proc/sys/net/netfilter/nf_conntrack_max"
	own := exec.Command("ip", "netns", "exec", n.router, "sh", "-c", fmt.Sprintf("echo %d >%s", conntrackRoom, most))
	if own.Run() == nil {
		return func() { n.in(n.router, "sh", "-c", "echo 10000 >"+most) }
	}
	n.nft(fmt.Sprintf(`
table inet full {
	chain prerouting {
		type filter hook prerouting priority mangle;
		iifname "c0" ct state new meta l4proto tcp ct count over %d drop
	}
}`, conntrackRoom))
	return func() { n.in(n.router, "nft", "delete", "table", "inet", "full") }
}

// TestConntrackFull has more connections redirected than the kernel tracks.
func TestConntrackFull(t *testing.T) {
	n := newInternet(t)
	n.nft(`
table inet sallyport {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		iifname "c0" meta l4proto tcp redirect to :15001
	}
}`)
	n.in(n.router, "sh", "-c", "cd /proc/sys/net/netfilter; for f in close close_wait fin_wait last_ack time_wait; do echo 1 >nf_conntrack_tcp_timeout_$f; done")
	w := newWorld(t)
	w.name("tls.test", netOrigin)
	ln := listener(t, n.origin)(t, net.JoinHostPort(netOrigin, "443"))
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go soakOrigin(c.(*net.TCPConn))
		}
	}()
	r := w.serve("  - {name: tls, hosts: [tls.test], resolves_to: [192.0.2.0/24]}\n",
		setting("listeners", []any{map[string]any{"address": ":15001", "original_destination": "redirect"}}),
		func(c *rigConfig) { c.under = []string{"ip", "netns", "exec", n.router} })
	client := &bound{t: t, hello: helloFor(t, "tls.test"), within: inside(t, n.client), open: make(map[string]net.Conn)}
	admin := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: inContext(dialler(t, n.router))}, Timeout: patience}
	before := adminMetrics(t, admin, r.admin)

	relent := n.crowd()
	for range 10 * conntrackRoom {
		if !client.come(2 * time.Second) {
			break
		}
	}
	held := len(client.open)
	t.Logf("%d connections came, and then one did not", held)
	if held >= 10*conntrackRoom {
		t.Error("the table is never full")
	}
	client.echo() // who is there goes on, and is who it was
	opened := make(map[string]int)
	r.await("the opening of each", func() bool {
		clear(opened)
		for _, l := range r.flows {
			opened[l.Sallyport.Original]++
		}
		return len(opened) >= held
	})
	for original := range client.open {
		if opened[original] != 1 {
			t.Errorf("%d openings of %s", opened[original], original)
		}
		delete(opened, original)
	}
	for original := range opened {
		if !client.gaveUp[original] {
			t.Errorf("%s is on record, and nobody asked for it", original)
		}
	}
	client.leave()
	relent()
	for until := time.Now().Add(patience); !client.come(5*time.Second) && time.Now().Before(until); {
		continue
	}
	if len(client.open) == 0 {
		t.Error("nobody comes any more")
	}
	client.echo()
	client.leave()
	for until := time.Now().Add(patience); ; {
		after := adminMetrics(t, admin, r.admin)
		calm := after["sallyport_flows_active"] == 0
		for _, name := range []string{"go_goroutines", "process_open_fds"} {
			calm = calm && after[name]-before[name] <= soakSlack
		}
		if calm {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("not all is back: %v before, %v after", before, after)
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

// bound are clients that are redirected, each bound for an address of its own.
type bound struct {
	t      *testing.T
	hello  []byte
	within func(func())
	last   int
	open   map[string]net.Conn // by where they were bound for
	gaveUp map[string]bool     // who came too late for the client
}

// come makes one more, if it gets an answer within so long.
func (k *bound) come(wait time.Duration) bool {
	k.t.Helper()
	k.last++
	to := net.JoinHostPort(fmt.Sprintf("198.18.%d.1", k.last), "443")
	var c net.Conn
	var err error
	k.within(func() { c, err = (&net.Dialer{Timeout: wait}).Dial("tcp", to) })
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(wait))
		if _, err = c.Write(k.hello); err == nil {
			_, err = c.Read(make([]byte, len(k.hello)))
		}
	}
	if err == nil {
		k.open[to] = c
		return true
	}
	if k.gaveUp == nil {
		k.gaveUp = make(map[string]bool)
	}
	k.gaveUp[to] = true
	if c != nil {
		_ = c.Close()
	}
	return false
}

// echo has each say its own address, and hear it.
func (k *bound) echo() {
	k.t.Helper()
	for to, c := range k.open {
		_ = c.SetDeadline(time.Now().Add(patience))
		got := make([]byte, 0, 4096)
		_, err := c.Write([]byte(to + "\n"))
		for err == nil && !strings.HasSuffix(string(got), "\n") {
			var n int
			n, err = c.Read(got[len(got):cap(got)])
			got = got[:len(got)+n]
		}
		if !strings.HasSuffix(string(got), to+"\n") || err != nil {
			k.t.Errorf("%s hears %q, %v", to, got, err)
		}
	}
}

func (k *bound) leave() {
	for to, c := range k.open {
		_ = c.Close()
		delete(k.open, to)
	}
}
