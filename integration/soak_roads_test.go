package integration

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSoakRoads is TestSoak in namespaces, where clients also come by what
// redirects their connections, and ask the proxy for names.
func TestSoakRoads(t *testing.T) {
	total := extent(t, "soak_roads", 3000, 500_000)
	n := newInternet(t)
	n.nft(`
table inet sallyport {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		iifname "c0" fib daddr type != local meta l4proto tcp redirect to :15001
	}
}`)
	for _, ns := range []string{n.client, n.router, n.origin} { // ports are soon free again
		n.in(ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse; echo 5000 65000 >/proc/sys/net/ipv4/ip_local_port_range")
	}
	w := newWorld(t)
	at := soakPlace{
		first: netRouterIn + ":3128", front: netRouterIn + ":3129", tls: netRouterIn + ":3130", clients: netClient + "/32",
		origin: netOrigin, listen: listener(t, n.origin), dial: dialler(t, n.client), admin: dialler(t, n.router),
		more: []func(*rigConfig){
			setting("history.store", "off"), setting("dns", map[string]any{"address": ":53", "answer": []any{netRouterIn, net6Router}}),
			func(c *rigConfig) { c.under = []string{"ip", "netns", "exec", n.router} },
		},
		listeners: []any{map[string]any{"address": ":15001", "original_destination": "redirect"}},
		rules: func(port int) string {
			return fmt.Sprintf("  - {name: raw, cidrs: [%s/32], ports: [%d, 3306], protocol: tcp}\n", netOrigin, port)
		},
		kinds: append(redirectedKinds(), steeredKinds()...),
	}
	s := newSoak(t, w, at)
	s.origin(net.JoinHostPort(netOrigin, "3306"), func(c *net.TCPConn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * patience))
		_, _ = io.WriteString(c, greeting)
		_, _ = io.Copy(io.Discard, c)
	})
	s.repays(total, total/3, soakAllowance)
}

// greeting is what a server says that speaks first.
const greeting = "220 ready\r\n"

// aimed connects a client to an address where nobody is, of either family. So
// many are used that ports meet again behind the redirection.
func (s *soak) aimed(port int) (*net.TCPConn, error) {
	host := fmt.Sprintf("203.0.113.%d", 1+rand.IntN(250))
	if rand.IntN(3) == 0 {
		host = fmt.Sprintf("2001:db8:dead::%x", 1+rand.IntN(1<<16-1))
	}
	return s.reach(net.JoinHostPort(host, strconv.Itoa(port)))
}

// redirectedKinds are those of clients that know of no proxy.
func redirectedKinds() []soakKind {
	greet := func(hello func(*soak) []byte, end func(*net.TCPConn) error) func(*soak) error {
		return func(s *soak) error {
			c, err := s.aimed(443)
			if err != nil {
				return err
			}
			return s.greet(c, hello(s), end)
		}
	}
	whole := func(s *soak) []byte { return s.hello }
	half := func(s *soak) []byte { return s.hello[:50] }
	return []soakKind{
		{"redirected TLS", 20, 1, greet(whole, finish)},
		{"redirected TLS, half-closed", 8, 1, greet(whole, halfClose)},
		{"redirected TLS, reset", 8, 1, greet(whole, reset)},
		{"redirected TLS, idle until cut", 1, 1, func(s *soak) error {
			c, err := s.aimed(443)
			if err != nil {
				return err
			}
			return s.greet(c, s.hello, drain)
		}},
		{"redirected TLS, denied", 5, 1, greet(func(s *soak) []byte { return s.other }, drain)},
		{"redirected, half a hello", 1, 1, greet(half, drain)},
		{"redirected, half a hello, reset", 3, 1, greet(half, reset)},
		{"redirected HTTP", 10, 3, func(s *soak) error {
			c, err := s.aimed(s.port)
			if err != nil {
				return err
			}
			return s.exchange(c, "/", "POST", 3)
		}},
		{"redirected WebSocket", 4, 1, func(s *soak) error { return s.redirectedUpgrade('E', halfClose) }},
		{"redirected WebSocket, reset", 3, 1, func(s *soak) error { return s.redirectedUpgrade('S', reset) }},
		{"redirected WebSocket, origin resets", 3, 1, func(s *soak) error { return s.redirectedUpgrade('R', drain) }},
		{"by address", 15, 1, func(s *soak) error { return s.byAddress(s.port, 'E'|noText, finish) }},
		{"by address, half-closed", 8, 1, func(s *soak) error { return s.byAddress(s.port, 'E'|noText, halfClose) }},
		{"by address, origin half-closes", 8, 1, func(s *soak) error { return s.byAddress(s.port, 'H'|noText, finish) }},
		{"by address, reset", 8, 1, func(s *soak) error { return s.byAddress(s.port, 'S'|noText, reset) }},
		{"by address, origin resets", 8, 1, func(s *soak) error { return s.byAddress(s.port, 'R'|noText, drain) }},
		{"by address, idle until cut", 1, 1, func(s *soak) error { return s.byAddress(s.port, 'S'|noText, drain) }},
		{"by address, denied", 4, 1, func(s *soak) error {
			c, err := s.reach(net.JoinHostPort(netOrigin, "9"))
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte{noText}); err != nil {
				return err
			}
			return drain(c)
		}},
		{"the origin speaks first", 4, 1, func(s *soak) error { return s.listens(halfClose) }},
		{"the origin speaks first, reset", 3, 1, func(s *soak) error { return s.listens(reset) }},
	}
}

