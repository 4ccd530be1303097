package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"
	"golang.org/x/net/http/httpguts"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Bounds of an HTTP connection (security.md, section 2, rows 21 and 23).
const (
	maxHeaderBytes  = 32 << 10
	httpIdleTimeout = 60 * time.Second
)

// front speaks HTTP with clients. net/http reads the requests; front decides
// about each, before goproxy sees it; goproxy carries what is allowed.
type front struct {
	s       *Server
	server  *http.Server
	carrier *goproxy.ProxyHttpServer
	pool    *pool
	kept    kept
	plain   plainSet
	quiet   atomic.Bool // no connection is kept any more
	buffers httpBuffers
	conns   chan net.Conn
	closed  chan struct{}
	close1  sync.Once
	readers sync.Pool       // of *bufio.Reader, for readConnect
	base    context.Context //nolint:containedctx // set before serve and accept; ends when connections are cut
}

func newFront(s *Server) *front {
	f := &front{s: s, conns: make(chan net.Conn), closed: make(chan struct{})}
	f.pool = newPool(f.dialFor)
	f.carrier = newCarrier()
	f.server = &http.Server{
		Handler:           f,
		ReadHeaderTimeout: s.cfg.Timeouts.Hello,
		IdleTimeout:       min(httpIdleTimeout, s.cfg.Timeouts.Idle),
		MaxHeaderBytes:    maxHeaderBytes,
		// Else net/http answers "OPTIONS *" itself, undecided and unrecorded.
		DisableGeneralOptionsHandler: true,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: f.connState,
		ErrorLog:  log.New(noise{s}, "", 0),
	}
	return f
}

// noise is where net/http complains about clients: the records say it better.
type noise struct{ s *Server }

func (n noise) Write(p []byte) (int, error) {
	n.s.deps.Log.Debug().Str("source", "net/http").Bytes("text", p).Msg("http server")
	return len(p), nil
}

type connKey struct{}

// httpConn is a connection as net/http sees it: the bytes that were read to
// tell HTTP from TLS come first again. pinned is the destination of the
// CONNECT tunnel that the connection is, if it is one.
//
// net/http does not say when it refuses a request head by itself, so httpConn
// tells it from what is read and written while no handler has the connection.
type httpConn struct {
	*net.TCPConn
	c         *conn
	replay    []byte
	scratch   []byte // to read into before the tunnel, nil where there is none
	pinned    *pin
	tls       *tls.Conn  // what the requests come in, where TLS ends here,
	inspected *inspected // and what is known of it
	plain     *plainConn // who serves it, until net/http does
	requests  int
	body      bool        // the request at hand has one
	expects   bool        // its client waits to be asked for it
	sending   atomic.Bool // its client may be at it still, and was answered for good
	mu        sync.Mutex  // guards readBy, and the socket's read deadline with it
	readBy    time.Time   // caps every read deadline that net/http sets; zero does not
	hijacked  bool        // no longer net/http's
	handled   atomic.Bool // a handler has seen the request at hand, and its answer is not complete
	awaiting  atomic.Bool // a request has begun and no handler has seen it yet
	reply     string      // what net/http answered to that by itself
	head      headGauge   // of the head at hand
}

// pin is the one destination of the plain HTTP inside a CONNECT tunnel.
type pin struct {
	host policy.Host
	port uint16
}

// Read returns the replayed bytes, then the socket's.
func (h *httpConn) Read(p []byte) (int, error) {
	if len(h.replay) > 0 {
		n := copy(p, h.replay)
		if h.replay = h.replay[n:]; len(h.replay) == 0 {
			h.replay = nil
		}
		if err := h.head.take(p[:n]); err != nil {
			return 0, err
		}
		return n, nil
	}
	n, err := h.stream().Read(p)
	if n > 0 && !h.handled.Load() {
		h.awaiting.Store(true)
		if err := h.head.take(p[:n]); err != nil {
			return 0, err // no byte with it: bufio forgets an error behind half a line
		}
	}
	return n, err //nolint:wrapcheck // net/http compares it
}

// Write writes to the socket.
func (h *httpConn) Write(p []byte) (int, error) {
	if !h.handled.Load() {
		h.awaiting.Store(true)
		h.reply += string(p[:min(len(p), 255)])
	}
	return h.stream().Write(p) //nolint:wrapcheck // net/http compares it
}

