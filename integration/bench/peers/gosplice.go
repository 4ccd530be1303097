package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// gosplice is what the standard library comes to: two goroutines a tunnel,
// io.Copy between two *net.TCPConn, so that the kernel splices.
func (s *setup) gosplice() error {
	ln, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go s.spliceTunnel(c.(*net.TCPConn))
	}
}

func (s *setup) spliceTunnel(client *net.TCPConn) {
	defer client.Close()
	_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
	br := bufio.NewReaderSize(client, 4096)
	name, target, err := s.learn(br)
	allowed := err == nil && s.allowed[name]
	s.log.line(client.RemoteAddr().String(), name, allowed)
	if !allowed {
		return
	}
	_ = client.SetReadDeadline(time.Time{})
	conn, err := net.DialTimeout("tcp", s.fixed(target), 10*time.Second)
	if err != nil {
		return
	}
	origin := conn.(*net.TCPConn)
	defer origin.Close()
	if s.way == "connect" {
		if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
	}
	if n := br.Buffered(); n > 0 {
		early, _ := br.Peek(n)
		if _, err := origin.Write(early); err != nil {
			return
		}
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(origin, client)
		_ = origin.CloseWrite()
	}()
	_, _ = io.Copy(client, origin)
	_ = client.CloseWrite()
	<-up
}

// learn reads where the client wants to go.
func (s *setup) learn(br *bufio.Reader) (name, target string, err error) {
	if s.way == "connect" {
		req, err := http.ReadRequest(br)
		if err != nil {
			return "", "", err
		}
		name, _, err = net.SplitHostPort(req.Host)
		return name, req.Host, err
	}
	head, err := br.Peek(5)
	if err != nil {
		return "", "", err
	}
	hello, err := br.Peek(min(5+int(head[3])<<8+int(head[4]), 4096))
	if err != nil {
		return "", "", err
	}
	if name = serverName(hello); name == "" {
		return "", "", errors.New("no server name")
	}
	return name, net.JoinHostPort(name, "443"), nil
}

// serverName finds server_name in a ClientHello that is one record.
func serverName(b []byte) string {
	skip := func(width int) { // a field of its own length
		if len(b) < width {
			b = nil
			return
		}
		n := 0
		for _, v := range b[:width] {
			n = n<<8 | int(v)
		}
		b = b[min(len(b), width+n):]
	}
	b = b[min(len(b), 5+4+2+32):]
	skip(1) // session
	skip(2) // cipher suites
	skip(1) // compression
	b = b[min(len(b), 2):]
	for len(b) >= 4 {
		kind, n := int(b[0])<<8|int(b[1]), int(b[2])<<8|int(b[3])
		if len(b) < 4+n {
			return ""
		}
		if kind == 0 && n > 5 {
			return strings.ToLower(string(b[9 : 4+n]))
		}
		b = b[4+n:]
	}
	return ""
}
