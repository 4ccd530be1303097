package console_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/history"
)

// crowded is a History that notes how many search it at once.
type crowded struct {
	console.History
	mu        sync.Mutex
	now, most int
	goOn      chan struct{}
}

func (c *crowded) Sites(context.Context, history.Filter) ([]history.Site, error) {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	<-c.goOn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	return nil, nil
}

// Who asks for much at once does not take all of the store's connections from
// the proxy, whose overlays come over them.
func TestAPISearchesInTurn(t *testing.T) {
	store := &crowded{goOn: make(chan struct{})}
	h := newHandler(t, console.Config{History: store})
	var all sync.WaitGroup
	answers := make(chan *httptest.ResponseRecorder, 20)
	for range cap(answers) {
		all.Go(func() { answers <- ask(h, here, "/api/v1/sites") })
	}
	for range cap(answers) {
		store.goOn <- struct{}{}
	}
	all.Wait()
	for range cap(answers) {
		if w := <-answers; w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if store.most > 2 {
		t.Errorf("%d at once", store.most)
	}
}

// still is a History in which nothing happens.
type still struct{ console.History }

func (still) Follow(ctx context.Context, _ history.Filter) iter.Seq2[history.Flow, error] {
	return func(func(history.Flow, error) bool) { <-ctx.Done() }
}

// Who announces a body, follows and leaves does not follow for ever.
func TestAPIFollowersLeave(t *testing.T) {
	h := newHandler(t, console.Config{History: still{}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ln) }()
	defer func() { stop(); <-done }()
	follow := func(header string) string {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "GET /api/v1/flows/follow HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n", header); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 12)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		return string(head)
	}
	for range 20 {
		follow("Content-Length: 1\r\n")
		follow("Transfer-Encoding: chunked\r\n")
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.HasSuffix(follow(""), "200"); {
		if time.Now().After(deadline) {
			t.Fatal("those who left still follow")
		}
	}
}
