package console_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// remembering returns a store that has seen n denials.
func remembering(t *testing.T, n int) *history.Store {
	t.Helper()
	s, err := history.Open(t.Context(), history.Config{PerSite: -1, Drain: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for range n {
		now := time.Now()
		s.Observe(flow.Event{Kind: flow.Denied, Record: flow.Record{
			ID: flow.NewID(), Start: now, End: now, Via: policy.ViaConnect, Host: "a.example", Port: 443, Reason: policy.ReasonNoRule, Outcome: "no_rule",
		}})
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ask asks a handler as from an address.
func ask(h http.Handler, from, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9901"+target, http.NoBody)
	r.RemoteAddr = from
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func newHandler(t *testing.T, c console.Config) *console.Handler {
	t.Helper()
	c.Ready = func() []console.Check { return nil }
	h, err := console.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const (
	here  = "127.0.0.1:40000"
	there = "10.0.16.9:40000"
)

func TestAPIAdmits(t *testing.T) {
	store := remembering(t, 1)
	sum := sha256.Sum256([]byte("0123456789abcdef"))
	open := newHandler(t, console.Config{History: store})
	closed := newHandler(t, console.Config{History: store, Token: func() *[sha256.Size]byte { return &sum }})
	for name, tt := range map[string]struct {
		handler http.Handler
		from    string
		header  []string
		status  int
	}{
		"this host without a token":        {open, here, nil, 200},
		"this host by IPv6":                {open, "[::1]:1", nil, 200},
		"this host by mapped IPv4":         {open, "[::ffff:127.0.0.1]:1", nil, 200},
		"another host without a token":     {open, there, nil, 403},
		"another host with any token":      {open, there, []string{"Authorization", "Bearer 0123456789abcdef"}, 403},
		"nobody knows who":                 {open, "", nil, 403},
		"this host where there is a token": {closed, here, nil, 401},
		"the token":                        {closed, there, []string{"Authorization", "Bearer 0123456789abcdef"}, 200},
		"another token":                    {closed, there, []string{"Authorization", "Bearer 0123456789abcdeF"}, 401},
		"an empty token":                   {closed, there, []string{"Authorization", "Bearer "}, 401},
		"the token by another scheme":      {closed, there, []string{"Authorization", "Basic 0123456789abcdef"}, 401},
		"the token alone":                  {closed, there, []string{"Authorization", "0123456789abcdef"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"sites", "flows", "flows/x", "gaps", "flows/follow?nonsense=1", "nothing"} {
				w := ask(tt.handler, tt.from, "/api/v1/"+path, tt.header...)
				if admitted := w.Code != 401 && w.Code != 403; admitted != (tt.status == 200) || !admitted && w.Code != tt.status {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
				if !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json" {
					t.Errorf("%s: not JSON: %s", path, w.Body)
				}
			}
		})
	}
	// The rest needs no token: a balancer's health check has none.
	if w := ask(closed, there, "/healthz"); w.Code != 200 {
		t.Errorf("healthz: %d", w.Code)
	}
}

func TestAPIAnswers(t *testing.T) {
	h := newHandler(t, console.Config{
		History: remembering(t, 5),
		Routes:  map[string]http.Handler{"GET more/{what}": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.PathValue("what"))) })},
	})
	for target, want := range map[string]struct {
		status int
		text   string
	}{
		"sites":                   {200, `{"sites":[{"caller":"-","site":"a.example","host":"a.example","port":443,"verdict":"deny"`},
		"sites?detail=true":       {200, `"reason":"no_rule","visits":5`},
		"sites?verdict=allow":     {200, `{"sites":[]}`},
		"flows?limit=2":           {200, `"next":"`},
		"flows?host=b.example":    {200, `{"flows":[]}`},
		"flows?limit=-1":          {400, "below zero"},
		"flows?limit=1&limit=2":   {400, "2 times"},
		"flows?verdict=maybe":     {400, "neither allow nor deny"},
		"flows?since=now":         {400, "cannot parse"},
		"flows?host=" + "%7Ba":    {400, "brace"},
		"flows/01KB4T0Q7M3Z5W8Y2": {404, "not found"},
		"gaps":                    {200, `{"gaps":[]}`},
		"nothing":                 {404, `{"error":"not found"}`},
		"more/things":             {200, "things"},
	} {
		if w := ask(h, here, "/api/v1/"+target); w.Code != want.status || !strings.Contains(w.Body.String(), want.text) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodDelete, "http://127.0.0.1/api/v1/sites", http.NoBody)
	r.RemoteAddr = here
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("DELETE: %d %s", w.Code, w.Body)
	}
	r = httptest.NewRequest(http.MethodPost, "http://127.0.0.1/api/v1/more/things", http.NoBody)
	r.RemoteAddr = here
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("a page of another origin: %d %s", w.Code, w.Body)
	}
	// A name that is not the server's is no way in either.
	r = httptest.NewRequest(http.MethodGet, "http://evil.example/api/v1/sites", http.NoBody)
	r.RemoteAddr = here
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusMisdirectedRequest {
		t.Errorf("by another name: %d", w.Code)
	}
}

// TestAPIPages: the pages of flows make the whole.
func TestAPIPages(t *testing.T) {
	h := newHandler(t, console.Config{History: remembering(t, 25)})
	seen := map[string]bool{}
	for cursor, pages := "", 0; ; pages++ {
		var page struct {
			Flows []history.Flow
			Next  string
		}
		w := ask(h, here, "/api/v1/flows?limit=10"+cursor)
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || pages > 3 {
			t.Fatalf("%d pages: %v: %s", pages, err, w.Body)
		}
		for _, f := range page.Flows {
			seen[f.ID] = true
		}
		if page.Next == "" {
			break
		}
		cursor = "&cursor=" + page.Next
	}
	if len(seen) != 25 {
		t.Errorf("%d flows of 25", len(seen))
	}
}
