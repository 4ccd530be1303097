package console

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newHandler(t *testing.T, c Config) *Handler {
	t.Helper()
	if c.Ready == nil {
		c.Ready = func() []Check { return []Check{{Name: "policy", OK: true}} }
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func full(t *testing.T) *Handler {
	t.Helper()
	return newHandler(t, Config{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metric 1\n") }),
		Version: map[string]string{"version": "v1"},
		Schema:  []byte("{}\n"),
		Hosts:   []string{"Proxy.Internal."},
	})
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name, method, target, host string
		status                     int
		body                       string
	}{
		{"alive", "GET", "/healthz", "localhost:9901", 200, "ok\n"},
		{"alive, HEAD", "HEAD", "/healthz", "localhost:9901", 200, ""},
		{"ready", "GET", "/readyz", "localhost", 200, `{"ready":true,"checks":[{"name":"policy","ok":true}]}` + "\n"},
		{"metrics", "GET", "/metrics", "127.0.0.1:9901", 200, "metric 1\n"},
		{"version", "GET", "/version", "[::1]:9901", 200, `{"version":"v1"}` + "\n"},
		{"schema", "GET", "/schema", "10.0.3.7", 200, "{}\n"},
		{"a query is nothing", "GET", "/healthz?x=1", "localhost", 200, "ok\n"},
		{"configured name", "GET", "/healthz", "proxy.INTERNAL:9901", 200, "ok\n"},
		{"localhost with a dot", "GET", "/healthz", "LOCALHOST.", 200, "ok\n"},
		{"bracketed address", "GET", "/healthz", "[::1]", 200, "ok\n"},

		{"root", "GET", "/", "localhost", 404, ""},
		{"unknown", "GET", "/debug/pprof/", "localhost", 404, ""},
		{"other case", "GET", "/Healthz", "localhost", 404, ""},
		{"trailing slash", "GET", "/healthz/", "localhost", 404, ""},
		{"not cleaned", "GET", "/x/../healthz", "localhost", 404, ""},
		{"double slash", "GET", "//healthz", "localhost", 404, ""},
		{"POST", "POST", "/readyz", "localhost", 405, ""},
		{"DELETE", "DELETE", "/metrics", "localhost", 405, ""},
		{"OPTIONS", "OPTIONS", "/metrics", "localhost", 405, ""},

		{"rebinding", "GET", "/metrics", "evil.example:9901", 421, ""},
		{"rebinding, unknown path", "GET", "/x", "evil.example", 421, ""},
		{"a name that begins right", "GET", "/metrics", "localhost.evil.example", 421, ""},
		{"a name that ends right", "GET", "/metrics", "evil.proxy.internal", 421, ""},
		{"an address in a name", "GET", "/metrics", "127.0.0.1.evil.example", 421, ""},
		{"an octal address", "GET", "/metrics", "0177.0.0.1", 421, ""},
		{"no host", "GET", "/metrics", "", 421, ""},
		{"half a bracket", "GET", "/metrics", "[::1", 421, ""},
	}
	h := full(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "http://x"+tt.target, nil)
			r.Host = tt.host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d", w.Code, tt.status)
			}
			if tt.body != "" && w.Body.String() != tt.body {
				t.Errorf("body %q, want %q", w.Body, tt.body)
			}
			if tt.status == 405 && w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow is %q", w.Header().Get("Allow"))
			}
			if tt.status == 421 && strings.Contains(w.Body.String(), "evil") {
				t.Errorf("the answer repeats what was asked: %q", w.Body)
			}
			for name, want := range map[string]string{
				"Cache-Control":                "no-store",
				"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Referrer-Policy":              "no-referrer",
				"X-Content-Type-Options":       "nosniff",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			for _, name := range []string{"Access-Control-Allow-Origin", "Server", "X-Powered-By"} {
				if got := w.Header().Get(name); got != "" {
					t.Errorf("%s: %q", name, got)
				}
			}
		})
	}
}

func TestReadySaysWhatIsMissing(t *testing.T) {
	h := newHandler(t, Config{Ready: func() []Check {
		return []Check{{Name: "policy", OK: true, Detail: "sha256:1"}, {Name: "traffic", Detail: "draining"}}
	}})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/readyz", nil))
	var got struct {
		Ready  bool
		Checks []Check
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || got.Ready || len(got.Checks) != 2 || got.Checks[1].Detail != "draining" {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
}

func TestWhatIsNotConfiguredIsNotThere(t *testing.T) {
	h := newHandler(t, Config{})
	for _, path := range []string{"/metrics", "/schema"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
		if w.Code != 404 {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
	if _, err := New(Config{Version: func() {}}); err == nil {
		t.Error("a version that is no JSON is accepted")
	}
}

func TestServeFinishesRequestsUnderWay(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	inside := make(chan struct{})
	h := newHandler(t, Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-ctx.Done()
		_, _ = io.WriteString(w, "late but whole\n")
	})})
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer := make(chan string, 1)
	go func() {
		resp, err := client.Get("http://" + ln.Addr().String() + "/metrics")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-inside
	cancel()
	if got := <-answer; got != "late but whole\n" {
		t.Errorf("got %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the socket is still open")
	}
}

func TestServeReportsALostListener(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := newHandler(t, Config{}).Serve(t.Context(), ln); err == nil || !strings.Contains(err.Error(), "serve the console") {
		t.Errorf("Serve returned %v", err)
	}
}

func FuzzCalledBy(f *testing.F) {
	for _, s := range []string{"localhost", "[::1]:1", "a:b:c", "evil.example", "127.1", "[localhost]", "[::1%25lo]", "localhost:99999x"} {
		f.Add(s)
	}
	h, err := New(Config{Hosts: []string{"proxy.internal"}})
	if err != nil {
		f.Fatal(err)
	}
	// What is let in holds nothing that somebody's DNS could answer for: an
	// address, or one of two names.
	f.Fuzz(func(t *testing.T, host string) {
		if !h.calledBy(host) {
			return
		}
		low := strings.ToLower(host)
		named := strings.HasPrefix(low, "localhost") || strings.HasPrefix(low, "proxy.internal") ||
			strings.HasPrefix(low, "[localhost") || strings.HasPrefix(low, "[proxy.internal")
		if !named && !strings.ContainsAny(host[:min(len(host), 2)], "0123456789abcdefABCDEF:") {
			t.Errorf("%q is let in", host)
		}
	})
}
