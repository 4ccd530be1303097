package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

// phase is how far a tunnel is.
type phase uint8

const (
	phaseDial   phase = iota // connecting
	phaseAnswer              // CONNECT is sent, the proxy's answer is awaited
	phaseReply               // the hello is sent, the origin's reply is awaited
	phaseWork                // the job's
)

// tunnel is a connection of the client on its way to the origin and after.
// It is used again when it has ended.
type tunnel struct {
	client *client
	fd     int
	phase  phase
	began  time.Time
	n      int // bytes of buf, or of the reply
	buf    [1024]byte
	got    int // the job's
}

// open begins the tunnel, from whatever state.
func (t *tunnel) open() {
	c := t.client
	t.phase, t.n, t.got, t.began = phaseDial, 0, 0, time.Now()
	fd, done, err := connectTo(c.to)
	if err != nil {
		t.fd = -1
		t.fail(err)
		return
	}
	t.fd = fd
	events := uint32(syscall.EPOLLOUT)
	if done {
		events = syscall.EPOLLIN
		if err := t.greet(); err != nil {
			c.loop.close(fd)
			t.fd = -1
			t.fail(err)
			return
		}
	}
	if err := c.loop.add(fd, events, t); err != nil {
		t.fail(fmt.Errorf("epoll_ctl: %w", err))
	}
}

// close ends it without complaint.
func (t *tunnel) close() {
	if t.fd >= 0 {
		t.client.loop.close(t.fd)
		t.fd = -1
	}
}

func (t *tunnel) fail(err error) {
	t.close()
	if t.client.fault(err) {
		t.client.job.failed(t)
	}
}

func (t *tunnel) ready(ev uint32) {
	if err := t.step(ev); err != nil {
		t.fail(err)
	}
}

func (t *tunnel) step(ev uint32) error {
	switch t.phase {
	case phaseDial:
		if err := connected(t.fd); err != nil {
			return err
		}
		if err := t.greet(); err != nil {
			return err
		}
		return t.client.loop.change(t.fd, syscall.EPOLLIN)
	case phaseAnswer:
		return t.readAnswer()
	case phaseReply:
		return t.readReply()
	default:
		return t.client.job.ready(t, ev)
	}
}

// greet sends the first bytes.
func (t *tunnel) greet() error {
	if t.client.task.Connect {
		t.phase = phaseAnswer
		return writeAll(t.fd, t.client.request)
	}
	t.phase = phaseReply
	return writeAll(t.fd, t.client.hello)
}

func (t *tunnel) readAnswer() error {
	n, err := receive(t.fd, t.buf[t.n:])
	if err != nil || n == 0 {
		return err
	}
	t.n += n
	head := t.buf[:t.n]
	if !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		if t.n == len(t.buf) {
			return errors.New("the answer to CONNECT is too long")
		}
		return nil
	}
	if len(head) < 12 || string(head[8:12]) != " 200" {
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		return fmt.Errorf("CONNECT was answered %q", line)
	}
	t.phase, t.n = phaseReply, 0
	return writeAll(t.fd, t.client.hello)
}

func (t *tunnel) readReply() error {
	n, err := receive(t.fd, t.buf[:replySize-t.n])
	if err != nil || n == 0 {
		return err
	}
	if t.buf[0] != 'k' {
		return fmt.Errorf("not the origin's reply, but %q", t.buf[:n])
	}
	if t.n += n; t.n < replySize {
		return nil
	}
	t.phase = phaseWork
	t.client.job.opened(t)
	return nil
}

// receive reads; an end is an error, and nothing yet is 0.
func receive(fd int, b []byte) (int, error) {
	n, err := syscall.Read(fd, b)
	switch {
	case err != nil && again(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read: %w", err)
	case n <= 0:
		return 0, fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
	default:
		return n, nil
	}
}
