package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/logging/flow"
)

// gated is a writer that waits for its gate, then remembers each write.
type gated struct {
	gate   chan struct{}
	mu     sync.Mutex
	writes []string
	fail   error
}

func (g *gated) Write(p []byte) (int, error) {
	if g.gate != nil {
		<-g.gate
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail != nil {
		return 0, g.fail
	}
	g.writes = append(g.writes, string(p))
	return len(p), nil
}

func (g *gated) all() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.writes, "")
}

type runner interface{ Run(context.Context) error }

// run starts r and returns the function that stops it and waits.
func run(t *testing.T, r runner) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func TestAsyncWritesEverythingInOrder(t *testing.T) {
	out := &gated{}
	a := Async(out, 0)
	fmt.Fprintln(a, "before Run")
	if len(out.writes) != 0 {
		t.Error("something was written before Run")
	}
	stop := run(t, a)
	var want strings.Builder
	fmt.Fprintln(&want, "before Run")
	for i := range 1000 {
		fmt.Fprintln(io.MultiWriter(a, &want), "line", i)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(io.MultiWriter(a, &want), "last words")
	if got := out.all(); got != want.String() {
		t.Errorf("got %d bytes, want %d", len(got), want.Len())
	}
	for _, w := range out.writes {
		if !strings.HasSuffix(w, "\n") {
			t.Errorf("a write ends within a line: %q", w)
		}
	}
	if a.Dropped() != 0 {
		t.Errorf("dropped %d", a.Dropped())
	}
}

func TestAsyncDropsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{gate: make(chan struct{})}
		a := Async(out, 300)
		log := newLog(t, a, Options{})
		stop := run(t, a)
		log.Info().Msg("first")
		synctest.Wait() // it is inside the write
		for i := range 50 {
			log.Info().Int("i", i).Msg("flood")
		}
		lost := a.Dropped()
		close(out.gate)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.all(), "\n"), "\n")
		m := fields(t, lines[len(lines)-1]+"\n")
		if lost == 0 || m[FieldDropped] != float64(lost) || len(lines) != 51-int(lost)+1 {
			t.Errorf("dropped %d, %d lines, the last is %v", lost, len(lines), m)
		}
	})
}

func TestAsyncGivesAStalledWriterUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{gate: make(chan struct{})}
		a := Async(out, 0)
		stop := run(t, a)
		fmt.Fprintln(a, "stuck")
		synctest.Wait()
		fmt.Fprintln(a, "held")
		if err := stop(); !errors.Is(err, flow.ErrStalled) {
			t.Errorf("Run returned %v, want ErrStalled", err)
		}
		fmt.Fprintln(a, "late") // must not block
		if a.Dropped() == 0 {
			t.Error("the late line was not counted")
		}
		close(out.gate)
		synctest.Wait()
	})
}

func TestAsyncCountsFailedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{fail: errors.New("no space")}
		a := Async(out, 0)
		log := newLog(t, a, Options{})
		stop := run(t, a)
		for range 3 {
			log.Info().Msg("lost")
			synctest.Wait() // a writer that told its own failures would never come to rest
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if a.Dropped() != 3 {
			t.Errorf("dropped %d, want 3", a.Dropped())
		}
	})
}

// Whatever the interleaving with the stop, every line is written or counted.
func TestAsyncLosesNothingUncounted(t *testing.T) {
	for range 200 {
		out := &gated{}
		a := Async(out, 200)
		stop := run(t, a)
		const writers, each = 4, 10
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					fmt.Fprintln(a, "0123456789")
				}
			})
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		got := bytes.Count([]byte(out.all()), []byte("0123456789\n"))
		if got+int(a.Dropped()) != writers*each {
			t.Fatalf("wrote %d, dropped %d, want %d together", got, a.Dropped(), writers*each)
		}
	}
}
