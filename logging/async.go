package logging

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
)

// DefaultAsyncSize is how many bytes an [AsyncWriter] holds by default.
const DefaultAsyncSize = 1 << 20

// AsyncWriter takes lines without ever waiting for the writer behind it. What
// does not fit its buffer is dropped and counted. It is safe for concurrent
// use; make it with [Async], then Run it.
type AsyncWriter struct {
	w     io.Writer
	limit int
	wake  chan struct{} // holds a token while pending may be non-empty
	log   atomic.Pointer[zerolog.Logger]

	dropped atomic.Uint64

	mu      sync.Mutex // protects what follows
	pending []byte     // whole lines
	extra   int        // room beside limit
	state   asyncState
}

type asyncState uint8

const (
	asyncHolds   asyncState = iota // lines wait for Run
	asyncDirect                    // Run has ended: lines are written at once
	asyncDiscard                   // Run gave the writer up: lines are dropped
)

// Async returns a writer that holds at most size bytes of whole lines for w
// ([DefaultAsyncSize] if size is not positive). Nothing reaches w before Run.
func Async(w io.Writer, size int) *AsyncWriter {
	if size <= 0 {
		size = DefaultAsyncSize
	}
	return &AsyncWriter{w: w, limit: size, wake: make(chan struct{}, 1)}
}

// Write takes p, one or more whole lines, and reports success whatever becomes
// of them. It keeps no reference to p.
func (a *AsyncWriter) Write(p []byte) (int, error) {
	a.mu.Lock()
	switch {
	case a.state == asyncDirect:
		a.mu.Unlock()
		return a.w.Write(p)
	case a.state == asyncDiscard, len(a.pending)+len(p) > a.limit+a.extra:
		a.dropped.Add(1)
	default:
		a.pending = append(a.pending, p...)
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// Dropped returns how many lines were lost since the start, for want of room
// or to failed writes.
func (a *AsyncWriter) Dropped() uint64 { return a.dropped.Load() }

// Run writes the lines until ctx ends and nothing is held any more. After that
// Write writes straight through, so that a daemon's last words are not lost.
// If w is still stalled [flow.DefaultDrain] after ctx ended, Run returns
// [flow.ErrStalled], and later lines are dropped. Call it once.
func (a *AsyncWriter) Run(ctx context.Context) error {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		a.pump(ctx)
	}()
	<-ctx.Done()
	timer := time.NewTimer(flow.DefaultDrain)
	defer timer.Stop()
	select {
	case <-finished:
		return nil
	case <-timer.C:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == asyncDirect { // it finished while the timer fired
		return nil
	}
	a.state = asyncDiscard
	return flow.ErrStalled
}

// pump writes what is held, in batches, until ctx has ended and nothing is.
func (a *AsyncWriter) pump(ctx context.Context) {
	var batch []byte
	var told uint64
	for {
		batch = a.swap(batch[:0])
		if len(batch) > 0 {
			if _, err := a.w.Write(batch); err != nil {
				// Nowhere to tell it but the counter: this is the last channel.
				a.dropped.Add(uint64(bytes.Count(batch, []byte("\n"))))
			} else if n := a.dropped.Load(); n > told {
				a.tell(n - told)
				told = n
			}
			continue
		}
		select {
		case <-a.wake:
			continue
		default:
		}
		select {
		case <-a.wake:
		case <-ctx.Done():
			if a.finish() {
				return
			}
		}
	}
}

// swap takes the held lines and leaves spare in their place.
func (a *AsyncWriter) swap(spare []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.pending
	a.pending = spare
	return held
}

// finish ends the holding of lines, unless some arrived meanwhile.
func (a *AsyncWriter) finish() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == asyncHolds && len(a.pending) > 0 {
		return false
	}
	if a.state == asyncHolds {
		a.state = asyncDirect
	}
	return true
}

// tellRoom is kept for the line that tells of dropped ones.
const tellRoom = 4096

func (a *AsyncWriter) leave(extra int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.extra = extra
}

// tell says, in the log that it carries, how many lines are missing there.
func (a *AsyncWriter) tell(n uint64) {
	if log := a.log.Load(); log != nil {
		a.leave(tellRoom) // or this line would be the next to be dropped
		defer a.leave(0)
		log.Warn().Uint64(FieldDropped, n).Msg("lines of this log were dropped: its reader was too slow")
	}
}
