package main

import (
	"context"
	"net"

	"github.com/inetaf/tcpproxy"
)

// tcpproxy is inetaf/tcpproxy with an SNI route that asks the allowlist. It
// has no log of its own; the route writes the line.
func (s *setup) tcpproxy() error {
	var p tcpproxy.Proxy
	target := &tcpproxy.DialProxy{
		Addr: "origin",
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			for _, addr := range s.hosts {
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(addr, "443"))
			}
			return nil, net.ErrClosed
		},
	}
	p.AddSNIMatchRoute(s.listen, func(_ context.Context, name string) bool {
		s.log.line("", name, s.allowed[name])
		return s.allowed[name]
	}, target)
	return p.Run()
}
