package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// behindBalancer makes the listener one that takes PROXY headers from loopback.
func behindBalancer(p ProxyProtocol, from ...string) func(*Config) {
	return func(c *Config) {
		l := &c.Listeners[0]
		l.ProxyProtocol = p
		for _, f := range from {
			l.ProxyFrom = append(l.ProxyFrom, netip.MustParsePrefix(f))
		}
	}
}

// headerV2 is a header of version 2 for a client at 198.51.100.7:4711, with
// extensions.
func headerV2(t testing.TB, tlvs ...proxyproto.TLV) string {
	t.Helper()
	h := &proxyproto.Header{
		Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr:      &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 4711},
		DestinationAddr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 3128},
	}
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nlbHeader is what a Network Load Balancer sends for a client that came
// through a VPC endpoint: CRC-32C, the endpoint's ID, and padding.
func nlbHeader(t testing.TB) string {
	return headerV2(t,
		proxyproto.TLV{Type: proxyproto.PP2_TYPE_CRC32C, Value: []byte{1, 2, 3, 4}},
		proxyproto.TLV{Type: 0xea, Value: append([]byte{1}, "vpce-08d2bf15fac5001c9"...)},
		proxyproto.TLV{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, 40)})
}

const local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

func TestProxyHeader(t *testing.T) {
	port := tcpOrigin(t, echo)
	request := fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port)
	loopback := "127.0.0.0/8"
	for name, tt := range map[string]struct {
		way      ProxyProtocol
		from     string
		header   string
		client   string // "" for the socket's own
		endpoint string
		refused  bool
	}{
		"version 1":              {way: ProxyProtocolRequired, from: loopback, header: "PROXY TCP4 198.51.100.7 10.0.0.1 4711 3128\r\n", client: "198.51.100.7:4711"},
		"version 1, IPv6":        {way: ProxyProtocolRequired, from: loopback, header: "PROXY TCP6 2001:db8::7 2001:db8::1 4711 3128\r\n", client: "[2001:db8::7]:4711"},
		"version 1, unknown":     {way: ProxyProtocolRequired, from: loopback, header: "PROXY UNKNOWN\r\n"},
		"version 2":              {way: ProxyProtocolRequired, from: loopback, header: headerV2(t), client: "198.51.100.7:4711"},
		"a balancer's":           {way: ProxyProtocolRequired, from: loopback, header: nlbHeader(t), client: "198.51.100.7:4711", endpoint: "vpce-08d2bf15fac5001c9"},
		"a health check":         {way: ProxyProtocolRequired, from: loopback, header: local},
		"optional, with":         {way: ProxyProtocolOptional, from: loopback, header: headerV2(t), client: "198.51.100.7:4711"},
		"optional, without":      {way: ProxyProtocolOptional, from: loopback},
		"required, without":      {way: ProxyProtocolRequired, from: loopback, refused: true},
		"required, from outside": {way: ProxyProtocolRequired, from: "10.0.0.0/8", header: headerV2(t), refused: true},
		"optional, from outside": {way: ProxyProtocolOptional, from: "10.0.0.0/8", header: headerV2(t), refused: true},
		"not expected":           {way: ProxyProtocolNone, from: loopback, header: headerV2(t), refused: true},
		"nobody trusted":         {way: ProxyProtocolRequired, from: "", header: headerV2(t), refused: true},
		"two headers":            {way: ProxyProtocolRequired, from: loopback, header: headerV2(t) + headerV2(t), refused: true},
		"version 1, long":        {way: ProxyProtocolRequired, from: loopback, header: "PROXY " + strings.Repeat("x", 200) + "\r\n", refused: true},
		"version 1, no address":  {way: ProxyProtocolRequired, from: loopback, header: "PROXY TCP4 0.0.0.0 10.0.0.1 4711 3128\r\n", refused: true},
		"version 2, huge":        {way: ProxyProtocolRequired, from: loopback, header: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", refused: true},
		"version 2, UDP":         {way: ProxyProtocolRequired, from: loopback, header: "\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c" + "aaaabbbbccdd", refused: true},
		"version 3":              {way: ProxyProtocolRequired, from: loopback, header: "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + "aaaabbbbccdd", refused: true},
		"version 2, Unix":        {way: ProxyProtocolRequired, from: loopback, header: "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("a", 216), refused: true},
		"broken extensions":      {way: ProxyProtocolRequired, from: loopback, header: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f" + "aaaabbbbccdd" + "\xea\x00\x09", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			var from []string
			if tt.from != "" {
				from = append(from, tt.from)
			}
			r := tcpRig(t, port, behindBalancer(tt.way, from...))
			c := r.dial()
			for _, b := range []byte(tt.header + request) { // however it is cut
				if _, err := c.Write([]byte{b}); err != nil {
					break
				}
			}
			got := make([]byte, len("HTTP/1.1 200"))
			_, err := io.ReadFull(c, got)
			if refused := string(got) != "HTTP/1.1 200"; refused != tt.refused {
				t.Fatalf("refused %v: %q, %v", refused, got, err)
			}
			c.Close()
			rec := r.events.wait(t, "an attempt", func(flow.Event) bool { return true })
			want := tt.client
			if want == "" {
				want = c.LocalAddr().String()
			}
			if !tt.refused && (rec.Client.String() != want || rec.VPCEndpoint != tt.endpoint) {
				t.Errorf("the client is %s by %q, want %s by %q", rec.Client, rec.VPCEndpoint, want, tt.endpoint)
			}
			if tt.refused && rec.Verdict != policy.Deny {
				t.Errorf("record %s %s", rec.Verdict, rec.Reason)
			}
		})
	}
}

// TestProxyHeaderLimits counts the clients behind a balancer, not the balancer.
func TestProxyHeaderLimits(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, behindBalancer(ProxyProtocolRequired, "127.0.0.0/8"), func(c *Config) { c.Limits.PerSource = 2 })
	ask := func(client int) string {
		c := r.dial()
		fmt.Fprintf(c, "PROXY TCP4 198.51.100.%d 10.0.0.1 4711 3128\r\nCONNECT origin.test:%d HTTP/1.1\r\nHost: x\r\n\r\n", client, port)
		got := make([]byte, len("HTTP/1.1 200"))
		io.ReadFull(c, got)
		return string(got[9:])
	}
	for client := range 100 {
		if got := ask(client); got != "200" {
			t.Fatalf("client %d: %s", client, got)
		}
	}
	if ask(1); ask(1) != "429" {
		t.Error("a third connection of one client is let through")
	}
}

