package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endpoint is a TCP connection, whoever waits for it: the runtime's poller for
// a *net.TCPConn, a loop for a *socket.
type endpoint interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// socket is a TCP connection as a bare descriptor: the runtime knows nothing of
// it. It waits in a loop's epoll instance, which it enters once, when it first
// has to, and where a tunnel finds it when it settles: nothing changes hands
// then but whom the loop tells what has happened.
//
// One goroutine owns a socket, and reads, writes and closes it; from [socket.adopt]
// on a tunnel does, under its mutex. The number of a closed descriptor is somebody
// else's at once, so nobody but the owner names it. Others may set deadlines.
type socket struct {
	loop *loop
	peer netip.AddrPort
	fd   int  // -1 once closed
	full bool // the owner's last read left no room, so there may be more

	mu              sync.Mutex // guards the rest, and the change of fd
	ticket          ticket     // of the loop, zero while it does not watch
	mask            uint32     // what it watches for
	came            uint32     // what has happened since the owner last waited
	unread          bool       // bytes have come since it last read
	ended           bool       // and may not be told of again
	asleep          bool       // the owner waits for wake
	wake            chan struct{}
	timer           *time.Timer
	readBy, writeBy time.Time
	tunnel          *tunnel // that is told what happens, nil: the owner
	from            int     // which of its sides it is
}

// Read implements [net.Conn].
func (s *socket) Read(p []byte) (int, error) {
	for {
		if err := s.begin(&s.readBy); err != nil {
			return 0, s.failed("read", err)
		}
		n, err := syscall.Read(s.fd, p)
		switch {
		case n > 0:
			s.full = n == len(p)
			return n, nil
		case err == nil && len(p) > 0:
			return 0, io.EOF
		case err == nil:
			return 0, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			_, err = s.wait(loopEvents, &s.readBy, nil)
		default:
			err = os.NewSyscallError("read", err)
		}
		if err != nil {
			return 0, s.failed("read", err)
		}
	}
}

// Write implements [net.Conn].
func (s *socket) Write(p []byte) (written int, _ error) {
	for {
		if err := s.begin(&s.writeBy); err != nil {
			return written, s.failed("write", err)
		}
		n, err := syscall.Write(s.fd, p[written:])
		written += max(n, 0)
		switch {
		case err == nil && written == len(p):
			return written, nil
		case err == nil, errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			_, err = s.wait(loopEvents|unix.EPOLLOUT, &s.writeBy, nil)
		default:
			err = os.NewSyscallError("write", err)
		}
		if err != nil {
			return written, s.failed("write", err)
		}
	}
}

// begin tells the owner whether it may go on to read or write, by until when.
func (s *socket) begin(by *time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fd < 0:
		return net.ErrClosed
	case !by.IsZero() && !time.Now().Before(*by):
		return os.ErrDeadlineExceeded // and what has come is unread still
	case by == &s.readBy:
		s.unread = false
	}
	return nil
}

// wait waits until something has happened that mask has, and returns what. by is
// a deadline, which others may change meanwhile, nil for none; done ends the wait,
// too.
func (s *socket) wait(mask uint32, by *time.Time, done <-chan struct{}) (came uint32, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.watch(mask); err != nil {
		return 0, err
	}
	for s.came == 0 {
		var late <-chan time.Time
		if by != nil && !by.IsZero() {
			left := time.Until(*by)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			if s.timer == nil {
				s.timer = time.NewTimer(left)
			} else {
				s.timer.Reset(left)
			}
			late = s.timer.C
		}
		if !s.sleep(late, done) {
			return 0, context.Canceled
		}
	}
	came, s.came = s.came, 0
	return came, nil
}

// sleep waits until there is something to look at, and returns false when done
// came first. The mutex is held before and after.
func (s *socket) sleep(late <-chan time.Time, done <-chan struct{}) bool {
	if s.wake == nil {
		s.wake = make(chan struct{}, 1)
	}
	s.asleep = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.asleep = false
		if late != nil {
			s.timer.Stop()
		}
	}()
	select {
	case <-s.wake:
	case <-late:
	case <-done:
		return false
	}
	return true
}

// rouse wakes an owner that waits. The mutex must be held.
func (s *socket) rouse() {
	if s.asleep {
		s.asleep = false
		select {
		case s.wake <- struct{}{}:
		default: // it has been told
		}
	}
}

