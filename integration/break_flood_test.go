package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// floodSlack is how many goroutines and descriptors may be left over: those
// of the admin port, and what the runtime starts for itself.
const floodSlack = 12

// vitals are a proxy's own figures.
type vitals struct{ goroutines, descriptors, rss, connections, flows float64 }

func (v vitals) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f descriptors, %.1f MiB resident, %.0f connections", v.goroutines, v.descriptors, v.rss/(1<<20), v.connections)
}

// gauges reads /metrics, with the samples of a family added up.
func (r *rig) gauges() (map[string]float64, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + r.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := make(map[string]float64)
	scan(resp.Body, func(line string) {
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			return
		}
		name, _, _ := strings.Cut(line[:i], "{")
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			out[name] += v
		}
	})
	return out, nil
}

func (r *rig) vitals() vitals {
	r.t.Helper()
	g, err := r.gauges()
	if err != nil {
		r.t.Fatal(err)
	}
	return vitals{
		goroutines: g["go_goroutines"], descriptors: g["process_open_fds"], rss: g["process_resident_memory_bytes"],
		connections: g["sallyport_connections_active"], flows: g["sallyport_flows_active"],
	}
}

// until polls the proxy's figures until ok, and returns the last.
func (r *rig) until(what string, ok func(vitals) bool) vitals {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		v := r.vitals()
		if ok(v) {
			return v
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come true: %s", what, v)
		}
		pause(50 * time.Millisecond)
	}
}

// recovers requires that nothing is left of what the proxy went through, and
// says how long that took and what it leaves.
func (r *rig) recovers(before vitals) {
	r.t.Helper()
	began := time.Now()
	after := r.until("the way back to "+before.String(), func(v vitals) bool {
		return v.connections == 0 && v.flows == 0 && v.goroutines-before.goroutines <= floodSlack && v.descriptors-before.descriptors <= floodSlack
	})
	r.t.Logf("before: %s", before)
	r.t.Logf("after:  %s, %s later", after, time.Since(began).Round(time.Millisecond))
}

// pause lets the time pass that a scenario is made of. Nothing is concluded
// from it.
func pause(d time.Duration) { <-time.After(d) }

// honest is a client in good faith that keeps asking while others attack.
type honest struct {
	rig    *rig
	from   string // its address
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex // guards the rest
	took   []time.Duration
	failed []error
}

const honestRules = `
  - {name: web, hosts: [honest.test], protocol: http, resolves_to: [127.0.0.0/8]}
  - {name: tls, hosts: [honest.test], resolves_to: [127.0.0.0/8]}
`

// honest starts one that asks honest.test, by plain HTTP and by CONNECT in
// turn, each time on a new connection.
func (r *rig) honest(from string) *honest {
	h := &honest{rig: r, from: from}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	r.t.Cleanup(h.cancel)
	h.done.Go(func() {
		for i := 0; h.ctx.Err() == nil; i++ {
			began := time.Now()
			err := h.ask(i%2 == 0)
			h.mu.Lock()
			if err != nil {
				h.failed = append(h.failed, err)
			} else {
				h.took = append(h.took, time.Since(began))
			}
			h.mu.Unlock()
			pause(10 * time.Millisecond)
		}
	})
	return h
}

// ask makes one request.
func (h *honest) ask(plain bool) error {
	c, err := dialFrom(h.from, h.rig.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	request := "CONNECT honest.test:443 HTTP/1.1\r\nHost: honest.test:443\r\n\r\n"
	if plain {
		request = "GET http://honest.test/ HTTP/1.1\r\nHost: honest.test\r\nConnection: close\r\n\r\n"
	}
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: strings.Fields(request)[0]})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if plain {
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasPrefix(string(body), "hello from honest.test") {
			return fmt.Errorf("%q, %w", body, err)
		}
	}
	return nil
}

