package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// exchange is one plain HTTP request and its response.
type exchange struct {
	front     *front
	http      *httpConn
	attempt   *attempt
	flight    *flight
	transport *http.Transport // nil for a plain request, which has
	plain     *plainConn      // its client's connection,
	origin    *originConn     // its origin's,
	era       uint64          // and the era in which it was decided (see kept.now);
	target    string          // and its target as it came
	ctx       context.Context //nolint:containedctx // the request's: it ends with the client or the exchange, a plain one's with the server
	writer    exchangeWriter
	answer    originBody                 // what the client gets of the response
	body      *requestBody               // nil when the request has none
	upgrade   bool                       // the client asks for WebSocket
	dialled   atomic.Pointer[flow.Times] // set by the transport's dial for this exchange
	reused    bool                       // it ran on a connection kept from another
	received  int64                      // response body bytes
	failed    *refusal                   // the origin did not answer
	broken    error                      // the origin's body ended early
	lost      error                      // the client did not take its answer
	switched  io.Reader                  // the origin's end of an upgraded connection
	carried   bool                       // goproxy returned; otherwise a panic is under way
	hijacked  bool                       // an upgraded connection, no longer net/http's
}

type exchangeKey struct{}

// exchange carries one plain HTTP request: absolute-form, or origin-form with
// Host where the client does not know of the proxy.
func (f *front) exchange(w http.ResponseWriter, r *http.Request, h *httpConn, start time.Time) {
	a := f.s.newAttempt(h.c, policy.ViaHTTP, start)
	a.rec.HTTP.Method = r.Method
	defer a.rescue()
	ex := &exchange{front: f, http: h, attempt: a, plain: h.plain, era: f.kept.now(), upgrade: upgrades(r)}
	ex.upgrade = ex.upgrade && h.inspected == nil
	if refused := f.admitExchange(a, r, h); refused != nil {
		f.deny(w, h, a, refused)
		return
	}
	if h.requests == 1 {
		_ = h.SetKeepAliveConfig(keepAlive()) // a response may be long in coming
	}
	ex.flight = a.takeOff(h.TCPConn, nil)
	if ex.plain != nil {
		ex.ctx, ex.target = f.base, r.RequestURI // goproxy takes it from the request
		ex.plain.watch.begin(ex.flight)
	} else {
		ex.ctx = r.Context()
		ex.transport = f.transportFor(h, a)
	}
	ex.writer = exchangeWriter{
		ResponseWriter: w, ex: ex, interims: r.ProtoAtLeast(1, 1),
		expects: h.expects,
	}
	defer ex.finish()
	f.carrier.ServeHTTP(&ex.writer, ex.outgoing(r))
	ex.carried = true
	if ex.hijacked || ex.broken == nil && ex.flight.endedBy() == "" {
		ex.writer.end()
		return
	}
	ex.writer.stop()
	h.sending.Store(false) // it is to be cut, not waited for
	// goproxy ends the response in good order; the client must see that it is
	// cut short. Where the connection's end is the body's, a reset says so.
	if w.Header().Get("Content-Length") == "" && !r.ProtoAtLeast(1, 1) {
		_ = h.SetLinger(0) // if it fails, the end is merely polite
	}
	panic(http.ErrAbortHandler) // net/http's way to cut it
}

// admitExchange learns the destination from the request and decides about it.
func (f *front) admitExchange(a *attempt, r *http.Request, h *httpConn) *refusal {
	if refused := h.c.barred(); refused != nil {
		return refused
	}
	if h.inspected != nil {
		return h.inspected.admit(a, r)
	}
	host, port, err := destination(r)
	if err != nil {
		return &refusal{outcome: flow.Outcome(policy.ReasonNoName), denied: true, err: err, hint: "send an absolute http:// URL or a Host header"}
	}
	if h.pinned == nil && h.c.original.IsValid() && !r.URL.IsAbs() && !namesPort(r.Host) {
		port = h.c.original.Port()
	}
	a.rec.HTTP.Path = r.URL.EscapedPath()
	a.aim(host, port, policy.ProtocolHTTP)
	if h.pinned == nil {
		if refused := a.authenticate(r); refused != nil {
			return refused
		}
	}
	if p := h.pinned; p != nil {
		a.query.Via, a.rec.Via = policy.ViaConnect, policy.ViaConnect
		if host != p.host || port != p.port {
			return denial(policy.ReasonNameMismatch, fmt.Errorf("CONNECT %s:%d, and a request for %s:%d in it", p.host, p.port, host, port))
		}
	}
	return a.decide()
}

