package proxy

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// plainConn serves the plain requests of one client connection, each read with
// one read, carried on the connection's own goroutine and answered with one
// write, where that is possible. The first request that is not plain, and all
// that follow it, are net/http's: it has a goroutine that watches the client
// during every request, two buffers, and four deadlines, and a plain request
// needs none of them.
type plainConn struct {
	f      *front
	http   *httpConn
	buf    []byte    // what requests are read into; its length is what has come
	readBy time.Time // when the wait for the next request ends, about
	idle   atomic.Bool
	writer plainWriter
	watch  watch
}

// servePlain serves r, which was read from first, and all plain requests that
// follow it, on the calling goroutine. It releases the connection, or hands it
// to net/http.
func (f *front) servePlain(h *httpConn, r *http.Request, first []byte) {
	p := &plainConn{f: f, http: h, buf: first}
	p.writer = plainWriter{tcp: h.TCPConn, header: make(http.Header), quiet: &f.quiet, buffers: &f.buffers}
	p.watch.tcp = h.TCPConn
	h.plain = p
	f.plain.add(p)
	start := h.c.accepted
	for r != nil {
		if !p.serve(r, start) || !p.next() {
			f.plain.remove(p)
			h.c.release()
			return
		}
		start = time.Now()
		r = readPlain(p.buf)
	}
	f.plain.remove(p)
	h.plain, h.replay = nil, bytes.Clone(p.buf) // first is the caller's
	if h.requests > 0 {
		h.readBy = time.Now().Add(f.s.cfg.Timeouts.Hello)
	}
	f.offer(h)
}

// serve carries one request and reports whether there may be another.
func (p *plainConn) serve(r *http.Request, start time.Time) (more bool) {
	defer func() {
		// As in net/http, a panic ends the connection, and one of them is how a
		// response is cut short.
		if v := recover(); v != nil {
			p.writer.drop()
			if more = false; v != http.ErrAbortHandler { //nolint:errorlint // net/http compares so, too
				p.f.s.panicked(v)
			}
		}
	}()
	p.http.requests++
	p.writer.begin(r)
	p.f.exchange(&p.writer, r, p.http, start)
	if !p.writer.ended { // a refusal: no flight watches over it
		_ = p.http.SetWriteDeadline(time.Now().Add(p.f.s.cfg.Timeouts.Idle)) // if it fails, so will the write
		err := p.writer.end()
		_ = p.http.SetWriteDeadline(time.Time{}) // likewise
		if err != nil {
			return false
		}
	}
	return !p.writer.last
}

// next waits for the next request and reports whether something came.
func (p *plainConn) next() bool {
	if early := p.watch.early; len(early) > 0 {
		p.buf, p.watch.early = append(p.buf[:0], early...), nil
		return true
	}
	// The deadline may be a little late: to set it anew each time costs more
	// than reading does.
	limit := p.f.server.IdleTimeout
	if now := time.Now(); p.readBy.Sub(now) < limit || p.watch.touched {
		p.watch.touched = false
		p.readBy = now.Add(limit + limit/4)
		if p.http.TCPConn.SetReadDeadline(p.readBy) != nil {
			return false
		}
	}
	p.idle.Store(true)
	defer p.idle.Store(false)
	if p.f.quiet.Load() {
		return false
	}
	p.buf = p.buf[:cap(p.buf)]
	n, err := p.http.TCPConn.Read(p.buf)
	p.buf = p.buf[:n]
	return err == nil && n > 0
}

// quiesce ends the wait for a next request.
func (p *plainConn) quiesce() {
	if p.idle.Load() {
		_ = p.http.TCPConn.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed already
	}
}

// plainSet knows the connections on which plain requests are served, to end
// those that wait for another.
type plainSet struct {
	mu    sync.Mutex // guards conns
	conns map[*plainConn]struct{}
}

func (s *plainSet) add(p *plainConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = make(map[*plainConn]struct{})
	}
	s.conns[p] = struct{}{}
}

func (s *plainSet) remove(p *plainConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, p)
}

func (s *plainSet) quiesce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.conns {
		p.quiesce()
	}
}
