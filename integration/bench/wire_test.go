package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestHelloIsAsked: the origin can read what the hello asks, and a TLS server
// reads the hello's name all the same.
func TestHelloIsAsked(t *testing.T) {
	hello, err := helloFor(originName, askDown)
	if err != nil {
		t.Fatal(err)
	}
	if size, whole := helloSize(hello); !whole || size != len(hello) || hello[helloAsk] != askDown {
		t.Errorf("a hello of %d bytes, of %d, asks %q", size, len(hello), hello[helloAsk])
	}
	if _, whole := helloSize(hello[:len(hello)-1]); whole {
		t.Error("a hello without its last byte is whole")
	}
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		_, _ = far.Write(hello)
	}()
	var name string
	_ = tls.Server(near, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, net.ErrClosed
	}}).Handshake()
	if name != originName {
		t.Errorf("a server reads the name %q", name)
	}
}

func TestAnswerSize(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       int
		fails      string
	}{
		{"whole", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 43, ""},
		{"other fields, other letters", "HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\ncontent-LENGTH:  7 \r\n\r\n", 68, ""},
		{"head not complete", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", 0, ""},
		{"not 200", "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n", 0, "403 Forbidden"},
		{"no length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "no Content-Length"},
		{"a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, "Content-Length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := answerSize([]byte(tt.text))
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("the error is %v, want %q in it", err, tt.fails)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %d, %v; want %d", got, err, tt.want)
			}
		})
	}
}

// TestBucket: requests are answered with as many bytes as they ask for and
// counted; who shows another authority's certificate than the one expected is
// not taken for it.
func TestBucket(t *testing.T) {
	o := &options{Dir: t.TempDir()}
	if err := o.certify(); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(o.pem(originCert), o.key(originCert))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bucket{config: &tls.Config{Certificates: []tls.Certificate{cert}}, zeros: make([]byte, payload), large: 3*payload + 7}
	var all sync.WaitGroup
	all.Go(func() { _ = b.serve(ln) }) // until the listener closes
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	if err := askBucket(t.Context(), dial(), bucketName, 443, o.pem(originCA)); err != nil {
		t.Errorf("the bucket: %v", err)
	}
	if err := askBucket(t.Context(), dial(), bucketName, 443, o.pem(proxyCA)); err == nil {
		t.Error("the bucket's own certificate was taken for an inspector's")
	}
	for _, tt := range []struct {
		kind  kind
		bytes int // counted for one request, about
	}{{kindGet, 0}, {kindDownload, b.large}, {kindUpload, b.large}} {
		t.Run(string(tt.kind), func(t *testing.T) {
			c, err := newSecureClient(task{Kind: tt.kind, TLSPort: 443, Roots: o.pem(originCA), Large: b.large})
			if err != nil {
				t.Fatal(err)
			}
			conn, buf := tls.Client(dial(), c.config), make([]byte, payload)
			for range 2 {
				if err := c.ask(conn, buf); err != nil {
					t.Fatal(err)
				}
			}
			if n := int(c.bytes.Load()); c.requests.Load() != 2 || n > 2*tt.bytes || n < 2*(tt.bytes-smallObject) {
				t.Errorf("%d requests and %d bytes are counted", c.requests.Load(), n)
			}
		})
	}
}

func TestAllowlist(t *testing.T) {
	s := site{rules: 1000}
	names := s.allowed()
	if len(names) != 1000 || slices.Contains(names, strangerName) {
		t.Errorf("%d names", len(names))
	}
	if i := slices.Index(names, originName); i != 499 {
		t.Errorf("the origin is at %d, not in the middle", i)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 1000 {
		t.Error("names come twice")
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		args  string
		fails string
	}{
		{"", ""},
		{"-scenario tunnels,http -subject direct,nginx -repeat 2 -seconds 0.5 -pin", ""},
		{"-scenario nosuch", "no scenario"},
		{"-subject nosuch", "no subject"},
		{"-pin -onecpu", "exclude"},
		{"-repeat 0", "-repeat"},
		{"-seconds 1e9", "-seconds"},
		{"-rules 0", "-rules"},
		{"-sallyport /no/such/file", "no such file"},
		{"something", "unexpected"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(tt.args), new(bytes.Buffer))
			if tt.fails == "" && err != nil || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("the error is %v, want %q in it", err, tt.fails)
			}
		})
	}
}

func TestNames(t *testing.T) {
	names := subjectNames()
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("two subjects of one name: %q", names)
	}
	for _, s := range subjects(&options{}) {
		for _, sc := range s.only {
			if !slices.Contains(scenarioNames(), sc) {
				t.Errorf("%s is for a scenario %q", s.name, sc)
			}
		}
	}
	for _, p := range panels() {
		if l := loadOf(p.load); l.title == "" || !slices.Contains(scenarioNames(), p.scenario) {
			t.Errorf("the plot shows %s of %s, which is not measured", p.load, p.scenario)
		}
	}
}
