package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// webRig is a proxy under a policy that allows plain HTTP to web.test on port.
func webRig(t *testing.T, port int, opts ...func(*Config)) *rig {
	t.Helper()
	r := newRig(t, allow("http", port, "web.test"), opts...)
	r.resolver.set("web.test", "127.0.0.1")
	return r
}

// briefly lets tests see what happens when patience ends.
func briefly(c *Config) { c.Timeouts.Hello = 300 * time.Millisecond }

// wire is an origin that speaks HTTP by hand: serve gets each request's head
// as it came, and says whether the connection goes on.
func wire(t *testing.T, serve func(head string, c *net.TCPConn, br *bufio.Reader) bool) int {
	t.Helper()
	return tcpOrigin(t, func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		for {
			head, err := readRawHead(br)
			if err != nil || !serve(head, c, br) {
				return
			}
		}
	})
}

func readRawHead(br *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String(), err //nolint:wrapcheck // a test's
		}
	}
}

// mirror answers each request with its own head as the body.
func mirror(head string, c *net.TCPConn, _ *bufio.Reader) bool {
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(head), head)
	return true
}

// canned is an origin that says the same to everyone.
func canned(text string) func(string, *net.TCPConn, *bufio.Reader) bool {
	return func(_ string, c *net.TCPConn, _ *bufio.Reader) bool {
		io.WriteString(c, text)
		return strings.Contains(text, "Content-Length")
	}
}

// get is a request for path at web.test, the last on its connection.
func get(port int, path string, fields ...string) string {
	return fmt.Sprintf("GET http://web.test:%d%s HTTP/1.1\r\nHost: web.test:%d\r\nConnection: close\r\n%s\r\n", port, path, port, lines(fields))
}

func lines(fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	return strings.Join(fields, "\r\n") + "\r\n"
}

// bodyOf cuts the head off a response.
func bodyOf(response string) string {
	_, body, _ := strings.Cut(response, "\r\n\r\n")
	return body
}

// reply reads one response of a connection that goes on.
func reply(t *testing.T, br *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("reading the response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the body of %s: %v", resp.Status, err)
	}
	return resp, string(body)
}

func TestHTTPForms(t *testing.T) {
	v4 := wire(t, mirror)
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on loopback: ", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "v6 %s", r.Host) })}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	v6 := ln.Addr().(*net.TCPAddr).Port
	r := newRig(t, allow("http", v4, "web.test")+fmt.Sprintf("  - {name: net, cidrs: [127.0.0.0/8, '::1/128'], ports: [%d, %d], protocol: http}\n", v4, v6))
	r.resolver.set("web.test", "127.0.0.1")
	tests := []struct{ name, request, want, host string }{
		{"absolute", fmt.Sprintf("GET http://web.test:%d/p?q HTTP/1.1\r\nHost: web.test:%d\r\n", v4, v4), fmt.Sprintf("GET /p?q HTTP/1.1\r\nHost: web.test:%d\r\n", v4), "web.test"},
		{"origin", fmt.Sprintf("GET /p?q HTTP/1.1\r\nHost: web.test:%d\r\n", v4), fmt.Sprintf("GET /p?q HTTP/1.1\r\nHost: web.test:%d\r\n", v4), "web.test"},
		{"upper case and a dot", fmt.Sprintf("GET HTTP://WEB.Test.:%d HTTP/1.1\r\nHost: x\r\n", v4), fmt.Sprintf("GET / HTTP/1.1\r\nHost: WEB.Test.:%d\r\n", v4), "web.test"},
		{"another Host", fmt.Sprintf("GET http://web.test:%d/ HTTP/1.1\r\nHost: evil.test\r\n", v4), fmt.Sprintf("Host: web.test:%d\r\n", v4), "web.test"},
		{"HTTP/1.0 without Host", fmt.Sprintf("GET http://web.test:%d/ HTTP/1.0\r\n", v4), fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n", v4), "web.test"},
		{"IPv4", fmt.Sprintf("GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n", v4), fmt.Sprintf("Host: 127.0.0.1:%d\r\n", v4), "127.0.0.1"},
		{"IPv6", fmt.Sprintf("GET http://[::1]:%d/ HTTP/1.1\r\nHost: x\r\n", v6), fmt.Sprintf("v6 [::1]:%d", v6), "::1"},
		{"IPv6 by Host", fmt.Sprintf("GET / HTTP/1.1\r\nHost: [::1]:%d\r\n", v6), fmt.Sprintf("v6 [::1]:%d", v6), "::1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.exchange(tt.request + "Connection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 200") && !strings.HasPrefix(got, "HTTP/1.0 200") || !strings.Contains(bodyOf(got), tt.want) {
				t.Errorf("got %q, want a body with %q", got, tt.want)
			}
			if strings.Contains(got, "evil") {
				t.Error("the origin saw the other name")
			}
			rec := r.events.ended(t, tt.host)
			if rec.Verdict != policy.Allow || rec.Outcome != flow.OutcomeOK || rec.Via != policy.ViaHTTP {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// TestHTTPKeepAlive sends requests for several hosts over one connection:
// each is decided and recorded by itself, and a denied one ends nothing.
func TestHTTPKeepAlive(t *testing.T) {
	one := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one "+r.URL.Path) })
	two := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "two "+r.URL.Path) })
	r := newRig(t, allow("http", one, "one.test")+allow("http", two, "two.test"))
	r.resolver.set("one.test", "127.0.0.1")
	r.resolver.set("two.test", "127.0.0.1")
	c := r.dial()
	br := bufio.NewReader(c)
	steps := []struct {
		host   string
		port   int
		status int
		body   string
	}{
		{"evil.test", one, 403, "is denied"},
		{"one.test", one, 200, "one /1"},
		{"two.test", two, 200, "two /2"},
		{"one.test", two, 403, "is denied"},
		{"one.test", one, 200, "one /4"},
		{"bad host", one, 400, "Bad Request"},
	}
	for i, s := range steps {
		fmt.Fprintf(c, "GET http://%s:%d/%d HTTP/1.1\r\nHost: x\r\n\r\n", s.host, s.port, i)
		resp, body := reply(t, br, "GET")
		if resp.StatusCode != s.status || !strings.Contains(body, s.body) {
			t.Errorf("%s:%d: %s %q", s.host, s.port, resp.Status, body)
		}
	}
	waitFor(t, func() bool { return r.Active() == 0 })
	var got []string
	all, _ := r.events.list()
	for _, e := range all {
		if e.Kind != flow.Opened {
			got = append(got, fmt.Sprintf("%s %s %s %d", e.Record.Host, e.Record.Verdict, e.Record.Outcome, e.Record.HTTP.Status))
		}
	}
	want := []string{"evil.test deny no_rule 403", "one.test allow ok 200", "two.test allow ok 200", "one.test deny no_rule 403", "one.test allow ok 200", " deny no_name 400"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got)\n%s", diff)
	}
}

