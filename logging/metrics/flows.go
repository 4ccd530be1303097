package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The sizes of the closed sets that index children.
const (
	vias     = int(policy.ViaDNS) + 1
	verdicts = int(policy.Allow) + 1
	modes    = int(policy.Report) + 1
)

// flows are the metrics that events feed. Children are resolved once and then
// found by index, so that an observation neither hashes labels nor allocates.
type flows struct {
	words map[string]int // outcomes and reasons to their index
	names []string       // and back

	total     *prometheus.CounterVec
	decisions *prometheus.CounterVec
	// A child appears when it first counts: all of them would be 1,000 series.
	totals  []atomic.Pointer[prometheus.Counter] // via, verdict, mode, outcome
	decided []atomic.Pointer[prometheus.Counter] // verdict, mode, reason

	active         [vias]prometheus.Gauge
	duration       [vias]prometheus.Observer
	sent, received prometheus.Counter

	hello, resolve, dial, firstByte prometheus.Observer
}

func newFlows(r prometheus.Registerer) *flows {
	f := &flows{words: map[string]int{}}
	f.names = append(f.names, string(policy.ReasonRule))
	for _, o := range flow.Outcomes() {
		f.names = append(f.names, string(o))
	}
	for i, w := range f.names {
		f.words[w] = i
	}
	f.totals = make([]atomic.Pointer[prometheus.Counter], vias*verdicts*modes*len(f.names))
	f.decided = make([]atomic.Pointer[prometheus.Counter], verdicts*modes*len(f.names))

	f.total = counters("flows_total", "Attempts that ended or were denied.", "via", "verdict", "mode", "outcome")
	f.decisions = counters("decisions_total", "Answers of the policy.", "verdict", "mode", "reason")
	bytes := counters("flow_bytes_total", "Bytes carried, counted when an attempt ends.", "direction")
	active := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Name: "flows_active", Help: "Attempts that were allowed and have not ended.",
	}, []string{"via"})
	duration := histograms("flow_duration_seconds", "Duration of allowed attempts.", "via",
		.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
	stage := histograms("stage_duration_seconds", "Duration of the stages of attempts.", "stage",
		.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)
	r.MustRegister(f.total, f.decisions, bytes, active, duration, stage)

	for v := range vias {
		via := policy.Via(v).String()
		f.active[v], f.duration[v] = active.WithLabelValues(via), duration.WithLabelValues(via)
	}
	f.sent, f.received = bytes.WithLabelValues("sent"), bytes.WithLabelValues("received")
	f.hello, f.resolve = stage.WithLabelValues("hello"), stage.WithLabelValues("resolve")
	f.dial, f.firstByte = stage.WithLabelValues("dial"), stage.WithLabelValues("first_byte")
	return f
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histograms(name, help, label string, buckets ...float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: buckets,
	}, []string{label})
}

// Observe implements flow.Reader.
func (m *Metrics) Observe(e flow.Event) { m.Borrow(&e) }

// Borrow implements flow.Borrower.
func (m *Metrics) Borrow(e *flow.Event) {
	f, r := m.flows, &e.Record
	via := min(int(r.Via), vias-1)
	switch e.Kind {
	case flow.Opened:
		f.countDecision(r)
		f.active[via].Inc()
	case flow.Closed:
		f.active[via].Dec()
		f.duration[via].Observe(r.Duration().Seconds())
		f.countEnd(r)
	case flow.Denied:
		f.countDecision(r)
		f.countEnd(r)
	}
}

func (f *flows) countEnd(r *flow.Record) {
	i := ((int(r.Via)*verdicts+int(r.Verdict))*modes+int(r.Mode))*len(f.names) + f.word(string(r.Outcome))
	child(f.totals, i, func() prometheus.Counter {
		return f.total.WithLabelValues(r.Via.String(), r.Verdict.String(), r.Mode.String(), f.known(string(r.Outcome)))
	}).Inc()
	f.sent.Add(float64(max(r.BytesSent, 0)))
	f.received.Add(float64(max(r.BytesReceived, 0)))
	stage(f.hello, r.Times.Hello)
	stage(f.resolve, r.Times.Resolve)
	stage(f.dial, r.Times.Dial)
	stage(f.firstByte, r.Times.FirstByte)
}

func (f *flows) countDecision(r *flow.Record) {
	if r.Reason == "" {
		return // the attempt ended before the policy was asked
	}
	i := (int(r.Verdict)*modes+int(r.Mode))*len(f.names) + f.word(string(r.Reason))
	child(f.decided, i, func() prometheus.Counter {
		return f.decisions.WithLabelValues(r.Verdict.String(), r.Mode.String(), f.known(string(r.Reason)))
	}).Inc()
}

func stage(o prometheus.Observer, took time.Duration) {
	if took > 0 {
		o.Observe(took.Seconds())
	}
}

// word returns the index of an outcome or reason. One that is outside the
// vocabulary is a fault of ours and counts as such, so the set stays closed.
func (f *flows) word(w string) int {
	if i, ok := f.words[w]; ok {
		return i
	}
	return f.words[string(flow.OutcomeInternalError)]
}

func (f *flows) known(w string) string { return f.names[f.word(w)] }

// child returns the i-th child, made at its first use.
func child(all []atomic.Pointer[prometheus.Counter], i int, create func() prometheus.Counter) prometheus.Counter {
	if c := all[i].Load(); c != nil {
		return *c
	}
	c := create()
	all[i].Store(&c)
	return c
}
