package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// pairBuffer is how many bytes each socket of a pair is asked to hold, each
// way: what is carried stays the client's or the origin's to hold.
const pairBuffer = 128 << 10

// pairStrangers is how many connections of others a pair's making survives.
const pairStrangers = 64

// newPair returns both ends of a TCP connection that this process makes with
// itself, for what can only be carried between sockets. It listens for that one
// connection, on loopback and a port of the kernel's choice. Whoever else
// connects in that moment is not taken for our end: that has the address which
// the other end knows.
func newPair(ctx context.Context) (near, far *net.TCPConn, err error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	defer ln.Close()             //nolint:errcheck // it has served
	tcp := ln.(*net.TCPListener) //nolint:forcetypeassert // the network is tcp4
	if deadline, ok := ctx.Deadline(); ok {
		_ = tcp.SetDeadline(deadline) // fails only when it is closed
	}
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp4", ln.Addr().String())
	if err != nil {
		return nil, nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	near = c.(*net.TCPConn) //nolint:forcetypeassert // the network is tcp4
	if far, err = acceptFrom(tcp, near); err != nil {
		_ = near.Close() // it carried nothing
		return nil, nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	for _, end := range []*net.TCPConn{near, far} {
		_, _ = end.SetReadBuffer(pairBuffer), end.SetWriteBuffer(pairBuffer) // else the kernel chooses
	}
	return near, far, nil
}

// acceptFrom accepts the connection whose other end is near.
func acceptFrom(ln *net.TCPListener, near *net.TCPConn) (*net.TCPConn, error) {
	for range pairStrangers {
		far, err := ln.AcceptTCP()
		if err != nil {
			return nil, err //nolint:wrapcheck // the caller does
		}
		if addrPortOf(far.RemoteAddr()) == addrPortOf(near.LocalAddr()) {
			return far, nil
		}
		abort(far)
	}
	return nil, errors.New("others take every connection")
}