// TestHTTPPipelined sends two requests in one write.
func TestHTTPPipelined(t *testing.T) {
	port := wire(t, mirror)
	r := webRig(t, port)
	c := r.send(fmt.Sprintf("GET /1 HTTP/1.1\r\nHost: web.test:%d\r\n\r\nGET /2 HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port, port))
	br := bufio.NewReader(c)
	for _, want := range []string{"GET /1 ", "GET /2 "} {
		if _, body := reply(t, br, "GET"); !strings.HasPrefix(body, want) {
			t.Errorf("got %q, want %q", body, want)
		}
	}
}

// TestHTTPTargets holds request targets to the byte: origins tell resources
// apart by spellings that net/url would rewrite.
func TestHTTPTargets(t *testing.T) {
	port := wire(t, mirror)
	r := webRig(t, port)
	for _, target := range []string{
		"/", "//", "//a//b", "/a/../b", "/%2e%2e/", "/%2E%2f", "/a|b", "/a{b}", "/a^b`c", `/a"b`, `/a\b`, "/a<b>", "/a#b", "/é", "/%c3%a9",
		"/a%20b", "/a+b", "/~user", "/:@!$&'()*+,;=", "/?", "/?a;b", "/?a=%zz&b|c", "/??", "/?a#b", "/a?b=c?d", "/%7Ea", "/a%2Fb", "/./a", "/a:b",
		"/|?x|y", "/%41",
	} {
		for name, form := range map[string]string{"absolute": fmt.Sprintf("http://web.test:%d", port), "origin": ""} {
			got := r.exchange(fmt.Sprintf("GET %s%s HTTP/1.1\r\nHost: web.test:%d\r\nConnection: close\r\n\r\n", form, target, port))
			line, _, _ := strings.Cut(bodyOf(got), "\r\n")
			if want := "GET " + target + " HTTP/1.1"; line != want {
				t.Errorf("%s form: the origin got %q, want %q (%.60q)", name, line, want, got)
			}
		}
	}
	tests := []struct{ request, want string }{
		{"OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"},
		{fmt.Sprintf("OPTIONS http://web.test:%d HTTP/1.1", port), "OPTIONS * HTTP/1.1"},
		{fmt.Sprintf("OPTIONS http://web.test:%d/ HTTP/1.1", port), "OPTIONS / HTTP/1.1"},
		{fmt.Sprintf("OPTIONS http://web.test:%d?x HTTP/1.1", port), "OPTIONS /?x HTTP/1.1"},
		{fmt.Sprintf("GET http://web.test:%d HTTP/1.1", port), "GET / HTTP/1.1"},
		{fmt.Sprintf("GET http://web.test:%d?x HTTP/1.1", port), "GET /?x HTTP/1.1"},
		{"PROPFIND /dav/ HTTP/1.1", "PROPFIND /dav/ HTTP/1.1"},
		{"get /lower HTTP/1.1", "get /lower HTTP/1.1"},
		{"TRACE / HTTP/1.1", "TRACE / HTTP/1.1"},
	}
	for _, tt := range tests {
		got := r.exchange(fmt.Sprintf("%s\r\nHost: web.test:%d\r\nConnection: close\r\n\r\n", tt.request, port))
		if line, _, _ := strings.Cut(bodyOf(got), "\r\n"); line != tt.want {
			t.Errorf("%s: the origin got %q, want %q (%.60q)", tt.request, line, tt.want, got)
		}
	}
}

// TestHTTPRequestFields compares the head that the origin gets with the one
// that the client sent, field by field.
func TestHTTPRequestFields(t *testing.T) {
	port := wire(t, mirror)
	r := webRig(t, port)
	tests := []struct {
		name, sent string
		want       string // besides Host
	}{
		{"nothing is added", "", ""},
		{"end-to-end fields", "Cookie: a=1\r\nAccept: x\r\nCookie: b=2\r\nAuthorization: Bearer t\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.0 fred\r\n", "Accept: x\r\nAuthorization: Bearer t\r\nCookie: a=1\r\nCookie: b=2\r\nVia: 1.0 fred\r\nX-Forwarded-For: 1.2.3.4\r\n"},
		{"duplicates in order", "X-A: 2\r\nX-B: 1\r\nX-A: 1\r\nX-A: 3\r\n", "X-A: 2\r\nX-A: 1\r\nX-A: 3\r\nX-B: 1\r\n"},
		{"User-Agent", "User-Agent: curl/8\r\n", "User-Agent: curl/8\r\n"},
		{"Accept-Encoding", "Accept-Encoding: zstd, gzip;q=0.1\r\n", "Accept-Encoding: zstd, gzip;q=0.1\r\n"},
		{"Range", "Range: bytes=0-1,5-\r\nIf-Range: \"x\"\r\n", "If-Range: \"x\"\r\nRange: bytes=0-1,5-\r\n"},
		{"conditionals and caches", "If-None-Match: \"x\"\r\nCache-Control: no-cache\r\nPragma: no-cache\r\n", "Cache-Control: no-cache\r\nIf-None-Match: \"x\"\r\nPragma: no-cache\r\n"},
		{"hop-by-hop", "Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings, X-Hop\r\nX-Hop: 1\r\nX-Stays: 1\r\n", "X-Stays: 1\r\n"},
		{"credentials of the proxy", "Proxy-Authorization: Basic c2VjcmV0\r\nproxy-authorization: Basic eA==\r\n", ""},
		{"TE: trailers", "TE: trailers\r\nConnection: TE\r\n", "Te: trailers\r\n"},
		{"an empty value", "X-Empty:\r\n", "X-Empty: \r\n"},
		{"bytes beyond ASCII", "X-Latin: caf\xe9\r\n", "X-Latin: caf\xe9\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := r.send(fmt.Sprintf("GET /x HTTP/1.1\r\nHost: web.test:%d\r\n%s\r\n", port, tt.sent))
			_, body := reply(t, bufio.NewReader(c), "GET")
			want := fmt.Sprintf("GET /x HTTP/1.1\r\nHost: web.test:%d\r\n%s\r\n", port, tt.want)
			if diff := cmp.Diff(want, body); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestHTTPResponseFields compares the head that the client gets with the one
// that the origin sent. Date is the one field that may be added (RFC 9110,
// section 6.6.1).
func TestHTTPResponseFields(t *testing.T) {
	const date = "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
	tests := []struct{ name, sent, want string }{
		{"nothing is added", "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + date + "\r\nhi"},
		{"no type is guessed", "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 6\r\n\r\n<html>", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n" + date + "\r\n<html>"},
		{"cookies in order", "HTTP/1.1 200 OK\r\n" + date + "Set-Cookie: b=1\r\nContent-Length: 0\r\nSet-Cookie: a=2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + date + "Set-Cookie: b=1\r\nSet-Cookie: a=2\r\n\r\n"},
		{"hop-by-hop", "HTTP/1.1 200 OK\r\n" + date + "Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + date + "\r\n"},
		{"a forged Proxy-Status", "HTTP/1.1 200 OK\r\n" + date + "Proxy-Status: sallyport; error=http_request_denied\r\nProxy-Status: cdn; hit\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + date + "Proxy-Status: cdn; hit\r\n\r\n"},
		{"206", "HTTP/1.1 206 Partial Content\r\n" + date + "Content-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\nContent-Range: bytes 0-1/5\r\n" + date + "\r\nab"},
		{"304", "HTTP/1.1 304 Not Modified\r\n" + date + "Etag: \"x\"\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n" + date + "Etag: \"x\"\r\n\r\n"},
		{"204", "HTTP/1.1 204 No Content\r\n" + date + "\r\n", "HTTP/1.1 204 No Content\r\n" + date + "\r\n"},
		{"a redirect is not followed", "HTTP/1.1 302 Found\r\n" + date + "Location: http://evil.test/\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + date + "Location: http://evil.test/\r\n\r\n"},
		{"426 is no upgrade", "HTTP/1.1 426 Upgrade Required\r\n" + date + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n" + date + "\r\nno"},
		{"401 is the origin's", "HTTP/1.1 401 Unauthorized\r\n" + date + "Www-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n" + date + "Www-Authenticate: Basic\r\n\r\n"},
		{"HTTP/1.0, length known", "HTTP/1.0 200 OK\r\n" + date + "Content-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + date + "\r\nhi"},
		{"an odd status", "HTTP/1.1 299 Odd\r\n" + date + "Content-Length: 0\r\n\r\n", "HTTP/1.1 299 status code 299\r\nContent-Length: 0\r\n" + date + "\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			port := wire(t, canned(tt.sent))
			r := webRig(t, port)
			c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
			br := bufio.NewReader(c)
			head, err := readRawHead(br)
			if err != nil {
				t.Fatalf("%v after %q", err, head)
			}
			_, body, _ := strings.Cut(tt.want, "\r\n\r\n")
			rest := make([]byte, len(body))
			if _, err := io.ReadFull(br, rest); err != nil {
				t.Errorf("body: %v", err)
			}
			if diff := cmp.Diff(tt.want, head+string(rest)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			c.CloseWrite()
			if rest, _ := io.ReadAll(br); len(rest) > 0 {
				t.Errorf("behind the response: %q", rest)
			}
			if rec := r.events.ended(t, "web.test"); rec.Outcome != flow.OutcomeOK {
				t.Errorf("outcome %s: %s", rec.Outcome, rec.Error)
			}
		})
	}
}

func TestHTTPHead(t *testing.T) {
	port := wire(t, canned("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 12345\r\nContent-Type: a/b\r\n\r\n"))
	r := webRig(t, port)
	c := r.send("")
	br := bufio.NewReader(c)
	for range 2 { // the connection goes on
		fmt.Fprintf(c, "HEAD / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port)
		resp, _ := reply(t, br, "HEAD")
		if resp.ContentLength != 12345 || resp.Header.Get("Content-Type") != "a/b" {
			t.Errorf("%v", resp.Header)
		}
	}
}

func TestHTTP10(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		port := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "one ")
			http.NewResponseController(w).Flush()
			io.WriteString(w, "two")
		})
		r := webRig(t, port)
		got := r.exchange(fmt.Sprintf("GET http://web.test:%d/ HTTP/1.0\r\n\r\n", port))
		if !strings.HasPrefix(got, "HTTP/1.0 200") || bodyOf(got) != "one two" || strings.Contains(got, "Transfer-Encoding") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("client that keeps its connection", func(t *testing.T) {
		port := wire(t, mirror)
		r := webRig(t, port)
		c := r.dial()
		br := bufio.NewReader(c)
		for range 2 {
			fmt.Fprintf(c, "GET / HTTP/1.0\r\nHost: web.test:%d\r\nConnection: keep-alive\r\n\r\n", port)
			if _, body := reply(t, br, "GET"); !strings.HasPrefix(body, "GET / HTTP/1.1\r\n") || strings.Contains(body, "Connection") {
				t.Errorf("the origin got %q", body)
			}
		}
	})
	t.Run("origin that ends its body by closing", func(t *testing.T) {
		port := wire(t, canned("HTTP/1.0 200 OK\r\n\r\nuntil the end"))
		r := webRig(t, port)
		c := r.dial()
		br := bufio.NewReader(c)
		for range 2 {
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port)
			resp, body := reply(t, br, "GET")
			if body != "until the end" || len(resp.TransferEncoding) != 1 {
				t.Errorf("%q, %v", body, resp.TransferEncoding)
			}
		}
	})
	t.Run("truncated", func(t *testing.T) {
		// Neither length nor chunks: only a reset tells the client.
		port := wire(t, canned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe"))
		r := webRig(t, port)
		c := r.send(fmt.Sprintf("GET http://web.test:%d/ HTTP/1.0\r\n\r\n", port))
		if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %q, %v, want a reset", got, err)
		}
	})
}

// bigBody is 64 MiB that differ all along.
func bigBody() ([]byte, [32]byte) {
	b := make([]byte, 64<<20)
	rand.Read(b)
	return b, sha256.Sum256(b)
}

func TestHTTPBigBodies(t *testing.T) {
	data, sum := bigBody()
	got := make(chan [32]byte, 1)
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil || n != int64(len(data)) {
			t.Errorf("the origin read %d, %v", n, err)
		}
		got <- [32]byte(h.Sum(nil))
		if r.ContentLength >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		}
		w.Write(data)
	})
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked=%t", chunked), func(t *testing.T) {
			r := webRig(t, port)
			var body io.Reader = bytes.NewReader(data)
			if chunked {
				body = io.MultiReader(body) // hides the length
			}
			resp, err := r.client(nil).Post(fmt.Sprintf("http://web.test:%d/", port), "x/y", body)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if (resp.ContentLength < 0) != chunked {
				t.Errorf("Content-Length %d", resp.ContentLength)
			}
			h := sha256.New()
			if n, err := io.Copy(h, resp.Body); err != nil || [32]byte(h.Sum(nil)) != sum {
				t.Errorf("the client read %d, %v", n, err)
			}
			if <-got != sum {
				t.Error("the origin got another body")
			}
			rec := r.events.ended(t, "web.test")
			if rec.BytesSent != int64(len(data)) || rec.BytesReceived != int64(len(data)) || rec.Outcome != flow.OutcomeOK {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

func TestHTTPTrailers(t *testing.T) {
	for _, announced := range []bool{true, false} {
		t.Run(fmt.Sprintf("announced=%t", announced), func(t *testing.T) {
			announce := ""
			if announced {
				announce = "Trailer: X-Sum\r\n"
			}
			bodies := make(chan string, 1)
			port := wire(t, func(_ string, c *net.TCPConn, br *bufio.Reader) bool {
				var b strings.Builder
				for !strings.HasSuffix(b.String(), "\r\n0\r\n") && !strings.HasPrefix(b.String(), "0\r\n") {
					line, err := br.ReadString('\n')
					if err != nil {
						t.Errorf("reading the body: %v after %q", err, b.String())
						return false
					}
					b.WriteString(line)
				}
				trailer, _ := readRawHead(br)
				bodies <- b.String() + trailer
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: origin\r\nProxy-Status: sallyport; error=dns_error\r\nContent-Length: 9\r\n\r\n", announce)
				return true
			})
			r := webRig(t, port)
			c := r.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: web.test:%d\r\n%sTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\nX-Sum: client\r\nTransfer-Encoding: gzip\r\nProxy-Authorization: x\r\n\r\n", port, announce))
			if got, want := <-bodies, "5\r\nhello\r\n0\r\nX-Sum: client\r\n\r\n"; got != want {
				t.Errorf("the origin got %q, want %q", got, want)
			}
			resp, body := reply(t, bufio.NewReader(c), "POST")
			if body != "hi" {
				t.Errorf("body %q", body)
			}
			if diff := cmp.Diff(http.Header{"X-Sum": {"origin"}}, resp.Trailer); diff != "" {
				t.Errorf("trailers (-want +got)\n%s", diff)
			}
		})
	}
}

// TestHTTPGzip passes a compressed body untouched to a client that asked for
// it, and none to one that did not.
func TestHTTPGzip(t *testing.T) {
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	io.WriteString(zw, "hello")
	zw.Close()
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			fmt.Fprintf(w, "plain %q", r.Header["Accept-Encoding"])
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	})
	r := webRig(t, port)
	got := r.exchange(get(port, "/", "Accept-Encoding: gzip"))
	if bodyOf(got) != packed.String() || !strings.Contains(got, "Content-Encoding: gzip\r\n") {
		t.Errorf("got %q", got)
	}
	if got := r.exchange(get(port, "/")); bodyOf(got) != "plain []" {
		t.Errorf("got %q", got)
	}
}

// TestHTTPStreams holds each piece back until the client has the one before.
func TestHTTPStreams(t *testing.T) {
	for name, head := range map[string]string{
		"events":  "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
		"chunks":  "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
		"length":  "Content-Length: 12\r\n",
		"closing": "",
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan struct{})
			port := wire(t, func(_ string, c *net.TCPConn, _ *bufio.Reader) bool {
				io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"\r\n")
				for range 3 {
					<-next
					if strings.Contains(head, "chunked") {
						io.WriteString(c, "4\r\ntick\r\n")
					} else {
						io.WriteString(c, "tick")
					}
				}
				if strings.Contains(head, "chunked") {
					io.WriteString(c, "0\r\n\r\n")
				}
				return false
			})
			r := webRig(t, port)
			c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
			br := bufio.NewReader(c)
			if name == "length" {
				next <- struct{}{} // a head that promises a length may wait for the body
			}
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if i > 0 || name != "length" {
					next <- struct{}{}
				}
				b := make([]byte, 4)
				if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "tick" {
					t.Fatalf("piece %d: %q, %v", i, b, err)
				}
			}
			if rest, err := io.ReadAll(resp.Body); len(rest) != 0 || err != nil {
				t.Errorf("the end: %q, %v", rest, err)
			}
		})
	}
}

// TestHTTPDuplex lets the origin answer while the request is still coming.
func TestHTTPDuplex(t *testing.T) {
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		rc.Flush()
		b := make([]byte, 5)
		for range 3 {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				t.Errorf("the origin: %v", err)
				return
			}
			w.Write(b)
			rc.Flush()
		}
	})
	r := webRig(t, port)
	c := r.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: web.test:%d\r\nTransfer-Encoding: chunked\r\n\r\n", port))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hello", "again", "there"} {
		fmt.Fprintf(c, "5\r\n%s\r\n", word)
		b := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != word {
			t.Fatalf("got %q, %v, want %q", b, err, word)
		}
	}
	io.WriteString(c, "0\r\n\r\n")
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
}

