package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// soakSlack is how many descriptors and goroutines may differ from before the
// first tunnel: the connection that the metrics are read on and its server,
// what the runtime starts for itself once there is work (a second epoll, its
// cleanups), and a pipe of splice(2) that the collector has yet to close.
const soakSlack = 5

// soakAllowance is how many bytes the short form's resident memory may grow
// beyond 5 %: the heap of a process of 40 MiB breathes by that much between
// two collections. The long form has none.
const soakAllowance = 8 << 20

// soakLong is the number of tunnels from which on there is no allowance.
const soakLong = 200_000

// TestSoak opens tunnels of every kind, with ends that finish in order,
// half-close, reset, stall and vanish, and then requires that everything is
// back where it was.
func TestSoak(t *testing.T) {
	total := extent(t, "soak", 10_000, 1_000_000)
	at, allowance := onLoopback(), 0.0
	if total < soakLong {
		allowance = soakAllowance
	} else {
		at.more = append(at.more, setting("history.store", "off")) // it fills up to its bound, which is no loss
	}
	newSoak(t, newWorld(t), at).repays(total, total/10, allowance)
}

// repays makes total attempts and requires that everything is back where it
// was, and every attempt on record. What is allocated once is allocated with the
// first of them; after those, memory may grow by 5 % and allowance.
func (s *soak) repays(total, first int, allowance float64) {
	s.t.Helper()
	fresh := s.settled(nil)
	s.run(first)
	before := s.settled(fresh)
	s.ended(before)
	s.run(total - first)
	after := s.settled(fresh)
	s.t.Logf("%d attempts: %s", total, s.counts())
	for _, name := range []string{"go_goroutines", "process_open_fds", "process_resident_memory_bytes"} {
		s.t.Logf("%s: %.0f before, %.0f after the first %d, %.0f after all", name, fresh[name], before[name], first, after[name])
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if grown := after[name] - fresh[name]; grown > soakSlack || grown < -soakSlack {
			s.t.Errorf("%s changed by %.0f", name, grown)
		}
	}
	s.ended(after)
	var records float64
	for i, k := range s.kinds {
		records += float64(s.made[i].Load()) * k.records
	}
	// Denied names that were too many to record are counted as well.
	if n := after["sallyport_flows_total"] + after["sallyport_dns_unrecorded_total"]; n != records && !s.t.Failed() {
		s.t.Errorf("%.0f attempts are counted, want %.0f", n, records)
	}
	allowed := before["process_resident_memory_bytes"]*.05 + allowance
	if grown := after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]; grown > allowed {
		s.t.Errorf("resident memory grew by %.1f MiB after the first %d, which is more than %.1f", grown/(1<<20), first, allowed/(1<<20))
	}
}

// soak is the load of TestSoak.
type soak struct {
	t     *testing.T
	at    soakPlace
	rig   *rig
	rules string // of its policy
	port  int    // of the origin that does what the client's first byte says
	hello []byte
	other []byte      // a hello for another name
	front string      // the listener for PROXY headers,
	tls   string      // the one that speaks TLS,
	outer *tls.Config // and how
	kinds []soakKind
	made  []atomic.Int64 // by kind

	policies int // so far
}

// soakKind is one way for a tunnel to live and die. A fault of the kind's own
// expectation is an error; that the far end broke is not.
type soakKind struct {
	name    string
	weight  int
	records float64 // that one run leaves
	run     func(*soak) error
}

// soakPlace is where the ends of a soak are.
type soakPlace struct {
	first, front, tls string // the listeners: explicit, for PROXY headers, for TLS
	clients           string // where clients come from, a prefix
	origin            string // its address,
	listen            func(t *testing.T, addr string) net.Listener
	dial              func(network, addr string) (net.Conn, error) // as clients do
	admin             func(network, addr string) (net.Conn, error) // beside the proxy
	more              []func(*rigConfig)                           // and the proxy is like this
	listeners         []any                                        // has these as well
	rules             func(port int) string                        // and these, for the origin's port
	kinds             []soakKind                                   // for them
}

// onLoopback is all of it in one place.
func onLoopback() soakPlace {
	return soakPlace{
		first: "127.0.0.1:0", front: net.JoinHostPort(loopback(), "3129"), tls: net.JoinHostPort(loopback(), "3130"),
		clients: "127.0.0.0/8", origin: loopback(), listen: listen, dial: net.Dial, admin: net.Dial,
		rules: func(int) string { return "" },
	}
}

