package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var errHeadBytes = errors.New("the head of the origin's response is too large")

// originConn is a connection to an origin on which plain requests are sent, one
// after another, each by the goroutine of its exchange.
type originConn struct {
	key    keptKey
	era    uint64 // see kept.now
	tcp    *net.TCPConn
	raw    syscall.RawConn
	br     *bufio.Reader
	head   int64           // how much of a response head may yet come; negative for a body
	writer *exchangeWriter // of the exchange at hand
	since  time.Time       // when it was last put
	reused bool            // it carried an exchange before this one
	heard  bool            // the origin has said something to this one
	body   io.Reader       // of the response
	left   int64           // how much of the body is to come; negative where body knows
	last   bool            // the connection ends with the response
	ended  bool            // the response was read to its end, and the connection goes on
}

func newOriginConn(tcp *net.TCPConn, key keptKey, era uint64) (*originConn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take hold of the connection: %w", err)
	}
	oc := &originConn{key: key, era: era, tcp: tcp, raw: raw}
	oc.br = bufio.NewReader(oc)
	return oc, nil
}

func (oc *originConn) close() { _ = oc.tcp.Close() } // nothing can be done about it

// silent reports whether the origin has neither closed the connection nor said
// anything on it. What it says unasked would be taken for the answer to the
// next request.
func (oc *originConn) silent() bool {
	healthy := false
	err := oc.raw.Control(func(fd uintptr) {
		var b [1]byte
		_, err := unix.Read(int(fd), b[:])
		healthy = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && healthy
}

// Read is what the response is read from. It waits for the origin, so what the
// client has not been sent yet goes out first.
func (oc *originConn) Read(p []byte) (int, error) {
	if err := oc.writer.passOn(); err != nil {
		return 0, err
	}
	if oc.head == 0 {
		return 0, errHeadBytes
	}
	if oc.head > 0 && int64(len(p)) > oc.head {
		p = p[:oc.head]
	}
	n, err := oc.tcp.Read(p)
	if oc.heard = oc.heard || n > 0; oc.head > 0 {
		oc.head -= int64(n)
	}
	return n, err //nolint:wrapcheck // whoever reads compares it
}

// ask sends r and reads the head of its response. Interim responses go to w.
func (oc *originConn) ask(r *http.Request, w *exchangeWriter) (*http.Response, error) {
	oc.writer, oc.heard, oc.ended = w, false, false
	if err := oc.send(r); err != nil {
		return nil, err
	}
	for {
		resp, err := oc.readAnswer(r)
		if err != nil {
			return nil, err
		}
		if code := resp.StatusCode; code >= http.StatusOK || code < http.StatusContinue || code == http.StatusSwitchingProtocols {
			oc.last = resp.Close
			return resp, nil
		}
		if err := w.interim(resp.StatusCode, resp.Header); err != nil {
			return nil, err
		}
	}
}

// readAnswer reads the head of a response. Its body is read from oc, too.
func (oc *originConn) readAnswer(r *http.Request) (*http.Response, error) {
	oc.head = originHeaderBytes
	_, _ = oc.br.Peek(1) // an error comes back below
	ahead, _ := oc.br.Peek(oc.br.Buffered())
	if resp, n := readPlainAnswer(ahead, r); resp != nil {
		_, _ = oc.br.Discard(n) // they are there
		oc.body, oc.left, oc.head = oc.br, resp.ContentLength, -1
		resp.Body = (*plainBody)(oc)
		return resp, nil
	}
	resp, err := http.ReadResponse(oc.br, r)
	if err != nil && oc.head == 0 {
		return nil, errHeadBytes
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it is told apart by type, or says enough
	}
	oc.body, oc.left, oc.head = resp.Body, -1, -1
	resp.Body = (*plainBody)(oc)
	return resp, nil
}

// send writes r with one write: the target as the client wrote it, Host, and the
// other fields. All of it has passed readPlain: nothing there can end a line.
func (oc *originConn) send(r *http.Request) error {
	buffers := &oc.writer.ex.front.buffers
	out := buffers.head()
	defer buffers.giveHead(out)
	out.WriteString(r.Method)
	out.WriteByte(' ')
	out.WriteString(pathOf(oc.writer.ex.target))
	out.WriteString(" HTTP/1.1\r\nHost: ")
	out.WriteString(r.Host)
	out.WriteString("\r\n")
	writeFields(out, r.Header)
	out.WriteString("\r\n")
	_, err := oc.tcp.Write(out.Bytes())
	return err //nolint:wrapcheck // it names what failed, and where
}

// pathOf returns what of a plain request's target is the origin's: path and
// query, byte for byte.
func pathOf(target string) string {
	_, rest, absolute := strings.Cut(target, "://")
	if strings.HasPrefix(target, "/") || !absolute {
		return target
	}
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// plainBody is the body of an originConn's response. To close it ends nothing:
// what becomes of the connection is decided when the exchange has ended, and
// net/http's own body would first read on until the response's end.
type plainBody originConn

// Read reads from the origin.
func (b *plainBody) Read(p []byte) (int, error) {
	if b.left >= 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	var n int
	var err error
	if b.left != 0 {
		n, err = b.body.Read(p)
	}
	if b.left >= 0 {
		b.left -= int64(n)
		switch {
		case b.left == 0:
			err = io.EOF
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
	}
	if errors.Is(err, io.EOF) {
		b.ended = !b.last && b.br.Buffered() == 0
	}
	return n, err //nolint:wrapcheck // a reader's errors are its own
}

// Close does nothing.
func (b *plainBody) Close() error { return nil }

// askPlain has the origin asked on a kept connection, or on a new one. A kept
// one may have been closed as the request went out: then there is another try,
// which for GET and HEAD is safe (RFC 9110, section 9.2.2).
func (ex *exchange) askPlain(r *http.Request) (*http.Response, error) {
	for {
		oc, err := ex.originConn()
		if err != nil {
			return nil, ex.orLeft(err)
		}
		ex.origin, ex.reused = oc, oc.reused
		ex.runsOn(oc.tcp)
		resp, err := oc.ask(r, &ex.writer)
		if err == nil {
			return resp, nil
		}
		oc.close()
		ex.origin = nil
		if !oc.reused || oc.heard || ex.cutBy() != "" || ex.plain.watch.left() {
			return nil, ex.orLeft(err)
		}
	}
}

// orLeft is err, or that the client left, which has caused it.
func (ex *exchange) orLeft(err error) error {
	if ex.plain.watch.left() {
		return fmt.Errorf("the client left: %w", context.Canceled)
	}
	return err
}

// originConn returns a connection for the exchange. A dial is given up with
// the client.
func (ex *exchange) originConn() (*originConn, error) {
	a, pool := ex.attempt, &ex.front.kept
	key := keptKey{poolKey: poolKeyOf(&a.decision), host: a.query.Host, port: a.query.Port}
	if oc := pool.take(key); oc != nil {
		oc.reused = true
		return oc, nil
	}
	ctx, cancel := context.WithCancel(ex.ctx)
	defer cancel()
	if !ex.plain.watch.during(cancel) {
		return nil, context.Canceled
	}
	tcp, err := a.connectTCP(ctx)
	if ex.plain.watch.during(nil); err != nil {
		return nil, err
	}
	_ = tcp.SetKeepAliveConfig(keepAlive()) // it may be kept, and a response be long in coming
	oc, err := newOriginConn(tcp, key, ex.era)
	if err != nil {
		_ = tcp.Close() // nobody has used it
	}
	return oc, err
}

// leave gives the exchange's connection back once its flight has landed: a cut
// that came before has spoilt it, and none can come after.
func (ex *exchange) leave() {
	oc := ex.origin
	if oc == nil {
		return
	}
	ex.origin, oc.writer = nil, nil
	if oc.ended && ex.flight.endedBy() == "" && !ex.plain.watch.gone {
		ex.front.kept.put(oc)
		return
	}
	oc.close()
}
