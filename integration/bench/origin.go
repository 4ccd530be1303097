package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// originName and originAddr are the one destination of all loads but the
// inspected ones.
const (
	originName = "origin.bench.test"
	originAddr = "127.0.9.1"
	proxyAddr  = "127.0.9.2"
	bodySize   = 1 << 10 // of an HTTP answer
)

// payload is how much bulk is written at a time.
const payload = 256 << 10

// origin answers every connection: a ClientHello as it asks, anything else as
// HTTP.
type origin struct {
	loop     *loop
	conns    []*originConn // by descriptor, used again and again
	buf      []byte
	reply    []byte
	response []byte
}

// runOrigin serves the addresses of a JSON list until the process is ended.
func runOrigin(config string) error {
	var addrs []netip.AddrPort
	if err := json.Unmarshal([]byte(config), &addrs); err != nil {
		return err
	}
	quietRuntime()
	l, err := newLoop()
	if err != nil {
		return err
	}
	o := &origin{
		loop: l, conns: make([]*originConn, maxFiles+1), buf: make([]byte, payload),
		reply: bytes.Repeat([]byte{'k'}, replySize), response: httpResponse(),
	}
	for _, a := range addrs {
		fd, err := listenOn(a)
		if err != nil {
			return err
		}
		if err := l.add(fd, syscall.EPOLLIN, &originListener{o, fd}); err != nil {
			return err
		}
	}
	for {
		if err := l.poll(-1); err != nil {
			return err
		}
	}
}

func httpResponse() []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s",
		bodySize, strings.Repeat("b", bodySize))
}

type originListener struct {
	origin *origin
	fd     int
}

func (ln *originListener) ready(uint32) {
	acceptAll(ln.fd, func(fd int) {
		o := ln.origin
		if fd >= len(o.conns) {
			syscall.Close(fd)
			return
		}
		c := o.conns[fd]
		if c == nil {
			c = &originConn{origin: o, fd: fd}
			o.conns[fd] = c
		}
		c.ask, c.part = 0, c.part[:0]
		if o.loop.add(fd, syscall.EPOLLIN, c) != nil {
			o.loop.close(fd)
		}
	})
}

// originConn is one connection.
type originConn struct {
	origin *origin
	fd     int
	ask    byte   // 0 until known
	part   []byte // of a hello or a head that came in pieces
}

// askHTTP is what a connection asks for that does not begin with a hello.
const askHTTP byte = 'H'

func (c *originConn) ready(uint32) {
	o := c.origin
	switch c.ask {
	case askDown:
		c.pour()
		return
	case askUp:
		if n, err := discard(c.fd, o.buf); n == 0 && err == nil || err != nil && !again(err) {
			o.loop.close(c.fd)
		}
		return
	}
	n, err := syscall.Read(c.fd, o.buf)
	if err != nil && again(err) {
		return
	}
	if err != nil || n <= 0 {
		o.loop.close(c.fd)
		return
	}
	if !c.serve(o.buf[:n]) {
		o.loop.close(c.fd)
	}
}

// serve handles what came, and reports whether the connection goes on.
func (c *originConn) serve(b []byte) bool {
	switch c.ask {
	case askEcho:
		return writeAll(c.fd, b) == nil
	case askReply:
		return true
	}
	if len(c.part) > 0 {
		c.part = append(c.part, b...)
		b = c.part
	}
	if b[0] != 0x16 {
		return c.http(b)
	}
	size, whole := helloSize(b)
	if !whole {
		c.keep(b)
		return size <= 1<<14
	}
	c.ask = b[helloAsk]
	if writeAll(c.fd, c.origin.reply) != nil {
		return false
	}
	if c.ask == askDown {
		return c.origin.loop.change(c.fd, syscall.EPOLLOUT) == nil
	}
	return true
}

// http answers every request whose head is complete.
func (c *originConn) http(b []byte) bool {
	c.ask = askHTTP
	for {
		i := bytes.Index(b, []byte("\r\n\r\n"))
		if i < 0 {
			c.keep(b)
			return len(b) < 1<<14
		}
		if writeAll(c.fd, c.origin.response) != nil {
			return false
		}
		b = b[i+4:]
	}
}

// keep remembers the beginning of what is not complete.
func (c *originConn) keep(b []byte) { c.part = append(c.part[:0], b...) }

// pour writes until the socket is full, or the others' turn has come.
func (c *originConn) pour() {
	for range 4 {
		if _, err := syscall.Write(c.fd, c.origin.buf); err != nil {
			if !again(err) {
				c.origin.loop.close(c.fd)
			}
			return
		}
	}
}
