package policy

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Seen is what was observed of one caller and one destination: one attempt, or
// the sum of many that a policy cannot tell apart. It is a plain value, and
// every string in it may be a client's own: [Suggest], [Replay] and what they
// write take nothing of it on trust.
type Seen struct {
	// Query is the question that the attempt puts to a policy. Of a sum, its
	// caller is one that stands for all of them. Its Host is zero where no name
	// was learned or can be read; its At is not used.
	Query Query
	// SourceName is the policy source that the caller belonged to, "" for none.
	SourceName string
	Host       string // the name or address asked for, as recorded; "" when none could be learned
	// Folded means that Host stands for names that were too many to be kept: which
	// they were is not known, and no policy can be asked about them.
	Folded bool
	// Peer is an address that the name led to. It is invalid when none was dialled,
	// none is known any more, or the observer keeps private ones only.
	Peer netip.Addr
	// PeerUnknown means that nothing is left that tells of Peer: what was reached
	// may have been private or public.
	PeerUnknown bool

	Verdict   Verdict
	WouldDeny bool // let through by report mode only; Reason is the denial's
	Reason    Reason
	Rule      string // that decided, "" for none

	Count         int64 // attempts
	Failed        int64 // of them, those that were let through and ended in an error
	BytesSent     int64 // client to origin
	BytesReceived int64
	First, Last   time.Time // when they began
	Tasks         int       // distinct ECS tasks, at least; 0 when not known
	Revisions     []int     // of the task's family, ascending
}

// asked returns the question that is put to a policy in the attempt's place: at
// no particular time, so outside of every learning window. What was carried and
// never showed is taken for TLS on port 443 and for anything elsewhere.
func (s *Seen) asked() Query {
	q := s.Query
	q.At = time.Time{}
	switch {
	case q.Protocol != ProtocolUnknown:
	case q.Via == ViaHTTP:
		q.Protocol = ProtocolHTTP
	case q.Via == ViaTLS, q.Port == 443:
		q.Protocol = ProtocolTLS
	default:
		q.Protocol = ProtocolTCP
	}
	return q
}

// reached returns how many attempts reached their origin, as far as that is
// known: one that ended in an error may have, if anything ever came back.
func (s *Seen) reached() int64 {
	if n := s.Count - s.Failed; n > 0 || s.BytesReceived == 0 {
		return max(n, 0)
	}
	return s.Count
}

// s3 returns what of S3 was asked for, its Form "" for nothing.
func (s *Seen) s3() S3Ref {
	if s.Query.S3 != nil {
		return s.Query.S3.Ref
	}
	ref, _ := ParseS3Host(s.Query.Host)
	return ref
}

// Caller names who called, for people: the ECS service, else the family, the
// policy's source, the principal, the address. It is printable ASCII.
func (s *Seen) Caller() string {
	who := "an unknown caller"
	c := &s.Query.Source
	switch t := c.Task; {
	case t != nil && t.Service != "":
		who = t.Cluster + "/" + t.Service
	case t != nil && t.Family != "":
		who = t.Cluster + "/" + t.Family
	case s.SourceName != "":
		who = s.SourceName
	case c.Principal != "":
		who = c.Principal
	case c.Addr.IsValid():
		who = c.Addr.String()
	}
	return legible(strings.TrimPrefix(who, "/"))
}

// Site names the destination, for people: HOST, with its port where that is not
// TLS's own; for requests to S3 that were seen the bucket and the operation. It
// is printable ASCII.
func (s *Seen) Site() string {
	site, port := s.Host, s.Query.Port
	if site == "" {
		site = "(no name)"
	}
	if call := s.Query.S3; call != nil {
		site = "s3://" + call.Ref.Bucket + call.Ref.AccessPoint
		if call.Operation != "" {
			site += " " + call.Operation
		}
	} else if port != 443 && port != 0 {
		site = net.JoinHostPort(site, strconv.Itoa(int(port)))
	}
	return legible(site)
}

// legible returns a client's text so that it stays on its line and says what
// it holds: anything but printable ASCII is escaped, and it is not long.
func legible(s string) string {
	const longest = maxHost
	cut := len(s) > longest
	if cut {
		s = s[:longest]
	}
	if q := fmt.Sprintf("%+q", s); q[1:len(q)-1] != s {
		s = q
	}
	if cut {
		s += "..."
	}
	return s
}