func TestHTTPExpectContinue(t *testing.T) {
	const put = "PUT http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	readBody := func(c *net.TCPConn, br *bufio.Reader) bool {
		b := make([]byte, 5)
		_, err := io.ReadFull(br, b)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s", b)
		return err == nil
	}
	t.Run("asked by the origin", func(t *testing.T) {
		heads := make(chan string, 1)
		port := wire(t, func(head string, c *net.TCPConn, br *bufio.Reader) bool {
			heads <- head
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			return readBody(c, br)
		})
		r := webRig(t, port)
		c := r.send(fmt.Sprintf(put, port))
		br := bufio.NewReader(c)
		if head, err := readRawHead(br); head != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("first %q, %v", head, err)
		}
		if head := <-heads; !strings.Contains(head, "Expect: 100-continue\r\n") {
			t.Errorf("the origin got %q", head)
		}
		io.WriteString(c, "hello")
		if resp, body := reply(t, br, "PUT"); resp.StatusCode != 200 || body != "hello" {
			t.Errorf("%s %q", resp.Status, body)
		}
		if rec := r.events.ended(t, "web.test"); rec.BytesSent != 5 {
			t.Errorf("sent %d", rec.BytesSent)
		}
	})
	t.Run("an origin that never asks", func(t *testing.T) {
		port := wire(t, func(_ string, c *net.TCPConn, br *bufio.Reader) bool { return readBody(c, br) })
		r := webRig(t, port)
		c := r.send(fmt.Sprintf(put, port))
		br := bufio.NewReader(c)
		if head, err := readRawHead(br); head != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("first %q, %v", head, err)
		}
		io.WriteString(c, "hello")
		if resp, body := reply(t, br, "PUT"); resp.StatusCode != 200 || body != "hello" {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
	for _, status := range []string{"417 Expectation Failed", "403 Forbidden", "307 Temporary Redirect"} {
		t.Run("the origin answers "+status[:3], func(t *testing.T) {
			port := wire(t, func(head string, c *net.TCPConn, _ *bufio.Reader) bool {
				// Else the transport keeps the connection, and for that asks
				// the client for the body after all.
				if !strings.Contains(head, "Connection: close\r\n") {
					t.Errorf("the origin got %q", head)
				}
				io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 2\r\n\r\nno")
				return false
			})
			r := webRig(t, port, briefly)
			got := r.exchange(fmt.Sprintf(put, port)) // returns: the body is not waited for
			if !strings.HasPrefix(got, "HTTP/1.1 "+status) || bodyOf(got) != "no" || !strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("got %q", got)
			}
			if rec := r.events.ended(t, "web.test"); rec.Outcome != flow.OutcomeOK || rec.BytesSent != 0 {
				t.Errorf("record %+v", rec)
			}
		})
	}
	t.Run("denied", func(t *testing.T) {
		r := webRig(t, 80, briefly)
		got := r.exchange("PUT http://evil.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 403") || strings.Contains(got, "100 Continue") {
			t.Errorf("got %q", got)
		}
	})
}

