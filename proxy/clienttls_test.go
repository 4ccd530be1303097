package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

// house is a CA with a listener's certificate, and a ClientTLS of both: its
// principals are common names.
type house struct {
	t      *testing.T
	ca     *tls.Certificate
	roots  *x509.CertPool
	config *tls.Config
	refuse atomic.Pointer[error]
}

func newHouse(t *testing.T, auth tls.ClientAuthType) *house {
	t.Helper()
	h := &house{t: t, roots: x509.NewCertPool()}
	h.ca = proxytest.Issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "the house"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	h.roots.AddCert(h.ca.Leaf)
	h.config = &tls.Config{
		Certificates: []tls.Certificate{h.issue(&x509.Certificate{DNSNames: []string{"proxy.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})},
		ClientAuth:   auth, ClientCAs: h.roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
	}
	return h
}

// issue has the CA sign a certificate.
func (h *house) issue(template *x509.Certificate) tls.Certificate {
	h.t.Helper()
	return *proxytest.Issue(h.t, template, h.ca)
}

func (h *house) client(name string) tls.Certificate {
	h.t.Helper()
	return h.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// Config implements [ClientTLS].
func (h *house) Config() *tls.Config { return h.config }

// Principal implements [ClientTLS].
func (h *house) Principal(state *tls.ConnectionState) (string, error) {
	if err := h.refuse.Load(); err != nil {
		return "", *err
	}
	if len(state.PeerCertificates) == 0 {
		return "", nil
	}
	return state.PeerCertificates[0].Subject.CommonName, nil
}

// Stands implements [ClientTLS].
func (h *house) Stands([]*x509.Certificate, time.Time) bool { return h.refuse.Load() == nil }

// speaks is an option for newRig.
func (h *house) speaks(c *Config) { c.Listeners[0].TLS = h }

// tlsTo makes a handshake with the proxy. The test may have the socket under it, too.
func (h *house) tlsTo(r *rig, certs ...tls.Certificate) (*tls.Conn, *net.TCPConn) {
	h.t.Helper()
	under := r.dial()
	c := tls.Client(under, &tls.Config{ServerName: "proxy.test", RootCAs: h.roots, Certificates: certs})
	if err := c.HandshakeContext(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return c, under
}

// tunnel is tunnelTo by TLS.
func (h *house) tunnel(r *rig, port int) (*tls.Conn, *net.TCPConn) {
	h.t.Helper()
	c, under := h.tlsTo(r)
	fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	if resp := readHead(h.t, c); resp.StatusCode != http.StatusOK {
		h.t.Fatalf("answered %s", resp.Status)
	}
	return c, under
}

func TestClientTLS(t *testing.T) {
	h := newHouse(t, tls.VerifyClientCertIfGiven)
	port := tcpOrigin(t, echo)
	web := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the page") })
	r := newRig(t, strings.ReplaceAll(allow("tcp", port, "origin.test")+allow("http", web, "web.test"), "    protocol", "    sources: [known]\n    protocol")+
		"sources:\n  - {name: known, principals: [payments]}\n", h.speaks)
	r.resolver.set("origin.test", "127.0.0.1")
	r.resolver.set("web.test", "127.0.0.1")

	c, under := h.tlsTo(r, h.client("payments"))
	fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\nhello", port)
	if resp := readHead(t, c); resp.StatusCode != http.StatusOK {
		t.Fatalf("answered %s", resp.Status)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := r.Counts(); n.Active != 1 || n.Accepted != 1 {
		t.Errorf("one connection counts as %+v", n)
	}
	c.Close()
	rec := r.events.ended(t, "origin.test")
	if rec.Principal != "payments" || rec.Client != addrPortOf(under.LocalAddr()) || rec.Listener.String() != r.addr || rec.Outcome != flow.OutcomeOK {
		t.Errorf("record %+v", rec)
	}
	if rec.ClientTCP.RTT == 0 {
		t.Error("nothing is known of the client's connection")
	}

	// Both kinds of client that keep their connection.
	for _, name := range []string{"payments", "batch"} {
		tr := &http.Transport{
			Proxy:           http.ProxyURL(mustURL("https://proxy.test:1")),
			TLSClientConfig: &tls.Config{RootCAs: h.roots, Certificates: []tls.Certificate{h.client(name)}},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, r.addr)
			},
		}
		t.Cleanup(tr.CloseIdleConnections)
		want := map[string]int{"payments": 200, "batch": 403}[name]
		for range 3 {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://web.test:%d/", web), http.NoBody)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != want {
				t.Errorf("%s: %d %q, %v", name, resp.StatusCode, body, err)
			}
		}
	}
	// And who shows none is asked for another proof.
	c, _ = h.tlsTo(r)
	fmt.Fprintf(c, "GET http://web.test:%d/ HTTP/1.1\r\nHost: web.test\r\n\r\n", web)
	if resp := readHead(t, c); resp.StatusCode != http.StatusProxyAuthRequired {
		t.Errorf("answered %s", resp.Status)
	}
}

// TestClientTLSAndCredentials: two proofs must be of one principal.
func TestClientTLSAndCredentials(t *testing.T) {
	h := newHouse(t, tls.RequireAndVerifyClientCert)
	web := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	r := newRig(t, allow("http", web, "web.test"), h.speaks)
	r.deps.Authenticator = passwords{"payments": "p-secret", "batch": "b-secret"}
	r.resolver.set("web.test", "127.0.0.1")
	for _, tt := range []struct {
		user, password string
		status         int
	}{{"payments", "p-secret", 200}, {"batch", "b-secret", 407}, {"payments", "wrong", 407}, {"", "", 200}} {
		c, _ := h.tlsTo(r, h.client("payments"))
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://web.test:%d/", web), http.NoBody)
		if tt.user != "" {
			req.SetBasicAuth(tt.user, tt.password)
			req.Header["Proxy-Authorization"] = req.Header["Authorization"]
			delete(req.Header, "Authorization")
		}
		if err := req.WriteProxy(c); err != nil {
			t.Fatal(err)
		}
		if resp := readHead(t, c); resp.StatusCode != tt.status {
			t.Errorf("%s with %s: %s", tt.user, tt.password, resp.Status)
		}
	}
}

type passwords map[string]string

func (p passwords) Authenticate(_ context.Context, _ policy.Source, user, password string) (string, func() bool) {
	if want, ok := p[user]; ok && want == password {
		return user, nil
	}
	return "", nil
}

func (p passwords) Knows(user string) bool { _, ok := p[user]; return ok }

// TestClientTLSBehindBalancer: the PROXY header comes first, in the clear, in
// one piece with the hello or in several.
func TestClientTLSBehindBalancer(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, h.speaks, func(c *Config) {
		c.Listeners[0].ProxyProtocol, c.Listeners[0].ProxyFrom = ProxyProtocolRequired, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	under := r.dial()
	c := tls.Client(&behindHeader{TCPConn: under, header: "PROXY TCP4 192.0.2.7 192.0.2.8 4711 3128\r\n"}, &tls.Config{ServerName: "proxy.test", RootCAs: h.roots})
	fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	readHead(t, c)
	c.Close()
	if rec := r.events.ended(t, "origin.test"); rec.Client.String() != "192.0.2.7:4711" {
		t.Errorf("the client is %s", rec.Client)
	}
}

// behindHeader sends a header with the first that is written.
type behindHeader struct {
	*net.TCPConn
	header string
}

func (b *behindHeader) Write(p []byte) (int, error) {
	all := append([]byte(b.header), p...)
	n, err := b.TCPConn.Write(all)
	n -= len(b.header)
	b.header = ""
	return max(n, 0), err
}

// TestBridgeEnds: however one end ends, the other learns of it, and the record
// says who it was.
func TestBridgeEnds(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	t.Run("client ends first", func(t *testing.T) {
		port := tcpOrigin(t, func(c *net.TCPConn) {
			all, _ := io.ReadAll(c)
			fmt.Fprintf(c, "got %d", len(all))
		})
		r := tcpRig(t, port, h.speaks)
		c, _ := h.tunnel(r, port)
		io.WriteString(c, "twelve bytes")
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "got 12" {
			t.Errorf("%q, %v", got, err)
		}
		if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeOK || rec.BytesSent != 12 || rec.BytesReceived != 6 {
			t.Errorf("record %+v", rec)
		}
	})
	t.Run("origin ends first", func(t *testing.T) {
		got := make(chan string, 1)
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.WriteString(c, "all I have")
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			got <- string(all)
		})
		r := tcpRig(t, port, h.speaks)
		c, _ := h.tunnel(r, port)
		if all, err := io.ReadAll(c); err != nil || string(all) != "all I have" {
			t.Errorf("%q, %v", all, err) // an end without close_notify would be an error
		}
		io.WriteString(c, "and I, later")
		c.Close()
		if all := <-got; all != "and I, later" {
			t.Errorf("the origin got %q", all)
		}
		if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeOK {
			t.Errorf("record %+v", rec)
		}
	})
	for _, tt := range []struct {
		name string
		say  func(c *tls.Conn) // what the client does before it goes
	}{{"client resets", func(*tls.Conn) {}}, {"client ends and resets", func(c *tls.Conn) { c.CloseWrite() }}} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan error, 1)
			port := tcpOrigin(t, func(c *net.TCPConn) {
				io.ReadFull(c, make([]byte, 5))
				io.WriteString(c, "x")
				_, err := io.Copy(io.Discard, c)
				for err == nil { // it has ended; writing tells more
					_, err = c.Write([]byte("more"))
					time.Sleep(time.Millisecond) //nolint:forbidigo // polling with the connection's deadline
				}
				got <- err
			})
			r := tcpRig(t, port, h.speaks)
			c, under := h.tunnel(r, port)
			io.WriteString(c, "hello")
			io.ReadFull(c, make([]byte, 1))
			tt.say(c)
			under.SetLinger(0)
			under.Close()
			if err := <-got; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the origin sees %v", err)
			}
			r.events.ended(t, "origin.test")
		})
	}
	t.Run("origin resets", func(t *testing.T) {
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 5))
			io.WriteString(c, "x")
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		})
		r := tcpRig(t, port, h.speaks)
		c, under := h.tunnel(r, port)
		io.WriteString(c, "hello")
		io.ReadFull(c, make([]byte, 1))
		io.WriteString(c, "!")
		if _, err := io.Copy(io.Discard, under); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
		if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeConnectionTerminated || rec.EndedBy != flow.EndedByOrigin {
			t.Errorf("record %+v", rec)
		}
	})
	t.Run("what is not TLS, later", func(t *testing.T) {
		port := tcpOrigin(t, echo)
		r := tcpRig(t, port, h.speaks)
		c, under := h.tunnel(r, port)
		io.WriteString(c, "hello")
		io.ReadFull(c, make([]byte, 5))
		io.WriteString(under, strings.Repeat("this is no TLS", 10))
		if _, err := io.Copy(io.Discard, c); err == nil || !strings.Contains(err.Error(), "remote error") {
			t.Errorf("the client sees %v", err)
		}
		r.events.ended(t, "origin.test")
	})
}

