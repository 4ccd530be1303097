package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// The bucket that is inspected on the way to: its host, one that no policy
// lists, and where both lead. Its objects have two sizes; one that is put is
// as large as the large one.
const (
	bucketName     = "app-data.s3.us-east-1.amazonaws.com"
	strangerBucket = "stranger.s3.us-east-1.amazonaws.com"
	bucketAddr     = "127.0.9.3"
	smallObject    = 1 << 10
	largeObject    = 1 << 30
)

// bucket answers as S3 does, in HTTP/1.1 inside TLS: GET with an object of
// zeros, PUT when it has swallowed one. It checks no signature.
type bucket struct {
	config *tls.Config
	zeros  []byte
	large  int // bytes of the large object
}

// bucketConfig is what the bucket's process is told.
type bucketConfig struct {
	Addr      netip.AddrPort
	Cert, Key string // files
}

// runBucket serves until the process is ended.
func runBucket(ctx context.Context, config string) error {
	var c bucketConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	frugalRuntime()
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr.String())
	if err != nil {
		return err
	}
	b := &bucket{
		config: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		zeros:  make([]byte, payload),
		large:  largeObject,
	}
	return b.serve(ln)
}

// serve answers every connection until the listener is closed, and those that
// there are then.
func (b *bucket) serve(ln net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		all.Go(func() { b.converse(conn) })
	}
}

// converse answers one request after the other. What goes wrong, the client
// sees.
func (b *bucket) converse(tcp net.Conn) {
	conn := tls.Server(tcp, b.config)
	defer conn.Close()
	buf := make([]byte, payload)
	n := 0 // bytes of buf
	for {
		end := bytes.Index(buf[:n], []byte("\r\n\r\n"))
		if end < 0 {
			if n > 32<<10 {
				return
			}
			m, err := conn.Read(buf[n:])
			if err != nil {
				return
			}
			n += m
			continue
		}
		end += 4
		rest, err := b.answer(conn, string(buf[:end]), buf[end:n], buf)
		if err != nil {
			return
		}
		n = copy(buf, rest)
	}
}

// answer answers the request that head is of, and returns what came behind
// it. more begins with its body, and buf may be read into.
func (b *bucket) answer(conn net.Conn, head string, more, buf []byte) (rest []byte, err error) {
	method, target, ok := strings.Cut(head, " ")
	switch {
	case ok && method == "GET":
		size := smallObject
		if strings.HasPrefix(target, "/large") {
			size = b.large
		}
		return more, b.send(conn, size)
	case ok && method == "PUT":
		size, err := contentLength([]byte(head[:len(head)-2]))
		if err != nil {
			return nil, err
		}
		if len(more) > size {
			return nil, errors.New("a request before the answer")
		}
		for left := size - len(more); left > 0; {
			n, err := conn.Read(buf)
			if n > left {
				return nil, errors.New("a request before the answer")
			}
			if left -= n; err != nil && left > 0 {
				return nil, err
			}
		}
		_, err = io.WriteString(conn, bucketHead(0))
		return nil, err
	default:
		return nil, fmt.Errorf("neither GET nor PUT: %.20q", head)
	}
}

func bucketHead(size int) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nx-amz-id-2: bench\r\nx-amz-request-id: BENCH\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n"+
		"ETag: \"00000000000000000000000000000000\"\r\nContent-Type: binary/octet-stream\r\nContent-Length: %d\r\nServer: AmazonS3\r\n\r\n", size)
}

// send writes an object, the first part of it with the head.
func (b *bucket) send(conn net.Conn, size int) error {
	head := bucketHead(size)
	first := min(size, smallObject)
	if _, err := conn.Write(append([]byte(head), b.zeros[:first]...)); err != nil {
		return err
	}
	for left := size - first; left > 0; {
		n, err := conn.Write(b.zeros[:min(left, len(b.zeros))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}
