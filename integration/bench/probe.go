package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// strangerName is on no allowlist; see way.stranger.
const strangerName = "stranger.bench.test"

// probe asks the origin for a sign of life through the subject, once, for a
// name. Nil means that the origin has answered, and that TLS was inspected
// where it is to be.
func (s *session) probe(ctx context.Context, name string) error {
	o, w := s.bench.o, s.way
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	br := bufio.NewReader(conn)
	switch w {
	case wayHTTP:
		fmt.Fprintf(conn, "GET http://%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n", hostPort(name, o.HTTPPort, 80))
		return wants200(br)
	case wayConnect, wayHeader, wayInspect:
		fmt.Fprintf(conn, "%[2]sCONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", hostPort(name, o.TLSPort, 0), w.header())
		if err := wants200(br); err != nil {
			return err
		}
	}
	if w == wayInspect {
		return askBucket(ctx, conn, name, o.TLSPort, s.roots)
	}
	hello, err := helloFor(name, askReply)
	if err != nil {
		return err
	}
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	reply := make([]byte, replySize)
	if _, err := io.ReadFull(br, reply); err != nil {
		return fmt.Errorf("no reply of the origin: %w", err)
	}
	if reply[0] != 'k' {
		return errors.New("an answer that is not the origin's")
	}
	return nil
}

// askBucket gets the small object.
func askBucket(ctx context.Context, tcp net.Conn, name string, port int, roots string) error {
	text, err := os.ReadFile(roots)
	if err != nil {
		return err
	}
	config, err := bucketTLS(name, text)
	if err != nil {
		return err
	}
	conn := tls.Client(tcp, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := conn.Write(bucketRequest("GET /small", name, port)); err != nil {
		return err
	}
	return wants200(bufio.NewReader(conn))
}

func wants200(br *bufio.Reader) error {
	// As to CONNECT, so that the tunnel is no body.
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}
