package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// strangerName is on no allowlist, and leads to the origin all the same where
// a subject looks no further.
const strangerName = "stranger.bench.test"

// probe asks the origin for a sign of life through a subject, once, for a
// name. Nil means that the origin has answered.
func probe(ctx context.Context, o *options, w way, addr netip.AddrPort, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
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
	case wayConnect:
		fmt.Fprintf(conn, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", hostPort(name, o.TLSPort, 0))
		if err := wants200(br); err != nil {
			return err
		}
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
