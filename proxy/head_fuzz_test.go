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
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// FuzzConnectTarget holds parseAuthority against a grammar written apart, and
// what it accepts against net and net/url: all read one destination.
func FuzzConnectTarget(f *testing.F) {
	for _, s := range []string{
		"a.test:443", "A.Test.:443", "127.0.0.1:80", "[::1]:443", "[::ffff:127.0.0.1]:443", "[fe80::1%25lo]:443", "[127.0.0.1]:80", "::1:443", "[a.test]:443",
		"[::1:443", "[::1]443", "[::1]]:443", "a.test", "a.test:", "a.test:0", "a.test:080", "a.test:+80", "a.test:65536", "a.test:https", ":443", "", "a.test:443/p",
		"u@a.test:443", "http://a.test:443", "a.test:443:443", "0x7f.1:80", "2130706433:80", "a..test:1", "*:443", "a_b-.test:1", "xn--bcher-kva.test:1", "ａ.test:1",
		strings.Repeat("a.", 126) + "a:1", strings.Repeat("a", 64) + ":1", "a\x00.test:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		host, port, err := parseAuthority(target)
		wantHost, wantPort := strictAuthority(target, "")
		if host.String() != wantHost || int(port) != wantPort || (err == nil) != (wantHost != "") {
			t.Fatalf("%q is read as %q %d, %v; want %q %d", target, host, port, err, wantHost, wantPort)
		}
		if err != nil {
			return
		}
		oneReading(t, target, host, port)
		again, p, err := parseAuthority(net.JoinHostPort(host.String(), strconv.Itoa(int(port))))
		if err != nil || again != host || p != port {
			t.Fatalf("%q, as %s %d, is read as %s %d the second time: %v", target, host, port, again, p, err)
		}
	})
}

// FuzzDestination holds destination against the same grammar, on requests
// that net/http has read: both the absolute target and Host.
func FuzzDestination(f *testing.F) {
	for _, s := range [][2]string{
		{"/", "a.test"},
		{"/", "A.test.:8080"},
		{"/", ""},
		{"/", "[::1]:81"},
		{"/", "::1"},
		{"/", "2001:db8::1:80"},
		{"http://2001:db8::1:80/", ""},
		{"/", "u@a.test"},
		{"/", "a.test/b"},
		{"/", "a.test, b.test"},
		{"/", "127.1"},
		{"//b.test/", "a.test"},
		{"http://a.test", "b.test"},
		{"http://a.test?q", "b.test"},
		{"HTTP://a.test:81/p?q", "b.test"},
		{"https://a.test/", "a.test"},
		{"http:a.test", "a.test"},
		{"http:///p", "a.test"},
		{"http://u:p@a.test/", "a.test"},
		{"http://a.test:/", "b.test"},
		{"http://a.test:080/", "b.test"},
		{"http://[::ffff:1.2.3.4]:80/", ""},
		{"http://[fe80::1%25lo]/", ""},
		{"http://a.test%2fb.test/", "b.test"},
		{"http://a.test#b.test/", "b.test"},
		{"http://a.test\\b.test/", "b.test"},
		{"*", "a.test"},
		{"a.test:80", "a.test"},
		{"http://%61.test/", "b.test"},
		{"http://a.test/http://b.test/", "b.test"},
		{"?q", "a.test"},
		{"a", "a.test"},
		{"/..//b", "a.test:0"},
	} {
		f.Add(s[0], s[1], false)
	}
	f.Add("*", "a.test", true)
	f.Add("http://a.test", "a.test", true)
	f.Fuzz(func(t *testing.T, target, hostField string, options bool) {
		method := map[bool]string{false: "GET", true: "OPTIONS"}[options]
		wire := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, target, hostField)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
		strict, strictErr := readStrictAll(wire)
		if err != nil || strictErr != nil || len(strict) != 1 {
			return // FuzzHTTPHead looks at what only one of the two reads
		}
		host, port, err := destination(r)
		wantHost, wantPort := strict[0].destination()
		if method == "GET" && target == "*" || wantHost == "" {
			wantHost, wantPort = "", 0
		}
		if err == nil && (host.String() != wantHost || int(port) != wantPort) {
			t.Fatalf("%q is for %s %d; want %q %d", wire, host, port, wantHost, wantPort)
		}
		if err != nil {
			if wantHost != "" {
				t.Fatalf("%q: %v; want %s %d", wire, err, wantHost, wantPort)
			}
			return
		}
		// The transport sends r.Host to the origin that the policy decided on.
		oneReading(t, net.JoinHostPort(host.String(), strconv.Itoa(int(port))), host, port)
		if h, p := strictAuthority(r.Host, "80"); h != host.String() || p != int(port) {
			t.Fatalf("%q is for %s %d, whose origin is told %q", wire, host, port, r.Host)
		}
	})
}

