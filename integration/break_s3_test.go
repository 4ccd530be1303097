package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The break-it programs for inspected connections. What is S3's is in the
// s3_*_test.go; here the origin is one that carries transfers.

const (
	breakEnds  = "app-ends.s3.us-east-1.amazonaws.com"
	breakStays = "app-stays.s3.us-east-1.amazonaws.com"
)

// breakS3Rules allow buckets to be read and written, by nobody in particular.
func breakS3Rules(buckets ...string) string {
	return fmt.Sprintf("  - {name: data, resolves_to: [127.0.0.0/8], s3: {buckets: [%s], inspect: true, anonymous: allow}}\n", strings.Join(buckets, ", "))
}

// breakS3 starts an origin of transfers under the names of two buckets, and a
// proxy that inspects what goes there.
func breakS3(t *testing.T, rules string, opts ...func(*rigConfig)) (*breakOrigin, *rig, []road) {
	t.Helper()
	w := newWorld(t)
	o := &breakOrigin{transfers: make(map[int]*transfer)}
	web := &origin{name: breakEnds, addr: loopback(), cert: w.certificate("*." + s3Service)}
	web.serve(t, listen(t, web.addr+":443"), o, true)
	w.name(breakEnds, web.addr)
	w.name(breakStays, web.addr)
	caFile, keyFile, roots := w.inspectingCA()
	r := w.serve(rules, append([]func(*rigConfig){
		setting("inspect.ca_file", caFile), setting("inspect.ca_key_file", keyFile), setting("inspect.origin_ca_file", w.caFile),
	}, opts...)...)
	return o, r, []road{
		{"inspected CONNECT", "connect", 443, openInspected(roots, true)},
		{"inspected TLS", "tls", 443, openInspected(roots, false)},
	}
}

// openInspected is openHTTP inside TLS that ends in the proxy.
func openInspected(roots *x509.CertPool, connect bool) func(string, string, string) (*stream, error) {
	return func(proxy, host, order string) (*stream, error) {
		s, err := dialInspected(proxy, host, roots, connect)
		if err != nil {
			return nil, err
		}
		err = s.transfer("", host, order)
		return s, err
	}
}

// dialInspected opens a connection to host whose TLS ends in the proxy.
func dialInspected(proxy, host string, roots *x509.CertPool, connect bool) (*stream, error) {
	s, err := dialRoad(proxy)
	if err != nil {
		return nil, err
	}
	if connect {
		if _, err := s.ask(fmt.Sprintf("CONNECT %s:443 HTTP/1.1\r\n\r\n", host), http.MethodConnect); err != nil || s.status != http.StatusOK {
			return s, errors.Join(fmt.Errorf("CONNECT was answered %d", s.status), err)
		}
	}
	inner := tls.Client(s.Conn, &tls.Config{RootCAs: roots, ServerName: host})
	if err := inner.Handshake(); err != nil {
		return s, err
	}
	s.Conn, s.in, s.status = inner, bufio.NewReader(inner), 0
	return s, nil
}

// TestBreakS3Drain is TestBreakDrain for inspected connections.
func TestBreakS3Drain(t *testing.T) {
	t.Parallel()
	n := extent(t, "drain", 80, 400)
	o, r, ways := breakS3(t, breakS3Rules("app-ends", "app-stays"), setting("timeouts.drain", "5s"))
	goOn, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	var ending, staying sync.WaitGroup
	var made []*transfer
	var failed atomic.Int64
	begun := make(map[string]int)
	for i := range n {
		way, up, stays := ways[i%len(ways)], i/len(ways)%2 == 1, i%8 > 5
		group, host, until := &ending, breakEnds, goOn
		if stays {
			group, host, until = &staying, breakStays, never
		}
		x := o.add(up, until)
		made = append(made, x)
		begun[way.via+" "+host]++
		group.Go(func() {
			var err error
			if stays && x.up {
				err = x.hang(r, way, host)
			} else {
				err = x.carry(r, way, host)
			}
			if (err != nil) != stays {
				failed.Add(1)
				t.Errorf("%s, %s to %s: %v", way.name, x.order(), host, err)
			}
		})
	}
	awaitHalves(t, made, &failed)
	r.signal(syscall.SIGTERM)
	r.awaitLog(`"message":"draining"`)
	awaitRefusal(t, r)
	close(goOn)
	ending.Wait()
	if r.over() {
		t.Error("the drain was over before its bound, with transfers in flight")
	}
	staying.Wait()
	if code := r.wait(); code != 0 {
		t.Errorf("the drained proxy ended with %d", code)
	}
	closed := make(map[string]int)
	for _, l := range r.lines() {
		if l.Event.Name != "flow.close" {
			continue
		}
		s := l.Sallyport
		closed[s.Via+" "+l.Server.Address]++
		stays := l.Server.Address == breakStays
		if s.Enforcement != "inspect" || (s.EndedBy == "drain") != stays || !stays && max(s.BytesReceived, s.BytesSent) < transferSize {
			t.Errorf("the record: %s", l.text)
		}
	}
	if !maps.Equal(closed, begun) {
		t.Errorf("on record are %v, begun were %v", closed, begun)
	}
}