type fixedIdentity struct{ task *policy.Task }

func (f fixedIdentity) Identify(_ context.Context, s policy.Source) policy.Source {
	s.Task = f.task
	return s
}

type fixedCredentials struct{}

func (fixedCredentials) Authenticate(_ context.Context, _ policy.Source, user, password string) (string, func() bool) {
	if user == "payments" && password == "open:sesame" {
		return "payments", nil
	}
	return "", nil
}

func (fixedCredentials) Knows(user string) bool { return user == "payments" }

func TestIdentityAndCredentials(t *testing.T) {
	var fields http.Header
	port := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) { fields = r.Header })
	r := newRig(t, allow("http", port, "web.test"))
	task := &policy.Task{Service: "payments"}
	r.Server.deps.Identifier, r.Server.deps.Authenticator = fixedIdentity{task}, fixedCredentials{}
	r.resolver.set("web.test", "127.0.0.1")
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tt := range map[string]struct {
		credentials string
		status      string
		principal   string
	}{
		"right":          {"Proxy-Authorization: " + basic("payments:open:sesame") + "\r\n", "200", "payments"},
		"none":           {"", "200", ""},
		"wrong":          {"Proxy-Authorization: " + basic("payments:no") + "\r\n", "407", ""},
		"twice":          {strings.Repeat("Proxy-Authorization: "+basic("payments:open:sesame")+"\r\n", 2), "407", ""},
		"another scheme": {"Proxy-Authorization: Bearer x\r\n", "407", ""},
		"empty":          {"Proxy-Authorization: \r\n", "407", ""},
	} {
		t.Run(name, func(t *testing.T) {
			answer := r.exchange(fmt.Sprintf("GET http://web.test:%d/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", port, strings.ReplaceAll(name, " ", "-"), tt.credentials))
			if !strings.HasPrefix(answer, "HTTP/1.1 "+tt.status) {
				t.Fatal(answer)
			}
			if (tt.status == "407") != strings.Contains(answer, "Proxy-Authenticate: Basic realm=\"sallyport\"") {
				t.Error(answer)
			}
			rec := r.events.wait(t, "the attempt", func(e flow.Event) bool {
				return strings.Contains(e.Record.HTTP.Path, strings.ReplaceAll(name, " ", "-")) && !e.Record.End.IsZero()
			})
			if rec.Principal != tt.principal || rec.Task != task {
				t.Errorf("record: principal %q, task %v", rec.Principal, rec.Task)
			}
		})
	}
	if _, there := fields["Proxy-Authorization"]; there {
		t.Error("the origin sees the credentials")
	}
}

// FuzzProxyHeader: a header is measured alike however it is cut, and what is
// read from it is what its bytes say.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{headerV2(f), nlbHeader(f), local, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWN x\r\n", "POST / HTTP/1.1\r\n", "P"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		length, complete, err := proxyHeaderLength(p)
		if cut > 0 && cut < len(p) && length < 0 {
			return // a part may still look like a beginning
		}
		if err != nil || !complete || length > len(p) {
			return
		}
		if length > proxyHeaderBytes {
			t.Fatalf("a header of %d bytes is accepted", length)
		}
		if more, c, err := proxyHeaderLength(append(bytes.Clone(p), "more"...)); more != length || !c || err != nil {
			t.Fatalf("what follows changes the length: %d, then %d, %v", length, more, err)
		}
		b, err := parseProxyHeader(p[:length])
		if err != nil || !b.remote.IsValid() || !strings.HasPrefix(string(p), proxySignatureV2) {
			return
		}
		at, n := 16, 4
		if p[13]>>4 == 2 {
			n = 16
		}
		addr, _ := netip.AddrFromSlice(p[at : at+n])
		port := binary.BigEndian.Uint16(p[at+2*n:])
		if b.remote != netip.AddrPortFrom(addr.Unmap(), port) {
			t.Fatalf("read %s, and the bytes say %s:%d", b.remote, addr, port)
		}
	})
}
