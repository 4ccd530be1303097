package anomaly

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// The example of the specification of Standard Webhooks.
func TestSignature(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	got := Sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if got != "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("signature %s", got)
	}
}

func TestHookURLs(t *testing.T) {
	for text, want := range map[string]string{
		"https://hooks.example.com/x?y=1": "", "https://10.0.0.7/x": "", "http://127.0.0.1:8080/": "", "http://[::1]:80/": "", "http://localhost/": "",
		"http://hooks.example.com/": "write https://", "ftp://x": "https://", "hooks.example.com": "https://", "https://": "no host", "https://u:p@h.example/": "user name",
		"https://169.254.169.254/latest": "metadata", "https://169.254.170.2/v2": "metadata", "https://[fd00:ec2::254]/": "metadata", "https://[::ffff:169.254.169.254]/": "metadata",
		"https://0.0.0.0/": "metadata", "https://h.example/#x": "fragment", "https://[fe80::1]/": "metadata", "https://a b/": "not a URL", "https://[64:ff9b::a9fe:a9fe]/": "metadata",
	} {
		if err := CheckHookURL(text); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, bad := range []string{"", "short", "whsec_!!", "whsec_c2hvcnQ="} {
		if _, err := NewWebhook(Hook{URL: "https://h.example/", Secret: bad}); err == nil || strings.Contains(err.Error(), "whsec_c2h") {
			t.Errorf("the secret %q: %v", bad, err)
		}
	}
}

// receiver takes messages as the test says, and verifies each.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status []int // for one try each, then 204
	ids    []string
	bodies []post
}