// oneReading checks that net and net/url find the same destination in s.
func oneReading(t *testing.T, s string, host policy.Host, port uint16) {
	t.Helper()
	h, p, err := net.SplitHostPort(s)
	if err != nil || p != strconv.Itoa(int(port)) || !sameHost(h, host) {
		t.Fatalf("net reads %q as %q %q: %v", s, h, p, err)
	}
	u, err := url.Parse("http://" + s + "/p")
	if err != nil || u.Port() != p || u.Path != "/p" || u.User != nil || !sameHost(u.Hostname(), host) {
		t.Fatalf("net/url reads %q as %+v: %v", s, u, err)
	}
}

func sameHost(s string, host policy.Host) bool {
	if want, ok := host.Addr(); ok {
		addr, err := netip.ParseAddr(s)
		return err == nil && addr.Unmap() == want
	}
	return lowerASCII(strings.TrimSuffix(s, ".")) == host.String()
}

// headRig is a Server between raw clients and origins that write down what
// they get. It serves one client at a time.
type headRig struct {
	*Server
	origins map[netip.AddrPort]*headOrigin // by what is dialled

	mu       sync.Mutex     // guards the rest
	client   netip.AddrPort // the one at hand
	problems []string
	asked    []policy.Query // allowed and denied, in order
	let      int            // CONNECTs that may lead to requests of their own
	allowed  map[string]int // decisions, by host and port
	ended    []flow.Record  // in order
	lives    map[string]flow.Kind
	got      []*arrival      // in order
	open     map[string]bool // connections to origins, by the proxy's end, until the origin has seen the end
	dialling int
}

// headOrigin is one origin: requests for another must not get there.
type headOrigin struct {
	host string
	port int
	raw  bool // anything may come, HTTP or not
	ln   *net.TCPListener
}

// arrival is what came to an origin: a request, or bytes.
type arrival struct {
	origin *headOrigin
	*strictRequest
	opaque []byte
}

const headPolicy = `version: 1
rules:
  - {name: a, hosts: [a.test], ports: [80, 8080], protocol: http, resolves_to: [127.0.0.0/8]}
  - {name: b, hosts: ["*.b.test"], ports: [80], protocol: http, resolves_to: [127.0.0.0/8]}
  - {name: net, cidrs: [127.0.0.4/32], ports: [80], protocol: http}
  - {name: raw, hosts: [raw.test], ports: [22], protocol: tcp, resolves_to: [127.0.0.0/8]}
`

