package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// ownAddresses returns addresses of this machine that a task could have: who
// connects to one of them comes from it.
func ownAddresses(t *testing.T, n int) []netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			out = append(out, p.Addr())
		}
	}
	if len(out) < n {
		t.Skipf("needs %d addresses other than loopback, this machine has %v", n, out)
	}
	return out[:n]
}

// at returns a client that comes from the address.
func (r *rig) at(w *world, addr netip.Addr) *http.Client {
	r.t.Helper()
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	proxy := &url.URL{Scheme: "http", Host: net.JoinHostPort(addr.String(), port)}
	c := r.client(w)
	c.Transport.(*http.Transport).Proxy = http.ProxyURL(proxy)
	return c
}

// readyz returns the admin port's /readyz.
func (r *rig) readyz() string {
	r.t.Helper()
	_, body, err := get(r.t.Context(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+r.admin+"/readyz")
	if err != nil {
		r.t.Fatal(err)
	}
	return body
}

// awaitReadyz polls /readyz until it says text.
func (r *rig) awaitReadyz(text string) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(r.readyz(), text); {
		if time.Now().After(deadline) {
			r.t.Fatalf("/readyz does not say %q: %s", text, r.readyz())
		}
	}
}

// fakeAWS starts an AWS, and returns what makes the product ask it.
func fakeAWS(t *testing.T) (*proxytest.AWS, func(*rigConfig)) {
	t.Helper()
	fake := proxytest.NewAWS()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return fake, func(c *rigConfig) {
		c.env = append(c.env, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=AKIAPROXY", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true",
			"AWS_ENDPOINT_URL="+server.URL, "HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1")
	}
}

const perService = `
  - {name: pay, hosts: [pay.example.test], sources: [payments], resolves_to: [127.0.0.0/8]}
  - {name: all, hosts: [all.example.test], resolves_to: [127.0.0.0/8]}
unknown_source: deny
sources:
  - {name: payments, ecs: {cluster: prod, service: "payments-*", tags: {tier: ["1"]}}}
`

// TestIdentityByECS: the product asks ECS who its callers are, with the real
// SDK; per-service rules decide, and every record names the task.
func TestIdentityByECS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := ownAddresses(t, 1)[0]
	fake, asks := fakeAWS(t)
	w.origin("pay.example.test", nil)
	w.origin("all.example.test", nil)
	born := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range 300 { // more than two pages
		fake.Put(proxytest.ECSTask{ID: fmt.Sprintf("crowd%d", i), IPv4: fmt.Sprintf("10.77.%d.%d", i>>8, i&255), Created: born})
	}
	payments := proxytest.ECSTask{ID: "aaaa", Service: "payments-api", Family: "payments", Revision: 42, Tags: map[string]string{"tier": "1"}, Created: born}
	setAddr := func(task *proxytest.ECSTask) {
		if task.IPv4 = mine.String(); mine.Is6() {
			task.IPv4, task.IPv6 = "", mine.String()
		}
	}
	setAddr(&payments)
	fake.Put(payments)
	const other = "arn:aws:ecs:us-east-1:444455556666:cluster/other"
	elsewhere := proxytest.ECSTask{ID: "bbbb", Cluster: "other", Account: "444455556666", IPv4: "10.88.0.1", Created: born}
	fake.Put(elsewhere)
	r := w.serve(perService, asks,
		setting("listeners", []any{map[string]any{"address": ":0"}}),
		setting("identity.ecs", map[string]any{
			"clusters": []any{
				map[string]any{"cluster": "prod"},
				map[string]any{"cluster": other, "role_arn": "arn:aws:iam::444455556666:role/reader"},
			},
			"poll": "1h", "events_queue": "https://sqs.us-east-1.amazonaws.com/111122223333/q",
		}))
	r.awaitReadyz("302 tasks in 2 clusters")
	caller := r.at(w, mine)
	ask := func(host string, reason string) *flowLine {
		t.Helper()
		_, _, err := get(t.Context(), caller, "https://"+host+"/")
		if reason == "" {
			if err != nil {
				t.Fatalf("%v\n%s", err, r.said())
			}
			return r.allowed(host, "connect")
		}
		if err == nil {
			t.Errorf("%s is let through", host)
		}
		return r.denied(host, "connect", reason)
	}
	names := func(l *flowLine, task proxytest.ECSTask) {
		t.Helper()
		for _, want := range []string{task.ARN(), `"` + task.Family + `"`} {
			if !strings.Contains(l.text, want) {
				t.Errorf("the record does not name %s: %s", want, l.text)
			}
		}
	}
	names(ask("pay.example.test", ""), payments)

	// The task ends, and its address is nobody's; both by an event alone.
	fake.Change(payments.ARN(), func(t *proxytest.ECSTask) { t.LastStatus, t.Desired = "DEPROVISIONING", "STOPPED" })
	fake.Send(fake.Event(payments.ARN()), "junk")
	r.awaitReadyz("301 tasks in 2 clusters")
	if l := ask("all.example.test", "unknown_source"); strings.Contains(l.text, payments.ARN()) {
		t.Errorf("the record names a task that is gone: %s", l.text)
	}

	// Another task has the address now, and is found because it calls.
	batch := proxytest.ECSTask{ID: "cccc", Service: "batch", Family: "batch", Created: born.Add(time.Hour)}
	setAddr(&batch)
	fake.Put(batch)
	fake.Send(fake.Event(batch.ARN()))
	r.awaitReadyz("302 tasks in 2 clusters")
	names(ask("all.example.test", ""), batch)
	names(ask("pay.example.test", "no_rule"), batch)

	// AWS fails: what is known stays in force.
	fake.Fault(func(proxytest.AWSCall) *proxytest.AWSFault {
		return &proxytest.AWSFault{Status: 400, Code: "AccessDeniedException", Message: "User: x is not authorized to perform: ecs:ListTasks on resource: *"}
	})
	if status, _, err := get(t.Context(), r.client(w), "https://all.example.test/"); err == nil {
		t.Errorf("loopback, which is nobody's, gets %d", status)
	}
	r.denied("all.example.test", "connect", "unknown_source")
	names(ask("all.example.test", ""), batch)
	r.awaitReadyz("the task role needs ecs:ListTasks (")
	if res := r.run(nil, "ready"); res.code != 0 {
		t.Errorf("a proxy with old knowledge is not ready: %+v", res)
	}
	for sample, want := range map[string]string{
		"sallyport_identity_tasks": "302", `sallyport_identity_lookups_total{result="hit"}`: "4",
		`sallyport_identity_lookups_total{result="found"}`: "0",
	} {
		if got := r.metric(sample); got != want {
			t.Errorf("%s is %s, want %s", sample, got, want)
		}
	}
	if got := r.metric("sallyport_identity_errors_total"); got == "0" {
		t.Error("no error is counted")
	}
	if n := r.metric("sallyport_identity_age_seconds"); n == "0" {
		t.Errorf("the age is %s", n)
	}

	// What was called is what examples/iam permits, and all of that was needed.
	if got, want := fake.Operations(), permitted(t); !slices.Equal(got, slices.DeleteFunc(want, func(s string) bool { return s == "sqs:DeleteMessage" })) {
		t.Errorf("called %v, the examples permit %v", got, want)
	}
}

