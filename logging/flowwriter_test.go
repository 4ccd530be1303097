package logging

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

func numbered(kind flow.Kind, i int) flow.Event {
	e := flow.Event{Kind: kind, Record: base()}
	if kind == flow.Denied {
		e.Record = denied()
	}
	e.Record.ID = fmt.Sprintf("id-%04d", i)
	return e
}

func TestFlowsChoose(t *testing.T) {
	report := flow.Event{Kind: flow.Closed, Record: base()}
	report.Record.WouldDeny, report.Record.Reason = true, policy.ReasonNoRule
	events := []flow.Event{numbered(flow.Opened, 0), numbered(flow.Closed, 0), numbered(flow.Denied, 1), report}
	want := map[Flows][]bool{
		FlowsBoth:  {true, true, true, true},
		FlowsClose: {false, true, true, true},
		FlowsDeny:  {false, false, true, true},
	}
	for flows, wants := range want {
		for i, e := range events {
			if got := flows.wants(&e); got != wants[i] {
				t.Errorf("%v: event %d: %v, want %v", flows, i, got, wants[i])
			}
		}
		if back, err := ParseFlows(flows.String()); err != nil || back != flows {
			t.Errorf("ParseFlows(%q) = %v, %v", flows, back, err)
		}
	}
	if _, err := ParseFlows("none"); err == nil {
		t.Error("an unknown word is accepted")
	}
}

func TestFlowWriterWritesWholeLines(t *testing.T) {
	out := &gated{}
	w := NewFlowWriter(out, zerolog.Nop(), FlowOptions{Full: flow.Block, Size: 64})
	stop := run(t, w)
	const writers, each = 4, 250
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				w.Observe(numbered(flow.Closed, g*each+i))
			}
		})
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, write := range out.writes {
		if !strings.HasSuffix(write, "\n") {
			t.Fatalf("a write ends within a line: %q", write)
		}
	}
	got := out.all()
	for i := range writers * each {
		if strings.Count(got, fmt.Sprintf("%q", fmt.Sprintf("id-%04d", i))) != 1 {
			t.Fatalf("line %d is not there once", i)
		}
	}
	if strings.Count(got, "\n") != writers*each || w.Dropped() != 0 {
		t.Errorf("%d lines, %d dropped", strings.Count(got, "\n"), w.Dropped())
	}
}

func TestFlowWriterBatchesUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{gate: make(chan struct{})}
		w := NewFlowWriter(out, zerolog.Nop(), FlowOptions{Size: 100})
		stop := run(t, w)
		w.Observe(numbered(flow.Closed, 0))
		synctest.Wait() // alone, it is written at once
		for i := range 50 {
			w.Observe(numbered(flow.Closed, 1+i))
		}
		close(out.gate)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := len(out.writes); n < 2 || n > 5 || strings.Count(out.writes[0], "\n") != 1 {
			t.Errorf("51 lines took %d writes, the first %d lines", n, strings.Count(out.writes[0], "\n"))
		}
		for _, write := range out.writes {
			if len(write) > batchSize+maxFlowLine {
				t.Errorf("a write of %d bytes", len(write))
			}
		}
	})
}

func TestFlowWriterTellsOfStallsAndDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{gate: make(chan struct{})}
		var talk bytes.Buffer
		w := NewFlowWriter(out, newLog(t, &talk, Options{}), FlowOptions{Size: 2})
		stop := run(t, w)
		w.Observe(numbered(flow.Closed, 0))
		synctest.Wait()
		for i := range 10 {
			w.Observe(numbered(flow.Closed, 1+i)) // returns at once: the data plane goes on
		}
		time.Sleep(2 * reportEvery)
		synctest.Wait()
		if got := talk.String(); strings.Count(got, "has stalled") == 0 || strings.Count(got, `"dropped":8,"total":8`) != 1 {
			t.Errorf("while stalled the daemon's log says\n%s", got)
		}
		close(out.gate)
		time.Sleep(2 * reportEvery)
		synctest.Wait()
		if got := talk.String(); strings.Count(got, "goes on") != 1 || strings.Count(got, `"dropped"`) != 1 {
			t.Errorf("after the stall the daemon's log says\n%s", got)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.all(), "\n"); n+int(w.Dropped()) != 11 {
			t.Errorf("%d lines and %d dropped of 11", n, w.Dropped())
		}
	})
}

func TestFlowWriterThatIsStuckEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{gate: make(chan struct{})}
		var talk bytes.Buffer
		w := NewFlowWriter(out, newLog(t, &talk, Options{}), FlowOptions{Full: flow.Block, Size: 1})
		stop := run(t, w)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() { w.Observe(numbered(flow.Closed, i)) })
		}
		synctest.Wait()
		if err := stop(); !errors.Is(err, flow.ErrStalled) {
			t.Errorf("Run returned %v, want ErrStalled", err)
		}
		wg.Wait() // nobody waits for a queue that was stopped
		// How many went into the write that is stuck depends on the scheduler.
		if n := w.held.Load(); n < 1 || w.Dropped()+uint64(n) != 5 || !strings.Contains(talk.String(), fmt.Sprintf(`"unwritten":%d`, n)) {
			t.Errorf("dropped %d and %d unwritten of 5; the daemon's log says %s", w.Dropped(), n, &talk)
		}
		close(out.gate)
	})
}

// tearing is a writer that fails once, after some bytes of its second write.
type tearing struct {
	bytes.Buffer
	after  int
	writes int
}

func (w *tearing) Write(p []byte) (int, error) {
	if w.writes++; w.writes == 2 {
		n, _ := w.Buffer.Write(p[:min(w.after, len(p))])
		return n, errors.New("no space left on device")
	}
	return w.Buffer.Write(p)
}

func TestATornLineDoesNotSwallowTheNext(t *testing.T) {
	one := numbered(flow.Closed, 0)
	size := len(AppendFlow(nil, &one))
	tests := []struct {
		name        string
		after       int
		lines, lost int
	}{
		{"nothing was written", 0, 2, 1},
		{"half a line", size / 2, 2, 1},
		{"all but the line feed", size - 1, 3, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := &tearing{after: tt.after}
				var talk bytes.Buffer
				w := NewFlowWriter(out, newLog(t, &talk, Options{}), FlowOptions{})
				stop := run(t, w)
				for i := range 3 {
					w.Observe(numbered(flow.Closed, i))
					synctest.Wait()
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				valid := 0
				schema := compileSchema(t)
				for line := range strings.Lines(out.String()) {
					if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}\n") {
						validate(t, schema, []byte(line))
						valid++
					}
				}
				if valid != tt.lines || w.Dropped() != uint64(tt.lost) || w.WriteErrors() != 1 {
					t.Errorf("%d lines, %d lost, %d errors in\n%s", valid, w.Dropped(), w.WriteErrors(), out)
				}
				if !strings.Contains(talk.String(), `"error":"no space left on device"`) {
					t.Errorf("the daemon's log says %q", &talk)
				}
			})
		})
	}
}

// A real pipe that nobody reads: the data plane goes on.
func TestUnreadPipe(t *testing.T) {
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := NewFlowWriter(pipe, zerolog.Nop(), FlowOptions{Size: 10})
	stop := run(t, w)
	const events = 2000 // a pipe holds 64 KiB
	for i := range events {
		w.Observe(numbered(flow.Closed, i))
	}
	if w.Dropped() == 0 {
		t.Error("nothing was dropped: the pipe holds more than the test thinks")
	}
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_ = pipe.Close()
	if n := strings.Count(<-text, "\n"); n+int(w.Dropped()) != events {
		t.Errorf("%d lines and %d dropped of %d", n, w.Dropped(), events)
	}
}

func BenchmarkFlowWriter(b *testing.B) {
	w := NewFlowWriter(io.Discard, zerolog.Nop(), FlowOptions{Full: flow.Block})
	ctx := b.Context()
	go func() { _ = w.Run(ctx) }()
	e := numbered(flow.Closed, 1)
	b.ReportAllocs()
	for b.Loop() {
		w.Observe(e)
	}
}
