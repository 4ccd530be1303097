// Package metrics turns events into Prometheus metrics.
//
// [Metrics] is a flow.Reader that is called on the connection's goroutine: an
// observation is a few atomic additions and allocates nothing. It owns its
// registry; nothing here is global, so tests and processes may have several.
//
// Every label comes from a closed set: how the name was learned, verdict,
// mode, outcome, reason, stage, direction, sink. Never a host, a rule, a task
// or an address: those are unbounded, partly chosen by attackers, and belong
// to the flow log.
//
//	sallyport_flows_total{via,verdict,mode,outcome}    attempts that ended or were denied
//	sallyport_flows_active{via}                        allowed and not ended
//	sallyport_flow_duration_seconds{via}               of allowed attempts
//	sallyport_flow_bytes_total{direction}              counted when an attempt ends
//	sallyport_decisions_total{verdict,mode,reason}     an allow whose reason is not "rule" is report mode's
//	sallyport_stage_duration_seconds{stage}            hello, resolve, dial, first_byte
//	sallyport_connections_accepted_total               and _refused_total (by a limit), connections_active
//	sallyport_dns_lookups_total{result}                hit, miss, stale, error; and dns_cache_entries
//	sallyport_policy_info{version}                     1 for the policy in force
//	sallyport_policy_reload_failed                     1 while the last reload failed: alarm on it
//	sallyport_policy_last_reload_timestamp_seconds     of the last reload that succeeded
//	sallyport_policy_reloads_total{result}             ok, failed
//	sallyport_policy_source_age_seconds{source,kind}   since that source (0 is the first) was read
//	sallyport_identity_tasks                           ECS tasks that are known; and identity_age_seconds: alarm on it
//	sallyport_identity_lookups_total{result}           hit, found, unknown, absent, unanswered
//	sallyport_identity_errors_total                    calls to AWS that failed
//	sallyport_history_up                               1 while the store takes what is written: alarm on 0
//	sallyport_history_events_total                     and flows_written, flows_unkept, folded, batches, failures
//	sallyport_history_pending                          what waits; store_bytes, last_write_timestamp_seconds
//	sallyport_events_dropped_total{sink}               events or lines that a reader lost
//	sallyport_events_exported_total{sink}              flows that were sent to a collector
//	sallyport_build_info{version,revision,goversion}
//
// [EMF] sums the same events up for CloudWatch, as lines of its Embedded Metric
// Format. There a service is a dimension: those that are told apart are bounded
// in number, since each is billed, and every further one is "(other)".
//
// Figures that others keep (connections, DNS, drops) are asked for when a
// scrape comes, through functions that cmd hands over: this package knows
// neither proxy nor resolve.
package metrics