// TestBridgeIntegrity carries a stream each way at once, and compares.
func TestBridgeIntegrity(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	const size = 24 << 20
	down := make([]byte, size)
	rand.Read(down)
	sum := make(chan [sha256.Size]byte, 1)
	port := tcpOrigin(t, func(c *net.TCPConn) {
		var wg sync.WaitGroup
		wg.Go(func() {
			digest := sha256.New()
			io.Copy(digest, c)
			sum <- [sha256.Size]byte(digest.Sum(nil))
		})
		c.Write(down)
		c.CloseWrite()
		wg.Wait()
	})
	r := tcpRig(t, port, h.speaks)
	c, _ := h.tunnel(r, port)
	up := make([]byte, size)
	rand.Read(up)
	var wg sync.WaitGroup
	wg.Go(func() {
		c.Write(up)
		c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	wg.Wait()
	if err != nil || !bytes.Equal(got, down) {
		t.Errorf("%d bytes came down, %v", len(got), err)
	}
	if <-sum != sha256.Sum256(up) {
		t.Error("what went up is not what was sent")
	}
	if rec := r.events.ended(t, "origin.test"); rec.BytesReceived != size || rec.BytesSent != size || rec.Outcome != flow.OutcomeOK {
		t.Errorf("record %+v", rec)
	}
}

// TestBridgeSlowReader: who reads slowly is not idle, and who reads nothing
// any more is let go.
func TestBridgeSlowReader(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	const size = 64 << 20
	port := tcpOrigin(t, func(c *net.TCPConn) { c.Write(make([]byte, size)) })
	idle := 2 * time.Second
	r := tcpRig(t, port, h.speaks, func(c *Config) { c.Timeouts.Idle = idle })
	c, under := h.tunnel(r, port)
	under.SetReadBuffer(64 << 10)
	got := 0
	for start := time.Now(); time.Since(start) < idle*3/2; {
		n, err := c.Read(make([]byte, 16<<10))
		if got += n; err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // it reads slowly
	}
	waitFor(t, func() bool { return r.Active() == 0 })
	if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByIdle {
		t.Errorf("record %+v", rec)
	}
}

// TestBridgeDrain: a tunnel lives on in the drain, and is cut at its end.
func TestBridgeDrain(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	port := tcpOrigin(t, echo)
	t.Run("ends", func(t *testing.T) {
		r := tcpRig(t, port, h.speaks, func(c *Config) { c.Timeouts.Drain = 15 * time.Second })
		c, _ := h.tunnel(r, port)
		r.stop()
		io.WriteString(c, "still here")
		if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Error(err)
		}
		<-r.done
		if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeOK || rec.BytesSent != 10 {
			t.Errorf("record %+v", rec)
		}
	})
	t.Run("is cut", func(t *testing.T) {
		r := tcpRig(t, port, h.speaks, func(c *Config) { c.Timeouts.Drain = 100 * time.Millisecond })
		c, _ := h.tunnel(r, port)
		stalled := r.dial()
		hello, _ := clientHelloOf("proxy.test")
		stalled.Write(hello)
		waitFor(t, func() bool { return r.Active() == 2 })
		r.stop()
		<-r.done
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByDrain {
			t.Errorf("record %+v", rec)
		}
	})
}

// clientHelloOf captures the first bytes of a handshake.
func clientHelloOf(name string) ([]byte, error) {
	near, far := net.Pipe()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: name}).Handshake()
		near.Close()
	}()
	defer far.Close()
	buf := make([]byte, 8<<10)
	n, err := far.Read(buf)
	return buf[:n], err
}

