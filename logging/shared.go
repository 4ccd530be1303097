package logging

import (
	"io"
	"sync"
)

// Shared lets several writers of whole lines use one writer: none of them
// begins within a line of another. It is safe for concurrent use.
func Shared(w io.Writer) io.Writer { return &shared{w: w} }

type shared struct {
	mu   sync.Mutex // held while writing
	w    io.Writer
	torn bool // the last write ended within a line
}

// Write implements [io.Writer]; p is one or more whole lines. One that begins
// with a line feed means to end a torn line, see [FlowWriter]: that is left out
// where somebody else has done it.
func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	skipped := 0
	switch {
	case s.torn && p[0] != '\n':
		if n, err := s.w.Write([]byte("\n")); n == 0 {
			return 0, err
		}
		s.torn = false
	case !s.torn && p[0] == '\n':
		p, skipped = p[1:], 1
	}
	n, err := s.w.Write(p)
	if n > 0 {
		s.torn = p[min(n, len(p))-1] != '\n'
	}
	return n + skipped, err
}
