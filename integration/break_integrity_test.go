package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	enc "encoding/binary" // binary is the product here
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// integrityPeriod is after how many bytes the content repeats. A prime: bytes
// that are lost, doubled or swapped in pieces of any size that a program
// works in stand at a wrong place of it.
const integrityPeriod = 4194301

// integrityHeader is what a client sends first through a tunnel: what it will
// send and what it wants to be sent, as big-endian 64-bit numbers.
const integrityHeader = 6 * 8

// integrity is the load of TestBreakIntegrity.
type integrity struct {
	t     *testing.T
	rig   *rig
	addr  string // of the origin
	port  int    // of its tcp side; TLS is 443, HTTP is 80
	hello []byte
	block []byte // the content, twice, so that a piece of up to a period is one slice
	web   *http.Client

	sent, received atomic.Int64 // what the records must add up to
	moved          atomic.Int64 // compared, both directions together
}

// newIntegrity starts the origin. Set rig once the proxy is there.
func newIntegrity(t *testing.T, w *world) *integrity {
	t.Helper()
	in := &integrity{t: t, addr: loopback(), hello: helloFor(t, "bytes.test")}
	seed := sha256.Sum256([]byte(t.Name()))
	once := make([]byte, integrityPeriod)
	_, _ = rand.NewChaCha8(seed).Read(once) // never fails
	in.block = slices.Concat(once, once)
	in.port = in.listen("0", false)
	in.listen("443", true)
	in.serveWeb()
	w.name("bytes.test", in.addr)
	w.name("raw.test", in.addr)
	return in
}

func (in *integrity) rules() string {
	return fmt.Sprintf(`
  - {name: bytes-tls, hosts: [bytes.test], resolves_to: [127.0.0.0/8]}
  - {name: bytes-tcp, hosts: [raw.test], ports: [%d], protocol: tcp, resolves_to: [127.0.0.0/8]}
  - {name: bytes-web, hosts: [bytes.test], protocol: http, resolves_to: [127.0.0.0/8]}
`, in.port)
}

// sendOrder is who sends when.
type sendOrder int64

const (
	bothAtOnce sendOrder = iota
	upFirst              // the client half-closes, then the origin sends
	downFirst            // the origin half-closes, then the client sends
	inTurns              // a part each, many times
	orders
)

const turns = 12

// cargo is content each way.
type cargo struct {
	upAt, up, downAt, down int64
	order                  sendOrder
	manners                int64 // seeds the manners of both ends
	opened                 func()
}

func plainCargo(in *integrity, up, down int64) *cargo {
	return &cargo{upAt: 1, up: up, downAt: 7, down: down, opened: func() {}}
}

