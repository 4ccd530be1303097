package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sallyport/sallyport/logging/flow"
)

const namespace = "sallyport"

// Config says what to export beside what events tell. Its zero value is
// usable. The functions are called at each scrape, from any goroutine.
type Config struct {
	Version  string // of the build
	Revision string // of the source, "" when not known

	// Connections returns the listeners' figures; nil leaves them out.
	Connections func() ConnectionStats
	// DNS returns the resolver's figures; nil leaves them out.
	DNS func() DNSStats
	// Steering returns the DNS server's figures; nil leaves them out.
	Steering func() SteeringStats
	// Policy returns the sources of the policy, in their order; nil leaves them out.
	Policy func() []PolicySource
	// Identity returns the figures of identity/ecs; nil leaves them out.
	Identity func() IdentityStats
	// TLS returns the listeners that speak TLS; nil leaves them out.
	TLS func() []TLSListener
	// History returns the figures of logging/history; nil leaves them out.
	History func() HistoryStats
	// Watch returns the figures of the watch for anomalies; nil leaves them out.
	Watch func() WatchStats
	// Budgets returns the budgets of the policy in force; nil leaves them out.
	Budgets func() []BudgetStats
	// Dropped returns, by sink ("flow_log", "log"), how many events or lines
	// were lost since the start.
	Dropped map[string]func() uint64
	// Exported returns, by sink ("ipfix"), how many flows were sent elsewhere.
	Exported map[string]func() uint64
}

// ConnectionStats are the figures of all listeners together, since the start.
type ConnectionStats struct {
	Accepted uint64 // refused ones included
	Refused  uint64 // by a limit
	Active   int
	Headless uint64 // refused without the PROXY header that their listener requires
}

// DNSStats are the resolver's figures since the start. Each lookup counts once.
type DNSStats struct {
	Hits    uint64 // answered from the cache, negative answers included
	Misses  uint64 // answered by a server
	Stale   uint64 // answered from the cache past its time, while servers fail
	Errors  uint64 // not answered
	Entries int    // in the cache
}

// SteeringStats are the questions that the DNS server got, since the start.
// Each counts once; Unrecorded are some of Denied.
type SteeringStats struct {
	Allowed    uint64
	Denied     uint64
	Unserved   uint64 // of a class, type or operation that nobody is answered
	Malformed  uint64
	Limited    uint64 // told to come again by TCP
	Dropped    uint64 // too much was under way
	Unrecorded uint64 // denied without the record that is due
}

// PolicySource is one place that the policy is read from.
type PolicySource struct {
	Kind string        // "file", "env", "s3" or "ssm"
	Age  time.Duration // since it was read last
}

// IdentityStats are how well callers' tasks are known, since the start.
type IdentityStats struct {
	Tasks      int           // known now
	Age        time.Duration // of the oldest cluster's last whole listing
	Hit        uint64        // callers that were known
	Found      uint64        // not known, and found by asking
	Unknown    uint64        // asked about, and nobody
	Absent     uint64        // nobody a moment ago
	Unanswered uint64        // AWS did not answer in time
	Errors     uint64        // calls that failed
}

// TLSListener is a listener that speaks TLS with its clients.
type TLSListener struct {
	Address string
	Failed  bool // what was to be reloaded last is not in force
	// Expires is when the first of a kind does: "certificate", "client_ca", "crl".
	Expires map[string]time.Time
}

// HistoryStats are how well what was visited is remembered, since the start.
type HistoryStats struct {
	Up        bool      // the store took what came last
	Events    uint64    // observed
	Flows     uint64    // written
	Unkept    uint64    // flows that were counted and not kept
	Folded    uint64    // attempts counted under one name for many
	Batches   uint64    // written
	Failures  uint64    // of writing
	Pending   int       // flows and sums that wait for the store
	Bytes     int64     // of the store; 0: not known
	LastWrite time.Time // zero for never
}

// WatchStats are the watch for anomalies, since the start.
type WatchStats struct {
	Looks     uint64
	Failures  uint64 // looks that the history did not answer in full
	Unwatched uint64 // sites, callers and domains beyond a bound
	LastLook  time.Time
	// What follows is about the webhook's messages.
	Delivered uint64
	Failed    uint64 // given up
	Dropped   uint64 // there was no room
	Waiting   int
}

// BudgetStats is a budget and what was sent of it in its period.
type BudgetStats struct {
	Of, Name, Per string // of a source or a rule; its name; the period
	Sent, Limit   int64  // bytes
}

// Metrics collects and serves the metrics. It is a flow.Reader and safe for
// concurrent use; make it with [New].
type Metrics struct {
	registry *prometheus.Registry
	flows    *flows
	policy   *policyMetrics
	found    *prometheus.CounterVec
}

// New returns Metrics with a registry of their own, which also holds the Go
// runtime's and the process's collectors.
func New(c Config) *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(c),
		asked{c},
	)
	m := &Metrics{registry: r, flows: newFlows(r), policy: newPolicyMetrics(r)}
	m.found = counters("anomalies_total", "Anomalies that were told by this proxy.", "kind", "severity")
	r.MustRegister(m.found)
	for _, kind := range flow.AnomalyKinds() { // at zero, so that the first one is seen as a rise
		for _, severity := range []flow.Severity{flow.Low, flow.Medium, flow.High} {
			m.found.WithLabelValues(string(kind), severity.String())
		}
	}
	return m
}

// Handler serves the metrics in Prometheus's text formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

func buildInfo(c Config) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace,
		Name:      "build_info",
		Help:      "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{
			"version": c.Version, "revision": c.Revision, "goversion": runtime.Version(),
		},
	})
	g.Set(1)
	return g
}
