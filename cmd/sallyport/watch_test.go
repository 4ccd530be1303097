package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/anomaly"
)

const hookKey = "a secret of two dozen bytes"

// hookReceiver takes what is posted, if it is signed.
type hookReceiver struct {
	*httptest.Server
	mu   sync.Mutex
	told []string // subjects
}

func newHookReceiver(t *testing.T) *hookReceiver {
	t.Helper()
	r := &hookReceiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		want := "v1," + anomaly.Sign([]byte(hookKey), q.Header.Get("Webhook-Id"), q.Header.Get("Webhook-Timestamp"), body)
		var p struct {
			Data struct{ Kind, Subject string }
		}
		if q.Header.Get("Webhook-Signature") != want || json.Unmarshal(body, &p) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, p.Data.Kind+" "+p.Data.Subject)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *hookReceiver) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.told, "; ")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestBudgetFromPolicyToWebhook spends a budget, and follows that to everybody
// who is to know.
func TestBudgetFromPolicyToWebhook(t *testing.T) {
	r := newHookReceiver(t)
	t.Setenv("HOOK_KEY", hookKey)
	h := startHouseWith(t, fmt.Sprintf("timeouts: {drain: 1h}\nwatch: {every: 1s, webhook: {url: %q, secret: \"env:HOOK_KEY\"}}", r.URL))
	h.awaitReady(t, http.StatusOK)
	h.setPolicy(t, strings.Replace(echoPolicy, "resolves_to", "budget: {bytes_out: 1MiB, per: month, action: deny}, resolves_to", 1))
	before := h.live.Version()
	h.signals <- syscall.SIGHUP
	eventually(t, "the policy with a budget is in force", func() bool { return h.live.Version() != before })

	c := h.tunnel(t)
	go io.Copy(io.Discard, c)
	chunk := make([]byte, 64<<10)
	for sent := 0; ; sent += len(chunk) {
		if _, err := c.Write(chunk); err != nil {
			break
		}
		if sent > 1<<30 {
			t.Fatal("nobody cuts the tunnel")
		}
	}
	refused, err := net.Dial("tcp", h.proxy.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	fmt.Fprintf(refused, "CONNECT echo.test:%s HTTP/1.1\r\n\r\n", h.origin)
	answer, _ := io.ReadAll(refused)
	for _, want := range []string{"HTTP/1.1 429 ", "budget=rule:echo:1MiB/month", "Retry-After: ", `the budget of the rule "echo" is spent`} {
		if !bytes.Contains(answer, []byte(want)) {
			t.Errorf("the answer lacks %q:\n%s", want, answer)
		}
	}
	eventually(t, "the webhook is told", func() bool { return strings.HasPrefix(r.all(), "budget rule echo 20") })
	eventually(t, "the log is told", func() bool { return strings.Contains(h.flowLog.String(), `"event":{"name":"anomaly"}`) })

	admin := "127.0.0.1:" + port(h.admin.Addr())
	listed := runCLI(t, "anomaly", "list", "--json", "--admin", admin)
	var found anomalyJSON
	if err := json.Unmarshal([]byte(listed), &found); err != nil || found.Kind != "budget" || found.Severity != "high" || found.Evidence.Limit != 1<<20 {
		t.Fatalf("listed %s, %v", listed, err)
	}
	if table := runCLI(t, "anomaly", "list", "--admin", admin, "--severity", "high", "--since", "1h", "--kind", "budget"); !strings.Contains(table, "SEVERITY") || !strings.Contains(table, found.ID) {
		t.Errorf("as a table:\n%s", table)
	}
	var talk bytes.Buffer
	if code := run(t.Context(), []string{"anomaly", "ack", found.ID, "--reason", "x", "--admin", admin}, nil, io.Discard, &talk); code == exitOK || !strings.Contains(talk.String(), "admin.token") {
		t.Errorf("without a token: %d, %s", code, &talk)
	}
	const token = "a token of two dozen bytes"
	hash := sha256.Sum256([]byte(token))
	h.token.sum.Store(&hash)
	t.Setenv("ADMIN_TOKEN", token)
	t.Setenv("SALLYPORT_ADMIN_TOKEN", "env:ADMIN_TOKEN")
	runCLI(t, "anomaly", "ack", found.ID, "--reason", "the yearly upload", "--benign", "--by", "me", "--admin", admin)
	if rest := runCLI(t, "anomaly", "list", "--json", "--admin", admin); rest != "" {
		t.Errorf("after it was acknowledged: %s", rest)
	}
	if shown := runCLI(t, "anomaly", "show", found.ID, "--admin", admin); !strings.Contains(shown, `"reason": "the yearly upload"`) || !strings.Contains(shown, `"benign": true`) {
		t.Errorf("shown:\n%s", shown)
	}
	for _, args := range [][]string{
		{"anomaly", "show", "NONE", "--admin", admin},
		{"anomaly", "ack", "NONE", "--reason", "x", "--admin", admin},
		{"anomaly", "ack", found.ID, "--admin", admin},
		{"anomaly", "list", "--kind", "odd", "--admin", admin},
		{"anomaly", "list", "--severity", "9", "--admin", admin},
	} {
		var out, talk bytes.Buffer
		if code := run(t.Context(), args, nil, &out, &talk); code == exitOK || talk.Len() == 0 {
			t.Errorf("%v: %d, %s", args, code, &talk)
		}
	}
	metrics, err := get(t.Context(), "", "http://"+admin+"/metrics")
	for _, want := range []string{
		`sallyport_anomalies_total{kind="budget",severity="high"} 1`, `sallyport_budget_limit_bytes{name="echo",of="rule",per="month"} 1.048576e+06`,
		`sallyport_webhook_messages_total{result="delivered"} 1`,
	} {
		if err != nil || !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics, %v", want, err)
		}
	}
	h.signals <- syscall.SIGTERM
	h.signals <- syscall.SIGTERM
	h.end(t)
}