func (tr *cargo) header() []byte {
	var b []byte
	for _, v := range []int64{tr.upAt, tr.up, tr.downAt, tr.down, int64(tr.order), tr.manners} {
		b = enc.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func parseCargo(b []byte) *cargo {
	at := func(i int) int64 { return int64(enc.BigEndian.Uint64(b[8*i:])) }
	return &cargo{upAt: at(0), up: at(1), downAt: at(2), down: at(3), order: sendOrder(at(4)), manners: at(5)}
}

// manners is how an end writes and reads: in pieces of what size, with which
// pauses. Zero manners are plain: all that fits, at once.
type manners struct {
	rng    *rand.Rand // nil: plain
	small  bool       // pieces of up to 4 KiB
	start  int64      // bytes to begin with in pieces of up to 512
	pauses []int64    // before which byte to be silent for long enough that the tunnel rests
	fits   bool       // reads stop and start
}

func newManners(seed int64, who uint64, n int64) *manners {
	if seed == 0 {
		return &manners{}
	}
	m := &manners{rng: rand.New(rand.NewPCG(uint64(seed), who))}
	m.small = m.rng.IntN(4) == 0 && n < 1<<20
	if m.rng.IntN(3) == 0 {
		m.start = 16 << 10
	}
	if m.rng.IntN(30) == 0 && n > 0 {
		for range 1 + m.rng.IntN(2) {
			m.pauses = append(m.pauses, m.rng.Int64N(n))
		}
		slices.Sort(m.pauses)
	}
	m.fits = m.rng.IntN(5) == 0
	return m
}

// piece returns how many bytes come next, of left, when done have been.
func (m *manners) piece(done, left int64) int64 {
	if m.rng == nil {
		return min(left, 1<<20)
	}
	most := int64(1 << 20)
	switch {
	case done < m.start:
		most = 512
	case m.small:
		most = 4 << 10
	}
	next := 1 + m.rng.Int64N(most)
	if len(m.pauses) > 0 && done < m.pauses[0] {
		next = min(next, m.pauses[0]-done)
	}
	return min(next, left)
}

// wait is silent where it is time to be.
func (m *manners) wait(done int64) {
	if len(m.pauses) > 0 && done >= m.pauses[0] {
		m.pauses = m.pauses[1:]
		pause(1100*time.Millisecond + time.Duration(m.rng.IntN(1500))*time.Millisecond)
	}
}

// send writes n bytes of the content from at.
func (in *integrity) send(w io.Writer, at, n int64, m *manners) error {
	for done := int64(0); done < n; {
		m.wait(done)
		from := (at + done) % integrityPeriod
		k := m.piece(done, n-done)
		if _, err := w.Write(in.block[from : from+k]); err != nil {
			return fmt.Errorf("sending byte %d of %d: %w", done, n, err)
		}
		done += k
	}
	return nil
}

// check reads n bytes and compares them with the content from at.
func (in *integrity) check(r io.Reader, at, n int64, m *manners) error {
	buf := make([]byte, 256<<10)
	for done := int64(0); done < n; {
		most := min(n-done, int64(len(buf)))
		if m.fits {
			most = min(most, 1+m.rng.Int64N(64<<10))
			if m.rng.IntN(200) == 0 {
				pause(time.Duration(m.rng.IntN(100)) * time.Millisecond)
			}
		}
		k, err := r.Read(buf[:most])
		from := (at + done) % integrityPeriod
		if want := in.block[from : from+int64(k)]; !bytes.Equal(buf[:k], want) {
			for i := range k {
				if buf[i] != want[i] {
					return fmt.Errorf("byte %d of %d differs: 0x%02x for 0x%02x", done+int64(i), n, buf[i], want[i])
				}
			}
		}
		done += int64(k)
		in.moved.Add(int64(k))
		if err != nil && done < n {
			return fmt.Errorf("after %d bytes of %d: %w", done, n, err)
		}
	}
	return nil
}

// finished requires the end of what is read.
func finished(r io.Reader) error {
	var b [1]byte
	if n, err := r.Read(b[:]); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("instead of the end: %d bytes, %w", n, err)
	}
	return nil
}

// end is one end of a tunnel.
type end struct {
	in           *integrity
	c            *net.TCPConn
	outAt, out   int64
	backAt, back int64
	writes       *manners
	reads        *manners
}

// carry plays one end's part. first says that the end sends before it is sent
// anything, where the two do not send at once.
func (e *end) carry(o sendOrder, first bool) error {
	send := func() error {
		if err := e.in.send(e.c, e.outAt, e.out, e.writes); err != nil {
			return err
		}
		return e.c.CloseWrite()
	}
	check := func() error {
		if err := e.in.check(e.c, e.backAt, e.back, e.reads); err != nil {
			return err
		}
		return finished(e.c)
	}
	switch {
	case o == bothAtOnce:
		sent := make(chan error, 1)
		go func() { sent <- send() }()
		err := check()
		if err != nil {
			_ = e.c.SetDeadline(time.Unix(1, 0)) // who sends would wait for the other end, and that for this one
		}
		return errors.Join(err, <-sent)
	case o == inTurns:
		return e.turns(first)
	case first:
		return errors.Join(send(), check())
	}
	return errors.Join(check(), send())
}

func (e *end) turns(first bool) error {
	part := func(n int64, i int) (from, size int64) {
		from = n * int64(i) / turns
		return from, n*int64(i+1)/turns - from
	}
	for i := range turns {
		for _, sends := range []bool{first, !first} {
			var err error
			if sends {
				from, n := part(e.out, i)
				err = e.in.send(e.c, e.outAt+from, n, e.writes)
			} else {
				from, n := part(e.back, i)
				err = e.in.check(e.c, e.backAt+from, n, e.reads)
			}
			if err != nil {
				return fmt.Errorf("turn %d: %w", i, err)
			}
		}
	}
	if err := e.c.CloseWrite(); err != nil {
		return err
	}
	return finished(e.c)
}

// listen starts the origin's side of tunnels, and returns its port.
func (in *integrity) listen(port string, overTLS bool) int {
	in.t.Helper()
	ln := listen(in.t, net.JoinHostPort(in.addr, port))
	var serving sync.WaitGroup
	in.t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				if err := in.serve(c.(*net.TCPConn), overTLS); err != nil {
					in.t.Errorf("at the origin: %v", err)
				}
			})
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

