package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/logging/flow"
)

// Anomaly counts an anomaly that was told.
func (m *Metrics) Anomaly(kind flow.AnomalyKind, severity flow.Severity) {
	if kind.Valid() { // the set of labels is closed
		m.found.WithLabelValues(string(kind), severity.String()).Inc()
	}
}

func collectWatch(ch chan<- prometheus.Metric, s WatchStats) {
	ch <- counter("watch_looks_total", "Looks at the history for anomalies.", s.Looks)
	ch <- counter("watch_failures_total", "Looks that the history did not answer in full.", s.Failures)
	ch <- counter("watch_unwatched_total", "Sites, callers and domains beyond what is watched.", s.Unwatched)
	if !s.LastLook.IsZero() {
		ch <- prometheus.MustNewConstMetric(desc("watch_last_look_timestamp_seconds", "When the history was looked at last for anomalies, in full.", nil),
			prometheus.GaugeValue, float64(s.LastLook.UnixMilli())/1000)
	}
	const name, help = "webhook_messages_total", "Messages about anomalies, by what became of them."
	ch <- counter(name, help, s.Delivered, "result", "delivered")
	ch <- counter(name, help, s.Failed, "result", "failed")
	ch <- counter(name, help, s.Dropped, "result", "dropped")
	ch <- gauge("webhook_waiting", "Messages about anomalies that wait.", s.Waiting)
}

func collectBudget(ch chan<- prometheus.Metric, b BudgetStats) {
	labels := []string{"of", b.Of, "name", b.Name, "per", b.Per}
	ch <- prometheus.MustNewConstMetric(desc("budget_sent_bytes", "Bytes sent of a budget in its period, by all proxies that share it.", labels),
		prometheus.GaugeValue, float64(b.Sent))
	ch <- prometheus.MustNewConstMetric(desc("budget_limit_bytes", "Bytes that a budget allows in its period.", labels),
		prometheus.GaugeValue, float64(b.Limit))
}