// TestIdentityByMetadata: a sidecar names its own task without asking AWS, and
// outlives the task's other containers.
func TestIdentityByMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin("all.example.test", nil)
	task := proxytest.ECSTask{ID: "0123", Service: "web", Family: "shop", Revision: 7, Tags: map[string]string{"team": "x"}, IPv4: "10.0.0.9"}
	metadata := proxytest.NewTaskMetadata(task, "proxy", "app")
	server := httptest.NewServer(metadata)
	t.Cleanup(server.Close)
	r := w.serve(`
  - {name: own, hosts: [all.example.test], sources: [shop], resolves_to: [127.0.0.0/8]}
sources:
  - {name: shop, ecs: {family: shop, tags: {team: [x]}}}
`, setting("identity.metadata", "on"), setting("drain.wait_for_task", true), setting("timeouts.drain", "80s"),
		func(c *rigConfig) { c.env = append(c.env, "ECS_CONTAINER_METADATA_URI_V4="+server.URL+metadata.Path()) })
	r.awaitReadyz(task.ARN())
	ask := func() {
		t.Helper()
		if status, _, err := get(t.Context(), r.client(w), "https://all.example.test/"); err != nil || status != http.StatusOK {
			t.Fatalf("%d, %v\n%s", status, err, r.said())
		}
		if l := r.allowed("all.example.test", "connect"); !strings.Contains(l.text, task.ARN()) {
			t.Errorf("the record does not name the task: %s", l.text)
		}
	}
	ask()
	r.signal(syscall.SIGTERM)
	r.awaitLog("serving until the task's other containers have stopped")
	ask() // the application's last words
	metadata.Set("app", "STOPPED")
	if code := r.wait(); code != 0 {
		t.Errorf("sallyport ended with %d", code)
	}
	r.awaitLogged("the task's other containers have stopped")
}

// awaitLogged looks for a line in the log of a product that has ended.
func (r *rig) awaitLogged(text string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.log, func(l string) bool { return strings.Contains(l, text) }) {
		r.t.Errorf("the log does not say %q", text)
	}
}

// TestSidecarCutsAtTheBound: the application does not stop, and ECS would not
// wait: what is left is cut, and recorded.
func TestSidecarCutsAtTheBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin("allowed.example.test", nil)
	metadata := proxytest.NewTaskMetadata(proxytest.ECSTask{ID: "0123"}, "proxy", "app")
	server := httptest.NewServer(metadata)
	t.Cleanup(server.Close)
	r := w.serve(twoNames, setting("drain.wait_for_task", true), setting("timeouts.drain", "3s"),
		func(c *rigConfig) { c.env = append(c.env, "ECS_CONTAINER_METADATA_URI_V4="+server.URL+metadata.Path()) })
	tu := r.tunnel(w, "allowed.example.test")
	tu.ask(t)
	r.signal(syscall.SIGTERM)
	r.awaitLog("serving until the task's other containers have stopped")
	if code := r.wait(); code != 0 {
		t.Errorf("sallyport ended with %d", code)
	}
	if _, err := io.Copy(io.Discard, tu.conn); err == nil {
		t.Log("the tunnel ended in order")
	}
	if l := r.ended("allowed.example.test"); l.Sallyport.EndedBy != "drain" {
		t.Errorf("the record: %s", l.text)
	}
	r.awaitLogged("timeouts.drain is over: what is left is cut")
}