func newSoak(t *testing.T, w *world, at soakPlace) *soak {
	s := &soak{t: t, at: at, hello: helloFor(t, "tls.test"), other: helloFor(t, "elsewhere.test")}
	s.port = s.origin(net.JoinHostPort(at.origin, "0"), soakOrigin)
	s.origin(net.JoinHostPort(at.origin, "443"), soakOrigin)
	w.name("soak.test", at.origin)
	w.name("tls.test", at.origin)
	s.rules = fmt.Sprintf(`
  - {name: tcp, hosts: [soak.test], ports: [%d], protocol: tcp, resolves_to: [%s/32]}
  - {name: http, hosts: [soak.test], ports: [%[1]d], protocol: http, resolves_to: [%[2]s/32]}
  - {name: refused, hosts: [soak.test], ports: [9], protocol: tcp, resolves_to: [%[2]s/32]}
  - {name: tls, hosts: [tls.test], resolves_to: [%[2]s/32]}
`, s.port, at.origin) + at.rules(s.port)
	s.front, s.tls = at.front, at.tls
	cert, key := w.pemFiles(w.certificate("soak.proxy.test"))
	s.outer = &tls.Config{ServerName: "soak.proxy.test", RootCAs: w.roots}
	s.rig = w.serve(s.rules, append(at.more, setting("listeners", append([]any{
		map[string]any{"address": at.first},
		map[string]any{"address": s.front, "proxy_protocol": "required", "proxy_from": []any{at.clients}},
		map[string]any{"address": s.tls, "tls": map[string]any{"cert_file": cert, "key_file": key}},
	}, at.listeners...)), setting("timeouts.idle", "2s"), setting("timeouts.hello", "1s"), setting("reload.every", "0s"),
		func(c *rigConfig) { c.plain = true; c.stdout = devNull(t) })...)
	s.kinds = append(explicitKinds(), at.kinds...)
	s.made = make([]atomic.Int64, len(s.kinds))
	return s
}

// explicitKinds are those of clients that know of the proxy.
func explicitKinds() []soakKind {
	return []soakKind{
		{"echo", 30, 1, func(s *soak) error { return s.tunnel('E', finish) }},
		{"client half-closes", 10, 1, func(s *soak) error { return s.tunnel('E', halfClose) }},
		{"origin half-closes", 10, 1, func(s *soak) error { return s.tunnel('H', finish) }},
		{"client resets", 10, 1, func(s *soak) error { return s.tunnel('S', reset) }},
		{"origin resets", 10, 1, func(s *soak) error { return s.tunnel('R', drain) }},
		{"client vanishes at once", 5, 1, func(s *soak) error { return s.tunnel(0, reset) }},
		{"idle until cut", 1, 1, func(s *soak) error { return s.tunnel('S', drain) }},
		{"raw TLS", 15, 1, func(s *soak) error { return s.raw(s.hello, finish) }},
		{"raw TLS, reset", 5, 1, func(s *soak) error { return s.raw(s.hello, reset) }},
		{"raw TLS, denied", 3, 1, func(s *soak) error { return s.raw(s.other, drain) }},
		{"half a hello", 1, 1, func(s *soak) error { return s.raw(s.hello[:50], drain) }},
		{"half a hello, reset", 3, 1, func(s *soak) error { return s.raw(s.hello[:50], reset) }},
		{"SNI mismatch", 3, 1, func(s *soak) error { return s.mismatch() }},
		{"denied", 5, 1, func(s *soak) error { return s.refused("CONNECT evil.test:443", "403", drain) }},
		{"origin refuses", 3, 1, func(s *soak) error { return s.refused("CONNECT soak.test:9", "502", drain) }},
		{"HTTP", 10, 3, func(s *soak) error { return s.http("GET", "/", 3) }},
		{"HTTP with a body", 5, 3, func(s *soak) error { return s.http("POST", "/", 3) }},
		{"HTTP, denied", 3, 1, func(s *soak) error { return s.refused("GET http://evil.test/", "403", finish) }},
		{"HTTP, client leaves", 3, 1, func(s *soak) error { return s.leave("/stall") }},
		{"HTTP, origin vanishes", 3, 1, func(s *soak) error { return s.refused(s.get("/vanish"), "502", finish) }},
		{"HTTP, half an answer", 3, 1, func(s *soak) error { return s.refused(s.get("/half"), "200", drain) }},
		{"PROXY header", 10, 1, func(s *soak) error {
			return s.behind("PROXY TCP4 192.0.2.7 192.0.2.8 4711 3128\r\n"+s.ask(), 'E', finish)
		}},
		{"PROXY header, reset", 3, 1, func(s *soak) error {
			return s.behind("PROXY TCP4 192.0.2.9 192.0.2.8 4711 3128\r\n"+s.ask(), 'S', reset)
		}},
		{"no PROXY header", 2, 1, func(s *soak) error { return s.behind(s.ask(), 0, drain) }},
		{"half a PROXY header", 2, 1, func(s *soak) error { return s.behind("PROXY TCP4 192.0", 0, reset) }},
		{"TLS to the proxy", 8, 1, func(s *soak) error { return s.within('E', func(c *tls.Conn) error { return c.Close() }) }},
		{"TLS to the proxy, half-closed", 4, 1, func(s *soak) error {
			return s.within('E', func(c *tls.Conn) error {
				_ = c.CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				return c.NetConn().Close()
			})
		}},
		{"TLS to the proxy, reset", 4, 1, func(s *soak) error {
			return s.within('S', func(c *tls.Conn) error { return reset(c.NetConn().(*net.TCPConn)) })
		}},
		{"TLS to the proxy, origin resets", 3, 1, func(s *soak) error {
			return s.within('R', func(c *tls.Conn) error {
				_, _ = io.Copy(io.Discard, c)
				return c.NetConn().Close()
			})
		}},
		{"WebSocket", 10, 1, func(s *soak) error { return s.upgrade('E', finish) }},
		{"WebSocket, half-closed", 3, 1, func(s *soak) error { return s.upgrade('E', halfClose) }},
		{"WebSocket, reset", 3, 1, func(s *soak) error { return s.upgrade('S', reset) }},
		{"WebSocket, origin resets", 3, 1, func(s *soak) error { return s.upgrade('R', drain) }},
		{"WebSocket, idle until cut", 1, 1, func(s *soak) error { return s.upgrade('S', drain) }},
	}
}

func devNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func helloFor(t *testing.T, name string) []byte {
	t.Helper()
	hello, err := clientHello(name)
	if err != nil {
		t.Fatal(err)
	}
	return hello
}

// clientHello captures a ClientHello of crypto/tls.
func clientHello(name string) ([]byte, error) {
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}).Handshake()
		near.Close()
	}()
	buf := make([]byte, 8<<10)
	n, err := far.Read(buf)
	return buf[:n], err
}

// origin listens at addr and has each connection served.
func (s *soak) origin(addr string, serve func(*net.TCPConn)) int {
	ln := s.at.listen(s.t, addr)
	s.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// soakOrigin does as the first byte of a connection says. What is neither TLS
// nor HTTP to a proxy that looks has its high bit set.
func soakOrigin(c *net.TCPConn) {
	defer c.Close()
	// Longer than anybody waits: what ends a tunnel is the proxy, or its client.
	_ = c.SetDeadline(time.Now().Add(10 * patience))
	soakObey(c, bufio.NewReader(c))
}

// noText makes of an order what no text begins with.
const noText = 0x80

func soakObey(c *net.TCPConn, br *bufio.Reader) {
	first, err := br.ReadByte()
	if err != nil {
		return
	}
	switch first &^ noText {
	case 'E', 0x16: // echo; of a hello, too
		_, _ = c.Write([]byte{first})
		_, _ = io.Copy(c, br)
	case 'H':
		_, _ = c.Write([]byte{first})
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, br)
	case 'R':
		_ = c.SetLinger(0)
	case 'S':
		_, _ = c.Write([]byte{first})
		_, _ = io.Copy(io.Discard, br)
	case 'G', 'P':
		_ = br.UnreadByte()
		soakWeb(c, br)
	}
}

