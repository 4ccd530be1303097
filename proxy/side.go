package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// side is one end of a tunnel. While goroutines carry the tunnel it is a
// *net.TCPConn, which waits in the runtime's poller; while the loop does, it is
// bare: a socket of which the runtime knows nothing, so that no thread is
// woken for it but the loop's. Whoever carries the tunnel owns it.
type side struct {
	tcp  *net.TCPConn
	sock *socket // while bare
	fd   int     // likewise, its descriptor
	bare bool
}

// sideOf returns e as a side.
func sideOf(e endpoint) side {
	if s, ok := e.(*socket); ok {
		return side{sock: s, fd: s.fd, bare: true}
	}
	return side{tcp: e.(*net.TCPConn), fd: -1} //nolint:forcetypeassert // there is no third kind
}

// end returns what the side is at this moment.
func (s *side) end() endpoint {
	if s.bare {
		return s.sock
	}
	return s.tcp
}

// descriptor returns a copy of the socket's descriptor, for a side to be bare.
func (s *side) descriptor() (int, error) {
	raw, err := s.tcp.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("take a socket from the runtime: %w", err)
	}
	fd, fcntlErr := -1, error(nil)
	err = raw.Control(func(old uintptr) { fd, fcntlErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, os.NewSyscallError("fcntl", fcntlErr)); err != nil {
		return -1, fmt.Errorf("take a socket from the runtime: %w", err)
	}
	return fd, nil
}

// conn returns the side as a *net.TCPConn, for dress.
func (s *side) conn() (*net.TCPConn, error) {
	if s.bare {
		return s.sock.conn()
	}
	return s.tcp, nil
}

// dress makes tcp, which conn has returned, the one that counts.
func (s *side) dress(tcp *net.TCPConn) {
	if s.bare {
		_ = s.sock.Close() // the socket stays open
		s.tcp, s.sock, s.fd, s.bare = tcp, nil, -1, false
	}
}

// info asks the kernel about the socket, see readTCPInfo.
func (s *side) info() (tcpInfo, bool) {
	if s.bare {
		return tcpInfoOf(s.fd)
	}
	return readTCPInfo(s.tcp)
}

// gone reports whether the socket is dead in both directions: it was reset, or
// has timed out. Whoever reads from it comes to an end.
func (s *side) gone() bool {
	info, ok := s.info()
	return !ok || info.state == tcpClose
}

// fault returns why the bare socket is gone, as who writes to it is told.
func (s *side) fault() error {
	if code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
		return unix.Errno(code)
	}
	return unix.EPIPE
}

// stayAlive switches keepalive on.
func (s *side) stayAlive() {
	k := keepAlive()
	if !s.bare {
		_ = s.tcp.SetKeepAliveConfig(k) // without it the idle timeout has the last word
		return
	}
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(k.Idle.Seconds())},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(k.Interval.Seconds())},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		_ = unix.SetsockoptInt(s.fd, o.level, o.name, o.value) // likewise
	}
}

// resetOnClose makes close a reset.
func (s *side) resetOnClose() {
	if s.bare {
		_ = setLinger(s.fd, 0) // if it fails, the close is merely polite
		return
	}
	_ = s.tcp.SetLinger(0) // likewise
}

// close closes the socket. A descriptor is somebody else's afterwards, so that
// nothing may name it any more.
func (s *side) close() {
	if s.bare {
		_ = s.sock.Close() // it is over either way
		s.fd = -1
		return
	}
	_ = s.tcp.Close() // likewise
}