func (in *integrity) serve(c *net.TCPConn, overTLS bool) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if overTLS {
		got := make([]byte, len(in.hello))
		if _, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("the hello: %w", err)
		}
		if !bytes.Equal(got, in.hello) {
			return errors.New("the hello differs")
		}
	}
	b := make([]byte, integrityHeader)
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("the header: %w", err)
	}
	tr := parseCargo(b)
	e := &end{
		in: in, c: c, outAt: tr.downAt, out: tr.down, backAt: tr.upAt, back: tr.up,
		writes: newManners(tr.manners, 1, tr.down), reads: newManners(tr.manners, 2, tr.up),
	}
	return e.carry(tr.order, tr.order == downFirst)
}

// through carries a transfer over an open tunnel; preface is a hello or nothing.
func (in *integrity) through(c *net.TCPConn, preface []byte, tr *cargo) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	tr.opened()
	first := slices.Concat(preface, tr.header())
	if _, err := c.Write(first); err != nil {
		return err
	}
	e := &end{
		in: in, c: c, outAt: tr.upAt, out: tr.up, backAt: tr.downAt, back: tr.down,
		writes: newManners(tr.manners, 3, tr.up), reads: newManners(tr.manners, 4, tr.down),
	}
	err := e.carry(tr.order, tr.order != downFirst)
	in.sent.Add(int64(len(first)) + tr.up)
	in.received.Add(tr.down)
	return err
}

// connect opens a tunnel by CONNECT.
func (in *integrity) connect(target string) (*net.TCPConn, error) {
	c, err := dialFrom("127.0.0.1", in.rig.addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return c, err
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		return c, err
	}
	return c, readUntil(c, "\r\n\r\n") // a refusal shows in what follows
}

func (in *integrity) connectTCP(tr *cargo) error {
	return in.tunnel(fmt.Sprintf("raw.test:%d", in.port), nil, tr)
}

func (in *integrity) connectTLS(tr *cargo) error { return in.tunnel("bytes.test:443", in.hello, tr) }

func (in *integrity) tunnel(target string, preface []byte, tr *cargo) error {
	c, err := in.connect(target)
	if err != nil {
		return err
	}
	defer c.Close()
	return in.through(c, preface, tr)
}

func (in *integrity) rawTLS(tr *cargo) error {
	c, err := dialFrom("127.0.0.1", in.rig.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return in.through(c, in.hello, tr)
}

// serveWeb starts the origin's side of plain HTTP.
func (in *integrity) serveWeb() {
	mux := http.NewServeMux()
	numbers := func(r *http.Request) (at, n, seed int64) {
		q := r.URL.Query()
		at, _ = strconv.ParseInt(q.Get("at"), 10, 64)
		n, _ = strconv.ParseInt(q.Get("n"), 10, 64)
		seed, _ = strconv.ParseInt(q.Get("manners"), 10, 64)
		return at, n, seed
	}
	mux.HandleFunc("/up", func(rw http.ResponseWriter, r *http.Request) {
		at, n, seed := numbers(r)
		err := in.check(r.Body, at, n, newManners(seed, 2, n))
		if err == nil {
			err = finished(r.Body)
		}
		if err != nil {
			in.t.Errorf("an upload at the origin: %v", err)
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(rw, "ok")
	})
	mux.HandleFunc("/down", func(rw http.ResponseWriter, r *http.Request) {
		at, n, seed := numbers(r)
		if r.URL.Query().Get("sized") != "" {
			rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		}
		if err := in.send(rw, at, n, newManners(seed, 1, n)); err != nil {
			in.t.Errorf("a download at the origin: %v", err)
		}
	})
	srv := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	ln := listen(in.t, net.JoinHostPort(in.addr, "80"))
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(ln) }()
	in.t.Cleanup(func() { srv.Close(); <-ended })
}

// client is the plain HTTP client, which keeps its connections to the proxy.
func (in *integrity) client() *http.Client {
	proxy := &url.URL{Scheme: "http", Host: in.rig.addr}
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), DisableCompression: true}
	in.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func (in *integrity) upload(tr *cargo) error {
	read, write := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		// A large buffer would wipe the pieces out, none would make a lot of
		// them: a pipe's piece is a chunk on the wire.
		out := bufio.NewWriterSize(write, 2<<10)
		err := in.send(out, tr.upAt, tr.up, newManners(tr.manners, 3, tr.up))
		err = errors.Join(err, out.Flush())
		sent <- err
		write.CloseWithError(err) // nil is the end
	}()
	target := fmt.Sprintf("http://bytes.test/up?at=%d&n=%d&manners=%d", tr.upAt, tr.up, tr.manners)
	req, err := http.NewRequest(http.MethodPut, target, read)
	if err != nil {
		return err
	}
	if tr.upAt%2 == 0 && tr.up > 0 { // else chunked
		req.ContentLength = tr.up
	}
	resp, err := in.web.Do(req)
	if err != nil {
		return errors.Join(err, read.CloseWithError(err), <-sent)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "ok" {
		return fmt.Errorf("%d %q, %w", resp.StatusCode, body, err)
	}
	in.sent.Add(tr.up)
	in.received.Add(int64(len(body)))
	return <-sent
}