// destination reads where a request is to go (RFC 9112, section 3.2): the
// authority of an absolute target, else Host. net/http has made r.Host the
// authority of an absolute target already.
func destination(r *http.Request) (policy.Host, uint16, error) {
	bad := func(format string, args ...any) (policy.Host, uint16, error) {
		return policy.Host{}, 0, fmt.Errorf(format, args...)
	}
	authority := r.Host
	if r.URL.IsAbs() {
		authority = r.URL.Host
		switch {
		case !strings.EqualFold(r.URL.Scheme, "http"):
			return bad("the scheme of %.255q is not http; TLS goes through CONNECT", r.URL.Scheme)
		case r.URL.User != nil:
			return bad("the URL carries a user name")
		case r.URL.Opaque != "":
			return bad("the URL has no authority")
		}
	} else if !strings.HasPrefix(r.RequestURI, "/") && !asksServer(r) {
		return bad("the request target %.255q is neither an absolute URL nor a path", r.RequestURI)
	}
	name, port := authority, uint64(80)
	if namesPort(authority) {
		var err error
		i := strings.LastIndexByte(authority, ':')
		digits := authority[i+1:]
		if port, err = strconv.ParseUint(digits, 10, 16); err != nil || port == 0 || digits[0] == '0' {
			return bad("the port of %.255q is not 1 to 65535", authority)
		}
		if name = authority[:i]; strings.Contains(name, ":") && name[0] != '[' {
			return bad("%.255q: an IPv6 address needs brackets", authority) // else its end may be a port, or not
		}
	}
	host, err := policy.ParseHost(name)
	if err != nil {
		return bad("%w", err)
	}
	return host, uint16(port), nil
}

// namesPort reports whether an authority ends in a port, or what should be one.
func namesPort(authority string) bool {
	return strings.LastIndexByte(authority, ':') > strings.LastIndexByte(authority, ']')
}

// scheme is the origin's.
func (ex *exchange) scheme() string {
	if ex.http.inspected != nil {
		return "https"
	}
	return "http"
}

// transportFor returns the transport for what a's decision permits on h.
func (f *front) transportFor(h *httpConn, a *attempt) *http.Transport {
	if h.inspected != nil {
		return h.inspected.transportFor(a)
	}
	return f.pool.transport(a.decision)
}

// asksServer reports whether r is OPTIONS for the server as a whole (RFC 9112,
// section 3.2.4): "*", or an absolute URL without a path.
func asksServer(r *http.Request) bool {
	return r.Method == http.MethodOptions && (r.RequestURI == "*" ||
		r.URL.IsAbs() && r.URL.Path == "" && r.URL.RawQuery == "" && !r.URL.ForceQuery)
}

// outgoing is the request as the origin gets it: to the canonical name that
// was decided on, with the client's own Host, path and end-to-end fields.
func (ex *exchange) outgoing(r *http.Request) *http.Request {
	q := ex.attempt.query
	ctx := ex.ctx //nolint:contextcheck // a plain request has none of its own
	if ex.plain == nil {
		ctx = httptrace.WithClientTrace(r.Context(), ex.trace())
	}
	ctx = context.WithValue(ctx, exchangeKey{}, ex)
	out := r.WithContext(ctx)
	// Its own map: net/http writes to the client's when it reads the rest of a
	// body away, while the transport may still be reading this one.
	out.Trailer = maps.Clone(r.Trailer)
	if len(r.TransferEncoding) > 0 && out.Trailer == nil {
		out.Trailer = http.Header{} // else the transport sends none that were not announced
	}
	// Close is about the client's connection, and the origin's is another. But
	// to keep that one, the transport would ask for a body that the origin has
	// refused already.
	out.Close = ex.writer.expects
	u := *r.URL
	if ex.plain != nil {
		u.Scheme, u.Host = "http", r.Host // for goproxy to look at; see originConn.send
		out.URL = &u
		stripHopByHop(out.Header, false)
		return out
	}
	u.Scheme, u.Host = ex.scheme(), net.JoinHostPort(q.Host.String(), strconv.Itoa(int(q.Port)))
	if asksServer(r) {
		u.Path = "*"
	} else {
		keepPath(&u, r.RequestURI)
	}
	out.URL = &u
	stripHopByHop(out.Header, ex.upgrade)
	if ex.http.inspected != nil {
		keepLength(out)
		stripS3Trailers(out.Trailer)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // else the transport adds its own
	}
	if r.Body != http.NoBody {
		ex.body = &requestBody{ReadCloser: r.Body, writer: &ex.writer, from: r, trailer: out.Trailer, s3: ex.http.inspected != nil}
		out.Body = ex.body
	}
	return out
}

// keepPath makes the path go out byte for byte as it came in, where net/url
// would write it another way.
func keepPath(u *url.URL, target string) {
	path, _, _ := strings.Cut(pathOf(target), "?")
	// An opaque part that begins with two slashes would be read as an authority.
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && path != u.EscapedPath() {
		u.Opaque = path
	}
}

// trace learns which connection the exchange runs on, and relays interim
// responses (RFC 9110, section 15.2).
func (ex *exchange) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			nc := info.Conn
			if t, ok := nc.(*tls.Conn); ok {
				nc = t.NetConn()
			}
			if tcp, ok := nc.(*net.TCPConn); ok {
				ex.reused = info.Reused
				ex.runsOn(tcp)
			}
		},
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			return ex.writer.interim(code, http.Header(header))
		},
	}
}

