package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/history/historytest"
)

// week is an operator's week: two proxies on one database, three services and
// the policy that grows out of what they do.
type week struct {
	*world
	t        *testing.T
	one, two *rig
	server   *historytest.Server
	store    string
	start    func(instance, rules string) *rig
	secrets  map[string]string // by service
}

// wideOpen is where the week begins: report mode, and rules that let through
// whatever the lab has.
const wideOpen = `
  - {name: everything, hosts: ["**.example.test"], resolves_to: [127.0.0.0/8]}
  - {name: plain, hosts: ["**.example.test"], protocol: http, resolves_to: [127.0.0.0/8]}
  - {name: buckets, s3: {buckets: ["acme-*"], regions: [us-east-1]}, resolves_to: [127.0.0.0/8]}
mode: report
`

func newWeek(t *testing.T) *week {
	t.Helper()
	w := &week{world: newWorld(t), t: t, secrets: map[string]string{}}
	w.server = historytest.New(t)
	w.store = w.server.Database(t, "week")
	for _, name := range []string{"api.pay.example.test", "files.pay.example.test", "news.example.test", "mirror.example.test", "stranger.example.test"} {
		w.origin(name, nil)
	}
	bucket := w.originAt(loopback(), http.HandlerFunc(s3), "*.s3.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com")
	w.name("acme-reports.s3.us-east-1.amazonaws.com", bucket.addr)
	w.name("acme-secrets.s3.us-east-1.amazonaws.com", bucket.addr)
	var credentials []any
	for _, service := range []string{"billing", "web", "reports"} {
		w.secrets[service] = service + "-0123456789abcdef"
		file := filepath.Join(w.dir, service)
		writeFile(t, file, w.secrets[service]+"\n")
		credentials = append(credentials, map[string]any{"principal": service, "secret": "file:" + file})
	}
	w.start = func(instance, rules string) *rig {
		return w.serve(rules, setting("credentials", credentials), setting("reload.every", "200ms"),
			setting("watch.every", "200ms"), setting("history.store", w.store), setting("history.instance", instance))
	}
	w.one, w.two = w.start("one", wideOpen), w.start("two", wideOpen)
	return w
}

// proxied returns the proxy's URL with a service's credentials.
func (w *week) proxied(r *rig, service string) string {
	return "http://" + service + ":" + w.secrets[service] + "@" + r.addr
}

// curl asks as a service, through one of the proxies.
func (w *week) curl(r *rig, service, target string) result {
	w.t.Helper()
	return command{
		path: need(w.t, "curl"), args: []string{"-sS", "--max-time", "60", "--cacert", w.caFile, "--proxy", r.url(), "-U", service + ":" + w.secrets[service], target},
	}.run(w.t)
}

// live has the three services do what they do every day: curl, Python and the
// AWS CLI.
func (w *week) live(r *rig) {
	w.t.Helper()
	w.curl(r, "billing", "https://api.pay.example.test/").succeeds(w.t, "hello from api.pay.example.test")
	w.curl(r, "billing", "https://files.pay.example.test/").succeeds(w.t, "hello from files.pay.example.test")
	command{
		path: needModule(w.t, "requests"), args: []string{"-c", `
import requests
for url in "https://news.example.test/", "http://mirror.example.test/":
	print(requests.get(url, timeout=60).text)
`}, env: []string{"HTTPS_PROXY=" + w.proxied(r, "web"), "HTTP_PROXY=" + w.proxied(r, "web"), "REQUESTS_CA_BUNDLE=" + w.caFile},
	}.run(w.t).succeeds(w.t, "hello from news.example.test", "hello from mirror.example.test")
	command{
		path: need(w.t, "/usr/bin/aws"), args: []string{"s3", "cp", "s3://acme-reports/a/key", "-"}, env: []string{
			"HTTPS_PROXY=" + w.proxied(r, "reports"), "AWS_CA_BUNDLE=" + w.caFile, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=example",
			"AWS_DEFAULT_REGION=us-east-1", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=regional", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=",
		},
	}.run(w.t).succeeds(w.t, "object /a/key of acme-reports")
}

// ask runs a command of the product on the store.
func (w *week) ask(args ...string) result {
	w.t.Helper()
	return w.one.run(nil, append(args, "--store", w.store)...)
}

// until repeats a question until its answer has a text.
func (w *week) until(text string, question func() result) result {
	w.t.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; {
		r := question()
		if strings.Contains(r.stdout+r.stderr, text) {
			return r
		}
		if now := <-poll.C; now.After(deadline) {
			w.t.Fatalf("nothing says %q: %+v", text, r)
		}
	}
}

