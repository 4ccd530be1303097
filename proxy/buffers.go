package proxy

import (
	"bytes"
	"sync"
)

const (
	// answerSize is how much of an answer is held back until there is a reason
	// to send it: the origin is waited for, or the answer is complete.
	answerSize = 8 << 10
	// copySize is how much of a body is read at once.
	copySize = 32 << 10
)

// httpBuffers lends buffers for the time of one message, so that a connection
// without one holds none, and a small exchange does not cost the collector
// what a large one needs. The zero value is ready to use.
type httpBuffers struct{ heads, bodies sync.Pool }

// head returns an empty buffer for a head and what is sent along with it.
func (b *httpBuffers) head() *bytes.Buffer {
	if buf, ok := b.heads.Get().(*bytes.Buffer); ok {
		return buf
	}
	return bytes.NewBuffer(make([]byte, 0, answerSize))
}

func (b *httpBuffers) giveHead(buf *bytes.Buffer) {
	if buf.Cap() <= 4*answerSize { // a large one would stay large
		buf.Reset()
		b.heads.Put(buf)
	}
}

func (b *httpBuffers) body() *[copySize]byte {
	if buf, ok := b.bodies.Get().(*[copySize]byte); ok {
		return buf
	}
	return new([copySize]byte)
}

func (b *httpBuffers) giveBody(buf *[copySize]byte) { b.bodies.Put(buf) }
