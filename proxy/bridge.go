package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
)

// bridge carries what a client says inside its TLS to the proxy. All that
// follows the handshake wants a bare socket, to splice and to ask about; so the
// plain bytes go over a pair of sockets, whose near end is the connection's
// from then on. Ends are passed on as they are: a half-close as close_notify
// and a half-close, a reset as a reset.
//
// Its two goroutines belong to the connection, whose place among those that are
// counted they give back, once the client has its last bytes.
type bridge struct {
	c     *conn
	tls   *tls.Conn
	outer *net.TCPConn    // the client's socket
	far   *net.TCPConn    // the pair's other end
	ctx   context.Context //nolint:containedctx // the connection's: it ends when connections are cut

	released chan struct{} // the near end is closed
	carried  uint64        // bytes, from far to the client; down's
	broken   atomic.Bool   // up has broken off

	mu         sync.Mutex // guards the rest
	clientDone bool       // the client has ended what it says
	proxyDone  bool       // and the proxy
	last       *tcpInfo   // of outer, once it is closed
}

// cross puts a bridge between the connection and its client. From then on the
// connection's socket is the near end of a pair.
func (c *conn) cross(ctx context.Context, outer *tls.Conn) error {
	within, cancel := context.WithDeadline(ctx, c.accepted.Add(c.s.cfg.Timeouts.Hello))
	defer cancel()
	near, far, err := newPair(within)
	if err != nil {
		return err
	}
	client := c.tcp.(*net.TCPConn)             //nolint:forcetypeassert // a door with TLS has no others
	_ = client.SetKeepAliveConfig(keepAlive()) // without it the idle timeout has the last word
	c.bridge = &bridge{c: c, tls: outer, outer: client, far: far, ctx: ctx, released: make(chan struct{})}
	c.s.live.swap(c, near)
	go c.bridge.run()
	return nil
}

// run carries both directions to their ends, and gives back what the connection
// holds when that is over, too.
func (b *bridge) run() {
	defer b.c.leave()
	defer context.AfterFunc(b.ctx, b.hurry)()
	up := make(chan struct{})
	go func() {
		defer close(up)
		defer b.rescue()
		b.up()
	}()
	func() {
		defer b.rescue()
		b.down()
	}()
	<-up
	b.close(false)
	<-b.released
	abort(b.far) // nobody listens any more; a reset leaves no TIME_WAIT behind
}

// rescue keeps a panic to the connection it happened on.
func (b *bridge) rescue() {
	if p := recover(); p != nil {
		b.c.s.panicked(p)
		b.close(true)
		abort(b.far)
	}
}

// up carries what the client says.
func (b *bridge) up() {
	buf := b.c.s.buffers.get()
	defer b.c.s.buffers.pool.Put(buf)
	for {
		n, err := b.tls.Read(buf[:])
		if n > 0 {
			if _, failed := b.far.Write(buf[:n]); failed != nil {
				b.discard() // the proxy is gone; down knows how
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = b.far.CloseWrite() // if it fails, the proxy is gone already
			b.watch()
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && b.over():
			return // whatever down has yet to deliver is still wanted
		default:
			// It was reset, or what it sends is no TLS, and then it was told so.
			_ = b.outer.SetWriteDeadline(time.Now().Add(farewellTime)) // down may be waiting for it
			b.broken.Store(true)
			abort(b.far)
			b.discard()
			return
		}
	}
}

// over reports whether the connection was released.
func (b *bridge) over() bool {
	select {
	case <-b.released:
		return true
	default:
		return b.ctx.Err() != nil
	}
}

// discard reads away what the client still sends, a while, so that no reset
// overtakes the proxy's last words.
func (b *bridge) discard() {
	if b.outer.SetReadDeadline(time.Now().Add(farewellTime)) == nil {
		_, _ = io.CopyN(io.Discard, b.outer, farewellBytes) // however it ends
	}
}

// watch waits for the client, which has ended what it says, to be gone
// altogether while the proxy is still speaking: nobody reads from it any more,
// and writing may be long in coming.
func (b *bridge) watch() {
	if !b.finish(&b.clientDone, &b.proxyDone) {
		return
	}
	raw, err := b.outer.SyscallConn()
	if err != nil {
		return
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		info, ok := tcpInfoOf(int(fd))
		gone = ok && info.state == tcpClose
		return gone || !ok
	})
	b.mu.Lock()
	ended := b.proxyDone
	b.mu.Unlock()
	if err == nil && gone && !ended {
		abort(b.far)
	}
}