// TestWeek goes from report mode to an enforced policy, with what a person types.
func TestWeek(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	for range 2 {
		w.live(w.one)
		w.live(w.two)
	}
	w.curl(w.one, "web", "https://stranger.example.test/").succeeds(t, "hello from stranger") // once, and by chance

	// What was visited?
	w.until("Discovered 6 sites visited by 3 services", func() result { return w.ask("site", "list") })

	// What would a policy be?
	suggested, cases := filepath.Join(w.dir, "suggested.yaml"), filepath.Join(w.dir, "cases.yaml")
	proposal := w.until("4 rules for 3 callers", func() result {
		return w.ask("policy", "suggest", "--policy", w.one.policyFile, "--cases", cases, "--tests", suggested)
	})
	proposal.succeeds(t, `principals: ["billing"]`, `buckets: ["acme-reports"]`, "one_off: stranger.example.test from web", "keep report mode for a week")
	writeFile(t, suggested, proposal.stdout)
	w.one.run(nil, "policy", "check", "--strict", suggested).succeeds(t, "ok: 4 rules, 3 sources")
	w.one.run(nil, "policy", "test", cases).succeeds(t, "ok: ")

	// Whom would it hurt?
	replayed := w.ask("policy", "replay", suggested)
	replayed.fails(t, "newly denied: 1", "stranger.example.test")
	if strings.Contains(replayed.stdout, "by name alone") {
		t.Errorf("the flows of all are kept:\n%s", replayed.stdout)
	}
	w.ask("policy", "replay", "--service", "billing", suggested).succeeds(t, "newly denied: 0")

	// Into force, in both proxies.
	enforced, err := os.ReadFile(suggested)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, w.one.policyFile+".new", string(enforced))
	if err := os.Rename(w.one.policyFile+".new", w.one.policyFile); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rig{w.one, w.two} {
		r.awaitLog("policy reloaded")
		w.live(r)
		w.curl(r, "web", "https://stranger.example.test/").fails(t, "403")
		w.curl(r, "billing", "https://news.example.test/").fails(t, "403")
	}

	t.Run("deny and accept", w.overlays)
	t.Run("a new destination", w.newDestination)
}

// overlays are written once and hold in both proxies.
func (w *week) overlays(t *testing.T) {
	const site = "https://api.pay.example.test/"
	rigs := []*rig{w.one, w.two}
	w.ask("policy", "deny", "--author", "alice", "--reason", "incident 7", "api.pay.example.test").succeeds(t, "denied api.pay.example.test: overlay deny-api.pay.example.test-")
	for _, r := range rigs {
		w.until("403", func() result { return w.curl(r, "billing", site) })
	}
	w.until("for alice: incident 7", func() result { return w.ask("policy", "history") })
	w.ask("policy", "accept", "--author", "bob", "--reason", "all clear", "api.pay.example.test").
		succeeds(t, "revoked the overlay deny-api.pay.example.test-", "accepted api.pay.example.test: overlay accept-")
	for _, r := range rigs {
		w.until("hello from api.pay", func() result { return w.curl(r, "billing", site) })
	}
	w.ask("policy", "export").succeeds(t, "# from overlay:accept-api.pay.example.test-", "# allowed by bob at ")
}

// newDestination is somebody's first visit to a place, when the week is over: a
// proxy that begins then knows what the store remembers.
func (w *week) newDestination(t *testing.T) {
	w.server.SQL(t, "week", `
SET search_path = sallyport;
UPDATE site SET first_at = first_at - 8 * 86400000000;
INSERT INTO day SELECT site, start - ago * 86400000000, visits, failed, sent, received FROM day, generate_series(1, 8) AS ago`)
	text, err := os.ReadFile(w.one.policyFile)
	if err != nil {
		t.Fatal(err)
	}
	sources, rules, _ := strings.Cut(string(text), "\nrules:\n")
	_, sources, _ = strings.Cut(sources, "\nsources:\n")
	monday := w.start("monday", rules+"\nsources:\n"+sources)
	w.curl(monday, "billing", "https://drop.attacker.test/").fails(t, "403")

	monday.await("record of the anomaly", func() bool {
		return slices.ContainsFunc(monday.flows, func(l *flowLine) bool {
			return l.Event.Name == "anomaly" && strings.Contains(l.text, "drop.attacker.test") && strings.Contains(l.text, "first_contact")
		})
	})
	found := w.ask("anomaly", "list", "--json")
	found.succeeds(t, `"first_contact"`, `"billing"`, `"drop.attacker.test"`)
	var a struct{ ID string }
	if err := json.Unmarshal([]byte(found.stdout), &a); err != nil {
		t.Fatalf("%v: %s", err, found.stdout)
	}
	w.ask("anomaly", "ack", a.ID, "--by", "carol", "--reason", "a drill").succeeds(t)
	w.ask("anomaly", "show", a.ID).succeeds(t, "carol", "a drill")
}
