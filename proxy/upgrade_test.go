package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// switching is what an origin says that grants a WebSocket.
const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"

// upgradeTo asks for a WebSocket; more is sent in the same write.
func upgradeTo(r *rig, port int, more string) *net.TCPConn {
	return r.send(fmt.Sprintf("GET http://web.test:%d/ws?t=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", port, more))
}

// echoSocket is an origin that sends every message back.
func echoSocket(t *testing.T) int {
	return httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover, Subprotocols: []string{"chat"}})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				t.Errorf("the origin writes: %v", err)
			}
		}
	})
}

func TestWebSocket(t *testing.T) {
	port := echoSocket(t)
	r := webRig(t, port)
	talk := func(t *testing.T, client *http.Client) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		c, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://web.test:%d/ws", port), &websocket.DialOptions{
			HTTPClient: client, CompressionMode: websocket.CompressionContextTakeover, Subprotocols: []string{"chat"},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(-1)
		if c.Subprotocol() != "chat" {
			t.Errorf("subprotocol %q", c.Subprotocol())
		}
		for _, size := range []int{0, 1, 125, 126, 65536, 4 << 20} {
			want := strings.Repeat("x", size)
			if err := c.Write(ctx, websocket.MessageBinary, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(ctx); err != nil || string(got) != want {
				t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Run("absolute-form", func(t *testing.T) {
		client := r.client(nil)
		client.Timeout = 0 // it would wrap the connection
		talk(t, client)
		rec := r.events.ended(t, "web.test")
		if rec.Outcome != flow.OutcomeOK || rec.HTTP != (flow.HTTP{Method: "GET", Path: "/ws", Status: 101}) || rec.BytesSent == 0 || rec.BytesReceived == 0 || rec.Via != policy.ViaHTTP {
			t.Errorf("record %+v", rec)
		}
		if rec.OriginTCP.RTT == 0 {
			t.Error("no TCP_INFO of the origin's end")
		}
	})
	// Chrome opens a tunnel for ws://, to port 80 too.
	t.Run("in CONNECT", func(t *testing.T) {
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return tunnelToWeb(t, r, port), nil
		}}
		talk(t, &http.Client{Transport: tr})
		rec := r.events.wait(t, "a WebSocket in a tunnel", func(e flow.Event) bool { return e.Kind == flow.Closed && e.Record.Via == policy.ViaConnect })
		if rec.Outcome != flow.OutcomeOK || rec.HTTP.Status != 101 || rec.Host != "web.test" {
			t.Errorf("record %+v", rec)
		}
	})
}

func tunnelToWeb(t *testing.T, r *rig, port int) *net.TCPConn {
	t.Helper()
	c := r.send(fmt.Sprintf("CONNECT web.test:%d HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port, port))
	if resp := readHead(t, c); resp.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT: %s", resp.Status)
	}
	return c
}

// TestHTTPInConnect holds requests inside a tunnel to the tunnel's name.
func TestHTTPInConnect(t *testing.T) {
	port := wire(t, mirror)
	r := newRig(t, allow("http", port, "web.test", "other.test"))
	r.resolver.set("web.test", "127.0.0.1")
	r.resolver.set("other.test", "127.0.0.1")
	c := tunnelToWeb(t, r, port)
	br := bufio.NewReader(c)
	steps := []struct {
		request string
		status  int
	}{
		{fmt.Sprintf("GET /1 HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port), 200},
		{fmt.Sprintf("GET /2 HTTP/1.1\r\nHost: other.test:%d\r\n\r\n", port), 403},
		{fmt.Sprintf("GET http://other.test:%d/3 HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port, port), 403},
		{"GET /4 HTTP/1.1\r\nHost: web.test\r\n\r\n", 403},
		{fmt.Sprintf("GET /5 HTTP/1.1\r\nHost: web.test:%d\r\n\r\n", port), 200},
		{fmt.Sprintf("CONNECT web.test:%d HTTP/1.1\r\n\r\n", port), 403},
	}
	for _, s := range steps {
		io.WriteString(c, s.request)
		if resp, _ := reply(t, br, "GET"); resp.StatusCode != s.status {
			t.Errorf("%.30q: %s", s.request, resp.Status)
		}
	}
	mismatches := 0
	all, _ := r.events.list()
	for _, e := range all {
		if e.Kind == flow.Denied && e.Record.Reason == policy.ReasonNameMismatch {
			mismatches++
		}
	}
	if mismatches != 3 {
		t.Errorf("%d mismatches, want 3%s", mismatches, r.events.text())
	}
}

// TestWebSocketEarlyBytes has both ends speak before the upgrade is through:
// the client in the write of its request, the origin in that of its answer.
func TestWebSocketEarlyBytes(t *testing.T) {
	port := wire(t, func(head string, c *net.TCPConn, br *bufio.Reader) bool {
		if !strings.Contains(head, "Connection: Upgrade\r\n") || !strings.Contains(head, "Upgrade: websocket\r\n") || !strings.Contains(head, "GET /ws?t=1 ") {
			t.Errorf("the origin got %q", head)
		}
		io.WriteString(c, switching+"ORIGIN")
		b := make([]byte, 6)
		io.ReadFull(br, b)
		fmt.Fprintf(c, " got %s", b)
		return false
	})
	r := webRig(t, port)
	c := upgradeTo(r, port, "CLIENT")
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 101 ") || bodyOf(string(got)) != "ORIGIN got CLIENT" {
		t.Errorf("got %q, %v", got, err)
	}
	c.Close()
	if rec := r.events.ended(t, "web.test"); rec.BytesSent != 6 || rec.BytesReceived != 17 || rec.Outcome != flow.OutcomeOK {
		t.Errorf("record %+v", rec)
	}
}

// TestWebSocketHalfClose fails when goproxy relays: it ends with the first
// direction that ends.
func TestWebSocketHalfClose(t *testing.T) {
	port := wire(t, func(_ string, c *net.TCPConn, br *bufio.Reader) bool {
		io.WriteString(c, switching)
		all, _ := io.ReadAll(br)
		fmt.Fprintf(c, "got %s", all)
		return false
	})
	r := webRig(t, port)
	c := upgradeTo(r, port, "")
	readHead(t, c)
	io.WriteString(c, "all I have")
	c.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "got all I have" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if rec := r.events.ended(t, "web.test"); rec.Outcome != flow.OutcomeOK || rec.EndedBy != flow.EndedByBoth {
		t.Errorf("record %+v", rec)
	}
}

func TestWebSocketIdle(t *testing.T) {
	port := wire(t, func(_ string, c *net.TCPConn, br *bufio.Reader) bool {
		io.WriteString(c, switching)
		io.Copy(c, br)
		return false
	})
	r := webRig(t, port, func(c *Config) { c.Timeouts.Idle = 300 * time.Millisecond })
	c := upgradeTo(r, port, "")
	readHead(t, c)
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v", n, err)
	}
	if rec := r.events.ended(t, "web.test"); rec.EndedBy != flow.EndedByIdle || rec.Outcome != flow.OutcomeConnectionReadTimeout {
		t.Errorf("record: outcome %s, ended by %q", rec.Outcome, rec.EndedBy)
	}
}

// TestWebSocketCut ends upgraded connections from outside, each counted once.
func TestWebSocketCut(t *testing.T) {
	port := wire(t, func(_ string, c *net.TCPConn, br *bufio.Reader) bool {
		io.WriteString(c, switching)
		io.Copy(c, br)
		return false
	})
	r := webRig(t, port)
	c := upgradeTo(r, port, "x")
	readHead(t, c)
	io.ReadFull(c, make([]byte, 1))
	r.setPolicy(allow("http", 1, "other.test"))
	if n := r.PolicyChanged(); n != 1 {
		t.Errorf("%d were cut, want 1", n)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d", n)
	}
	if rec := r.events.ended(t, "web.test"); rec.EndedBy != flow.EndedByPolicy {
		t.Errorf("ended by %q", rec.EndedBy)
	}
}

// TestUpgradeRefused is about upgrades that are not carried: the request goes
// on without, or the answer is not believed.
func TestUpgradeRefused(t *testing.T) {
	port := wire(t, mirror)
	r := webRig(t, port)
	for name, fields := range map[string]string{
		"h2c":              "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"TLS":              "Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n",
		"two":              "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
		"websocket, alone": "Upgrade: websocket\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := r.exchange(get(port, "/", strings.TrimSuffix(fields, "\r\n")))
			if !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(strings.ToLower(bodyOf(got)), "upgrade") || strings.Contains(bodyOf(got), "Settings") {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("a POST", func(t *testing.T) {
		got := r.exchange(fmt.Sprintf("POST / HTTP/1.1\r\nHost: web.test:%d\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", port))
		if !strings.HasPrefix(got, "HTTP/1.1 200") || strings.Contains(bodyOf(got), "websocket") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the origin says no", func(t *testing.T) {
		port := wire(t, canned("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
		r := webRig(t, port)
		c := upgradeTo(r, port, "")
		if resp, body := reply(t, bufio.NewReader(c), "GET"); resp.StatusCode != 403 || body != "no" {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
	t.Run("the origin grants something else", func(t *testing.T) {
		port := wire(t, canned("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"))
		r := webRig(t, port)
		c := upgradeTo(r, port, "")
		if resp, _ := reply(t, bufio.NewReader(c), "GET"); resp.StatusCode != 502 {
			t.Errorf("%s", resp.Status)
		}
	})
}
