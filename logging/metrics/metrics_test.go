package metrics

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config() Config {
	return Config{
		Version: "v1.2.3", Revision: "abc",
		Connections: func() ConnectionStats { return ConnectionStats{Accepted: 12, Refused: 2, Active: 3} },
		DNS:         func() DNSStats { return DNSStats{Hits: 5, Misses: 4, Stale: 1, Errors: 2, Entries: 7} },
		Steering: func() SteeringStats {
			return SteeringStats{Allowed: 70, Denied: 8, Unserved: 5, Malformed: 4, Limited: 3, Dropped: 2, Unrecorded: 1}
		},
		Policy: func() []PolicySource {
			return []PolicySource{{Kind: "file", Age: 3 * time.Second}, {Kind: "s3", Age: 90 * time.Second}}
		},
		Identity: func() IdentityStats {
			return IdentityStats{Tasks: 812, Age: 12500 * time.Millisecond, Hit: 90, Found: 3, Unknown: 2, Absent: 6, Unanswered: 1, Errors: 4}
		},
		Watch: func() WatchStats {
			return WatchStats{Looks: 31, Failures: 3, Unwatched: 2, LastLook: time.Unix(1_795_422_600, 0), Delivered: 7, Failed: 1, Dropped: 5, Waiting: 4}
		},
		Budgets: func() []BudgetStats {
			return []BudgetStats{{Of: "rule", Name: "uploads", Per: "day", Sent: 77, Limit: 1 << 30}, {Of: "source", Name: "payments", Per: "hour", Sent: 0, Limit: 1000}}
		},
		Dropped: map[string]func() uint64{
			"flow_log": func() uint64 { return 9 },
			"log":      func() uint64 { return 0 },
		},
		Exported: map[string]func() uint64{"ipfix": func() uint64 { return 13 }},
	}
}

// week feeds m one event of each kind that matters.
func week(m *Metrics) {
	start := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	ok := flow.Record{
		Start: start, Via: policy.ViaConnect, Verdict: policy.Allow, Reason: policy.ReasonRule,
	}
	m.Observe(flow.Event{Kind: flow.Opened, Record: ok})
	m.Observe(flow.Event{Kind: flow.Opened, Record: ok}) // and stays open
	ok.End, ok.Outcome = start.Add(3*time.Second), flow.OutcomeOK
	ok.BytesSent, ok.BytesReceived = 100, 2000
	ok.Times = flow.Times{Hello: 2 * time.Millisecond, Resolve: time.Millisecond, Dial: 20 * time.Millisecond}
	m.Observe(flow.Event{Kind: flow.Closed, Record: ok})

	no := flow.Record{
		Start: start, End: start, Via: policy.ViaTLS,
		Reason: policy.ReasonNoRule, Outcome: flow.Outcome(policy.ReasonNoRule),
	}
	m.Observe(flow.Event{Kind: flow.Denied, Record: no})

	would := ok
	would.Via, would.Mode, would.Reason, would.WouldDeny = policy.ViaHTTP, policy.Report, policy.ReasonNoRule, true
	would.Outcome = flow.OutcomeConnectionRefused
	m.Observe(flow.Event{Kind: flow.Opened, Record: would})
	m.Observe(flow.Event{Kind: flow.Closed, Record: would})

	undecided := flow.Record{Start: start, End: start, Outcome: flow.OutcomeHTTPRequestError}
	m.Observe(flow.Event{Kind: flow.Denied, Record: undecided})

	m.Anomaly(flow.AnomalyBeacon, flow.High)
	m.Anomaly("made up", flow.High)
	m.PolicyLoaded("sha256:old", start)
	m.PolicyLoaded("sha256:new", start.Add(time.Minute))
	m.PolicyFailed()
}

func TestExposition(t *testing.T) {
	m := New(config())
	week(m)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var got strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, namespace+"_") && !strings.Contains(line, "_build_info{") {
			got.WriteString(line)
		}
	}
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("%s (-update writes it anew):\n%s", file, d)
	}
	for _, name := range []string{`sallyport_build_info{goversion="go`, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(w.Body.String(), name) {
			t.Errorf("%q is missing", name)
		}
	}
}

func TestLint(t *testing.T) {
	m := New(config())
	week(m)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, namespace) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// The set of series stays closed, whatever a record holds.
func TestUnknownWordsMakeNoSeries(t *testing.T) {
	m := New(Config{})
	for _, w := range []string{"a", "b", "evil.example"} {
		m.Observe(flow.Event{Kind: flow.Denied, Record: flow.Record{
			Outcome: flow.Outcome(w), Reason: policy.Reason(w), Host: w, Rule: w,
		}})
	}
	const ours = "proxy_internal_error" // a word that we made up is a fault of ours
	if n := testutil.CollectAndCount(m.flows.total); n != 1 {
		t.Errorf("%d series of flows_total, want 1", n)
	}
	if n := testutil.ToFloat64(m.flows.total.WithLabelValues("unknown", "deny", "enforce", ours)); n != 3 {
		t.Errorf("flows_total of %s is %v, want 3", ours, n)
	}
	if n := testutil.CollectAndCount(m.flows.decisions); n != 1 {
		t.Errorf("%d series of decisions_total, want 1", n)
	}
	if n := testutil.ToFloat64(m.flows.decisions.WithLabelValues("deny", "enforce", ours)); n != 3 {
		t.Errorf("decisions_total of %s is %v, want 3", ours, n)
	}
}

func TestEveryWordHasItsSeries(t *testing.T) {
	m := New(Config{})
	for _, o := range flow.Outcomes() {
		for via := range policy.Via(vias) {
			m.Observe(flow.Event{Kind: flow.Closed, Record: flow.Record{Outcome: o, Via: via, Verdict: policy.Allow, Mode: policy.Report}})
		}
	}
	if n, want := testutil.CollectAndCount(m.flows.total), vias*len(flow.Outcomes()); n != want {
		t.Errorf("%d series, want %d", n, want)
	}
}

func TestConcurrentObservers(t *testing.T) {
	m := New(Config{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				m.Observe(flow.Event{Kind: flow.Denied, Record: flow.Record{Reason: policy.ReasonECH, Outcome: flow.Outcome(policy.ReasonECH)}})
			}
		})
	}
	wg.Wait()
	c := m.flows.total.WithLabelValues("unknown", "deny", "enforce", "ech")
	if n := testutil.ToFloat64(c); n != 2000 {
		t.Errorf("counted %v, want 2000", n)
	}
}

func closed() flow.Event {
	start := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	return flow.Event{Kind: flow.Closed, Record: flow.Record{
		Start: start, End: start.Add(time.Second), Via: policy.ViaConnect, Verdict: policy.Allow,
		Reason: policy.ReasonRule, Outcome: flow.OutcomeOK, BytesSent: 1, BytesReceived: 1,
		Times: flow.Times{Hello: 1, Resolve: 1, Dial: 1, FirstByte: 1},
	}}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	m, e := New(Config{}), closed()
	if n := testing.AllocsPerRun(100, func() { m.Observe(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	m, e := New(Config{}), closed()
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(e)
	}
}
