package policy

import "strings"

// asks is what a request asks of S3: of the call's own bucket, or of the
// bucket that a copy is read from.
type asks struct {
	call   *S3Call // nil before inspection
	source bool    // of the copy's source
}

// operation returns what is asked of the bucket, "" without a call.
func (a asks) operation() string {
	switch {
	case a.call == nil:
		return ""
	case a.source:
		return "GetObject"
	}
	return a.call.Operation
}

// acl returns the operation that ACL headers imply, "" for none.
func (a asks) acl() string {
	if a.call == nil || a.source {
		return ""
	}
	return a.call.ACL
}

// inspects reports whether a rule wants to see the requests.
func (r *Rule) inspects() bool { return r.match.s3 != nil && r.match.s3.inspect }

// waits reports whether a rule, which fits so far, can only tell when it has
// seen the requests. What no TLS can carry will never be seen: there a deny
// rule denies.
func (s *search) waits(r *Rule) bool {
	if !r.inspects() || s.asks.call != nil || (s.protocol != ProtocolUnknown && s.protocol != ProtocolTLS) {
		return false
	}
	return r.Verdict == Allow || r.match.s3.narrows() || s.s3.Opaque()
}

// fits reports whether an s3 rule speaks of the host, or of the copy's source.
func (s *search) fits(m *s3Match, v Verdict) bool {
	if s.asks.source {
		return m.fitsSource(s.s3, v)
	}
	return m.fits(s.s3, v)
}

// missesCall says what of an s3 rule a call does not fit.
func (s *search) missesCall(m *s3Match, v Verdict) miss {
	if v == Deny {
		return m.hits(s.asks.call, s.asks.operation(), s.asks.acl())
	}
	return m.misses(s.asks.call, s.asks.operation(), s.asks.acl())
}

// unmatched is the reason when no rule allows what was asked.
func (s *search) unmatched(h Host) Reason {
	switch {
	case s.closest == missAccount:
		return ReasonS3Account
	case s.closest == missOperation:
		return ReasonS3Operation
	case s.asks.source:
		return ReasonS3Bucket
	case ofNoBucket(s.asks.operation()):
		return ReasonS3Operation
	}
	return unmatched(h, s.s3)
}

// copies reports whether the call reads another object than it names. A rename
// stays within its bucket and is an operation of its own.
func (s *search) copies() bool {
	c := s.asks.call
	return c != nil && c.Source.Ref.Form != "" && c.Operation != "RenameObject"
}

// readsSource reports whether the copy's source may be read, and writes into
// the decision why not.
func (s *search) readsSource(d *Decision) bool {
	t := s.ofSource()
	t.candidatesOfSource(t.consider)
	t.settle(ProtocolTLS)
	switch {
	case t.deny >= 0:
		d.Rule, d.Reason = &t.policy.rules[t.deny], ReasonDenyRule
	case t.allow < 0:
		d.Reason = t.unmatched(t.asks.call.Host)
	default:
		return true
	}
	d.OfSource = true
	return false
}

// ofSource returns the search for the call's source.
func (s *search) ofSource() search {
	c := s.asks.call
	return search{
		policy: s.policy, caller: s.caller, port: s.port, protocol: s.protocol,
		s3: c.Source.Ref, asks: asks{call: c, source: true},
		deny: -1, allow: -1, denyTLS: -1, denyHTTP: -1,
	}
}

// candidatesOfSource visits the rules whose destination fits the source. A
// rule of hosts has allowed a host, and with it the bucket that the host
// names, or all where it names none.
func (s *search) candidatesOfSource(visit visit) {
	p, ref := s.policy, s.s3
	host := s.asks.call.Host
	named, _ := ParseS3Host(host)
	if named.Opaque() || (named.Bucket == ref.Bucket && named.AccessPoint == ref.AccessPoint) {
		p.hosts.find(host.name, visit)
	}
	if ref.Bucket != "" {
		p.buckets.find(ref.Bucket, visit)
	}
	if ref.AccessPoint != "" {
		owned := ""
		if ref.Account != "" {
			owned = ref.AccessPoint + "-" + ref.Account
		}
		p.findPoint(ref.AccessPoint, owned, visit)
	}
}

// sameEndpoint reports whether a request's Host is the connection's, or a
// bucket's, or none's, at the same endpoint: those share addresses,
// certificate and everything else, and each request is decided by its own
// bucket.
func sameEndpoint(connection, request Host) bool {
	if connection == request {
		return true
	}
	a, b := endpointOf(connection), endpointOf(request)
	return a != "" && a == b
}

// inspectsBeside reports whether the caller of q, which is about a bucket, has
// its connections to the bucket's endpoint inspected.
func (p *Policy) inspectsBeside(q Query) bool {
	endpoint := endpointOf(q.Host)
	if endpoint == "" || endpoint == q.Host.name {
		return false
	}
	q.Host = Host{name: endpoint}
	return p.Decide(q).Inspect
}

// endpointOf returns the host without its bucket, "" where it is no host of a
// bucket's.
func endpointOf(h Host) string {
	ref, _ := ParseS3Host(h)
	switch ref.Form {
	case S3PathStyle:
		return h.name
	case S3VirtualHosted, S3AccessPointAlias:
		return strings.TrimPrefix(h.name[len(ref.Bucket)+len(ref.AccessPoint):], ".")
	default:
		return ""
	}
}
