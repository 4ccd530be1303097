package logging

import (
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// guard passes lines on, each with one Write, as printable ASCII with one line
// feed at the end: the last defence against forged lines and terminal escapes.
type guard struct {
	w      io.Writer
	escape func(dst, line []byte) []byte
}

// Write implements [io.Writer]; p is one line.
func (g guard) Write(p []byte) (int, error) {
	line := p
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	out := p
	if len(line) == len(p) || !printable(line) {
		out = append(g.escape(make([]byte, 0, len(p)+64), line), '\n')
	}
	if n, err := g.w.Write(out); err != nil {
		return min(n, len(p)), err
	}
	return len(p), nil
}

// maxLine bounds a line of the daemon's log.
const maxLine = 32 << 10

// bound replaces a JSON line that is longer than [maxLine] by one that says so:
// somebody logged what a client sent without cutting it.
type bound struct{ w io.Writer }

// Write implements [io.Writer]; p is one line.
func (b bound) Write(p []byte) (int, error) {
	out := p
	if len(p) > maxLine {
		var short lineBuffer
		log := zerolog.New(&short).Hook(stamp{})
		log.Warn().Int("bytes", len(p)).Str("head", clean(string(p[:messageLimit]), messageLimit)).
			Msg("a line of this log was too long")
		out = short.line
	}
	if n, err := b.w.Write(out); err != nil {
		return min(n, len(p)), err
	}
	return len(p), nil
}

// printable reports whether s needs no escape: ASCII from space to tilde.
func printable[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// appendASCIIJSON appends a JSON text with everything outside printable ASCII
// escaped. In valid JSON such bytes stand in strings, or are white space
// between tokens: its meaning stays.
func appendASCIIJSON(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	unit := func(u rune) {
		dst = append(dst, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r < ' ':
			dst = append(dst, ' ')
		case r <= '~':
			dst = append(dst, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			unit(hi)
			unit(lo)
		default:
			unit(r)
		}
		text = text[n:]
	}
	return dst
}

// appendASCIIText appends text with Go's escapes for everything outside
// printable ASCII.
func appendASCIIText(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		dst = appendRune(dst, r, text[:n])
		text = text[n:]
	}
	return dst
}

// appendRune appends one rune, or the one byte that is none, in printable
// ASCII.
func appendRune[T string | []byte](dst []byte, r rune, raw T) []byte {
	const hex = "0123456789abcdef"
	switch {
	case r >= ' ' && r <= '~':
		return append(dst, byte(r))
	case r == utf8.RuneError && len(raw) == 1:
		return append(dst, '\\', 'x', hex[raw[0]>>4], hex[raw[0]&15])
	}
	q := strconv.AppendQuoteRuneToASCII(dst, r) // 'x': the quotes come off
	copy(q[len(dst):], q[len(dst)+1:])
	return q[:len(q)-2]
}

// cutMark ends a string that was cut.
const cutMark = "..."

// legible returns an operator's string, in any script, in at most limit bytes;
// what is not printable is escaped and what is too long is cut as in [clean].
func legible(s string, limit int) string {
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return clean(s, limit)
		}
	}
	if len(s) <= limit {
		return s
	}
	end := limit - len(cutMark)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + cutMark
}

// Clean returns a string that a client wrote as the flow log has it: printable
// ASCII in at most limit bytes (at least 4), with Go's escapes for everything
// else, the backslash doubled, and "..." at the end of what was cut.
func Clean(s string, limit int) string { return clean(s, limit) }

// clean returns a client's string in printable ASCII, with Go's escapes for the
// rest and the backslash doubled, in at most limit bytes; one that would be
// longer ends with [cutMark], never within an escape. It does not allocate for
// an ordinary name.
func clean(s string, limit int) string { return escape(s, limit, true) }

// sentence is [clean] for a text of ours that may quote what a client wrote,
// as %q does: the backslash stays, or every quotation would be escaped twice.
func sentence(s string, limit int) string { return escape(s, limit, false) }

func escape(s string, limit int, doubled bool) string {
	plain := len(s) <= limit
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] <= '~' && (s[i] != '\\' || !doubled)
	}
	if plain {
		return s
	}
	dst := make([]byte, 0, min(4*len(s), limit+16))
	fits := 0 // how much of dst is whole and leaves room for the mark
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == '\\' && doubled {
			dst = append(dst, '\\')
		}
		dst = appendRune(dst, r, s[:n])
		s = s[n:]
		if len(dst) > limit {
			return string(append(dst[:fits], cutMark...))
		}
		if len(dst) <= limit-len(cutMark) {
			fits = len(dst)
		}
	}
	return string(dst)
}
