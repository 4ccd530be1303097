package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// newSocket makes an IPv4 socket that does not block and does not wait for
// more to send.
func newSocket() (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("setsockopt: %w", err)
	}
	return fd, nil
}

// reusePort is SO_REUSEPORT, which package syscall lacks on some architectures:
// each worker of the floor has a socket of its own.
const reusePort = 15

// listenOn listens. What is accepted inherits TCP_NODELAY.
func listenOn(a netip.AddrPort) (int, error) {
	fd, err := newSocket()
	if err != nil {
		return -1, err
	}
	if err := errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, reusePort, 1),
		syscall.Bind(fd, sockaddr(a)),
		syscall.Listen(fd, 4096),
	); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("listening on %s: %w", a, err)
	}
	return fd, nil
}

// acceptAll takes every connection that waits.
func acceptAll(fd int, each func(fd int)) {
	for {
		c, _, err := syscall.Accept4(fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return // none is waiting, or descriptors ran out: the client sees it
		}
		each(c)
	}
}

// connectTo begins a connection and reports whether it is there already, as
// on loopback it nearly always is.
func connectTo(to syscall.Sockaddr) (fd int, done bool, err error) {
	if fd, err = newSocket(); err != nil {
		return -1, false, err
	}
	switch err = syscall.Connect(fd, to); {
	case err == nil:
		return fd, true, nil
	case errors.Is(err, syscall.EINPROGRESS):
		return fd, false, nil
	default:
		syscall.Close(fd)
		return -1, false, fmt.Errorf("connect: %w", err)
	}
}

// connected tells how a connection that was begun has come out.
func connected(fd int) error {
	code, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// discard reads and throws away, in the kernel: the ends are to cost little.
func discard(fd int, buf []byte) (int, error) {
	n, _, err := syscall.Recvfrom(fd, buf, syscall.MSG_TRUNC|syscall.MSG_DONTWAIT)
	return n, err
}

// writeAll writes what is small enough to go at once.
func writeAll(fd int, b []byte) error {
	n, err := syscall.Write(fd, b)
	if err == nil && n < len(b) {
		err = errors.New("the socket's buffer is full")
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