// TestHTTPAnswersBeforeTheBody refuses, and relays a refusal, while the body
// is held back; and it lets nobody hold the connection by holding a body.
func TestHTTPAnswersBeforeTheBody(t *testing.T) {
	port := wire(t, canned("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"))
	r := webRig(t, port, briefly)
	for name, head := range map[string]string{
		"denied, length":          "PUT http://evil.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome",
		"denied, chunked":         "PUT http://evil.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"denied, huge":            "PUT http://evil.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome",
		"CONNECT with a body":     "CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome",
		"the origin's, length":    fmt.Sprintf("PUT http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome", port),
		"the origin's, chunked":   fmt.Sprintf("PUT http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", port),
		"the origin's, very huge": fmt.Sprintf("PUT http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome", port),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.send(head)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode < 400 || resp.StatusCode == 502 || !resp.Close {
				t.Errorf("%s, and the connection goes on: %t", resp.Status, !resp.Close)
			}
			waitFor(t, func() bool { return r.Active() == 0 })
		})
	}
}

// TestHTTPBodyBehindTheAnswer sends the body, and another request, when the
// answer has come: neither is taken for a request, and nothing panics.
func TestHTTPBodyBehindTheAnswer(t *testing.T) {
	port := wire(t, canned("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"))
	r := webRig(t, port, briefly)
	for _, whole := range []bool{false, true} {
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: web.test:%d\r\nContent-Length: 5\r\n\r\n", port)
		rest := fmt.Sprintf("helloGET /second HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port)
		if whole {
			head, rest = head+rest, ""
		}
		c := r.send(head)
		br := bufio.NewReader(c)
		if resp, _ := reply(t, br, "POST"); resp.StatusCode != 413 {
			t.Errorf("%s", resp.Status)
		}
		if !whole {
			io.WriteString(c, rest)
			if more, _ := io.ReadAll(br); len(more) > 0 {
				t.Errorf("behind the answer: %q", more)
			}
		}
		c.Close()
	}
	waitFor(t, func() bool { return r.Active() == 0 })
}

func TestHTTPEarlyHints(t *testing.T) {
	port := wire(t, func(_ string, c *net.TCPConn, _ *bufio.Reader) bool {
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nProxy-Status: sallyport\r\n\r\n"+
			"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nLink: </b.css>\r\n\r\nhi")
		return true
	})
	r := webRig(t, port)
	t.Run("HTTP/1.1", func(t *testing.T) {
		var got []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h))
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://web.test:%d/", port), http.NoBody)
		resp, err := r.client(nil).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if diff := cmp.Diff([]string{"103 map[Link:[</a.css>]]", "102 map[]"}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if diff := cmp.Diff([]string{"</b.css>"}, resp.Header["Link"]); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		if got := r.exchange(fmt.Sprintf("GET http://web.test:%d/ HTTP/1.0\r\n\r\n", port)); !strings.HasPrefix(got, "HTTP/1.0 200") || strings.Contains(got, "103") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("beside a body that waits to be asked for", func(t *testing.T) {
		// The origin hints all along while the transport loses patience and
		// asks for the body: under -race this is about who writes.
		port := wire(t, func(_ string, c *net.TCPConn, br *bufio.Reader) bool {
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(br, make([]byte, 5))
				read <- err
			}()
			for {
				io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
				select {
				case err := <-read:
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					return err == nil
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
		r := webRig(t, port)
		c := r.send(fmt.Sprintf("PUT http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", port))
		br := bufio.NewReader(c)
		asked := 0
		for {
			head, err := readRawHead(br)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(head, "HTTP/1.1 100") {
				asked++
				io.WriteString(c, "hello")
			}
			if strings.HasPrefix(head, "HTTP/1.1 200") {
				break
			}
		}
		if asked != 1 {
			t.Errorf("asked for the body %d times", asked)
		}
	})
}

// TestHTTPTruncated shows a client that its response was cut short. goproxy
// swallows the error: without exchange's containment each of these looks whole.
func TestHTTPTruncated(t *testing.T) {
	for name, sent := range map[string]string{
		"length":             "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		"chunk":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe",
		"between chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"a malformed chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
		"trailers cut short": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: ",
	} {
		t.Run(name, func(t *testing.T) {
			port := wire(t, func(_ string, c *net.TCPConn, _ *bufio.Reader) bool {
				io.WriteString(c, sent)
				return false
			})
			r := webRig(t, port)
			c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the client takes %q for the whole", body)
			}
			rec := r.events.ended(t, "web.test")
			if rec.Outcome != flow.OutcomeHTTPResponseIncomplete || rec.EndedBy != flow.EndedByOrigin || rec.HTTP.Status != 200 {
				t.Errorf("record: outcome %s, ended by %q, status %d", rec.Outcome, rec.EndedBy, rec.HTTP.Status)
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		port := wire(t, func(_ string, c *net.TCPConn, _ *bufio.Reader) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nuntil the e")
			c.SetLinger(0)
			return false
		})
		r := webRig(t, port)
		c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			if err == nil {
				t.Error("the client takes it for the whole")
			}
		}
	})
}

// TestHTTPOriginFaults tells what went wrong at the origin before it answered.
func TestHTTPOriginFaults(t *testing.T) {
	tests := []struct {
		name    string
		serve   func(*net.TCPConn)
		status  string
		outcome flow.Outcome
	}{
		{"closes", func(*net.TCPConn) {}, "502", flow.OutcomeConnectionTerminated},
		{"resets", func(c *net.TCPConn) { c.SetLinger(0) }, "502", flow.OutcomeConnectionTerminated},
		{"closes in its head", func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nConte") }, "502", flow.OutcomeHTTPProtocolError},
		{"a bare CR in a value", func(c *net.TCPConn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n")
		}, "502", flow.OutcomeHTTPProtocolError},
		{"speaks no HTTP", func(c *net.TCPConn) { io.WriteString(c, "SSH-2.0-OpenSSH\r\n") }, "502", flow.OutcomeHTTPProtocolError},
		{"speaks HTTP/2", func(c *net.TCPConn) { c.Write([]byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0x64}) }, "502", flow.OutcomeHTTPProtocolError},
		{"a head of 1 MiB", func(c *net.TCPConn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Big: "+strings.Repeat("x", 1<<20)+"\r\nContent-Length: 0\r\n\r\n")
		}, "502", flow.OutcomeHTTPProtocolError},
		{"an endless head", func(c *net.TCPConn) {
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 1000)+"\r\n\r\n"); err != nil {
					return
				}
			}
		}, "502", flow.OutcomeHTTPProtocolError},
		{"two lengths", func(c *net.TCPConn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx")
		}, "502", flow.OutcomeHTTPProtocolError},
		{"status 0", func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n") }, "502", flow.OutcomeHTTPProtocolError},
		{"switches unasked", func(c *net.TCPConn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}, "502", flow.OutcomeHTTPProtocolError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			port := tcpOrigin(t, func(c *net.TCPConn) {
				readRawHead(bufio.NewReader(c))
				tt.serve(c)
			})
			r := webRig(t, port)
			got := r.exchange(get(port, "/"))
			for {
				after, ok := strings.CutPrefix(got, "HTTP/1.1 103 ")
				if !ok {
					break
				}
				_, got, _ = strings.Cut(after, "\r\n\r\n")
			}
			if !strings.HasPrefix(got, "HTTP/1.1 "+tt.status) || !strings.Contains(got, "Proxy-Status: sallyport; error="+string(tt.outcome)) {
				t.Errorf("got %.300q", got)
			}
			rec := r.events.ended(t, "web.test")
			if rec.Outcome != tt.outcome || rec.Verdict != policy.Allow || fmt.Sprint(rec.HTTP.Status) != tt.status {
				t.Errorf("record: %s %s %d: %s", rec.Verdict, rec.Outcome, rec.HTTP.Status, rec.Error)
			}
		})
	}
}

