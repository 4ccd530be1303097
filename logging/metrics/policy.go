package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type policyMetrics struct {
	mu         sync.Mutex // one change of policy at a time
	info       *prometheus.GaugeVec
	failed     prometheus.Gauge
	lastReload prometheus.Gauge
	ok, bad    prometheus.Counter
}

func newPolicyMetrics(r prometheus.Registerer) *policyMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	}
	p := &policyMetrics{
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: "policy_info", Help: "1 for the version of the policy in force.",
		}, []string{"version"}),
		failed:     gauge("policy_reload_failed", "1 while the last reload failed and an older policy is in force."),
		lastReload: gauge("policy_last_reload_timestamp_seconds", "When the policy in force was loaded."),
	}
	reloads := counters("policy_reloads_total", "Loads of a policy, the first included.", "result")
	p.ok, p.bad = reloads.WithLabelValues("ok"), reloads.WithLabelValues("failed")
	r.MustRegister(p.info, p.failed, p.lastReload, reloads)
	return p
}

// PolicyLoaded notes that the policy of this version came into force.
func (m *Metrics) PolicyLoaded(version string, at time.Time) {
	p := m.policy
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info.Reset() // the only label that is not of a closed set has one value at a time
	p.info.WithLabelValues(version).Set(1)
	p.failed.Set(0)
	p.lastReload.Set(float64(at.UnixMilli()) / 1000)
	p.ok.Inc()
}

// PolicyFailed notes that a policy could not be loaded and that the one before
// it, if any, stays in force.
func (m *Metrics) PolicyFailed() {
	p := m.policy
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed.Set(1)
	p.bad.Inc()
}
