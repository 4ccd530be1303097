package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// TestFrontRecordsWhatNetHTTPRefuses: heads that never reach the handler are
// recorded all the same, once, first on their connection or later, alone or
// right behind another request.
func TestFrontRecordsWhatNetHTTPRefuses(t *testing.T) {
	port := wire(t, mirror)
	good := fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port)
	for name, tt := range map[string]struct {
		bad    string
		status int
		say    string
	}{
		"malformed":     {"GET / HTTP/1.1\r\nHost: web.test\r\nbad field\r\n\r\n", 400, "400 Bad Request"},
		"too large":     {"GET / HTTP/1.1\r\nHost: web.test\r\nX: " + strings.Repeat("x", 64<<10), 431, "431 Request Header"},
		"version":       {"GET / HTTP/3.0\r\nHost: web.test\r\n\r\n", 505, "unsupported protocol version"},
		"transfer":      {"GET / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Unsupported transfer encoding"},
		"expectation":   {"GET / HTTP/1.1\r\nHost: web.test\r\nExpect: a-miracle\r\n\r\n", 417, ""},
		"ends early":    {"GET / HTTP/1.1\r\nHost: web.test\r\n", 400, "400 Bad Request"},
		"stalls":        {"GET / HTTP/1.1\r\nHost: web.test\r\n", 0, "incomplete"},
		"missing Host":  {"GET / HTTP/1.1\r\n\r\n", 400, "missing required Host"},
		"not even HTTP": {"QUIT\r\n\r\n", 400, "400 Bad Request"},
	} {
		for way, before := range map[string][]string{"first": nil, "later": {good}, "together": {good + tt.bad}} {
			if name == "stalls" && way == "together" {
				continue // net/http has read it along with the other, and says nothing of it
			}
			t.Run(name+" "+way, func(t *testing.T) {
				r := webRig(t, port, briefly)
				c := r.dial()
				br := bufio.NewReader(c)
				for _, text := range before {
					io.WriteString(c, text)
					reply(t, br, "GET")
				}
				if way != "together" {
					io.WriteString(c, tt.bad)
				}
				if name == "ends early" {
					c.CloseWrite()
				}
				io.Copy(io.Discard, br)
				waitFor(t, func() bool { return r.Active() == 0 })
				var denied []flow.Record
				all, _ := r.events.list()
				for _, e := range all {
					if e.Kind == flow.Denied {
						denied = append(denied, e.Record)
					}
				}
				if len(denied) != 1 || len(all) != 1+2*len(before) {
					t.Fatalf("%d denials, %d events%s", len(denied), len(all), r.events.text())
				}
				rec := denied[0]
				if rec.HTTP.Status != tt.status || !strings.Contains(rec.Error, tt.say) || rec.Reason != policy.ReasonNoName || rec.Via != policy.ViaHTTP {
					t.Errorf("record: status %d, %s, %q", rec.HTTP.Status, rec.Reason, rec.Error)
				}
			})
		}
	}
}

// TestFrontRecordsNothingForNothing: a connection that asks for nothing is no
// attempt, before its first request or after its last.
func TestFrontRecordsNothingForNothing(t *testing.T) {
	port := wire(t, mirror)
	r := webRig(t, port)
	r.dial().Close()
	c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	reply(t, bufio.NewReader(c), "GET")
	c.Close()
	waitFor(t, func() bool { return r.Active() == 0 })
	if all, _ := r.events.list(); len(all) != 2 {
		t.Errorf("%d events, want 2%s", len(all), r.events.text())
	}
}

// TestFrontIdle closes a kept connection on which nothing more is asked.
func TestFrontIdle(t *testing.T) {
	port := wire(t, mirror)
	r := webRig(t, port, func(c *Config) { c.Timeouts.Idle = 200 * time.Millisecond })
	c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	br := bufio.NewReader(c)
	reply(t, br, "GET")
	if b, err := io.ReadAll(br); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestFrontReadDeadline holds net/http's deadlines to the caps.
func TestFrontReadDeadline(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	past := time.Unix(1, 0)
	for name, tt := range map[string]struct{ readBy, set time.Time }{
		"capped":          {past, time.Now().Add(time.Hour)},
		"none, capped":    {past, time.Time{}},
		"earlier":         {time.Now().Add(time.Hour), past},
		"without the cap": {time.Time{}, past},
	} {
		h := &httpConn{TCPConn: c.(*net.TCPConn), readBy: tt.readBy}
		if err := h.SetReadDeadline(tt.set); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", name, err)
		}
		c.SetReadDeadline(time.Time{})
	}
}

