package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// tlsPort is the port of a destination that is known by its server_name only.
const tlsPort = 443

// sniffSize is how much of a connection's first bytes one read takes: a whole
// ClientHello or request head in nearly every case.
const sniffSize = 4 << 10

// sniffBuffers are shared by all connections: each holds one until its name is
// known and its first bytes are on their way.
type sniffBuffers struct{ pool sync.Pool }

func (b *sniffBuffers) get() *[sniffSize]byte {
	if buf, ok := b.pool.Get().(*[sniffSize]byte); ok {
		return buf
	}
	return new([sniffSize]byte)
}

// conn is an accepted connection, from accept until release.
type conn struct {
	s             *Server
	listener      *ListenerConfig
	tcp           endpoint
	local, remote netip.AddrPort
	original      netip.AddrPort // where it was aimed at, zero for the proxy itself
	accepted      time.Time
	source        policy.Source // who is calling; a tunnel's principal, too, once it has proven itself
	counted       caller        // by admission
	over          over
	proofs        []func() bool // that source's principal rests on
	known         bool          // identify has been asked
	returned      bool          // it is one of the proxy's own (see sent)
	bridge        *bridge       // to the client, where its TLS ends here
	releaseOnce   sync.Once
}

// handle is the life of a connection. Raw TLS is carried to its end here;
// HTTP is handed to the front, whose goroutine then owns the connection.
func (s *Server) handle(ctx context.Context, c *conn) {
	defer c.rescue()
	buf := s.sniffed.get()
	defer s.sniffed.pool.Put(buf) // whoever keeps what it holds beyond this call has copied it
	first, taken, err := c.begin(ctx, buf[:])
	switch {
	case taken:
	case err != nil:
		a := s.newAttempt(c, policy.ViaUnknown, c.accepted)
		a.refuse(denial(policy.ReasonUnknownSource, err))
		c.release()
	case len(first) == 0:
		// A health check, or a client that changed its mind: no attempt was
		// made to reach anything, so there is nothing to record.
		c.release()
	case first[0] == helloContentType:
		c.serveTLS(ctx, first)
	case isMethodByte(first[0]):
		s.front.take(c, first)
	default:
		c.serveTCP(ctx, first)
	}
}

// begin learns where the connection was aimed at, whose it is, and its first
// bytes. It is taken when it needed none of these to be carried.
func (c *conn) begin(ctx context.Context, buf []byte) (first []byte, taken bool, err error) {
	c.learnOriginal()
	if c.original.IsValid() {
		first, taken = c.sniffOriginal(ctx, buf)
	} else {
		first, err = c.readProxyHeader(buf)
	}
	if len(first) > 0 || err != nil {
		c.s.callers.note(c, err)
	}
	if len(first) > 0 && c.listener.TLS != nil {
		first, taken = c.unwrap(ctx, buf, first)
	}
	if len(first) > 0 {
		c.returned = c.cameBack()
		c.identify(ctx)
	}
	return first, taken, err
}

// identify learns who is calling, as far as anybody knows.
func (c *conn) identify(ctx context.Context) {
	if c.s.deps.Identifier == nil || c.known {
		return
	}
	c.known = true
	ctx, cancel := context.WithDeadline(ctx, c.accepted.Add(c.s.cfg.Timeouts.Hello))
	defer cancel()
	c.source = c.s.deps.Identifier.Identify(ctx, c.source)
}