// soakWeb answers requests as their paths say.
func soakWeb(c *net.TCPConn, br *bufio.Reader) {
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		switch req.URL.Path {
		case "/ws":
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			soakObey(c, br)
			return
		case "/stall":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			_, _ = io.Copy(io.Discard, br)
			return
		case "/half":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			return
		case "/vanish":
			_ = c.SetLinger(0)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// The ends that a client puts to a tunnel whose first answer it has read.

func finish(c *net.TCPConn) error { return c.Close() }

func halfClose(c *net.TCPConn) error {
	if err := c.CloseWrite(); err != nil {
		return err
	}
	return drain(c)
}

func reset(c *net.TCPConn) error {
	if err := c.SetLinger(0); err != nil {
		return err
	}
	return c.Close()
}

func drain(c *net.TCPConn) error {
	_, _ = io.Copy(io.Discard, c) // however it ends, as long as it does
	return c.Close()
}

func (s *soak) dial() (*net.TCPConn, error) { return s.reach(s.rig.addr) }

// reach connects a client to addr.
func (s *soak) reach(addr string) (*net.TCPConn, error) {
	c, err := s.at.dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// connect sends a request, most often for a tunnel, and returns the
// connection with the answer's status.
func (s *soak) connect(request string, headers ...string) (*net.TCPConn, string, error) {
	c, err := s.dial()
	if err != nil {
		return nil, "", err
	}
	if url, ok := strings.CutPrefix(request, "GET http://"); ok {
		host, _, _ := strings.Cut(url, "/")
		headers = append(headers, "Host: "+host)
	}
	if _, err := io.WriteString(c, strings.Join(append([]string{request + " HTTP/1.1"}, headers...), "\r\n")+"\r\n\r\n"); err != nil {
		return c, "", err
	}
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil {
			return c, "", fmt.Errorf("%s: %w after %q", request, err, head)
		}
		head = append(head, b[0])
	}
	return c, string(head[9:12]), nil
}

func (s *soak) tunnel(what byte, end func(*net.TCPConn) error) error {
	c, status, err := s.connect(fmt.Sprintf("CONNECT soak.test:%d", s.port))
	if err != nil {
		return err
	}
	if status != "200" {
		return errors.Join(fmt.Errorf("CONNECT was answered %s", status), c.Close())
	}
	return say(c, what, end)
}

// say tells the origin what to do, by one byte, reads its answer and ends.
func say(c *net.TCPConn, what byte, end func(*net.TCPConn) error) error {
	if what != 0 {
		if _, err := c.Write([]byte{what}); err != nil {
			return err
		}
		var b [1]byte
		if _, err := c.Read(b[:]); (err != nil || b[0] != what) && what&^noText != 'R' {
			return fmt.Errorf("the origin was to say %q: %q, %w", what, b, err)
		}
	}
	return end(c)
}

// ask is a whole request for a tunnel.
func (s *soak) ask() string {
	return fmt.Sprintf("CONNECT soak.test:%d HTTP/1.1\r\nHost: soak.test\r\n\r\n", s.port)
}

// behind sends what a balancer does, and what. Where that is nothing, the proxy
// is to end it.
func (s *soak) behind(text string, what byte, end func(*net.TCPConn) error) error {
	c, err := s.reach(s.front)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	if what != 0 {
		if err := readAnswer(c); err != nil {
			return err
		}
	}
	return say(c, what, end)
}

// readAnswer reads the answer to CONNECT and nothing behind it.
func readAnswer(c io.Reader) error { return readHead(c, "HTTP/1.1 200 ") }

// readHead reads the head of an answer, which is to begin so.
func readHead(c io.Reader, want string) error {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil {
			return fmt.Errorf("%w after %q", err, head)
		}
		head = append(head, b[0])
	}
	if !bytes.HasPrefix(head, []byte(want)) {
		return fmt.Errorf("answered %q", head)
	}
	return nil
}

// within makes a tunnel by TLS to the proxy.
func (s *soak) within(what byte, end func(*tls.Conn) error) error {
	nc, err := s.reach(s.tls)
	if err != nil {
		return err
	}
	c := tls.Client(nc, s.outer)
	if _, err := io.WriteString(c, s.ask()); err != nil {
		return err
	}
	if err := readAnswer(c); err != nil {
		return err
	}
	if _, err := c.Write([]byte{what}); err != nil {
		return err
	}
	var b [1]byte
	if _, err := c.Read(b[:]); (err != nil || b[0] != what) && what != 'R' {
		return fmt.Errorf("the origin was to say %q: %q, %w", what, b, err)
	}
	return end(c)
}

func (s *soak) raw(hello []byte, end func(*net.TCPConn) error) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	return s.greet(c, hello, end)
}

// greet sends a hello, whole or not, and ends; once the origin has answered,
// where it is one that leads there.
func (s *soak) greet(c *net.TCPConn, hello []byte, end func(*net.TCPConn) error) error {
	if _, err := c.Write(hello); err != nil {
		return err
	}
	if len(hello) == len(s.hello) {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return err
		}
	}
	return end(c)
}

func (s *soak) mismatch() error {
	c, _, err := s.connect("CONNECT tls.test:443")
	if err != nil {
		return err
	}
	if _, err := c.Write(s.other); err != nil {
		return err
	}
	return drain(c)
}