// TestFrontCountsFromAccept: sniffing has used up some of the time for the
// first head, and net/http must not begin to count anew.
func TestFrontCountsFromAccept(t *testing.T) {
	s, err := New(Config{Listeners: []ListenerConfig{{}}}, Deps{Decider: policy.NewLive(), Resolver: newNames(), Recorder: newEvents(), NewID: flow.NewID})
	if err != nil {
		t.Fatal(err)
	}
	accepted := time.Now().Add(-time.Second)
	go s.front.take(&conn{s: s, accepted: accepted}, []byte("GET"))
	h := (<-s.front.conns).(*httpConn)
	if want := accepted.Add(s.cfg.Timeouts.Hello); !h.readBy.Equal(want) {
		t.Errorf("reading ends %v, want %v", h.readBy, want)
	}
}

// TestFrontTimesAreTheConnections: a dial that was begun for an exchange says
// nothing about one that ran on another connection after all.
func TestFrontTimesAreTheConnections(t *testing.T) {
	r := webRig(t, 80)
	for _, reused := range []bool{true, false} {
		ex := &exchange{attempt: &attempt{}, http: &httpConn{TCPConn: r.dial()}, reused: reused}
		ex.dialled.Store(&flow.Times{Dial: 1, Resolve: 2})
		ex.measure()
		if got := ex.attempt.rec.Times.Dial > 0; got == reused {
			t.Errorf("reused=%t: %+v", reused, ex.attempt.rec.Times)
		}
	}
}

// TestFrontVanishingClients has clients leave at every point of an exchange.
// Whose fault it was is recorded, and nothing is left behind.
func TestFrontVanishingClients(t *testing.T) {
	noLeftovers(t)
	came, gone := make(chan struct{}, 16), make(chan struct{}, 16) // what the origin noticed
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		defer func() { gone <- struct{}{} }()
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		case "/half":
			w.Write([]byte("half"))
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/upload":
			io.Copy(io.Discard, r.Body)
		}
	})
	leave := func(c *net.TCPConn) { c.Close() }
	reset := func(c *net.TCPConn) { c.SetLinger(0); c.Close() }
	for name, tt := range map[string]struct {
		path, method, fields, body string
		read                       int
		leave                      func(*net.TCPConn)
	}{
		"before the answer":        {"/silent", "GET", "", "", 0, leave},
		"before the answer, reset": {"/silent", "GET", "", "", 0, reset},
		"in the download":          {"/endless", "GET", "", "", 100 << 10, leave},
		"in the download, reset":   {"/endless", "GET", "", "", 100 << 10, reset},
		"in a pause":               {"/half", "GET", "", "", 20, leave},
		"in the upload":            {"/upload", "POST", "Content-Length: 1000000\r\n", strings.Repeat("x", 5000), 0, leave},
		"in the upload, reset":     {"/upload", "POST", "Content-Length: 1000000\r\n", strings.Repeat("x", 5000), 0, reset},
		"in a chunk":               {"/upload", "POST", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n5\r\nhe", 0, leave},
	} {
		t.Run(name, func(t *testing.T) {
			r := webRig(t, port)
			c := r.send(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: web.test:%d\r\n%s\r\n%s", tt.method, tt.path, port, tt.fields, tt.body))
			if _, err := io.ReadFull(c, make([]byte, tt.read)); err != nil {
				t.Fatal(err)
			}
			<-came // a request that is given up before it was written reaches nobody
			tt.leave(c)
			rec := r.events.ended(t, "web.test")
			if rec.EndedBy != flow.EndedByClient || rec.Outcome != flow.OutcomeConnectionTerminated {
				t.Errorf("record: outcome %s, ended by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
			}
			<-gone
			waitFor(t, func() bool { return r.Active() == 0 })
		})
	}
}

// TestFrontBrokenUpload is about a client that is there and sends no body.
func TestFrontBrokenUpload(t *testing.T) {
	port := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	r := webRig(t, port, briefly)
	got := r.exchange(fmt.Sprintf("POST / HTTP/1.1\r\nHost: web.test:%d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n", port))
	if !strings.HasPrefix(got, "HTTP/1.1 400") || !strings.Contains(got, "error=http_request_error") {
		t.Errorf("got %q", got)
	}
	if rec := r.events.ended(t, "web.test"); rec.Outcome != flow.OutcomeHTTPRequestError || rec.EndedBy != flow.EndedByClient {
		t.Errorf("record: outcome %s, ended by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
	}
}

// TestFrontIdleExchanges cuts the exchanges on which nothing moves, whoever
// holds them up.
func TestFrontIdleExchanges(t *testing.T) {
	noLeftovers(t)
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		case "/upload":
			io.Copy(io.Discard, r.Body)
		}
	})
	for name, request := range map[string]string{
		"the origin is silent":       "GET /silent HTTP/1.1\r\nHost: web.test:%d\r\n\r\n",
		"the client does not read":   "GET /endless HTTP/1.1\r\nHost: web.test:%d\r\n\r\n",
		"the client does not upload": "POST /upload HTTP/1.1\r\nHost: web.test:%d\r\nContent-Length: 100\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			r := webRig(t, port, func(c *Config) { c.Timeouts.Idle = 300 * time.Millisecond })
			c := r.send(fmt.Sprintf(request, port))
			rec := r.events.ended(t, "web.test")
			if rec.EndedBy != flow.EndedByIdle || rec.Outcome != flow.OutcomeConnectionReadTimeout {
				t.Errorf("record: outcome %s, ended by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
			}
			waitFor(t, func() bool { return r.Active() == 0 })
			c.Close()
		})
	}
}

