package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// extent returns how much a break-it program does: its short form, unless
// SALLYPORT_BREAK or the program's own variable (SALLYPORT_SOAK for "soak")
// asks for more. Either is "long" or a number; the program's own wins.
func extent(t *testing.T, program string, short, long int) int {
	t.Helper()
	for _, name := range []string{"SALLYPORT_" + strings.ToUpper(program), "SALLYPORT_BREAK"} {
		switch text := os.Getenv(name); text {
		case "":
		case "long":
			return long
		default:
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				t.Fatalf("%s=%q: write long, or a number", name, text)
			}
			return n
		}
	}
	return short
}

// roads are the ways through the proxy to an origin of [world.breakOrigin]. A
// new listener kind, or a new way to learn a name, joins here.
func roads() []road {
	return []road{
		{"CONNECT", "connect", 7, openConnect},
		{"raw TLS", "tls", 443, openTLS},
		{"TLS in CONNECT", "connect", 443, openTLSInConnect},
		{"WebSocket", "http", 80, openUpgrade},
		{"HTTP", "http", 80, openHTTP},
	}
}

// road is one way to an origin.
type road struct {
	name, via string
	port      int
	// open sends an order to the origin at host: "down ID", "up ID" (see
	// transfer), or "echo", which HTTP cannot carry. It returns once the origin
	// has taken the order or, with another status than 200, when the proxy has
	// refused.
	open func(proxy, host, order string) (*stream, error)
}

// stream is what a road leads to: bytes from and to the origin.
type stream struct {
	net.Conn // not *net.TCPConn, whose WriteTo would read past in
	in       io.Reader
	status   int
	// answer ends what the client says and returns all that the origin says
	// after it.
	answer func() (string, error)
}

func (s *stream) Read(p []byte) (int, error) { return s.in.Read(p) }

// roadRules are rules that allow all roads to the hosts.
func roadRules(name string, hosts ...string) string {
	var b strings.Builder
	list := strings.Join(hosts, ", ")
	for _, r := range []struct {
		protocol string
		port     int
	}{{"tcp", 7}, {"tls", 443}, {"http", 80}} {
		fmt.Fprintf(&b, "  - {name: %s-%s, hosts: [%s], ports: [%d], protocol: %[2]s, resolves_to: [127.0.0.0/8]}\n", name, r.protocol, list, r.port)
	}
	return b.String()
}

func dialRoad(proxy string) (*stream, error) {
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		return nil, err
	}
	s := &stream{Conn: c, in: bufio.NewReader(c)}
	s.answer = func() (string, error) {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return "", err
		}
		text, err := io.ReadAll(s)
		return string(text), err
	}
	return s, s.SetDeadline(time.Now().Add(patience))
}

// wasCut reports whether err is that of a stream which somebody ended, and not
// that of a client who waited in vain.
func wasCut(err error) bool { return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) }

// ask sends an HTTP request and reads the head of its answer.
func (s *stream) ask(head string, method string) (*http.Response, error) {
	if _, err := io.WriteString(s, head); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(s.in.(*bufio.Reader), &http.Request{Method: method})
	if err == nil {
		s.status = resp.StatusCode
	}
	return resp, err
}

// order gives the origin its order and waits until it is taken.
func (s *stream) order(order string) error {
	if _, err := io.WriteString(s, order+"\n"); err != nil {
		return err
	}
	return s.ready(order)
}

// ready waits until the origin has taken the order.
func (s *stream) ready(order string) error {
	text, err := s.in.(*bufio.Reader).ReadString('\n')
	if text != "ready\n" {
		return fmt.Errorf("%s: the origin says %q, %w", order, text, err)
	}
	s.status = http.StatusOK
	return nil
}

func openConnect(proxy, host, order string) (*stream, error) {
	s, err := dialRoad(proxy)
	if err != nil {
		return nil, err
	}
	if _, err := s.ask(fmt.Sprintf("CONNECT %s:7 HTTP/1.1\r\n\r\n", host), http.MethodConnect); err != nil || s.status != http.StatusOK {
		return s, err
	}
	err = s.order(order)
	return s, err
}

func openTLS(proxy, host, order string) (*stream, error) {
	s, err := dialRoad(proxy)
	if err != nil {
		return nil, err
	}
	err = s.hello(host, order)
	return s, err
}

