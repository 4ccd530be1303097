package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// proxyStatus is what a Sallyport says of a request that it does not carry
// (RFC 9209).
type proxyStatus struct {
	ours   bool
	reason string
	flow   string
	client string // the address that it sees, where it tells
}

func parseProxyStatus(h http.Header) (s proxyStatus) {
	for _, value := range h.Values("Proxy-Status") {
		rest, ok := strings.CutPrefix(value, "sallyport;")
		if !ok {
			continue
		}
		s.ours = true
		_, details, _ := strings.Cut(rest, `details="`)
		details, _, _ = strings.Cut(details, `"`)
		for i, word := range strings.Fields(details) {
			key, value, found := strings.Cut(word, "=")
			switch {
			case i == 0 && !found:
				s.reason = word
			case key == "flow":
				s.flow = value
			case key == "client":
				s.client = value
			}
		}
	}
	return s
}

// proxyReply is the answer to one request to the proxy.
type proxyReply struct {
	proxyStatus
	code int // 0 without an answer
	err  error
}

// targetSeen is a target through the proxy.
type targetSeen struct {
	target
	reply  proxyReply
	tlsErr error
	issuer string
}

// rawSeen is what became of TLS that was sent to the proxy as if it were the
// destination.
type rawSeen struct {
	tried bool
	alert byte // 0 for none
	err   error
}

// proxySeen is what the proxy did.
type proxySeen struct {
	url           *url.URL
	err           error // of the URL
	local, remote netip.AddrPort
	hello         proxyReply // CONNECT to a name that nobody may have
	targets       []targetSeen
	raw           rawSeen
	credentials   []refusalSeen // what it must never carry
}

// refusalSeen is the answer to a request that must be refused.
type refusalSeen struct {
	what  string
	reply proxyReply
}

// proxyClient speaks to one proxy.
type proxyClient struct {
	*prober
	url   *url.URL
	roots *x509.CertPool // nil for the system's
}

// throughProxy asks the proxy everything at once.
func (p *prober) throughProxy(ctx context.Context, text string, targets []target, env environ) (seen proxySeen) {
	if text == "" {
		return seen
	}
	if seen.url, seen.err = parseProxy(text); seen.err != nil {
		return seen
	}
	c := &proxyClient{prober: p, url: seen.url, roots: rootsOf(env)}
	seen.targets = make([]targetSeen, len(targets))
	seen.credentials = []refusalSeen{{what: "CONNECT 169.254.170.2:80"}, {what: "GET http://169.254.170.2/"}, {what: "CONNECT 169.254.169.254:80"}}
	var all sync.WaitGroup
	all.Go(func() {
		var conn net.Conn
		if seen.hello, conn = c.ask(ctx, "CONNECT", joinPort(probeName, 443)); conn != nil {
			seen.local, seen.remote = tcpAddr(conn.LocalAddr()), tcpAddr(conn.RemoteAddr())
			conn.Close() //nolint:errcheck // there is nothing left to lose
		}
	})
	all.Go(func() { seen.raw = c.rawTLS(ctx) })
	for i := range seen.credentials {
		all.Go(func() {
			r := &seen.credentials[i]
			method, what, _ := strings.Cut(r.what, " ")
			r.reply = c.once(ctx, method, what)
		})
	}
	for i, t := range targets {
		all.Go(func() { seen.targets[i] = c.reach(ctx, t) })
	}
	all.Wait()
	return seen
}

// open connects to the proxy.
func (c *proxyClient) open(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx, "tcp", c.url.Host)
	if err != nil || c.url.Scheme != "https" {
		return conn, err
	}
	secured := tls.Client(conn, &tls.Config{ServerName: c.url.Hostname(), RootCAs: c.roots, MinVersion: tls.VersionTLS12})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// ask sends one request. The connection is nil where there is none, and the
