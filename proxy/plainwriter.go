package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// plainWriter is the ResponseWriter of a plainConn: it frames as net/http does
// (RFC 9112, section 6), for a request in HTTP/1.1.
type plainWriter struct {
	tcp     *net.TCPConn
	header  http.Header
	quiet   *atomic.Bool // no connection goes on any more
	buffers *httpBuffers
	held    *bytes.Buffer // nil between two answers
	head    bool          // the request is HEAD
	last    bool          // the connection ends with this answer
	begun   bool          // the final response's head is written
	bare    bool          // it has no body
	chunked bool
	ended   bool
	trailer []string // names announced
	err     error    // the first of writing
}

// begin makes the writer ready for the answer to r.
func (w *plainWriter) begin(r *http.Request) {
	clear(w.header)
	w.head, w.last = r.Method == http.MethodHead, r.Close || w.quiet.Load()
	w.begun, w.bare, w.chunked, w.ended, w.trailer, w.err = false, false, false, false, nil, nil
	w.held = w.buffers.head()
}

// drop gives the buffer back.
func (w *plainWriter) drop() {
	if w.held != nil {
		w.buffers.giveHead(w.held)
		w.held = nil
	}
}

// Header returns the fields that WriteHeader sends, and those that are to
// follow the body.
func (w *plainWriter) Header() http.Header { return w.header }

// WriteHeader words the head of the final response, or sends an interim one.
func (w *plainWriter) WriteHeader(code int) {
	if w.begun {
		return
	}
	h := w.header
	if code < http.StatusOK && code != http.StatusSwitchingProtocols {
		w.statusLine(code)
		delete(h, "Content-Length")
		delete(h, "Transfer-Encoding")
		writeFields(w.held, h)
		w.held.WriteString("\r\n")
		_ = w.FlushError() // the next write fails, too
		return
	}
	w.begun = true
	w.frame(code)
	w.statusLine(code)
	writeFields(w.held, h)
	if _, ok := h["Date"]; !ok {
		w.held.WriteString("Date: ")
		w.held.Write(time.Now().UTC().AppendFormat(w.held.AvailableBuffer(), http.TimeFormat))
		w.held.WriteString("\r\n")
	}
	if w.chunked {
		w.held.WriteString("Transfer-Encoding: chunked\r\n")
	}
	if w.last {
		w.held.WriteString("Connection: close\r\n")
	}
	w.held.WriteString("\r\n")
}

// frame decides how the body's end is told.
func (w *plainWriter) frame(code int) {
	h := w.header
	if h.Get("Connection") == "close" {
		w.last = true
	}
	delete(h, "Connection")
	delete(h, "Transfer-Encoding")
	for _, names := range h["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			w.trailer = append(w.trailer, http.CanonicalHeaderKey(textproto.TrimString(name)))
		}
	}
	switch code {
	case http.StatusNoContent:
		delete(h, "Content-Length")
		w.bare = true
	case http.StatusNotModified:
		delete(h, "Content-Length")
		delete(h, "Content-Type")
		w.bare = true
	}
	w.bare = w.bare || w.head
	w.chunked = !w.bare && len(h["Content-Length"]) == 0
}

func (w *plainWriter) statusLine(code int) {
	w.held.WriteString("HTTP/1.1 ")
	w.held.Write(strconv.AppendInt(w.held.AvailableBuffer(), int64(code), 10))
	if text := http.StatusText(code); text != "" {
		w.held.WriteByte(' ')
		w.held.WriteString(text)
		w.held.WriteString("\r\n")
		return
	}
	fmt.Fprintf(w.held, " status code %d\r\n", code)
}

// Write takes a piece of the body. It is sent with the next flush, or at once
// when it is large.
func (w *plainWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.bare || len(p) == 0:
		return len(p), nil
	}
	if w.chunked {
		w.held.Write(strconv.AppendInt(w.held.AvailableBuffer(), int64(len(p)), 16))
		w.held.WriteString("\r\n")
	}
	if w.held.Len()+len(p) <= answerSize {
		w.held.Write(p)
		if w.chunked {
			w.held.WriteString("\r\n")
		}
		return len(p), nil
	}
	pieces := net.Buffers{w.held.Bytes(), p}
	if w.chunked {
		pieces = append(pieces, []byte("\r\n"))
	}
	_, w.err = pieces.WriteTo(w.tcp)
	w.held.Reset()
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// FlushError sends what is held back (see [http.ResponseController]).
func (w *plainWriter) FlushError() error {
	if w.err == nil && w.held.Len() > 0 {
		_, w.err = w.tcp.Write(w.held.Bytes())
		w.held.Reset()
	}
	return w.err
}

// end completes the answer and sends it.
func (w *plainWriter) end() error {
	w.ended = true
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.chunked {
		w.held.WriteString("0\r\n")
		w.trailers()
		w.held.WriteString("\r\n")
	}
	err := w.FlushError()
	w.drop()
	return err
}

// trailers writes the fields that follow the body: those that were announced,
// and those that were not but are marked so.
func (w *plainWriter) trailers() {
	fields := make(http.Header, len(w.trailer))
	for _, name := range w.trailer {
		if v := w.header[name]; len(v) > 0 {
			fields[name] = v
		}
	}
	for name, v := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			fields[name] = v
		}
	}
	writeFields(w.held, fields)
}
