package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// A listener with TLS is for clients whose proxy URL begins with https://. What
// they say in it is the same as elsewhere, raw TLS included: once the handshake
// is over the connection goes the way of all others, behind a bridge.

// maxHandshake bounds what a client may send until its handshake is over, the
// certificates it shows included.
const maxHandshake = 64 << 10

var (
	errNotTLS     = errors.New("the listener speaks TLS, and the connection begins with something else")
	errTooMuchTLS = fmt.Errorf("the TLS handshake takes more than %d bytes", maxHandshake)
)

// speaksTLS is for who speaks HTTP with a listener that speaks TLS.
const speaksTLS = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"sallyport: this port speaks TLS\nwhat to do: write the proxy's URL with https://\n"

// certificateError is why a client's certificate is not acceptable, though it
// is one of ours.
type certificateError struct{ err error }

// Error says what is wrong with the certificate.
func (e *certificateError) Error() string { return "the client's certificate: " + e.err.Error() }

// Unwrap returns the cause.
func (e *certificateError) Unwrap() error { return e.err }

// unwrap ends the TLS that begins with first, learns whom the client's
// certificate names, and returns the first bytes of what is inside. The
// connection is taken when the client was refused.
func (c *conn) unwrap(ctx context.Context, buf, first []byte) (inside []byte, taken bool) {
	tcp := c.tcp.(*net.TCPConn) //nolint:forcetypeassert // a door with TLS has no others
	g := &greeting{replayed: replayed{TCPConn: tcp, first: bytes.Clone(first)}, left: maxHandshake}
	outer, err := c.greet(ctx, g)
	if err == nil {
		err = c.cross(ctx, outer)
	}
	if err == nil {
		return c.sniff(buf), false
	}
	a := c.s.newAttempt(c, policy.ViaUnknown, c.accepted)
	a.refuse(g.refusal(err))
	var last []byte
	if errors.Is(err, errNotTLS) && isMethodByte(first[0]) {
		last = []byte(speaksTLS)
	}
	farewell(c.tcp, last) // crypto/tls has said why, and that must arrive
	c.release()
	return nil, true
}

// greet makes the handshake, within Timeouts.Hello.
func (c *conn) greet(ctx context.Context, g *greeting) (*tls.Conn, error) {
	if g.first[0] != helloContentType {
		return nil, errNotTLS
	}
	cfg := c.listener.TLS.Config().Clone()
	g.asks = cfg.ClientAuth != tls.NoClientCert
	own := &cfg.Certificates[0]
	cfg.Certificates = nil // else GetCertificate is asked only by who names a server
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		g.agreed = true
		return own, nil
	}
	principal := ""
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		var err error
		if principal, err = c.listener.TLS.Principal(&state); err != nil {
			return &certificateError{err}
		}
		g.without = len(state.PeerCertificates) == 0
		return nil
	}
	if err := c.tcp.SetDeadline(c.accepted.Add(c.s.cfg.Timeouts.Hello)); err != nil {
		return nil, err //nolint:wrapcheck // it names what failed, and where
	}
	outer := tls.Server(g, cfg)
	// Connections are cut by their deadlines, and no goroutine need wait for it.
	if err := outer.HandshakeContext(context.WithoutCancel(ctx)); err != nil {
		return nil, err //nolint:wrapcheck // crypto/tls says what is wrong
	}
	g.left = -1
	// Not before: the certificate is judged first, and then that its key is the
	// client's, too.
	if c.source.Principal = principal; principal != "" {
		certs, at := outer.ConnectionState().PeerCertificates, time.Now()
		c.proofs = []func() bool{func() bool { return c.listener.TLS.Stands(certs, at) }}
	}
	return outer, c.tcp.SetDeadline(time.Time{}) //nolint:wrapcheck // likewise
}

// greeting is a client's connection during its handshake, which may take so
// many bytes, and what is known of that.
type greeting struct {
	replayed
	left    int  // bytes; less than none when the handshake is over
	asks    bool // for a certificate
	agreed  bool // on all that comes before certificates
	without bool // a certificate, and may be
}

// Read returns what comes, as long as it is not too much.
func (g *greeting) Read(p []byte) (int, error) {
	if g.left < 0 {
		return g.replayed.Read(p)
	}
	if g.left == 0 {
		return 0, errTooMuchTLS
	}
	n, err := g.replayed.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

// refusal tells what err makes of the client. What crypto/tls finds wrong with
// a handshake once both agree how to go on is, where certificates are asked for,
// as good as always about them.
func (g *greeting) refusal(err error) *refusal {
	if _, ok := errors.AsType[*certificateError](err); ok {
		return denial(policy.ReasonCredentials, err)
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return denial(policy.ReasonCredentials, fmt.Errorf("the client's certificate: %w", e.Err))
	}
	switch {
	case errors.Is(err, errNotTLS):
		return denial(policy.ReasonNotTLS, err)
	case errors.Is(err, errTooMuchTLS):
		return denial(policy.ReasonMalformedHello, err)
	}
	r := classify(err)
	if g.left < 0 { // the client has done its part
		if r.outcome == flow.OutcomeDestinationUnavailable {
			r.outcome = flow.OutcomeInternalError
		}
		return r
	}
	r.endedBy = flow.EndedByClient
	switch r.outcome {
	case flow.OutcomeTLSAlertReceived:
		r.err = fmt.Errorf("the client does not accept the listener's certificate, or breaks off: %w", err)
	case flow.OutcomeDestinationUnavailable:
		if g.agreed && g.asks && !g.without {
			return denial(policy.ReasonCredentials, err)
		}
		r.outcome = flow.OutcomeTLSProtocolError
	}
	return r
}
