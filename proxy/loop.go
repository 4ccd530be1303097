package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
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

	closed atomic.Bool // nothing is taken in any more

	mu      sync.Mutex // guards the rest
	places  []place
	free    []uint32 // places without a socket
	last    uint32   // generation
	tunnels int      // that have settled
}

// place is one socket's, of its generation: what is told of a place in the name
// of another generation is about a socket that has gone.
type place struct {
	generation uint32 // never zero where there is a socket
	socket     *socket
}

// ticket names a place, and whose it is.
type ticket struct{ place, generation uint32 }

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

// The sides of a tunnel.
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
	return &loop{epoll: os.NewFile(uintptr(fd), "tunnels"), fd: fd}, nil
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
	for i := range events {
		if s := l.find(&events[i]); s != nil {
			s.happen(events[i].Events, buf, now)
		}
	}
}

// find returns whom an event is about, nil when it has gone since.
func (l *loop) find(e *unix.EpollEvent) *socket {
	t := ticketOf(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.places[t.place]; p.generation == t.generation {
		return p.socket
	}
	return nil
}

func (t ticket) event(mask uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: mask, Fd: int32(t.place), Pad: int32(t.generation)}
}

func ticketOf(e *unix.EpollEvent) ticket {
	return ticket{place: uint32(e.Fd), generation: uint32(e.Pad)}
}

var errLoopClosed = errors.New("the loop has ended")

// watch takes s in, whose mutex must be held, and tells it of mask.
func (l *loop) watch(s *socket, mask uint32) error {
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		return errLoopClosed
	}
	if l.last++; l.last == 0 {
		l.last++
	}
	t := ticket{place: uint32(len(l.places)), generation: l.last}
	if n := len(l.free); n > 0 {
		t.place, l.free = l.free[n-1], l.free[:n-1]
	} else {
		l.places = append(l.places, place{})
	}
	l.places[t.place] = place{t.generation, s}
	l.mu.Unlock()
	s.ticket, s.mask = t, mask
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, s.fd, t.event(mask)); err != nil {
		l.forget(s)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// change tells s, whose mutex must be held, of mask from now on, and of what
// there is of it already.
func (l *loop) change(s *socket, mask uint32) error {
	s.mask = mask
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.fd, unix.EPOLL_CTL_MOD, s.fd, s.ticket.event(mask)))
}

// unwatch takes s out, whose mutex must be held.
func (l *loop) unwatch(s *socket) {
	_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, s.fd, nil) // it is there
	l.forget(s)
}

// forget tells s of nothing any more. Its mutex must be held.
func (l *loop) forget(s *socket) {
	t := s.ticket
	if t == (ticket{}) {
		return
	}
	s.ticket = ticket{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places[t.place] = place{}
	l.free = append(l.free, t.place)
}

// add takes t in. Its sides must be bare, and its mutex be held. It returns
// false when the loop is closed or the kernel refuses; the sides are not watched
// then.
func (l *loop) add(t *tunnel) bool {
	for i, s := range []*side{&t.client, &t.server} {
		if err := s.sock.adopt(t, i); err != nil {
			t.unwatch()
			return false
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tunnels++
	return true
}

// remove lets t go. Its mutex must be held. Its sides are still watched until
// they are closed, or unwatched.
func (l *loop) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tunnels--
}

// empty closes the loop, makes all tunnels that it has leave, and ends what
// waits for anything else.
func (l *loop) empty() {
	l.mu.Lock()
	l.closed.Store(true)
	all := make([]*socket, 0, len(l.places))
	for _, p := range l.places {
		if p.socket != nil {
			all = append(all, p.socket)
		}
	}
	l.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		t := s.tunnel
		s.mu.Unlock()
		if t == nil {
			interrupt(s)
			continue
		}
		t.mu.Lock()
		if t.looped {
			t.leave()
		}
		t.mu.Unlock()
	}
}
