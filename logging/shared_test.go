package logging

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// tearingAt writes at most as much of each Write as its turn says, and fails
// then.
type tearingAt struct {
	bytes.Buffer
	most []int // of the next writes; none: everything
}

func (w *tearingAt) Write(p []byte) (int, error) {
	if len(w.most) == 0 {
		return w.Buffer.Write(p)
	}
	n := min(w.most[0], len(p))
	w.most = w.most[1:]
	_, _ = w.Buffer.Write(p[:n])
	return n, errors.New("no space left on device")
}

func TestSharedKeepsLinesApart(t *testing.T) {
	tests := []struct {
		name   string
		most   []int
		writes []string
		want   string
	}{
		{"nothing torn", nil, []string{"a\n", "b\n"}, "a\nb\n"},
		{"the other writer comes after a torn line", []int{1}, []string{"aa\n", "b\n"}, "a\nb\n"},
		{"the writer of the torn line ends it itself", []int{1}, []string{"aa\n", "\nb\n"}, "a\nb\n"},
		{"somebody else has ended it", []int{1}, []string{"aa\n", "b\n", "\nc\n"}, "a\nb\nc\n"},
		{"nothing of a line was written", []int{0}, []string{"aa\n", "b\n"}, "b\n"},
		{"the end of the line fails, too", []int{1, 0}, []string{"aa\n", "b\n", "c\n"}, "a\nc\n"},
		{"the line is ended, and nothing more is written", []int{1, 1, 0}, []string{"aa\n", "b\n", "c\n"}, "a\nc\n"},
		{"nothing", nil, []string{""}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := &tearingAt{most: tt.most}
			w := Shared(out)
			for _, s := range tt.writes {
				if n, err := w.Write([]byte(s)); err == nil && n != len(s) {
					t.Errorf("%d of %q without an error", n, s)
				}
			}
			if out.String() != tt.want {
				t.Errorf("%q, want %q", out.String(), tt.want)
			}
		})
	}
}

func TestSharedByMany(t *testing.T) {
	var out bytes.Buffer
	w := Shared(&out)
	var writers sync.WaitGroup
	for g := range 4 {
		writers.Go(func() {
			for i := range 100 {
				fmt.Fprintf(w, "writer %d line %d\n", g, i)
			}
		})
	}
	writers.Wait()
	if n := strings.Count(out.String(), "\n"); n != 400 {
		t.Errorf("%d lines", n)
	}
}