// TestClientTLSRefused has clients that must not come in, and what they and the
// record are told.
func TestClientTLSRefused(t *testing.T) {
	h := newHouse(t, tls.RequireAndVerifyClientCert)
	strange := newHouse(t, tls.NoClientCert)
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, h.speaks, func(c *Config) { c.Timeouts.Hello = 700 * time.Millisecond })
	hello, err := clientHelloOf("proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	withCert := func(versions uint16, certs ...tls.Certificate) func(*net.TCPConn) string {
		return func(under *net.TCPConn) string {
			c := tls.Client(under, &tls.Config{ServerName: "proxy.test", RootCAs: h.roots, MaxVersion: versions, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(certs) == 0 {
					return new(tls.Certificate), nil
				}
				return &certs[0], nil
			}})
			// In TLS 1.3 the client has finished, and sent, before it is judged.
			fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
			_, err := io.ReadAll(c)
			return fmt.Sprint(err)
		}
	}
	bytesOf := func(p []byte) func(*net.TCPConn) string {
		return func(c *net.TCPConn) string {
			c.Write(p)
			all, err := io.ReadAll(c)
			return fmt.Sprint(string(all), err)
		}
	}
	now := time.Now()
	serverAuth := h.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "x"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	expired := h.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "x"}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	huge := h.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "x"}, ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: make([]byte, 80<<10)}}})
	for _, tt := range []struct {
		name, sees, outcome string
		client              func(*net.TCPConn) string
	}{
		{"no certificate", "certificate required", "credentials", withCert(tls.VersionTLS13)},
		{"no certificate, TLS 1.2", "remote error: tls:", "credentials", withCert(tls.VersionTLS12)},
		{"another CA", "unknown certificate authority", "credentials", withCert(tls.VersionTLS13, strange.client("payments"))},
		{"a server's certificate", "bad certificate", "credentials", withCert(tls.VersionTLS13, serverAuth)},
		{"expired", "expired certificate", "credentials", withCert(tls.VersionTLS13, expired)},
		{"a huge certificate", "", "malformed_hello", withCert(tls.VersionTLS13, huge)},
		{"HTTP", "https://", "not_tls", bytesOf([]byte("CONNECT a.test:443 HTTP/1.1\r\n\r\n"))},
		{"bytes", "<nil>", "not_tls", bytesOf([]byte{1, 2, 3})},
		{"garbage as TLS", "", "tls_protocol_error", bytesOf(append([]byte{0x16, 3, 1, 0, 4, 9, 9, 9, 9}, make([]byte, 100)...))},
		{"a record too long", "", "tls_protocol_error", bytesOf([]byte{0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 0})},
		{"a message that never ends", "", "", func(c *net.TCPConn) string {
			// A hello of 16 MiB by its own account, in records as large as they get.
			rec := append([]byte{0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, make([]byte, 1<<14-4)...)
			for range 64 {
				if _, err := c.Write(rec); err != nil {
					break
				}
			}
			_, err := io.ReadAll(c)
			return fmt.Sprint(err)
		}},
		{"half a hello, and silence", "", "connection_timeout", bytesOf(hello[:len(hello)/2])},
		{"a hello, and silence", "", "connection_timeout", bytesOf(hello)},
		{"a byte now and then", "", "connection_timeout", func(c *net.TCPConn) string {
			for i := range hello {
				if _, err := c.Write(hello[i : i+1]); err != nil {
					break
				}
				time.Sleep(20 * time.Millisecond) //nolint:forbidigo // it is slow
			}
			return ""
		}},
		{"an old version", "protocol version", "tls_protocol_error", func(under *net.TCPConn) string {
			return fmt.Sprint(tls.Client(under, &tls.Config{ServerName: "proxy.test", RootCAs: h.roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake())
		}},
		{"HTTP/2 alone", "no application protocol", "tls_protocol_error", func(under *net.TCPConn) string {
			return fmt.Sprint(tls.Client(under, &tls.Config{ServerName: "proxy.test", RootCAs: h.roots, NextProtos: []string{"h2"}}).Handshake())
		}},
		{"it does not trust us", "unknown authority", "tls_alert_received", func(under *net.TCPConn) string {
			return fmt.Sprint(tls.Client(under, &tls.Config{ServerName: "proxy.test", RootCAs: strange.roots}).Handshake())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, _ := r.events.list()
			c := r.dial()
			if sees := tt.client(c); !strings.Contains(sees, tt.sees) {
				t.Errorf("the client sees %q", sees)
			}
			c.Close()
			all, more := r.events.list()
			for len(all) == len(before) {
				<-more
				all, more = r.events.list()
			}
			rec := all[len(before)].Record
			if tt.outcome != "" && string(rec.Outcome) != tt.outcome || rec.Principal != "" {
				t.Errorf("recorded as %s: %s", rec.Outcome, rec.Error)
			}
			if len(all) != len(before)+1 {
				t.Errorf("%d records", len(all)-len(before))
			}
		})
	}
	waitFor(t, func() bool { return r.Active() == 0 })
	t.Run("silence", func(t *testing.T) {
		before, _ := r.events.list()
		c := r.dial()
		io.Copy(io.Discard, c)
		r.dial().Close()
		waitFor(t, func() bool { return r.Active() == 0 })
		if all, _ := r.events.list(); len(all) != len(before) {
			t.Error("a health check is recorded")
		}
	})
}

// TestClientTLSJudged: who is refused by name gets an alert.
func TestClientTLSJudged(t *testing.T) {
	h := newHouse(t, tls.RequireAndVerifyClientCert)
	r := tcpRig(t, 1, h.speaks)
	revoked := errors.New("it was revoked")
	h.refuse.Store(&revoked)
	c := tls.Client(r.dial(), &tls.Config{ServerName: "proxy.test", RootCAs: h.roots, Certificates: []tls.Certificate{h.client("payments")}})
	if _, err := io.ReadAll(c); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("the client sees %v", err)
	}
	if rec := r.events.ended(t, ""); rec.Outcome != flow.Outcome(policy.ReasonCredentials) || !strings.Contains(rec.Error, "it was revoked") {
		t.Errorf("recorded as %s: %s", rec.Outcome, rec.Error)
	}
}

// TestClientTLSLimits: the limits count who is behind the TLS, once, and say so
// inside it.
func TestClientTLSLimits(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, h.speaks, func(c *Config) { c.Limits.PerSource = 2 })
	first, _ := h.tunnel(r, port)
	h.tunnel(r, port)
	c, _ := h.tlsTo(r)
	fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	if resp := readHead(t, c); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("answered %s", resp.Status)
	}
	c.Close()
	first.Close()
	waitFor(t, func() bool { return r.Active() == 1 })
	h.tunnel(r, port)
}

// TestClientTLSRenegotiation: nobody begins anew.
func TestClientTLSRenegotiation(t *testing.T) {
	h := newHouse(t, tls.NoClientCert)
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, h.speaks)
	under := r.dial()
	c := tls.Client(under, &tls.Config{ServerName: "proxy.test", RootCAs: h.roots, MaxVersion: tls.VersionTLS12})
	fmt.Fprintf(c, "CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	readHead(t, c)
	hello, _ := clientHelloOf("proxy.test")
	under.Write(hello) // in the clear, where it is least expected
	if _, err := io.ReadAll(c); err == nil {
		t.Error("it goes on")
	}
	r.events.ended(t, "origin.test")
}

// TestPairIsOurs: whoever connects in between is not taken for the other end.
func TestPairIsOurs(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	stranger, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := acceptFrom(ln.(*net.TCPListener), near.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(far, "ours\n")
	if line, err := bufio.NewReader(near).ReadString('\n'); line != "ours\n" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := io.ReadAll(stranger); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stranger sees %v", err)
	}
}
