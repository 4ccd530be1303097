package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// The exit codes (DESIGN.md section 7).
const (
	exitOK    = 0 // done, or yes
	exitNo    = 1 // failed, or no
	exitUsage = 2 // the command line, the configuration or the first policy is not acceptable
)

// fault is an error for the person at the terminal: what is wrong, and what
// to do about it.
type fault struct {
	code int    // exit code; 0 counts as exitNo
	err  error  // what is wrong
	hint string // the remedy; "" when there is nothing to add
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// errNo ends a command whose answer is no, and which has already said so.
var errNo = errors.New("no")

// refuse returns a fault of usage or configuration.
func refuse(hint, format string, args ...any) error {
	return &fault{code: exitUsage, err: fmt.Errorf(format, args...), hint: hint}
}

// leaves returns the errors that a tree of errors.Join holds, in order.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	if f, ok := err.(*fault); ok { //nolint:errorlint // a leaf is what stands here, not what it wraps
		return []error{f}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, leaves(e)...)
	}
	return all
}

// report writes err for a person, each hint under its error, and returns the
// exit code that it stands for.
func report(w io.Writer, err error) int {
	code := exitOK
	for _, e := range leaves(err) {
		code = max(code, exitNo)
		if errors.Is(e, errNo) {
			continue
		}
		fmt.Fprintf(w, "sallyport: %s\n", indent(mask(e.Error())))
		if f, ok := errors.AsType[*fault](e); ok {
			code = max(code, f.code)
			if f.hint != "" {
				fmt.Fprintf(w, "sallyport: hint: %s\n", f.hint)
			}
		}
	}
	return code
}

// indent sets the further lines of a message apart from the next one.
func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(s, "\n")) {
		if b.Len() > 0 && !strings.HasPrefix(line, "  ") {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// mask hides the user and password of every URL in s, so that a secret which
// somebody put into one reaches neither the terminal nor the log.
func mask(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "://")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("://")
		end := strings.IndexAny(rest, "/?# \t\n\"")
		if end < 0 {
			end = len(rest)
		}
		if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
			b.WriteString("***")
			rest = rest[at:]
		}
		s = rest
	}
}
