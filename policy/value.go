package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readName reads the name of a rule or a source: a word that needs no quotes
// on a command line, in a metric's label or in a header.
func (r *reader) readName(n *yaml.Node, what string) string {
	name, ok := r.text(n, what)
	if !ok {
		return ""
	}
	for i, c := range name {
		inner := i > 0 && strings.ContainsRune("._-", c)
		if ('a' <= c && c <= 'z') || ('0' <= c && c <= '9') || inner {
			continue
		}
		hint := "names are of a-z, 0-9, and after the first character . _ -"
		if better := nameFrom(name); better != "" {
			hint += fmt.Sprintf("; write %q", better)
		}
		r.failIn(n, i, hint, "%s must not hold %q", what, c)
		return ""
	}
	if len(name) > maxName {
		r.fail(n, "", "%s is longer than %d characters", what, maxName)
		return ""
	}
	return name
}

// maxName bounds a name: it is a metric's label and a header's value.
const maxName = 100

// nameFrom makes a name of what somebody wrote for one.
func nameFrom(s string) string {
	better := strings.Map(func(c rune) rune {
		if ('a' <= c && c <= 'z') || ('0' <= c && c <= '9') || strings.ContainsRune("._-", c) {
			return c
		}
		return '-'
	}, strings.ToLower(s))
	return strings.Trim(better, "._-")
}

// readPrefixes reads a list of CIDRs and single addresses.
func (r *reader) readPrefixes(n *yaml.Node, what string) []prefixText {
	var all []prefixText
	for item := range r.items(n, what) {
		text, ok := r.text(item, "an entry of "+what)
		if !ok {
			continue
		}
		if p, ok := r.readPrefix(item, text, what); ok {
			all = append(all, prefixText{p, item})
		}
	}
	return all
}

func (r *reader) readPrefix(n *yaml.Node, text, what string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			r.fail(n, "leave the zone out", "an entry of %s must not have a zone", what)
			return netip.Prefix{}, false
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		hint := "write it like 203.0.113.0/24 or 2001:db8::/32"
		if what == "cidrs" && strings.ContainsAny(text, "abcdefghijklmnopqrstuvwxyz") && !strings.Contains(text, ":") {
			hint = "names belong in hosts"
		}
		r.fail(n, hint, "an entry of %s is neither a CIDR nor an address: %q", what, text)
	case p.Addr().Is4In6():
		hint := "write the IPv4 range"
		if p.Bits() >= 96 {
			hint = "write " + netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked().String()
		}
		r.fail(n, hint, "%q is an IPv4 range in IPv6 clothing", text)
	case p != p.Masked():
		r.fail(n, fmt.Sprintf("write %s, or %s for the one address", p.Masked(), p.Addr()), "%q has bits set behind the prefix", text)
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// readPorts reads a list of ports and ranges, sorted and merged.
func (r *reader) readPorts(n *yaml.Node) []portRange {
	var all []portRange
	for item := range r.items(n, "ports") {
		if p, ok := r.readPort(item); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b portRange) int { return int(a.low) - int(b.low) })
	merged := all[:0]
	for _, p := range all {
		if last := len(merged) - 1; last >= 0 && int(p.low) <= int(merged[last].high)+1 {
			merged[last].high = max(merged[last].high, p.high)
			continue
		}
		merged = append(merged, p)
	}
	return merged
}

// ends splits what is a whole number or a range into its two ends, which are
// the same for a number.
func (r *reader) ends(n *yaml.Node, noun, hint string) (low, high string, ranged, ok bool) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || (tag != "!!int" && tag != "!!str") {
		what := kindOf(n)
		if tag == "!!float" {
			what = n.Value
		}
		r.fail(n, hint, "a %s must be a whole number or a range, not %s", noun, what)
		return "", "", false, false
	}
	if low, high, ranged = strings.Cut(n.Value, "-"); !ranged {
		high = low
	}
	return low, high, ranged, true
}

func (r *reader) readPort(n *yaml.Node) (portRange, bool) {
	const hint = `write a number like 443, or a range in quotes like "8000-8100"`
	low, high, ranged, ok := r.ends(n, "port", hint)
	if !ok {
		return portRange{}, false
	}
	if n.ShortTag() == "!!str" && !ranged {
		r.fail(n, "write the number without quotes", "a port must be a number or a range, not %q", n.Value)
		return portRange{}, false
	}
	from, errFrom := decimal(strings.TrimSpace(low))
	to, errTo := decimal(strings.TrimSpace(high))
	switch {
	case errFrom != nil || errTo != nil || from < 1 || to < 1:
		r.fail(n, hint, "a port must be between 1 and 65535, not %q", n.Value)
	case from > to:
		r.fail(n, fmt.Sprintf(`write "%d-%d"`, to, from), "the range %q runs backwards", n.Value)
	default:
		return portRange{from, to}, true
	}
	return portRange{}, false
}

// decimal reads a port in decimal digits only: YAML would also take 0x1bb,
// 0o673 and 4_4_3.
func decimal(s string) (uint16, error) {
	if strings.Trim(s, "0123456789") != "" || (len(s) > 1 && s[0] == '0') {
		return 0, strconv.ErrSyntax
	}
	v, err := strconv.ParseUint(s, 10, 16)
	return uint16(v), err
}
