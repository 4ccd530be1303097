package metrics

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The service of a flow in EMF where there is none, and where there are more
// than may be told apart.
const (
	ServiceNone  = "(none)"
	ServiceOther = "(other)"
)

// EMFConfig says what CloudWatch is told, and how often.
type EMFConfig struct {
	Namespace string        // of the metrics; required
	Every     time.Duration // between two reports; 0 is a minute
	// Services is how many are told apart: each is billed with each verdict and
	// reason that it meets. 0 is 50.
	Services int
	// Active returns how many connections are open, Dropped how many events
	// readers lost since the start; nil leaves them out.
	Active  func() int
	Dropped func() uint64
}

// EMF is the flow.Reader that sums flows up for CloudWatch, and writes the sums
// in its Embedded Metric Format: one line for the proxy as a whole, and one for
// each service, verdict and reason that there was a flow of, every minute, and
// the last when it ends. Make it with [NewEMF], then Run it.
type EMF struct {
	c   EMFConfig
	out io.Writer

	mu       sync.Mutex // protects what follows; never held while writing
	services map[string]bool
	sums     map[emfKey]*emfSum
	total    emfSum
	denied   uint64
	dials    []float64 // milliseconds, a fair sample
	dialled  int       // of so many
	dropped  uint64    // told already
}

// emfKey is what a sum is of, all of bounded vocabularies.
type emfKey struct{ service, verdict, reason string }

type emfSum struct {
	flows          uint64
	sent, received uint64
}

// maxValues is how many values of a metric one line may hold.
const maxValues = 100

// NewEMF returns an EMF that writes whole lines to out, each with one Write.
func NewEMF(out io.Writer, c EMFConfig) *EMF {
	c.Every = cmp.Or(c.Every, time.Minute)
	c.Services = cmp.Or(c.Services, 50)
	return &EMF{c: c, out: out, services: map[string]bool{}, sums: map[emfKey]*emfSum{}}
}

// Observe implements flow.Reader.
func (m *EMF) Observe(e flow.Event) {
	if e.Kind != flow.Closed && e.Kind != flow.Denied {
		return
	}
	r := &e.Record
	key := emfKey{verdict: r.Verdict.String(), reason: string(r.Reason)}
	if !flow.Outcome(r.Reason).Valid() && r.Reason != policy.ReasonRule {
		key.reason = "none" // the attempt ended before the policy was asked
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key.service = m.service(r)
	sum := m.sums[key]
	if sum == nil {
		sum = new(emfSum)
		m.sums[key] = sum
	}
	sum.add(r)
	m.total.add(r)
	if e.Kind == flow.Denied {
		m.denied++
	}
	if r.Times.Dial > 0 {
		m.sample(float64(r.Times.Dial.Microseconds()) / 1000)
	}
}

func (s *emfSum) add(r *flow.Record) {
	s.flows++
	s.sent += uint64(max(r.BytesSent, 0))
	s.received += uint64(max(r.BytesReceived, 0))
}

// sample keeps each value with the same probability, whatever their number.
func (m *EMF) sample(v float64) {
	m.dialled++
	if len(m.dials) < maxValues {
		m.dials = append(m.dials, v)
	} else if i := rand.IntN(m.dialled); i < maxValues { //nolint:gosec // a statistic
		m.dials[i] = v
	}
}

// service is the word for who called. The first so many keep theirs.
func (m *EMF) service(r *flow.Record) string {
	name := r.Source
	if r.Task != nil {
		name = cmp.Or(r.Task.Service, r.Task.Family, name)
	}
	// A dimension's value is ASCII, not blank, and does not begin with a colon.
	name = strings.TrimSpace(strings.TrimLeft(logging.Clean(name, 255), ":"))
	switch {
	case name == "":
		return ServiceNone
	case m.services[name]:
		return name
	case len(m.services) >= m.c.Services:
		return ServiceOther
	}
	m.services[name] = true
	return name
}

// Run writes every so often until ctx ends, and then once more. End ctx after
// the last connection was recorded. Call it once.
func (m *EMF) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.c.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := m.report(); err != nil {
				return err
			}
		case <-ctx.Done():
			return m.report()
		}
	}
}

// report writes what was summed up since the last one.
func (m *EMF) report() error {
	for _, line := range m.lines() {
		text, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("write metrics for CloudWatch: %w", err)
		}
		if _, err := m.out.Write(append(text, '\n')); err != nil {
			return fmt.Errorf("write metrics for CloudWatch: %w", err)
		}
	}
	return nil
}

// emfMetric names a member of the line that is a metric.
type emfMetric struct {
	Name string
	Unit string
}

// emfDirective says what CloudWatch takes from the line.
type emfDirective struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []emfMetric
}

type emfMetadata struct {
	Timestamp         int64
	CloudWatchMetrics []emfDirective
}

// lines empties the sums into lines, the proxy's own first.
func (m *EMF) lines() []map[string]any {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().UnixMilli()
	all := []map[string]any{m.overall(now)}
	keys := slices.SortedFunc(maps.Keys(m.sums), func(a, b emfKey) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.verdict, b.verdict), cmp.Compare(a.reason, b.reason))
	})
	for _, key := range keys {
		line := m.line(now, []string{"service", "verdict", "reason"}, emfMetric{"Flows", "Count"}, emfMetric{"BytesSent", "Bytes"}, emfMetric{"BytesReceived", "Bytes"})
		m.sums[key].into(line)
		line["service"], line["verdict"], line["reason"] = key.service, key.verdict, key.reason
		all = append(all, line)
	}
	clear(m.sums)
	m.total, m.denied, m.dials, m.dialled = emfSum{}, 0, nil, 0
	return all
}

// overall is the line of the proxy as a whole. It is written where nothing
// happened, too: that no line comes is worth an alarm.
func (m *EMF) overall(now int64) map[string]any {
	metrics := []emfMetric{{"Flows", "Count"}, {"FlowsDenied", "Count"}, {"BytesSent", "Bytes"}, {"BytesReceived", "Bytes"}}
	values := map[string]any{"FlowsDenied": m.denied}
	if len(m.dials) > 0 {
		metrics, values["DialTime"] = append(metrics, emfMetric{"DialTime", "Milliseconds"}), slices.Clone(m.dials)
	}
	if m.c.Active != nil {
		metrics, values["ConnectionsActive"] = append(metrics, emfMetric{"ConnectionsActive", "Count"}), m.c.Active()
	}
	if m.c.Dropped != nil {
		dropped := m.c.Dropped()
		metrics, values["EventsDropped"] = append(metrics, emfMetric{"EventsDropped", "Count"}), dropped-min(m.dropped, dropped)
		m.dropped = dropped
	}
	line := m.line(now, []string{}, metrics...)
	m.total.into(line)
	maps.Copy(line, values)
	return line
}

func (m *EMF) line(now int64, dimensions []string, metrics ...emfMetric) map[string]any {
	return map[string]any{"_aws": emfMetadata{
		Timestamp:         now,
		CloudWatchMetrics: []emfDirective{{Namespace: m.c.Namespace, Dimensions: [][]string{dimensions}, Metrics: metrics}},
	}}
}

func (s *emfSum) into(line map[string]any) {
	line["Flows"], line["BytesSent"], line["BytesReceived"] = s.flows, s.sent, s.received
}