// TestBreakS3Reload takes a bucket from the rule while requests to it are
// under way: they are cut, those to the other bucket come to their end, and
// the next request on a connection that was kept is refused.
func TestBreakS3Reload(t *testing.T) {
	t.Parallel()
	n := extent(t, "reload", 40, 400)
	o, r, ways := breakS3(t, breakS3Rules("app-ends", "app-stays"), setting("reload.every", "0s"), setting("reload.cut_denied", true))
	goOn, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	var kept []*stream
	for _, way := range ways {
		x := o.add(false, goes())
		s, err := way.open(r.addr, breakStays, x.order())
		if err != nil || s.status != http.StatusOK {
			t.Fatalf("%s: %v", way.name, err)
		}
		t.Cleanup(func() { s.Close() })
		if err := x.receive(s); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, s)
	}
	var cut, goes sync.WaitGroup
	var made []*transfer
	var failed atomic.Int64
	for i := range n {
		way, up, stays := ways[i%len(ways)], i/len(ways)%2 == 1, i%8 > 3
		group, host, until := &goes, breakEnds, goOn
		if stays {
			group, host, until = &cut, breakStays, never
		}
		x := o.add(up, until)
		made = append(made, x)
		group.Go(func() {
			do := x.carry
			if stays && up {
				do = x.hang
			}
			if err := do(r, way, host); stays && !wasCut(err) || !stays && err != nil {
				failed.Add(1)
				t.Errorf("%s, %s to %s: %v", way.name, x.order(), host, err)
			}
		})
	}
	awaitHalves(t, made, &failed)
	r.writePolicy(breakS3Rules("app-ends"))
	said := r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "policy re", "policy unchanged")
	cut.Wait()
	if said["cut"] != float64(n/2) {
		t.Errorf("the log says %v, want %d cut", said, n/2)
	}
	close(goOn)
	goes.Wait()
	for i, s := range kept {
		if _, err := fmt.Fprintf(s, "GET /1 HTTP/1.1\r\nHost: %s\r\n\r\n", breakStays); err != nil {
			continue // it was closed with the policy, which is as good
		}
		text, err := bufio.NewReader(s.Conn).ReadString('\n')
		if err == nil && !strings.HasPrefix(text, "HTTP/1.1 403 ") {
			t.Errorf("%s, kept: %q", ways[i].name, text)
		}
	}
}

// TestBreakS3Soak is TestSoak for inspected connections: everything is back
// where it was in the end.
func TestBreakS3Soak(t *testing.T) {
	total := extent(t, "s3_soak", 1500, 100_000)
	newS3Soak(t).repays(total, total/2, 2*soakAllowance)
}

// s3SoakOrigin answers as paths say.
func s3SoakOrigin(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/vanish":
		c, _, err := http.NewResponseController(rw).Hijack()
		if err == nil {
			_ = c.Close()
		}
		return
	case "/stall":
		rw.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(flushing{rw}, "o")
		<-r.Context().Done()
		return
	case "/half":
		rw.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(flushing{rw}, "o")
		panic(http.ErrAbortHandler)
	case "/early":
		rw.WriteHeader(http.StatusConflict)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(rw, "ok")
}

