package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// steady is a set of tunnels through which a byte goes to and fro all the
// time.
type steady struct {
	t         *testing.T
	stop      chan struct{}
	done      sync.WaitGroup
	exchanges []atomic.Int64
}

// steady opens n tunnels before whatever is to happen.
func (r *rig) steady(in *integrity, n int) *steady {
	r.t.Helper()
	port := stallOrigin(r.t, in.addr)
	s := &steady{t: r.t, stop: make(chan struct{}), exchanges: make([]atomic.Int64, n)}
	for i := range n {
		c, err := in.connect(fmt.Sprintf("raw.test:%d", port))
		if err != nil {
			r.t.Fatal(err)
		}
		s.done.Go(func() {
			defer c.Close()
			for {
				select {
				case <-s.stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				var b [1]byte
				err := c.SetDeadline(time.Now().Add(patience))
				if err == nil {
					_, err = c.Write(b[:])
				}
				if err == nil {
					_, err = io.ReadFull(c, b[:])
				}
				if err != nil {
					s.t.Errorf("tunnel %d, open before output stalled: %v", i, err)
					return
				}
				s.exchanges[i].Add(1)
			}
		})
	}
	s.goOn("before", 1)
	return s
}

// goOn requires n more exchanges of every tunnel.
func (s *steady) goOn(when string, n int64) {
	s.t.Helper()
	var from []int64
	for i := range s.exchanges {
		from = append(from, s.exchanges[i].Load())
	}
	deadline := time.Now().Add(patience)
	for i := range s.exchanges {
		for s.exchanges[i].Load() < from[i]+n {
			if s.t.Failed() || time.Now().After(deadline) {
				s.t.Fatalf("tunnel %d stands still %s", i, when)
			}
			pause(10 * time.Millisecond)
		}
	}
}

func (s *steady) end() {
	close(s.stop)
	s.done.Wait()
}

// stallOrigin echoes at a port of addr that stallRules allows.
func stallOrigin(t *testing.T, addr string) int {
	t.Helper()
	ln := listen(t, net.JoinHostPort(addr, "7"))
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
		}
	})
	return 7
}

const stallRules = `
  - {name: echo, hosts: [raw.test], ports: [7], protocol: tcp, resolves_to: [127.0.0.0/8]}
`

// deniedTimes makes n attempts that are denied, each of which must be answered.
func (r *rig) deniedTimes(n int) {
	r.t.Helper()
	for range n {
		if err := r.denyOnce(patience); err != nil {
			r.t.Fatalf("while output is stalled, a denied attempt: %v", err)
		}
	}
}

func (r *rig) denyOnce(within time.Duration) error {
	c, err := dialFrom("127.0.0.1", r.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "CONNECT denied.test:443 HTTP/1.1\r\n\r\n"); err != nil {
		return err
	}
	text, err := io.ReadAll(c)
	if err == nil && !bytes.HasPrefix(text, []byte("HTTP/1.1 403 ")) {
		err = fmt.Errorf("answered %q", text)
	}
	return err
}

func (r *rig) dropped() int {
	r.t.Helper()
	var n int
	text := r.metric(`sallyport_events_dropped_total{sink="flow_log"}`)
	if _, err := fmt.Sscan(text, &n); err != nil {
		r.t.Fatalf("the metrics know of %q dropped lines", text)
	}
	return n
}

const stallTunnels = 20

// TestBreakStallBlocked leaves standard output unread for a while under
// tunnels that are open, in either configuration: they go on.
func TestBreakStallBlocked(t *testing.T) {
	t.Parallel()
	seconds := extent(t, "stall", 2, 60)
	for _, full := range []string{"drop", "block"} {
		t.Run(full, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			in := newIntegrity(t, w)
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			r := w.serve(stallRules+in.rules(), setting("logging.full", full), setting("logging.queue", 64), func(c *rigConfig) { c.stdout = writer })
			in.rig = r
			writer.Close()
			s := r.steady(in, stallTunnels)
			var answered atomic.Int64
			var asking sync.WaitGroup
			stop := make(chan struct{})
			for range 8 {
				asking.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := r.denyOnce(2*time.Duration(seconds)*time.Second + patience); err != nil {
							t.Errorf("a denied attempt: %v", err)
							return
						}
						answered.Add(1)
					}
				})
			}
			// A pipe and a queue hold some hundred lines; 64 KiB are 100 more.
			for began := time.Now(); time.Since(began) < time.Duration(seconds)*time.Second; {
				s.goOn("while nobody reads standard output", 5)
			}
			before := answered.Load()
			g := r.vitals()
			t.Logf("%d s unread, %s: %d attempts answered, %d lines dropped; %s", seconds, full, before, r.dropped(), g)
			if n := r.dropped(); (n > 0) != (full == "drop") {
				t.Errorf("%d lines dropped", n)
			}
			read := make(chan struct{})
			go func() { defer close(read); r.readFlows(reader) }()
			if full == "block" { // those who waited go on
				for deadline := time.Now().Add(patience); answered.Load() < before+20; pause(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("standard output is read again, and nobody is answered")
					}
				}
			}
			close(stop)
			asking.Wait()
			s.end()
			r.signal(syscall.SIGTERM)
			r.wait()
			<-read
			r.reconcile(int(answered.Load()), stallTunnels, full == "block")
		})
	}
}