func (in *integrity) download(tr *cargo) error {
	target := fmt.Sprintf("http://bytes.test/down?at=%d&n=%d&manners=%d", tr.downAt, tr.down, tr.manners)
	if tr.downAt%2 == 0 {
		target += "&sized=1"
	}
	resp, err := in.web.Get(target)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := in.check(resp.Body, tr.downAt, tr.down, newManners(tr.manners, 4, tr.down)); err != nil {
		return err
	}
	in.received.Add(tr.down)
	return finished(resp.Body)
}

// drawCargo draws one: sizes from nothing to 32 MiB, as many of each
// magnitude, and those around the sizes of buffers.
func drawCargo(rng *rand.Rand) *cargo {
	size := func() int64 {
		switch rng.IntN(8) {
		case 0:
			return 0
		case 1:
			return max(0, int64(1)<<(9+rng.IntN(12))+rng.Int64N(3)-1)
		}
		return int64(math.Exp(rng.Float64() * math.Log(32<<20)))
	}
	return &cargo{
		upAt: rng.Int64N(integrityPeriod), up: size(), downAt: rng.Int64N(integrityPeriod), down: size(),
		order: sendOrder(rng.IntN(int(orders))), manners: 1 + rng.Int64N(1<<40), opened: func() {},
	}
}

// TestBreakIntegrity sends content of mixed sizes each way, through every way
// in, with half-closes, slow starts, silences in which tunnels rest, and
// readers that stop and start: not one byte differs at either end, and the
// records add up to every byte. The extent is in GiB, both directions together.
func TestBreakIntegrity(t *testing.T) {
	total := int64(extent(t, "integrity", 1, 100)) << 30
	w := newWorld(t)
	in := newIntegrity(t, w)
	r := w.serve(in.rules())
	in.rig, in.web = r, nil
	in.web = in.client()
	kinds := []struct {
		name string
		run  func(*cargo) error
		made atomic.Int64
	}{
		{name: "CONNECT, tcp rule", run: in.connectTCP},
		{name: "CONNECT, TLS", run: in.connectTLS},
		{name: "raw TLS", run: in.rawTLS},
		{name: "HTTP upload", run: in.upload},
		{name: "HTTP download", run: in.download},
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	began := time.Now()
	var workers sync.WaitGroup
	for i := range 32 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		workers.Go(func() {
			for in.moved.Load() < total && !t.Failed() {
				k, tr := &kinds[rng.IntN(len(kinds))], drawCargo(rng)
				if err := k.run(tr); err != nil {
					t.Errorf("%s of %d up, %d down, order %d, manners %d: %v", k.name, tr.up, tr.down, tr.order, tr.manners, err)
					return
				}
				k.made.Add(1)
			}
		})
	}
	workers.Wait()
	took := time.Since(began)
	for i := range kinds {
		t.Logf("%s: %d transfers", kinds[i].name, kinds[i].made.Load())
	}
	gib := float64(in.moved.Load()) / (1 << 30)
	t.Logf("%.2f GiB compared in %s: %.2f GiB/s with both ends on the same machine", gib, took.Round(time.Millisecond), gib/took.Seconds())
	in.web.CloseIdleConnections()
	in.balance()
}

// balance requires the records to add up to what went through.
func (in *integrity) balance() {
	in.t.Helper()
	var sent, received int64
	in.rig.await(fmt.Sprintf("records of %d bytes sent and %d received", in.sent.Load(), in.received.Load()), func() bool {
		sent, received = 0, 0
		for _, l := range in.rig.flows {
			if l.Event.Name == "flow.close" {
				sent, received = sent+l.Sallyport.BytesSent, received+l.Sallyport.BytesReceived
			}
		}
		return sent >= in.sent.Load() && received >= in.received.Load()
	})
	if sent != in.sent.Load() || received != in.received.Load() {
		in.t.Errorf("the records say %d bytes sent and %d received, want %d and %d", sent, received, in.sent.Load(), in.received.Load())
	}
}