func newHeadRig(f *testing.F) *headRig {
	f.Helper()
	p, err := policy.Load(policy.Text{Name: "head.yaml", Data: []byte(headPolicy)})
	if err != nil {
		f.Fatal(err)
	}
	live := policy.NewLive()
	live.Swap(p)
	r := &headRig{origins: map[netip.AddrPort]*headOrigin{}, allowed: map[string]int{}, lives: map[string]flow.Kind{}, open: map[string]bool{}}
	names := newNames()
	for _, o := range []struct {
		host string
		addr string
		raw  bool
	}{
		{"a.test", "127.0.0.2:80", false},
		{"a.test", "127.0.0.2:8080", false},
		{"x.b.test", "127.0.0.3:80", false},
		{"127.0.0.4", "127.0.0.4:80", false},
		{"raw.test", "127.0.0.5:22", true},
	} {
		addr := netip.MustParseAddrPort(o.addr)
		names.set(o.host, addr.Addr().String())
		r.serve(f, addr, &headOrigin{host: o.host, port: int(addr.Port()), raw: o.raw})
	}
	r.Server, err = New(Config{
		Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}},
		Timeouts:  Timeouts{Hello: time.Second, Dial: 5 * time.Second, Idle: time.Minute, Drain: time.Second},
	}, Deps{Decider: headDecider{r, live}, Resolver: names, Recorder: r, NewID: flow.NewID, Log: zerolog.New(headLog{r})})
	if err != nil {
		f.Fatal(err)
	}
	r.dialer.connect = r.connect
	if err := r.Listen(f.Context()); err != nil {
		f.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	f.Cleanup(func() {
		stop()
		r.Cut()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	return r
}

// connect dials the origin that stands for addr.
func (r *headRig) connect(ctx context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
	r.mu.Lock()
	r.dialling++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.dialling--
		r.mu.Unlock()
	}()
	if err := vet(addr); err != nil {
		return nil, err
	}
	o := r.origins[addr]
	if o == nil {
		r.problem("%s was dialled", addr)
		return nil, errors.New("no such origin")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", o.ln.Addr().String())
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.open[c.LocalAddr().String()] = true
	r.mu.Unlock()
	return c.(*net.TCPConn), nil
}

func (r *headRig) serve(f *testing.F, addr netip.AddrPort, o *headOrigin) {
	f.Helper()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(addr.Addr(), 0).String())
	if err != nil {
		f.Fatal(err)
	}
	o.ln = ln.(*net.TCPListener)
	r.origins[addr] = o
	var wg sync.WaitGroup
	f.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				r.listen(o, c)
				r.mu.Lock()
				delete(r.open, c.RemoteAddr().String())
				r.mu.Unlock()
			})
		}
	})
}

// listen writes down what comes on an origin's connection, and answers.
func (r *headRig) listen(o *headOrigin, c net.Conn) {
	br := bufio.NewReader(c)
	if o.raw {
		b, _ := io.ReadAll(br)
		r.arrived(&arrival{origin: o, opaque: b})
		return
	}
	for {
		m, err := readStrictHead(br)
		if e, ok := errors.AsType[errStrict](err); ok {
			r.problem("%s:%d gets %s", o.host, o.port, e)
		}
		if err != nil {
			return // between two requests, or in a head that a client's end cuts
		}
		a := &arrival{origin: o, strictRequest: m}
		r.arrived(a)
		if len(m.values("expect")) > 0 {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		err = m.readStrictBody(br)
		if e, ok := errors.AsType[errStrict](err); ok {
			r.problem("%s:%d gets %s in a body", o.host, o.port, e)
		}
		if err != nil {
			return
		}
		if len(m.values("upgrade")) > 0 {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			a.opaque, _ = io.ReadAll(br)
			return
		}
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	}
}

func (r *headRig) arrived(a *arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, a)
}

func (r *headRig) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// headLog makes a problem of every error that is logged, and of every panic:
// net/http's own are not logged as errors.
type headLog struct{ r *headRig }

// Write implements io.Writer.
func (l headLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(`"level":"error"`)) || bytes.Contains(p, []byte("panic")) {
		l.r.problem("logged: %s", p)
	}
	return len(p), nil
}

// headDecider writes down the questions to a policy.
type headDecider struct {
	r *headRig
	*policy.Live
}

// Decide implements Decider.
func (d headDecider) Decide(q policy.Query) policy.Decision {
	a := d.Live.Decide(q)
	r := d.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, q)
	if a.Verdict == policy.Allow {
		r.allowed[fmt.Sprint(q.Host, " ", q.Port)]++
		if q.Protocol == policy.ProtocolUnknown && a.Protocol == policy.ProtocolHTTP {
			r.let++
		}
	}
	return a
}