// tunnel where the answer is 2xx to CONNECT; the caller closes it.
func (c *proxyClient) ask(ctx context.Context, method, what string) (r proxyReply, conn net.Conn) {
	conn, err := c.open(ctx)
	if err != nil {
		return proxyReply{err: err}, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(what, "http://"), "/")
	head := method + " " + what + " HTTP/1.1\r\nHost: " + host + "\r\n"
	if user := c.url.User; user != nil {
		password, _ := user.Password()
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return proxyReply{err: err}, conn
	}
	// The other end of a tunnel waits for us, so that nothing stays behind in
	// the reader; and nobody reads the body of what must not be answered.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), &http.Request{Method: method}) //nolint:bodyclose // it is the connection's, which the caller closes
	if err != nil {
		return proxyReply{err: err}, conn
	}
	return proxyReply{code: resp.StatusCode, proxyStatus: parseProxyStatus(resp.Header)}, conn
}

// once is ask for those who want the answer alone.
func (c *proxyClient) once(ctx context.Context, method, what string) proxyReply {
	r, conn := c.ask(ctx, method, what)
	if conn != nil {
		conn.Close() //nolint:errcheck // there is nothing left to lose
	}
	return r
}

// reach opens a tunnel to a target and, where it speaks TLS, looks at its
// certificate as clients do.
func (c *proxyClient) reach(ctx context.Context, t target) targetSeen {
	seen := targetSeen{target: t}
	var conn net.Conn
	if seen.reply, conn = c.ask(ctx, "CONNECT", t.String()); conn == nil {
		return seen
	}
	defer conn.Close() //nolint:errcheck // there is nothing left to lose
	if seen.reply.code != http.StatusOK || !t.tls {
		return seen
	}
	secured := tls.Client(conn, &tls.Config{ServerName: t.host, RootCAs: c.roots, MinVersion: tls.VersionTLS12})
	seen.tlsErr = secured.HandshakeContext(ctx)
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](seen.tlsErr); ok && len(bad.UnverifiedCertificates) > 0 {
		seen.issuer = bad.UnverifiedCertificates[0].Issuer.String()
	} else if certs := secured.ConnectionState().PeerCertificates; len(certs) > 0 {
		seen.issuer = certs[0].Issuer.String()
	}
	return seen
}

// rawTLS sends the proxy a ClientHello, as redirected and steered clients do.
func (c *proxyClient) rawTLS(ctx context.Context) rawSeen {
	if c.url.Scheme != "http" {
		return rawSeen{}
	}
	conn, err := c.dial(ctx, "tcp", c.url.Host)
	if err != nil {
		return rawSeen{tried: true, err: err}
	}
	defer conn.Close() //nolint:errcheck // there is nothing left to lose
	tap := &firstBytes{Conn: conn}
	err = tls.Client(tap, &tls.Config{ServerName: probeName, MinVersion: tls.VersionTLS12}).HandshakeContext(ctx)
	return rawSeen{tried: true, alert: tap.alert(), err: err}
}

// firstBytes keeps the beginning of what was read.
type firstBytes struct {
	net.Conn
	got []byte
}

// Read implements io.Reader.
func (f *firstBytes) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.got = append(f.got, p[:min(n, max(0, 7-len(f.got)))]...)
	return n, err
}

// alert is the fatal alert (RFC 8446, section 6) that was read first.
func (f *firstBytes) alert() byte {
	if len(f.got) == 7 && f.got[0] == 0x15 && f.got[5] == 2 {
		return f.got[6]
	}
	return 0
}

func tcpAddr(addr net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// rootsOf are the roots that an AWS client trusts: its bundle's, else nil for
// the system's, which SSL_CERT_FILE names where it is set.
func rootsOf(env environ) *x509.CertPool {
	path := env.get("AWS_CA_BUNDLE")
	if path == "" {
		return nil
	}
	text, err := readBounded(path, maxPEM)
	if err != nil {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil
	}
	return pool
}

// text says how a request to the proxy ended.
func (r proxyReply) text() string {
	switch {
	case r.err != nil:
		return failureText(r.err)
	case r.reason != "":
		return fmt.Sprintf("%d, %s", r.code, r.reason)
	}
	return strconv.Itoa(r.code)
}

// failureText words an error without addresses and URLs, which may be secret.
func failureText(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if got, detail := responseOf(err); got == silent {
		return "no answer in time"
	} else if got != broken {
		return detail
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection ended without an answer"
	}
	return fmt.Sprint(cause(err))
}