// TestHTTPUnreachable is about what goes wrong before there is an origin.
func TestHTTPUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	r := newRig(t, allow("http", dead, "web.test", "nowhere.test", "slow.test", "inside.test")+"  - {name: public, hosts: [private.test], protocol: http}\n")
	r.resolver.set("web.test", "127.0.0.1")
	r.resolver.set("private.test", "10.0.0.1")
	r.resolver.fail("slow.test", &net.DNSError{Err: "timeout", IsTimeout: true})
	tests := []struct{ host, status, kind string }{
		{fmt.Sprintf("web.test:%d", dead), "502", "connection_refused"},
		{fmt.Sprintf("nowhere.test:%d", dead), "502", "dns_error"},
		{fmt.Sprintf("slow.test:%d", dead), "504", "dns_timeout"},
		{"private.test:80", "403", "destination_ip_prohibited"},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			got := r.exchange(fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", tt.host))
			if !strings.HasPrefix(got, "HTTP/1.1 "+tt.status) || !strings.Contains(got, "error="+tt.kind) {
				t.Errorf("got %q", got)
			}
			got = strings.Replace(got, "client=127.0.0.1", "", 1) // its own
			if strings.Contains(got, "127.0.0.1") || strings.Contains(got, "10.0.0.1") {
				t.Error("the client learns an address")
			}
		})
	}
}