// Observe implements Recorder.
func (r *headRig) Observe(ev flow.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, id := r.lives[ev.Record.ID], ev.Record.ID
	r.lives[id] = ev.Kind
	if want := map[flow.Kind]flow.Kind{flow.Opened: 0, flow.Denied: 0, flow.Closed: flow.Opened}[ev.Kind]; before != want {
		r.problems = append(r.problems, fmt.Sprintf("event %d of an attempt follows %d: %+v", ev.Kind, before, ev.Record))
	}
	// net/http lingers on connections that it cuts: of a broken head, the record may come when nobody waits for it.
	if ev.Kind != flow.Opened && ev.Record.Client == r.client {
		r.ended = append(r.ended, ev.Record)
	}
}

// lastWord ends a connection that is still good behind what was fuzzed.
const lastWord = "GET http://end.test/ HTTP/1.1\r\nHost: end.test\r\nConnection: close\r\n\r\n"

// carry sends wire and reads until the proxy ends the connection. A client
// that vanishes says so at once; another when nothing comes for a while.
func (r *headRig) carry(t *testing.T, wire string, vanish bool) {
	t.Helper()
	c, err := net.Dial("tcp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	r.mu.Lock()
	r.client = addrPortOf(c.LocalAddr())
	r.mu.Unlock()
	if _, err := io.WriteString(c, wire); err != nil {
		t.Fatal(err)
	}
	patience := 10 * time.Millisecond
	if vanish {
		_ = tcp.CloseWrite() // its connection may be over already
		patience = time.Minute
	}
	b := make([]byte, 8<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		switch _, err := c.Read(b); {
		case errors.Is(err, os.ErrDeadlineExceeded) && !vanish:
			vanish, patience = true, 30*time.Second
			_ = tcp.CloseWrite() // likewise
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatalf("%q: the connection does not end", wire)
		case err != nil:
			return
		}
	}
}

// unrest says what is still under way.
func (r *headRig) unrest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d decisions, %d records, %d connections to origins: it does not come to rest", len(r.asked), len(r.ended), len(r.open))
}

// settle waits until nothing is under way any more.
func (r *headRig) settle(t *testing.T, sent bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for wait := 20 * time.Microsecond; !r.quiet(sent); wait = min(2*wait, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(r.unrest())
		}
		<-time.After(wait)
	}
}

func (r *headRig) quiet(sent bool) bool {
	p := r.front.pool
	p.mu.Lock()
	for _, transport := range p.rules {
		transport.CloseIdleConnections()
	}
	p.mu.Unlock()
	r.front.kept.reset()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialling == 0 && len(r.open) == 0 && (!sent || len(r.ended) > 0) && len(r.decided()) >= len(r.asked)-r.let &&
		!slices.ContainsFunc(r.ended, func(rec flow.Record) bool { return r.lives[rec.ID] == flow.Opened })
}

// decided returns the records of attempts that the policy was asked about.
func (r *headRig) decided() []flow.Record {
	return slices.DeleteFunc(slices.Clone(r.ended), func(rec flow.Record) bool { return rec.PolicyVersion == "" })
}

func (r *headRig) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client, r.problems, r.asked, r.ended, r.got, r.let = netip.AddrPort{}, nil, nil, nil, nil, 0
	clear(r.allowed)
	if len(r.lives) > 10_000 {
		clear(r.lives)
	}
}

// FuzzHTTPHead sends bytes to the front as a client would, and holds what
// reaches the origins against a strict reader and against the records:
//   - nothing panics, every connection ends, every attempt has one record;
//   - what reaches an origin is well-formed, says that origin's own name, and
//     was allowed for it, once for each request;
//   - fields that belong to one connection, and credentials, stay behind;
//   - requests that a strict reader finds in the client's bytes are recorded
//     as those, in that order, and reach the origin with the same method,
//     target, fields and body.
func FuzzHTTPHead(f *testing.F) {
	for _, wire := range headSeeds() {
		f.Add([]byte(wire), false)
	}
	f.Add([]byte("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"), true)
	f.Add([]byte("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nab"), true)
	f.Add([]byte("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n"), true)
	f.Add([]byte(""), true)
	r := newHeadRig(f)
	f.Fuzz(func(t *testing.T, head []byte, vanish bool) {
		if len(head) > 8<<10 {
			t.Skip("longer only takes longer")
		}
		wire := string(head)
		if !vanish {
			if !strings.HasSuffix(wire, "\r\n\r\n") {
				wire += "\r\n\r\n" // else it would belong to the head
			}
			wire += lastWord
		}
		defer r.forget()
		r.carry(t, wire, vanish)
		r.settle(t, wire != "")
		r.check(t, wire)
	})
}

