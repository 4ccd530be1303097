package policy

import (
	"fmt"
	"slices"
	"strings"
)

// advise notes what an s3 rule cannot hold its bucket to.
func (c *compiler) advise(r *reader, text *ruleText, rule *Rule) {
	if !rule.match.s3.inspect && rule.Protocol != ProtocolHTTP {
		c.note(r.pos(text.s3.node), "write inspect: true, or back it with a VPC endpoint policy",
			"the s3 rule %q is advisory: S3 routes by the Host header inside TLS, so a client that holds one bucket's name can ask for another's", rule.Name)
	}
	if rule.match.s3.opaque {
		c.note(r.pos(text.s3.opaque), "write inspect: true instead, which reads the bucket from the path",
			"opaque: allow in the rule %q lets clients reach every bucket of its Regions, path-style", rule.Name)
	}
	for _, p := range rule.match.buckets {
		if hasWildcard(p) && !ownedByAccount(p) {
			c.note(r.pos(text.s3.node), "list whole names, or names in an account's own namespace: PREFIX-ACCOUNT-REGION-an",
				"anybody can create a bucket that %q in the rule %q matches", p, rule.Name)
		}
	}
	for _, p := range rule.match.accessPoints {
		if aliasSuffix(p) == "" && !endsInAccount(p) {
			c.warn(r.pos(text.s3.node), fmt.Sprintf("write %q, the name and the account that owns it", p+"-111122223333"),
				"the access point %q of the rule %q may be any account's", p, rule.Name)
		}
	}
}

// ownedByAccount reports whether every bucket that fits a pattern is one
// account's, by the form of its name.
func ownedByAccount(pattern string) bool {
	account, _ := ownedBucket(pattern[strings.LastIndexByte(pattern, '*'):])
	return account != ""
}

// endsInAccount reports whether a pattern spells an account at its end.
func endsInAccount(pattern string) bool {
	i := strings.LastIndexByte(pattern, '-')
	return i > 0 && isAccount(pattern[i+1:])
}

// inspected is where the policy inspects: the first rule that does, by Region
// and by partition.
type inspected map[string]*Rule

// noteUninspected notes the allow rules that let connections to S3 through
// unseen where other rules inspect: what inspection denies is asked for there.
func (c *compiler) noteUninspected() {
	where := inspected{}
	for i := range c.policy.rules {
		if r := &c.policy.rules[i]; r.Verdict == Allow && r.inspects() {
			where.add(r)
		}
	}
	if len(where) == 0 {
		return
	}
	for i := range c.policy.rules {
		r := &c.policy.rules[i]
		if r.Verdict == Deny || r.inspects() || r.Protocol == ProtocolHTTP {
			continue
		}
		if by := where.reachedBy(r); by != nil {
			c.note(r.Pos, "write inspect: true in it, too, as an s3 rule",
				"the rule %q lets connections to S3 through uninspected, and in them a client reaches what the rule %q inspects", r.Name, by.Name)
		}
	}
}

func (w inspected) add(r *Rule) {
	m := r.match.s3
	scopes := m.regions
	if len(scopes) == 0 {
		scopes = []string{m.partition}
	}
	for _, s := range scopes {
		// A partition's name stands for all of it, "in aws" for some Region.
		for _, key := range []string{s, "in " + partitionOfScope(s)} {
			if w[key] == nil {
				w[key] = r
			}
		}
	}
}

// partitionOfScope returns the partition of a Region, or a partition itself.
func partitionOfScope(scope string) string {
	if slices.Contains(partitions(), scope) {
		return scope
	}
	return regionPartition(scope)
}

// reachedBy returns a rule that inspects what connections of r can reach, nil
// when there is none.
func (w inspected) reachedBy(r *Rule) *Rule {
	if m := r.match.s3; m != nil {
		if len(m.regions) == 0 {
			return w["in "+m.partition]
		}
		for _, region := range m.regions {
			if by := w.in(region, regionPartition(region)); by != nil {
				return by
			}
		}
		return nil
	}
	for _, host := range r.match.hosts {
		h, err := ParseHost(host)
		if err != nil || hasWildcard(host) {
			continue
		}
		if ref, ok := ParseS3Host(h); ok {
			if by := w.in(ref.Region, ref.Partition); by != nil {
				return by
			}
		}
	}
	return nil
}

// in returns a rule that inspects in a Region, which is "" where a host does
// not tell it.
func (w inspected) in(region, partition string) *Rule {
	if region == "" {
		return w["in "+partition]
	}
	if by := w[region]; by != nil {
		return by
	}
	return w[partition]
}
