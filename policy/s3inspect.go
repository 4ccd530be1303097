package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// s3Conditions is what a rule asks of a request inside TLS. Without inspect it
// asks for nothing.
type s3Conditions struct {
	inspect     bool
	operations  []string // sorted; empty: in an allow rule all that are not guarded, in a deny rule all
	accounts    []string // of signers; empty: any
	anonymous   bool     // requests that nobody signed are let through
	noPresigned bool     // signatures in the URL are not
}

// narrows reports whether a deny rule means some requests of its buckets only.
func (m *s3Conditions) narrows() bool { return len(m.operations)+len(m.accounts) > 0 }

// misses says what of a request an allow rule does not let through.
func (m *s3Conditions) misses(c *S3Call, operation, acl string) miss {
	if !m.inspect {
		return missNothing
	}
	if !m.lists(operation) || (acl != "" && !slices.Contains(m.operations, acl)) {
		return missOperation
	}
	switch s := c.Signer; {
	case s.Scheme == S3Anonymous || s.Scheme == "":
		if !m.anonymous {
			return missAccount
		}
	case m.noPresigned && s.Presigned(), len(m.accounts) > 0 && !slices.Contains(m.accounts, s.Account):
		return missAccount
	}
	return missNothing
}

// lists reports whether an allow rule lets an operation through.
func (m *s3Conditions) lists(operation string) bool {
	if operation == "" {
		return false
	}
	if len(m.operations) == 0 {
		return !S3Guarded(operation) && !ofNoBucket(operation)
	}
	return slices.Contains(m.operations, operation)
}

// hits says what of a request a deny rule does not speak of. What is not known,
// the operation or the signer, may be what it means.
func (m *s3Conditions) hits(c *S3Call, operation, acl string) miss {
	switch {
	case len(m.operations) > 0 && operation != "" && !slices.Contains(m.operations, operation) && (acl == "" || !slices.Contains(m.operations, acl)):
		return missOperation
	case len(m.accounts) > 0 && !slices.Contains(m.accounts, c.Signer.Account) &&
		(c.Signer.Account != "" || c.Signer.Scheme == S3Anonymous):
		return missAccount
	}
	return missNothing
}

// covers reports whether a rule with the verdict and these conditions lets
// through, or denies, whatever one with n's speaks of.
func (m *s3Conditions) covers(n *s3Conditions, v Verdict) bool {
	if v == Deny && !m.narrows() || !m.inspect {
		return true
	}
	if !n.inspect {
		return false
	}
	operations := len(n.operations) > 0 && subset(n.operations, m.operations)
	if len(m.operations) == 0 {
		operations = v == Deny || !slices.ContainsFunc(n.operations, func(o string) bool { return !m.lists(o) })
	}
	accounts := len(m.accounts) == 0 || (len(n.accounts) > 0 && subset(n.accounts, m.accounts))
	return operations && accounts &&
		(v == Deny || ((m.anonymous || !n.anonymous) && (!m.noPresigned || n.noPresigned)))
}

// subset reports whether b holds all of a.
func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

// s3Conditions compiles what an s3 rule asks of the request.
func (c *compiler) s3Conditions(r *reader, text *ruleText, rule *Rule) {
	s, m := text.s3, rule.match.s3
	m.inspect, m.opaque = s.inspect != nil, s.opaque != nil
	m.anonymous, m.noPresigned = s.anonymous, s.noPresigned
	if s.inspect == nil {
		for _, key := range s.conditions {
			r.fail(key, "write inspect: true beside it", "%q asks about requests inside TLS, which are read only where the rule says inspect", key.Value)
		}
	} else if text.protocolAt != nil && rule.Protocol != ProtocolTLS {
		r.fail(s.inspect, "leave protocol out", "inspect reads what is inside TLS, and the rule asks for %s", rule.Protocol)
	}
	if s.opaque != nil && s.inspect != nil && text.verdict == Allow {
		r.fail(s.opaque, "leave it out: an inspected request tells its bucket", "opaque has no meaning beside inspect")
	}
	if text.verdict == Deny {
		c.checkDenied(r, s)
	}
	for _, n := range s.operations {
		m.operations = append(m.operations, readOperationName(r, n))
	}
	slices.Sort(m.operations)
	m.operations = slices.Compact(m.operations)
	for _, n := range s.accounts {
		if !isAccount(n.Value) {
			r.fail(n, `write its 12 digits in quotes, like "111122223333"`, "%q is not an account", n.Value)
		}
		m.accounts = append(m.accounts, n.Value)
	}
}

