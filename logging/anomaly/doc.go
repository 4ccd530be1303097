// Package anomaly watches the history for what is out of the ordinary: each
// caller is held against its own past, and never against a fixed threshold
// alone.
//
// # What is looked for
//
//	first_contact  a site that the caller never visited, after its learning time
//	bytes_out      an hour in which far more is sent than in such hours before
//	denials        an hour in which far more is denied than in such hours before
//	subdomains     many unseen names below one registered domain: a tunnel of names
//	beacon         contacts like clockwork with a site that few others visit
//	bucket_write   a bucket is written that was only read
//	budget         a budget of the policy is spent (package budget tells)
//
// # How
//
// Once a minute the [Watcher] asks the history what was visited and how much
// was sent since the last look. It reads the store and not the events of this
// proxy: a fleet's proxies see parts of each service, and only together its
// week; a proxy that was restarted knows at once what it knew; and nothing here
// can slow a connection. The price is a look's time until a finding.
//
// The norm of an hour is robust: the median and the median deviation of the
// same hour of the week in up to five weeks, an hour to either side. Before
// three weeks have passed it is the same hour of the day, before three days all
// hours there are, and a first day has no norm. A limit is several deviations
// above the median, in sums and in ratios, above what one such hour in ten has,
// and above a floor: what is little is not told.
//
// What is new is told only of callers that were seen for the learning time and
// on most of its days. A caller that finds new sites all the time (a crawler,
// a sender of webhooks) is not told of for each; nor is one that finds many at
// once: they are one finding.
//
// # Once
//
// A finding is one for its kind, caller and subject. The store says whether it
// is new; only then, or when it comes back after a quiet day, it is told: to the
// log, the metrics, the webhook. Of several proxies on one store exactly one
// tells. What somebody has called benign is counted and never told again.
//
// # Bounds
//
// Names are chosen by clients. What is remembered of sites, callers and domains
// is bounded each ([Config]), and what is beyond a bound is not watched, which
// [Watcher.Stats] says.
package anomaly
