package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// lot is where tunnels rest on which nothing moves. A resting tunnel has no
// goroutine, no buffer and no pipe: its two descriptors wait in one epoll
// instance (epoll(7)), each for one event, and the first event wakes it.
//
// Its goroutines are those of Server.work: a tunnel that rests is still work
// to be waited for, since its connection is not released.
type lot struct {
	epoll *os.File
	fd    int

	mu      sync.Mutex // guards the rest
	resting map[int32]*tunnel
	last    int32
	closed  bool // nothing rests any more
}

// openLot makes the epoll instance. Its own descriptor is waited for by the
// runtime's, so that no thread is blocked on it.
func openLot() (*lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the epoll instance for idle tunnels: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make the epoll instance for idle tunnels: %w", err), unix.Close(fd))
	}
	return &lot{epoll: os.NewFile(uintptr(fd), "idle tunnels"), fd: fd, resting: make(map[int32]*tunnel)}, nil
}

// run wakes tunnels until ctx ends, and all of them if it cannot go on: a
// tunnel that nobody watches must not rest. wake is called for each on a
// goroutine of its own.
func (l *lot) run(ctx context.Context, wake func(*tunnel)) error {
	defer func() {
		for _, t := range l.close() {
			go wake(t)
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = l.epoll.Close() })
	defer stop()
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return fmt.Errorf("the epoll instance for idle tunnels: %w", err)
	}
	events := make([]unix.EpollEvent, 256)
	for {
		var n int
		var waitErr error
		err := raw.Read(func(fd uintptr) bool {
			n, waitErr = unix.EpollWait(int(fd), events, 0)
			return n != 0 && !errors.Is(waitErr, unix.EINTR)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("wait for idle tunnels: %w", err)
		case waitErr != nil:
			return fmt.Errorf("wait for idle tunnels: %w", waitErr)
		}
		for _, e := range events[:n] {
			if t := l.take(e.Fd); t != nil {
				go wake(t)
			}
		}
	}
}

// park lays t to rest, or returns false if it must go on: it was cut, or the
// kernel will not watch it. From the moment that park is called, t belongs to
// whoever wakes it.
func (l *lot) park(t *tunnel) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	for t.space == 0 || l.resting[t.space] != nil {
		l.last++
		t.space = l.last
	}
	l.resting[t.space] = t
	if t.flight.endedBy() != "" || l.watch(t) != nil {
		delete(l.resting, t.space)
		return false
	}
	return true
}

// watch asks for one event on each side that still can say something.
func (l *lot) watch(t *tunnel) error {
	op := unix.EPOLL_CTL_ADD
	if t.watched {
		op = unix.EPOLL_CTL_MOD
	}
	for _, r := range []*relay{&t.up, &t.down} {
		raw, err := r.src.SyscallConn()
		if err != nil {
			return err
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: t.space}
		if r.done {
			event.Events = unix.EPOLLONESHOT // errors and hang-ups only
		}
		var ctlErr error
		if err := raw.Control(func(fd uintptr) { ctlErr = unix.EpollCtl(l.fd, op, int(fd), &event) }); err != nil {
			return err
		}
		if ctlErr != nil {
			return ctlErr
		}
	}
	t.watched = true
	return nil
}

// take returns the tunnel that rests in space, which is then the caller's;
// nil when it was woken already.
func (l *lot) take(space int32) *tunnel {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.resting[space]
	delete(l.resting, space)
	return t
}

// leave takes t out of the lot and reports whether it rested there.
func (l *lot) leave(t *tunnel) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.space == 0 || l.resting[t.space] != t {
		return false
	}
	delete(l.resting, t.space)
	return true
}

// close ends all resting and returns the tunnels that did.
func (l *lot) close() []*tunnel {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	out := slices.Collect(maps.Values(l.resting))
	clear(l.resting)
	return out
}
