package console

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxConns is how many connections the console has at once. Descriptors are the
// traffic's.
const maxConns = 256

// crowd bounds a server's connections: with one too many, the one goes that has
// waited for a request longest. Whoever opens many loses his own, and a health
// check, which is asked at once, is answered still.
type crowd struct {
	mu      sync.Mutex
	waiting list.List                  // of net.Conn, those that wait longest first
	all     map[net.Conn]*list.Element // nil for one whose request is answered
}

func newCrowd() *crowd { return &crowd{all: map[net.Conn]*list.Element{}} }

// change is the server's [http.Server.ConnState].
func (c *crowd) change(conn net.Conn, state http.ConnState) {
	if tooMany := c.note(conn, state); tooMany != nil {
		_ = tooMany.Close() // its server finds out
	}
}

// note returns the connection that has to go, nil for none.
func (c *crowd) note(conn net.Conn, state http.ConnState) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.all[conn]; at != nil {
		c.waiting.Remove(at)
	}
	switch state {
	case http.StateNew:
		c.all[conn] = c.waiting.PushBack(conn)
	case http.StateIdle:
		if _, there := c.all[conn]; there {
			c.all[conn] = c.waiting.PushBack(conn)
		}
	case http.StateActive:
		if _, there := c.all[conn]; there {
			c.all[conn] = nil
		}
	case http.StateClosed, http.StateHijacked:
		delete(c.all, conn)
	}
	longest := c.waiting.Front()
	if len(c.all) <= maxConns || longest == nil {
		return nil
	}
	gone := c.waiting.Remove(longest).(net.Conn) //nolint:forcetypeassert // it holds no others
	delete(c.all, gone)
	return gone
}