func runCLI(t *testing.T, args ...string) string {
	t.Helper()
	var out, talk bytes.Buffer
	if code := run(t.Context(), args, nil, &out, &talk); code != exitOK {
		t.Fatalf("%v: %d, %s", args, code, &talk)
	}
	return out.String()
}

func port(a net.Addr) string {
	_, p, _ := net.SplitHostPort(a.String())
	return p
}

func TestWatchIsChecked(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"no secret":       {`watch: {webhook: {url: "https://h.example/"}}`, "messages are signed"},
		"no receiver":     {`watch: {webhook: {secret: "env:X"}}`, "nobody to post to"},
		"nobody looks":    {`watch: {every: 0s, webhook: {url: "https://h.example/", secret: "env:X"}}`, "nothing looks for anomalies"},
		"no memory":       {`{history: {store: "off"}, watch: {webhook: {url: "https://h.example/", secret: "env:X"}}}`, "nothing looks for anomalies"},
		"metadata":        {`watch: {webhook: {url: "https://169.254.169.254/", secret: "env:X"}}`, "no place for messages"},
		"the key itself":  {`watch: {webhook: {url: "https://h.example/", secret: "T0PSECRET"}}`, "it is not a reference"},
		"a token in it":   {`watch: {webhook: {url: "http://h.example/T0PSECRET", secret: "env:X"}}`, "write https://"},
		"short learning":  {`watch: {learn: 5m}`, "not within 1h"},
		"a bare number":   {`watch: {every: 60}`, "60 is a bare number"},
		"an unknown word": {`watch: {evry: 60s}`, `did you mean "every"`},
	} {
		_, talk := load(t, tt.file, nil)
		if !strings.Contains(talk, tt.want) || strings.Contains(talk, "T0PSECRET") {
			t.Errorf("%s: %q", name, talk)
		}
	}
	l, talk := load(t, `watch: {webhook: {url: "https://h.example/services/T0PSECRET", secret: "env:X"}}`, nil)
	var out strings.Builder
	if err := l.writeYAML(&out); err != nil || talk != "" || strings.Contains(out.String(), "T0PSECRET") || !strings.Contains(out.String(), "https://h.example/***") {
		t.Errorf("%v, %s\n%s", err, talk, out.String())
	}
}