// TestHTTPRefused is about requests whose destination can not be read.
func TestHTTPRefused(t *testing.T) {
	port, reached := counted(t)
	r := newRig(t, allow("http", port, "web.test", "**.web.test"))
	r.resolver.set("web.test", "127.0.0.1")
	absolute := func(url string) string { return "GET " + url + " HTTP/1.1\r\nHost: web.test\r\n" }
	host := func(h string) string { return "GET / HTTP/1.1\r\nHost: " + h + "\r\n" }
	p := func(format string) string { return strings.ReplaceAll(format, "PORT", fmt.Sprint(port)) }
	tests := map[string]string{
		"https":                absolute(p("https://web.test:PORT/")),
		"ftp":                  absolute(p("ftp://web.test:PORT/")),
		"no scheme":            absolute("web.test/"),
		"ws":                   absolute(p("ws://web.test:PORT/")),
		"user":                 absolute(p("http://user@web.test:PORT/")),
		"user and password":    absolute(p("http://web.test:PORT@evil.test/")),
		"empty user":           absolute(p("http://@web.test:PORT/")),
		"port 0":               absolute("http://web.test:0/"),
		"port 65536":           absolute("http://web.test:65536/"),
		"port -1":              absolute("http://web.test:-1/"),
		"port by name":         absolute("http://web.test:http/"),
		"port with a zero":     absolute(p("http://web.test:0PORT/")),
		"empty port":           absolute("http://web.test:/"),
		"no host":              absolute("http:///path"),
		"only a port":          absolute(p("http://:PORT/")),
		"opaque":               absolute("http:web.test/"),
		"one slash":            absolute("http:/web.test/"),
		"backslash":            absolute(p(`http://web.test:PORT\@evil.test/`)),
		"percent in the name":  absolute(p("http://%77eb.test:PORT/")),
		"full-width":           absolute(p("http://ｗeb.test:PORT/")),
		"ideographic stop":     absolute(p("http://web。test:PORT/")),
		"two dots":             absolute(p("http://web..test:PORT/")),
		"leading dot":          absolute(p("http://.web.test:PORT/")),
		"octal address":        absolute(p("http://0177.0.0.1:PORT/")),
		"decimal address":      absolute(p("http://2130706433:PORT/")),
		"zone":                 absolute(p("http://[::1%25lo]:PORT/")),
		"brackets round names": absolute(p("http://[web.test]:PORT/")),
		"long label":           absolute(p("http://" + strings.Repeat("a", 64) + ".web.test:PORT/")),
		"NUL":                  absolute(p("http://web.test\x00.evil.test:PORT/")),
		"asterisk":             absolute("*"),
		"authority-form":       absolute(p("web.test:PORT")),
		"empty Host":           host(""),
		"missing Host":         "GET / HTTP/1.1\r\n",
		"missing Host, 1.0":    "GET / HTTP/1.0\r\n",
		"two Hosts":            host(p("web.test:PORT\r\nHost: evil.test")),
		"two equal Hosts":      host(p("web.test:PORT\r\nHost: web.test:PORT")),
		"a list of Hosts":      host(p("web.test:PORT, evil.test")),
		"Host with a path":     host(p("web.test:PORT/x")),
		"Host with a user":     host(p("x@web.test:PORT")),
		"Host with a space":    host(p("web.test :PORT")),
		"Host with NUL":        host(p("web.test\x00:PORT")),
		"Host is a URL":        host(p("http://web.test:PORT")),
		"Host with port 0":     host("web.test:0"),
		"another name":         host(p("evil.test:PORT")),
		"another port":         host("web.test"),
		"a literal":            host(p("127.0.0.1:PORT")),
		"an IPv6 literal":      host(p("[::1]:PORT")),
		"a mapped literal":     host(p("[::ffff:127.0.0.1]:PORT")),
		"localhost":            host(p("localhost:PORT")),
		"HTTP/2 preface":       "PRI * HTTP/2.0\r\n\r\nSM\r\n",
		"HTTP/0.9":             "GET /\r\n",
		"HTTP/3":               "GET / HTTP/3.0\r\nHost: web.test\r\n",
		"an expectation":       host(p("web.test:PORT\r\nExpect: the-unexpected")),
	}
	before := 0
	for name, head := range tests {
		t.Run(name, func(t *testing.T) {
			got := r.exchange(head + "Connection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.0 4") && !strings.HasPrefix(got, "HTTP/1.1 505") {
				t.Errorf("got %q", got)
			}
			waitFor(t, func() bool { return r.Active() == 0 })
			all, _ := r.events.list()
			if len(all) != before+1 || all[before].Kind != flow.Denied {
				t.Errorf("%d events, want one denial", len(all)-before)
			}
			before = len(all)
		})
	}
	if reached.Load() != 0 {
		t.Error("the origin was reached")
	}
	if n := r.resolver.total(); n != 0 {
		t.Errorf("%d lookups for refused requests", n)
	}
}

