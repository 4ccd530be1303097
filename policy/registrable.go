package policy

import "strings"

// registrable returns the name that somebody registered, of which h is a part:
// the public suffix and one label more. A public suffix itself has none: "".
func registrable(name string) string {
	labels := strings.Split(name, ".")
	n := publicSuffixes()
	suffix := 1 // a top-level domain is one, known or not
	for i := len(labels) - 1; i >= 0 && n != nil; i-- {
		child := n.children[labels[i]]
		if child == nil {
			child = n.any
		}
		if child == nil {
			break
		}
		if child.owned {
			suffix = len(labels) - i - 1
			break
		}
		if child.suffix {
			suffix = len(labels) - i
		}
		n = child
	}
	if suffix >= len(labels) {
		return ""
	}
	return strings.Join(labels[len(labels)-suffix-1:], ".")
}