// check holds what happened against wire.
func (r *headRig) check(t *testing.T, wire string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf(format+"; wire %q, records%s", append(args, wire, headRecords(r.ended))...)
	}
	for _, p := range r.problems {
		fail("%s", p)
	}
	if n := len(r.decided()); n > len(r.asked) {
		fail("%d attempts decided, %d records of such", len(r.asked), n)
	}
	tunnel := "" // the one that a connection may be
	for _, rec := range r.ended {
		if rec.Outcome == flow.OutcomeInternalError {
			fail("the proxy failed: %s", rec.Error)
		}
		if rec.Via == policy.ViaConnect && rec.Verdict == policy.Allow {
			key := fmt.Sprint(rec.Host, " ", rec.Port)
			if tunnel != "" && tunnel != key {
				fail("a tunnel to %s leads to %s", tunnel, key)
			}
			tunnel = key
		}
	}
	tunnels := 0
	for _, q := range r.asked {
		if q.Via == policy.ViaConnect && q.Protocol == policy.ProtocolUnknown {
			tunnels++
		}
	}
	if tunnels > 1 {
		fail("%d CONNECTs are decided on one connection", tunnels)
	}
	for i, a := range r.got {
		key := fmt.Sprint(a.origin.host, " ", a.origin.port)
		if r.allowed[key]--; r.allowed[key] < 0 {
			fail("%s is reached more often than it was allowed", key)
		}
		if a.opaque != nil && !bytes.HasSuffix([]byte(wire), a.opaque) {
			fail("%s gets %q", key, a.opaque)
		}
		if a.strictRequest != nil {
			for _, p := range a.problems() {
				fail("arrival %d: %s", i, p)
			}
		}
	}
	r.compare(fail, wire)
}

// problems are what no origin may ever see in a request.
func (a *arrival) problems() []string {
	var out []string
	if host, port := strictAuthority(a.values("host")[0], "80"); host != a.origin.host || port != a.origin.port {
		out = append(out, fmt.Sprintf("%s:%d gets a request for %q", a.origin.host, a.origin.port, a.values("host")))
	}
	if a.version != "HTTP/1.1" || a.method == "CONNECT" || !strings.HasPrefix(a.target, "/") && (a.target != "*" || a.method != "OPTIONS") {
		out = append(out, fmt.Sprintf("request line %s %s %s", a.method, a.target, a.version))
	}
	webSocket := slices.Equal(a.values("upgrade"), []string{"websocket"}) && slices.Equal(a.values("connection"), []string{"Upgrade"})
	for _, f := range slices.Concat(a.fields, a.trailers) {
		switch f.name {
		case "proxy-connection", "proxy-authorization", "proxy-authenticate", "proxy-authentication-info", "keep-alive", "http2-settings":
			out = append(out, f.name+" is passed on")
		case "connection", "upgrade":
			own := f.value == "close" && len(a.values("expect")) > 0 // the proxy's own, see exchange.outgoing
			if !webSocket && !own {
				out = append(out, f.name+": "+f.value+" is passed on")
			}
		case "te":
			if f.value != "trailers" {
				out = append(out, "te: "+f.value+" is passed on")
			}
		}
	}
	for _, f := range a.trailers {
		if slices.Contains([]string{"host", "content-length", "transfer-encoding", "authorization", "te", "trailer", "connection", "upgrade"}, f.name) {
			out = append(out, f.name+" is a trailer")
		}
	}
	return out
}

