package policy

import (
	"slices"
	"strings"
)

// Spells reports whether the rule of that name lists the host by itself: its
// name or address, or its bucket or access point, without a wildcard. A
// preset's rule counts as one that does: somebody has listed what it is for.
func (p *Policy) Spells(rule string, h Host) bool {
	if p == nil || rule == "" {
		return false
	}
	if strings.Contains(rule, "/") { // of a preset; other names have none
		return true
	}
	i := slices.IndexFunc(p.rules, func(r Rule) bool { return r.Name == rule })
	if i < 0 {
		return false
	}
	m := &p.rules[i].match
	if a, literal := h.Addr(); literal {
		for _, prefix := range m.prefixes {
			if prefix.IsSingleIP() && prefix.Addr() == a.Unmap() {
				return true
			}
		}
		return false
	}
	ref, _ := ParseS3Host(h)
	return slices.Contains(m.hosts, h.String()) ||
		ref.Bucket != "" && slices.Contains(m.buckets, ref.Bucket) ||
		ref.AccessPoint != "" && slices.Contains(m.accessPoints, ref.AccessPoint)
}

// RegisteredDomain returns the domain that somebody registered and to which h
// belongs: one label more than its public suffix, the private part of the list
// included, so that every bucket and every customer's name has its own. It
// returns "" for addresses and for names that are public suffixes themselves.
func RegisteredDomain(h Host) string {
	if _, literal := h.Addr(); literal || h.IsZero() {
		return ""
	}
	labels := strings.Split(h.String(), ".")
	suffix := 1 // labels; the rule for what the list does not know
	n := publicSuffixes()
	for i := len(labels) - 1; i >= 0 && n != nil; i-- {
		depth := len(labels) - i
		child := n.children[labels[i]]
		switch {
		case child != nil && child.owned:
			suffix, child = depth-1, nil
		case child != nil && child.suffix, n.any != nil:
			suffix = depth
		}
		n = child
	}
	if len(labels) <= suffix {
		return ""
	}
	return strings.Join(labels[len(labels)-suffix-1:], ".")
}
