package proxy

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
)

// A tunnel's ways into the loop, and out of it. Its mutex tells whose it is.

// liftPause is how long a tunnel waits for a descriptor when there is none.
const liftPause = 100 * time.Millisecond

// settle hands a tunnel on which nothing is in flight to the loop. It returns
// false when goroutines must carry it.
func (t *tunnel) settle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range []*side{&t.client, &t.server} {
		if !s.bare {
			_ = s.tcp.SetReadDeadline(time.Time{}) // a lull set it; if it fails, so will the next read
		}
	}
	if t.flight.endedBy() != "" {
		t.halt() // what was cleared may have been the mark of a cut
		return false
	}
	if t.bound || t.up.rest != nil || t.down.rest != nil {
		return false
	}
	if t.looped = t.strip(); t.looped {
		return true
	}
	return t.wear()
}

// strip takes both sockets into the loop, from the runtime where they are
// there. If it fails all is as it was: who has no descriptor to spare must not
// wait for one.
func (t *tunnel) strip() bool {
	var taken []*side
	defer func() {
		for _, s := range taken { // it failed: the sockets stay open
			_ = unix.Close(s.fd)
			s.sock, s.fd = nil, -1
		}
	}()
	for _, s := range []*side{&t.client, &t.server} {
		if s.bare {
			continue
		}
		fd, err := s.descriptor()
		if err != nil {
			return false
		}
		s.fd, s.sock = fd, &socket{loop: t.loop, fd: fd}
		taken = append(taken, s)
	}
	if !t.loop.add(t) {
		return false
	}
	t.moved.Store(time.Now().UnixNano())
	for _, s := range taken {
		_ = s.tcp.Close() // likewise: fd is it, too
		s.bare = true
	}
	taken = nil
	return true
}

// unwatch has the loop tell nothing of t any more.
func (t *tunnel) unwatch() {
	for _, s := range []*side{&t.client, &t.server} {
		if s.sock != nil {
			s.sock.unwatch()
		}
	}
}

// lift takes over a tunnel that has just left the loop, for goroutines; see
// wear.
func (t *tunnel) lift() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wear()
}

// wear gives both sockets to the runtime. Where no descriptor is left the tunnel
// goes to the loop: wear returns true then. What waits to be written is written
// first. The mutex must be held.
func (t *tunnel) wear() bool {
	t.unwatch()
	for !t.over() && !t.dress() {
		t.up.flush()
		t.down.flush()
		if t.up.rest == nil && t.down.rest == nil && !t.over() && t.client.bare && t.server.bare {
			if t.looped = t.loop.add(t); t.looped {
				return true
			}
		}
		t.mu.Unlock()
		<-time.After(liftPause)
		t.mu.Lock()
	}
	if t.flight.endedBy() != "" {
		t.halt()
	}
	return false
}

// dress gives both sockets to the runtime. If it fails all is as it was.
func (t *tunnel) dress() bool {
	client, err := t.client.conn()
	if err != nil {
		return false
	}
	server, err := t.server.conn()
	if err != nil {
		if t.client.bare {
			_ = client.Close() // the socket stays open
		}
		return false
	}
	t.client.dress(client)
	t.server.dress(server)
	t.alive = false // package net has its own idea of keepalive
	return true
}

// stir moves what has come on one side of a tunnel in the loop, and finds out
// whether it is still the loop's. events are epoll's.
func (t *tunnel) stir(from int, events uint32, buf []byte, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.looped {
		return // it has left since the event
	}
	t.moved.Store(now.UnixNano())
	if stays := t.shift(from, events, buf); !stays || t.over() {
		t.leave()
	}
}

// shift moves what has come on the side from; see relay.move.
func (t *tunnel) shift(from int, events uint32, buf []byte) (stays bool) {
	r, other := &t.up, &t.down
	if from == sideServer {
		r, other = other, r
	}
	defer func() {
		if p := recover(); p != nil {
			t.attempt.s.panicked(p)
			r.fail(&refusal{outcome: flow.OutcomeInternalError, err: fmt.Errorf("panic: %v", p)})
		}
	}()
	stays = true
	if !r.done {
		stays = r.move(buf, events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0, other.done)
	}
	switch {
	case !r.done:
		return stays && events&unix.EPOLLPRI == 0 // who reads on goroutines reads past what is urgent
	case other.done:
	case r.err != nil && r.dst.gone():
		// It takes nothing any more, and may have said why before that.
		other.move(buf, true, true)
	case r.err == nil && events&unix.EPOLLHUP != 0:
		// It has said all that it had to say. That it is gone altogether matters
		// to what it is still told.
		other.fail(r.src.fault())
	}
	return true
}

// leave takes the tunnel out of the loop; a goroutine has it from now on, to
// carry or to end it. The mutex must be held.
func (t *tunnel) leave() {
	t.looped = false
	t.loop.remove()
	go t.carry(t.lift)
}

// cut ends the tunnel, whose flight says why, from outside.
func (t *tunnel) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.looped {
		t.leave()
		return
	}
	t.halt()
}

// quiet returns for how long nothing has moved. Beyond limit it asks the
// kernel, which knows what a slow reader was sent last.
func (t *tunnel) quiet(limit time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	least := time.Since(t.flight.since)
	if t.looped {
		least = time.Since(time.Unix(0, t.moved.Load()))
		if least <= limit {
			return least
		}
	}
	for _, s := range []*side{&t.client, &t.server} {
		info, ok := s.info()
		if !ok {
			return 0 // closed already: its owner is at work
		}
		least = min(least, info.lastReceived, info.lastSent)
	}
	return least
}

// rest deals with a tunnel that has been quiet for a while. Only now keepalive
// matters: who sends finds out without it that the other end is gone.
func (t *tunnel) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.looped {
		// Both directions stop reading, and so it settles. What was read is
		// still written: nothing is lost in between.
		for _, s := range []*side{&t.client, &t.server} {
			if !s.bare {
				_ = s.tcp.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed already
			}
		}
		return
	}
	if !t.alive {
		t.alive = true
		t.client.stayAlive()
		t.server.stayAlive()
	}
}