// finish notes that one direction has ended, and reports whether the other
// goes on.
func (b *bridge) finish(one, other *bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	*one = true
	return !*other
}

// down carries what the proxy says.
func (b *bridge) down() {
	for {
		buf, n, err := b.take()
		switch {
		case b.broken.Load():
			return
		case err != nil || n == 0 && !b.inOrder():
			b.close(true)
			return
		case n == 0:
			b.endDown()
			return
		}
		_, err = b.tls.Write(buf[:n])
		b.c.s.buffers.pool.Put(buf)
		if err != nil {
			b.close(true)
			abort(b.far)
			return
		}
		b.carried += uint64(n)
	}
}

// take waits for what the proxy says and returns it, in a buffer that is the
// caller's to give back; none at its end. A direction in which nothing comes
// holds no buffer.
func (b *bridge) take() (buf *[relaySize]byte, n int, err error) {
	raw, err := b.far.SyscallConn()
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // nobody reads it
	}
	buffers := &b.c.s.buffers
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf = buffers.get()
		for {
			n, failed = unix.Read(int(fd), buf[:])
			if !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		if failed == nil && n > 0 {
			return true
		}
		buffers.pool.Put(buf)
		buf = nil
		return !errors.Is(failed, unix.EAGAIN)
	})
	return buf, max(n, 0), errors.Join(err, failed)
}

// inOrder reports whether the proxy's end was one, and no reset of which the
// other direction was told. The kernel counts an end as a byte received.
func (b *bridge) inOrder() bool {
	info, ok := readTCPInfo(b.far)
	return ok && (info.state != tcpClose || info.received > b.carried)
}

// endDown passes the end of what the proxy says on.
func (b *bridge) endDown() {
	_ = b.tls.CloseWrite()   // else the FIN says it alone
	_ = b.outer.CloseWrite() // if it fails, the client is gone already
	if !b.finish(&b.proxyDone, &b.clientDone) {
		_ = b.outer.SetReadDeadline(time.Unix(1, 0)) // for watch; fails only when it is closed already
	}
}

// close closes the client's socket, once, and keeps what the kernel says of it.
func (b *bridge) close(reset bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != nil {
		return
	}
	info, _ := readTCPInfo(b.outer)
	b.last = &info
	if reset {
		abort(b.outer)
		return
	}
	_ = b.outer.Close() // it is over either way
}

// release says that the near end is closed. What is still on its way to the
// client gets there, or is given up after Timeouts.Idle, and soon where
// connections are cut: nobody else watches over it any more.
func (b *bridge) release() {
	close(b.released)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	patience := b.c.s.cfg.Timeouts.Idle
	if b.ctx.Err() != nil {
		patience = farewellTime
	}
	_ = b.outer.SetReadDeadline(now.Add(farewellTime)) // these fail only when it is closed already
	_ = b.outer.SetWriteDeadline(now.Add(patience))
}

// hurry gives the client a moment for its last words: connections are cut.
func (b *bridge) hurry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.outer.SetDeadline(time.Now().Add(farewellTime)) // fails only when it is closed already
}

// info asks the kernel about the client's socket.
func (b *bridge) info() (tcpInfo, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != nil {
		return *b.last, false
	}
	return readTCPInfo(b.outer)
}

// tcp is what records tell of the client's connection.
func (b *bridge) tcp() flow.TCP {
	info, _ := b.info()
	return info.TCP
}

// quiet returns for how long nothing has moved between the client and the
// proxy: who reads slowly is sent something long after the proxy has sent it.
func (b *bridge) quiet() time.Duration {
	info, ok := b.info()
	if !ok {
		return 0 // closed already: its owner is at work
	}
	return min(info.lastReceived, info.lastSent)
}
