package main

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policy"
)

func newExplainer(tb testing.TB, text string, out io.Writer) *explainer {
	tb.Helper()
	p, err := policy.Load(policy.Text{Name: "p.yaml", Data: []byte(text)})
	if err != nil {
		tb.Fatal(err)
	}
	return &explainer{policy: p, common: question{Source: "127.0.0.1"}, out: bufio.NewWriter(out)}
}

// running is an explainer at work on a pipe.
type running struct{ done chan error }

func (r running) wait() { <-r.done }

func streamOf(t *testing.T, text string) (running, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	e := newExplainer(t, text, outW)
	r := running{make(chan error, 1)}
	go func() {
		err := e.stream(inR)
		outW.Close()
		r.done <- err
	}()
	return r, inW, bufio.NewReader(outR)
}

// TestExplainMany asks more than anyone could hold: the reader
// makes lines as they are wanted, the writer forgets them.
func TestExplainMany(t *testing.T) {
	const n = 100_000
	lines := &lineMaker{left: n}
	counter := &lineCounter{}
	e := newExplainer(t, "version: 1\nrules: [{name: a, hosts: ['**.example.com']}]\n", counter)
	if err := e.stream(lines); err != nil {
		t.Fatal(err)
	}
	if counter.lines != n {
		t.Errorf("%d answers to %d questions", counter.lines, n)
	}
}

type lineMaker struct{ left int }

func (m *lineMaker) Read(p []byte) (int, error) {
	const line = "https://www.example.com/path?query\n"
	if m.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for m.left > 0 && n+len(line) <= len(p) {
		n += copy(p[n:], line)
		m.left--
	}
	if n == 0 { // p is shorter than a line, which bufio never asks for
		return 0, io.ErrShortBuffer
	}
	return n, nil
}

type lineCounter struct{ lines int }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines += strings.Count(string(p), "\n")
	return len(p), nil
}

// FuzzExplainLine: whatever a line holds, it gets one line of JSON that begins
// with a URL and has either a verdict or an error.
func FuzzExplainLine(f *testing.F) {
	for _, seed := range []string{"a.test", `{"url":"a"}`, "{", "https://[::1]:8/", "\x00", `{"url":5}`, "http://a:99999", "\xff\xfe"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) == 0 {
			return
		}
		var out strings.Builder
		e := newExplainer(t, "version: 1\nrules: [{name: a, hosts: [a.test]}]\n", &out)
		if err := e.answerLine(line, false); err != nil {
			t.Fatal(err)
		}
		if err := e.out.Flush(); err != nil {
			t.Fatal(err)
		}
		answer := out.String()
		var got struct {
			URL     *string
			Verdict string
			Error   string
		}
		if strings.Count(answer, "\n") != 1 || json.Unmarshal([]byte(answer), &got) != nil {
			t.Fatalf("not one line of JSON: %q", answer)
		}
		if got.URL == nil || (got.Verdict == "") == (got.Error == "") {
			t.Fatalf("neither verdict nor error: %s", answer)
		}
	})
}