// compare holds the records and the arrivals against the strict reading of
// wire, one by one: a request is a record, and an arrival at most.
func (r *headRig) compare(fail func(string, ...any), wire string) {
	want, err := readStrictAll(wire)
	if err == nil && len(r.ended) > len(want) {
		fail("%d requests were sent", len(want))
	}
	next := 0
	for i, rec := range r.ended {
		var sent *strictRequest // nil when the strict reader did not get so far
		switch {
		case i < len(want):
			sent = want[i]
		case err == nil:
			return
		}
		if rec.HTTP.Method == "" {
			break // the head was not acceptable to net/http, and the connection is over
		}
		var arrived *arrival
		if next < len(r.got) && r.got[next].isOf(rec) {
			arrived = r.got[next]
			next++
		}
		if arrived != nil && arrived.strictRequest != nil && arrived.complete && int64(len(arrived.body)) != rec.BytesSent && arrived.opaque == nil {
			fail("record %d counts %d bytes, and %d arrived", i, rec.BytesSent, len(arrived.body))
		}
		if sent == nil {
			continue
		}
		if sent.method == "CONNECT" {
			// What follows may be anything; a tunnel of plain HTTP has no record but its requests'.
			err, want = errors.New("a tunnel"), want[:i]
			if rec.HTTP.Method != "CONNECT" {
				continue
			}
		}
		if host, port := sent.destination(); rec.HTTP.Method != sent.method || rec.PolicyVersion != "" && (rec.Host != host || int(rec.Port) != port) {
			fail("record %d is of %s %s:%d; sent was %s for %s:%d", i, rec.HTTP.Method, rec.Host, rec.Port, sent.method, host, port)
		}
		if arrived != nil && arrived.opaque != nil && rec.Outcome == flow.OutcomeOK && string(arrived.opaque) != wire[sent.end:] {
			fail("behind request %d comes %q", i, arrived.opaque)
		}
		if arrived != nil && arrived.strictRequest != nil {
			for _, p := range differences(sent, arrived.strictRequest) {
				fail("request %d: %s", i, p)
			}
		}
	}
	if next < len(r.got) {
		fail("arrival %d is nobody's: %+v", next, *r.got[next])
	}
}

// isOf reports whether a may be what rec tells of.
func (a *arrival) isOf(rec flow.Record) bool {
	if rec.Verdict != policy.Allow || rec.Host != a.origin.host || int(rec.Port) != a.origin.port {
		return false
	}
	if a.strictRequest == nil {
		return rec.HTTP.Method == "CONNECT"
	}
	path, _, _ := strings.Cut(a.target, "?")
	return rec.HTTP.Method == a.method && (unescaped(rec.HTTP.Path) == unescaped(path) || rec.HTTP.Path == "" && (path == "/" || path == "*"))
}

func unescaped(path string) string {
	if s, err := url.PathUnescape(path); err == nil {
		return s
	}
	return path
}

// differences tells where the request that arrived is not the one sent.
func differences(sent, arrived *strictRequest) []string {
	var out []string
	// net/url writes a path that begins with two slashes in its own way (see keepPath).
	if _, path := sent.split(); arrived.target != path && (!strings.HasPrefix(path, "//") || unescaped(arrived.target) != unescaped(path)) {
		out = append(out, fmt.Sprintf("target %q became %q", path, arrived.target))
	}
	if len(sent.values("pragma")) > 0 && len(sent.values("cache-control")) == 0 {
		// net/http's server adds what Pragma stands for (RFC 9111, section 5.4).
		arrived.fields = slices.DeleteFunc(arrived.fields, func(f strictField) bool { return f == strictField{"cache-control", "no-cache"} })
	}
	// Its transport sends one User-Agent, and none that is empty (neither is one: RFC 9110, section 10.1.5).
	agents := 0
	sent.fields = slices.DeleteFunc(sent.fields, func(f strictField) bool {
		if f.name == "user-agent" {
			agents++
		}
		return f.name == "user-agent" && (agents > 1 || f.value == "")
	})
	ends := func(m *strictRequest, fields []strictField) []strictField {
		return slices.SortedStableFunc(slices.Values(slices.DeleteFunc(slices.Clone(fields), func(f strictField) bool {
			return m.lists("connection", f.name) || slices.Contains([]string{
				"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "proxy-connection",
				"proxy-authorization", "proxy-authenticate", "proxy-authentication-info", "http2-settings",
			}, f.name)
		})), func(a, b strictField) int { return strings.Compare(a.name, b.name) })
	}
	if a, b := ends(sent, sent.fields), ends(arrived, arrived.fields); !slices.Equal(a, b) {
		out = append(out, fmt.Sprintf("fields %q became %q", a, b))
	}
	if sent.broken {
		return out
	}
	if !bytes.HasPrefix(sent.body, arrived.body) || arrived.complete && len(arrived.body) != len(sent.body) {
		out = append(out, fmt.Sprintf("body %q became %q", sent.body, arrived.body))
	}
	if arrived.complete && !sent.complete {
		out = append(out, "a body that was cut off became whole")
	}
	return out
}