// reconcile requires that lines and drops add up: a line for each denial, two
// for each tunnel. The metric is gone with the process: what the log told of
// it last counts.
func (r *rig) reconcile(denials, tunnels int, whole bool) {
	r.t.Helper()
	lines, dropped := len(r.lines()), r.toldDropped()
	if lines+dropped != denials+2*tunnels || whole && dropped > 0 {
		r.t.Errorf("%d lines and %d drops for %d denials and %d tunnels", lines, dropped, denials, tunnels)
	}
	if !whole { // an attempt may have lost one of its lines, which is counted
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flows = nil
	}
}

// toldDropped is the total of the last line that tells of drops.
func (r *rig) toldDropped() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	for _, l := range r.log {
		if i := strings.Index(l, `"total":`); i >= 0 && strings.Contains(l, "flow lines were dropped") {
			_, _ = fmt.Sscanf(l[i:], `"total":%d`, &total)
		}
	}
	return total
}

// TestBreakStallEnd stops a proxy whose output nobody reads, and whose
// connections wait for it: it ends all the same, once its drain is over.
func TestBreakStallEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := newIntegrity(t, w)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := w.serve(stallRules+in.rules(), setting("logging.full", "block"), setting("logging.queue", 16), setting("timeouts.drain", "1s"),
		func(c *rigConfig) { c.stdout = writer })
	writer.Close()
	defer reader.Close() // the product can end then, whatever else failed
	var asking sync.WaitGroup
	defer asking.Wait()
	for range 16 {
		asking.Go(func() {
			for r.denyOnce(patience) == nil {
			}
		})
	}
	for last := -1.0; ; pause(300 * time.Millisecond) { // until all wait
		g, err := r.gauges()
		if err != nil {
			t.Fatal(err)
		}
		now := g["sallyport_connections_accepted_total"]
		if now == last && now > 16 {
			break
		}
		last = now
	}
	began := time.Now()
	r.signal(syscall.SIGTERM)
	r.awaitLog("every connection has ended")
	t.Logf("every connection has ended %s after the signal", time.Since(began).Round(time.Millisecond))
	r.readFlows(reader) // what waits can be written now
	if code := r.wait(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	t.Logf("%d lines written, %d counted as lost", len(r.lines()), r.toldDropped())
}

// TestBreakStallFull gives standard output a device that is always full, a
// file system that becomes full and is emptied again, and a reader that goes
// away: traffic goes on, and every line that is not there is counted.
func TestBreakStallFull(t *testing.T) {
	t.Parallel()
	const attempts = 300
	for _, c := range []struct {
		name string
		full func(t *testing.T) outlet
	}{
		{"device", fullDevice},
		{"closed pipe", closedPipe},
		{"file system", fullFileSystem},
	} {
		for _, full := range []string{"drop", "block"} {
			t.Run(c.name+", "+full, func(t *testing.T) {
				t.Parallel()
				o := c.full(t)
				w := newWorld(t)
				in := newIntegrity(t, w)
				r := w.serve(stallRules+in.rules(), setting("logging.full", full), func(c *rigConfig) { c.stdout = o.out })
				in.rig = r
				o.out.Close()
				r.expectFaults() // writing flow lines failed
				s := r.steady(in, stallTunnels)
				r.deniedTimes(attempts / 2)
				o.then(r)
				r.deniedTimes(attempts / 2)
				s.goOn("while output fails", 5)
				for deadline := time.Now().Add(patience); r.dropped() == 0; pause(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("no lost line is counted")
					}
				}
				s.end()
				r.signal(syscall.SIGTERM)
				if code := r.wait(); code != 0 {
					t.Errorf("ended with %d", code)
				}
				r.collect(o.path)
				t.Logf("%d lines written, %d counted as lost", len(r.lines()), r.toldDropped())
				r.reconcile(attempts, stallTunnels, false)
			})
		}
	}
}

// outlet is where flow lines go in TestBreakStallFull. then is called when half
// of the attempts are made; path is a file that holds what was written, "" if
// nothing can be.
type outlet struct {
	out  *os.File
	then func(r *rig)
	path string
}

func fullDevice(t *testing.T) outlet {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return outlet{out: f, then: func(*rig) {}}
}

func closedPipe(t *testing.T) outlet {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	return outlet{out: writer, then: func(*rig) {}}
}

// fullFileSystem is a file on a file system of 512 KiB, of which all but 16 KiB
// are taken until half of the attempts are made.
func fullFileSystem(t *testing.T) outlet {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		if errors.Is(err, syscall.EPERM) {
			missing(t, "the right to mount a file system: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	ballast, path := filepath.Join(dir, "ballast"), filepath.Join(dir, "flows")
	if err := os.WriteFile(ballast, make([]byte, 496<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return outlet{out: f, path: path, then: func(r *rig) {
		r.until("a full file system", func(vitals) bool { return r.dropped() > 0 })
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	}}
}

// collect reads the flow lines of a file. What a full file system has cut is
// no line, and counted as lost; the next one begins on its own.
func (r *rig) collect(path string) {
	r.t.Helper()
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	var whole []string
	cut := 0
	for line := range strings.Lines(string(text)) {
		switch {
		case json.Valid([]byte(line)):
			whole = append(whole, line)
		case line != "\n":
			cut++
		}
	}
	r.t.Logf("%d lines are whole, %d are cut", len(whole), cut)
	r.readFlows(strings.NewReader(strings.Join(whole, "")))
}
