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
	"testing"
	"time"
)

// soakTunnels is how many tunnels TestSoak opens; SALLYPORT_SOAK sets another
// number, such as 1000000.
const soakTunnels = 20000

// soakSlack is how many goroutines and descriptors may be left over: the idle
// connections that metrics are read on, and what the runtime starts for itself.
const soakSlack = 8

// TestSoak opens tunnels of every kind, with ends that finish in order,
// half-close, reset, stall and vanish, and then requires that everything is
// back where it was.
func TestSoak(t *testing.T) {
	total := soakTunnels
	if text := os.Getenv("SALLYPORT_SOAK"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		total = n
	}
	s := newSoak(t)
	s.run(total / 10) // what is allocated once is allocated now
	before := s.settled(nil)
	s.run(total)
	after := s.settled(before)
	t.Logf("%d tunnels: %s", total, s.counts())
	for _, name := range []string{"go_goroutines", "process_open_fds", "process_resident_memory_bytes"} {
		t.Logf("%s: %.0f before, %.0f after", name, before[name], after[name])
	}
	for _, name := range []string{"go_goroutines", "process_open_fds", "sallyport_flows_active"} {
		if grown := after[name] - before[name]; grown > soakSlack {
			t.Errorf("%s grew by %.0f", name, grown)
		}
	}
	// The heap breathes with the garbage collector; a leak of a kilobyte for
	// each tunnel would show all the same.
	if grown := after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]; grown > 24<<20+float64(total)*64 {
		t.Errorf("resident memory grew by %.1f MiB", grown/(1<<20))
	}
}

// soak is the load of TestSoak.
type soak struct {
	t     *testing.T
	rig   *rig
	port  int // of the origin that does what the client's first byte says
	hello []byte
	other []byte // a hello for another name
	kinds []soakKind
	made  []atomic.Int64 // by kind
}

// soakKind is one way for a tunnel to live and die. A fault of the kind's own
// expectation is an error; that the far end broke is not.
type soakKind struct {
	name   string
	weight int
	run    func(*soak) error
}

func newSoak(t *testing.T) *soak {
	w := newWorld(t)
	s := &soak{t: t, hello: helloFor(t, "tls.test"), other: helloFor(t, "elsewhere.test")}
	addr := loopback()
	s.port = s.origin(net.JoinHostPort(addr, "0"))
	s.origin(net.JoinHostPort(addr, "443"))
	w.name("soak.test", addr)
	w.name("tls.test", addr)
	s.rig = w.serve(fmt.Sprintf(`
  - {name: tcp, hosts: [soak.test], ports: [%d], protocol: tcp, resolves_to: [127.0.0.0/8]}
  - {name: refused, hosts: [soak.test], ports: [9], protocol: tcp, resolves_to: [127.0.0.0/8]}
  - {name: tls, hosts: [tls.test], resolves_to: [127.0.0.0/8]}
`, s.port), setting("timeouts.idle", "2s"), setting("timeouts.hello", "1s"),
		func(c *rigConfig) { c.plain = true; c.stdout = devNull(t) })
	s.kinds = []soakKind{
		{"echo", 30, func(s *soak) error { return s.tunnel('E', finish) }},
		{"client half-closes", 10, func(s *soak) error { return s.tunnel('E', halfClose) }},
		{"origin half-closes", 10, func(s *soak) error { return s.tunnel('H', finish) }},
		{"client resets", 10, func(s *soak) error { return s.tunnel('S', reset) }},
		{"origin resets", 10, func(s *soak) error { return s.tunnel('R', drain) }},
		{"client vanishes at once", 5, func(s *soak) error { return s.tunnel(0, reset) }},
		{"idle until cut", 1, func(s *soak) error { return s.tunnel('S', drain) }},
		{"raw TLS", 15, func(s *soak) error { return s.raw(s.hello, finish) }},
		{"raw TLS, reset", 5, func(s *soak) error { return s.raw(s.hello, reset) }},
		{"raw TLS, denied", 3, func(s *soak) error { return s.raw(s.other, drain) }},
		{"half a hello", 1, func(s *soak) error { return s.raw(s.hello[:50], drain) }},
		{"half a hello, reset", 3, func(s *soak) error { return s.raw(s.hello[:50], reset) }},
		{"SNI mismatch", 3, func(s *soak) error { return s.mismatch() }},
		{"denied", 5, func(s *soak) error { return s.refused("CONNECT evil.test:443", "403") }},
		{"origin refuses", 3, func(s *soak) error { return s.refused("CONNECT soak.test:9", "502") }},
		{"HTTP", 10, func(s *soak) error { return s.http() }},
	}
	s.made = make([]atomic.Int64, len(s.kinds))
	return s
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

// origin listens at addr and does as the first byte of each connection says.
func (s *soak) origin(addr string) int {
	ln := listen(s.t, addr)
	s.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go soakOrigin(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

func soakOrigin(c *net.TCPConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	br := bufio.NewReader(c)
	first, err := br.ReadByte()
	if err != nil {
		return
	}
	switch first {
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
	case 'G':
		for {
			_ = br.UnreadByte()
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if _, err := br.ReadByte(); err != nil {
				return
			}
		}
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

func (s *soak) dial() (*net.TCPConn, error) {
	c, err := net.Dial("tcp", s.rig.addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// connect opens a tunnel and returns it with the answer's status.
func (s *soak) connect(request string) (*net.TCPConn, string, error) {
	c, err := s.dial()
	if err != nil {
		return nil, "", err
	}
	if _, err := io.WriteString(c, request+" HTTP/1.1\r\n\r\n"); err != nil {
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
	if what != 0 {
		if _, err := c.Write([]byte{what}); err != nil {
			return err
		}
		var b [1]byte
		if _, err := c.Read(b[:]); (err != nil || b[0] != what) && what != 'R' {
			return fmt.Errorf("the origin was to say %q: %q, %w", what, b, err)
		}
	}
	return end(c)
}

func (s *soak) raw(hello []byte, end func(*net.TCPConn) error) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
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

func (s *soak) refused(request, want string) error {
	c, status, err := s.connect(request)
	if err != nil {
		return err
	}
	if status != want {
		return errors.Join(fmt.Errorf("%s was answered %s", request, status), c.Close())
	}
	return drain(c)
}

func (s *soak) http() error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	br := bufio.NewReader(c)
	for range 3 {
		fmt.Fprintf(c, "GET http://soak.test:%d/ HTTP/1.1\r\nHost: soak.test\r\n\r\n", s.port)
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
	deadline := time.Now().Add(patience)
	for {
		m := s.metrics()
		calm := m["sallyport_flows_active"] == 0
		if before != nil {
			calm = calm && m["go_goroutines"]-before["go_goroutines"] <= soakSlack && m["process_open_fds"]-before["process_open_fds"] <= soakSlack
		}
		if calm || time.Now().After(deadline) {
			return m
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

func (s *soak) metrics() map[string]float64 {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + s.rig.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := make(map[string]float64)
	scan(resp.Body, func(line string) {
		name, value, ok := strings.Cut(line, " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] += v
		}
	})
	return out
}