func headRecords(records []flow.Record) string {
	var b strings.Builder
	for _, rec := range records {
		fmt.Fprintf(&b, "\n  %s %s %s:%d %q %s %s, %d bytes: %s", rec.Via, rec.HTTP.Method, rec.Host, rec.Port, rec.HTTP.Path, rec.Verdict, rec.Outcome, rec.BytesSent, rec.Error)
	}
	return b.String()
}

// headSeeds are ordinary requests, and those that proxies and origins have
// been known to read in two ways.
func headSeeds() []string {
	const host = "Host: a.test\r\n"
	post := func(fields, body string) string {
		return "POST http://a.test/p HTTP/1.1\r\n" + host + fields + "\r\n" + body
	}
	get := func(target string, fields ...string) string {
		return "GET " + target + " HTTP/1.1\r\n" + host + strings.Join(append(fields, ""), "\r\n") + "\r\n"
	}
	const chunks = "3\r\nabc\r\n0\r\n\r\n"
	return []string{
		// Ordinary ones, in all forms and to all origins.
		get("/p?q"), get("http://a.test:8080/p?q"), get("http://x.b.test"), get("http://127.0.0.4/"), get("http://gone.b.test/"), get("http://no.test/"),
		get("HTTP://A.TEST.:80"), get("http://a.test?q=http://b/"), get("http://a.test/a%2fb/../c;d//e?"), get("//x.b.test/"), get("http://a.test//x.b.test/"),
		"GET http://a.test/ HTTP/1.0\r\n\r\n", "HEAD /p HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "OPTIONS http://a.test HTTP/1.1\r\n" + host + "\r\n",
		// golang.org/issue/68560: a body that nobody read, on a connection that goes on.
		"POST http://gone.b.test/ HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", "POST http://gone.b.test/ HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n" + chunks + get("/next"),
		get("/a") + post("Content-Length: 3\r\n", "abc") + get("http://x.b.test/b") + get("http://no.test/") + get("/c"),
		post("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", "3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n"), post("Content-Length: 3\r\nExpect: 100-continue\r\n", "abc"),
		get("/", "Cookie: a=b", "Cookie: c=d", "X-Forwarded-For: 1.2.3.4", "Accept-Encoding: gzip", "User-Agent: x", "Referer:"),
		get("/", "Connection: keep-alive, X-Secret", "X-Secret: 1", "Keep-Alive: 5", "TE: trailers, gzip", "Proxy-Connection: x", "Proxy-Authorization: Basic eDp5", "Upgrade: h2c", "HTTP2-Settings: AA"),
		get("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13") + "\x81\x01x",
		get("/", "Pragma: no-cache", "If-None-Match: \"x\"", "Range: bytes=0-1"),
		// Whose length is it?
		post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks), post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"+get("http://no.test/")),
		post("Content-Length: 3\r\nContent-Length: 30\r\n", "abc"), post("Content-Length: 3, 3\r\n", "abc"), post("Content-Length: +3\r\n", "abc"), post("Content-Length: 0x3\r\n", "abc"),
		post("Content-Length : 3\r\n", "abc"), post("Transfer-Encoding : chunked\r\n", chunks), post("Transfer-Encoding: xchunked\r\n", chunks), post("Transfer-Encoding: chunked, identity\r\n", chunks),
		post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks), post("Transfer-Encoding:\x0bchunked\r\n", chunks), post("X: y\r\n Transfer-Encoding: chunked\r\n", chunks),
		post("Transfer-Encoding: chunked\r\n", "3;x=\"\r\n\"\r\nabc\r\n0\r\n\r\n"), post("Transfer-Encoding: chunked\r\n", "3\nabc\n0\n\n"), post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n"),
		post("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n"), post("Transfer-Encoding: chunked\r\n", "-1\r\n\r\n"), "POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		post("Connection: Content-Length\r\nContent-Length: 3\r\n", "abc"), post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", chunks), "GET / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
		post("Content-Length: 30\r\n", "abc"), post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"), post("Expect: 100-continue\r\nContent-Length: 9\r\n", ""),
		// Whose host is it?
		get("http://a.test/", "Host: no.test"), "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: no.test\r\n Host: a.test\r\n\r\n", "GET http://a.test@no.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		get("http://no.test#@a.test/"), get("http://a.test\\@no.test/"), get("http://a.test:80:81/"), get("http:a.test/"), get("a.test:80"), get("http://[::1]/"), get("http://[a.test]/"), get("ftp://a.test/"),
		"GET / HTTP/1.1\r\nHost: a.test:8080\r\nConnection: Host\r\n\r\n", "GET http://a.test/\x00 HTTP/1.1\r\n" + host + "\r\n", "GET /\xff HTTP/1.1\r\n" + host + "\r\n", get("/%zz"), get("/#f"), get("/a b"),
		// Lines and names that are none.
		"GET / HTTP/1.1\n" + host + "\n", "\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", "GET  / HTTP/1.1\r\n" + host + "\r\n", "GET\t/\tHTTP/1.1\r\n" + host + "\r\n", "GET / HTTP/1.2\r\n" + host + "\r\n", "GET / HTTP/2.0\r\n" + host + "\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /\r\n\r\n", "G\x01T / HTTP/1.1\r\n" + host + "\r\n", "get / HTTP/1.1\r\n" + host + "\r\n", get("/", "X\x00: y"), get("/", "X: a\rb"), get("/", ": y"), get("/", "X(y): z"),
		get("/", "x_y: 1", "X-Y: 2", "x-y: 3"), "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("y", 5000) + "\r\n\r\n", "\x16\x03\x01\x00\x05hello", "SSH-2.0-x\r\n", "\x00", "GET",
		// CONNECT: refused, plain HTTP inside, anything inside, TLS that is none.
		"CONNECT no.test:443 HTTP/1.1\r\nHost: no.test:443\r\n\r\n", "CONNECT a.test HTTP/1.1\r\n" + host + "\r\n", "CONNECT a.test:80/ HTTP/1.1\r\n" + host + "\r\n", "CONNECT http://a.test:80 HTTP/1.1\r\n" + host + "\r\n",
		"CONNECT a.test:80 HTTP/1.1\r\n" + host + "\r\n" + get("/in") + get("http://x.b.test/out") + get("http://a.test/in"), "CONNECT a.test:80 HTTP/1.1\r\n" + host + "\r\nCONNECT x.b.test:80 HTTP/1.1\r\n" + host + "\r\n",
		"CONNECT a.test:80 HTTP/1.1\r\n" + host + "\r\nCONNECT raw.test:22 HTTP/1.1\r\n" + host + "\r\n" + get("/in"),
		"CONNECT raw.test:22 HTTP/1.1\r\n" + host + "\r\nSSH-2.0-x\r\n", "CONNECT raw.test:22 HTTP/1.1\r\n" + host + "\r\n" + get("/in"), "CONNECT a.test:80 HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
		"CONNECT raw.test:22 HTTP/1.1\r\nHost: a.test:22\r\nProxy-Authorization: Basic eDp5\r\n\r\n", "CONNECT a.test:80 HTTP/1.1\r\n" + host + "\r\n\x16\x03\x01\x00\x05hello", "CONNECT a.test:80 HTTP/1.0\r\n\r\n" + get("/ws", "Connection: Upgrade", "Upgrade: websocket"),
	}
}
