package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// connectTries is how often one attempt begins anew where the kernel's choice of
// a local port is at fault.
const connectTries = 3

// connect is one attempt at one address, for a socket of l's.
func (l *loop) connect(ctx context.Context, addr netip.AddrPort, vet vetFunc) (endpoint, error) {
	for try := 1; ; try++ {
		s, err := l.connectOnce(ctx, addr, vet)
		itself := err == nil && s.meetsItself()
		if itself {
			_ = s.Close() // nobody has used it
			err = os.NewSyscallError("connect", unix.ECONNREFUSED)
		}
		switch {
		case err == nil:
			return s, nil
		case try == connectTries || !itself && !errors.Is(err, unix.EADDRNOTAVAIL):
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
		}
	}
}

// connectOnce opens a socket, has vet judge what the kernel is about to connect
// to, and connects.
func (l *loop) connectOnce(ctx context.Context, addr netip.AddrPort, vet vetFunc) (_ *socket, err error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	family := unix.AF_INET
	var to syscall.Sockaddr
	if addr.Addr().Is4() {
		to = &syscall.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	} else {
		family, to = unix.AF_INET6, &syscall.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{loop: l, fd: fd, peer: addr}
	done := false
	defer func() { // behind a panic, too
		if !done {
			_ = s.Close() // nobody has used it
		}
	}()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // if it fails, so will all the rest
	if err := vet(addrPortFrom(to)); err != nil {
		return nil, &vetoError{err}
	}
	// Nothing is bound: a port that was serves one connection at a time, whoever
	// that is to. After 32,000 within a minute the search for a free one takes
	// milliseconds.
	switch err := syscall.Connect(fd, to); {
	case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EINTR), errors.Is(err, unix.EALREADY):
		if err := s.connected(ctx); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, os.NewSyscallError("connect", err)
	}
	done = true
	return s, nil
}

// connected waits until the connection is there, or cannot be.
func (s *socket) connected(ctx context.Context) error {
	for {
		came, err := s.wait(loopEvents|unix.EPOLLOUT, nil, ctx.Done())
		if err != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return os.ErrDeadlineExceeded
			}
			return fmt.Errorf("wait for the connection: %w", err)
		}
		code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		switch errno := unix.Errno(code); errno {
		case 0:
			if came&unix.EPOLLOUT != 0 {
				return nil
			}
		case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		default:
			return os.NewSyscallError("connect", errno)
		}
	}
}

// meetsItself reports whether the kernel has connected the socket to itself,
// which it may where nobody listens at a port that it also gives away.
func (s *socket) meetsItself() bool {
	return s.peer.Port() >= lowestPort && localAddrOf(s.fd) == s.peer
}

// lowestPort is below all that the kernel gives away by itself (ip(7),
// ip_local_port_range).
const lowestPort = 1024
