package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/history"
)

// waitingHouse is a house whose store is away, with overlays for it that are
// optional or required. back brings the store, and in it one that denies
// echo.test and allows more.test.
func waitingHouse(t *testing.T, overlays string) (h *house, back func()) {
	t.Helper()
	place := t.TempDir()
	made, away := filepath.Join(place, "made"), filepath.Join(place, "away")
	if err := os.Mkdir(made, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := history.Open(t.Context(), history.Config{Store: "sqlite:" + filepath.Join(made, "h.db")})
	if err == nil {
		_, err = s.AddOverlay(t.Context(), history.Overlay{
			Name: "no-echo", Author: "ann", Text: "version: 1\nrules: [{name: no-echo, action: deny, hosts: [echo.test]}, {name: more, hosts: [more.test]}]\n",
		})
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	h = startHouseWith(t, "timeouts: {drain: 1h}\ndns: {address: '127.0.0.1:0', answer: [203.0.113.10]}\nhistory: {overlays: "+overlays+", store: 'sqlite:"+filepath.Join(away, "h.db")+"'}")
	return h, func() {
		if err := os.Rename(made, away); err != nil {
			t.Fatal(err)
		}
	}
}

// No traffic is served before the overlays that must be read have been: not by
// a policy without them, nor by a socket that would only keep clients waiting.
func TestRequiredOverlays(t *testing.T) {
	h, back := waitingHouse(t, "required")
	h.awaitReady(t, http.StatusServiceUnavailable)
	_, err := askReady(t.Context(), h.admin.Addr().String())
	for _, want := range []string{
		`"name":"policy","ok":false,"detail":"not in force`, `"name":"traffic","ok":false,"detail":"none is accepted yet"`,
		`"name":"policy_overlays","ok":false,"detail":"never read, and history.overlays is required`, "the history's store is not there",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("sallyport ready does not say %q: %v", want, err)
		}
	}
	if h.opened.Load() || h.live.Current() != nil {
		t.Errorf("open: %v, in force: %q", h.opened.Load(), h.live.Version())
	}
	if _, err := h.base(); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("a change would be checked with no policy: %v", err)
	}
	question, err := net.Dial("udp", h.steering.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer question.Close()
	question.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := question.Write([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04more\x04test\x00\x00\x01\x00\x01")); err != nil {
		t.Fatal(err)
	}
	back()
	h.awaitReady(t, http.StatusOK)
	answer := make([]byte, 512)
	if n, err := question.Read(answer); err != nil || n < 12 || answer[3]&0xf != 0 { // NOERROR: by the overlay it leads here
		t.Errorf("a question that waited: %x, %v", answer[:n], err)
	}
	c, err := net.Dial("tcp", h.proxy.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT echo.test:%s HTTP/1.1\r\nHost: echo.test\r\n\r\n", h.origin)
	head := make([]byte, len("HTTP/1.1 403"))
	if _, err := io.ReadFull(c, head); err != nil || string(head) != "HTTP/1.1 403" {
		t.Errorf("what the overlay denies: %q, %v", head, err)
	}
	c.Close()
	h.signals <- syscall.SIGTERM
	h.end(t)
	said := h.talkLog.String()
	for _, once := range []string{"no traffic is served before they are", "traffic is served from now on", `"message":"listening"`, `"message":"policy in force"`} {
		if n := strings.Count(said, once); n != 1 {
			t.Errorf("%q is said %d times:\n%s", once, n, said)
		}
	}
	if strings.Index(said, `"message":"listening"`) < strings.Index(said, "traffic is served from now on") {
		t.Errorf("it listened before:\n%s", said)
	}
}

// What the sources denied while the overlays were waited for was never let
// through: the first policy in force is theirs of now.
func TestPolicyChangedWhileOverlaysWereAwaited(t *testing.T) {
	h, back := waitingHouse(t, "required")
	h.awaitReady(t, http.StatusServiceUnavailable)
	h.setPolicy(t, "version: 1\nrules: [{name: newer, hosts: [newer.test]}]\n")
	back()
	h.awaitReady(t, http.StatusOK)
	for _, tt := range []struct {
		host string
		want string
	}{{"newer.test", "HTTP/1.1 502"}, {"echo.test", "HTTP/1.1 403"}, {"more.test", "HTTP/1.1 502"}} {
		c, err := net.Dial("tcp", h.proxy.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s\r\n\r\n", tt.host)
		head := make([]byte, len(tt.want))
		if _, err := io.ReadFull(c, head); err != nil || string(head) != tt.want {
			t.Errorf("%s: %q, %v", tt.host, head, err)
		}
		c.Close()
	}
	h.signals <- syscall.SIGTERM
	h.end(t)
	if said := h.talkLog.String(); strings.Index(said, `"message":"listening"`) < strings.Index(said, "policy reloaded") {
		t.Errorf("it listened before:\n%s", said)
	}
}

// Who waits for overlays can be stopped.
func TestRequiredOverlaysThatNeverCome(t *testing.T) {
	h, _ := waitingHouse(t, "required")
	h.awaitReady(t, http.StatusServiceUnavailable)
	h.signals <- syscall.SIGTERM
	h.end(t)
	if said := h.talkLog.String(); strings.Contains(said, `"message":"listening"`) || strings.Contains(said, "policy in force") {
		t.Errorf("it listened:\n%s", said)
	}
}

// Optional overlays keep nobody waiting.
func TestOptionalOverlays(t *testing.T) {
	h, _ := waitingHouse(t, "optional")
	h.awaitReady(t, http.StatusOK)
	h.tunnel(t).Close()
	h.signals <- syscall.SIGTERM
	h.end(t)
}

// What a reference leads to is looked at like what is written out.
func TestRequiredOverlaysByReference(t *testing.T) {
	l, talk := load(t, "history: {overlays: required, store: 'env:STORE'}", []string{"STORE=" + history.Memory})
	if talk != "" {
		t.Fatal(talk)
	}
	if _, _, err := l.historyConfig(t.Context()); err == nil || !strings.Contains(err.Error(), "there are no overlays to wait for, those in memory") {
		t.Error(err)
	}
}
