package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// serving starts serve with a policy and a token, and returns its admin address
// and the token.
func serving(t *testing.T) (admin, token string) {
	t.Helper()
	dir := t.TempDir()
	token = "0123456789abcdef0123456789abcdef"
	for name, text := range map[string]string{
		"policy.yaml": "version: 1\nrules: [{name: a, hosts: [a.test]}]\n",
		"token":       token + "\n",
		"c.yaml":      "listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"127.0.0.1:0\", token: \"file:" + filepath.Join(dir, "token") + "\"}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	out, talk := io.Pipe()
	addresses := make(chan string, 1)
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--config", filepath.Join(dir, "c.yaml"), "--policy", filepath.Join(dir, "policy.yaml")}, strings.NewReader(""), io.Discard, talk)
		_ = talk.Close()
	}()
	go func() {
		dec := json.NewDecoder(out)
		for {
			var line struct{ Admin string }
			if dec.Decode(&line) != nil {
				return
			}
			if line.Admin != "" {
				addresses <- line.Admin
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		if code := <-done; code != exitOK {
			t.Errorf("serve ended with %d", code)
		}
	})
	select {
	case admin = <-addresses:
	case code := <-done:
		done <- code
		t.Fatalf("serve ended with %d", code)
	}
	return admin, token
}

func TestPolicyAPI(t *testing.T) {
	admin, token := serving(t)
	ask := func(method, path, body string, header map[string]string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+admin+"/api/v1/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	const accept = `{"action":"allow","site":"b.test","author":"alice","reason":"why"}`
	for _, one := range []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		want                     string
	}{
		{"no token", "POST", "policy/overlays", accept, map[string]string{"Authorization": ""}, 401, "admin.token"},
		{"another token", "POST", "policy/overlays", accept, map[string]string{"Authorization": "Bearer x"}, 401, "admin.token"},
		{"a page of another origin", "POST", "policy/overlays", accept, map[string]string{"Origin": "https://evil.example"}, 403, "another origin"},
		{"a form", "POST", "policy/overlays", accept, map[string]string{"Content-Type": "text/plain"}, 415, "application/json"},
		{"too much", "POST", "policy/overlays", `{"site":"` + strings.Repeat("a", maxChange) + `"}`, nil, 422, "cannot be read"},
		{"an unknown field", "POST", "policy/overlays", `{"sites":"b.test"}`, nil, 422, "unknown field"},
		{"two values", "POST", "policy/overlays", accept + accept, nil, 422, "more than one value"},
		{"nobody", "POST", "policy/overlays", `{"action":"allow","site":"b.test"}`, nil, 422, "who asks"},
		{"no action", "POST", "policy/overlays", `{"site":"b.test","author":"a"}`, nil, 422, "is none"},
		{"strangers", "POST", "policy/overlays", `{"action":"allow","site":"*.github.io","author":"a"}`, nil, 422, "strangers"},
		{"injected", "POST", "policy/overlays", `{"action":"allow","site":"b.test\nmode: report","author":"a"}`, nil, 422, "site"},
		{"nothing to revoke", "POST", "policy/overlays/x/revoke", `{"author":"a"}`, nil, 404, "not found"},
		{"no such version", "POST", "policy/versions/x/rollback", `{"author":"a"}`, nil, 404, "not found"},
		{"accepted", "POST", "policy/overlays", accept, nil, 200, `"name":"accept-b.test-`},
		{"once more", "POST", "policy/overlays", accept, nil, 200, `"already":"accept-b.test-`},
		{"listed", "GET", "policy/overlays", "", nil, 200, `"author":"alice","reason":"why"`},
		{"not by another method", "PUT", "policy/overlays", accept, nil, 405, "method"},
	} {
		if status, text := ask(one.method, one.path, one.body, one.header); status != one.status || !strings.Contains(text, one.want) {
			t.Errorf("%s: %d %s, want %d with %q", one.name, status, text, one.status, one.want)
		}
	}
	// It comes into force by itself.
	deadline := time.Now().Add(60 * time.Second)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		_, text := ask("GET", "policy/versions/current", "", nil)
		if strings.Contains(text, "overlay:accept-b.test-") {
			return
		}
		if now := <-poll.C; now.After(deadline) {
			t.Fatalf("the overlay is not in force: %s", text)
		}
	}
}

// The overlays take nothing down with them.
func TestOverlaysCannotFail(t *testing.T) {
	base := []policy.Text{{Name: "policy.yaml", Data: []byte("version: 1\nrules: [{name: a, hosts: [a.test]}]\n")}}
	answer := []history.Overlay{
		{ID: "1", Name: "good", Text: "version: 1\nrules: [{name: b, hosts: [b.test]}]\n"},
		{ID: "2", Name: "broken", Text: "{"},
		{ID: "3", Name: "wide", Text: "version: 1\nmode: report\nrules: [{name: c, hosts: [c.test]}]\n"},
		{ID: "4", Name: "over", Text: "version: 1\nrules: [{name: d, hosts: [d.test]}]\n", Until: time.Now().Add(-time.Minute)},
		{ID: "5", Name: "inspects", Text: "version: 1\nrules: [{name: e, s3: {buckets: [bucket], inspect: true}}]\n"},
	}
	var gone error
	o := &overlays{
		read:  func(context.Context) ([]history.Overlay, error) { return answer, gone },
		ended: func(context.Context) ([]history.Overlay, error) { return answer, gone },
		admit: func(p *policy.Policy) error {
			if p.Inspects() {
				return errors.New("there is no CA")
			}
			return nil
		},
		log: zerolog.Nop(), refused: map[string]string{},
	}
	names := func(texts []policy.Text) string {
		var all []string
		for _, x := range texts {
			all = append(all, x.Name)
		}
		return strings.Join(all, " ")
	}
	const want = "policy.yaml overlay:good"
	if got := names(o.with(t.Context(), base)); got != want {
		t.Errorf("in force: %s", got)
	}
	if detail := o.checks()[0].Detail; detail != "5 overlays; refused: overlay:broken, overlay:inspects, overlay:wide" {
		t.Errorf("said: %s", detail)
	}
	gone = errors.New("no route to the database")
	if got := names(o.with(t.Context(), base)); got != want {
		t.Errorf("in force while the store is gone: %s", got)
	}
	if detail := o.checks()[0].Detail; !strings.Contains(detail, "no route to the database") {
		t.Errorf("said: %s", detail)
	}
	// A policy that is itself broken is told as it is.
	broken := []policy.Text{{Name: "policy.yaml", Data: []byte("{")}}
	if got := names(o.with(t.Context(), broken)); got != "policy.yaml" {
		t.Errorf("with a broken policy: %s", got)
	}
	if got := names((*overlays)(nil).with(t.Context(), base)); got != "policy.yaml" {
		t.Errorf("without a store: %s", got)
	}
}