// stop ends it and says how it fared; it must have been served at all.
func (h *honest) stop(during string) (failed []error) {
	h.rig.t.Helper()
	h.cancel()
	h.done.Wait()
	slices.Sort(h.took)
	if len(h.took) == 0 {
		h.rig.t.Errorf("no honest request was answered during %s: %v", during, errors.Join(h.failed...))
		return h.failed
	}
	at := func(q float64) time.Duration {
		return h.took[int(q*float64(len(h.took)-1))].Round(10 * time.Microsecond)
	}
	h.rig.t.Logf("honest requests during %s: %d answered, %d failed; p50 %s, p99 %s, the slowest %s",
		during, len(h.took), len(h.failed), at(0.5), at(0.99), at(1))
	return h.failed
}

// served is stop for an attack that must cost honest clients nothing.
func (h *honest) served(during string) {
	h.rig.t.Helper()
	for _, err := range h.stop(during) {
		h.rig.t.Errorf("an honest request during %s: %v", during, err)
	}
}

func dialFrom(from, to string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// crowd opens n connections to the proxy, and greets on each. One that a limit
// has refused by the time that it is looked at is nil.
func (r *rig) crowd(n int, from string, greet func(i int, c *net.TCPConn) error) []*net.TCPConn {
	r.t.Helper()
	conns := make([]*net.TCPConn, n)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				c, err := dialFrom(from, r.addr)
				if errors.Is(err, syscall.ECONNRESET) {
					continue // refused by a limit before we could look
				}
				if err != nil {
					r.t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = c
				if greet != nil {
					if err := greet(i, c); err != nil {
						r.t.Errorf("connection %d: %v", i, err)
					}
				}
			}
		})
	}
	workers.Wait()
	r.t.Cleanup(func() { dismiss(conns) })
	if r.t.Failed() {
		r.t.FailNow()
	}
	return conns
}

func dismiss(conns []*net.TCPConn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// expelled requires that the proxy ends every connection by itself.
func (r *rig) expelled(conns []*net.TCPConn) {
	r.t.Helper()
	for i, c := range conns {
		if c == nil {
			continue
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			r.t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			r.t.Fatalf("connection %d is still open", i)
		}
		c.Close()
	}
}

// drip writes text to all connections, a byte to each at every beat, until all
// is said or the proxy has heard enough.
func drip(conns []*net.TCPConn, text func(i int) []byte, beat time.Duration) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	gone := make([]bool, len(conns))
	for at := 0; ; at++ {
		left := 0
		for i, c := range conns {
			b := text(i)
			if gone[i] || at >= len(b) {
				continue
			}
			if _, err := c.Write(b[at : at+1]); err != nil {
				gone[i] = true
				continue
			}
			left++
		}
		if left == 0 {
			return
		}
		<-ticker.C
	}
}

// TestBreakFloodSilent opens connections on which nothing is ever said, twice:
// what the first flood takes is there for the second.
func TestBreakFloodSilent(t *testing.T) {
	n := extent(t, "flood", 1000, 10000)
	w := newWorld(t)
	w.origin("honest.test", nil)
	// All of them must be there at one time.
	hello := time.Duration(2000+n) * time.Millisecond
	r := w.serve(honestRules, setting("timeouts.hello", hello.String()), func(c *rigConfig) { c.plain = true })
	before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
	var first float64
	for round := range 2 {
		h := r.honest("127.0.0.1")
		conns := r.crowd(n, "127.0.0.1", nil)
		at := r.until("the flood", func(v vitals) bool { return v.connections >= float64(n) })
		each := (at.rss - before.rss) / float64(n)
		t.Logf("round %d, %d silent connections: %s; %.1f KiB resident each", round+1, n, at, each/1024)
		if each > 32<<10 {
			t.Errorf("a silent connection costs %.1f KiB", each/1024)
		}
		if first == 0 {
			first = at.rss
		} else if at.rss > first*1.25+8<<20 {
			t.Errorf("the second flood takes %.1f MiB, the first took %.1f", at.rss/(1<<20), first/(1<<20))
		}
		r.expelled(conns)
		h.served(fmt.Sprintf("a flood of %d silent connections", n))
		r.recovers(before)
	}
}

