package history

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Summary is what people call a site: a caller, a host or bucket, a port and a
// verdict. It joins the [Site]s that differ in the rest.
type Summary struct {
	Sites   []string // their IDs, the busiest first
	Cluster string
	Caller  string // [Caller.Name]
	Host    string // with the most visits, where a bucket has several
	Bucket  string // also an access point's name; "" where there is none
	Port    uint16
	Verdict policy.Verdict
	// WouldDeny counts the visits that report mode alone let through.
	WouldDeny int64
	// The lists have the most frequent first.
	Reasons    []policy.Reason
	Rules      []string
	Vias       []policy.Via
	Protocols  []policy.Protocol
	Operations []string // of S3, where requests were inspected
	Accounts   []string // of who signed them
	Revisions  []Revision
	Tasks      int // at least so many
	Figures
	First, Last time.Time
}

// Where returns the destination as people write it: the bucket, s3://NAME, else
// the host.
func (s *Summary) Where() string {
	if s.Bucket != "" {
		return "s3://" + s.Bucket
	}
	return cmp.Or(s.Host, "-")
}

type summaryKey struct {
	cluster, caller, where string
	port                   uint16
	verdict                policy.Verdict
}

// Summarize joins sites by caller, destination, port and verdict, and orders
// them so.
func Summarize(sites []Site) []Summary {
	groups := map[summaryKey][]*Site{}
	for i := range sites {
		s := &sites[i]
		k := summaryKey{s.Cluster, s.Caller.Name(), s.Host, s.Port, s.Verdict}
		if b := bucketOf(s.S3); b != "" {
			k.where = "s3://" + b
		}
		groups[k] = append(groups[k], s)
	}
	keys := slices.SortedFunc(maps.Keys(groups), func(a, b summaryKey) int {
		return cmp.Or(cmp.Compare(a.caller, b.caller), cmp.Compare(a.cluster, b.cluster), cmp.Compare(a.where, b.where),
			cmp.Compare(a.port, b.port), cmp.Compare(b.verdict, a.verdict))
	})
	out := make([]Summary, 0, len(keys))
	for _, k := range keys {
		out = append(out, summary(groups[k]))
	}
	return out
}

func summary(sites []*Site) Summary {
	slices.SortFunc(sites, func(a, b *Site) int { return cmp.Or(cmp.Compare(b.Visits, a.Visits), cmp.Compare(a.ID, b.ID)) })
	first := sites[0]
	s := Summary{
		Cluster: first.Cluster, Caller: first.Caller.Name(), Host: first.Host, Bucket: bucketOf(first.S3),
		Port: first.Port, Verdict: first.Verdict, First: first.First, Last: first.Last,
	}
	for _, site := range sites {
		s.Sites = append(s.Sites, site.ID)
		s.Figures.add(site.Figures)
		if site.WouldDeny {
			s.WouldDeny += site.Visits
		}
		if site.First.Before(s.First) {
			s.First = site.First
		}
		if site.Last.After(s.Last) {
			s.Last = site.Last
		}
		s.Reasons = with(s.Reasons, site.Reason)
		s.Rules = with(s.Rules, site.Rule)
		s.Vias = with(s.Vias, site.Via)
		s.Protocols = with(s.Protocols, site.Protocol)
		s.Operations = with(s.Operations, site.Call.Operation)
		s.Accounts = with(s.Accounts, site.Call.Account)
		for _, r := range site.Revisions {
			s.Revisions = with(s.Revisions, r)
		}
		s.Tasks = max(s.Tasks, site.Tasks)
	}
	slices.SortFunc(s.Revisions, compareRevisions)
	return s
}

// with adds what is not there yet, and is something.
func with[T comparable](all []T, one T) []T {
	var nothing T
	if one == nothing || slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}