func newS3Soak(t *testing.T) *soak {
	t.Helper()
	w := newWorld(t)
	web := &origin{name: breakEnds, addr: loopback(), cert: w.certificate("*." + s3Service)}
	web.serve(t, listen(t, web.addr+":443"), http.HandlerFunc(s3SoakOrigin), true)
	w.name(breakEnds, web.addr)
	caFile, keyFile, roots := w.inspectingCA()
	s := &soak{t: t, at: onLoopback(), rules: breakS3Rules("app-ends")}
	s.rig = w.serve(s.rules, setting("timeouts.idle", "2s"), setting("timeouts.hello", "1s"), setting("reload.every", "0s"),
		setting("inspect.ca_file", caFile), setting("inspect.ca_key_file", keyFile), setting("inspect.origin_ca_file", w.caFile),
		func(c *rigConfig) { c.plain = true; c.stdout = devNull(t) })
	// All of both ways, in turn.
	var turn atomic.Int64
	use := func(do func(*stream) error) func(*soak) error {
		return func(s *soak) error {
			c, err := dialInspected(s.rig.addr, breakEnds, roots, turn.Add(1)%2 == 0)
			if err != nil {
				return err
			}
			defer c.Close()
			return do(c)
		}
	}
	s.kinds = []soakKind{
		{"get", 20, 1, use(func(c *stream) error { return c.s3("GET", "/k", 0, http.StatusOK) })},
		{"three on a connection", 20, 3, use(func(c *stream) error {
			return errors.Join(c.s3("GET", "/k", 0, http.StatusOK), c.s3("PUT", "/k", 4000, http.StatusOK), c.s3("DELETE", "/k", 0, http.StatusOK))
		})},
		{"put", 10, 1, use(func(c *stream) error { return c.s3("PUT", "/k", 200_000, http.StatusOK) })},
		{"denied", 10, 1, use(func(c *stream) error { return c.s3("GET", "/?policy&acl", 0, http.StatusForbidden) })},
		{"denied with a body", 5, 1, use(func(c *stream) error { return c.s3("PUT", "/?policy", 100_000, http.StatusForbidden) })},
		{"answered before its body", 5, 1, use(func(c *stream) error { return c.s3("PUT", "/early", 100_000, http.StatusConflict) })},
		{"origin vanishes", 3, 1, use(func(c *stream) error { return c.s3("PUT", "/vanish", 0, http.StatusBadGateway) })},
		{"half an answer", 3, 1, use(func(c *stream) error { return wantCut(c.s3("GET", "/half", 0, http.StatusOK)) })},
		{"idle until cut", 1, 1, use(func(c *stream) error { return wantCut(c.s3("GET", "/stall", 0, http.StatusOK)) })},
		{"client leaves", 5, 1, use(func(c *stream) error {
			_, err := c.ask(fmt.Sprintf("GET /stall HTTP/1.1\r\nHost: %s\r\n\r\n", breakEnds), http.MethodGet)
			return err
		})},
		{"half a head", 1, 1, use(func(c *stream) error {
			_, err := io.WriteString(c, "GET /k HTTP/1.1\r\nHos")
			_, _ = io.Copy(io.Discard, c.in) // however it ends
			return err
		})},
		{"half a head, left", 3, 1, use(func(c *stream) error {
			_, err := io.WriteString(c, "GET /k HTTP/1.1\r\nHos")
			return err
		})},
		{"half a body", 1, 1, use(func(c *stream) error {
			_, err := fmt.Fprintf(c, "PUT /k HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\nhalf", breakEnds)
			_, _ = io.Copy(io.Discard, c.in)
			return err
		})},
		{"half a body, left", 3, 1, use(func(c *stream) error {
			_, err := fmt.Fprintf(c, "PUT /k HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\nhalf", breakEnds)
			return err
		})},
		{"no trust", 5, 1, func(s *soak) error {
			c, err := dialInspected(s.rig.addr, breakEnds, x509.NewCertPool(), turn.Add(1)%2 == 0)
			if c != nil {
				defer c.Close()
			}
			if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
				return fmt.Errorf("the handshake: %w", err)
			}
			return nil
		}},
		{"half a handshake", 1, 1, func(s *soak) error {
			c, err := s.dial()
			if err != nil {
				return err
			}
			if _, err := c.Write(helloFor(s.t, breakEnds)); err != nil {
				return err
			}
			return drain(c)
		}},
	}
	s.made = make([]atomic.Int64, len(s.kinds))
	return s
}

// s3 makes an exchange, and reads its answer whole.
func (s *stream) s3(method, target string, body, status int) error {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", method, target, breakEnds, body)
	if _, err := io.WriteString(s, head+strings.Repeat("x", body)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(s.in.(*bufio.Reader), &http.Request{Method: method})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("%s %s was answered %d, want %d", method, target, resp.StatusCode, status)
	}
	return nil
}

// wantCut is nil where the answer was cut short.
func wantCut(err error) error {
	if err == nil {
		return errors.New("the answer came whole")
	}
	return nil
}

// TestBreakS3Slow: clients that send a byte now and then, before TLS has begun
// and in it, are given up and on record; one beside them is served all the
// while.
func TestBreakS3Slow(t *testing.T) {
	t.Parallel()
	n := extent(t, "s3_slow", 100, 1000)
	o, r, ways := breakS3(t, breakS3Rules("app-ends"), setting("timeouts.hello", "1s"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var slow, honest sync.WaitGroup
	for i := range n {
		slow.Go(func() {
			if err := trickle(ctx, r.addr, i%2 == 0); err != nil {
				t.Errorf("a slow client: %v", err)
			}
		})
	}
	over, served := make(chan struct{}), 0
	honest.Go(func() {
		for {
			x := o.add(served%2 == 0, goes())
			if err := x.carry(r, ways[served/2%2], breakEnds); err != nil {
				t.Errorf("the honest client: %v", err)
				return
			}
			o.drop(x)
			served++
			select {
			case <-over:
				return
			default:
			}
		}
	})
	slow.Wait()
	close(over)
	honest.Wait()
	r.await("end of every attempt", func() bool {
		ended := 0
		for _, l := range r.flows {
			if l.Event.Name != "flow.open" {
				ended++
			}
		}
		return ended == n+served
	})
	t.Logf("%d slow clients were given up, and another was served %d times meanwhile", n, served)
}

// trickle sends a hello and more, byte by byte, until it is given up.
func trickle(ctx context.Context, proxy string, connect bool) error {
	s, err := dialRoad(proxy)
	if err != nil {
		return err
	}
	defer s.Close()
	if connect {
		if _, err := s.ask(fmt.Sprintf("CONNECT %s:443 HTTP/1.1\r\n\r\n", breakEnds), http.MethodConnect); err != nil {
			return err
		}
	}
	hello, err := clientHello(breakEnds)
	if err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, b := range append(hello, make([]byte, 1<<16)...) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := s.Write([]byte{b}); err != nil {
			return nil // it was given up
		}
	}
	return errors.New("it was never given up")
}