func newReceiver(t *testing.T, status ...int) *receiver {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{status: status}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		id, at := q.Header.Get("Webhook-Id"), q.Header.Get("Webhook-Timestamp")
		var p post
		if want := "v1," + Sign(key, id, at, body); err != nil || q.Method != http.MethodPost || q.Header.Get("Webhook-Signature") != want || json.Unmarshal(body, &p) != nil {
			t.Errorf("%s %v %s", q.Method, q.Header, body)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids, r.bodies = append(r.ids, id), append(r.bodies, p)
		code := http.StatusNoContent
		if len(r.status) > 0 {
			code, r.status = r.status[0], r.status[1:]
		}
		if code == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// outbox is an Outbox in memory.
type outbox struct {
	*past
	texts map[string][]byte
}

func (o *outbox) SaveBaseline(_ context.Context, key string, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.texts[key] = data; data == nil {
		delete(o.texts, key)
	}
	return nil
}

func (o *outbox) Baselines(_ context.Context, prefix string) (map[string][]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := maps.Clone(o.texts)
	maps.DeleteFunc(out, func(k string, _ []byte) bool { return !strings.HasPrefix(k, prefix) })
	return out, nil
}

func runHook(t *testing.T, h Hook) *Webhook {
	t.Helper()
	h.Secret, h.Log = secret, zerolog.New(zerolog.NewTestWriter(t))
	if h.Pause == nil {
		h.Pause = func(int) time.Duration { return 0 }
	}
	w, err := NewWebhook(h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func finding(id string) flow.Anomaly {
	return flow.Anomaly{ID: id, Kind: flow.AnomalyBeacon, Caller: "web", Subject: "c2.example", Severity: flow.High, Count: 1, Evidence: flow.Evidence{Text: "like clockwork", Contacts: 30}}
}

// A message is tried until it is taken, always with the same id.
func TestWebhookRetries(t *testing.T) {
	r := newReceiver(t, 500, 302, 503, 429, 408)
	o := &outbox{past: newPast(time.Now), texts: map[string][]byte{}}
	w := runHook(t, Hook{URL: r.URL, Outbox: o})
	w.Tell(finding("A"))
	w.Tell(finding("B"))
	eventually(t, "both are delivered", func() bool { return w.Stats().Delivered == 2 })
	if got := strings.Join(r.got(), " "); got != "A.1 A.1 A.1 A.1 A.1 A.1 B.1" {
		t.Errorf("received %s", got)
	}
	p := r.bodies[0]
	if p.Type != "anomaly" || p.Data.ID != "A" || p.Data.Severity != "high" || p.Data.Evidence.Contacts != 30 || p.Data.Kind != flow.AnomalyBeacon {
		t.Errorf("body %+v", p)
	}
	eventually(t, "both are marked", func() bool { m, _ := o.Baselines(t.Context(), sent); return len(m) == 2 })
}

func TestWebhookGivesUp(t *testing.T) {
	r := newReceiver(t, 410, 400, 400, 400, 400)
	w := runHook(t, Hook{URL: r.URL})
	w.Tell(finding("gone"))
	w.Tell(finding("bad"))
	w.Tell(finding("good"))
	eventually(t, "the good one is delivered", func() bool { return w.Stats().Delivered == 1 })
	if got := strings.Join(r.got(), " "); got != "gone.1 bad.1 bad.1 bad.1 bad.1 good.1" || w.Stats().Failed != 2 {
		t.Errorf("received %s, %+v", got, w.Stats())
	}
}

// A full queue drops and counts; nobody waits.
func TestWebhookDrops(t *testing.T) {
	w, err := NewWebhook(Hook{URL: "https://h.example/", Secret: secret, Queue: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		w.Tell(finding("x"))
	}
	if s := w.Stats(); s.Dropped != 3 || s.Waiting != 2 {
		t.Errorf("%+v", s)
	}
}

// Neither a proxy of the environment nor the proxy itself is asked, and a name
// that leads to metadata leads nowhere.
func TestWebhookGoesStraight(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "")
	r := newReceiver(t)
	w := runHook(t, Hook{URL: r.URL})
	w.Tell(finding("A"))
	eventually(t, "it is delivered", func() bool { return w.Stats().Delivered == 1 })

	own := netip.MustParseAddrPort(r.Listener.Addr().String())
	refusing, err := NewWebhook(Hook{URL: r.URL, Secret: secret, Refuse: func(a netip.AddrPort) bool { return a == own }})
	if err != nil {
		t.Fatal(err)
	}
	m, err := messageOf(&flow.Anomaly{ID: "B"})
	if err != nil {
		t.Fatal(err)
	}
	if err := refusing.try(t.Context(), m); err == nil || !strings.Contains(err.Error(), "the proxy itself") {
		t.Errorf("posting to itself: %v", err)
	}
	for _, a := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:169.254.170.2]:80"} {
		if refusing.vet("tcp", a, nil) == nil {
			t.Errorf("%s may be dialled", a)
		}
	}
	if refusing.vet("tcp", "10.1.2.3:443", nil) != nil {
		t.Error("a private receiver may not be dialled")
	}
	if err := (&Webhook{hook: Hook{URL: "https://secret.example/T0KEN", Clock: time.Now}, client: &http.Client{Transport: brokenTransport{}}}).try(t.Context(), m); err == nil || strings.Contains(err.Error(), "T0KEN") {
		t.Errorf("the error tells the URL: %v", err)
	}
}

type brokenTransport struct{}

func (brokenTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("broken")
}

// What a process could not post before its end, the next one posts.
func TestWebhookResumes(t *testing.T) {
	o := &outbox{past: newPast(time.Now), texts: map[string][]byte{}}
	now := time.Now()
	for i, a := range []struct {
		subject string
		age     time.Duration
		benign  bool
	}{{"due", time.Hour, false}, {"posted", time.Hour, false}, {"young", time.Minute, false}, {"old", 72 * time.Hour, false}, {"benign", time.Hour, true}} {
		kept, _, err := o.SaveAnomaly(t.Context(), history.Anomaly{
			Kind: string(flow.AnomalyBeacon), Caller: "web", Subject: a.subject, Severity: 2, Evidence: json.RawMessage(`{"text":"x"}`),
			First: now.Add(-a.age), Last: now, Count: int64(i + 1), Benign: a.benign,
		})
		if err != nil {
			t.Fatal(err)
		}
		if a.subject == "posted" {
			o.texts[sent+kept.ID+".1"] = []byte(now.Format(time.RFC3339))
		}
	}
	o.texts[sent+"ancient.1"] = []byte("2020-01-01T00:00:00Z")
	r := newReceiver(t)
	w := runHook(t, Hook{URL: r.URL, Outbox: o})
	eventually(t, "one is delivered", func() bool { return w.Stats().Delivered == 1 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bodies) != 1 || r.bodies[0].Data.Subject != "due" {
		t.Errorf("%+v", r.bodies)
	}
	if m, _ := o.Baselines(t.Context(), sent+"ancient"); len(m) != 0 {
		t.Error("old marks are kept for ever")
	}
}

func TestBackoff(t *testing.T) {
	for n := 1; n < 100; n++ {
		full := min(time.Second<<min(n-1, 20), 15*time.Minute)
		if d := Backoff(n); d < full/2 || d > full+1 {
			t.Errorf("after %d failures: %s", n, d)
		}
	}
}