// stream is what requests and answers go by.
func (h *httpConn) stream() net.Conn {
	if h.tls != nil {
		return h.tls
	}
	return h.TCPConn
}

// Close closes the connection, in TLS with a word of farewell.
func (h *httpConn) Close() error {
	if h.sending.CompareAndSwap(true, false) && h.inspected != nil {
		h.linger()
	}
	return h.stream().Close() //nolint:wrapcheck // net/http compares it
}

// CloseWrite ends what is sent, likewise.
func (h *httpConn) CloseWrite() error {
	if h.tls != nil {
		_ = h.tls.CloseWrite() // else the FIN says it alone
	}
	return h.TCPConn.CloseWrite() //nolint:wrapcheck // net/http compares it
}

// SetReadDeadline is net/http's way to bound what it reads. It begins to count
// at a request's first byte, forgets the deadline when it aborts a read, and
// has none for a body that nobody wants: readBy stands in for all of these. It
// is called on the transport's goroutines too, where a body ends.
func (h *httpConn) SetReadDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.readBy.IsZero() && (t.IsZero() || t.After(h.readBy)) {
		t = h.readBy
	}
	return h.TCPConn.SetReadDeadline(t) //nolint:wrapcheck // net/http compares it
}

// begin lets a request take the time it needs, whatever bounded the one before.
func (h *httpConn) begin() {
	h.mu.Lock()
	if !h.readBy.IsZero() {
		h.readBy = time.Time{}
		_ = h.TCPConn.SetReadDeadline(time.Time{}) // if it fails, so will the next read
	}
	h.mu.Unlock()
	if h.requests++; h.requests > 1 {
		_ = h.SetWriteDeadline(time.Time{}) // likewise
	}
}

// hurry bounds how long the rest of a request's body is read away.
func (h *httpConn) hurry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readBy = time.Now().Add(h.c.s.cfg.Timeouts.Hello)
	_ = h.TCPConn.SetReadDeadline(h.readBy) // if it fails, so will the next read
}

// end bounds how long the client may take to read the last of its answer: no
// flight watches over it any more.
func (h *httpConn) end() {
	if !h.hijacked {
		_ = h.SetWriteDeadline(time.Now().Add(h.c.s.cfg.Timeouts.Idle)) // if it fails, so will the write
	}
}

// take hands a connection over to net/http, whose goroutine then owns it. A
// CONNECT that lies whole in first is served here. first is the caller's again
// afterwards.
func (f *front) take(c *conn, first []byte) {
	if r, early := f.readConnect(first); r != nil {
		f.takeConnect(c, r, early, first)
		return
	}
	tcp, err := c.dress()
	if err != nil {
		a := f.s.newAttempt(c, policy.ViaHTTP, c.accepted)
		a.refuse(classify(err))
		c.release()
		return
	}
	h := &httpConn{TCPConn: tcp, c: c, readBy: c.accepted.Add(f.s.cfg.Timeouts.Hello)}
	if r := readPlain(first); r != nil {
		f.servePlain(h, r, first)
		return
	}
	h.replay = bytes.Clone(first)
	f.offer(h)
}

// takeConnect serves a CONNECT on the goroutine that has read it. early is what
// came behind its head; where there is none, scratch may be read into.
func (f *front) takeConnect(c *conn, r *http.Request, early, scratch []byte) {
	w := &tunnelWriter{c: c, early: early, header: make(http.Header)}
	tcp, _ := c.tcp.(*net.TCPConn) // nothing asks for it before the tunnel is one of HTTP, which dresses it
	f.connect(w, r.WithContext(f.base), &httpConn{TCPConn: tcp, c: c, requests: 1, scratch: scratch[:cap(scratch)]}, c.accepted)
	if !w.given {
		c.release()
	}
}

func (f *front) offer(h *httpConn) {
	select {
	case f.conns <- h:
	case <-f.closed:
		h.c.release()
	}
}

// serve runs net/http on the connections that are offered, until close.
func (f *front) serve(ctx context.Context) {
	f.server.BaseContext = func(net.Listener) context.Context { return ctx }
	if err := f.server.Serve(handed{f}); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		f.s.deps.Log.Error().Err(err).Msg("http server ended")
	}
}

