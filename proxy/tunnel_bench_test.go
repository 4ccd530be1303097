package proxy

import (
	"fmt"
	"net"
	"testing"
)

// BenchmarkTunnel is one tunnel after another: connect, CONNECT, a ClientHello,
// an answer, close.
func BenchmarkTunnel(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Read(buf)
			c.Write(buf[:100])
			c.Close()
		}
	}()
	b.Cleanup(func() { ln.Close() })
	port := ln.Addr().(*net.TCPAddr).Port
	addr := benchServer(b, "origin.example", allow("tls", port, "origin.example"))
	head := fmt.Appendf(nil, "CONNECT origin.example:%d HTTP/1.1\r\nHost: origin.example\r\nUser-Agent: bench\r\n\r\n", port)
	hello := goHello(b, nil)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		c.Write(head)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		c.Write(hello)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
