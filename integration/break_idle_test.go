package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBreakIdle moves volume beside tunnels at rest, as a user whom the kernel
// gives pipes of two pages once it holds many (pipe(7), pipe-user-pages-soft):
// tunnels at rest may hold none, or the volume would trickle.
func TestBreakIdle(t *testing.T) {
	n := extent(t, "idle", 600, 9000)
	w := newWorld(t)
	w.breakOrigin("rest.test")
	in := newIntegrity(t, w)
	r := w.serve(roadRules("rest", "rest.test")+in.rules(), func(c *rigConfig) {
		c.plain = true
		c.under = unprivileged(t, filepath.Dir(w.dir), built, w.dir)
	})
	in.rig = r
	before := r.until("quiet", func(v vitals) bool { return v.connections == 0 })
	ours := r.pipes(t, nil) // its standard streams

	streams := r.laid(t, n)
	at := r.until("rest", func(v vitals) bool {
		return v.flows >= float64(n) && v.goroutines-before.goroutines <= floodSlack
	})
	t.Logf("%d tunnels at rest: %s; %.1f KiB resident and %.2f descriptors each", n, at,
		(at.rss-before.rss)/float64(n)/1024, (at.descriptors-before.descriptors)/float64(n))
	if held := at.descriptors - before.descriptors; held > float64(2*n+floodSlack) {
		t.Errorf("%d tunnels at rest hold %.0f descriptors", n, held)
	}
	if held := r.pipes(t, ours); len(held) > 0 {
		t.Errorf("tunnels at rest hold %d pipes", len(held))
	}
	beside := r.volume(t, in, ours)
	for i, s := range streams {
		if err := answers(s); err != nil {
			t.Fatalf("tunnel %d after its rest: %v", i, err)
		}
		s.Close()
	}
	r.until("the end of them", func(v vitals) bool { return v.flows == 0 })
	t.Logf("volume beside %d tunnels at rest %.2f GiB/s, alone %.2f GiB/s", n, beside, r.volume(t, in, ours))
	r.recovers(before)
}

// laid opens n tunnels by both roads that tunnels take, and lets each say
// something once.
func (r *rig) laid(t *testing.T, n int) []*stream {
	t.Helper()
	streams := make([]*stream, n)
	turns := make(chan int)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for i := range turns {
				open := openConnect
				if i%2 == 1 {
					open = openTLS
				}
				s, err := open(r.addr, "rest.test", "echo")
				if err == nil {
					err = answers(s)
				}
				if err != nil {
					t.Errorf("tunnel %d: %v", i, err)
				}
				streams[i] = s
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	workers.Wait()
	t.Cleanup(func() {
		for _, s := range streams {
			if s != nil {
				s.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return streams
}

// answers asks an echoing origin for a byte.
func answers(s *stream) error {
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(s, "x"); err != nil {
		return err
	}
	_, err := io.ReadFull(s, make([]byte, 1))
	return err
}

// volume moves bytes both ways through four tunnels, requires that the pipes
// they go through, those beside ours, are as the kernel gives them to whoever
// has few, and returns the GiB a second.
func (r *rig) volume(t *testing.T, in *integrity, ours map[string]int) float64 {
	t.Helper()
	const streams, size = 4, 256 << 20
	least := 0
	began := time.Now()
	var transfers sync.WaitGroup
	for range streams {
		transfers.Go(func() {
			if err := in.connectTCP(plainCargo(in, size, size)); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { transfers.Wait(); close(done) }()
	for moving := true; moving; {
		select {
		case <-done:
			moving = false
		case <-time.After(5 * time.Millisecond):
		}
		for _, size := range r.pipes(t, ours) {
			if least == 0 || size < least {
				least = size
			}
		}
	}
	took := time.Since(began)
	if least == 0 {
		t.Error("no pipe was seen: the volume was not spliced")
	} else if least < 64<<10 {
		t.Errorf("a pipe of %d bytes carries the volume", least)
	}
	return 2 * streams * size / took.Seconds() / (1 << 30)
}

// pipes returns the sizes of the pipes that the product holds, by the kernel's
// name for each, but for those in without.
func (r *rig) pipes(t *testing.T, without map[string]int) map[string]int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", r.cmd.Process.Pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]int)
	for _, e := range all {
		name, err := os.Readlink(dir + e.Name())
		if err != nil || !strings.HasPrefix(name, "pipe:") {
			continue // it may be closed by now
		}
		if _, known := without[name]; known {
			continue
		}
		f, err := os.OpenFile(dir+e.Name(), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // likewise
		}
		if size, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0); err == nil {
			out[name] = size
		}
		f.Close()
	}
	return out
}