// runsOn notes the origin's connection, fresh or kept from another exchange.
func (ex *exchange) runsOn(origin *net.TCPConn) {
	a := ex.attempt
	a.rec.Peer = addrPortOf(origin.RemoteAddr())
	if i := ex.http.inspected; i != nil {
		i.peer = a.rec.Peer
	}
	if reason, _ := a.decision.CheckAddress(a.rec.Peer.Addr()); reason != "" {
		a.markAddress(reason, a.rec.Peer.Addr())
	}
	a.meter.begin(origin)
	ex.flight.setOrigin(origin)
	a.reconsider(ex.flight)
	a.open()
}

// dialFor is the transports' dialer: the gate's, for the attempt that the
// transport dials for.
func (f *front) dialFor(ctx context.Context, network, addr string) (_ net.Conn, err error) {
	ex, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		return refuseDial(ctx, network, addr)
	}
	// The transport's dial is not bound to the exchange, which may be over
	// before it. So the dial works on a copy, and is given up with the client:
	// nobody would count it against a limit any more.
	a := &attempt{s: f.s, query: ex.attempt.query, decision: ex.attempt.decision}
	defer func() {
		// The goroutine is net/http's, and a panic would end the process.
		if p := recover(); p != nil {
			f.s.panicked(p)
			err = &refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)}
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ex.ctx, cancel)() //nolint:contextcheck // the dial ends with the client besides
	origin, err := a.connectTCP(ctx)
	if err == nil {
		_ = origin.SetKeepAliveConfig(keepAlive()) // the transport may keep it, and a response be long in coming
	}
	ex.dialled.Store(&a.rec.Times)
	if err != nil {
		return nil, err
	}
	return origin, nil
}

// carryRequest is goproxy's request hook: an exchange that the front has
// allowed goes to its own transport, anything else is refused.
func carryRequest(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	ex, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return r, goproxy.NewResponse(r, goproxy.ContentTypeText, http.StatusForbidden, "sallyport: outside the gate\n")
	}
	ctx.RoundTripper = ex
	return r, nil
}

// RoundTrip asks the origin, for goproxy.
func (ex *exchange) RoundTrip(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
	a := ex.attempt
	start := time.Now()
	resp, err := ex.ask(r)
	ex.writer.settle()
	a.rec.Times.FirstByte = time.Since(start)
	if err != nil {
		ex.failed = ex.blame(err)
		return nil, err
	}
	if ex.failed = ex.check(resp); ex.failed != nil {
		resp.Body.Close()
		return nil, ex.failed
	}
	a.rec.HTTP.Status = resp.StatusCode
	stripHopByHop(resp.Header, resp.StatusCode == http.StatusSwitchingProtocols)
	stripForged(resp.Header)
	if ex.http.inspected != nil {
		spellAsS3(resp.Header)
	}
	if _, ok := resp.Header["Content-Type"]; !ok {
		resp.Header["Content-Type"] = nil // else net/http guesses one
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		ex.switched = resp.Body
		return resp, nil
	}
	ex.answer = originBody{ReadCloser: resp.Body, ex: ex, resp: resp}
	resp.Body = &ex.answer
	return resp, nil
}

func (ex *exchange) ask(r *http.Request) (*http.Response, error) {
	if ex.plain != nil {
		return ex.askPlain(r)
	}
	return ex.transport.RoundTrip(r) //nolint:wrapcheck // blame tells its errors apart
}

// check refuses the responses that can not be passed on: a protocol that
// nobody asked for, and numbers that are no status.
func (ex *exchange) check(resp *http.Response) *refusal {
	switch code := resp.StatusCode; {
	case code == http.StatusSwitchingProtocols:
		return ex.checkSwitch(resp)
	case code < http.StatusOK || code > 999:
		return &refusal{outcome: flow.OutcomeHTTPProtocolError, err: fmt.Errorf("the origin answers with status %d", code)}
	}
	if err := checkFields(resp.Header); err != nil {
		return &refusal{outcome: flow.OutcomeHTTPProtocolError, err: err}
	}
	return nil
}

// carryResponse is goproxy's response hook: where there is none, ours.
func carryResponse(resp *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	if resp != nil {
		return resp
	}
	ex, ok := ctx.Req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return goproxy.NewResponse(ctx.Req, goproxy.ContentTypeText, http.StatusForbidden, "sallyport: outside the gate\n")
	}
	if ex.failed == nil {
		ex.failed = classify(ctx.Error)
	}
	ans := ex.http.answerFor(ex.attempt, ex.failed)
	ex.attempt.rec.HTTP.Status = ans.status
	out := goproxy.NewResponse(ctx.Req, goproxy.ContentTypeText, ans.status, ans.body)
	out.Header = ans.header
	return out
}
