package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/history/historytest"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

// awaitRun repeats a command of the product's until it prints the text.
func (r *rig) awaitRun(text string, args ...string) result {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		got := r.run(nil, args...)
		if strings.Contains(got.stdout, text) {
			return got
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s never says %q: %s%s", strings.Join(args, " "), text, got.stdout, got.stderr)
		}
	}
}

// TestHistory: what curl visits is listed at once, by the proxy and then by the
// file that it leaves.
func TestHistory(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	w := newWorld(t)
	w.twoOrigins()
	store := "sqlite:" + filepath.Join(t.TempDir(), "history.db")
	r := w.serve(twoNames, setting("history.store", store), setting("history.instance", "p1"))
	visit := func(url string) result {
		t.Helper()
		return command{path: curl, args: []string{"-sS", "--cacert", w.caFile, "-x", r.url(), url}}.run(t)
	}
	visit("https://allowed.example.test/").succeeds(t)
	visit("http://allowed.example.test/").succeeds(t)
	visit("https://denied.example.test/").fails(t, "403")
	ended := r.allowed("allowed.example.test", "connect")

	got := r.awaitRun("Discovered 3 sites visited by 1 service in", "site", "list")
	for _, want := range []string{"allowed.example.test  443   allow    rule", "allowed.example.test  80    allow    rule", "denied.example.test   443   deny     no_rule"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
	// The record and the memory agree.
	var line, one map[string]any
	if err := json.Unmarshal([]byte(ended.text), &line); err != nil {
		t.Fatal(err)
	}
	own := line["sallyport"].(map[string]any)
	id := own["flow_id"].(string)
	r.awaitRun("outcome", "flow", "show", id)
	if err := json.Unmarshal([]byte(r.run(nil, "flow", "show", "--json", id).stdout), &one); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"verdict", "reason", "via", "outcome", "bytes_sent", "bytes_received", "enforcement", "policy_version", "mode"} {
		if one[key] != own[key] {
			t.Errorf("%s is %v in the history, %v in the log", key, one[key], own[key])
		}
	}
	if one["instance"] != "p1" || one["host"] != "allowed.example.test" || one["rule"] != "web" {
		t.Errorf("%v", one)
	}
	r.run(nil, "flow", "list", "--verdict", "deny", "--csv").succeeds(t, "denied.example.test,443,connect,deny,no_rule")
	if text := r.run(nil, "flow", "list", "--verdict", "deny", "--csv").stdout; strings.Contains(text, "allowed.") {
		t.Errorf("not only what was denied:\n%s", text)
	}

	// The end of the process writes what came last.
	visit("https://last.example.test/").fails(t, "403")
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	r.run(nil, "site", "list", "--store", store).succeeds(t, "Discovered 4 sites", "last.example.test")
	r.run(nil, "flow", "list", "--store", store, "--host", "{last,denied}.example.test", "--json").succeeds(t, `"host":"last.example.test"`, `"host":"denied.example.test"`)
}

// TestHistoryFleet: two proxies share a PostgreSQL; it ends and comes back, and
// nobody's traffic or figures suffer. What a new revision of a task reaches is
// told from what the old one did.
func TestHistoryFleet(t *testing.T) {
	t.Parallel()
	server := historytest.New(t)
	w := newWorld(t)
	mine := ownAddresses(t, 1)[0]
	fake, asks := fakeAWS(t)
	w.origin("pay.example.test", nil)
	w.origin("all.example.test", nil)
	task := proxytest.ECSTask{ID: "aaaa", Service: "payments-api", Family: "payments", Revision: 41, Tags: map[string]string{"tier": "1"}, Created: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	if task.IPv4 = mine.String(); mine.Is6() {
		task.IPv4, task.IPv6 = "", mine.String()
	}
	fake.Put(task)
	store := server.Database(t, "history")
	var proxies []*rig
	for _, name := range []string{"p1", "p2"} {
		r := w.serve(perService, asks, setting("history.store", "env:STORE"), setting("history.instance", name),
			func(c *rigConfig) { c.env = append(c.env, "STORE="+store) },
			setting("listeners", []any{map[string]any{"address": ":0"}}),
			setting("identity.ecs", map[string]any{"clusters": []any{map[string]any{"cluster": "prod"}}, "poll": "1s"}))
		r.awaitReadyz("1 task")
		proxies = append(proxies, r)
	}
	visit := func(r *rig, host string) {
		t.Helper()
		if _, _, err := get(t.Context(), r.at(w, mine), "https://"+host+"/"); err != nil {
			t.Fatalf("%v\n%s", err, r.said())
		}
	}
	for _, r := range proxies {
		visit(r, "pay.example.test")
	}
	seen := func(text string, args ...string) result {
		t.Helper()
		return proxies[0].awaitRun(text, append(args, "--store", store)...)
	}
	seen(`"visits":2,`, "site", "list", "--host", "pay.example.test", "--json")

	server.Kill()
	for _, r := range proxies {
		r.expectFaults()
		visit(r, "pay.example.test")
		r.awaitReadyz("not written since")
		visit(r, "pay.example.test")
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	seen(`"visits":6,`, "site", "list", "--host", "pay.example.test", "--json")

	old := task.ARN()
	task.ID, task.Revision = "bbbb", 42
	fake.Forget(old)
	fake.Put(task)
	for deadline := time.Now().Add(patience); ; { // until the proxies know the new one
		visit(proxies[1], "pay.example.test")
		if strings.Contains(proxies[1].run(nil, "site", "list", "--store", store, "--csv").stdout, "payments:42") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody sees the new revision")
		}
	}
	visit(proxies[1], "all.example.test")
	seen("all.example.test", "site", "list")
	diff := proxies[0].run(nil, "flow", "diff", "--family", "payments", "41", "42", "--store", store)
	diff.fails(t, "payments:42 reaches 1 site that payments:41 never did", "all.example.test")
	if diff.code != 1 || strings.Contains(diff.stdout, "pay.example.test") {
		t.Errorf("exit code %d:\n%s", diff.code, diff.stdout)
	}
	seen("payments-api", "flow", "list", "--family", "payments:41")
}

// TestOverlaysRequired: a proxy that starts while the database is away takes no
// traffic before it has what people denied there.
func TestOverlaysRequired(t *testing.T) {
	t.Parallel()
	server := historytest.New(t)
	w := newWorld(t)
	w.twoOrigins()
	store := server.Database(t, "overlays")
	required := func(c *rigConfig) {
		setting("history.store", store)(c)
		setting("history.overlays", "required")(c)
	}
	first := w.serve(twoNames, required)
	if status, _, err := get(t.Context(), first.client(w), "https://allowed.example.test/"); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	first.awaitRun(`"version"`, "policy", "history", "--store", store, "--json")
	first.run(nil, "policy", "deny", "--store", store, "--author", "alice", "allowed.example.test").succeeds(t, "denied allowed.example.test")
	first.awaitReadyz("1 overlay")
	first.end()

	server.Stop()
	late := w.serve(twoNames, required, func(c *rigConfig) { c.waits = true })
	late.expectFaults()
	late.awaitReadyz("never read, and history.overlays is required")
	if text := late.readyz(); !strings.Contains(text, "503") && !strings.Contains(text, `"ok":false`) {
		t.Errorf("/readyz: %s", text)
	}
	if said := late.said(); strings.Contains(said, `"message":"listening"`) {
		t.Errorf("it listens:\n%s", said)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	late.listens()
	if _, _, err := get(t.Context(), late.client(w), "https://allowed.example.test/"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("what alice denied: %v", err)
	}
	late.awaitReadyz("1 overlay")
}
