package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	caller "github.com/sallyport/sallyport/proxy/identity"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

func TestIdentityConfiguration(t *testing.T) {
	l, talk := load(t, `
identity:
  ecs:
    clusters:
      - {cluster: prod, region: eu-west-1}
      - cluster: arn:aws:ecs:us-east-1:444455556666:cluster/other
        role_arn: arn:aws:iam::444455556666:role/reader
        vpc_endpoints: [vpce-1, vpce-2]
    poll: 15s
    events_queue: https://sqs.eu-west-1.amazonaws.com/111122223333/q
  metadata: off
drain: {wait_for_task: true}
`, nil)
	if talk != "" {
		t.Fatal(talk)
	}
	want := Identity{
		ECS: IdentityECS{
			Clusters: []Cluster{
				{Cluster: "prod", Region: "eu-west-1"},
				{
					Cluster: "arn:aws:ecs:us-east-1:444455556666:cluster/other", RoleARN: "arn:aws:iam::444455556666:role/reader",
					VPCEndpoints: []string{"vpce-1", "vpce-2"},
				},
			},
			Poll: 15 * time.Second, EventsQueue: "https://sqs.eu-west-1.amazonaws.com/111122223333/q",
		},
		Metadata: "off",
	}
	if fmt.Sprint(l.Identity) != fmt.Sprint(want) || !l.Drain.WaitForTask {
		t.Errorf("got %+v, %+v", l.Identity, l.Drain)
	}
	var printed strings.Builder
	if err := l.writeYAML(&printed); err != nil {
		t.Fatal(err)
	}
	again, talk := load(t, printed.String(), nil)
	if talk != "" || fmt.Sprint(again.Identity) != fmt.Sprint(want) {
		t.Errorf("printed and read again: %s%+v\n%s", talk, again, &printed)
	}
	fromEnv, talk := load(t, "", []string{"SALLYPORT_IDENTITY_ECS_CLUSTERS=prod, batch", "SALLYPORT_DRAIN_WAIT_FOR_TASK=true", "SALLYPORT_IDENTITY_METADATA=on"})
	if talk != "" || fmt.Sprint(fromEnv.Identity.ECS.Clusters) != fmt.Sprint([]Cluster{{Cluster: "prod"}, {Cluster: "batch"}}) || fromEnv.Identity.Metadata != "on" {
		t.Errorf("%s%+v", talk, fromEnv)
	}
}

func TestIdentityConfigurationFaults(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"no cluster", "identity: {ecs: {clusters: [{region: us-east-1}]}}", "identity.ecs.clusters[0] has no cluster"},
		{"a text", "identity: {ecs: {clusters: prod}}", "identity.ecs.clusters must be a list"},
		{"an unknown key", "identity: {ecs: {clusters: [{cluster: prod, role: x}]}}", `unknown key "role" in identity.ecs.clusters[0]`},
		{"an unknown way", "identity: {ec2: {}}", `unknown key "ec2" in identity`},
		{"a word", "identity: {metadata: maybe}", `"maybe" is not one of auto, on, off`},
		{"a bare number", "identity: {ecs: {poll: 20}}", "20 is a bare number"},
		{"too often", "identity: {ecs: {poll: 100ms}}", "100ms is not within 1s to 1h"},
		{"not a role", "identity: {ecs: {clusters: [{cluster: prod, role_arn: reader}]}}", `identity.ecs.clusters[0]: role_arn: "reader" is not a role's ARN (file c.yaml:1)`},
		{"twice", "identity: {ecs: {clusters: [{cluster: prod}, {cluster: prod}]}}", `identity.ecs.clusters[1]: "prod" is there twice`},
		{"two faults", "identity: {ecs: {clusters: [{cluster: a b}], events_queue: q}}", `identity.ecs.events_queue: "q" is not a queue's URL`},
		{"a queue alone", "identity: {ecs: {events_queue: 'https://sqs.us-east-1.amazonaws.com/1/q'}}", "identity.ecs.events_queue (file c.yaml:1) is set, and identity.ecs.clusters is empty"},
		{"yes", "drain: {wait_for_task: yes}", "drain.wait_for_task"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, talk := load(t, tt.file, nil); !strings.Contains(talk, tt.want) {
				t.Errorf("got\n%swant %s", talk, tt.want)
			}
		})
	}
}

// inTask puts the test into an ECS task.
func inTask(t *testing.T, containers ...string) *proxytest.TaskMetadata {
	t.Helper()
	fake := proxytest.NewTaskMetadata(proxytest.ECSTask{ID: "0123", Service: "web", IPv4: "10.0.0.7"}, containers...)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	t.Setenv(caller.MetadataVariable, server.URL+fake.Path())
	return fake
}

