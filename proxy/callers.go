package proxy

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
)

// Callers is how connections have come so far: whether anything can be told
// from where they come from.
type Callers struct {
	Connections uint64     // that have said something
	Addr        netip.Addr // of all of them; the zero Addr when there are several, or none
	Since       time.Time  // when the first came
	Headers     uint64     // that began with a PROXY header
	Headless    uint64     // refused, for there was none or not from ProxyFrom
}

// Callers returns the figures of this moment.
func (s *Server) Callers() Callers {
	c := Callers{Connections: s.callers.connections.Load(), Headers: s.callers.headers.Load(), Headless: s.callers.headless.Load()}
	if first := s.callers.first.Load(); first != nil {
		c.Since = first.at
		if !s.callers.several.Load() {
			c.Addr = first.addr
		}
	}
	return c
}

// callers counts them.
type callers struct {
	connections, headers, headless atomic.Uint64
	several                        atomic.Bool
	first                          atomic.Pointer[firstCaller]
}

type firstCaller struct {
	addr netip.Addr
	at   time.Time
}

// note counts a connection that has said something, or was refused for its
// PROXY header.
func (c *callers) note(cn *conn, err error) {
	if errors.Is(err, errNoProxyHeader) || errors.Is(err, errUntrusted) {
		c.headless.Add(1)
	}
	if err != nil {
		return
	}
	c.connections.Add(1)
	if c.several.Load() {
		return
	}
	first := c.first.Load()
	if first == nil {
		c.first.CompareAndSwap(nil, &firstCaller{cn.source.Addr, cn.accepted})
		first = c.first.Load()
	}
	if first.addr != cn.source.Addr {
		c.several.Store(true)
	}
}