// sniff reads the first bytes into buf, none if the client sends none in time.
// The deadline it sets bounds all that follows until the name is known.
func (c *conn) sniff(buf []byte) []byte {
	if err := c.tcp.SetReadDeadline(c.accepted.Add(c.s.cfg.Timeouts.Hello)); err != nil {
		return nil
	}
	n, err := c.tcp.Read(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// isMethodByte reports whether b may begin an HTTP method as clients write
// them. RFC 9110 allows any token; none in use begins otherwise.
func isMethodByte(b byte) bool { return 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z' }

// serveTLS carries raw TLS to the owner of the name in its ClientHello.
func (c *conn) serveTLS(ctx context.Context, first []byte) {
	a := c.s.newAttempt(c, policy.ViaTLS, c.accepted)
	defer a.rescue()
	h, refused := c.readHello(a, first)
	if refused == nil {
		refused = c.admitTLS(a, h)
	}
	if refused != nil && a.tellsInside(refused) {
		defer c.release()
		a.refuse(refused)
		c.tellInside(a, h.raw, refused)
		return
	}
	if refused != nil {
		c.refuseTLS(a, refused)
		return
	}
	if a.decision.Inspect {
		c.inspect(a, h, nil)
		return
	}
	origin, err := a.connect(ctx, c.home())
	if err != nil {
		c.refuseTLS(a, classify(err))
		return
	}
	(&tunnel{attempt: a, conn: c, origin: origin}).run(h.raw)
}

// readHello reads the ClientHello and notes in the record what it says, of a
// refused one too.
func (c *conn) readHello(a *attempt, first []byte) (*hello, *refusal) {
	h, err := readHello(c.tcp, first)
	if err != nil {
		if e, ok := errors.AsType[*helloError](err); ok {
			a.rec.TLS.ServerName = e.rawName
			return nil, denial(e.reason, e)
		}
		return nil, classify(err)
	}
	if err := c.tcp.SetReadDeadline(time.Time{}); err != nil {
		return nil, classify(err)
	}
	a.rec.TLS = flow.TLS{ServerName: h.rawName, ALPN: h.alpn, Version: h.version, ECH: h.ech}
	return h, nil
}

// admitTLS decides about the name in h.
func (c *conn) admitTLS(a *attempt, h *hello) *refusal {
	if refused := c.barred(); refused != nil {
		return refused
	}
	if h.serverName.IsZero() {
		none := denial(policy.ReasonNoName, errors.New("the ClientHello carries no server_name"))
		if c.original.IsValid() {
			return a.decideOriginal(c, policy.ProtocolTLS, none)
		}
		return none
	}
	port := uint16(tlsPort)
	if c.original.IsValid() {
		port = c.original.Port()
	}
	a.aim(h.serverName, port, policy.ProtocolTLS)
	return a.decide()
}

// barred refuses whatever a connection asks for, nil for nearly all.
func (c *conn) barred() *refusal {
	switch {
	case c.over != overNothing:
		return overLimit(c.over)
	case c.returned:
		return denial(policy.ReasonSelf, errReturned)
	}
	return nil
}

// refuseTLS records why and says so in TLS: client libraries print an alert
// better than a reset.
func (c *conn) refuseTLS(a *attempt, r *refusal) {
	a.refuse(r)
	farewell(c.tcp, alertRecord(alertFor(r)))
	c.release()
}

// home is the loop for what belongs to the connection.
func (c *conn) home() *loop { return c.s.homeOf(c.tcp) }

// homeOf returns the loop in which one of the ends waits already, or the next.
func (s *Server) homeOf(ends ...endpoint) *loop {
	for _, e := range ends {
		if bare, ok := e.(*socket); ok {
			return bare.loop
		}
	}
	return s.nextLoop()
}

// dress returns the connection as all want it who are not content with reading
// and writing. Where no descriptor is to be had at once it waits for one.
func (c *conn) dress() (*net.TCPConn, error) {
	s, ok := c.tcp.(*socket)
	if !ok {
		tcp, _ := c.tcp.(*net.TCPConn) // there is no third kind
		return tcp, nil
	}
	s.unwatch()
	for until := time.Now().Add(c.s.cfg.Timeouts.Hello); ; {
		tcp, err := s.conn()
		if err == nil {
			err = tcp.SetReadDeadline(s.readDeadline())
			c.s.live.swap(c, tcp)
			_ = s.Close() // the socket stays open
			return tcp, err
		}
		if !time.Now().Before(until) {
			return nil, err
		}
		<-time.After(liftPause)
	}
}

// release closes the connection and gives back what it was counted for, once,
// or leaves that to its bridge.
func (c *conn) release() {
	c.releaseOnce.Do(func() {
		c.tcp.Close() //nolint:errcheck // the connection is over either way
		c.s.live.removeConn(c)
		if c.bridge != nil {
			c.bridge.release()
			return
		}
		c.leave()
	})
}

// leave gives back what the connection was counted for.
func (c *conn) leave() {
	c.s.admission.leave(c.counted)
	c.s.work.Done()
}

// rescue keeps a panic to the connection it happened on.
func (c *conn) rescue() {
	if p := recover(); p != nil {
		c.s.panicked(p)
		abort(c.tcp)
		c.release()
	}
}

func (s *Server) panicked(p any) {
	s.deps.Log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("panic on a connection, which is cut; this is a bug in sallyport")
}

// farewellDrain bounds how long and how much of a refused client's bytes are
// read away, so that the kernel does not answer them with a reset that
// overtakes our last words.
const (
	farewellTime  = time.Second
	farewellBytes = 256 << 10
)

// farewell writes last to a client that is refused, and lets it arrive.
func farewell(tcp endpoint, last []byte) {
	if err := tcp.SetDeadline(time.Now().Add(farewellTime)); err != nil {
		return
	}
	if _, err := tcp.Write(last); err != nil {
		return
	}
	if err := tcp.CloseWrite(); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, tcp, farewellBytes) // however it ends, it was best effort
}

// abort closes tcp with a reset.
func abort(tcp endpoint) {
	_ = tcp.SetLinger(0) // if it fails, the close is merely polite
	_ = tcp.Close()
}
