package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
		oc.head = originHeaderBytes
		resp, err := http.ReadResponse(oc.br, r)
		if err != nil && oc.head == 0 {
			return nil, errHeadBytes
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // it is told apart by type, or says enough
		}
		if code := resp.StatusCode; code >= http.StatusOK || code < http.StatusContinue || code == http.StatusSwitchingProtocols {
			oc.head = -1
			resp.Body = &plainBody{Reader: resp.Body, oc: oc, last: resp.Close}
			return resp, nil
		}
		if err := w.interim(resp.StatusCode, resp.Header); err != nil {
			return nil, err
		}
	}
}

// send writes r as net/http's transport does, with one write.
func (oc *originConn) send(r *http.Request) error {
	buffers := &oc.writer.ex.front.buffers
	out := buffers.head()
	defer buffers.giveHead(out)
	if err := r.Write(out); err != nil {
		return fmt.Errorf("word the request: %w", err)
	}
	_, err := oc.tcp.Write(out.Bytes())
	return err //nolint:wrapcheck // it names what failed, and where
}

// plainBody is a response's body. To close it ends nothing: what becomes of
// the connection is decided when the exchange has ended, and net/http's own
// body would first read on until the response's end.
type plainBody struct {
	io.Reader
	oc   *originConn
	last bool // the connection ends with the response
}

// Read reads from the origin.
func (b *plainBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		b.oc.ended = !b.last && b.oc.br.Buffered() == 0
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
		resp, err := oc.ask(r, ex.writer)
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
	key := keptKey{poolKey: poolKey{a.decision.Rule, a.decision.Mode}, host: a.query.Host, port: a.query.Port}
	if oc := pool.take(key); oc != nil {
		oc.reused = true
		return oc, nil
	}
	ctx, cancel := context.WithCancel(ex.ctx)
	defer cancel()
	if !ex.plain.watch.during(cancel) {
		return nil, context.Canceled
	}
	tcp, err := a.connect(ctx)
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
