package logging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
)

// Flows says which events become lines.
type Flows uint8

// The choices. FlowsBoth is the zero value.
const (
	FlowsBoth  Flows = iota // an allowed attempt is two lines, a denied one is one
	FlowsClose              // each attempt is one line
	FlowsDeny               // denials alone, with those that report mode let through
)

// ParseFlows reads "both", "close" or "deny".
func ParseFlows(s string) (Flows, error) {
	switch s {
	case "both":
		return FlowsBoth, nil
	case "close":
		return FlowsClose, nil
	case "deny":
		return FlowsDeny, nil
	}
	return FlowsBoth, fmt.Errorf("unknown choice of flow lines %q, want both, close or deny", s)
}

// String returns the word that [ParseFlows] reads.
func (f Flows) String() string {
	switch f {
	case FlowsClose:
		return "close"
	case FlowsDeny:
		return "deny"
	case FlowsBoth:
	}
	return "both"
}

func (f Flows) wants(e *flow.Event) bool {
	switch f {
	case FlowsClose:
		return e.Kind != flow.Opened
	case FlowsDeny:
		return e.Kind == flow.Denied || e.Kind == flow.Found || e.Kind == flow.Closed && e.Record.WouldDeny
	case FlowsBoth:
	}
	return true
}

// FlowOptions configure a [FlowWriter]. The zero value writes every line and
// drops when 4096 wait.
type FlowOptions struct {
	Flows Flows
	Full  flow.Full
	Size  int // events that may wait; 0 is 4096
	// Format is one of [Formats]; what it is not known for is [FormatJSON].
	Format string
}

const (
	defaultFlowSize = 4096
	// batchSize is about how much one write carries when events come faster
	// than writes return.
	batchSize = 32 << 10
	// reportEvery is how often losses and stalls are said at most.
	reportEvery = 5 * time.Second
)

// FlowWriter is the reader of events that writes the flow log: one line an
// event, whole lines a Write, several of them when events are waiting.
//
// When its writer stalls, events wait in a bounded queue, and when that is
// full they are dropped and counted, or connections wait, as [FlowOptions]
// say; either is told on the daemon's log within seconds. Make it with
// [NewFlowWriter], then Run it.
//
// The Go runtime ends a process that writes to a closed standard output unless
// SIGPIPE is caught: a daemon that must outlive its log reader catches it.
type FlowWriter struct {
	out   io.Writer
	log   zerolog.Logger
	flows Flows
	lines func(dst []byte, e *flow.Event) []byte
	queue *flow.Queue

	lost    atomic.Uint64 // lines that could not be written
	errors  atomic.Uint64 // failed writes
	lastErr atomic.Pointer[error]
	writing atomic.Int64 // when the write under way began, Unix ns; 0: none
	held    atomic.Int64 // lines in buf

	// What follows belongs to the goroutine inside the queue's sink.
	buf  []byte
	torn bool // the last write ended within a line
}

// NewFlowWriter returns a writer of flow lines to out, which it alone writes
// to. Losses, errors and stalls are told on log.
func NewFlowWriter(out io.Writer, log zerolog.Logger, o FlowOptions) *FlowWriter {
	if o.Size <= 0 {
		o.Size = defaultFlowSize
	}
	w := &FlowWriter{out: out, log: log, flows: o.Flows, lines: flowLines(o.Format)}
	w.queue = flow.NewQueue(o.Size, o.Full, w.add, nil)
	return w
}

// flowLines returns what appends an event's lines in a format.
func flowLines(format string) func(dst []byte, e *flow.Event) []byte {
	switch format {
	case FormatOCSF:
		return AppendOCSF
	case FormatVPCFlow:
		return AppendVPCFlow
	}
	return AppendFlow
}

// Observe implements [flow.Reader]. It waits only if the queue is full and is
// to block.
func (w *FlowWriter) Observe(e flow.Event) { w.Borrow(&e) }

