package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// watchAfter is how long an exchange lasts before somebody watches whether its
// client is still there. Most end sooner, and who left is found out when the
// answer is written.
const watchAfter = 20 * time.Millisecond

// watch notices, during an exchange of a plainConn, that the client leaves,
// and then ends what the exchange waits for. It reads from the client, as
// net/http does in its server, and like there a client that has sent its next
// request already is watched no further.
//
// begin and end are the exchange's; early, gone and touched are its, too, once
// end has returned.
type watch struct {
	tcp     *net.TCPConn
	timer   *time.Timer
	done    chan struct{} // run has returned
	early   []byte        // what the client sent meanwhile
	gone    bool          // the client has left
	touched bool          // the connection's read deadline is another now

	mu      sync.Mutex // guards the rest, and gone
	flight  *flight
	ended   bool
	abandon context.CancelFunc // ends a dial; nil when there is none
}

// begin watches over f, some time from now.
func (w *watch) begin(f *flight) {
	w.mu.Lock()
	w.flight, w.ended, w.gone, w.abandon = f, false, false, nil
	w.mu.Unlock()
	if w.timer == nil {
		w.done = make(chan struct{}, 1)
		w.timer = time.AfterFunc(watchAfter, w.run)
		return
	}
	w.timer.Reset(watchAfter)
}

// end ends the watch, and returns when nobody reads from the client any more.
func (w *watch) end() {
	if w.timer.Stop() {
		return
	}
	w.mu.Lock()
	w.ended, w.touched = true, true
	_ = w.tcp.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed already
	w.mu.Unlock()
	<-w.done
}

// during has abandon called if the client leaves before the next call; nil
// stands for nothing. It reports whether the client was there until now.
func (w *watch) during(abandon context.CancelFunc) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.abandon = abandon
	return !w.gone
}

// left reports whether the client has left.
func (w *watch) left() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

// run is the watch, on a goroutine of its own, for which end waits.
func (w *watch) run() {
	defer func() { w.done <- struct{}{} }()
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	_ = w.tcp.SetReadDeadline(time.Time{}) // if it fails, so will the read
	f := w.flight
	w.mu.Unlock()
	b := make([]byte, sniffSize)
	var err error
	if f.endedBy() == "" { // else the cut may have come before the deadline was taken away
		var n int
		if n, err = w.tcp.Read(b); n > 0 {
			w.early = b[:n]
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.gone = err != nil && !errors.Is(err, os.ErrDeadlineExceeded) // a deadline is a cut's
	interrupt(f.origin.Load())
	if w.abandon != nil {
		w.abandon()
	}
}
