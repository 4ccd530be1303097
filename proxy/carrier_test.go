package proxy

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elazarl/goproxy"
)

// The containment of goproxy (security.md, section 1.2). The front gives it
// nothing that is not allowed, so these tests speak to it directly, as a way
// around the front would.

// bareCarrier serves what newCarrier made, without the front. dialled lists
// what it would have dialled.
func bareCarrier(t *testing.T) (addr string, dialled *[]string) {
	t.Helper()
	p := newCarrier()
	dialled = new([]string)
	p.Tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		*dialled = append(*dialled, addr)
		return refuseDial(ctx, network, addr)
	}
	p.ConnectDialWithReq = func(r *http.Request, network, addr string) (net.Conn, error) {
		*dialled = append(*dialled, addr)
		return refuseDial(r.Context(), network, addr)
	}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), dialled
}

func TestCarrierOutsideTheGate(t *testing.T) {
	port, reached := counted(t)
	addr, dialled := bareCarrier(t)
	for name, tt := range map[string]struct{ request, want string }{
		"CONNECT":     {fmt.Sprintf("CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\nEARLY", port), ""},
		"absolute":    {fmt.Sprintf("GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", port), "HTTP/1.1 403"},
		"https":       {fmt.Sprintf("GET https://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", port), "HTTP/1.1 403"},
		"origin-form": {fmt.Sprintf("GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n", port), "HTTP/1.1 400"},
		"websocket":   {fmt.Sprintf("GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", port), "HTTP/1.1 403"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, tt.request)
			b := make([]byte, 12)
			n, _ := io.ReadFull(c, b)
			if got := string(b[:n]); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if len(*dialled) > 0 || reached.Load() > 0 {
		t.Errorf("it dialled %q", *dialled)
	}
}

// TestCarrierHoldsNoWayOut takes the wrapping away and looks at each part.
func TestCarrierHoldsNoWayOut(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
	t.Setenv("https_proxy", "http://127.0.0.1:9")
	port, _ := counted(t)
	there := fmt.Sprintf("127.0.0.1:%d", port)
	p := newCarrier()
	if p.ConnectDial != nil {
		t.Error("ConnectDial is set: it comes from HTTPS_PROXY")
	}
	if c, err := p.ConnectDialWithReq(httptest.NewRequestWithContext(t.Context(), http.MethodConnect, "/", http.NoBody), "tcp", there); err == nil {
		c.Close()
		t.Error("ConnectDialWithReq dials")
	}
	if p.Tr.Proxy != nil {
		t.Error("the transport asks the environment for a proxy")
	}
	if p.Tr.TLSClientConfig != nil {
		t.Error("the transport has goproxy's TLS configuration, which verifies nothing")
	}
	if c, err := p.Tr.DialContext(t.Context(), "tcp", there); err == nil || !strings.Contains(err.Error(), "gate") {
		t.Errorf("the transport dials: %v, %v", c, err)
	}
	if !p.KeepAcceptEncoding {
		t.Error("it rewrites Accept-Encoding")
	}
	tr := newPool(refuseDial).newTransport()
	if c, err := tr.DialTLSContext(t.Context(), "tcp", there); err == nil {
		c.Close()
		t.Error("the pool's transport dials TLS")
	}
	r := webRig(t, 80)
	if c, err := r.front.pool.newTransport().DialContext(t.Context(), "tcp", there); err == nil || !strings.Contains(err.Error(), "gate") {
		t.Errorf("the pool's transport dials without an exchange: %v, %v", c, err)
	}
}

// TestCarrierIgnoresTheEnvironment carries both kinds of traffic in a process
// whose environment names a proxy. net/http reads the environment once in a
// process, hence another.
func TestCarrierIgnoresTheEnvironment(t *testing.T) {
	const child = "SALLYPORT_TEST_CHILD"
	if os.Getenv(child) != "" {
		port := wire(t, mirror)
		tunnel := tcpOrigin(t, echo)
		r := newRig(t, allow("http", port, "web.test")+allow("tcp", tunnel, "origin.test"))
		r.resolver.set("web.test", "127.0.0.1")
		r.resolver.set("origin.test", "127.0.0.1")
		if got := r.exchange(get(port, "/direct")); !strings.HasPrefix(bodyOf(got), "GET /direct ") {
			t.Errorf("plain HTTP: %q", got)
		}
		c := tunnelTo(t, r, tunnel)
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("CONNECT: %v", err)
		}
		return
	}
	diverted, reached := counted(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCarrierIgnoresTheEnvironment$", "-test.count=1")
	cmd.Env = append(os.Environ(), child+"=1")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		v := fmt.Sprintf("=http://127.0.0.1:%d", diverted)
		cmd.Env = append(cmd.Env, name+v, strings.ToLower(name)+v)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if reached.Load() != 0 {
		t.Error("the environment's proxy was asked")
	}
}

// TestCarrierIsSilent: goproxy's log repeats what clients wrote.
func TestCarrierIsSilent(t *testing.T) {
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = wr
	p := newCarrier() // goproxy's logger takes os.Stderr when it is made
	os.Stderr = stderr
	p.Verbose = true
	srv := httptest.NewServer(p)
	for _, request := range []string{"CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://evil.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"} {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request)
		io.Copy(io.Discard, c)
		c.Close()
	}
	srv.Close()
	p.Logger.Printf("said directly")
	wr.Close()
	if said, _ := io.ReadAll(rd); len(said) > 0 {
		t.Errorf("goproxy's log says %q", said)
	}
}

// TestCarrierUsesNoMore lists what of goproxy may be mentioned. Not on the
// list, among others: GoproxyCa, whose key is public; MitmConnect and
// OkConnect, which allow everything; TLSConfigFromCA, whose keys can be told.
func TestCarrierUsesNoMore(t *testing.T) {
	allowed := []string{
		"ProxyHttpServer", "NewProxyHttpServer", "ProxyCtx", "ConnectAction", "ConnectReject", "ConnectHijack",
		"NewResponse", "ContentTypeText", "RoundTripperFunc",
	}
	homes := []string{"connect.go", "front.go", "http.go"}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no sources: ", err)
	}
	mentioned := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			if imp.Path.Value == `"github.com/elazarl/goproxy"` && (imp.Name != nil || !slices.Contains(homes, name)) {
				t.Errorf("%s imports goproxy", name)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "goproxy" {
				mentioned++
				if !slices.Contains(allowed, sel.Sel.Name) {
					t.Errorf("%s: goproxy.%s", fset.Position(sel.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
	if mentioned == 0 {
		t.Error("goproxy is not mentioned at all: the test reads the wrong files")
	}
	// What OkConnect stands for must not come back by the number of its action.
	if action, _ := carryConnect("x", &goproxy.ProxyCtx{Req: httptest.NewRequestWithContext(t.Context(), http.MethodConnect, "/", http.NoBody)}); action.Action != goproxy.ConnectReject {
		t.Errorf("an unknown CONNECT gets action %d", action.Action)
	}
}
