package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxErrors bounds how many errors of one load are kept: whoever has more
// has one cause, and reads no further than the first few.
const maxErrors = 20

// Error is one thing that is wrong with a document, and where.
type Error struct {
	Pos     Pos
	Message string // what is wrong; lower case, without a full stop
	Hint    string // what to write instead; "" when there is nothing to add
	Line    string // the source line that Pos points into; "" when there is none
}

// Error returns "file:line:column: message".
func (e *Error) Error() string { return e.Pos.String() + ": " + e.Message }

// Detail returns what Error returns, the source line, a caret under the place
// and the hint, each on a line of its own and without a final newline.
func (e *Error) Detail() string {
	var b strings.Builder
	b.WriteString(e.Error())
	if line, caret := excerpt(e.Line, e.Pos.Column); line != "" {
		fmt.Fprintf(&b, "\n  %s\n  %s", line, caret)
	}
	if e.Hint != "" {
		b.WriteString("\n  hint: " + e.Hint)
	}
	return b.String()
}

// excerptWidth is how much of a source line is shown. A policy in an
// environment variable is often a single line of thousands of characters.
const excerptWidth = 100

// excerpt returns the part of line around the column, counted from 1 in
// characters, safe to print on a terminal, and the caret line below it.
func excerpt(line string, column int) (shown, caret string) {
	runes := []rune(strings.TrimRight(line, "\r\n"))
	at := column - 1
	if strings.TrimSpace(string(runes)) == "" || at < 0 || at > len(runes) {
		return "", ""
	}
	from, to := 0, len(runes)
	if to > excerptWidth {
		from = max(0, min(at-excerptWidth/2, to-excerptWidth))
		to = min(to, from+excerptWidth)
	}
	var text, under strings.Builder
	if from > 0 {
		text.WriteString("…")
		under.WriteString(" ")
	}
	for i, r := range runes[from:to] {
		switch {
		case r == '\t':
			r = ' '
		case !unicode.IsPrint(r):
			r = '�'
		}
		text.WriteRune(r)
		if from+i < at {
			under.WriteByte(' ')
		}
	}
	if to < len(runes) {
		text.WriteString("…")
	}
	return text.String(), under.String() + "^"
}

// Errors is everything that is wrong with the documents of one load, in the
// order in which a reader meets it. It holds at most 20; the last then says
// how many more there are.
type Errors []*Error

// Error returns the errors, one a line.
func (e Errors) Error() string { return e.join((*Error).Error) }

// Detail returns each error's [Error.Detail], one below the other.
func (e Errors) Detail() string { return e.join((*Error).Detail) }

func (e Errors) join(text func(*Error) string) string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = text(err)
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors, for [errors.As].
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, err := range e {
		all[i] = err
	}
	return all
}

// gather puts the errors that the readers met into one value, nil when there
// are none.
func gather(readers ...*reader) error {
	var all Errors
	dropped := 0
	for _, r := range readers {
		slices.SortStableFunc(r.errs, func(a, b *Error) int {
			if a.Pos.Line != b.Pos.Line {
				return a.Pos.Line - b.Pos.Line
			}
			return a.Pos.Column - b.Pos.Column
		})
		all = append(all, r.errs...)
		dropped += r.more
	}
	switch more := len(all) - maxErrors + dropped; {
	case len(all) == 0:
		return nil
	case more > 0:
		last := all[maxErrors-1]
		all = append(all[:maxErrors-1:maxErrors-1], &Error{
			Pos:     last.Pos,
			Message: fmt.Sprintf("%s (and %d more errors)", last.Message, more),
			Hint:    last.Hint, Line: last.Line,
		})
	}
	return all
}

// Warning is something in a policy that is allowed and probably not meant,
// or, among the notes, something that its author should know.
type Warning struct {
	Pos     Pos
	Message string
	Hint    string // "" when there is nothing to add
}

// String returns "file:line:column: message".
func (w Warning) String() string { return w.Pos.String() + ": " + w.Message }

// String returns "file:line:column"; the file alone when there is no line,
// and "" for the zero Pos.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}
