package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// relaySize is how much one read and one write carry. A stream that fills it
// twice running is volume, and goes to splice(2).
const relaySize = 16 << 10

// relayBuffers are shared by all tunnels: each holds one only while it is awake.
type relayBuffers struct{ pool sync.Pool }

func (b *relayBuffers) get() *[relaySize]byte {
	if buf, ok := b.pool.Get().(*[relaySize]byte); ok {
		return buf
	}
	return new([relaySize]byte)
}

// relay is one direction of a tunnel.
type relay struct {
	dst, src *net.TCPConn
	n        int64 // bytes carried
	done     bool  // src has ended, or err says why it could not go on
	err      error
}

// pump carries src to dst until src ends, and passes the end on: a half-close
// as a half-close. It returns early, not done, when a read deadline interrupts
// it: nothing is between the two then. On an error it stops the other
// direction too. It is a named function for the sake of goroutine dumps.
func (r *relay) pump(buffers *relayBuffers) {
	volume, err := r.trickle(buffers)
	if volume {
		var n int64
		n, err = io.Copy(r.dst, r.src)
		r.n += n
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	if err == nil {
		err = r.dst.CloseWrite()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ENOTCONN) {
			err = nil // dst's peer is gone already, which the other direction has seen
		}
	}
	r.done, r.err = true, err
	if err != nil {
		interrupt(r.src)
		interrupt(r.dst)
	}
}

// trickle carries what comes in pieces, by read and write: the first exchange
// of a tunnel, questions and answers. They cost half of what splice(2) and its
// pipe take for them. It returns true when the pieces become a stream, and
// false with a nil error at src's end.
func (r *relay) trickle(buffers *relayBuffers) (volume bool, err error) {
	raw, err := r.src.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("the connection read from: %w", err)
	}
	buf := buffers.get()
	defer buffers.pool.Put(buf)
	full := 0
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf[:])
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				return false // wait
			case err != nil:
				failed = os.NewSyscallError("read", err)
				return true
			case n == 0:
				return true
			}
			m, err := r.dst.Write(buf[:n])
			r.n += int64(m)
			if err != nil {
				failed = err
				return true
			}
			if full++; n < relaySize {
				full = 0
			}
			if volume = full == 2; volume {
				return true
			}
		}
	})
	if err == nil {
		err = failed
	}
	return volume, err //nolint:wrapcheck // it names what failed, and where
}
