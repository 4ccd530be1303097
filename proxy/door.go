package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// acceptBatch bounds how many connections are accepted before a listener that is
// being closed is let go.
const acceptBatch = 64

// door is a bound listener.
type door struct {
	ln    *net.TCPListener
	local netip.AddrPort
	// What accepts bare connections: a copy of the listener's descriptor, for
	// package net lends nobody its own to wait for. nil: ln accepts.
	file   *os.File
	raw    syscall.RawConn
	asked  bool // whether connections inherit TCP_NODELAY from the listener:
	each   bool // they do not
	closed atomic.Bool
}

// openDoor takes ln over. Its connections are sockets where bare is set.
func openDoor(ln *net.TCPListener, bare bool) (*door, error) {
	d := &door{ln: ln, local: addrPortOf(ln.Addr())}
	if !bare {
		return d, nil
	}
	var err error
	if d.file, err = ln.File(); err == nil {
		if d.raw, err = d.file.SyscallConn(); err == nil {
			// Set once, it is every connection's.
			err = d.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) })
		}
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("the listener's descriptor: %w", err)
	}
	return d, nil
}

// accept returns a connection of l's, and the address that it was accepted on.
// The error is the kernel's, EAGAIN where none waits.
func (d *door) accept(listener int, l *loop) (*socket, netip.AddrPort, error) {
	for {
		fd, from, err := syscall.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) // unix asks for the protocol, too
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED): // it has gone while it waited
			continue
		case err != nil:
			return nil, netip.AddrPort{}, err //nolint:wrapcheck // the caller does
		}
		if !d.asked { // what Multipath TCP hands on depends on the kernel
			on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
			d.asked, d.each = true, err != nil || on == 0
		}
		if d.each {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // without it all is merely slower
		}
		local := d.local
		if local.Addr().IsUnspecified() {
			local = localAddrOf(fd)
		}
		return &socket{loop: l, fd: fd, peer: addrPortFrom(from)}, local, nil
	}
}

// close ends accept.
func (d *door) close() {
	d.closed.Store(true)
	_ = d.ln.Close() // nothing can be done about a failing close
	if d.file != nil {
		_ = d.file.Close() // likewise
	}
}
