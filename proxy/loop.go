package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop carries the tunnels that have little to say: questions and answers, and
// above all silence. Its tunnels have no goroutine, no buffer and no pipe, and
// the runtime's poller does not know of their sockets: they wait in one epoll
// instance (epoll(7)), and one goroutine moves what comes, by read(2) and
// write(2). A tunnel that turns into a stream, or whose reader is slower than
// its writer, leaves for goroutines of its own and io.Copy, and comes back when
// it has been quiet.
type loop struct {
	epoll *os.File // waited for by the runtime's poller: no thread blocks on it
	fd    int

	mu      sync.Mutex // guards the rest
	tunnels map[int32]*tunnel
	last    int32
	closed  bool // nothing is taken in any more
}

// loopBuffer is how much one read takes. loopFull reads that fill it, with
// nothing short between them, are a stream: to copy that much costs about as
// much as it costs to leave for splice(2).
const (
	loopBuffer = 64 << 10
	loopFull   = 4
)

// Each side of a tunnel is watched for what comes, edge-triggered: a read that
// does not fill the buffer has emptied the socket, and the next bytes are a
// new event. Urgent data is the exception: a read ends there, whatever follows.
const loopEvents = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// An event tells the tunnel and which of its sides.
const (
	sideClient = 0
	sideServer = 1
)

// openLoops makes as many loops as the CPUs can keep busy beside all else.
func openLoops() ([]*loop, error) {
	loops := make([]*loop, 0, max(1, runtime.GOMAXPROCS(0)/2))
	for range cap(loops) {
		l, err := openLoop()
		if err != nil {
			for _, l := range loops {
				err = errors.Join(err, l.epoll.Close())
			}
			return nil, err
		}
		loops = append(loops, l)
	}
	return loops, nil
}

func openLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the epoll instance for tunnels: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make the epoll instance for tunnels: %w", err), unix.Close(fd))
	}
	return &loop{epoll: os.NewFile(uintptr(fd), "tunnels"), fd: fd, tunnels: make(map[int32]*tunnel)}, nil
}

// run moves what comes until ctx ends, by when all tunnels must have left. If
// it cannot go on, none stays behind: each is carried by goroutines.
func (l *loop) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.epoll.Close() })
	defer stop()
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return fmt.Errorf("the epoll instance for tunnels: %w", err)
	}
	events := make([]unix.EpollEvent, 128)
	buf := make([]byte, loopBuffer)
	var failed error
	// Everything happens inside Read's function: an event that comes while it
	// runs is remembered by the poller, so a batch that was not full needs no
	// second look before the next wait.
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.EpollWait(int(fd), events, 0)
			if err != nil && !errors.Is(err, unix.EINTR) {
				failed = os.NewSyscallError("epoll_wait", err)
				return true
			}
			l.stir(events[:max(n, 0)], buf)
			if err == nil && n < len(events) {
				return false
			}
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	l.empty()
	return fmt.Errorf("wait for tunnels: %w", errors.Join(err, failed))
}

func (l *loop) stir(events []unix.EpollEvent, buf []byte) {
	now := time.Now()
	for _, e := range events {
		l.mu.Lock()
		t := l.tunnels[e.Fd]
		l.mu.Unlock()
		if t != nil {
			t.stir(int(e.Pad), e.Events, buf, now)
		}
	}
}

// add takes t in. Its sides must have descriptors, and its mutex be held. It
// returns false, and has changed nothing, when the loop is closed or the kernel
// refuses.
func (l *loop) add(t *tunnel) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	for t.place == 0 || l.tunnels[t.place] != nil {
		l.last++
		t.place = l.last
	}
	l.tunnels[t.place] = t
	l.mu.Unlock()
	for i, s := range []*side{&t.client, &t.server} {
		e := unix.EpollEvent{Events: loopEvents, Fd: t.place, Pad: int32(i)}
		if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, s.fd, &e); err != nil {
			l.unwatch(t)
			l.remove(t)
			return false
		}
	}
	return true
}

// remove lets t go. Its mutex must be held. Its sides are still watched until
// they are closed, or unwatched.
func (l *loop) remove(t *tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tunnels, t.place)
}

// unwatch takes t's sides out of the epoll instance: a copy of a descriptor
// keeps alive what was asked of it.
func (l *loop) unwatch(t *tunnel) {
	for _, s := range []*side{&t.client, &t.server} {
		_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, s.fd, nil) // fails where it was not added
	}
}

// empty closes the loop for tunnels and makes all that it has leave.
func (l *loop) empty() {
	l.mu.Lock()
	l.closed = true
	all := make([]*tunnel, 0, len(l.tunnels))
	for _, t := range l.tunnels {
		all = append(all, t)
	}
	l.mu.Unlock()
	for _, t := range all {
		t.mu.Lock()
		if t.looped {
			t.leave()
		}
		t.mu.Unlock()
	}
}
