package main

import (
	"fmt"
	"io"
	"syscall"
	"time"
)

// tunnelJob opens tunnels, one after the other in each place.
type tunnelJob struct{ client *client }

func (j tunnelJob) opened(t *tunnel) {
	j.client.count(time.Since(t.began))
	t.close()
	t.open()
}

func (tunnelJob) ready(*tunnel, uint32) error { return nil }

func (tunnelJob) failed(t *tunnel) { t.open() }

// echoJob sends a message and waits until it is back.
type echoJob struct{ client *client }

func (j echoJob) opened(t *tunnel) {
	if err := j.send(t); err != nil {
		t.fail(err)
	}
}

func (j echoJob) send(t *tunnel) error {
	t.got, t.began = 0, time.Now()
	return writeAll(t.fd, j.client.buf[:j.client.task.Size])
}

func (j echoJob) ready(t *tunnel, _ uint32) error {
	n, err := receive(t.fd, j.client.buf[:j.client.task.Size-t.got])
	if err != nil || n == 0 {
		return err
	}
	if t.got += n; t.got < j.client.task.Size {
		return nil
	}
	j.client.count(time.Since(t.began))
	return j.send(t)
}

func (echoJob) failed(t *tunnel) { t.open() }

// downJob swallows what the origin pours.
type downJob struct{ client *client }

func (downJob) opened(*tunnel) {}

func (j downJob) ready(t *tunnel, _ uint32) error {
	n, err := discard(t.fd, j.client.buf)
	switch {
	case err != nil && again(err):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return io.ErrUnexpectedEOF
	}
	j.client.units += uint64(n)
	return nil
}

func (downJob) failed(t *tunnel) { t.open() }

// upJob pours until the sockets are full. What they hold at the end is counted
// though it has not arrived: some megabytes of gigabytes.
type upJob struct{ client *client }

func (j upJob) opened(t *tunnel) {
	if err := j.client.loop.change(t.fd, syscall.EPOLLOUT); err != nil {
		t.fail(fmt.Errorf("epoll_ctl: %w", err))
	}
}

func (j upJob) ready(t *tunnel, _ uint32) error {
	for range 4 {
		n, err := syscall.Write(t.fd, j.client.buf)
		if err != nil {
			if again(err) {
				return nil
			}
			return fmt.Errorf("write: %w", err)
		}
		j.client.units += uint64(n)
	}
	return nil
}

func (upJob) failed(t *tunnel) { t.open() }

// idleAtOnce is how many idle tunnels are being opened at a time.
const idleAtOnce = 32

// idleJob opens tunnels and leaves them alone.
type idleJob struct {
	client  *client
	started int
	open    int
	lost    int
}

// next opens one more, if there is one more to open.
func (j *idleJob) next() {
	if j.started < j.client.task.Count {
		j.started++
		(&tunnel{client: j.client}).open()
	}
}

func (j *idleJob) opened(t *tunnel) {
	j.open++
	j.client.count(time.Since(t.began))
	j.next()
}

// ready is called for an idle tunnel when somebody closes it.
func (j *idleJob) ready(t *tunnel, _ uint32) error {
	if n, err := syscall.Read(t.fd, j.client.buf); n > 0 || err != nil && again(err) {
		return nil
	}
	j.lost++
	t.close()
	return nil
}

func (j *idleJob) failed(*tunnel) { j.next() }
