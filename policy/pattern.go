package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds on a pattern. They keep its expansion small, and the backtracking of
// a glob over the longest possible name (at most 0.1 ms was measured, where
// four `*` in one label took seconds); no honest pattern meets them.
const (
	maxAlternatives = 64  // names that the braces of one pattern stand for
	maxPattern      = 512 // bytes of one pattern as written
	maxLabelStars   = 2   // `*` in one label
	maxPartialStars = 3   // `*` beside other characters, in all labels
	maxDoubleStars  = 2   // `**` labels
)

// patternError is what is wrong with a pattern, at a byte offset in it.
type patternError struct {
	offset  int
	message string
	hint    string
}

func (e *patternError) Error() string { return e.message }

func badPattern(offset int, hint, format string, args ...any) *patternError {
	return &patternError{offset: offset, message: fmt.Sprintf(format, args...), hint: hint}
}

// parseHostPattern returns the patterns, free of braces and canonical, that a
// host pattern of a document stands for. The grammar is DESIGN.md's
// section 5: labels of letters, digits, "-", "_" and at most two "*"; "**" as
// a label; one level of {a,b}.
func parseHostPattern(s string) ([]string, *patternError) {
	if err := notAName(s); err != nil {
		return nil, err
	}
	s = strings.ToLower(s)
	if err := checkCharacters(s, "letters, digits, - _ . * and {a,b}"); err != nil {
		return nil, err
	}
	all, err := expandBraces(strings.TrimSuffix(s, "."))
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if err := checkHostPattern(p); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// parseBucketPattern is parseHostPattern for names of S3 buckets and access
// points, where "." is a character like others and "**" would say nothing.
func parseBucketPattern(s string) ([]string, *patternError) {
	if strings.ContainsAny(s, "/:") {
		return nil, badPattern(strings.IndexAny(s, "/:"), "write the bucket's name alone, without s3:// and without a key", "a bucket's name has no %q", s[strings.IndexAny(s, "/:")])
	}
	if lower := strings.ToLower(s); lower != s {
		return nil, badPattern(0, fmt.Sprintf("write %q; a host name cannot carry upper case", lower), "%q has upper-case letters", s)
	}
	if err := checkCharacters(s, "letters, digits, - _ . * and {a,b}"); err != nil {
		return nil, err
	}
	if i := strings.Index(s, "**"); i >= 0 {
		return nil, badPattern(i, "write *; it matches dots too in a bucket's name", "** is for host names")
	}
	all, err := expandBraces(s)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if strings.Count(p, "*") > maxLabelStars {
			return nil, badPattern(0, "", "%q has more than %d *", p, maxLabelStars)
		}
		if len(p) > 255 {
			return nil, badPattern(0, "", "%q is longer than any bucket's name", p)
		}
		// Beside a wildcard anything may come, so only a whole name is judged.
		if sample := strings.ReplaceAll(p, "*", "x"); strings.Contains(sample, "..") || strings.HasPrefix(sample, ".") || strings.HasSuffix(sample, ".") {
			return nil, badPattern(0, "", "%q matches no bucket: its dots stand wrong", p)
		}
		if !strings.Contains(p, "*") && len(p) < 3 {
			return nil, badPattern(0, "", "%q is no bucket's name: they have at least 3 characters", p)
		}
	}
	return all, nil
}

// notAName refuses what is not the pattern of a name but belongs under
// another key.
func notAName(s string) *patternError {
	bare := strings.Trim(s, "[]")
	if _, err := netip.ParseAddr(bare); err == nil {
		return badPattern(0, fmt.Sprintf("write cidrs: [%q]", bare), "%q is an address, not a name", s)
	}
	if _, err := netip.ParsePrefix(bare); err == nil {
		return badPattern(0, fmt.Sprintf("write cidrs: [%q]", bare), "%q is a range of addresses, not a name", s)
	}
	if strings.Contains(s, "://") {
		hint := "write the host name alone"
		if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
			hint = fmt.Sprintf("write %q", u.Hostname())
			if u.Port() != "" {
				hint += fmt.Sprintf(" and ports: [%s]", u.Port())
			}
		}
		return badPattern(0, hint, "%q is a URL, not a host name", s)
	}
	if host, port, found := strings.Cut(s, ":"); found {
		return badPattern(len(host), fmt.Sprintf("write %q and ports: [%s]", host, port), "a host pattern has no port")
	}
	if host, _, found := strings.Cut(s, "/"); found {
		return badPattern(len(host), fmt.Sprintf("write %q; a rule judges names, not paths", host), "a host pattern has no path")
	}
	if i := strings.IndexByte(s, '@'); i >= 0 {
		return badPattern(i, fmt.Sprintf("write %q", s[i+1:]), "a host pattern has no user name")
	}
	if len(s) > maxPattern {
		return badPattern(0, "make several patterns of it", "the pattern is longer than %d characters", maxPattern)
	}
	return nil
}