func (s *soak) redirectedUpgrade(what byte, end func(*net.TCPConn) error) error {
	c, err := s.aimed(s.port)
	if err != nil {
		return err
	}
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: soak.test:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", s.port)
	if err := readHead(c, "HTTP/1.1 101 "); err != nil {
		return err
	}
	return say(c, what, end)
}

func (s *soak) byAddress(port int, what byte, end func(*net.TCPConn) error) error {
	c, err := s.reach(net.JoinHostPort(netOrigin, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return say(c, what, end)
}

// listens is a client that waits for the origin to begin.
func (s *soak) listens(end func(*net.TCPConn) error) error {
	c, err := s.reach(net.JoinHostPort(netOrigin, "3306"))
	if err != nil {
		return err
	}
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != greeting {
		return fmt.Errorf("the origin says %q, %w", got, err)
	}
	return end(c)
}

// steeredKinds are those of clients that ask for names.
func steeredKinds() []soakKind {
	var last atomic.Int64
	denied := func() string { return fmt.Sprintf("denied-%d.test", last.Add(1)) }
	allowed := func() string { return "tls.test" }
	ask := func(n int, name func() string, end func(*net.TCPConn) error) func(*soak) error {
		return func(s *soak) error { return s.converse(n, name, end) }
	}
	return []soakKind{
		{"DNS by UDP", 15, 0, (*soak).resolve},
		{"DNS by UDP, client vanishes", 10, 0, func(s *soak) error {
			c, err := s.at.dial("udp", soakDNS)
			if err != nil {
				return err
			}
			_, err = c.Write(question("tls.test"))
			return errors.Join(err, c.Close())
		}},
		{"DNS by UDP, noise", 3, 0, func(s *soak) error {
			c, err := s.at.dial("udp", soakDNS)
			if err != nil {
				return err
			}
			_, err = c.Write(question("tls.test")[:rand.IntN(20)])
			return errors.Join(err, c.Close())
		}},
		{"DNS by TCP", 8, 0, ask(2, allowed, finish)},
		{"DNS by TCP, half-closed", 5, 0, ask(1, allowed, halfClose)},
		{"DNS by TCP, reset", 5, 0, ask(1, allowed, reset)},
		{"DNS by TCP, denied", 8, 1, ask(1, denied, finish)},
		{"DNS by TCP, half a question", 5, 0, func(s *soak) error {
			c, err := s.reach(soakDNS)
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte{0, 29, 1}); err != nil {
				return err
			}
			end := []func(*net.TCPConn) error{finish, reset, halfClose}[rand.IntN(3)]
			return end(c)
		}},
		{"DNS by TCP, client vanishes", 5, 0, func(s *soak) error {
			c, err := s.reach(soakDNS)
			if err != nil {
				return err
			}
			q := question("tls.test")
			if _, err := c.Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
				return err
			}
			return reset(c)
		}},
	}
}

const soakDNS = netRouterIn + ":53"

// question asks for a name's A records.
func question(name string) []byte {
	q := make([]byte, 12, 64)
	q[0], q[1] = byte(rand.Uint32()), byte(rand.Uint32())
	q[2], q[5] = 1, 1 // recursion is desired of one question
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

// answered requires that a is the answer to q: the proxy's address, or that
// there is no such name.
func answered(q, a []byte) error {
	const truncated, noName = 2, 3
	if len(a) < len(q) || a[0] != q[0] || a[1] != q[1] {
		return fmt.Errorf("no answer to %q: %q", q, a)
	}
	denied := strings.Contains(string(q), "denied")
	switch code, count := a[3]&0xf, a[7]; {
	case denied && code == noName && count == 0, !denied && a[2]&truncated != 0:
		return nil
	case !denied && code == 0 && count == 1 && slices.Contains(addressesIn(a), netRouterIn):
		return nil
	}
	return fmt.Errorf("%q is answered %q", q, a)
}

// addressesIn returns what may be an A record's data.
func addressesIn(a []byte) (all []string) {
	for i := range len(a) - 5 {
		if a[i] == 0 && a[i+1] == 4 {
			all = append(all, netip.AddrFrom4([4]byte(a[i+2:i+6])).String())
		}
	}
	return all
}

// resolve asks by UDP until there is an answer, as resolvers do: under a load
// like this there is no promise of one.
func (s *soak) resolve() error {
	c, err := s.at.dial("udp", soakDNS)
	if err != nil {
		return err
	}
	defer c.Close()
	q := question("tls.test")
	for until := time.Now().Add(patience); ; {
		if _, err := c.Write(q); err != nil {
			return err
		}
		buf := make([]byte, 1500)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		switch {
		case err == nil:
			return answered(q, buf[:n])
		case !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(until):
			return err
		}
	}
}

// converse asks n questions by TCP. One address may have so many connections
// only; one that is over it is closed unasked, and the client tries again.
func (s *soak) converse(n int, name func() string, end func(*net.TCPConn) error) error {
	asked := name()
	for until := time.Now().Add(patience); ; {
		c, err := s.reach(soakDNS)
		if err != nil {
			return err
		}
		for i := range n {
			if err = s.exchangeDNS(c, question(asked)); err != nil {
				err = fmt.Errorf("question %d: %w", i, err)
				break
			}
		}
		if err == nil {
			return end(c)
		}
		_ = c.Close()
		if time.Now().After(until) {
			return err
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

func (s *soak) exchangeDNS(c net.Conn, q []byte) error {
	if _, err := c.Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
		return err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	a := make([]byte, int(length[0])<<8|int(length[1]))
	if _, err := io.ReadFull(c, a); err != nil {
		return err
	}
	return answered(q, a)
}
