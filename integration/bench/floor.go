package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"time"
)

// floorConfig is what the floor is told.
type floorConfig struct {
	Listen, Origin netip.AddrPort
	Connect        bool // answer CONNECT first
	Workers        int
}

// floor relays with as few system calls as it can: loops on epoll, data copied
// through one buffer while there is little of it, and spliced through a
// borrowed pipe when there is much. It is what the machine allows, for a
// program that has nothing else to do.
type floor struct {
	config floorConfig
	loop   *loop
	to     syscall.Sockaddr
	buf    []byte
	pipes  [][2]int
	again  []*link // with more to do than a turn allowed
}

// runFloor serves until the process is ended.
func runFloor(config string) error {
	var c floorConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ended := make(chan error)
	for range c.Workers {
		go func() {
			runtime.LockOSThread() // as in quietRuntime, but for the number of loops
			f, err := newFloor(c)
			if err == nil {
				err = f.serve()
			}
			ended <- err
		}()
	}
	return <-ended // with the process, all workers end
}

func newFloor(c floorConfig) (*floor, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	f := &floor{config: c, loop: l, to: sockaddr(c.Origin), buf: make([]byte, 64<<10)}
	fd, err := listenOn(c.Listen)
	if err != nil {
		return nil, err
	}
	return f, l.add(fd, syscall.EPOLLIN, &floorListener{f, fd})
}

func (f *floor) serve() error {
	for {
		wait := time.Duration(-1)
		if len(f.again) > 0 {
			wait = 0
		}
		if err := f.loop.poll(wait); err != nil {
			return err
		}
		turn := f.again
		f.again = nil
		for _, k := range turn {
			k.queued = false
			k.pump()
		}
	}
}

type floorListener struct {
	floor *floor
	fd    int
}

func (ln *floorListener) ready(uint32) {
	acceptAll(ln.fd, func(fd int) {
		k := &link{floor: ln.floor}
		k.client, k.origin = &side{link: k, fd: fd}, &side{link: k, fd: -1}
		k.out, k.in = flow{from: k.client, to: k.origin}, flow{from: k.origin, to: k.client}
		if ln.floor.loop.add(fd, everything, k.client) != nil {
			ln.floor.loop.close(fd)
		}
	})
}

// everything is all that can happen, told once (EPOLLET): the pump reads and
// writes until it is told to wait.
const everything = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31

// link is a tunnel.
type link struct {
	floor          *floor
	client, origin *side
	out, in        flow
	head           []byte // of CONNECT, so far
	dialed, closed bool
	queued         bool // among those with more to do
}

// side is one of a tunnel's sockets.
type side struct {
	link *link
	fd   int
	hup  bool // the far end has finished, or the socket broke
}

func (s *side) ready(events uint32) {
	if events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		s.hup = true
	}
	k := s.link
	in, out := &k.out, &k.in // of this side
	if s == k.origin {
		in, out = &k.in, &k.out
	}
	in.due = in.due || s.hup || events&syscall.EPOLLIN != 0
	out.due = out.due || out.pending() // nearly every event says that one may write
	k.step()
}

func (k *link) step() {
	switch {
	case k.closed:
	case k.dialed:
		k.pump()
	case k.origin.fd >= 0: // connecting
		k.dialed = true
		k.answer()
	default:
		k.dial()
	}
}

// dial goes to the origin: with CONNECT as soon as its head is there.
func (k *link) dial() {
	if k.floor.config.Connect {
		n, err := syscall.Read(k.client.fd, k.floor.buf)
		if err != nil && again(err) {
			return
		}
		if err != nil || n <= 0 {
			k.close()
			return
		}
		if k.head = append(k.head, k.floor.buf[:n]...); !bytes.HasSuffix(k.head, []byte("\r\n\r\n")) {
			return
		}
	}
	fd, done, err := connectTo(k.floor.to)
	if err != nil {
		k.close()
		return
	}
	k.origin.fd = fd
	if err := k.floor.loop.add(fd, everything, k.origin); err != nil {
		k.close()
		return
	}
	if done {
		k.dialed = true
		k.answer()
	}
}

func (k *link) answer() {
	if connected(k.origin.fd) != nil {
		k.close()
		return
	}
	if k.floor.config.Connect && writeAll(k.client.fd, []byte("HTTP/1.1 200 OK\r\n\r\n")) != nil {
		k.close()
		return
	}
	k.out.due = true // what the client has sent meanwhile
	k.pump()
}

