package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Inspection ends a client's TLS here, for the hosts of rules that ask for it
// and for no other, and begins another to the origin. In between, each request
// is read by net/http, decided by itself, and carried by goproxy as a plain
// one is (front.go, http.go): one path, whatever the request came in. Only the
// TLS is not goproxy's. Its own loop reads heads without a limit, lets the
// inner Host choose the origin, and ends the process when a handler panics
// (security.md, section 1.2).

// inspection is what all inspected connections share.
type inspection struct {
	authority *authority
	roots     *x509.CertPool // nil: the system's
	sessions  tls.ClientSessionCache
	keys      bool // objects' keys go into the record
}

// originSessions is how many origins' TLS sessions are kept to be resumed.
const originSessions = 256

// newInspection returns nil, nil where no CA is configured.
func newInspection(cfg *Config) (*inspection, error) {
	if cfg.CA == nil {
		return nil, nil //nolint:nilnil // documented
	}
	a, err := newAuthority(cfg.CA)
	if err != nil {
		return nil, err
	}
	return &inspection{authority: a, roots: cfg.OriginRoots, sessions: tls.NewLRUClientSessionCache(originSessions), keys: cfg.S3Keys}, nil
}

// errNoCA is why a connection is refused that must be inspected and cannot be.
var errNoCA = errors.New("the rule wants TLS inspected, and inspect.ca_file is not set")

// errNoRequest is how a connection ends whose client speaks TLS and says nothing.
var errNoRequest = errors.New("the client sent no request")

// inspected is a connection whose TLS ends here.
type inspected struct {
	*inspection
	front *front
	host  policy.Host // what it was opened for: the server_name
	port  uint16
	via   policy.Via
	hello flow.TLS
	first *attempt // the connection's own, recorded where no request comes
	// transport is the connection's own: what it has said to an origin is
	// nothing to go on for another client.
	transport *http.Transport
	peer      netip.AddrPort              // the origin's address that it used last
	spare     atomic.Pointer[net.TCPConn] // to the origin, connected for the CONNECT
}

// inspect ends the TLS that begins with h, and hands what is inside to the
// front. It takes over the connection, and spare, a fresh connection to the
// origin, nil if there is none. Each request is an attempt of its own; a is
// recorded only if there comes none.
func (c *conn) inspect(a *attempt, h *hello, spare *net.TCPConn) {
	s := c.s
	i := &inspected{
		inspection: s.inspection, front: s.front,
		host: a.query.Host, port: a.query.Port, via: a.query.Via, hello: a.rec.TLS, first: a,
	}
	i.spare.Store(spare)
	if i.inspection == nil {
		i.drop()
		c.refuseTLS(a, &refusal{outcome: flow.OutcomeInternalError, err: errNoCA})
		return
	}
	tcp, err := c.dress()
	if err != nil {
		i.drop()
		a.refuse(classify(err))
		c.release()
		return
	}
	// A copy: h may lie in a buffer that is somebody else's soon.
	inner := tls.Server(&replayed{TCPConn: tcp, first: bytes.Clone(h.raw)}, i.server())
	if err := i.handshake(inner); err != nil {
		i.drop()
		a.refuse(refusedByClient(err))
		c.release()
		return
	}
	i.transport = i.newTransport()
	s.front.offer(&httpConn{TCPConn: tcp, c: c, tls: inner, inspected: i, readBy: time.Now().Add(s.cfg.Timeouts.Hello)})
}

func (i *inspected) handshake(inner *tls.Conn) error {
	t := i.front.s.cfg.Timeouts.Hello
	if err := inner.SetDeadline(time.Now().Add(t)); err != nil {
		return err //nolint:wrapcheck // it names what failed, and where
	}
	if err := inner.HandshakeContext(i.front.base); err != nil {
		return err //nolint:wrapcheck // crypto/tls says what is wrong
	}
	return inner.SetDeadline(time.Time{})
}

// server is how the connection's client is spoken to.
func (i *inspected) server() *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.authority.leaf(i.host) },
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		// A ticket would be good for any name that is inspected.
		SessionTicketsDisabled: true,
	}
}

// refusedByClient is for a handshake that the client did not bring to its end,
// most often because nobody gave it our CA to trust.
func refusedByClient(err error) *refusal {
	r := classify(err)
	r.endedBy = flow.EndedByClient
	if r.outcome == flow.OutcomeTLSAlertReceived {
		r.err = fmt.Errorf("the client does not accept the inspecting certificate (give it the bundle that \"sallyport ca bundle\" makes): %w", err)
	}
	return r
}

// newTransport returns a transport for one connection's requests.
func (i *inspected) newTransport() *http.Transport {
	t := i.front.pool.newTransport()
	t.DialContext, t.DialTLSContext = refuseDial, i.dial
	t.MaxIdleConnsPerHost = 1 // the one to peer
	return t
}

