package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http/httpguts"

	"github.com/sallyport/sallyport/logging/flow"
)

func TestReadPlain(t *testing.T) {
	const host = "Host: a.test\r\n"
	for name, tt := range map[string]struct {
		head string
		want bool
	}{
		"absolute":              {"GET http://a.test/x?y HTTP/1.1\r\n" + host + "\r\n", true},
		"origin-form":           {"HEAD / HTTP/1.1\r\n" + host + "Accept: */*\r\naccept: x\r\n\r\n", true},
		"kept":                  {"GET / HTTP/1.1\r\n" + host + "Connection: Keep-Alive\r\nProxy-Connection: keep-alive\r\n\r\n", true},
		"the last":              {"GET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", true},
		"an empty value":        {"GET / HTTP/1.1\r\n" + host + "X:\r\n\r\n", true},
		"another method":        {"POST / HTTP/1.1\r\n" + host + "\r\n", false},
		"HTTP/1.0":              {"GET / HTTP/1.0\r\n" + host + "\r\n", false},
		"half":                  {"GET / HTTP/1.1\r\n" + host, false},
		"two":                   {"GET / HTTP/1.1\r\n" + host + "\r\nGET / HTTP/1.1\r\n" + host + "\r\n", false},
		"a body":                {"GET / HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n", false},
		"chunks":                {"GET / HTTP/1.1\r\n" + host + "transfer-encoding: chunked\r\n\r\n", false},
		"an expectation":        {"GET / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\n\r\n", false},
		"an upgrade":            {"GET / HTTP/1.1\r\n" + host + "Upgrade: websocket\r\n\r\n", false},
		"a named hop":           {"GET / HTTP/1.1\r\n" + host + "Connection: X\r\nX: 1\r\n\r\n", false},
		"a list of hops":        {"GET / HTTP/1.1\r\n" + host + "Connection: close, X\r\nX: 1\r\n\r\n", false},
		"no Host":               {"GET http://a.test/ HTTP/1.1\r\nX: y\r\n\r\n", false},
		"two Hosts":             {"GET / HTTP/1.1\r\n" + host + host + "\r\n", false},
		"a bad Host":            {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", false},
		"bare LF":               {"GET / HTTP/1.1\r\n" + host + "X: y\nZ: 1\r\n\r\n", false},
		"bare CR":               {"GET / HTTP/1.1\r\n" + host + "X: y\rZ: 1\r\n\r\n", false},
		"NUL":                   {"GET / HTTP/1.1\r\n" + host + "X: \x00\r\n\r\n", false},
		"obs-fold":              {"GET / HTTP/1.1\r\n" + host + "X: y\r\n Z: 1\r\n\r\n", false},
		"no colon":              {"GET / HTTP/1.1\r\n" + host + "XY\r\n\r\n", false},
		"a space at the colon":  {"GET / HTTP/1.1\r\n" + host + "X : y\r\n\r\n", false},
		"two spaces":            {"GET  / HTTP/1.1\r\n" + host + "\r\n", false},
		"a word too many":       {"GET / x HTTP/1.1\r\n" + host + "\r\n", false},
		"a control in the path": {"GET /\x7f HTTP/1.1\r\n" + host + "\r\n", false},
		"too many fields":       {"GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", maxHeadFields) + "\r\n", false},
	} {
		if got := readPlain([]byte(tt.head)) != nil; got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// FuzzReadPlain: what is read as plain, net/http's server reads as the same
// request, and as the only one.
func FuzzReadPlain(f *testing.F) {
	for _, wire := range headSeeds() {
		f.Add([]byte(wire))
		f.Add([]byte(wire + "\r\n\r\n"))
	}
	f.Add([]byte("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\nx-a:1\r\nX-A: 2\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("GET /%2e?a#b HTTP/1.1\r\nHost:\t a.test \r\nCOOKIE: a=\xff\r\n\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		got := readPlain(bytes.Clone(wire))
		if got == nil {
			return
		}
		hosts := 0
		br := bufio.NewReader(bytes.NewReader(wire))
		want, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		if rest, _ := io.ReadAll(br); len(rest) > 0 || want.Body != http.NoBody || want.ContentLength != 0 || len(want.TransferEncoding) > 0 {
			t.Fatalf("there is more: %q, length %d", rest, want.ContentLength)
		}
		for line := range strings.SplitSeq(string(wire), "\r\n") { // ReadRequest hides Host
			if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "host") {
				hosts++
				if !httpguts.ValidHostHeader(strings.Trim(value, " \t")) {
					t.Errorf("Host %q", value)
				}
			}
		}
		for k, vs := range want.Header {
			for _, v := range vs {
				if !httpguts.ValidHeaderFieldName(k) || !httpguts.ValidHeaderFieldValue(v) {
					t.Errorf("net/http's server refuses %q: %q", k, v)
				}
			}
		}
		if hosts != 1 {
			t.Errorf("%d Hosts", hosts)
		}
		type request struct {
			Method, URI, Proto, Host, URL, User string
			Close                               bool
			Header                              http.Header
		}
		digest := func(r *http.Request) request {
			u := *r.URL
			u.User = nil // a pointer
			return request{r.Method, r.RequestURI, r.Proto, r.Host, fmt.Sprintf("%#v", u), r.URL.User.String(), r.Close, r.Header}
		}
		if diff := cmp.Diff(digest(want), digest(got)); diff != "" {
			t.Errorf("(-net/http +plain)\n%s", diff)
		}
	})
}

// FuzzReadPlainAnswer: what is read as a plain response, net/http reads as the
// same one.
func FuzzReadPlainAnswer(f *testing.F) {
	for _, wire := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 299 \r\nX:\r\nset-cookie: a\r\nSet-Cookie: b\r\nconnection: Close\r\nContent-Length: 002\r\n\r\nhiand more",
		"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\rb\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
	} {
		f.Add([]byte(wire))
	}
	ask := &http.Request{Method: http.MethodGet}
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, n := readPlainAnswer(bytes.Clone(wire), ask)
		if got == nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(wire))
		want, err := http.ReadResponse(br, ask)
		if err != nil {
			t.Fatalf("net/http: %v", err)
		}
		oc := &originConn{br: bufio.NewReader(bytes.NewReader(wire)), left: got.ContentLength, last: got.Close}
		oc.body = oc.br
		oc.br.Discard(n)
		gotBody, gotErr := io.ReadAll((*plainBody)(oc))
		wantBody, wantErr := io.ReadAll(want.Body)
		if !bytes.Equal(gotBody, wantBody) || !errors.Is(gotErr, wantErr) {
			t.Errorf("body %q, %v; net/http %q, %v", gotBody, gotErr, wantBody, wantErr)
		}
		if oc.ended != (gotErr == nil && !want.Close && br.Buffered() == 0) {
			t.Errorf("it goes on: %t", oc.ended)
		}
		want.Body, got.Body = nil, nil
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(http.Request{})); diff != "" {
			t.Errorf("(-net/http +plain)\n%s", diff)
		}
	})
}

