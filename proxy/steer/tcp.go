package steer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxTCPQuestion bounds a question by TCP, where two bytes could announce 64
// KiB: a name and its options need far less.
const maxTCPQuestion = 4096

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx context.Context, all *connections) {
	for {
		c, err := s.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.deps.Log.Error().Err(err).Msg("dns: accept failed")
			pause(ctx, 100*time.Millisecond)
			continue
		}
		source := addrPortOf(c.RemoteAddr()).Addr()
		if !all.enter(c, source) {
			s.stats.dropped.Add(1)
			c.Close() //nolint:errcheck // nothing was sent
			continue
		}
		s.work.Go(func() {
			defer all.leave(c, source)
			s.converse(ctx, c)
		})
	}
}

// converse answers one question after the other. What the client sends ahead
// waits in the kernel, so that one connection never costs more than one
// question (RFC 7766, section 6.2.1 asks clients to expect answers in any
// order, and this is one).
func (s *Server) converse(ctx context.Context, c *net.TCPConn) {
	defer c.Close() //nolint:errcheck // everything was written
	from := asker{remote: addrPortOf(c.RemoteAddr()), local: addrPortOf(c.LocalAddr())}
	buf := make([]byte, maxTCPQuestion)
	for ctx.Err() == nil {
		_ = c.SetDeadline(time.Now().Add(s.cfg.Idle))
		if ctx.Err() != nil { // the deadline of the end was just overwritten
			return
		}
		wire, err := readFrame(c, buf)
		if err != nil {
			return
		}
		out := s.respond(ctx, wire, from)
		if out == nil {
			return
		}
		_ = c.SetWriteDeadline(time.Now().Add(s.cfg.Idle))
		if _, err := c.Write(frame(out)); err != nil {
			return
		}
	}
}

var errTooLong = errors.New("the question is too long")

// readFrame reads one message into buf (RFC 1035, section 4.2.2).
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	if n > len(buf) {
		return nil, errTooLong
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}

// frame puts a message's length before it. Both go out in one write: some
// clients want them in one segment.
func frame(message []byte) []byte {
	out := make([]byte, 2, 2+len(message))
	binary.BigEndian.PutUint16(out, uint16(len(message))) // pack made at most maxUDPAnswer
	return append(out, message...)
}

// connections are those that are open.
type connections struct {
	most, mostOfOne int

	mu     sync.Mutex // guards what follows
	open   map[*net.TCPConn]bool
	of     map[netip.Addr]int
	ending bool
}

func newConnections(most, mostOfOne int) *connections {
	return &connections{most: most, mostOfOne: mostOfOne, open: make(map[*net.TCPConn]bool), of: make(map[netip.Addr]int)}
}

// enter counts a connection, unless there are too many. Each that entered
// leaves once.
func (a *connections) enter(c *net.TCPConn, source netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending || len(a.open) >= a.most || a.of[source] >= a.mostOfOne {
		return false
	}
	a.open[c] = true
	a.of[source]++
	return true
}

func (a *connections) leave(c *net.TCPConn, source netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, c)
	if a.of[source]--; a.of[source] <= 0 {
		delete(a.of, source)
	}
}

// wake ends every wait for a further question, and lets nobody in any more.
func (a *connections) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ending = true
	for c := range a.open {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}
