package proxy

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStripHopByHop(t *testing.T) {
	tests := []struct {
		name      string
		websocket bool
		in, want  http.Header
	}{
		{"end-to-end fields stay", false, http.Header{"Cookie": {"a", "b"}, "X-Forwarded-For": {"1.2.3.4"}, "Via": {"1.1 other"}}, http.Header{"Cookie": {"a", "b"}, "X-Forwarded-For": {"1.2.3.4"}, "Via": {"1.1 other"}}},
		{"the fixed list", false, http.Header{
			"Connection": {"close"}, "Proxy-Connection": {"x"}, "Keep-Alive": {"timeout=5"}, "Proxy-Authenticate": {"Basic"}, "Proxy-Authorization": {"Basic x"},
			"Proxy-Authentication-Info": {"x"}, "Te": {"gzip"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABk"},
		}, http.Header{}},
		{"what Connection names", false, http.Header{"Connection": {"x-a,  X-B", "X-c,"}, "X-A": {"1"}, "X-B": {"1"}, "X-C": {"1"}, "X-D": {"1"}}, http.Header{"X-D": {"1"}}},
		{"TE: trailers stays", false, http.Header{"Te": {"gzip;q=0.5, Trailers"}, "Connection": {"TE"}}, http.Header{"Te": {"trailers"}}},
		{"an upgrade that is carried", true, http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Key": {"k"}}, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"k"}}},
		{"an upgrade that is not", false, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, http.Header{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stripHopByHop(tt.in, tt.websocket)
			if diff := cmp.Diff(tt.want, tt.in); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestStripTrailers(t *testing.T) {
	got := http.Header{
		"X-Checksum": {"1"}, "Content-Length": {"5"}, "Transfer-Encoding": {"chunked"}, "Host": {"evil"}, "Authorization": {"x"},
		"Proxy-Authorization": {"x"}, "Connection": {"close"}, "Proxy-Status": {"sallyport; error=dns_error"}, "Grpc-Status": {"0"},
	}
	stripTrailers(got)
	if diff := cmp.Diff(http.Header{"X-Checksum": {"1"}, "Grpc-Status": {"0"}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	stripTrailers(nil) // a message without trailers
}

func TestIsWebSocket(t *testing.T) {
	tests := []struct {
		connection, upgrade []string
		want                bool
	}{
		{[]string{"Upgrade"}, []string{"websocket"}, true},
		{[]string{"keep-alive, upgrade"}, []string{" WebSocket "}, true},
		{[]string{"keep-alive", "UPGRADE"}, []string{"websocket"}, true},
		{[]string{"keep-alive"}, []string{"websocket"}, false},
		{nil, []string{"websocket"}, false},
		{[]string{"Upgrade"}, []string{"h2c"}, false},
		{[]string{"Upgrade"}, []string{"websocket, h2c"}, false},
		{[]string{"Upgrade"}, []string{"websocket", "h2c"}, false},
		{[]string{"Upgrade"}, nil, false},
		{[]string{"Upgrade-Insecure"}, []string{"websocket"}, false},
	}
	for _, tt := range tests {
		if got := isWebSocket(http.Header{"Connection": tt.connection, "Upgrade": tt.upgrade}); got != tt.want {
			t.Errorf("Connection %q, Upgrade %q: %t", tt.connection, tt.upgrade, got)
		}
	}
}

func TestStripForged(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"ours", `sallyport; error=http_request_denied`, ``},
		{"ours as a string", `"Sallyport";error=x`, ``},
		{"ours, bare", `sallyport`, ``},
		{"another's", `cdn.example; error=dns_error`, `cdn.example; error=dns_error`},
		{"another's that speaks of us", `cdn; details="sallyport, they say; error"`, `cdn; details="sallyport, they say; error"`},
		{"a name that holds ours", `sallyport.example; error=x`, `sallyport.example; error=x`},
		{"a list", `one; a=1, sallyport; error=x, two; d="a, sallyport"`, `one; a=1, two; d="a, sallyport"`},
		{"lines", "one\n SALLYPORT ; error=x\ntwo", "one\ntwo"},
		{"an open string hides nothing on the next line", "one; d=\"\nsallyport; error=x", `one; d="`},
		{"an escaped quote", `one; d="\", sallyport; error=x", two`, `one; d="\", sallyport; error=x", two`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{"Proxy-Status": strings.Split(tt.in, "\n")}
			stripForged(h)
			if got := strings.Join(h["Proxy-Status"], "\n"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if _, ok := h["Proxy-Status"]; tt.want == "" && ok {
				t.Error("an empty field is left")
			}
		})
	}
}

// FuzzStripHopByHop holds three things of any head: nothing that belongs to
// one connection is left, nothing appears that was not there, and doing it
// twice changes nothing.
func FuzzStripHopByHop(f *testing.F) {
	f.Add("keep-alive, x-a", "websocket", "trailers", "X-A", "sallyport; error=x, other")
	f.Add("upgrade", "h2c", "gzip", "Keep-Alive", `"sallyport"`)
	f.Add(",,  ,\t", "", "", "", `a;b="`)
	f.Add("connection,te,upgrade", "websocket", "trailers;q=1", "Upgrade", `\`)
	f.Fuzz(func(t *testing.T, connection, upgrade, te, extra, status string) {
		h := http.Header{"Connection": {connection}, "Upgrade": {upgrade}, "Te": {te}, "Proxy-Status": {status}}
		h.Set(extra, "extra")
		before := h.Clone()
		keep := isWebSocket(h)
		stripHopByHop(h, keep)
		stripForged(h)
		for _, name := range hopByHop() {
			upgrade := keep && (name == "Connection" || name == "Upgrade")
			trailers := name == "Te" && slices.Equal(h[name], []string{"trailers"})
			if v, ok := h[name]; ok && !upgrade && !trailers {
				t.Errorf("%s: %q is left", name, v)
			}
		}
		for name := range h {
			if _, ok := before[name]; !ok {
				t.Errorf("%s appeared", name)
			}
		}
		once := h.Clone()
		stripHopByHop(h, keep)
		stripForged(h)
		if diff := cmp.Diff(once, h); diff != "" {
			t.Errorf("a second time it changed more\n%s", diff)
		}
	})
}
