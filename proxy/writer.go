package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
)

// exchangeWriter is the ResponseWriter that goproxy writes an exchange's
// response to. It passes every piece on at once, since a client may be
// waiting for it (server-sent events, watches, long polls); of a plain
// request, when the next piece would have to be waited for.
type exchangeWriter struct {
	http.ResponseWriter
	ex       *exchange
	interims bool // the client understands interim responses (HTTP/1.1)
	expects  bool // the client waits for 100 (Continue) before it sends its body

	mu      sync.Mutex // guards the rest, and the writer until it is settled
	asked   bool       // the client was sent 100 (Continue)
	settled bool       // the final response, or none, has come
	hints   int        // interim responses so far
}

// maxInterim bounds the interim responses to one request. With someone to
// relay them to, the transport itself takes any number.
const maxInterim = 100

// WriteHeader sends the response's head: at once where the body's length is
// unknown, as its first piece may be long in coming. An answer that comes
// before the request's body has ended is the connection's last: net/http
// panics on going on behind a body that it had to read away by itself
// (golang.org/issue/68560). So is one to a client that was to be told 100
// first: botocore takes the connection for spent, and sends nothing more on it.
func (w *exchangeWriter) WriteHeader(code int) {
	unread := w.ex.body != nil && !w.ex.body.ended.Load()
	if unread || w.expects && !w.asked {
		w.Header().Set("Connection", "close")
		w.ex.http.sending.Store(unread)
	}
	w.ResponseWriter.WriteHeader(code)
	if w.ex.plain == nil && w.ex.failed == nil && code != http.StatusSwitchingProtocols && w.Header().Get("Content-Length") == "" {
		w.Flush()
	}
}

// Write sends a piece of the body.
func (w *exchangeWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.ex.lose(err)
		return n, err //nolint:wrapcheck // a writer's errors are its own
	}
	if w.ex.plain == nil {
		w.Flush()
	}
	return n, nil
}

// ReadFrom sends a body piece by piece, as it comes.
func (w *exchangeWriter) ReadFrom(r io.Reader) (sent int64, err error) {
	buf := w.ex.front.buffers.body()
	defer w.ex.front.buffers.giveBody(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return sent, err
			}
			sent += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return sent, nil
		case err != nil:
			return sent, err //nolint:wrapcheck // a reader's errors are its own
		}
	}
}

// passOn sends what a plainWriter holds back, before the origin is waited for.
func (w *exchangeWriter) passOn() error {
	err := w.ex.plain.writer.FlushError()
	if err != nil {
		w.ex.lose(err)
	}
	return err
}

// stop sends what there is of an answer that is not to be completed.
func (w *exchangeWriter) stop() {
	if w.ex.plain != nil {
		_ = w.passOn()
	}
}

// end completes a plain request's answer. net/http does so by itself.
func (w *exchangeWriter) end() {
	if w.ex.plain == nil || w.ex.lost != nil {
		return
	}
	if err := w.ex.plain.writer.end(); err != nil {
		w.ex.lose(err)
	}
}

// Flush sends what net/http has buffered.
func (w *exchangeWriter) Flush() {
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		w.ex.lose(err)
	}
}

// errCarried tells goproxy that there is nothing left to do on an upgraded
// connection.
var errCarried = errors.New("the upgraded connection has been carried to its end")

// Hijack takes the connection over for an upgrade and carries it to its end.
// It returns an error always: goproxy would relay by itself otherwise, end
// when one direction ends, and lose what the other still had to say.
func (w *exchangeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	_, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		w.ex.lose(err)
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	w.ex.hijacked = true
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, fmt.Errorf("take over the buffered bytes: %w", err)
	}
	w.ex.carryUpgrade(early)
	return nil, nil, errCarried
}

// interim relays a 1xx response (RFC 9110, section 15.2) with its fields. 100
// is not relayed: it makes the transport read the body, and that sends one.
// Where there is no body to read, it is: some clients wait for it all the same.
func (w *exchangeWriter) interim(code int, fields http.Header) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hints++; w.hints > maxInterim {
		return fmt.Errorf("the origin sends more than %d interim responses", maxInterim)
	}
	if err := checkFields(fields); err != nil {
		return err
	}
	if code == http.StatusContinue {
		if w.ex.body == nil {
			w.ask()
		}
		return nil
	}
	if w.settled || !w.interims {
		return nil
	}
	h := w.Header()
	stripHopByHop(fields, false)
	stripForged(fields)
	maps.Copy(h, fields)
	w.ResponseWriter.WriteHeader(code)
	clear(h)
	return nil
}

// proceed asks the client for its body, if it waits to be asked. net/http
// would do so by itself, but without regard for an interim response that is
// being written.
func (w *exchangeWriter) proceed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ask()
}

// ask sends 100 (Continue) to a client that waits for it.
func (w *exchangeWriter) ask() {
	if w.expects && !w.asked && !w.settled {
		w.asked = true
		w.ResponseWriter.WriteHeader(http.StatusContinue)
	}
}

// settle ends the time of interim responses. They come in on the transport's
// goroutines, and the writer belongs to the handler's from here on.
func (w *exchangeWriter) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = true
}
