package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// remedy returns the smallest rule that would allow what was denied, "" when
// none could (a deny rule wins over any) or none should (an address where
// tasks have no business, an S3 host that means every bucket).
func (p *Policy) remedy(q Query, d Decision) string {
	var destination, name string
	switch d.Reason {
	case ReasonNoRule:
		name = q.Host.name
		destination = fmt.Sprintf("hosts: [%q]", name)
	case ReasonIPLiteral:
		a, _ := q.Host.Addr()
		prefix := netip.PrefixFrom(a, a.BitLen())
		if ProhibitedRange(prefix) {
			return ""
		}
		name = a.String()
		destination = fmt.Sprintf("cidrs: [%q]", prefix)
	case ReasonS3Bucket, ReasonS3Operation, ReasonS3Account:
		if q.S3 != nil {
			name, destination = callRemedy(q.S3, d)
		} else {
			name, destination = s3Remedy(q.Host, d.S3, "")
		}
	default: // no rule could, or none should
	}
	if destination == "" {
		return ""
	}
	lines := []string{"- name: " + p.freeName(name), "  " + destination}
	var s search
	s.begin(p, &q)
	protocol, standard := s.protocol, uint16(443)
	if protocol == ProtocolUnknown {
		protocol = ProtocolTLS
	}
	if protocol == ProtocolHTTP {
		standard = 80
	}
	if protocol != ProtocolTLS {
		lines = append(lines, "  protocol: "+protocol.String())
	}
	if q.Port != standard || protocol == ProtocolTCP {
		lines = append(lines, fmt.Sprintf("  ports: [%d]", q.Port))
	}
	if d.Source != "" {
		lines = append(lines, fmt.Sprintf("  sources: [%q]", d.Source))
	}
	return strings.Join(lines, "\n") + "\n"
}

// s3Remedy returns a name for, and the destination of, a rule for an S3 host
// that names a bucket or an access point.
func s3Remedy(h Host, ref S3Ref, conditions string) (name, destination string) {
	key := "buckets"
	if name = ref.Bucket; name == "" {
		key, name = "access_points", ref.AccessPoint
		if owned := ownedName(h, ref); owned != "" {
			name = owned
		}
	}
	if _, err := parseBucketPattern(name); err != nil {
		return "", "" // no bucket has such a name
	}
	scope := ""
	switch {
	case ref.Region != "":
		scope = fmt.Sprintf(", regions: [%s]", ref.Region)
	case ref.Partition != "aws":
		scope = ", partition: " + ref.Partition
	}
	return name, fmt.Sprintf("s3: {%s: [%q]%s%s}", key, name, scope, conditions)
}

// callRemedy is s3Remedy for a request that was seen: it allows what this one
// asks for, and its signer.
func callRemedy(c *S3Call, d Decision) (name, destination string) {
	ref, operations := c.Ref, c.Operation
	if c.ACL != "" {
		operations += ", " + c.ACL
	}
	if d.OfSource {
		ref, operations = c.Source.Ref, "GetObject"
	}
	conditions := fmt.Sprintf(", inspect: true, operations: [%s]", operations)
	switch account := d.Reason == ReasonS3Account; {
	case c.Operation == "" || ref.Opaque():
		return "", ""
	case c.Signer.Scheme == S3Anonymous:
		conditions += ", anonymous: allow"
	case account && c.Signer.Account == "":
		return "", "" // nobody knows whom that would let in
	case account:
		conditions += fmt.Sprintf(", accounts: [%q]", c.Signer.Account)
	}
	host := c.Host
	if d.OfSource {
		host = Host{name: ref.AccessPoint + "-" + ref.Account} // as an access point's host begins
	}
	return s3Remedy(host, ref, conditions)
}

// freeName makes a rule's name of a destination that no rule has.
func (p *Policy) freeName(destination string) string {
	base := nameFrom(destination)
	if base == "" {
		base = "rule"
	}
	base = strings.Trim(base[:min(len(base), maxName-len("-999999"))], "._-")
	name := base
	taken := map[string]bool{}
	for i := range p.rules {
		taken[p.rules[i].Name] = true
	}
	for i := 2; taken[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name
}