// TestFrontCutByPolicy ends an exchange that a new policy denies, and shows
// the client that it is not whole.
func TestFrontCutByPolicy(t *testing.T) {
	port := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("half"))
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	r := webRig(t, port)
	c := r.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(resp.Body, make([]byte, 4))
	r.setPolicy(allow("http", 1, "other.test"))
	if n := r.PolicyChanged(); n != 1 {
		t.Errorf("%d were cut, want 1", n)
	}
	if rest, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the client takes it for the whole, with %q", rest)
	}
	if rec := r.events.ended(t, "web.test"); rec.EndedBy != flow.EndedByPolicy || rec.Outcome != flow.OutcomeConnectionTerminated {
		t.Errorf("record: outcome %s, ended by %q", rec.Outcome, rec.EndedBy)
	}
}

// TestFrontLandedFlightsAreNotCut: whoever listed a flight just before it
// ended must not cut what its connections carry next.
func TestFrontLandedFlightsAreNotCut(t *testing.T) {
	l := newLive()
	f := &flight{}
	l.land(f)
	if f.cut(flow.EndedByIdle) || f.endedBy() != "" {
		t.Error("it was cut after it had ended")
	}
}

// BenchmarkHTTPKeepAlive is one client connection, one origin connection, one
// small exchange after another.
func BenchmarkHTTPKeepAlive(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serveFixed(c)
		}
	}()
	b.Cleanup(func() { ln.Close() })
	port := ln.Addr().(*net.TCPAddr).Port
	addr := benchServer(b, "web.test", allow("http", port, "web.test"))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request := fmt.Appendf(nil, "GET http://web.test:%d/path HTTP/1.1\r\nHost: web.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", port)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		for n := 0; ; {
			m, err := c.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			if n += m; strings.HasSuffix(string(buf[:n]), "\r\n\r\nhello") {
				break
			}
		}
	}
}

// serveFixed answers every read with the same response, to cost nothing.
func serveFixed(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

type discard struct{}

func (discard) Observe(flow.Event) {}

// benchServer runs a Server whose records go nowhere, and to which host is here.
func benchServer(b *testing.B, host, rules string) string {
	b.Helper()
	p, err := policy.Load(policy.Text{Name: "bench.yaml", Data: []byte("version: 1\nrules:\n" + rules)})
	if err != nil {
		b.Fatal(err)
	}
	live := policy.NewLive()
	live.Swap(p)
	names := newNames()
	names.set(host, "127.0.0.1")
	s, err := New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}}, Deps{Decider: live, Resolver: names, Recorder: discard{}, NewID: flow.NewID})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Listen(b.Context()); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(b.Context()) }()
	b.Cleanup(func() { s.Cut(); <-done })
	return s.Addrs()[0].String()
}