// watch sees to it that the loop tells of mask. The mutex must be held.
func (s *socket) watch(mask uint32) error {
	switch {
	case s.fd < 0:
		return net.ErrClosed
	case s.ticket == ticket{}:
		return s.loop.watch(s, mask)
	case mask&^s.mask != 0:
		return s.loop.change(s, mask)
	}
	return nil
}

// unwatch takes the socket out of the loop's epoll instance: a copy of its
// descriptor keeps alive what was asked of it.
func (s *socket) unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tunnel = nil; s.ticket != (ticket{}) {
		s.loop.unwatch(s)
	}
}

// adopt makes the socket t's, which is told from now on what happens on it, and
// also of what has happened and nobody has looked at. t's mutex must be held.
func (s *socket) adopt(t *tunnel, from int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnel, s.from = t, from
	s.wake, s.timer = nil, nil // nobody waits any more, and silence should cost little
	var err error
	switch {
	case s.fd < 0:
		err = net.ErrClosed
	case s.ticket == ticket{}:
		err = s.loop.watch(s, loopEvents)
	case s.unread, s.ended, s.full:
		err = s.loop.change(s, loopEvents) // which tells of it once more
	}
	if err != nil {
		s.tunnel = nil
	}
	return err
}

// happen passes on what the loop was told.
func (s *socket) happen(events uint32, buf []byte, now time.Time) {
	s.mu.Lock()
	t, from := s.tunnel, s.from
	if t == nil {
		s.came |= events
		s.unread = s.unread || events&unix.EPOLLIN != 0
		s.ended = s.ended || events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0
		s.rouse()
	}
	s.mu.Unlock()
	if t != nil {
		t.stir(from, events, buf, now)
	}
}

// Close implements [net.Conn]. Only the owner may call it.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	s.loop.forget(s) // the epoll instance forgets it by itself
	err := unix.Close(s.fd)
	s.fd, s.tunnel = -1, nil
	return os.NewSyscallError("close", err)
}

// conn returns a connection of package net's that is the socket, too, which
// nothing may watch then.
func (s *socket) conn() (*net.TCPConn, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("give a socket to the runtime: %w", os.NewSyscallError("fcntl", err))
	}
	f := os.NewFile(uintptr(fd), "tunnel")
	c, err := net.FileConn(f) // one more copy
	_ = f.Close()             // the socket stays open
	if err != nil {
		return nil, fmt.Errorf("give a socket to the runtime: %w", err)
	}
	return c.(*net.TCPConn), nil //nolint:forcetypeassert // it was one
}

// CloseWrite ends what is sent.
func (s *socket) CloseWrite() error {
	if s.fd < 0 {
		return s.failed("close", net.ErrClosed)
	}
	if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
		return s.failed("close", os.NewSyscallError("shutdown", err))
	}
	return nil
}

// SetLinger is [net.TCPConn.SetLinger].
func (s *socket) SetLinger(sec int) error {
	return setLinger(s.fd, sec)
}

func setLinger(fd, sec int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
}

// SetDeadline implements [net.Conn]; anybody may call it, and the two that follow.
func (s *socket) SetDeadline(t time.Time) error { return s.bound(t, &s.readBy, &s.writeBy) }

// SetReadDeadline implements [net.Conn].
func (s *socket) SetReadDeadline(t time.Time) error { return s.bound(t, &s.readBy) }

// SetWriteDeadline implements [net.Conn].
func (s *socket) SetWriteDeadline(t time.Time) error { return s.bound(t, &s.writeBy) }

func (s *socket) bound(t time.Time, by ...*time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	for _, d := range by {
		*d = t
	}
	s.rouse()
	return nil
}

// readDeadline returns what SetReadDeadline was told last.
func (s *socket) readDeadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readBy
}

// LocalAddr implements [net.Conn].
func (s *socket) LocalAddr() net.Addr {
	if local := localAddrOf(s.fd); local.IsValid() {
		return net.TCPAddrFromAddrPort(local)
	}
	return &net.TCPAddr{}
}

// RemoteAddr implements [net.Conn].
func (s *socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.peer) }

// failed words an error as package net does.
func (s *socket) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// localAddrOf returns a socket's own address, zero if there is none.
func localAddrOf(fd int) netip.AddrPort {
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPortFrom(sa)
}

// addrPortFrom reads an address of the kernel's, zero if it is none of IP's.
func addrPortFrom(sa syscall.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
