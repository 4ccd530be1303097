package proxy

import (
	"bytes"
	"errors"
	"net/http"
)

// maxHeadFields bounds the fields of a head, a request's or a response's. To
// hold one costs a hundred bytes and more, and on the wire it can be four: a
// bound on bytes alone would let a peer make us hold thirty times what it
// sent. Ordinary heads have ten to fifty.
const maxHeadFields = 256

var errHeadFields = errors.New("the head has too many fields")

// headGauge counts the fields of one head as it is read, since net/http looks
// at its bytes only.
type headGauge struct {
	lines int
	begun bool // the line at hand is not empty
	ended bool // the rest is not the head's
}

// take counts what was read of a head, perhaps with what stands behind it, and
// returns an error when that is too much.
func (g *headGauge) take(p []byte) error {
	for !g.ended && len(p) > 0 {
		line, rest, complete := bytes.Cut(p, []byte("\n"))
		p = rest
		if len(line) > 1 || len(line) == 1 && line[0] != '\r' {
			g.begun = true
		}
		if !complete {
			break
		}
		g.ended = !g.begun
		g.begun = false
		g.lines++
	}
	if g.full() {
		return errHeadFields
	}
	return nil
}

// full reports whether there were too many fields, beside the request line and
// the empty one at the end.
func (g *headGauge) full() bool { return g.lines > maxHeadFields+2 }

// checkFields judges the fields of a head that the origin sent.
func checkFields(h http.Header) error {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	if n > maxHeadFields {
		return errHeadFields
	}
	return nil
}
