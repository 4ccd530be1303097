package history

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Query returns the question that the policy was asked, so that another policy
// can be asked it. At is the flow's start. It reports false where there is
// none: no name was learned, or the flow was one of too many ([Other]) and its
// own port is not known, or it went to S3, of which the bucket was not kept.
//
// A DNS question is asked as TLS on 443; the DNS server asks for HTTP on 80,
// too, and answers when either is allowed. What a tunnel carries is what was
// found in it: ProtocolTCP, where nobody looked.
func (f *Flow) Query() (policy.Query, bool) {
	t := f.Target
	if f.folded {
		// Of the target only the host is the flow's own. The port that was dialled
		// is the one that was asked for.
		t.Port = f.Peer.Port()
	}
	q, ok := query(&f.Caller, &t, f.Client.Addr(), f.Task, f.Start)
	if _, isS3 := policy.ParseS3Host(q.Host); f.folded && (q.Port == 0 || isS3) {
		return policy.Query{}, false
	}
	return q, ok
}

// Query returns the question of the site's last visitor, see [Flow.Query]. A
// policy that asks for addresses, tags or revisions may answer others another
// way; every other policy answers it for all visits of the site.
func (s *Site) Query() (policy.Query, bool) {
	return query(&s.Caller, &s.Target, s.Example.Client, s.Example.Task, s.Last)
}

func query(c *Caller, t *Target, addr netip.Addr, task *policy.Task, at time.Time) (policy.Query, bool) {
	if t.Host == "" || t.Host == Other {
		return policy.Query{}, false
	}
	host, err := policy.ParseHost(t.Host)
	if err != nil {
		return policy.Query{}, false
	}
	q := policy.Query{
		Source: policy.Source{
			Addr: addr.Unmap(), VPCEndpoint: c.VPCEndpoint, Principal: c.Principal, Task: task, Unidentified: c.Unidentified,
		},
		Via: t.Via, Host: host, Port: t.Port, Protocol: t.Protocol, At: at,
	}
	if task == nil && c.Cluster+c.Service+c.Family != "" {
		// The task's row is gone; what the site knows of it is left.
		q.Source.Task = &policy.Task{Cluster: c.Cluster, Service: c.Service, Family: c.Family}
	}
	if t.Via == policy.ViaDNS {
		q.Via, q.Port, q.Protocol = policy.ViaTLS, 443, policy.ProtocolTLS
	}
	if t.Call != (Call{}) {
		inner, err := policy.ParseHost(t.Call.Host)
		if err != nil {
			return policy.Query{}, false
		}
		q.S3 = &policy.S3Call{
			Host: inner, Ref: t.S3, Operation: t.Call.Operation, ACL: t.Call.ACL,
			Source: policy.S3Source{Ref: t.Call.Source},
			Signer: policy.S3Signer{Scheme: t.Call.Scheme, Account: t.Call.Account},
		}
	}
	return q, true
}

// Decided reports whether r is a reason that [policy.Policy.Decide] gives. The
// others are found out on the way (another name inside the tunnel, an address, a
// limit, a password), and no replay of the question tells them.
func Decided(r policy.Reason) bool {
	switch r {
	case policy.ReasonRule, policy.ReasonDenyRule, policy.ReasonNoRule, policy.ReasonNoName, policy.ReasonIPLiteral,
		policy.ReasonUnknownSource, policy.ReasonS3Bucket, policy.ReasonS3Opaque, policy.ReasonS3Operation, policy.ReasonS3Account:
		return true
	default:
		return false
	}
}
