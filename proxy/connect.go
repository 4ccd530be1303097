package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/elazarl/goproxy"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// newCarrier makes goproxy safe to carry what the front has allowed. By
// itself it allows everything, dials by name, takes proxies from the
// environment, does not verify TLS and drops what a client sends along with a
// CONNECT (security.md, section 1.2). Here it is left no decision to take:
// what comes without an allowed attempt in its context is refused.
func newCarrier() *goproxy.ProxyHttpServer {
	p := goproxy.NewProxyHttpServer()
	p.Logger = silent{}
	p.Tr = &http.Transport{DialContext: refuseDial}
	p.ConnectDial = nil
	p.ConnectDialWithReq = func(r *http.Request, network, addr string) (net.Conn, error) {
		return refuseDial(r.Context(), network, addr)
	}
	p.KeepAcceptEncoding = true
	p.NonproxyHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "sallyport: not a proxy request", http.StatusBadRequest)
	})
	p.OnRequest().HandleConnectFunc(carryConnect)
	p.OnRequest().DoFunc(carryRequest)
	p.OnResponse().DoFunc(carryResponse)
	return p
}

// silent swallows goproxy's log: it repeats what clients wrote, unescaped.
type silent struct{}

// Printf drops its arguments.
func (silent) Printf(string, ...any) {}

// carryConnect gives goproxy the one action it may take on a CONNECT: hand
// the connection to the tunnel that the front has prepared.
func carryConnect(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
	t, ok := ctx.Req.Context().Value(tunnelKey{}).(*connectTunnel)
	if !ok {
		return &goproxy.ConnectAction{Action: goproxy.ConnectReject}, host
	}
	return &goproxy.ConnectAction{
		Action: goproxy.ConnectHijack,
		Hijack: func(_ *http.Request, client net.Conn, _ *goproxy.ProxyCtx) { t.run(client) },
	}, host
}

type tunnelKey struct{}

// connectTunnel is an allowed CONNECT whose origin is connected already.
type connectTunnel struct {
	front   *front
	http    *httpConn
	attempt *attempt
	origin  endpoint
	taken   bool // run was reached: the client's connection is hijacked
}

// connect handles CONNECT (RFC 9110, section 9.3.6): decide, dial, and only
// then 200, so that a failing origin is a 502 that the client can read.
func (f *front) connect(w http.ResponseWriter, r *http.Request, h *httpConn, start time.Time) {
	a := f.s.newAttempt(h.c, policy.ViaConnect, start)
	a.rec.HTTP.Method = http.MethodConnect
	defer a.rescue()
	if refused := f.admitConnect(a, r, h); refused != nil {
		if !f.denyConnectInside(w, h, a, refused) {
			f.deny(w, h, a, refused)
		}
		return
	}
	// Not the request's context: net/http ends that when the client half-closes,
	// which a client may do as soon as it has sent everything.
	origin, err := a.connect(f.base, h.c.home()) //nolint:contextcheck // see above
	if err != nil {
		f.deny(w, h, a, classify(err))
		return
	}
	t := &connectTunnel{front: f, http: h, attempt: a, origin: origin}
	defer t.abandon()
	if _, ok := w.(*tunnelWriter); !ok {
		w = keepEarly{w}
	}
	f.carrier.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tunnelKey{}, t)))
}

// admitConnect learns the destination from the request and decides about it.
func (f *front) admitConnect(a *attempt, r *http.Request, h *httpConn) *refusal {
	host, port, err := parseAuthority(r.RequestURI)
	if h.inspected != nil {
		h.inspected.place(a)
	}
	switch {
	case h.c.barred() != nil:
		return h.c.barred()
	case err != nil:
		return &refusal{outcome: flow.Outcome(policy.ReasonNoName), denied: true, err: err, hint: "send CONNECT host:port"}
	case h.pinned != nil, h.inspected != nil:
		return denial(policy.ReasonNotTLS, errors.New("CONNECT inside a tunnel"))
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return &refusal{outcome: flow.OutcomeHTTPRequestError, err: errors.New("CONNECT with a body")}
	}
	a.aim(host, port, policy.ProtocolUnknown)
	if refused := a.authenticate(r); refused != nil {
		return refused
	}
	h.c.source.Principal, h.c.proofs = a.query.Source.Principal, a.proofs // of all that the tunnel carries
	return a.decide()
}

