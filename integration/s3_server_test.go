package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policy"
)

const (
	s3Service = "s3.us-east-1.amazonaws.com"
	s3Data    = "app-data" // the bucket that policies list
	s3Other   = "other-data"
	s3Dotted  = "app.dotted"
	s3Ours    = "111122223333"
	s3Theirs  = "444455556666"
)

// buildS3Server builds versitygw from its own module.
var buildS3Server = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "versitygw")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/versity/versitygw/cmd/versitygw")
	cmd.Dir = "s3server"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build versitygw: %w\n%s", err, out)
	}
	return path, nil
})

// s3Key is an access key.
type s3Key struct{ id, secret string }

// newS3Key returns one whose id encodes its account, as AWS's do.
func newS3Key(t *testing.T, prefix, account string) s3Key {
	t.Helper()
	n, err := strconv.ParseInt(account, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	b := big.NewInt(1<<47 | n<<7).FillBytes(make([]byte, 6))
	k := s3Key{prefix + base32.StdEncoding.EncodeToString(append(b, "test"...)), "secret-of-" + account}
	if got := policy.AccessKeyAccount(k.id); got != account {
		t.Fatalf("%s is read as a key of %q", k.id, got)
	}
	return k
}

// s3Server is versitygw behind TLS that ends in the test: it checks signatures,
// and the test has every byte that it was sent.
type s3Server struct {
	t            *testing.T
	addr         string // of the TLS, port 443
	backend      string
	ours, theirs s3Key

	mu    sync.Mutex // guards the rest
	seen  []*s3Seen
	conns int
}

// s3Seen is one request as the server got it.
type s3Seen struct {
	sni    string
	conn   int // the connection's number
	method string
	target string
	header http.Header
	size   int64  // of the body, without its transfer coding
	sum    string // SHA-256, likewise
	whole  bool   // it came to its end
}

// s3Server starts one. It knows two accounts that may do all, and holds the
// buckets. keepAlive asks for connections that serve more than one request:
// where the transfer coding is chunked, versitygw 1.8.0 leaves the body's end
// unread and takes it for the next one.
func (w *world) s3Server(keepAlive bool, buckets ...string) *s3Server {
	w.t.Helper()
	path, err := buildS3Server()
	if err != nil {
		missing(w.t, "versitygw: %v", err)
	}
	s := &s3Server{
		t: w.t, addr: loopback(), backend: loopback() + ":7070",
		ours: newS3Key(w.t, "ASIA", s3Ours), theirs: newS3Key(w.t, "AKIA", s3Theirs),
	}
	cert := w.certificate(s3Service, "*."+s3Service)
	ln := listen(w.t, net.JoinHostPort(s.addr, "443"))
	dir := filepath.Join(w.dir, "s3")
	for _, d := range append([]string{"../meta", "../iam"}, buckets...) {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	users, err := json.Marshal(map[string]any{"accessAccounts": map[string]any{
		s.theirs.id: map[string]any{"access": s.theirs.id, "secret": s.theirs.secret, "role": "admin"},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	writeFile(w.t, filepath.Join(w.dir, "iam", "users.json"), string(users))
	flags := []string{"--quiet"}
	if keepAlive {
		flags = append(flags, "--keep-alive")
	}
	s.start(path, flags, filepath.Join(w.dir, "iam"), filepath.Join(w.dir, "meta"), dir)
	s.accept(politeListener{ln}, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	return s
}

func (s *s3Server) start(path string, flags []string, iam, meta, dir string) {
	s.t.Helper()
	cmd := exec.Command(path, append(flags, "--port", s.backend, "--virtual-domain", s3Service,
		"--access", s.ours.id, "--secret", s.ours.secret, "--iam-dir", iam, "posix", "--sidecar", meta, dir)...)
	cmd.Env = bareEnv(dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if s.t.Failed() {
			s.t.Logf("versitygw said:\n%s", said.String())
		}
	})
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", s.backend)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			s.t.Fatalf("versitygw ended: %s", said.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("versitygw does not listen: %v", err)
		}
	}
}

func (s *s3Server) accept(ln net.Listener, cfg *tls.Config) {
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { s.carry(c, tls.Server(c, cfg)) })
		}
	})
	s.t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
}

