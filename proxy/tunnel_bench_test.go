package proxy

import (
	"fmt"
	"net"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
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
	addr := benchTunnelServer(b, port)
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

func benchTunnelServer(b *testing.B, port int) string {
	b.Helper()
	p, err := policy.Load(policy.Text{Name: "bench.yaml", Data: []byte("version: 1\nrules:\n" + allow("tls", port, "origin.example"))})
	if err != nil {
		b.Fatal(err)
	}
	live := policy.NewLive()
	live.Swap(p)
	names := newNames()
	names.set("origin.example", "127.0.0.1")
	s, err := New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}}, Deps{Decider: live, Resolver: names, Recorder: discard{}, NewID: flow.NewID})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Listen(b.Context()); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(b.Context()) }()
	b.Cleanup(func() { s.Cut(); <-done })
	return s.Addrs()[0].String()
}
