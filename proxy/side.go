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
// bare: a descriptor of which the runtime knows nothing, so that no thread is
// woken for it but the loop's. Whoever carries the tunnel owns it.
type side struct {
	tcp  *net.TCPConn
	fd   int // while bare
	bare bool
}

// strip takes the socket from the runtime. If it fails all is as it was.
func (s *side) strip() error {
	raw, err := s.tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("take a socket from the runtime: %w", err)
	}
	fd, fcntlErr := -1, error(nil)
	err = raw.Control(func(old uintptr) { fd, fcntlErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, os.NewSyscallError("fcntl", fcntlErr)); err != nil {
		return fmt.Errorf("take a socket from the runtime: %w", err)
	}
	_ = s.tcp.Close() // the socket stays open: fd is it, too
	s.fd, s.bare = fd, true
	return nil
}

// dress gives the socket back to the runtime. If it fails all is as it was.
func (s *side) dress() error {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("give a socket back to the runtime: %w", os.NewSyscallError("fcntl", err))
	}
	f := os.NewFile(uintptr(fd), "tunnel")
	c, err := net.FileConn(f) // one more copy
	_ = f.Close()             // the socket stays open
	if err != nil {
		return fmt.Errorf("give a socket back to the runtime: %w", err)
	}
	_ = unix.Close(s.fd)                    // likewise
	s.tcp, s.bare = c.(*net.TCPConn), false //nolint:forcetypeassert // it was one
	return nil
}

// info asks the kernel about the socket, see readTCPInfo.
func (s *side) info() (tcpInfo, bool) {
	if s.bare {
		return tcpInfoOf(s.fd)
	}
	return readTCPInfo(s.tcp)
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
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // if it fails, the close is merely polite
		return
	}
	_ = s.tcp.SetLinger(0) // likewise
}

// close closes the socket.
func (s *side) close() {
	if s.bare {
		_ = unix.Close(s.fd) // it is over either way
		return
	}
	_ = s.tcp.Close() // likewise
}
