package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// connectMethod begins the one kind of request that is read here. net/http
// reads all others, and this one too when it is not plain to see.
const connectMethod = "CONNECT "

// readConnect reads a CONNECT request that lies whole in first, and returns it
// with what the client sent right behind it. It returns nil for whatever else
// first may hold. net/http's server would read the same request, on a goroutine
// of its own, with two buffers and a watch over the connection that a tunnel
// needs to be rid of at once.
func (f *front) readConnect(first []byte) (r *http.Request, early []byte) {
	if !bytes.HasPrefix(first, []byte(connectMethod)) {
		return nil, nil
	}
	end := bytes.Index(first, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, nil
	}
	end += len("\r\n\r\n")
	br, ok := f.readers.Get().(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(nil, sniffSize)
	}
	defer f.readers.Put(br)
	br.Reset(bytes.NewReader(first[:end]))
	r, err := http.ReadRequest(br)
	if err != nil || r.ProtoMajor != 1 || len(r.TransferEncoding) > 0 || br.Buffered() > 0 {
		return nil, nil
	}
	return r, first[end:]
}

// tunnelWriter is the ResponseWriter of a request that readConnect has read. It
// answers on the bare connection, once, or gives the connection away.
type tunnelWriter struct {
	c      *conn
	early  []byte
	header http.Header
	status int
	given  bool
}

var errGiven = errors.New("the connection is a tunnel's already")

// Header returns the fields that WriteHeader will send.
func (w *tunnelWriter) Header() http.Header { return w.header }

// WriteHeader keeps the status until the body is there to go with it.
func (w *tunnelWriter) WriteHeader(status int) { w.status = status }

// Write sends the whole answer, and lets it arrive.
func (w *tunnelWriter) Write(body []byte) (int, error) {
	if w.given {
		return 0, errGiven
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	w.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	w.header.Set("Content-Length", strconv.Itoa(len(body)))
	if err := w.header.Write(&b); err != nil {
		return 0, fmt.Errorf("word the answer: %w", err)
	}
	b.WriteString("\r\n")
	b.Write(body)
	farewell(w.c.tcp, b.Bytes())
	return len(body), nil
}

// Hijack gives the connection away (see http.Hijacker).
func (w *tunnelWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.given {
		return nil, nil, errGiven
	}
	w.given = true
	return &earlyConn{Conn: w.c.tcp, early: w.early}, nil, nil
}