// TestBreakFloodDribble sends ClientHellos and HTTP heads a byte at a time:
// every connection is ended in time, each is on record once.
func TestBreakFloodDribble(t *testing.T) {
	n := extent(t, "flood", 1000, 10000)
	beat := 50 * time.Millisecond
	if n > 1000 {
		beat = time.Second
	}
	w := newWorld(t)
	w.origin("honest.test", nil)
	r := w.serve(honestRules, setting("timeouts.hello", "4s"), func(c *rigConfig) { c.plain = true })
	before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
	hello := helloFor(t, "honest.test")
	head := []byte("GET http://honest.test/ HTTP/1.1\r\nHost: honest.test\r\nX-Slow: " + strings.Repeat("a", 4096))
	tunnel := []byte("CONNECT honest.test:443 HTTP/1.1\r\nX-Slow: " + strings.Repeat("a", 4096))
	texts := [][]byte{hello, head, hello, tunnel}
	h := r.honest("127.0.0.1")
	// The first byte comes at once: silence is another test's.
	conns := r.crowd(n, "127.0.0.2", func(i int, c *net.TCPConn) error {
		_, err := c.Write(texts[i%len(texts)][:1])
		return err
	})
	at := r.vitals()
	t.Logf("%d connections that dribble: %s; %.1f KiB resident each", n, at, (at.rss-before.rss)/float64(n)/1024)
	drip(conns, func(i int) []byte { return texts[i%len(texts)][1:] }, beat)
	r.expelled(conns)
	h.served(fmt.Sprintf("%d dribbling connections", n))
	r.recovers(before)
	denied := make(map[string]int)
	r.await(fmt.Sprintf("records of all %d dribbled attempts", n), func() bool {
		clear(denied)
		for _, l := range r.flows {
			if l.Client.Address == "127.0.0.2" {
				denied[l.Event.Name+" "+l.Sallyport.Outcome]++
			}
		}
		sum := 0
		for _, k := range denied {
			sum += k
		}
		return sum >= n
	})
	t.Logf("on record: %v", denied)
	if denied["flow.deny malformed_hello"] != n/2 || denied["flow.deny no_name"] != n/2 {
		t.Errorf("on record: %v, want half of %d malformed_hello and half no_name", denied, n)
	}
}

// TestBreakFloodSlowReaders asks for much and reads a byte now and then: what
// is on its way waits in the kernel, bounded, and nobody else notices.
func TestBreakFloodSlowReaders(t *testing.T) {
	n := extent(t, "flood", 1000, 10000) / 10
	const size = 64 << 20
	w := newWorld(t)
	w.origin("honest.test", nil)
	slow := w.origin("slow.test", nil)
	r := w.serve(honestRules+`
  - {name: slow-web, hosts: [slow.test], protocol: http, resolves_to: [127.0.0.0/8]}
  - {name: slow-tcp, hosts: [slow-tcp.test], ports: [80], protocol: tcp, resolves_to: [127.0.0.0/8]}
`, setting("resolver.hosts", append(slices.Clone(w.hosts), map[string]any{"name": "slow-tcp.test", "addresses": []string{slow.addr}})),
		func(c *rigConfig) { c.plain = true })
	before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
	h := r.honest("127.0.0.1")
	conns := r.crowd(n, "127.0.0.2", func(i int, c *net.TCPConn) error {
		if err := c.SetReadBuffer(4096); err != nil {
			return err
		}
		get := fmt.Sprintf("GET http://slow.test/bytes?n=%d HTTP/1.1\r\nHost: slow.test\r\n\r\n", size)
		if i%2 == 1 {
			if _, err := io.WriteString(c, "CONNECT slow-tcp.test:80 HTTP/1.1\r\n\r\n"); err != nil {
				return err
			}
			if err := readUntil(c, "\r\n\r\n"); err != nil {
				return err
			}
		}
		_, err := io.WriteString(c, get)
		return err
	})
	r.until("all transfers", func(v vitals) bool { return v.flows >= float64(n) })
	// Until here the origin, too, has been at work, on the same machine.
	h.served(fmt.Sprintf("the coming of %d slow readers", n))
	h = r.honest("127.0.0.1")
	for range 40 {
		for i, c := range conns {
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatalf("slow reader %d: %v", i, err)
			}
		}
		pause(50 * time.Millisecond)
	}
	at := r.vitals()
	each := (at.rss - before.rss) / float64(n)
	t.Logf("%d slow readers of %d MiB each: %s; %.1f KiB resident each", n, size>>20, at, each/1024)
	if each > 256<<10 {
		t.Errorf("a slow reader costs %.1f KiB", each/1024)
	}
	h.served(fmt.Sprintf("%d slow readers", n))
	for _, c := range conns {
		_ = c.SetLinger(0)
		c.Close()
	}
	r.recovers(before)
}

