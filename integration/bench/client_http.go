package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"
)

// requester is a connection with one request after the other.
type requester struct {
	client *client
	fd     int
	dialed bool
	began  time.Time
	buf    [8 << 10]byte
	n      int
	need   int // bytes of the whole answer; 0 until its head is read
	served int // answers on this connection
}

// httpRequest is a request as to an explicit proxy; the others, and the origin,
// take the absolute form as well.
func httpRequest(port int) []byte {
	return fmt.Appendf(nil, "GET http://%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", hostPort(originName, port, 80))
}

// hostPort is an authority, without the port where that is the usual one.
func hostPort(name string, port, usual int) string {
	if port == usual {
		return name
	}
	return net.JoinHostPort(name, strconv.Itoa(port))
}

func (r *requester) open() {
	c := r.client
	fd, done, err := connectTo(c.to)
	if err != nil {
		r.fd = -1
		r.fail(err)
		return
	}
	r.fd, r.dialed, r.served = fd, done, 0
	events := uint32(syscall.EPOLLOUT)
	if done {
		events = syscall.EPOLLIN
		err = r.send()
	}
	if err = errors.Join(err, c.loop.add(fd, events, r)); err != nil {
		r.fail(err)
	}
}

func (r *requester) send() error {
	r.n, r.need, r.began = 0, 0, time.Now()
	return writeAll(r.fd, r.client.request)
}

func (r *requester) fail(err error) {
	if r.fd >= 0 {
		r.client.loop.close(r.fd)
		r.fd = -1
	}
	if r.client.fault(err) {
		r.open()
	}
}

func (r *requester) ready(uint32) {
	var err error
	if r.dialed {
		err = r.read()
	} else if err = connected(r.fd); err == nil {
		r.dialed = true
		err = errors.Join(r.client.loop.change(r.fd, syscall.EPOLLIN), r.send())
	}
	if err != nil {
		r.fail(err)
	}
}

func (r *requester) read() error {
	n, err := receive(r.fd, r.buf[r.n:])
	if errors.Is(err, io.ErrUnexpectedEOF) && r.n == 0 && r.served > 0 {
		// The connection was not kept, which is no error: there is another.
		r.client.loop.close(r.fd)
		r.open()
		return nil
	}
	if err != nil || n == 0 {
		return err
	}
	r.n += n
	if r.need == 0 {
		if r.need, err = answerSize(r.buf[:r.n]); err != nil {
			return err
		}
	}
	switch {
	case r.need > len(r.buf):
		return fmt.Errorf("an answer of %d bytes", r.need)
	case r.need == 0 && r.n == len(r.buf):
		return errors.New("a head without end")
	case r.need == 0 || r.n < r.need:
		return nil
	case r.n > r.need:
		return fmt.Errorf("%d bytes behind the answer", r.n-r.need)
	}
	r.client.count(time.Since(r.began))
	r.served++
	return r.send()
}

// answerSize returns how long an HTTP answer will be with its body, or 0 while
// its head is not complete. An answer that is not 200 or does not say its
// length is an error.
func answerSize(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	head := b[:end+2]
	if len(head) < 12 || string(head[8:12]) != " 200" {
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		return 0, fmt.Errorf("the request was answered %q", line)
	}
	n, err := contentLength(head)
	if err != nil {
		return 0, err
	}
	return end + 4 + n, nil
}

// contentLength reads that field of a head.
func contentLength(head []byte) (int, error) {
	const field = "\r\ncontent-length:"
	for i := 0; i+len(field) <= len(head); i++ {
		if head[i] != '\r' || !bytes.EqualFold(head[i:i+len(field)], []byte(field)) {
			continue
		}
		value, _, _ := bytes.Cut(head[i+len(field):], []byte("\r\n"))
		n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
		if err != nil || n < 0 {
			return 0, fmt.Errorf("a Content-Length of %q", value)
		}
		return n, nil
	}
	return 0, errors.New("no Content-Length")
}
