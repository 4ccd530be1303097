package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// s3Match is what an s3 rule asks of a host besides the bucket's name, and,
// when it inspects, of the request.
type s3Match struct {
	partition string   // "" when regions say it
	regions   []string // empty: all of the partition
	opaque    bool     // hosts that do not tell the bucket are let through
	s3Conditions
}

// fits reports whether a rule of the verdict speaks of the host. Where the
// host does not tell its Region (the global endpoint, acceleration), an allow
// rule that lists Regions does not reach it and a deny rule does.
func (m *s3Match) fits(ref S3Ref, v Verdict) bool {
	if len(m.regions) > 0 {
		return slices.Contains(m.regions, ref.Region) || (ref.Region == "" && v == Deny)
	}
	return m.partition == "" || ref.Partition == m.partition
}

// fitsSource is fits for the source of a copy, whose bucket is named without
// its Region: within the partition the name alone is the bucket.
func (m *s3Match) fitsSource(ref S3Ref, v Verdict) bool {
	if ref.Region != "" || len(m.regions) == 0 {
		return m.fits(ref, v)
	}
	return slices.ContainsFunc(m.regions, func(r string) bool { return regionPartition(r) == ref.Partition })
}

// ownedName returns NAME-ACCOUNT of a host that names both, "" for others.
// It is always the host's first label.
func ownedName(h Host, ref S3Ref) string {
	n := len(ref.AccessPoint)
	if ref.AccessPoint == "" || ref.Account == "" || !strings.HasPrefix(h.name, ref.AccessPoint) ||
		!strings.HasPrefix(h.name[n:], "-") || !strings.HasPrefix(h.name[n+1:], ref.Account) {
		return ""
	}
	return h.name[:n+1+len(ref.Account)]
}

// findPoint visits the rules of an access point, by its name and by
// NAME-ACCOUNT, which is "" where the account is not known. A name may itself
// end like an account, and anybody may give one of his that name: a pattern
// with an account means the owner, so such a name fits only with its own.
func (p *Policy) findPoint(name, owned string, visit visit) {
	if owned == "" || !endsInAccount(name) {
		p.accessPoint.find(name, visit)
	}
	if owned != "" {
		p.accessPoint.find(owned, visit)
	}
}

// partitions returns the partitions that have S3.
func partitions() []string {
	return []string{
		"aws", "aws-us-gov", "aws-cn", "aws-eusc",
		"aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f",
	}
}

// s3Destination compiles a rule's s3 key into the rule and the indexes.
func (c *compiler) s3Destination(r *reader, text *ruleText, rule *Rule, id int32) {
	s := text.s3
	if !s.listed {
		r.fail(s.node, "write buckets: [name], access_points: [name], or both", "the s3 rule %q lists no bucket", text.name)
	}
	rule.match.s3 = c.s3Scope(r, s, text.verdict)
	c.s3Conditions(r, text, rule)
	for _, n := range s.buckets {
		for _, p := range c.bucketPatterns(r, n, text) {
			if suffix := aliasSuffix(p); suffix != "" {
				r.fail(n, fmt.Sprintf("write access_points: [%q]", p), "a name that ends in %q is an access point's alias, never a bucket's", suffix)
				continue
			}
			c.policy.buckets.add(p, id, c.bucketGlob)
			rule.match.buckets = append(rule.match.buckets, p)
		}
	}
	for _, n := range s.accessPoints {
		for _, p := range c.bucketPatterns(r, n, text) {
			c.policy.accessPoint.add(p, id, c.bucketGlob)
			rule.match.accessPoints = append(rule.match.accessPoints, p)
		}
	}
	c.share(rule, id)
	if text.verdict == Allow {
		c.advise(r, text, rule)
	}
}

// aliasSuffix returns the reserved ending of an access point alias that a
// name has. S3 gives such names out itself; no bucket can have one.
func aliasSuffix(name string) string {
	for _, suffix := range []string{"-s3alias", "--ol-s3", "--op-s3", "--xa-s3", ".mrap"} {
		if strings.HasSuffix(name, suffix) {
			return suffix
		}
	}
	return ""
}

// s3Scope compiles the keys regions and partition. Bucket names are unique
// within a partition only, so a rule that names neither means partition aws:
// a stranger may own the same name in another. A deny rule means them all.
func (c *compiler) s3Scope(r *reader, s *s3Text, v Verdict) *s3Match {
	m := &s3Match{}
	if s.partition != nil {
		m.partition = s.partition.Value
		if !slices.Contains(partitions(), m.partition) {
			r.fail(s.partition, "write one of "+strings.Join(partitions(), ", "), "there is no partition %q", m.partition)
		}
	} else if v == Allow && len(s.regions) == 0 {
		m.partition = "aws"
	}
	for _, n := range s.regions {
		switch {
		case !isRegion(n.Value):
			r.fail(n, "write it like us-east-1", "%q is not a Region", n.Value)
		case s.partition != nil && regionPartition(n.Value) != m.partition:
			r.fail(n, "leave partition out, the Regions say it", "the Region %q is not in partition %q", n.Value, m.partition)
		}
		m.regions = append(m.regions, n.Value)
	}
	return m
}

// bucketPatterns parses one entry of buckets or access_points.
func (c *compiler) bucketPatterns(r *reader, n *yaml.Node, text *ruleText) []string {
	all, err := parseBucketPattern(n.Value)
	if err != nil {
		r.failIn(n, err.offset, err.hint, "%s", err.message)
		return nil
	}
	for _, p := range all {
		literal := len(p) - strings.Count(p, "*")
		if !hasWildcard(p) || literal >= minBucketText || text.verdict == Deny {
			continue
		}
		if text.allowBroad != nil {
			c.broadUsed = true
			continue
		}
		r.fail(n, "spell more of the name out, or write allow_broad: true in the rule",
			"%q matches the buckets of strangers: it has fewer than %d characters besides *", n.Value, minBucketText)
		return nil
	}
	return all
}

// minBucketText is how many characters a bucket glob must spell out.
const minBucketText = 3