// Borrow implements [flow.Borrower].
func (w *FlowWriter) Borrow(e *flow.Event) {
	if w.flows.wants(e) {
		w.queue.Borrow(e)
	}
}

// Dropped returns how many lines were lost since the start, to a full queue or
// to failed writes.
func (w *FlowWriter) Dropped() uint64 { return w.queue.Dropped() + w.lost.Load() }

// WriteErrors returns how many writes failed since the start.
func (w *FlowWriter) WriteErrors() uint64 { return w.errors.Load() }

// Hurry ends all waiting for a full queue, see [flow.Queue.Hurry].
func (w *FlowWriter) Hurry() { w.queue.Hurry() }

// Run writes lines until ctx ends and what waits is written, for at most
// [flow.DefaultDrain]; then it returns [flow.ErrStalled] if the writer is
// stuck. End ctx after the last connection was recorded. Call it once.
func (w *FlowWriter) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- w.queue.Run(ctx) }()
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	var told report
	for {
		select {
		case err := <-ended:
			told.tell(w)
			if err != nil {
				w.log.Error().Int64("unwritten", w.held.Load()).
					Msg("the flow log's reader is stuck: its last lines may be missing")
			}
			return err
		case <-ticker.C:
			told.tell(w)
		}
	}
}

// add puts one event into the batch and writes it when nothing else waits.
func (w *FlowWriter) add(e *flow.Event) {
	defer func() {
		if len(w.buf) < batchSize && w.queue.Len() == 0 {
			runtime.Gosched() // connections that are ready may be about to end, and share the write
		}
		if len(w.buf) >= batchSize || w.queue.Len() == 0 {
			w.flush()
		}
	}()
	if w.torn && len(w.buf) == 0 {
		w.buf = append(w.buf, '\n') // what stands there must not swallow the next line
	}
	whole := len(w.buf)
	w.buf = w.lines(w.buf, e)
	w.held.Add(int64(bytes.Count(w.buf[whole:], []byte("\n"))))
}

func (w *FlowWriter) flush() {
	if len(w.buf) == 0 {
		return
	}
	w.writing.Store(time.Now().UnixNano())
	n, err := w.out.Write(w.buf)
	w.writing.Store(0)
	if n < len(w.buf) && err == nil {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.errors.Add(1)
		w.lastErr.Store(&err)
		// A line feed in front is either no line's or that of a line otherwise
		// written, and the next write begins with one.
		rest := bytes.TrimPrefix(w.buf[n:], []byte("\n"))
		w.lost.Add(uint64(bytes.Count(rest, []byte("\n"))))
	}
	if n > 0 {
		w.torn = w.buf[n-1] != '\n'
	}
	w.buf = w.buf[:0]
	w.held.Store(0)
}

// report is what has been told already.
type report struct {
	dropped, errors uint64
	stalled         bool
}

// tell says on the daemon's log what is new since the last call.
func (p *report) tell(w *FlowWriter) {
	if n := w.WriteErrors(); n > p.errors {
		w.log.Error().Err(*w.lastErr.Load()).Uint64("failed", n-p.errors).Uint64(FieldTotal, n).
			Msg("writing flow lines failed")
		p.errors = n
	}
	if n := w.Dropped(); n > p.dropped {
		w.log.Warn().Uint64(FieldDropped, n-p.dropped).Uint64(FieldTotal, n).
			Msg("flow lines were dropped")
		p.dropped = n
	}
	var stuck time.Duration
	if began := w.writing.Load(); began != 0 {
		stuck = time.Since(time.Unix(0, began))
	}
	switch stalled := stuck >= reportEvery; {
	case stalled:
		w.log.Warn().Float64("seconds", stuck.Round(time.Millisecond).Seconds()).
			Int("waiting", w.queue.Len()).Msg("the flow log's reader has stalled")
		p.stalled = true
	case p.stalled:
		w.log.Info().Msg("the flow log's reader goes on")
		p.stalled = false
	}
}