// carry passes a connection's bytes on to versitygw and reads them on the way.
func (s *s3Server) carry(raw net.Conn, client *tls.Conn) {
	defer raw.Close()
	s.mu.Lock()
	s.conns++
	n := s.conns
	s.mu.Unlock()
	_ = raw.SetDeadline(time.Now().Add(10 * patience))
	if client.Handshake() != nil {
		return
	}
	c, err := net.Dial("tcp", s.backend)
	if err != nil {
		s.t.Errorf("versitygw: %v", err)
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	var back sync.WaitGroup
	body := &s3Body{}
	back.Go(func() {
		body.passOn(client, server)
		_ = client.CloseWrite()
	})
	s.read(bufio.NewReaderSize(client, 64<<10), forgiving{server}, body, n, client.ConnectionState().ServerName)
	_ = server.CloseWrite()
	back.Wait()
}

// forgiving is a server that has closed, and gets no more.
type forgiving struct{ io.Writer }

func (f forgiving) Write(p []byte) (int, error) {
	_, _ = f.Writer.Write(p)
	return len(p), nil
}

// s3Body is held while the body of a request is on its way. versitygw answers
// before it has read the end of a chunked one, and closes; the answer waits
// here until the body has come whole.
type s3Body struct{ sync.Mutex }

func (b *s3Body) passOn(client io.Writer, server io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if n > 0 {
			if err := b.write(client, buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (b *s3Body) write(client io.Writer, p []byte) error {
	if !bytes.HasPrefix(p, []byte("HTTP/1.1 100 ")) {
		b.Lock()
		defer b.Unlock()
	}
	_, err := client.Write(p)
	return err
}

// read passes requests on to the end of the connection. A head is on record
// before the server has it, so that whoever has an answer finds its request.
func (s *s3Server) read(in *bufio.Reader, server io.Writer, body *s3Body, conn int, sni string) {
	for {
		raw, req, err := s.readHead(in)
		if err != nil {
			return
		}
		req.conn, req.sni = conn, sni
		bare := req.header.Get("Transfer-Encoding") == "" && cmp.Or(req.header.Get("Content-Length"), "0") == "0"
		if bare {
			req.sum, req.whole = sumOf(nil), true
		}
		s.mu.Lock()
		s.seen = append(s.seen, req)
		s.mu.Unlock()
		_, _ = server.Write(raw)
		if bare {
			continue
		}
		if _, err := in.Peek(1); err != nil { // the client may be waiting to be asked for a body
			return
		}
		body.Lock()
		size, sum, err := passBody(in, server, req.header)
		s.mu.Lock()
		req.size, req.sum, req.whole = size, sum, err == nil
		s.mu.Unlock()
		body.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *s3Server) readHead(in *bufio.Reader) ([]byte, *s3Seen, error) {
	var raw []byte
	for !bytes.HasSuffix(raw, []byte("\r\n\r\n")) {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, nil, err
		}
		raw = append(raw, line...)
	}
	text := textproto.NewReader(bufio.NewReader(bytes.NewReader(raw)))
	line, _ := text.ReadLine()
	header, err := text.ReadMIMEHeader()
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[2] != "HTTP/1.1" || err != nil {
		s.t.Errorf("the S3 server was sent %q", raw)
		return nil, nil, io.ErrUnexpectedEOF
	}
	return raw, &s3Seen{method: parts[0], target: parts[1], header: http.Header(header)}, nil
}

func passBody(in *bufio.Reader, server io.Writer, h http.Header) (int64, string, error) {
	sum := sha256.New()
	if h.Get("Transfer-Encoding") != "chunked" {
		length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
		if err != nil {
			return 0, "", err
		}
		n, err := io.CopyN(io.MultiWriter(sum, server), in, length)
		return n, hex.EncodeToString(sum.Sum(nil)), err
	}
	all := bufio.NewReader(io.TeeReader(in, server)) // nobody sends a request right behind
	n, err := io.Copy(sum, httputil.NewChunkedReader(all))
	if err == nil {
		_, err = textproto.NewReader(all).ReadMIMEHeader() // the trailer
	}
	return n, hex.EncodeToString(sum.Sum(nil)), err
}

// take returns the requests since the last call.
func (s *s3Server) take() []*s3Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// untouched requires that no request came since the last take.
func (s *s3Server) untouched(t *testing.T) {
	t.Helper()
	for _, r := range s.take() {
		t.Errorf("the server was sent %s %s for %s", r.method, r.target, r.header.Get("Host"))
	}
}

// Volatile parts of a request: what differs from one run to the next, whoever
// carries it.
var s3Volatile = []struct {
	in   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`Signature=[0-9a-f]{64}`), "Signature=S"},
	{regexp.MustCompile(`\b20\d{6}T\d{6}Z`), "TIME"},
	{regexp.MustCompile(`\b20\d{6}(/|%2F)`), "DATE$1"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "UUID"},
	{regexp.MustCompile(`uploadId=[^& ]+`), "uploadId=U"},
	{regexp.MustCompile(`ttl=TIME; `), ""}, // botocore's guess, from its read timeout and clock
}

// String is the request without what is volatile, or a hop's own affair.
func (r *s3Seen) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", r.method, r.target)
	var lines []string
	for name, values := range r.header {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Connection":
			continue
		}
		for _, v := range values {
			lines = append(lines, "  "+name+": "+v)
		}
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, "\n"))
	fmt.Fprintf(&b, "\n  body: %d %s, whole: %v\n", r.size, r.sum, r.whole)
	text := b.String()
	for _, v := range s3Volatile {
		text = v.in.ReplaceAllString(text, v.with)
	}
	return text
}

// sorted is requests as texts, in an order that does not depend on which
// connection was faster.
func sorted(seen []*s3Seen) []string {
	texts := make([]string, len(seen))
	for i, r := range seen {
		texts[i] = r.String()
	}
	slices.Sort(texts)
	return texts
}
