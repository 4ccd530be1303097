package metrics

import (
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// asked collects, at each scrape, the figures that others keep.
type asked struct{ c Config }

// Describe implements [prometheus.Collector].
func (a asked) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(a, ch) }

// Collect implements [prometheus.Collector].
func (a asked) Collect(ch chan<- prometheus.Metric) {
	if a.c.Connections != nil {
		s := a.c.Connections()
		ch <- counter("connections_accepted_total", "Connections accepted, refused ones included.", s.Accepted)
		ch <- counter("connections_refused_total", "Connections refused by a limit.", s.Refused)
		ch <- gauge("connections_active", "Connections open to clients.", s.Active)
		ch <- counter("connections_without_proxy_header_total", "Connections refused, for their listener requires a PROXY header from proxy_from.", s.Headless)
	}
	if a.c.DNS != nil {
		s := a.c.DNS()
		const name, help = "dns_lookups_total", "Lookups of names by how they were answered."
		ch <- counter(name, help, s.Hits, "result", "hit")
		ch <- counter(name, help, s.Misses, "result", "miss")
		ch <- counter(name, help, s.Stale, "result", "stale")
		ch <- counter(name, help, s.Errors, "result", "error")
		ch <- gauge("dns_cache_entries", "Answers held by the resolver's cache.", s.Entries)
	}
	if a.c.Steering != nil {
		collectSteering(ch, a.c.Steering())
	}
	if a.c.Policy != nil {
		for i, s := range a.c.Policy() {
			ch <- prometheus.MustNewConstMetric(
				desc("policy_source_age_seconds", "Time since a source of the policy was read.", []string{"source", strconv.Itoa(i), "kind", s.Kind}),
				prometheus.GaugeValue, s.Age.Seconds())
		}
	}
	if a.c.Identity != nil {
		collectIdentity(ch, a.c.Identity())
	}
	if a.c.TLS != nil {
		collectTLS(ch, a.c.TLS())
	}
	if a.c.History != nil {
		collectHistory(ch, a.c.History())
	}
	if a.c.Watch != nil {
		collectWatch(ch, a.c.Watch())
	}
	if a.c.Budgets != nil {
		for _, b := range a.c.Budgets() {
			collectBudget(ch, b)
		}
	}
	for sink, dropped := range a.c.Dropped {
		ch <- counter("events_dropped_total", "Events or lines that a reader lost.", dropped(), "sink", sink)
	}
	for sink, exported := range a.c.Exported {
		ch <- counter("events_exported_total", "Flows that were sent to a collector.", exported(), "sink", sink)
	}
}

func collectSteering(ch chan<- prometheus.Metric, s SteeringStats) {
	const name, help = "dns_questions_total", "Questions that the DNS server got, by what became of them."
	ch <- counter(name, help, s.Allowed, "verdict", "allow")
	ch <- counter(name, help, s.Denied, "verdict", "deny")
	ch <- counter(name, help, s.Unserved, "verdict", "unserved")
	ch <- counter(name, help, s.Malformed, "verdict", "malformed")
	ch <- counter(name, help, s.Limited, "verdict", "limited")
	ch <- counter(name, help, s.Dropped, "verdict", "dropped")
	ch <- counter("dns_unrecorded_total", "Questions for denied names whose records are missing, since there were too many.", s.Unrecorded)
}

func collectIdentity(ch chan<- prometheus.Metric, s IdentityStats) {
	ch <- gauge("identity_tasks", "ECS tasks whose addresses are known.", s.Tasks)
	ch <- prometheus.MustNewConstMetric(
		desc("identity_age_seconds", "Time since the cluster that was listed longest ago was listed as a whole.", nil),
		prometheus.GaugeValue, s.Age.Seconds())
	const name, help = "identity_lookups_total", "Callers whose task was looked for, by how that ended."
	ch <- counter(name, help, s.Hit, "result", "hit")
	ch <- counter(name, help, s.Found, "result", "found")
	ch <- counter(name, help, s.Unknown, "result", "unknown")
	ch <- counter(name, help, s.Absent, "result", "absent")
	ch <- counter(name, help, s.Unanswered, "result", "unanswered")
	ch <- counter("identity_errors_total", "Calls to AWS for identities that failed, after their retries.", s.Errors)
}

func collectTLS(ch chan<- prometheus.Metric, all []TLSListener) {
	for _, l := range all {
		failed := 0.0
		if l.Failed {
			failed = 1
		}
		ch <- prometheus.MustNewConstMetric(
			desc("listener_tls_reload_failed", "1 while what a listener's TLS was to be reloaded with is not in force.", []string{"listener", l.Address}),
			prometheus.GaugeValue, failed)
		for kind, at := range l.Expires {
			ch <- prometheus.MustNewConstMetric(
				desc("listener_tls_expires_timestamp_seconds", "When the first certificate, client CA or CRL of a listener expires.", []string{"listener", l.Address, "what", kind}),
				prometheus.GaugeValue, float64(at.Unix()))
		}
	}
}

func collectHistory(ch chan<- prometheus.Metric, s HistoryStats) {
	up := 0
	if s.Up {
		up = 1
	}
	ch <- gauge("history_up", "1 while the history's store takes what is written: alarm on 0.", up)
	ch <- counter("history_events_total", "Flow events that the history was told of.", s.Events)
	ch <- counter("history_flows_written_total", "Flows that the history's store took.", s.Flows)
	ch <- counter("history_flows_unkept_total", "Flows that were counted and not kept, since there were too many to new names.", s.Unkept)
	ch <- counter("history_folded_total", "Attempts counted under one name for many, since their caller made up too many.", s.Folded)
	ch <- counter("history_batches_total", "Batches that the history's store took.", s.Batches)
	ch <- counter("history_failures_total", "Batches that the history's store did not take, each try.", s.Failures)
	ch <- gauge("history_pending", "Flows and sums that wait for the history's store.", s.Pending)
	ch <- prometheus.MustNewConstMetric(
		desc("history_store_bytes", "About how much the history's store holds.", nil), prometheus.GaugeValue, float64(s.Bytes))
	if !s.LastWrite.IsZero() {
		ch <- prometheus.MustNewConstMetric(
			desc("history_last_write_timestamp_seconds", "When the history's store took a batch last.", nil),
			prometheus.GaugeValue, float64(s.LastWrite.UnixMilli())/1000)
	}
}

func counter(name, help string, value uint64, label ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc(name, help, label), prometheus.CounterValue, float64(value))
}

func gauge(name, help string, value int) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc(name, help, nil), prometheus.GaugeValue, float64(value))
}

// desc describes a metric with constant labels: name, value, name, value.
func desc(name, help string, label []string) *prometheus.Desc {
	labels := prometheus.Labels{}
	for pair := range slices.Chunk(label, 2) {
		labels[pair[0]] = pair[1]
	}
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, nil, labels)
}
