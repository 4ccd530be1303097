package console_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/console"
)

// Who opens connections to the admin socket without end takes no descriptors
// from the traffic, and a health check is answered all the same.
func TestServeBoundsConnections(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, console.Config{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, ln) }()
	const opened, bound = 700, 256
	var all []net.Conn
	for range opened {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if b, err := io.ReadAll(io.LimitReader(c, 12)); err != nil || string(b) != "HTTP/1.1 200" {
			t.Fatalf("connection %d: %q, %v", len(all), b, err)
		}
		all = append(all, c)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	closed := 0
	patience := time.Now().Add(20 * time.Second) // who is idle may be so for longer
	for _, c := range all[:opened-bound] {
		c.SetReadDeadline(patience)
		if _, err := io.Copy(io.Discard, c); !os.IsTimeout(err) {
			closed++
		}
	}
	if closed < opened-bound {
		t.Errorf("%d of the oldest %d connections have gone", closed, opened-bound)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
