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

// relaySize is how much one read and one write of a goroutine carry. A stream
// that fills it twice running is volume, and goes to splice(2).
const relaySize = 16 << 10

// relayBuffers are shared by all tunnels: each direction holds one only while a
// goroutine carries it in pieces.
type relayBuffers struct{ pool sync.Pool }

func (b *relayBuffers) get() *[relaySize]byte {
	if buf, ok := b.pool.Get().(*[relaySize]byte); ok {
		return buf
	}
	return new([relaySize]byte)
}

// relay is one direction of a tunnel.
type relay struct {
	dst, src *side
	n        int64  // bytes carried
	done     bool   // src has ended, or err says why it could not go on
	gone     bool   // src is gone altogether: it takes nothing any more either
	err      error  //
	rest     []byte // read in the loop and not yet written
	full     int    // reads in the loop, the last ones, that filled its buffer
}

// move carries what src has for dst, in the loop; ending tells that src's end
// is known to have come, behind what there is, and last that the other
// direction has ended, so that the close which follows says it all. It returns
// false when this is not for the loop any more: a stream, or a dst that takes
// no more.
func (r *relay) move(buf []byte, ending, last bool) bool {
	for {
		n, err := unix.Read(r.src.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return true
		case err != nil:
			r.fail(os.NewSyscallError("read", err))
			return true
		case n == 0:
			if r.done = true; !last {
				r.end(unix.Shutdown(r.dst.fd, unix.SHUT_WR))
			}
			return true
		}
		if !r.pass(buf[:n]) {
			return false
		}
		if r.done {
			return true // dst is gone
		}
		if r.full++; n < len(buf) {
			r.full = 0
			if !ending {
				return true
			}
		}
		if r.full >= loopFull {
			r.full = 0
			return false
		}
	}
}

// pass writes p to dst, in the loop. What dst does not take is kept in rest,
// and false returned.
func (r *relay) pass(p []byte) bool {
	for len(p) > 0 {
		n, err := unix.Write(r.dst.fd, p)
		if n > 0 {
			r.n += int64(n)
			p = p[n:]
		}
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			r.rest = append([]byte(nil), p...)
			return false
		default:
			r.fail(os.NewSyscallError("write", err))
			return true
		}
	}
	return true
}

// flush writes what is left over to dst, in the loop's way.
func (r *relay) flush() {
	if p := r.rest; p != nil {
		r.rest = nil
		r.pass(p)
	}
}

// end passes src's end on, which shutting dst down has answered with err.
func (r *relay) end(err error) {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ENOTCONN) {
		err = nil // dst's peer is gone already, which the other direction has seen
	}
	r.done, r.err = true, err
}

func (r *relay) fail(err error) { r.done, r.err = true, err }

// pump carries src to dst until src ends, on a goroutine, and passes the end
// on: a half-close as a half-close. It returns early, not done, when a read
// deadline interrupts it: nothing is between the two then. It is a named
// function for the sake of goroutine dumps.
func (r *relay) pump(buffers *relayBuffers) {
	var err error
	if len(r.rest) > 0 { // to write nothing would find out about a dst that has yet to be read
		var n int
		n, err = r.dst.tcp.Write(r.rest)
		r.n += int64(n)
		r.rest = r.rest[n:]
	}
	volume := false
	if err == nil {
		r.rest = nil
		volume, err = r.trickle(buffers)
	}
	if volume {
		var n int64
		n, err = io.Copy(r.dst.tcp, r.src.tcp)
		r.n += n
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && len(r.rest) == 0 {
		return
	}
	switch {
	case err != nil:
		r.fail(err)
	case r.src.gone():
		// What looks like an end may be a reset of which the other direction was
		// told. The close that follows says what it was.
		r.done, r.gone = true, true
	default:
		r.end(r.dst.tcp.CloseWrite())
	}
}

// trickle carries what comes in pieces, by read and write, until they become a
// stream. It returns true when they do, and false with a nil error at src's
// end. A direction in which nothing comes holds no pipe so.
func (r *relay) trickle(buffers *relayBuffers) (volume bool, err error) {
	raw, err := r.src.tcp.SyscallConn()
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
			m, err := r.dst.tcp.Write(buf[:n])
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