func openTLSInConnect(proxy, host, order string) (*stream, error) {
	s, err := dialRoad(proxy)
	if err != nil {
		return nil, err
	}
	if _, err := s.ask(fmt.Sprintf("CONNECT %s:443 HTTP/1.1\r\n\r\n", host), http.MethodConnect); err != nil || s.status != http.StatusOK {
		return s, err
	}
	err = s.hello(host, order)
	return s, err
}

// hello sends a ClientHello, which the origin skips, and the order.
func (s *stream) hello(host, order string) error {
	hello, err := clientHello(host)
	if err != nil {
		return err
	}
	if _, err := s.Write(hello); err != nil {
		return err
	}
	if _, err := io.WriteString(s, order+"\n"); err != nil {
		return err
	}
	first, err := s.in.(*bufio.Reader).Peek(1)
	if err == nil && first[0] == 0x15 { // an alert
		s.status = http.StatusForbidden
		return nil
	}
	if err != nil {
		return err
	}
	return s.ready(order)
}

func openUpgrade(proxy, host, order string) (*stream, error) {
	s, err := dialRoad(proxy)
	if err != nil {
		return nil, err
	}
	const key = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	_, err = s.ask(fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: %[1]s\r\n%s\r\n\r\n", host, key), http.MethodGet)
	if err != nil || s.status != http.StatusSwitchingProtocols {
		return s, err
	}
	err = s.order(order)
	return s, err
}

func openHTTP(proxy, host, order string) (*stream, error) {
	s, err := dialRoad(proxy)
	if err != nil {
		return nil, err
	}
	err = s.transfer("http://"+host, host, order)
	return s, err
}

// transfer gives the order as an HTTP request: a PUT or a GET of its ID, below
// base.
func (s *stream) transfer(base, host, order string) error {
	verb, id, _ := strings.Cut(order, " ")
	if verb != "up" {
		resp, err := s.ask(fmt.Sprintf("GET %s/%s HTTP/1.1\r\nHost: %s\r\n\r\n", base, id, host), http.MethodGet)
		if err == nil {
			s.in = resp.Body
		}
		return err
	}
	_, err := fmt.Fprintf(s, "PUT %s/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", base, id, host, transferSize)
	s.status = http.StatusOK
	s.answer = func() (string, error) {
		resp, err := http.ReadResponse(s.in.(*bufio.Reader), nil)
		if err != nil {
			return "", err
		}
		text, err := io.ReadAll(resp.Body)
		return string(text), err
	}
	return err
}

// transferSize is how many bytes a transfer carries. Half of them fill no
// buffer on the way, so that who has sent them knows nothing of their arrival.
const transferSize = 128 << 10

// transfer is one direction's worth of bytes that rests in the middle.
type transfer struct {
	id   int
	up   bool
	half chan struct{}   // closed when the first half has arrived
	goOn <-chan struct{} // closed when the second may go
}

func (x *transfer) order() string {
	if x.up {
		return fmt.Sprint("up ", x.id)
	}
	return fmt.Sprint("down ", x.id)
}

// bytes never end, and are those of no other transfer.
func (x *transfer) bytes() io.Reader {
	var seed [32]byte
	copy(seed[:], strconv.Itoa(x.id))
	return rand.NewChaCha8(seed)
}

// send writes the transfer's bytes, resting in the middle.
func (x *transfer) send(w io.Writer) error {
	from := x.bytes()
	for range 2 {
		if _, err := io.CopyN(w, from, transferSize/2); err != nil {
			return err
		}
		<-x.goOn
	}
	return nil
}

// receive reads the transfer's bytes and nothing else, until the end.
func (x *transfer) receive(r io.Reader) error {
	want := x.bytes()
	if err := same(r, want, transferSize/2); err != nil {
		return err
	}
	close(x.half)
	if err := same(r, want, transferSize/2); err != nil {
		return fmt.Errorf("in its second half: %w", err)
	}
	if n, err := io.Copy(io.Discard, r); n > 0 || err != nil {
		return fmt.Errorf("after the last byte: %d more, %w", n, err)
	}
	return nil
}

// same compares the next n bytes of two readers.
func same(got, want io.Reader, n int) error {
	a, b := make([]byte, 16<<10), make([]byte, 16<<10)
	for at := 0; at < n; at += len(a) {
		k := min(len(a), n-at)
		if m, err := io.ReadFull(got, a[:k]); err != nil {
			return fmt.Errorf("at byte %d: %w", at+m, err)
		}
		if _, err := io.ReadFull(want, b[:k]); err != nil {
			return err
		}
		if !bytes.Equal(a[:k], b[:k]) {
			return fmt.Errorf("the bytes from %d on are not those that were sent", at)
		}
	}
	return nil
}

// carry is the client's part of a transfer to host by a road.
func (x *transfer) carry(r *rig, way road, host string) error {
	s, err := way.open(r.addr, host, x.order())
	if err != nil {
		return err
	}
	defer s.Close()
	switch {
	case s.status/100 == 4 || s.status/100 == 5:
		return fmt.Errorf("answered %d", s.status)
	case !x.up:
		return x.receive(s)
	}
	if err := x.send(s); err != nil {
		return err
	}
	if text, err := s.answer(); text != "ok" || err != nil {
		return fmt.Errorf("the origin says %q, %w", text, err)
	}
	return nil
}

// breakOrigin is an origin that carries transfers, on every road's port.
type breakOrigin struct {
	mu        sync.Mutex
	transfers map[int]*transfer
	last      int
}

// breakOrigin starts one under the names.
func (w *world) breakOrigin(names ...string) *breakOrigin {
	w.t.Helper()
	o := &breakOrigin{transfers: make(map[int]*transfer)}
	addr := loopback()
	for _, n := range names {
		w.name(n, addr)
	}
	o.listen(w.t, addr+":7", func(c *net.TCPConn) { o.obey(bufio.NewReader(c), c) })
	o.listen(w.t, addr+":443", func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		head, err := br.Peek(5)
		if err == nil {
			_, err = br.Discard(5 + int(head[3])<<8 + int(head[4]))
		}
		if err == nil {
			o.obey(br, c)
		}
	})
	web := &origin{name: names[0], addr: addr}
	web.serve(w.t, listen(w.t, addr+":80"), o, false)
	return o
}