// add sums another observation of the same into s.
func (s *Seen) add(o *Seen) {
	s.Count, s.Failed = s.Count+o.Count, s.Failed+o.Failed
	s.BytesSent, s.BytesReceived = s.BytesSent+o.BytesSent, s.BytesReceived+o.BytesReceived
	if s.First.IsZero() || (!o.First.IsZero() && o.First.Before(s.First)) {
		s.First = o.First
	}
	if o.Last.After(s.Last) {
		s.Last = o.Last
	}
	s.Tasks = max(s.Tasks, o.Tasks) // which tasks they were is not told, so not how many in all
	if !s.Peer.IsValid() {
		s.Peer = o.Peer
	}
	s.PeerUnknown = s.PeerUnknown && o.PeerUnknown
	revisions := slices.Concat(s.Revisions, o.Revisions)
	slices.Sort(revisions)
	s.Revisions = slices.Compact(revisions)
}

// compareSeen orders observations by everything that tells them apart.
func compareSeen(a, b *Seen) int {
	return cmp.Or(
		compareCallers(a, b),
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Query.Host.String(), b.Query.Host.String()),
		cmp.Compare(a.Query.Port, b.Query.Port),
		cmp.Compare(a.Query.Protocol, b.Query.Protocol),
		cmp.Compare(a.Query.Via, b.Query.Via),
		compareCalls(a.Query.S3, b.Query.S3),
		cmp.Compare(a.Verdict, b.Verdict),
		cmp.Compare(a.Reason, b.Reason),
		cmp.Compare(a.Rule, b.Rule),
		cmp.Compare(boolRank(a.WouldDeny), boolRank(b.WouldDeny)),
		cmp.Compare(boolRank(a.Folded), boolRank(b.Folded)),
	)
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareCalls orders requests to S3 by what a policy decides on.
func compareCalls(a, b *S3Call) int {
	if a == nil || b == nil {
		return cmp.Compare(boolRank(a != nil), boolRank(b != nil))
	}
	return cmp.Or(
		compareRefs(a.Ref, b.Ref),
		cmp.Compare(a.Host.name, b.Host.name),
		cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.ACL, b.ACL),
		cmp.Compare(a.Signer.Scheme, b.Signer.Scheme),
		cmp.Compare(a.Signer.Account, b.Signer.Account),
		compareRefs(a.Source.Ref, b.Source.Ref),
	)
}

func compareRefs(a, b S3Ref) int {
	return cmp.Or(
		cmp.Compare(a.Form, b.Form), cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.AccessPoint, b.AccessPoint),
		cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Partition, b.Partition),
	)
}

// compareCallers orders observations by who called.
func compareCallers(a, b *Seen) int {
	c, d := &a.Query.Source, &b.Query.Source
	s, t := c.Task, d.Task
	if s == nil || t == nil {
		if x := cmp.Compare(boolRank(s == nil), boolRank(t == nil)); x != 0 {
			return x
		}
		s, t = new(Task), new(Task)
	}
	return cmp.Or(
		cmp.Compare(s.Cluster, t.Cluster), cmp.Compare(s.Service, t.Service), cmp.Compare(s.Family, t.Family),
		cmp.Compare(a.SourceName, b.SourceName),
		cmp.Compare(c.Principal, d.Principal),
		cmp.Compare(c.VPCEndpoint, d.VPCEndpoint),
		cmp.Compare(boolRank(c.Unidentified), boolRank(d.Unidentified)),
	)
}

// merged returns the observations, each with what cannot be told from it added,
// in one order whatever theirs was.
func merged(seen []Seen) []Seen {
	all := slices.Clone(seen)
	slices.SortStableFunc(all, func(a, b Seen) int {
		return cmp.Or(compareSeen(&a, &b), a.Query.Source.Addr.Compare(b.Query.Source.Addr), a.First.Compare(b.First))
	})
	sums := all[:0]
	for i := range all {
		if n := len(sums); n > 0 && compareSeen(&sums[n-1], &all[i]) == 0 {
			sums[n-1].add(&all[i])
			continue
		}
		sums = append(sums, all[i])
	}
	return sums
}
