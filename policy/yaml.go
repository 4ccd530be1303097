package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDocument bounds one document's size in bytes.
const maxDocument = 16 << 20

// maxValues bounds how many values one document may hold. YAML's reader takes
// 300 bytes for each before anybody can see what it is, and a large file that
// is no policy at all must not end a proxy that has a good one. A rule has
// about a dozen.
const maxValues = 2_000_000

// reader reads one YAML document strictly and collects what is wrong with
// it. Its methods never stop at the first error: they report it and return
// what a caller can go on with.
type reader struct {
	file  string
	lines []string // parts of one text: an error must not copy a long line
	errs  Errors   // at most maxKept
	more  int      // errors that were not kept
}

// maxKept bounds how many errors of one document are kept until they are
// sorted: a large file that is no policy has one for each of its words.
const maxKept = 1000

// read parses text and returns its root mapping; nil when there is nothing
// to go on with.
func (r *reader) read(t Text) *yaml.Node {
	r.file = t.Name
	switch {
	case len(t.Data) > maxDocument:
		r.failAt(0, 0, "split it into several documents", "the document has %d bytes, more than %d", len(t.Data), maxDocument)
		return nil
	case !utf8.Valid(t.Data):
		line := 1 + bytes.Count(t.Data[:invalidUTF8(t.Data)], []byte("\n"))
		r.failAt(line, 1, "save the file as UTF-8", "the document is not UTF-8 text")
		return nil
	case mostValues(t.Data) > maxValues:
		r.failAt(0, 0, "split it into several documents, if it is a policy", "the document may hold more than %d values", maxValues)
		return nil
	}
	r.lines = strings.Split(string(t.Data), "\n")
	decoder := yaml.NewDecoder(bytes.NewReader(t.Data))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		r.failAt(1, 1, `write at least "version: 1"; a policy without rules denies everything`, "the document is empty")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := decoder.Decode(&second); err == nil {
		r.failAt(second.Line, second.Column, "give each document a file of its own; several are merged", "a second YAML document begins here")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	root := doc.Content[0]
	r.refuseReferences(root)
	if r.faults() > 0 {
		return nil
	}
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		r.failAt(1, 1, `write at least "version: 1"; a policy without rules denies everything`, "the document is empty")
		return nil
	}
	return root
}

// mostValues returns how many values data can hold at most, about: each has a
// line, a comma or a colon before it, or nests.
func mostValues(data []byte) int {
	return bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte(",")) + bytes.Count(data, []byte(": "))
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(data)
}

// syntax reports an error of the YAML parser, whose only place is a line
// number in its text.
func (r *reader) syntax(err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, found := strings.CutPrefix(message, "line "); found {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, convErr := strconv.Atoi(number); convErr == nil {
				line, message = n, text
			}
		}
	}
	line = min(max(line, 1), len(r.lines))
	source := r.lines[line-1]
	column := 1 + len(source) - len(strings.TrimLeft(source, " "))
	hint := ""
	if strings.ContainsRune(source, '\t') {
		hint = "YAML is indented with spaces, never with tabs"
	}
	r.failAt(line, column, hint, "not valid YAML: %s", message)
}

// refuseReferences reports anchors, aliases and merge keys: a policy says
// what it means where it stands. Of the tags that turn a mapping or a list
// into something else nobody here knows one; those of scalars are the affair
// of whoever reads them.
func (r *reader) refuseReferences(n *yaml.Node) {
	const hint = "write the value out; a preset or a source can be named by many rules"
	switch {
	case n.Kind == yaml.AliasNode:
		r.fail(n, hint, "an alias (*%s) is not allowed in a policy", n.Value)
		return
	case n.Anchor != "":
		r.fail(n, hint, "an anchor (&%s) is not allowed in a policy", n.Anchor)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!merge":
		r.fail(n, hint, "a merge key (<<) is not allowed in a policy")
	case n.Kind == yaml.MappingNode && n.ShortTag() != "!!map", n.Kind == yaml.SequenceNode && n.ShortTag() != "!!seq":
		r.fail(n, "leave it out", "the tag %s is not allowed in a policy", n.ShortTag())
	}
	for _, child := range n.Content {
		r.refuseReferences(child)
	}
}

// fail reports an error at a node.
func (r *reader) fail(n *yaml.Node, hint, format string, args ...any) {
	r.failAt(n.Line, n.Column, hint, format, args...)
}

// failIn reports an error at a byte offset inside a scalar's text. Escapes
// and folding make the two differ, so only what stands as written counts.
func (r *reader) failIn(n *yaml.Node, offset int, hint, format string, args ...any) {
	column := n.Column
	if r.full() {
		r.more++
		return
	}
	if line := r.line(n.Line); offset > 0 && offset <= len(n.Value) {
		if i := strings.Index(skipRunes(line, column-1), n.Value); i == 0 || i == 1 {
			column += i + utf8.RuneCountInString(n.Value[:offset])
		}
	} else if strings.HasPrefix(skipRunes(line, column-1), `"`) || strings.HasPrefix(skipRunes(line, column-1), `'`) {
		column++
	}
	r.failAt(n.Line, column, hint, format, args...)
}

// skipRunes returns s without its first n characters.
func skipRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[i:]
		}
		n--
	}
	return ""
}

func (r *reader) failAt(line, column int, hint, format string, args ...any) {
	if r.full() {
		r.more++
		return
	}
	r.errs = append(r.errs, &Error{
		Pos:     Pos{File: r.file, Line: line, Column: column},
		Message: fmt.Sprintf(format, args...),
		Hint:    hint,
		Line:    r.line(line),
	})
}