// quiesce ends connections that wait for a next request, and lets the others
// finish theirs.
func (f *front) quiesce() {
	f.quiet.Store(true)
	f.plain.quiesce()
	f.server.SetKeepAlivesEnabled(false)
}

// close ends serve and every connection that net/http still holds.
func (f *front) close() {
	f.close1.Do(func() { close(f.closed) })
	_ = f.server.Close() // its only errors are of closing sockets
	f.pool.reset()
	f.kept.reset()
}

// handed is the net.Listener through which front.take feeds net/http.
type handed struct{ f *front }

// Accept returns the next connection that was taken.
func (h handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.f.conns:
		return c, nil
	case <-h.f.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h handed) Close() error {
	h.f.close1.Do(func() { close(h.f.closed) })
	return nil
}

// Addr is nobody's address: net/http asks for one and does not use it.
func (h handed) Addr() net.Addr { return &net.TCPAddr{} }

// connState follows a connection through net/http, to release it at its end
// and to record requests that were too broken to reach the handler.
func (f *front) connState(nc net.Conn, state http.ConnState) {
	h, ok := nc.(*httpConn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		h.awaiting.Store(!h.handled.Load())
	case http.StateIdle:
		h.handled.Store(false)
		h.head = headGauge{}
	case http.StateClosed:
		requests := h.requests
		if h.awaiting.Load() {
			requests++
			f.unread(h)
		}
		if h.inspected != nil {
			h.inspected.end(requests)
		}
		h.c.release()
	case http.StateHijacked:
		h.hijacked = true
	case http.StateNew:
	}
}

// unread records a request that no handler has seen: its head was malformed,
// too large or too slow.
func (f *front) unread(h *httpConn) {
	a := f.s.newAttempt(h.c, policy.ViaHTTP, time.Now())
	reason := policy.ReasonNoName
	if h.inspected != nil {
		h.inspected.place(a)
		reason = policy.ReasonS3Opaque
	}
	err := errors.New("the HTTP request head is incomplete")
	if h.head.full() {
		err = errHeadFields
	}
	if status, text, ok := strings.Cut(h.reply, "\r\n\r\n"); ok {
		if !h.head.full() {
			err = fmt.Errorf("the HTTP request head is not acceptable: %s", text)
		}
		_, _ = fmt.Sscanf(status, "HTTP/1.1 %d", &a.rec.HTTP.Status) // 0 if it is no status line
	}
	a.refuse(&refusal{outcome: flow.Outcome(reason), denied: true, err: err})
}

// ServeHTTP decides about one request and carries it.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, ok := r.Context().Value(connKey{}).(*httpConn)
	if !ok {
		http.Error(w, "sallyport: no connection", http.StatusInternalServerError)
		return
	}
	defer f.rescue()
	h.awaiting.Store(false)
	h.handled.Store(true)
	defer h.end()
	h.begin()
	start := time.Now()
	if h.requests == 1 && h.pinned == nil {
		start = h.c.accepted
	}
	if h.body = r.Body != http.NoBody; h.body {
		// Else net/http holds every answer back until it has read the body,
		// which its sender may be holding back until it has the answer.
		_ = http.NewResponseController(w).EnableFullDuplex() // only HTTP/2 lacks it
	}
	h.expects = httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue")
	if r.Method == http.MethodConnect {
		f.connect(w, r, h, start)
		return
	}
	f.exchange(w, r, h, start)
}

// rescue keeps a panic to its connection, which net/http then cuts.
func (f *front) rescue() {
	if p := recover(); p != nil {
		if p != http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
			f.s.panicked(p)
		}
		panic(http.ErrAbortHandler)
	}
}

// deny records the refusal and answers it. The connection is closed after a
// refused CONNECT, over a limit, and where a body is on its way that nobody
// is going to read, or was to be asked for (see exchangeWriter.WriteHeader);
// otherwise it may ask again.
func (f *front) deny(w http.ResponseWriter, h *httpConn, a *attempt, r *refusal) {
	ans := h.answerFor(a, r)
	a.rec.HTTP.Status = ans.status
	a.refuse(r)
	if h.body {
		h.hurry()
	}
	h.sending.Store(h.body)
	if h.body || h.expects || a.rec.HTTP.Method == http.MethodConnect || h.c.barred() != nil {
		w.Header().Set("Connection", "close")
	}
	ans.writeTo(w)
}
