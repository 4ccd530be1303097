package proxy

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
)

// exchangeWriter is the ResponseWriter that goproxy writes an exchange's
// response to. It passes a body of unknown length on at once, since a client
// may be waiting for each piece (server-sent events, watches, long polls).
type exchangeWriter struct {
	http.ResponseWriter
	ex        *exchange
	streaming bool

	mu      sync.Mutex // guards settled, and the writer until then
	settled bool       // the final response, or none, has come
}

// WriteHeader sends the response's head.
func (w *exchangeWriter) WriteHeader(code int) {
	w.streaming = w.Header().Get("Content-Length") == ""
	w.ResponseWriter.WriteHeader(code)
}

// Write sends a piece of the body.
func (w *exchangeWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err == nil && w.streaming {
		w.Flush()
	}
	return n, err
}

// Flush sends what net/http has buffered.
func (w *exchangeWriter) Flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the next write meets the same error
}

// Hijack takes the connection over for an upgrade. What net/http read ahead
// stays in the reader, which goproxy relays.
func (w *exchangeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	w.ex.hijacked = true
	return nc, rw, nil
}

// interim relays a 1xx response (RFC 9110, section 15.2) with its fields.
func (w *exchangeWriter) interim(code int, fields http.Header) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled {
		return // it came from a connection that lost the race
	}
	h := w.Header()
	stripHopByHop(fields)
	maps.Copy(h, fields)
	w.ResponseWriter.WriteHeader(code)
	clear(h)
}

// settle ends the time of interim responses. They come in on the transport's
// goroutine, and the writer belongs to the handler's from here on.
func (w *exchangeWriter) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = true
}