// parseAuthority reads a CONNECT target, host:port and nothing else (RFC
// 9112, section 3.2.3): the policy, the resolver and the record must all see
// the one destination that a more generous reading might find two of.
func parseAuthority(target string) (policy.Host, uint16, error) {
	bad := func(why string) (policy.Host, uint16, error) {
		return policy.Host{}, 0, fmt.Errorf("CONNECT target %.255q: %s", target, why)
	}
	i := strings.LastIndexByte(target, ':')
	if i < 0 {
		return bad("the port is missing")
	}
	name, digits := target[:i], target[i+1:]
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || port == 0 || digits[0] == '0' || digits[0] == '+' {
		return bad("the port is not 1 to 65535")
	}
	if strings.Contains(name, ":") && !strings.HasPrefix(name, "[") {
		return bad("an IPv6 address needs brackets")
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		if _, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err != nil || !strings.HasSuffix(inner, "]") {
			return bad("no IPv6 address in the brackets")
		}
	}
	host, err := policy.ParseHost(name)
	if err != nil {
		return bad(err.Error())
	}
	return host, uint16(port), nil
}

// run carries the tunnel; goproxy calls it with the hijacked connection.
func (t *connectTunnel) run(client net.Conn) {
	t.taken = true
	c := t.http.c
	defer c.rescue()
	defer t.attempt.rescue()
	defer t.salvage()
	var early []byte
	if e, ok := client.(*earlyConn); ok {
		early = e.early
	}
	if _, err := io.WriteString(c.tcp, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		t.attempt.rec.HTTP.Status = http.StatusOK
		t.fail(&refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: err})
		return
	}
	t.attempt.rec.HTTP.Status = http.StatusOK
	t.inner(early)
}

// inner looks at what the tunnel carries, where the rule cares, and carries it.
func (t *connectTunnel) inner(early []byte) {
	a, c := t.attempt, t.http.c
	if a.decision.Protocol == policy.ProtocolTCP && !a.wantsLook() {
		t.splice(early)
		return
	}
	if err := c.tcp.SetReadDeadline(time.Now().Add(c.s.cfg.Timeouts.Hello)); err != nil {
		t.fail(classify(err))
		return
	}
	if len(early) == 0 {
		if early = t.http.scratch; early == nil {
			early = make([]byte, sniffSize)
		}
		n, err := c.tcp.Read(early)
		if early = early[:n]; err != nil && n == 0 {
			t.silent(err)
			return
		}
	}
	switch {
	case early[0] == helloContentType && a.decision.Protocol != policy.ProtocolHTTP:
		t.innerTLS(early)
	case isMethodByte(early[0]) && a.decision.Protocol == policy.ProtocolHTTP:
		t.innerHTTP(early)
	default:
		t.mismatch(early)
	}
}

// wantsLook reports whether a tunnel that may carry anything is looked at all
// the same: in report mode on 443, to learn what enforcing would say.
func (a *attempt) wantsLook() bool {
	return a.decision.WouldDeny() && a.query.Port == tlsPort
}

// innerTLS requires the tunnel's ClientHello to name the CONNECT target.
func (t *connectTunnel) innerTLS(early []byte) {
	a, c := t.attempt, t.http.c
	h, refused := c.readHello(a, early)
	if refused == nil {
		refused = a.sameName(h)
	}
	if refused != nil {
		a.refuse(refused)
		farewell(c.tcp, alertRecord(alertFor(refused)))
		t.drop()
		return
	}
	a.query.Protocol = policy.ProtocolTLS
	if a.decision.Inspect {
		c.inspect(a, h, t.origin.(*net.TCPConn)) //nolint:forcetypeassert // see attempt.connect
		return
	}
	t.splice(h.raw)
}

// sameName checks that the server_name inside a CONNECT tunnel is the name
// that was asked for. A destination that is an address has no name to check,
// and then none may be given.
func (a *attempt) sameName(h *hello) *refusal {
	want := a.query.Host
	_, literal := want.Addr()
	switch {
	case h.serverName == want, literal && h.serverName.IsZero():
		return nil
	case h.serverName.IsZero():
		return a.tolerate(policy.ReasonNoName, fmt.Errorf("CONNECT %s, and a ClientHello without server_name", want))
	}
	return a.tolerate(policy.ReasonNameMismatch, fmt.Errorf("CONNECT %s, and a ClientHello for %s", want, h.serverName))
}