// checkCharacters refuses a character outside of the grammar.
func checkCharacters(s, grammar string) *patternError {
	for i, c := range s {
		if ('a' <= c && c <= 'z') || ('0' <= c && c <= '9') || strings.ContainsRune("-_.*{},", c) {
			continue
		}
		switch {
		case c >= utf8.RuneSelf:
			hint := "write the A-label form (xn--...)"
			if ascii := asciiPattern(s); ascii != "" {
				hint = fmt.Sprintf("write %q", ascii)
			}
			return badPattern(i, hint, "%q is not an ASCII name", s)
		case strings.ContainsRune("?[]\\!", c):
			return badPattern(i, "write * for any characters of a label, {a,b} for alternatives", "%q is not part of the pattern grammar", c)
		case c == ' ':
			return badPattern(i, "make two entries of two names", "a pattern has no spaces")
		}
		return badPattern(i, "patterns are of "+grammar, "%q is not part of the pattern grammar", c)
	}
	return nil
}

// asciiPattern returns s with each label in A-label form, "" when a label has
// none.
func asciiPattern(s string) string {
	labels := strings.FieldsFunc(s, func(c rune) bool { return strings.ContainsRune(".。．｡", c) })
	for i, l := range labels {
		if strings.Trim(l, "*") == "" {
			continue
		}
		a, err := idna.Lookup.ToASCII(l)
		if err != nil {
			return ""
		}
		labels[i] = a
	}
	return strings.Join(labels, ".")
}

// expandBraces returns the patterns that one level of {a,b} stands for.
func expandBraces(s string) ([]string, *patternError) {
	all := []string{""}
	for offset := 0; offset < len(s); {
		open := strings.IndexAny(s[offset:], "{},")
		if open < 0 {
			appendEach(all, s[offset:])
			break
		}
		open += offset
		appendEach(all, s[offset:open])
		if s[open] != '{' {
			return nil, badPattern(open, "write {a,b}, or make two entries", "%q without an open {", s[open])
		}
		end := strings.IndexAny(s[open+1:], "{}")
		switch {
		case end < 0:
			return nil, badPattern(open, "close it with }", "unclosed {")
		case s[open+1+end] == '{':
			return nil, badPattern(open+1+end, "make two entries of it", "braces inside of braces")
		}
		end += open + 1
		alternatives := strings.Split(s[open+1:end], ",")
		if slices.Contains(alternatives, "") {
			return nil, badPattern(open, "write a second entry for the form without it", "an empty alternative")
		}
		if len(all)*len(alternatives) > maxAlternatives {
			return nil, badPattern(open, "make several entries of it", "the braces stand for more than %d names", maxAlternatives)
		}
		all = multiply(all, alternatives)
		offset = end + 1
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func appendEach(all []string, tail string) {
	for i := range all {
		all[i] += tail
	}
}

func multiply(all, tails []string) []string {
	product := make([]string, 0, len(all)*len(tails))
	for _, a := range all {
		for _, t := range tails {
			product = append(product, a+t)
		}
	}
	return product
}

// checkHostPattern checks the labels of a pattern without braces.
func checkHostPattern(p string) *patternError {
	if p == "*" {
		return badPattern(0, "write ** for every name", "a lone * would match names of one label only")
	}
	partial, double, offset := 0, 0, 0
	for label := range strings.SplitSeq(p, ".") {
		stars := strings.Count(label, "*")
		switch {
		case label == "":
			return badPattern(offset, "", "%q has an empty label", p)
		case label == "**":
			double++
		case strings.Contains(label, "***"):
			return badPattern(offset, "write ** for any number of labels", "*** means nothing more than **")
		case strings.Contains(label, "**"):
			return badPattern(offset, fmt.Sprintf("write **.%s, or a single *", strings.ReplaceAll(label, "**", "")), "** must be a label of its own")
		case stars > maxLabelStars:
			return badPattern(offset, "", "the label %q has more than %d *", label, maxLabelStars)
		case stars > 0 && label != "*":
			partial += stars
		}
		offset += len(label) + 1
	}
	if double > maxDoubleStars || partial > maxPartialStars {
		return badPattern(0, "make several patterns of it", "%q has too many wildcards", p)
	}
	return matchesSomeHost(p)
}

// matchesSomeHost refuses a pattern that no valid name fits.
func matchesSomeHost(p string) *patternError {
	var err error
	for _, fill := range []string{"", "x", "1"} {
		labels := strings.Split(p, ".")
		for i, l := range labels {
			if l == "*" || l == "**" {
				l = "x"
			}
			labels[i] = strings.ReplaceAll(l, "*", fill)
		}
		sample := strings.Join(labels, ".")
		var h Host
		if h, err = ParseHost(sample); err == nil {
			if _, literal := h.Addr(); !literal {
				return nil
			}
			return badPattern(0, "addresses belong in cidrs", "%q is an address, not a name", p)
		}
	}
	// What ParseHost says begins with the name, which the caret shows.
	why := err.Error()
	if i := strings.LastIndexByte(why, '"'); i >= 0 {
		why = "it" + why[i+1:]
	}
	return badPattern(0, "", "no host name can match: %s", why)
}

// hasWildcard reports whether a pattern stands for more than one name.
func hasWildcard(p string) bool { return strings.Contains(p, "*") }
