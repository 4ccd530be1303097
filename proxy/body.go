package proxy

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"sync/atomic"
)

// requestBody is what the transport reads a request's body from. The
// transport may do so for longer than the exchange lasts.
type requestBody struct {
	io.ReadCloser
	writer  *exchangeWriter
	from    *http.Request // whose trailers net/http fills in at the body's end
	trailer http.Header   // the transport's, filled in then, too; nil when there can be none
	s3      bool          // of an inspected request
	begun   bool
	closed  atomic.Bool
	n       atomic.Int64
	ended   atomic.Bool           // it was read to its end
	failed  atomic.Pointer[error] // the client broke it off, or broke its framing
}

// Read reads from the client, who may be waiting to be asked for it.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if !b.begun {
		b.begun = true
		b.writer.proceed()
	}
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	switch {
	case errors.Is(err, io.EOF):
		if b.trailer != nil {
			maps.Copy(b.trailer, b.from.Trailer)
		}
		stripTrailers(b.trailer)
		if b.s3 {
			stripS3Trailers(b.trailer)
		}
		b.ended.Store(true)
	case err != nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.failed.CompareAndSwap(nil, &err)
	}
	return n, err //nolint:wrapcheck // a reader's errors are its own
}

// Close keeps the transport from reading on. It leaves the body's rest to
// net/http, which reads some of it away: here that would hold up an answer
// which has come before the body.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// originBody counts a response's body and remembers how it ended: goproxy
// does not tell a body that broke from one that is complete.
type originBody struct {
	io.ReadCloser
	ex   *exchange
	resp *http.Response
}

// Read reads from the origin.
func (b *originBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ex.received += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		stripTrailers(b.resp.Trailer)
	case err != nil:
		b.ex.broken = err
	}
	return n, err //nolint:wrapcheck // a reader's errors are its own
}