// TestPlainThenNot: a connection changes hands when a request is not plain, at
// any time, and nothing is lost.
func TestPlainThenNot(t *testing.T) {
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, b)
	})
	r := webRig(t, port)
	get := func(path string) string {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", path, port)
	}
	post := fmt.Sprintf("POST /p HTTP/1.1\r\nHost: web.test:%d\r\nContent-Length: 5\r\n\r\nhello", port)
	for name, writes := range map[string][]string{
		"a body":                     {get("/1"), get("/2"), post, get("/3")},
		"pipelined":                  {get("/1"), get("/2") + get("/3"), get("/4")},
		"pipelined, then a body":     {get("/1") + post, get("/4")},
		"pipelined at first":         {get("/1") + get("/2"), get("/3")},
		"in pieces":                  {get("/1"), get("/2")[:20], get("/2")[20:] + get("/3")},
		"in pieces at first":         {get("/1")[:20], get("/1")[20:], get("/2")},
		"denied in between, plainly": {get("/1"), "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", get("/2")},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			go func() {
				for _, w := range writes {
					io.WriteString(c, w)
					<-time.After(5 * time.Millisecond) // so that they come apart
				}
			}()
			br := bufio.NewReader(c)
			all := bufio.NewReader(strings.NewReader(strings.Join(writes, "")))
			for {
				req, err := http.ReadRequest(all)
				if err != nil {
					break
				}
				b, _ := io.ReadAll(req.Body)
				want, status := fmt.Sprintf("%s %s %s", req.Method, req.URL.Path, b), 200
				if req.Host == "evil.test" {
					want, status = "sallyport: evil.test:80 is denied", 403
				}
				if resp, body := reply(t, br, "GET"); resp.StatusCode != status || !strings.HasPrefix(body, want) {
					t.Errorf("%s %q, want %q", resp.Status, body, want)
				}
			}
		})
	}
}