func (s *soak) refused(request, want string, end func(*net.TCPConn) error) error {
	c, status, err := s.connect(request)
	if err != nil {
		return err
	}
	if status != want {
		return errors.Join(fmt.Errorf("%s was answered %s", request, status), c.Close())
	}
	return end(c)
}

// get is a request, as refused takes it, for a path of the origin.
func (s *soak) get(path string) string { return fmt.Sprintf("GET http://soak.test:%d%s", s.port, path) }

// http makes n exchanges on one connection.
func (s *soak) http(method, path string, n int) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	return s.exchange(c, fmt.Sprintf("http://soak.test:%d%s", s.port, path), method, n)
}

// exchange makes n exchanges on c, and closes it.
func (s *soak) exchange(c *net.TCPConn, target, method string, n int) error {
	defer c.Close()
	br := bufio.NewReader(c)
	body := ""
	if method == http.MethodPost {
		body = strings.Repeat("x", 4000)
	}
	for range n {
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: soak.test:%d\r\nContent-Length: %d\r\n\r\n%s", method, target, s.port, len(body), body)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "ok" {
			return fmt.Errorf("status %d, body %q, %w", resp.StatusCode, body, err)
		}
	}
	return nil
}

// leave resets the connection in the middle of an answer.
func (s *soak) leave(path string) error {
	c, status, err := s.connect(s.get(path))
	if err != nil || status != "200" {
		return fmt.Errorf("answered %s, %w", status, err)
	}
	return reset(c)
}

// upgrade leaves HTTP for a tunnel.
func (s *soak) upgrade(what byte, end func(*net.TCPConn) error) error {
	c, status, err := s.connect(s.get("/ws"), "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	if err != nil || status != "101" {
		return fmt.Errorf("answered %s, %w", status, err)
	}
	return say(c, what, end)
}

// run makes n tunnels, 64 at a time, of kinds drawn by their weights.
func (s *soak) run(n int) {
	var weights []int
	for i, k := range s.kinds {
		for range k.weight {
			weights = append(weights, i)
		}
	}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				i := weights[rand.IntN(len(weights))]
				if err := s.kinds[i].run(s); err != nil {
					s.t.Errorf("%s: %v", s.kinds[i].name, err)
					return
				}
				s.made[i].Add(1)
			}
		})
	}
	wg.Wait()
}

func (s *soak) counts() string {
	var parts []string
	for i := range s.kinds {
		parts = append(parts, fmt.Sprintf("%s %d", s.kinds[i].name, s.made[i].Load()))
	}
	return strings.Join(parts, ", ")
}

// settled reads the metrics once nothing is under way any more and, where
// before is given, the counts are back near it or no longer falling.
func (s *soak) settled(before map[string]float64) map[string]float64 {
	s.forget()
	deadline := time.Now().Add(patience)
	for {
		m := s.metrics()
		calm := m["sallyport_flows_active"] == 0
		if before != nil {
			for _, name := range []string{"go_goroutines", "process_open_fds"} {
				calm = calm && m[name]-before[name] <= soakSlack
			}
		}
		if calm || time.Now().After(deadline) {
			return m
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

// ended requires that nothing is under way.
func (s *soak) ended(m map[string]float64) {
	s.t.Helper()
	if n := m["sallyport_flows_active"]; n != 0 {
		s.t.Errorf("%.0f attempts did not end", n)
	}
}

// forget makes the proxy close the connections to origins that it keeps for
// later, as it does under every new policy. They would go by themselves, in
// longer than a short form has.
func (s *soak) forget() {
	s.policies++
	s.rig.writePolicy(s.rules + fmt.Sprintf("  - {name: policy-%d, hosts: [nobody.test]}\n", s.policies))
	if said := s.rig.saidAfter(func() { s.rig.signal(syscall.SIGHUP) }, "policy re", "policy unchanged"); said["message"] != "policy reloaded" {
		s.t.Fatalf("the log says %v", said)
	}
}

func (s *soak) metrics() map[string]float64 {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: inContext(s.at.admin)}, Timeout: patience}
	return adminMetrics(s.t, client, s.rig.admin)
}

// adminMetrics reads /metrics, and adds up what has the same name.
func adminMetrics(t *testing.T, client *http.Client, admin string) map[string]float64 {
	t.Helper()
	resp, err := client.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := make(map[string]float64)
	scan(resp.Body, func(line string) {
		name, value, ok := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{") // its labels
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] += v
		}
	})
	return out
}
