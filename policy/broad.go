package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/weppos/publicsuffix-go/publicsuffix"
	"go.yaml.in/yaml/v3"
)

// suffixNode is a label in the tree of public suffixes, whose root is the
// empty name and whose children are the labels further left.
type suffixNode struct {
	name     string // the suffix that ends here, read from the left
	suffix   bool   // strangers register names directly below
	owned    bool   // the rule !name: not a suffix although *.parent is one
	children map[string]*suffixNode
	any      *suffixNode // the rule *.name: every label here is a suffix
	example  string      // the shortest suffix at or below this node
}

// publicSuffixes returns the tree of the Public Suffix List, the private
// part included: names below amazonaws.com or github.io are given to
// strangers no less than names below com.
var publicSuffixes = sync.OnceValue(func() *suffixNode {
	const (
		wildcardType  = 2
		exceptionType = 3
	)
	root := &suffixNode{}
	for _, rule := range publicsuffix.DefaultRules() {
		n := root.grow(rule.Value)
		if rule.Type == exceptionType {
			n.owned = true
			continue
		}
		if rule.Type == wildcardType {
			n.any = &suffixNode{name: "*." + rule.Value, suffix: true}
			n.any.example = n.any.name
			continue
		}
		n.suffix = true
	}
	root.sum()
	root.example = "com" // rather than the shortest there is
	return root
})

// grow returns the node of a name, which it makes where there is none.
func (n *suffixNode) grow(name string) *suffixNode {
	for labels := strings.Split(name, "."); len(labels) > 0; labels = labels[:len(labels)-1] {
		label := labels[len(labels)-1]
		child := n.children[label]
		if child == nil {
			if n.children == nil {
				n.children = make(map[string]*suffixNode)
			}
			child = &suffixNode{name: strings.TrimSuffix(label+"."+n.name, ".")}
			n.children[label] = child
		}
		n = child
	}
	return n
}

// sum fills in the examples.
func (n *suffixNode) sum() {
	if n.suffix {
		n.example = n.name
	}
	if n.any != nil {
		n.example = shorter(n.example, n.any.name)
	}
	for _, child := range n.children {
		child.sum()
		n.example = shorter(n.example, child.example)
	}
}

// shorter returns the shorter of two names, "" being none.
func shorter(a, b string) string {
	switch {
	case a == "":
		return b
	case b == "" || len(a) < len(b) || (len(a) == len(b) && a < b):
		return a
	}
	return b
}

// strangersBelow returns a public suffix whose registrants a pattern spans,
// "" when there is none: some wildcard of it stands where the label that a
// stranger registers stands, or further right.
func strangersBelow(pattern string) string {
	if !hasWildcard(pattern) {
		return ""
	}
	labels := strings.Split(pattern, ".")
	slices.Reverse(labels)
	return publicSuffixes().spanned(labels)
}

// spanned walks a pattern's labels, the last one first.
func (n *suffixNode) spanned(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	label, rest := labels[0], labels[1:]
	atRoot := n.name == ""
	switch wild := hasWildcard(label); {
	case wild && n.suffix:
		return n.name
	case label == "**" || (wild && atRoot):
		return n.example
	case !wild:
		return n.spannedBelow(label, rest, atRoot)
	}
	for _, known := range slices.Sorted(maps.Keys(n.children)) {
		if !fitsLabel(label, known) {
			continue
		}
		if s := n.children[known].spanned(rest); s != "" {
			return s
		}
	}
	if n.any != nil {
		return n.any.spanned(rest)
	}
	return ""
}

// spannedBelow goes on below a label without a wildcard.
func (n *suffixNode) spannedBelow(label string, rest []string, atRoot bool) string {
	if child := n.children[label]; child != nil {
		if child.owned {
			return ""
		}
		if s := child.spanned(rest); s != "" {
			return s
		}
	}
	if n.any != nil {
		return n.any.spanned(rest)
	}
	// A top-level domain that the list does not know is one all the same,
	// unless it is set aside for private use.
	if atRoot && n.children[label] == nil && !slices.Contains(privateDomains(), label) {
		return (&suffixNode{name: label, suffix: true}).spanned(rest)
	}
	return ""
}

// privateDomains returns the top-level domains that nobody can register below:
// RFC 2606, RFC 6761, RFC 6762, RFC 9476, and ICANN's resolution on .internal
// (2024).
func privateDomains() []string {
	return []string{"alt", "corp", "example", "home", "internal", "invalid", "lan", "local", "localhost", "mail", "test"}
}

// fitsLabel reports whether a label fits one with at most two `*`.
func fitsLabel(pattern, label string) bool {
	parts := strings.Split(pattern, "*")
	rest, ok := strings.CutPrefix(label, parts[0])
	if !ok {
		return false
	}
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, last)
}

// checkBroad refuses an allow pattern that lets strangers in by registering a
// name, unless the rule says that this is meant.
func (c *compiler) checkBroad(r *reader, n *yaml.Node, text *ruleText, patterns []string) {
	if text.verdict == Deny {
		return
	}
	for _, p := range patterns {
		suffix := strangersBelow(p)
		if suffix == "" {
			continue
		}
		if text.allowBroad != nil {
			c.broadUsed = true
			return
		}
		hint := "spell more of the name out, or write allow_broad: true in the rule if every such name is meant"
		if strings.HasPrefix(suffix, "s3") && strings.Contains(p, ".s3") {
			hint = `list the buckets instead: s3: {buckets: [NAME]}`
		}
		r.fail(n, hint, "%s", fmt.Sprintf("%q spans names that strangers can register: those below the public suffix %q", n.Value, suffix))
		return
	}
}