// TestPlainAsksAhead sends the next request while the first is waited for, and
// watched.
func TestPlainAsksAhead(t *testing.T) {
	first, again := make(chan struct{}), make(chan struct{})
	port := wire(t, func(head string, c *net.TCPConn, br *bufio.Reader) bool {
		if strings.Contains(head, "/slow") {
			close(first)
			<-again
		}
		return mirror(head, c, br)
	})
	r := webRig(t, port)
	c := r.send(fmt.Sprintf("GET /slow HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	<-first
	<-time.After(3 * watchAfter)
	fmt.Fprintf(c, "GET /next HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port)
	<-time.After(watchAfter)
	close(again)
	br := bufio.NewReader(c)
	for _, want := range []string{"GET /slow ", "GET /next "} {
		if _, body := reply(t, br, "GET"); !strings.HasPrefix(body, want) {
			t.Errorf("%q, want %q", body, want)
		}
	}
	c.Close()
	waitFor(t, func() bool { return r.Active() == 0 })
	if all, _ := r.events.list(); len(all) != 4 {
		t.Errorf("%d events%s", len(all), r.events.text())
	}
}

// TestPlainOutlivesTheWatch carries more requests on a connection once one has
// taken long enough to be watched.
func TestPlainOutlivesTheWatch(t *testing.T) {
	port := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-time.After(2 * watchAfter)
		}
	})
	r := webRig(t, port)
	c := r.dial()
	br := bufio.NewReader(c)
	for _, path := range []string{"/slow", "/", "/slow", "/slow", "/"} {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", path, port)
		if resp, _ := reply(t, br, "GET"); resp.StatusCode != 200 || resp.Close {
			t.Errorf("%s: %s, the last: %t", path, resp.Status, resp.Close)
		}
	}
}

// TestPlainDrains ends a connection that waits for its next request at once,
// and one that is busy with its answer.
func TestPlainDrains(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	port := wire(t, func(head string, c *net.TCPConn, br *bufio.Reader) bool {
		if strings.Contains(head, "/slow") {
			close(begun)
			<-goOn
		}
		return mirror(head, c, br)
	})
	r := webRig(t, port, func(c *Config) { c.Timeouts.Drain = time.Hour })
	idle := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	br := bufio.NewReader(idle)
	reply(t, br, "GET")
	busy := r.send(fmt.Sprintf("GET /slow HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	<-begun
	r.stop()
	if b, err := io.ReadAll(br); len(b) != 0 || err != nil {
		t.Errorf("the idle one: %q, %v", b, err)
	}
	close(goOn)
	got, err := io.ReadAll(busy)
	if err != nil || !strings.Contains(string(got), "GET /slow ") {
		t.Errorf("the busy one: %q, %v", got, err)
	}
	<-r.done
}

func TestPlainDownloads(t *testing.T) {
	data, sum := bigBody()
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		}
		w.Write(data)
	})
	r := webRig(t, port)
	c := r.dial()
	br := bufio.NewReader(c)
	for _, path := range []string{"/length", "/chunks", "/length"} {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", path, port)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if n, err := io.Copy(h, resp.Body); err != nil || [32]byte(h.Sum(nil)) != sum || (resp.ContentLength < 0) != (path == "/chunks") {
			t.Errorf("%s: %d bytes, %v, length %d", path, n, err, resp.ContentLength)
		}
	}
	if rec := r.events.ended(t, "web.test"); rec.BytesReceived != int64(len(data)) || rec.Outcome != flow.OutcomeOK {
		t.Errorf("record %+v", rec)
	}
}

func TestPlainTrailers(t *testing.T) {
	for _, announce := range []string{"", "Trailer: X-Sum\r\n"} {
		port := wire(t, canned("HTTP/1.1 200 OK\r\n"+announce+"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: origin\r\nProxy-Status: sallyport; error=dns_error\r\nContent-Length: 9\r\n\r\n"))
		r := webRig(t, port)
		c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\nConnection: close\r\n\r\n", port))
		resp, body := reply(t, bufio.NewReader(c), "GET")
		if diff := cmp.Diff(http.Header{"X-Sum": {"origin"}}, resp.Trailer); diff != "" || body != "hi" || !resp.Close {
			t.Errorf("%q, the last: %t, trailers (-want +got)\n%s", body, resp.Close, diff)
		}
	}
}

// TestPlainUnasked: what an origin says on a kept connection without being
// asked is nobody's answer.
func TestPlainUnasked(t *testing.T) {
	said := make(chan struct{}, 1)
	port := wire(t, func(head string, c *net.TCPConn, _ *bufio.Reader) bool {
		path := strings.Fields(head)[1]
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
		switch path {
		case "/later":
			<-time.After(20 * time.Millisecond)
			fallthrough
		case "/behind":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			said <- struct{}{}
		}
		return true
	})
	r := webRig(t, port)
	c := r.dial()
	br := bufio.NewReader(c)
	ask := func(path string) {
		t.Helper()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", path, port)
		if _, body := reply(t, br, "GET"); body != path {
			t.Errorf("%s is answered %q", path, body)
		}
	}
	for range 3 {
		for _, path := range []string{"/later", "/behind"} {
			ask(path)
			<-said
			ask("/x")
		}
	}
}
