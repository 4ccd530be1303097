package integration

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/anomaly"
	"github.com/sallyport/sallyport/logging/flow"
)

// receiver starts the example, and returns its URL and what it prints.
func receiver(t *testing.T, secret string) (target string, out *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, "python3"), "../examples/webhook/receiver.py", "0")
	cmd.Env = append(bareEnv(t.TempDir()), "WEBHOOK_SECRET="+secret)
	talk, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(talk).ReadString('\n')
	port, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the receiver says %q, %v", line, err)
	}
	return "http://127.0.0.1:" + port + "/", bufio.NewReader(answers)
}

// TestWebhookReceiver posts to the example: it takes what is signed, once, and
// nothing else.
func TestWebhookReceiver(t *testing.T) {
	const secret = "a secret of two dozen bytes"
	target, out := receiver(t, secret)
	hook, err := anomaly.NewWebhook(anomaly.Hook{URL: target, Secret: secret, Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- hook.Run(t.Context()) }()
	t.Cleanup(func() { <-ended })
	for _, subject := range []string{"one", "two"} {
		a := flow.Anomaly{ID: subject, Kind: flow.AnomalyBeacon, Caller: "web", Subject: subject, Severity: flow.High, Count: 1, Evidence: flow.Evidence{Text: "like clockwork"}}
		hook.Tell(a)
		hook.Tell(a) // as another proxy might
		if got, err := out.ReadString('\n'); err != nil || got != "high\tbeacon\tweb\t"+subject+"\tlike clockwork\n" {
			t.Fatalf("%s: the receiver prints %q, %v", subject, got, err)
		}
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	old := strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)
	body := []byte(`{"data":{}}`)
	for name, tt := range map[string]struct{ at, signature string }{
		"unsigned":   {now, ""},
		"by another": {now, "v1," + anomaly.Sign([]byte("somebody else's"), "x", now, body)},
		"old":        {old, "v1," + anomaly.Sign([]byte(secret), "x", old, body)},
		"timeless":   {"soon", "v1," + anomaly.Sign([]byte(secret), "x", "soon", body)},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Webhook-Id", "x")
		r.Header.Set("Webhook-Timestamp", tt.at)
		r.Header.Set("Webhook-Signature", tt.signature)
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}
