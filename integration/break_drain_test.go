package integration

import (
	"errors"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestBreakDrain stops the proxy with many transfers in their middle, of every
// road and both directions. Three in four go on and must all come to their
// end, byte for byte; the fourth never does, and is cut at the bound. Nobody
// new gets in, each has its record, and the proxy ends with 0.
func TestBreakDrain(t *testing.T) {
	t.Parallel()
	n := extent(t, "drain", 200, 1000)
	bound := "5s"
	if n >= 1000 {
		bound = "20s"
	}
	w := newWorld(t)
	origin := w.breakOrigin("ends.test", "stays.test")
	r := w.serve(roadRules("all", "ends.test", "stays.test"), setting("timeouts.drain", bound))

	goOn, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	var ending, staying sync.WaitGroup
	var made []*transfer
	var failed atomic.Int64
	begun := make(map[string]int)
	for i := range n {
		way, up, stays := roads()[i%len(roads())], i/len(roads())%2 == 1, i%4 == 3
		group, host, until := &ending, "ends.test", goOn
		if stays {
			group, host, until = &staying, "stays.test", never
		}
		x := origin.add(up, until)
		made = append(made, x)
		begun[way.via+" "+host]++
		group.Go(func() {
			var err error
			if stays && x.up {
				err = x.hang(r, way, host)
			} else {
				err = x.carry(r, way, host)
			}
			if err != nil && !stays || stays && !wasCut(err) {
				failed.Add(1)
				t.Errorf("%s, %s to %s: %v", way.name, x.order(), host, err)
			}
		})
	}
	awaitHalves(t, made, &failed)

	start := time.Now()
	r.signal(syscall.SIGTERM)
	r.awaitLog(`"message":"draining"`)
	awaitRefusal(t, r)
	refused := time.Since(start)
	for range 50 {
		if c, err := r.dial(t.Context()); err == nil {
			c.Close()
			t.Error("a draining proxy took a connection")
		}
	}
	close(goOn)
	ending.Wait()
	ended := time.Since(start)
	if r.over() {
		t.Error("the drain was over before its bound, with transfers in flight")
	}
	staying.Wait()
	if code := r.wait(); code != 0 {
		t.Errorf("the drained proxy ended with %d", code)
	}
	t.Logf("%d transfers, a bound of %s: new connections refused after %v, the last that could end had ended after %v, exit after %v",
		n, bound, refused.Round(time.Millisecond), ended.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))

	closed := make(map[string]int)
	for _, l := range r.lines() {
		if l.Event.Name != "flow.close" {
			continue
		}
		s := l.Sallyport
		closed[s.Via+" "+l.Server.Address]++
		stays := l.Server.Address == "stays.test"
		if (s.EndedBy == "drain") != stays || !stays && max(s.BytesReceived, s.BytesSent) < transferSize {
			t.Errorf("the record: %s", l.text)
		}
	}
	if !maps.Equal(closed, begun) {
		t.Errorf("on record are %v, begun were %v", closed, begun)
	}
}

// hang is carry for an upload that never goes on: it returns when somebody
// ends it.
func (x *transfer) hang(r *rig, way road, host string) error {
	s, err := way.open(r.addr, host, x.order())
	if err != nil {
		return err
	}
	defer s.Close()
	cut := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		cut <- errors.Join(errors.New("it was cut"), err)
	}()
	if _, err := io.CopyN(s, x.bytes(), transferSize/2); err != nil {
		return err
	}
	return <-cut
}

// awaitHalves waits until every transfer is in its middle.
func awaitHalves(t *testing.T, all []*transfer, failed *atomic.Int64) {
	t.Helper()
	timeout := time.After(patience)
	for _, x := range all {
		for waiting := true; waiting; {
			select {
			case <-x.half:
				waiting = false
			case <-timeout:
				t.Fatalf("%s does not come to its middle", x.order())
			case <-time.After(100 * time.Millisecond):
				if failed.Load() > 0 {
					t.Fatal("a transfer failed before its middle")
				}
			}
		}
	}
}

// awaitRefusal waits until the proxy takes no connection any more.
func awaitRefusal(t *testing.T, r *rig) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		c, err := r.dial(t.Context())
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			c.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("a draining proxy still takes connections: %v", err)
		}
	}
}