func TestWithoutATask(t *testing.T) {
	t.Setenv(caller.MetadataVariable, "")
	os.Unsetenv(caller.MetadataVariable)
	l, _ := load(t, "identity: {metadata: on}", nil)
	if _, err := l.callers(t.Context(), zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "this is no ECS task") {
		t.Errorf("metadata on: %v", err)
	}
	l, _ = load(t, "drain: {wait_for_task: true}", nil)
	c, err := l.callers(t.Context(), zerolog.Nop())
	if err != nil || c.identifier() != nil || c.stats() != nil || len(c.tasks())+len(c.checks()) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if !slices.ContainsFunc(l.warnings, func(w string) bool { return strings.Contains(w, "nothing to wait for") }) {
		t.Errorf("warnings: %q", l.warnings)
	}
	t.Setenv(caller.MetadataVariable, "http://metadata.example/")
	l, _ = load(t, "", nil)
	if c, err := l.callers(t.Context(), zerolog.Nop()); err != nil || c.own != nil || len(l.warnings) == 0 {
		t.Errorf("%+v, %v, warnings %q", c, err, l.warnings)
	}
}

// body returns /readyz's answer.
func (h *house) readyz(t *testing.T) string {
	t.Helper()
	answer, err := get(t.Context(), "", "http://"+h.admin.Addr().String()+"/readyz")
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// awaitReadyz polls /readyz until its answer holds the text.
func (h *house) awaitReadyz(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(h.readyz(t), text); {
		if time.Now().After(deadline) {
			t.Fatalf("/readyz does not say %q: %s", text, h.readyz(t))
		}
	}
}

func TestReadinessWaitsForTheTask(t *testing.T) {
	for mode, status := range map[string]int{"on": http.StatusServiceUnavailable, "auto": http.StatusOK} {
		t.Run(mode, func(t *testing.T) {
			fake := inTask(t, "proxy", "app")
			fake.Break(true)
			h := startHouseWith(t, "identity: {metadata: "+mode+"}")
			h.awaitReadyz(t, "500 Internal Server Error")
			h.awaitReady(t, status)
			fake.Break(false)
			h.awaitReadyz(t, ":task/prod/0123")
			h.awaitReady(t, http.StatusOK)
			h.signals <- syscall.SIGTERM
			h.end(t)
		})
	}
}

func TestOutlivesTheTask(t *testing.T) {
	fake := inTask(t, "proxy", "app", "worker")
	h := startHouseWith(t, "timeouts: {drain: 1h}\ndrain: {wait_for_task: true}\nidentity: {metadata: on}")
	h.awaitReady(t, http.StatusOK)
	h.awaitReadyz(t, ":task/prod/0123")
	h.signals <- syscall.SIGTERM
	h.awaitReadyz(t, "serving until the task's other containers have stopped: app, worker")
	h.awaitReady(t, http.StatusServiceUnavailable)
	c := h.tunnel(t) // the application still has something to say
	fake.Set("app", "STOPPED")
	h.awaitReadyz(t, "stopped: worker")
	h.tunnel(t).Close()
	fake.Set("worker", "STOPPED")
	h.awaitReadyz(t, `"draining"`)
	ping(t, c) // what is under way goes on
	c.Close()
	h.end(t)
	if late, err := net.Dial("tcp", h.proxy.Addrs()[0].String()); err == nil {
		late.Close()
		t.Error("a connection was accepted after the end")
	}
	if log := h.flowLog.String(); strings.Count(log, `"flow.close"`) != 2 || strings.Count(log, "0123") == 0 {
		t.Errorf("records:\n%s", log)
	}
}

func TestASecondSignalWaitsForNobody(t *testing.T) {
	inTask(t, "proxy", "app")
	h := startHouseWith(t, "timeouts: {drain: 1h}\ndrain: {wait_for_task: true}")
	c := h.tunnel(t)
	h.signals <- syscall.SIGTERM
	h.awaitReadyz(t, "stopped: app")
	h.signals <- syscall.SIGTERM
	h.end(t)
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the tunnel is still there: %v", err)
	}
}

func TestTheWaitIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state func(*proxytest.TaskMetadata)
	}{
		{"the others run", func(*proxytest.TaskMetadata) {}},
		{"they cannot be seen", func(f *proxytest.TaskMetadata) { f.Break(true) }},
		{"they have stopped, and a connection stays", func(f *proxytest.TaskMetadata) { f.Set("app", "STOPPED") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := inTask(t, "proxy", "app")
			h := startHouseWith(t, "timeouts: {drain: 1h}\ndrain: {wait_for_task: true}")
			c := h.tunnel(t)
			tt.state(fake)
			h.cfg.Timeouts.Drain = 1500 * time.Millisecond // of the whole; the proxy's own would outlast the test
			h.signals <- syscall.SIGTERM
			h.end(t)
			if n, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
				t.Errorf("the tunnel is still there: %d, %v", n, err)
			}
			if log := h.flowLog.String(); strings.Count(log, `"flow.close"`) != 1 {
				t.Errorf("records:\n%s", log)
			}
		})
	}
}