// innerHTTP serves plain HTTP in the tunnel (WebSocket clients send ws:// so):
// each request is decided and recorded by itself and pinned to the target.
func (t *connectTunnel) innerHTTP(early []byte) {
	t.origin.Close() //nolint:errcheck // nothing was sent on it; requests have a pool of their own
	if err := t.http.c.tcp.SetReadDeadline(time.Time{}); err != nil {
		t.fail(classify(err))
		return
	}
	tcp, err := t.http.c.dress()
	if err != nil {
		t.fail(classify(err))
		return
	}
	t.front.offer(&httpConn{
		TCPConn: tcp, c: t.http.c, replay: bytes.Clone(early),
		pinned: &pin{host: t.attempt.query.Host, port: t.attempt.query.Port},
	})
}

// mismatch is for a tunnel that carries what its rule does not allow.
func (t *connectTunnel) mismatch(early []byte) {
	err := fmt.Errorf("the rule allows %s, and the first byte in the tunnel is 0x%02x", t.attempt.decision.Protocol, early[0])
	if refused := t.attempt.tolerate(policy.ReasonNotTLS, err); refused != nil {
		t.fail(refused)
		return
	}
	t.splice(early)
}

// silent is for a tunnel in which the client says nothing in time.
func (t *connectTunnel) silent(err error) {
	if errors.Is(err, io.EOF) {
		t.fail(&refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: errors.New("the client closed the tunnel before it sent anything")})
		return
	}
	if r := classify(err); r.outcome != flow.OutcomeConnectionTimeout {
		r.endedBy = flow.EndedByClient
		t.fail(r)
		return
	}
	refused := t.attempt.tolerate(policy.ReasonNotTLS, fmt.Errorf("no ClientHello within %s; for a protocol in which the server speaks first the rule needs protocol: tcp", t.http.c.s.cfg.Timeouts.Hello))
	if refused != nil {
		t.fail(refused)
		return
	}
	t.splice(nil)
}

// splice carries the tunnel to its end and releases the client.
func (t *connectTunnel) splice(preface []byte) {
	c := t.http.c
	if err := c.tcp.SetReadDeadline(time.Time{}); err != nil {
		t.fail(classify(err))
		return
	}
	(&tunnel{attempt: t.attempt, conn: c, origin: t.origin}).run(preface)
}

// fail ends the attempt without a word: after 200 there is no HTTP to say it in.
func (t *connectTunnel) fail(r *refusal) {
	t.attempt.refuse(r)
	t.drop()
}

func (t *connectTunnel) drop() {
	t.origin.Close() //nolint:errcheck // it carried nothing
	t.http.c.release()
}

// salvage closes the origin where a panic leaves it open, and lets it go on:
// nobody finalizes a bare descriptor.
func (t *connectTunnel) salvage() {
	if p := recover(); p != nil {
		_ = t.origin.Close() // whoever had it may have closed it already
		panic(p)
	}
}

// abandon ends what goproxy did not bring to run: the hijack failed.
func (t *connectTunnel) abandon() {
	if !t.taken {
		t.attempt.refuse(&refusal{outcome: flow.OutcomeConnectionTerminated, endedBy: flow.EndedByClient, err: errors.New("the connection could not be taken over")})
		t.origin.Close() //nolint:errcheck // it carried nothing
	}
}

// keepEarly is a ResponseWriter whose Hijack keeps the bytes that the client
// sent right behind its CONNECT head. goproxy drops the buffer that holds them.
type keepEarly struct{ http.ResponseWriter }

// earlyConn is a hijacked connection with the bytes that net/http had read.
type earlyConn struct {
	net.Conn
	early []byte
}

// Hijack takes the connection over from net/http (see http.Hijacker).
func (k keepEarly) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(k.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, fmt.Errorf("take over the buffered bytes: %w", err)
	}
	return &earlyConn{Conn: nc, early: slices.Clip(early)}, rw, nil
}