// TestHTTPSmuggling sends heads whose end two readers may see in two places,
// with a second request behind. The origin gets one request or none, and the
// one is framed the one way.
func TestHTTPSmuggling(t *testing.T) {
	const second = "GET /smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n"
	tests := map[string]string{
		"length and chunked":          "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
		"chunked and length":          "Transfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n0\r\n\r\n" + second,
		"two lengths":                 "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + second,
		"a list of lengths":           "Content-Length: 0, 44\r\n\r\n" + second,
		"a signed length":             "Content-Length: +44\r\n\r\n" + second,
		"a negative length":           "Content-Length: -1\r\n\r\n" + second,
		"a hex length":                "Content-Length: 0x2c\r\n\r\n" + second,
		"a huge length":               "Content-Length: 99999999999999999999\r\n\r\n" + second,
		"an empty length":             "Content-Length: \r\n\r\n" + second,
		"two encodings":               "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + second,
		"chunked twice":               "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + second,
		"an unknown encoding":         "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second,
		"chunked is not last":         "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + second,
		"encoding with a tab":         "Transfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"encoding with VT":            "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + second,
		"a space before the colon":    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + second,
		"length, a space before it":   "Content-Length : 44\r\n\r\n" + second,
		"obs-fold":                    "X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + "",
		"a folded encoding":           "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"a leading fold":              " X: y\r\n\r\n" + second,
		"bare LF ends":                "X: y\n\n" + "",
		"bare CR in a value":          "X: y\rContent-Length: 44\r\n\r\n" + second,
		"NUL in a name":               "X\x00: y\r\n\r\n" + second,
		"no colon":                    "XY\r\n\r\n" + second,
		"an empty name":               ": y\r\n\r\n" + second,
		"chunk extensions":            "Transfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0;x\r\n\r\n",
		"a chunk ended by LF":         "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + second,
		"an extension with a bare LF": "Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n" + second,
		"a signed chunk":              "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n" + second,
		"a hex-marked chunk":          "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + second,
		"an overflowing chunk":        "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + second,
		"a chunk longer than said":    "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n" + second,
		"a chunk of nothing":          "Transfer-Encoding: chunked\r\n\r\n\r\n\r\n" + second,
	}
	for name, rest := range tests {
		t.Run(name, func(t *testing.T) {
			type request struct{ line, framing, body string }
			var mu sync.Mutex // guards seen: a connection may come when all is over
			var seen []request
			done := make(chan struct{})
			var conns atomic.Int64
			port := tcpOrigin(t, func(c *net.TCPConn) {
				conns.Add(1)
				defer close(done)
				br := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					body, err := io.ReadAll(req.Body)
					mu.Lock()
					seen = append(seen, request{req.Method + " " + req.RequestURI, fmt.Sprint(req.ContentLength, req.TransferEncoding), string(body)})
					mu.Unlock()
					if err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			r := webRig(t, port, briefly)
			c := r.send(fmt.Sprintf("POST /first HTTP/1.1\r\nHost: web.test:%d\r\n", port) + rest)
			c.CloseWrite()
			io.Copy(io.Discard, c)
			waitFor(t, func() bool { return r.Active() == 0 })
			r.PolicyChanged() // drops the kept connection
			if conns.Load() > 0 {
				<-done
			}
			mu.Lock()
			got := slices.Clone(seen)
			mu.Unlock()
			if len(got) > 1 {
				t.Errorf("the origin got %d requests: %q", len(got), got)
			}
			for _, req := range got {
				if req.line != "POST /first" || strings.Contains(req.body, "smuggled") && req.framing != fmt.Sprint(len(req.body), []string(nil)) {
					t.Errorf("the origin got %q", req)
				}
			}
			// A second request is one to another port, and so denied; or was
			// never seen as one. Nothing passes without a record.
			allowed := 0
			all, _ := r.events.list()
			for _, e := range all {
				if e.Kind == flow.Opened {
					allowed++
				}
			}
			if allowed > 1 {
				t.Errorf("%d exchanges were allowed", allowed)
			}
			if len(all) == 0 {
				t.Error("there is no record")
			}
		})
	}
}

func TestHTTPHugeHead(t *testing.T) {
	port, reached := counted(t)
	r := webRig(t, port, briefly)
	for name, head := range map[string]string{
		"one field":    "GET / HTTP/1.1\r\nHost: web.test\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n",
		"many fields":  "GET / HTTP/1.1\r\nHost: web.test\r\n" + strings.Repeat("X: y\r\n", 10<<10) + "\r\n",
		"a long line":  "GET /" + strings.Repeat("x", 40<<10) + " HTTP/1.1\r\nHost: web.test\r\n\r\n",
		"without ends": "GET / HTTP/1.1\r\nHost: web.test\r\nX: " + strings.Repeat("x", 64<<10),
	} {
		t.Run(name, func(t *testing.T) {
			if got := r.exchange(head); !strings.HasPrefix(got, "HTTP/1.1 431") && !strings.HasPrefix(got, "HTTP/1.1 400") && !strings.HasPrefix(got, "error: ") {
				t.Errorf("got %q", got)
			}
			waitFor(t, func() bool { return r.Active() == 0 })
		})
	}
	if all, _ := r.events.list(); len(all) != 4 || reached.Load() != 0 {
		t.Errorf("%d events, want 4; reached %d", len(all), reached.Load())
	}
}

// TestHTTPSlowHead cuts a head that comes a byte at a time, in the time that
// is counted from accept.
func TestHTTPSlowHead(t *testing.T) {
	r := webRig(t, 80, func(c *Config) { c.Timeouts.Hello = 500 * time.Millisecond })
	for _, name := range []string{"dribble", "stalled", "late start"} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			head := "GET / HTTP/1.1\r\nHost: web.test\r\n" + strings.Repeat("X: y\r\n", 1000)
			if name == "late start" {
				time.Sleep(400 * time.Millisecond) //nolint:forbidigo // the attack is slowness
			}
			io.WriteString(c, head[:1])
			head = head[1:]
			for head != "" && name != "stalled" {
				if _, err := io.WriteString(c, head[:1]); err != nil {
					break
				}
				head = head[1:]
				time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the attack is slowness
			}
			if name != "stalled" && len(head) < 3000 {
				t.Errorf("all but %d bytes were taken", len(head))
			}
			waitFor(t, func() bool { return r.Active() == 0 })
		})
	}
	if all, _ := r.events.list(); len(all) != 3 {
		t.Errorf("%d events, want 3%s", len(all), r.events.text())
	}
}