// checkDenied refuses what has no meaning in a deny rule.
func (c *compiler) checkDenied(r *reader, s *s3Text) {
	if s.opaque != nil {
		r.fail(s.opaque, "leave it out", "opaque has no meaning in a deny rule")
	}
	for _, key := range s.conditions {
		if key.Value == "anonymous" || key.Value == "presigned" {
			r.fail(key, "leave it out", "%q has no meaning in a deny rule", key.Value)
		}
	}
}

// readOperationName reads the name of an operation.
func readOperationName(r *reader, n *yaml.Node) string {
	name := strings.TrimPrefix(n.Value, "s3:")
	all := S3Operations()
	if name == n.Value && slices.Contains(all, name) {
		return name
	}
	hint := "write the name of the API's operation: GetObject, PutObject, ListObjectsV2"
	if better := nearestOperation(name, all); better != "" {
		hint = fmt.Sprintf("did you mean %q?", better)
	}
	r.fail(n, hint, "%q is no operation of S3's", n.Value)
	return n.Value
}

// nearestOperation returns the operation that somebody meant by a name:
// written in another case, misspelt, or as IAM calls the permission.
func nearestOperation(name string, all []string) string {
	switch name {
	case "ListBucket":
		return "ListObjectsV2"
	case "ListAllMyBuckets":
		return "ListBuckets"
	case "GetObjectVersion":
		return "GetObject"
	case "DeleteObjectVersion":
		return "DeleteObject"
	case "ListBucketVersions":
		return "ListObjectVersions"
	case "ListBucketMultipartUploads":
		return "ListMultipartUploads"
	case "ListMultipartUploadParts":
		return "ListParts"
	}
	lower := make([]string, len(all))
	for i, o := range all {
		lower[i] = strings.ToLower(o)
		if strings.EqualFold(o, name) {
			return o
		}
	}
	if i := slices.Index(lower, nearest(name, lower)); i >= 0 {
		return all[i]
	}
	return ""
}

// shares is the index of the rules that speak of hosts which do not tell the
// bucket, by Region or partition, "" being all.
type shares struct {
	rules map[string][]int32
	// seen has the shapes that are filed already: of rules that ask the same of
	// a connection, the first answers for all, since none is asked about the
	// bucket yet.
	seen map[string]bool
	// bucketless are the rules that list an operation of no bucket, all of them.
	bucketless map[string][]int32
}

// share files a rule for the hosts that do not tell the bucket.
func (c *compiler) share(rule *Rule, id int32) {
	m, x := rule.match.s3, &c.policy.shared
	if !m.inspect && !m.opaque {
		return
	}
	if x.rules == nil {
		x.rules, x.seen, x.bucketless = map[string][]int32{}, map[string]bool{}, map[string][]int32{}
	}
	for _, scope := range m.scopes(rule.Verdict) {
		if slices.ContainsFunc(m.operations, ofNoBucket) {
			x.bucketless[scope] = append(x.bucketless[scope], id)
		}
		shape := fmt.Sprint(scope, rule.Verdict, rule.Protocol, m.opaque, len(m.regions) > 0, rule.match.ports, rule.match.sources, rule.ResolvesTo)
		if !x.seen[shape] {
			x.seen[shape] = true
			x.rules[scope] = append(x.rules[scope], id)
		}
	}
}

// scopes returns what a rule's shared hosts are filed under. A deny rule's
// Regions reach the hosts that do not tell theirs.
func (m *s3Match) scopes(v Verdict) []string {
	if len(m.regions) == 0 {
		return []string{m.partition}
	}
	all := slices.Clone(m.regions)
	if v == Deny {
		for _, r := range m.regions {
			all = append(all, regionPartition(r))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// find visits the rules that speak of a host's Region.
func (x *shares) find(ref S3Ref, bucketless bool, visit visit) {
	rules := x.rules
	if bucketless {
		rules = x.bucketless
	}
	for i, scope := range [...]string{"", ref.Partition, ref.Region} {
		if found := rules[scope]; len(found) > 0 && (i == 0 || scope != "") {
			visit(found, false)
		}
	}
}
