package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// frugalRuntime is quietRuntime for an end that speaks TLS, with a goroutine
// for each connection in place of a loop: it is still one thread's work.
func frugalRuntime() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
}

// inTLS reports whether a kind of task needs TLS in earnest.
func (k kind) inTLS() bool { return k == kindGet || k == kindDownload || k == kindUpload }

// secureClient has all of a load's connections to the bucket.
type secureClient struct {
	task    task
	config  *tls.Config
	request []byte

	bytes    atomic.Uint64 // that were carried
	requests atomic.Uint64 // that were answered

	mu       sync.Mutex // guards the rest
	latency  histogram
	errors   int
	firstErr error
}

func newSecureClient(t task) (*secureClient, error) {
	text, err := os.ReadFile(t.Roots)
	if err != nil {
		return nil, err
	}
	c := &secureClient{task: t}
	if c.config, err = bucketTLS(bucketName, text); err != nil {
		return nil, err
	}
	switch t.Kind {
	case kindGet:
		c.request = bucketRequest("GET /small", bucketName, t.TLSPort)
	case kindDownload:
		c.request = bucketRequest("GET /large", bucketName, t.TLSPort)
	case kindUpload:
		c.request = bucketRequest("PUT /large", bucketName, t.TLSPort, fmt.Sprintf("Content-Length: %d\r\n", t.Large))
	default:
		return nil, fmt.Errorf("no kind of task %q", t.Kind)
	}
	return c, nil
}

// bucketTLS is how a bucket is spoken to: whoever answers must be certified by
// one of the roots.
func bucketTLS(name string, roots []byte) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("no root certificate")
	}
	return &tls.Config{ServerName: name, RootCAs: pool, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

// bucketRequest is the head of a request as S3's clients sign it. The access
// key id names an account, and the signature is none: only its form is looked
// at on the way.
func bucketRequest(line, name string, port int, fields ...string) []byte {
	const scope = "20261123/us-east-1/s3/aws4_request"
	return fmt.Appendf(nil, "%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n"+
		"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nX-Amz-Date: 20261123T000000Z\r\n"+
		"Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=%s\r\n%s\r\n",
		line, hostPort(name, port, 443), signerKey, scope, strings.Repeat("0", 64), strings.Join(fields, ""))
}

// signerKey is an access key id as AWS makes them, and signerAccount the
// account that it is of. It is nobody's.
const (
	signerKey     = "ASIAY34FZKBOKMUTVV7A"
	signerAccount = "609629065308"
)

// runSecure does a task in TLS, and reports like the loop's clients.
func runSecure(ctx context.Context, t task, say *json.Encoder) error {
	frugalRuntime()
	c, err := newSecureClient(t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range t.Count {
		all.Go(func() { c.keep(ctx) })
	}
	if err := pause(ctx, t.Warm); err != nil {
		return err
	}
	c.forget()
	if err := say.Encode(report{}); err != nil {
		return err
	}
	began := time.Now()
	err = pause(ctx, t.For)
	for err == nil && c.units() == 0 && time.Since(began) < t.For+stragglers && !c.spoilt() {
		err = pause(ctx, 10*time.Millisecond)
	}
	if err != nil {
		return err
	}
	return say.Encode(c.report(time.Since(began)))
}

// keep uses one connection after the other until the end.
func (c *secureClient) keep(ctx context.Context) {
	for ctx.Err() == nil && !c.spoilt() {
		if err := c.session(ctx); err != nil && ctx.Err() == nil {
			c.fault(err)
		}
	}
}

// session makes requests on one connection until something is wrong, or it is
// the end.
func (c *secureClient) session(ctx context.Context) error {
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", c.task.Addr.String())
	if err != nil {
		return err
	}
	defer tcp.Close()
	defer context.AfterFunc(ctx, func() { tcp.Close() })()
	if c.task.Connect {
		if err := connect(tcp, hostPort(bucketName, c.task.TLSPort, 0)); err != nil {
			return err
		}
	}
	conn := tls.Client(tcp, c.config)
	buf := make([]byte, payload)
	for served := 0; ; served++ {
		err := c.ask(conn, buf)
		if errors.Is(err, io.EOF) && served > 0 {
			return nil // the connection was not kept, which is no error: there is another
		}
		if err != nil {
			return err
		}
	}
}

// ask makes one request, and counts it.
func (c *secureClient) ask(conn net.Conn, buf []byte) error {
	began := time.Now()
	if _, err := conn.Write(c.request); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if c.task.Kind == kindUpload {
		if err := c.pour(conn, buf); err != nil {
			return err
		}
	}
	if err := c.answer(conn, buf); err != nil {
		return err
	}
	c.count(time.Since(began))
	return nil
}

// connect asks a proxy for a tunnel. Nobody speaks in it before the client.
func connect(conn net.Conn, authority string) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority); err != nil {
		return err
	}
	var head [1024]byte
	n := 0
	for !bytes.HasSuffix(head[:n], []byte("\r\n\r\n")) {
		if n == len(head) {
			return errors.New("the answer to CONNECT is too long")
		}
		m, err := conn.Read(head[n:])
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		n += m
	}
	if n < 12 || string(head[8:12]) != " 200" {
		line, _, _ := bytes.Cut(head[:n], []byte("\r\n"))
		return fmt.Errorf("CONNECT was answered %q", line)
	}
	return nil
}

// pour writes an object. What buffers hold of it at the end is counted though
// it has not arrived: some megabytes of gigabytes.
func (c *secureClient) pour(conn net.Conn, buf []byte) error {
	for left := c.task.Large; left > 0; {
		n, err := conn.Write(buf[:min(left, len(buf))])
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		left -= n
		c.bytes.Add(uint64(n))
	}
	return nil
}

// answer reads an answer to its end. The error is io.EOF where there is none.
func (c *secureClient) answer(conn net.Conn, buf []byte) error {
	need, got := 0, 0
	for need == 0 {
		n, err := conn.Read(buf[got:])
		if err != nil {
			if got > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		got += n
		if need, err = answerSize(buf[:got]); err != nil {
			return err
		}
		if need == 0 && got == len(buf) {
			return errors.New("a head without end")
		}
	}
	for got < need {
		n, err := conn.Read(buf)
		if got += n; err != nil && got < need {
			return fmt.Errorf("read: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		if c.task.Kind == kindDownload {
			c.bytes.Add(uint64(n))
		}
	}
	if got > need {
		return fmt.Errorf("%d bytes behind the answer", got-need)
	}
	return nil
}

// count counts a request that took so long.
func (c *secureClient) count(took time.Duration) {
	c.requests.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latency.add(took)
}

func (c *secureClient) fault(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.errors++; c.firstErr == nil {
		c.firstErr = err
	}
}

// spoilt reports whether to give up.
func (c *secureClient) spoilt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.errors >= tooManyErrors
}

// forget begins to count anew.
func (c *secureClient) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latency, c.errors, c.firstErr = histogram{}, 0, nil
	c.bytes.Store(0)
	c.requests.Store(0)
}

// units is how much was done: requests, or gigabytes.
func (c *secureClient) units() float64 {
	if c.task.Kind == kindGet {
		return float64(c.requests.Load())
	}
	return float64(c.bytes.Load()) / 1e9
}

func (c *secureClient) report(spent time.Duration) report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := report{
		End: true, Seconds: spent.Seconds(), Units: c.units(), Errors: c.errors,
		P50: micros(c.latency.quantile(0.5)), P99: micros(c.latency.quantile(0.99)),
	}
	if c.firstErr != nil {
		r.Error = c.firstErr.Error()
	}
	return r
}
