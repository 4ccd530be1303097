package integration

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// mtuBody is more than any first flight of segments.
const mtuBody = 1 << 20

// narrow is a proxy, a router that keeps silent about a path of 1280 bytes
// behind it, and origins there.
type narrow struct {
	*internet
	w    *world
	dial func(network, addr string) (net.Conn, error) // to the proxy
}

func newNarrow(t *testing.T) *narrow {
	t.Helper()
	n := &narrow{internet: newInternet(t), w: newWorld(t)}
	n.in(n.router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	n.ip("-n", n.origin, "route", "add", "default", "via", netRouter)
	n.ip("-n", n.origin, "-6", "route", "add", "default", "via", net6RouterO)
	for _, r := range [][]string{{"-4", netClient, "c0"}, {"-6", net6Client, "c0"}, {"-4", netOrigin, "o0"}, {"-6", net6Origin, "o0"}} {
		n.ip("-n", n.router, r[0], "route", "add", r[1], "dev", r[2], "mtu", "lock", "1280")
	}
	n.nft(`
table inet silent {
	chain output {
		type filter hook output priority filter;
		icmp type destination-unreachable drop
		icmpv6 type packet-too-big drop
	}
}`)
	listen := listener(t, n.origin)
	for _, addr := range []string{netOrigin, net6Origin} {
		o := &origin{name: addr, addr: addr}
		o.serve(t, listen(t, net.JoinHostPort(addr, "80")), http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			got, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			size, _ := strconv.Atoi(r.URL.Query().Get("n"))
			rw.Header().Set("Content-Length", strconv.Itoa(size))
			rw.Header().Set("Got", strconv.FormatInt(got, 10))
			_, _ = io.CopyN(rw, rand.Reader, int64(size))
		}), false)
	}
	for _, f := range families() {
		n.w.name(f.site, f.origin)
	}
	n.dial = dialler(t, n.client)
	return n
}

// start runs a proxy, whose tunnels may be silent for so long.
func (n *narrow) proxy(t *testing.T, idle string) *rig {
	t.Helper()
	w := *n.w
	w.t = t
	w.dir = t.TempDir()
	return w.serve(`
  - {name: tunnel, hosts: [site.test, six-site.test], ports: [80], protocol: tcp, resolves_to: [192.0.2.0/24, "2001:db8:2::/64"]}
  - {name: plain, hosts: [site.test, six-site.test], protocol: http, resolves_to: [192.0.2.0/24, "2001:db8:2::/64"]}
`, setting("timeouts.idle", idle), func(c *rigConfig) { c.under = []string{"ip", "netns", "exec", n.client} })
}

// exchange sends so many bytes and asks for so many, in a tunnel or by plain
// HTTP.
func (n *narrow) exchange(r *rig, via, host string, send, receive int) error {
	c, err := n.dial("tcp", r.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	target := "http://" + host
	if via == "connect" {
		target = ""
		fmt.Fprintf(c, "CONNECT %s:80 HTTP/1.1\r\n\r\n", host)
		if err := readAnswer(c); err != nil {
			return err
		}
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		fmt.Fprintf(c, "PUT %s/?n=%d HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", target, receive, host, send)
		_, _ = io.CopyN(c, rand.Reader, int64(send))
	}()
	defer func() { <-sent }()
	defer c.Close()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, resp.Body)
	if err != nil || got != int64(receive) || resp.Header.Get("Got") != strconv.Itoa(send) {
		return fmt.Errorf("%s, %s of %d bytes arrived, %d of %d came back, %w", resp.Status, resp.Header.Get("Got"), send, got, receive, err)
	}
	return nil
}

// each makes an exchange by every road and family, all at once, and then looks
// at each record.
func (n *narrow) each(t *testing.T, r *rig, send, receive int, arrives bool) {
	t.Helper()
	var all sync.WaitGroup
	for _, f := range families() {
		for _, via := range []string{"connect", "http"} {
			all.Go(func() {
				if err := n.exchange(r, via, f.site, send, receive); (err == nil) != arrives {
					t.Errorf("%s via %s: %v", f.name, via, err)
				}
			})
		}
	}
	all.Wait()
	for _, f := range families() {
		for _, via := range []string{"connect", "http"} {
			if l := r.endedVia(f.site, via); l.Network.Peer.Address != f.origin || (l.Sallyport.EndedBy == "idle") == arrives || (l.Sallyport.Outcome == "ok") != arrives {
				t.Errorf("%s via %s: %s", f.name, via, l.text)
			}
		}
	}
}

// TestMTU has the proxy's path to the origins be narrower than anybody says.
func TestMTU(t *testing.T) {
	n := newNarrow(t)
	t.Run("as it comes", func(t *testing.T) {
		// What is sent again and again must not count as life. Kernels of old send
		// it ever more rarely.
		n.in(n.client, "sh", "-c", "cd /proc/sys/net/ipv4; test ! -e tcp_rto_max_ms || echo 1000 >tcp_rto_max_ms")
		r := n.proxy(t, "2s")
		n.each(t, r, 100, 100, true)
		for _, way := range []struct{ send, receive int }{{mtuBody, 0}, {0, mtuBody}} {
			n.each(t, r, way.send, way.receive, false)
		}
	})
	t.Run("probing", func(t *testing.T) { // for what the prober sends
		n.in(n.client, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_mtu_probing")
		defer n.in(n.client, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_mtu_probing")
		n.each(t, n.proxy(t, "15m"), mtuBody, 0, true)
		n.each(t, n.proxy(t, "2s"), 0, mtuBody, false)
	})
	t.Run("clamping", func(t *testing.T) { // for both
		n.in(n.client, need(t, "nft"), "-f", n.file("clamp.nft", `
table inet clamp {
	chain output {
		type filter hook output priority mangle;
		oifname "r0" tcp flags syn tcp option maxseg size set 1220
	}
	chain input {
		type filter hook input priority mangle;
		iifname "r0" tcp flags syn tcp option maxseg size set 1220
	}
}`))
		r := n.proxy(t, "15m")
		n.each(t, r, mtuBody, 0, true)
		n.each(t, r, 0, mtuBody, true)
	})
}
