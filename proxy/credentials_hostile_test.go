package proxy

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// TestHostileKeptCredentials: what one request on a connection proves is nothing
// to those behind it, whoever serves them.
func TestHostileKeptCredentials(t *testing.T) {
	var leaked []string
	port := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.HasPrefix(name, "Proxy-") {
				leaked = append(leaked, r.URL.Path)
			}
		}
	})
	r := newRig(t, allow("http", port, "web.test"))
	r.Server.deps.Authenticator = fixedCredentials{}
	r.resolver.set("web.test", "127.0.0.1")
	right := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("payments:open:sesame")) + "\r\n"
	c := r.dial()
	in := bufio.NewReader(c)
	for i, tt := range []struct {
		method, fields, body string
		status               int
		principal            string
	}{
		{"GET", right, "", 200, "payments"},
		{"GET", "", "", 200, ""},
		{"GET", "Proxy-Authorization: Basic x\r\n", "", 407, ""},
		{"GET", "", "", 200, ""},
		{"GET", "Connection: proxy-authorization\r\n" + right, "", 200, "payments"},
		{"GET", "", "", 200, ""},
		{"POST", right + "Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\nProxy-Authorization: x\r\n\r\n", 200, "payments"}, // net/http's from here
		{"POST", "Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n" + right + "\r\n", 200, ""},
		{"GET", "", "", 200, ""},
		{"GET", "proxy-authorization:\t" + strings.TrimPrefix(right, "Proxy-Authorization: "), "", 200, "payments"},
		{"GET", "", "", 200, ""},
	} {
		path := fmt.Sprintf("/%d", i)
		if _, err := fmt.Fprintf(c, "%s http://web.test:%d%s HTTP/1.1\r\nHost: x\r\n%s\r\n%s", tt.method, port, path, tt.fields, tt.body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		rec := r.events.wait(t, "the attempt", func(e flow.Event) bool { return e.Record.HTTP.Path == path && !e.Record.End.IsZero() })
		if resp.StatusCode != tt.status || rec.Principal != tt.principal {
			t.Errorf("request %d: %s, principal %q", i, resp.Status, rec.Principal)
		}
	}
	if len(leaked) > 0 {
		t.Errorf("the origin sees credentials of %s", leaked)
	}
}

// TestHostileTokenAsUser: who writes http://TOKEN@proxy into an environment
// does not find the token in the log.
func TestHostileTokenAsUser(t *testing.T) {
	const secret = "SeCrEt"
	r := newRig(t, allow("http", 1, "web.test"))
	r.Server.deps.Authenticator = fixedCredentials{}
	for _, credentials := range []string{secret + ":", secret, ":" + secret, "payments:" + secret} {
		r.exchange("GET http://web.test:1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nProxy-Authorization: Basic " +
			base64.StdEncoding.EncodeToString([]byte(credentials)) + "\r\n\r\n")
	}
	events, _ := r.events.list()
	for _, ev := range events {
		if ev.Record.Reason != policy.ReasonCredentials || strings.Contains(fmt.Sprintf("%+v", ev.Record), secret) {
			t.Errorf("record %+v", ev.Record)
		}
	}
	if len(events) != 4 {
		t.Errorf("%d records", len(events))
	}
}

// TestHostileUnknownPrincipal: somebody's token in the place of a name is written
// down nowhere. A principal's own name is.
func TestHostileUnknownPrincipal(t *testing.T) {
	port := httpOrigin(t, func(http.ResponseWriter, *http.Request) {})
	r := newRig(t, allow("http", port, "web.test"))
	r.Server.deps.Authenticator = fixedCredentials{}
	r.resolver.set("web.test", "127.0.0.1")
	for given, want := range map[string]string{
		"tok-3f9a1c:x":   "unknown principal",
		"tok-3f9a1c:":    "no password",
		"payments:wrong": `"payments"`,
	} {
		credentials := base64.StdEncoding.EncodeToString([]byte(given))
		for _, request := range []string{"CONNECT web.test:443 HTTP/1.1", fmt.Sprintf("GET http://web.test:%d/ HTTP/1.1", port)} {
			got := r.exchange(request + "\r\nHost: web.test\r\nConnection: close\r\nProxy-Authorization: Basic " + credentials + "\r\n\r\n")
			rec := r.events.wait(t, "its refusal", func(e flow.Event) bool { return e.Kind == flow.Denied && strings.Contains(got, e.Record.ID) })
			if !strings.Contains(got, " 407 ") || !strings.Contains(rec.Error, want) || rec.Principal != "" {
				t.Errorf("%s: %q, on record as %q: %q", given, got, rec.Principal, rec.Error)
			}
			if all := fmt.Sprintf("%+v", rec); strings.Contains(all+got, "tok-") || strings.Contains(all+got, credentials) {
				t.Errorf("%s is in the record or the answer: %s, %s", given, all, got)
			}
		}
	}
}