// pump moves what there is, both ways, up to a turn's worth.
func (k *link) pump() {
	if k.closed {
		return
	}
	more, err := false, error(nil)
	for _, d := range []*flow{&k.out, &k.in} {
		if !d.due {
			continue
		}
		m, e := d.pump(k.floor)
		d.due = m
		more, err = more || m, errors.Join(err, e)
	}
	switch {
	case err != nil, k.out.done && k.in.done:
		k.close()
	case more && !k.queued:
		k.queued = true
		k.floor.again = append(k.floor.again, k)
	}
}

func (k *link) close() {
	k.closed = true
	for _, d := range []*flow{&k.out, &k.in} {
		if d.spliced > 0 { // what is in the pipe belongs to nobody else
			syscall.Close(d.pipe[0])
			syscall.Close(d.pipe[1])
		} else if d.holding {
			d.giveBack(k.floor)
		}
	}
	for _, s := range []*side{k.client, k.origin} {
		if s.fd >= 0 {
			k.floor.loop.close(s.fd)
		}
	}
}

// flow is one direction.
type flow struct {
	from, to *side
	due      bool   // something may be moved
	left     []byte // read and not written
	full     int    // reads in a row that filled the buffer
	big      bool   // there is much: splice
	holding  bool   // a pipe is borrowed
	pipe     [2]int
	spliced  int  // bytes in the pipe
	done     bool // ended, and the end passed on
}

// pending reports whether something waits to be written.
func (d *flow) pending() bool { return len(d.left) > 0 || d.spliced > 0 }

// setPipeSize is fcntl's F_SETPIPE_SZ.
const setPipeSize = 1031

// turn is how many pieces a flow may move before others have theirs.
const turn = 16

// pump reports whether there may be more.
func (d *flow) pump(f *floor) (more bool, err error) {
	for range turn {
		if d.done {
			return false, nil
		}
		piece := d.copy
		if d.big || d.spliced > 0 {
			piece = d.splice
		}
		if on, err := piece(f); !on || err != nil {
			return false, err
		}
	}
	return true, nil
}

// copy moves a buffer and reports whether to go on.
func (d *flow) copy(f *floor) (bool, error) {
	if len(d.left) > 0 {
		n, err := syscall.Write(d.to.fd, d.left)
		if err != nil {
			return false, hard(err)
		}
		d.left = d.left[n:]
		return len(d.left) == 0, nil
	}
	n, err := syscall.Read(d.from.fd, f.buf)
	if err != nil {
		return false, hard(err)
	}
	if n == 0 {
		return false, d.finish()
	}
	w, err := syscall.Write(d.to.fd, f.buf[:n])
	if hard(err) != nil {
		return false, err
	}
	if w = max(w, 0); w < n {
		d.left = append(d.left[:0], f.buf[w:n]...)
		return false, nil
	}
	if n < len(f.buf) {
		d.full = 0
		return d.from.hup, nil // there was no more, unless an end
	}
	d.full++
	d.big = d.full >= 2
	return true, nil
}

// splice moves through a pipe, which it gives back when nothing comes. Little
// pieces are the end of bulk.
func (d *flow) splice(f *floor) (bool, error) {
	const flags = 1 | 2 // SPLICE_F_MOVE, SPLICE_F_NONBLOCK
	if !d.holding && !d.borrow(f) {
		d.big, d.full = false, 0
		return true, nil
	}
	if d.spliced == 0 {
		n, err := syscall.Splice(d.from.fd, nil, d.pipe[1], nil, 1<<20, flags)
		if err != nil || n == 0 {
			d.giveBack(f)
			if err != nil {
				return false, hard(err)
			}
			return false, d.finish()
		}
		if d.spliced = int(n); n < 4<<10 {
			d.big, d.full = false, 0
		}
	}
	n, err := syscall.Splice(d.pipe[0], nil, d.to.fd, nil, d.spliced, flags)
	if err != nil {
		return false, hard(err)
	}
	if d.spliced -= int(n); d.spliced == 0 && !d.big {
		d.giveBack(f)
	}
	return true, nil
}

// borrow takes a pipe, and reports whether there is one.
func (d *flow) borrow(f *floor) bool {
	if n := len(f.pipes); n > 0 {
		d.pipe, f.pipes, d.holding = f.pipes[n-1], f.pipes[:n-1], true
		return true
	}
	var p [2]int
	if syscall.Pipe2(p[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC) != nil {
		return false
	}
	// It holds less where the kernel refuses.
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(p[0]), setPipeSize, 1<<20)
	d.pipe, d.holding = p, true
	return true
}

func (d *flow) giveBack(f *floor) {
	d.holding = false
	f.pipes = append(f.pipes, d.pipe)
}

// finish passes the end on.
func (d *flow) finish() error {
	d.done = true
	if err := syscall.Shutdown(d.to.fd, syscall.SHUT_WR); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// hard is an error that is none of having to wait.
func hard(err error) error {
	if err == nil || again(err) {
		return nil
	}
	return err
}