// transportFor returns the connection's transport, which keeps no connection to
// an address that a may not reach: another rule may govern a than the exchange
// before, or another policy.
func (i *inspected) transportFor(a *attempt) *http.Transport {
	if i.peer.IsValid() && a.vet(i.peer) != nil {
		i.transport.CloseIdleConnections()
	}
	return i.transport
}

// dial connects to the connection's own host, by the gate, for the exchange in
// ctx, and verifies that it is who it should be.
func (i *inspected) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	tcp, err := i.reach(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	outer := tls.Client(tcp, &tls.Config{
		ServerName:         i.host.String(),
		RootCAs:            i.roots,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: i.sessions,
	})
	ctx, cancel := context.WithTimeout(ctx, i.front.s.cfg.Timeouts.Dial)
	defer cancel()
	if err := outer.HandshakeContext(ctx); err != nil {
		_ = tcp.Close() // it carried nothing
		return nil, err //nolint:wrapcheck // classify tells its errors apart
	}
	return outer, nil
}

// reach returns a TCP connection to the origin: the spare one, if the exchange
// may use it, else a new one.
func (i *inspected) reach(ctx context.Context, network, addr string) (net.Conn, error) {
	if tcp := i.spare.Swap(nil); tcp != nil {
		ex, ok := ctx.Value(exchangeKey{}).(*exchange)
		if ok && ex.attempt.vet(addrPortOf(tcp.RemoteAddr())) == nil {
			_ = tcp.SetKeepAliveConfig(keepAlive()) // the transport may keep it
			return tcp, nil
		}
		_ = tcp.Close() // it carried nothing
	}
	return i.front.dialFor(ctx, network, addr)
}

// drop gives up the spare connection.
func (i *inspected) drop() {
	if tcp := i.spare.Swap(nil); tcp != nil {
		_ = tcp.Close() // it carried nothing
	}
}

// end lets go of the connection's origins. requests is how many there were.
func (i *inspected) end(requests int) {
	if requests == 0 {
		i.first.rec.Inspected = true
		i.first.refuse(&refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: errNoRequest})
	}
	i.drop()
	i.transport.CloseIdleConnections()
}

// place notes in the record of a request what is known of its connection.
func (i *inspected) place(a *attempt) {
	a.query.Via, a.rec.Via, a.rec.TLS, a.rec.Inspected = i.via, i.via, i.hello, true
	a.aim(i.host, i.port, policy.ProtocolTLS)
}

// admit decides about one request on the connection.
func (i *inspected) admit(a *attempt, r *http.Request) *refusal {
	i.place(a)
	if i.keys {
		a.rec.HTTP.Path = r.URL.EscapedPath()
	}
	stripHopByHop(r.Header, false) // what S3 will not see is not judged
	call, err := policy.ParseS3Request(policy.S3Request{Method: r.Method, Host: r.Host, Target: r.RequestURI, Header: r.Header.Values})
	if err != nil {
		return i.unreadable(a, err)
	}
	a.query.S3 = &call
	a.rec.S3Call = flow.S3Call{
		Operation: call.Operation, Scheme: call.Signer.Scheme, Account: call.Signer.Account,
		SourceBucket: call.Source.Ref.Bucket,
	}
	if i.keys {
		a.rec.S3Call.Key = call.Key
	}
	return a.decide()
}

// unreadable is for a request that cannot be judged. Report mode lets it pass,
// as it does whatever else.
func (i *inspected) unreadable(a *attempt, err error) *refusal {
	reason := policy.ReasonS3Opaque
	if e, ok := errors.AsType[*policy.S3RequestError](err); ok {
		reason = e.Reason
	}
	if refused := a.decide(); refused != nil {
		return refused
	}
	return a.tolerate(reason, err)
}

// maxLinger bounds what a client may go on sending that has its answer.
const maxLinger = 16 << 20

// linger lets a client that is still sending find its answer. Were the
// connection closed at once, it would be reset under the client's hands, and
// the answer lost. net/http waits half a second, and not for clients that ask
// for 100 (Continue): the Go SDK does, and never waits for it.
func (h *httpConn) linger() {
	f := h.inspected.front
	select {
	case <-f.closed:
		return
	default:
	}
	if h.CloseWrite() != nil || h.TCPConn.SetReadDeadline(time.Now().Add(f.s.cfg.Timeouts.Hello)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, h.TCPConn, maxLinger) // however it ends
}

// replayed is a connection of which the first bytes were read already.
type replayed struct {
	*net.TCPConn
	first []byte
}

// Read returns the first bytes, then the socket's.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.TCPConn.Read(p) //nolint:wrapcheck // it passes an error on
	}
	n := copy(p, r.first)
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}