// full reports whether a further error is counted only.
func (r *reader) full() bool { return len(r.errs) >= maxKept }

// faults counts the errors so far.
func (r *reader) faults() int { return len(r.errs) + r.more }

func (r *reader) line(number int) string {
	if number < 1 || number > len(r.lines) {
		return ""
	}
	return r.lines[number-1]
}

func (r *reader) pos(n *yaml.Node) Pos { return Pos{File: r.file, Line: n.Line, Column: n.Column} }

// fields yields the keys and values of a mapping, after it has reported a
// value that is no mapping, unknown keys, and keys that stand there twice.
func (r *reader) fields(n *yaml.Node, what string, known []string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			r.fail(n, "the keys here are "+strings.Join(known, ", "), "%s must be a mapping of keys to values, not %s", what, kindOf(n))
			return
		}
		// What is beyond the known keys is an error each: nobody reads thousands.
		for i := 0; i+1 < min(len(n.Content), 2*(len(known)+maxErrors)); i += 2 {
			key := n.Content[i]
			if r.known(n, i, what, known) && !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

// known reports whether the i-th node of a mapping is a key that may stand
// there, and says so when it may not.
func (r *reader) known(n *yaml.Node, i int, what string, known []string) bool {
	key := n.Content[i]
	for j := 0; j < i; j += 2 {
		if strings.EqualFold(n.Content[j].Value, key.Value) {
			r.fail(key, "", "%q stands twice in %s, first in line %d", key.Value, what, n.Content[j].Line)
			return false
		}
	}
	for _, k := range known {
		if k == key.Value && key.Kind == yaml.ScalarNode {
			return true
		}
	}
	hint := "the keys here are " + strings.Join(known, ", ")
	if near := nearest(key.Value, known); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	r.fail(key, hint, "unknown key %q in %s", key.Value, what)
	return false
}

// items yields the elements of a list, after it has reported a value that
// is no list and a list without elements.
func (r *reader) items(n *yaml.Node, what string) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		switch {
		case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
			r.fail(n, fmt.Sprintf("write it as a list: [%s]", n.Value), "%s must be a list, not %s", what, kindOf(n))
		case n.Kind != yaml.SequenceNode:
			r.fail(n, "write a list, or leave the key out", "%s must be a list, not %s", what, kindOf(n))
		case len(n.Content) == 0:
			r.fail(n, "leave the key out, or list something", "%s is an empty list", what)
		default:
			for _, item := range n.Content {
				if r.full() || !yield(item) {
					return
				}
			}
		}
	}
}

// texts returns the elements of a list that are text and not empty.
func (r *reader) texts(n *yaml.Node, what string) []*yaml.Node {
	var all []*yaml.Node
	for item := range r.items(n, what) {
		if _, ok := r.text(item, "an entry of "+what); ok {
			all = append(all, item)
		}
	}
	return all
}

// text returns a scalar that is text and not empty.
func (r *reader) text(n *yaml.Node, what string) (string, bool) {
	switch tag := n.ShortTag(); {
	case n.Kind == yaml.ScalarNode && tag == "!!str" && strings.TrimSpace(n.Value) != "":
		return n.Value, true
	case n.Kind == yaml.ScalarNode && (tag == "!!str" || tag == "!!null"):
		r.fail(n, "", "%s is empty", what)
	case n.Kind == yaml.ScalarNode:
		r.fail(n, fmt.Sprintf("quote it: %q", n.Value), "%s must be text, not %s", what, kindOf(n))
	default:
		r.fail(n, "", "%s must be text, not %s", what, kindOf(n))
	}
	return "", false
}

// boolean returns a scalar that is true or false.
func (r *reader) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		r.fail(n, "write true or false, without quotes", "%s must be true or false, not %s", what, kindOf(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// instant returns a scalar that is an RFC 3339 time with a zone.
func (r *reader) instant(n *yaml.Node, what string) time.Time {
	if n.Kind == yaml.ScalarNode {
		if t, err := time.Parse(time.RFC3339, n.Value); err == nil {
			return t
		}
	}
	r.fail(n, "write it like 2026-12-24T00:00:00Z", "%s must be a date and time with a zone (RFC 3339)", what)
	return time.Time{}
}

// word returns a scalar that is one of the words.
func (r *reader) word(n *yaml.Node, what string, words ...string) string {
	choice := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	hint := "write " + choice
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		r.fail(n, hint, "%s must be %s, not %s", what, choice, kindOf(n))
		return ""
	}
	for _, w := range words {
		if w == n.Value {
			return w
		}
	}
	if near := nearest(n.Value, words); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	if n.Value == "https" {
		hint = "write tls" // which is near to no word, and http would be the opposite
	}
	r.fail(n, hint, "%s must be %s, not %q", what, choice, n.Value)
	return ""
}

// kindOf names what a node is, for people.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	case "!!str":
		return "text"
	}
	return "a value of type " + n.ShortTag()
}

// nearest returns the word that s is most likely a slip of, "" when none is
// near.
func nearest(s string, words []string) string {
	best, distance := "", 3
	for _, w := range words {
		if d := slips(strings.ToLower(s), w); d < distance && d < len(w)-1 {
			best, distance = w, d
		}
	}
	return best
}

// slips counts the single characters to change, add, drop or swap with their
// neighbour between two words (optimal string alignment).
func slips(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 3
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
