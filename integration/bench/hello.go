package main

import (
	"crypto/tls"
	"fmt"
	"net"
)

// What a tunnel asks of the origin: a byte in the ClientHello's random, where
// no proxy looks for anything.
const (
	askReply byte = 'R' // answer once, then wait for the end
	askEcho  byte = 'E' // answer, then send back whatever comes
	askDown  byte = 'D' // answer, then send until the end
	askUp    byte = 'U' // answer, then swallow until the end
)

const (
	helloAsk  = 11 // where the random begins: record header 5, handshake header 4, version 2
	replySize = 64 // bytes of the origin's answer to a hello
)

// helloFor returns the ClientHello that crypto/tls sends for a name, and asks
// something of the origin with it.
func helloFor(name string, ask byte) ([]byte, error) {
	near, far := net.Pipe()
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// It fails when the pipe closes: nobody answers.
		_ = tls.Client(near, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}).Handshake()
		near.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := far.Read(buf)
	far.Close()
	<-done
	if err != nil {
		return nil, fmt.Errorf("reading a ClientHello: %w", err)
	}
	hello := buf[:n]
	if size, ok := helloSize(hello); !ok || size != n {
		return nil, fmt.Errorf("crypto/tls wrote %d bytes that are no ClientHello in one record", n)
	}
	hello[helloAsk] = ask
	return hello, nil
}

// helloSize returns how long the hello is that b begins with, and whether all
// of it is there.
func helloSize(b []byte) (size int, whole bool) {
	if len(b) < 5 {
		return 0, false
	}
	size = 5 + int(b[3])<<8 + int(b[4])
	return size, len(b) >= size && size > helloAsk
}