func TestHTTPRecord(t *testing.T) {
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, "made it")
	})
	r := webRig(t, port)
	c := r.dial()
	br := bufio.NewReader(c)
	for range 2 {
		fmt.Fprintf(c, "PUT http://web.test:%d/a%%20b?secret=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", port)
		reply(t, br, "PUT")
	}
	c.Close()
	waitFor(t, func() bool { return r.Active() == 0 })
	all, _ := r.events.list()
	if len(all) != 4 {
		t.Fatalf("%d events", len(all))
	}
	for i, e := range []flow.Event{all[1], all[3]} {
		rec := e.Record
		if rec.HTTP != (flow.HTTP{Method: "PUT", Path: "/a%20b", Status: 201}) {
			t.Errorf("HTTP %+v", rec.HTTP)
		}
		if rec.BytesSent != 5 || rec.BytesReceived != 7 || rec.Outcome != flow.OutcomeOK || rec.EndedBy != flow.EndedByBoth {
			t.Errorf("record %+v", rec)
		}
		if rec.Peer != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)) || rec.Rule == "" || rec.PolicyVersion == "" {
			t.Errorf("record %+v", rec)
		}
		if rec.ClientTCP.RTT == 0 || rec.Times.FirstByte <= 0 || rec.End.Before(rec.Start) {
			t.Errorf("times %+v, TCP %+v", rec.Times, rec.ClientTCP)
		}
		if fresh := rec.Times.Dial > 0 && rec.Times.Resolve > 0; fresh != (i == 0) {
			t.Errorf("request %d: dial %v, resolve %v; only the first one dialled", i, rec.Times.Dial, rec.Times.Resolve)
		}
		if strings.Contains(fmt.Sprintf("%+v", rec), "secret") {
			t.Error("the query is in the record")
		}
	}
	if !all[3].Record.Start.After(all[1].Record.End) {
		t.Error("the second request's clock began before the first one's end")
	}
}

func TestHTTPReportMode(t *testing.T) {
	port := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") })
	r := newRig(t, "version: 1\nmode: report\nrules:\n"+allow("http", port, "web.test")+
		fmt.Sprintf("  - {name: public, hosts: [listed.test], ports: [%d], protocol: http}\n", port))
	r.resolver.set("web.test", "127.0.0.1")
	r.resolver.set("private.test", "10.255.255.1")
	r.resolver.set("listed.test", "10.255.255.1")
	r.dialer.connect = func(ctx context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
		if err := vet(addr); err != nil {
			return nil, err
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)) // as if it were there
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
	if got := r.exchange(get(port, "/")); bodyOf(got) != "hi" {
		t.Errorf("got %q", got)
	}
	if rec := r.events.ended(t, "web.test"); rec.WouldDeny || rec.Reason != policy.ReasonRule {
		t.Errorf("record %+v", rec)
	}
	reasons := map[string]policy.Reason{"private.test": policy.ReasonNoRule, "listed.test": policy.ReasonAddressProhibited}
	for host := range reasons {
		for range 2 { // the second on a kept connection
			if got := r.exchange(fmt.Sprintf("GET http://%s:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", host, port)); bodyOf(got) != "hi" {
				t.Errorf("%s: got %q", host, got)
			}
		}
	}
	waitFor(t, func() bool { return r.Active() == 0 })
	all, _ := r.events.list()
	if len(all) != 10 {
		t.Errorf("%d events, want 10%s", len(all), r.events.text())
	}
	for _, e := range all {
		if want, ok := reasons[e.Record.Host]; ok && (!e.Record.WouldDeny || e.Record.Reason != want) {
			t.Errorf("%s: kind %d, would deny %t, %s", e.Record.Host, e.Kind, e.Record.WouldDeny, e.Record.Reason)
		}
	}
}