func (o *breakOrigin) listen(t *testing.T, addr string, serve func(*net.TCPConn)) {
	t.Helper()
	ln := listen(t, addr)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				serve(c.(*net.TCPConn))
			}()
		}
	}()
}

// add makes a transfer that the origin knows.
func (o *breakOrigin) add(up bool, goOn <-chan struct{}) *transfer {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	x := &transfer{id: o.last, up: up, half: make(chan struct{}), goOn: goOn}
	o.transfers[x.id] = x
	return x
}

func (o *breakOrigin) drop(x *transfer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.transfers, x.id)
}

func (o *breakOrigin) find(id string) (*transfer, error) {
	n, err := strconv.Atoi(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.transfers[n]
	if x == nil {
		return nil, errors.Join(fmt.Errorf("no transfer %q", id), err)
	}
	return x, nil
}

// obey carries out the order that the stream begins with.
func (o *breakOrigin) obey(in *bufio.Reader, c *net.TCPConn) {
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	if _, err := io.WriteString(c, "ready\n"); err != nil {
		return
	}
	verb, id, _ := strings.Cut(strings.TrimSpace(line), " ")
	if verb == "echo" {
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{in}) // a pipe for each would take the test's descriptors
		return
	}
	x, err := o.find(id)
	if err != nil {
		return
	}
	if !x.up {
		if x.send(c) == nil && c.CloseWrite() == nil {
			_, _ = io.Copy(io.Discard, in)
		}
		return
	}
	verdict := "ok"
	if err := x.receive(in); err != nil {
		verdict = err.Error()
	}
	_, _ = io.WriteString(c, verdict)
}

// ServeHTTP is the road of plain HTTP, and of what begins as HTTP.
func (o *breakOrigin) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		c, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		if err == nil {
			o.obey(buffered.Reader, c.(politeConn).TCPConn)
		}
		return
	}
	x, err := o.find(strings.Trim(r.URL.Path, "/"))
	switch {
	case err != nil:
		http.Error(rw, err.Error(), http.StatusNotFound)
	case x.up:
		if err := x.receive(r.Body); err != nil {
			_, _ = io.WriteString(rw, err.Error())
			return
		}
		_, _ = io.WriteString(rw, "ok")
	default:
		rw.Header().Set("Content-Length", strconv.Itoa(transferSize))
		_ = x.send(flushing{rw})
	}
}

// flushing writes through at once.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}