// readUntil reads byte by byte, so that nothing behind the end is taken.
func readUntil(c net.Conn, end string) error {
	var got []byte
	for !bytes.HasSuffix(got, []byte(end)) {
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return fmt.Errorf("after %q: %w", got, err)
		}
		got = append(got, b[0])
	}
	return nil
}

// TestBreakFloodDescriptors leaves the proxy few descriptors and takes them
// all. What is under way goes on; who has set a limit for each source keeps
// everybody else served.
func TestBreakFloodDescriptors(t *testing.T) {
	const descriptors = 200
	prlimit := need(t, "prlimit")
	few := func(c *rigConfig) {
		c.plain = true
		c.under = []string{prlimit, fmt.Sprintf("--nofile=%d:%d", descriptors, descriptors)}
	}
	t.Run("exhausted", func(t *testing.T) {
		w := newWorld(t)
		w.origin("honest.test", nil)
		in := newIntegrity(t, w)
		r := w.serve(honestRules+in.rules(), few, setting("timeouts.hello", "1s"))
		in.rig = r
		r.expectFaults() // accept failed: too many open files
		before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
		// Under way before the flood: it begins in earnest during it.
		begin := make(chan struct{})
		var transfer sync.WaitGroup
		ready := make(chan struct{})
		transfer.Go(func() {
			tr := plainCargo(in, 32<<20, 32<<20)
			tr.opened = func() { close(ready); <-begin }
			if err := in.connectTCP(tr); err != nil {
				t.Errorf("a tunnel under way when descriptors ran out: %v", err)
			}
		})
		select {
		case <-ready:
		case <-time.After(patience):
			t.Fatal("no tunnel before the flood")
		}
		h := r.honest("127.0.0.1")
		conns := r.crowd(3*descriptors, "127.0.0.2", nil)
		r.awaitLog("accept failed")
		close(begin)
		transfer.Wait()
		r.expelled(conns) // all were accepted in the end
		for deadline := time.Now().Add(patience); ; {
			began := time.Now()
			err := h.ask(true)
			if err == nil {
				t.Logf("once the flood is over an honest request takes %s", time.Since(began).Round(10*time.Microsecond))
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the flood is over, and an honest request: %v", err)
			}
		}
		// Without a limit, honest clients wait in line with the others, or find
		// no descriptor left to reach their origin with: they are told so.
		for _, err := range h.stop("descriptors exhausted, no limit set") {
			if !strings.Contains(err.Error(), "proxy_internal_error") && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("an honest request: %v", err)
			}
		}
		r.recovers(before)
	})
	t.Run("limited", func(t *testing.T) {
		w := newWorld(t)
		w.origin("honest.test", nil)
		r := w.serve(honestRules, few, setting("timeouts.hello", "1s"), setting("limits.per_source", 40))
		before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
		h := r.honest("127.0.0.1")
		for range 3 {
			r.expelled(r.crowd(3*descriptors, "127.0.0.2", nil))
		}
		h.served("three floods of one source, each three times the descriptors there are, with limits.per_source")
		r.recovers(before)
	})
}
