package main

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/elazarl/goproxy"
)

// goproxy is the library's own CONNECT and HTTP, with an allowlist.
func (s *setup) goproxy() error {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, s.fixed(addr))
	}
	p := goproxy.NewProxyHttpServer()
	p.Logger = log.New(io.Discard, "", 0)
	p.Tr = &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64}
	p.ConnectDialWithReq = func(req *http.Request, network, addr string) (net.Conn, error) {
		return dial(req.Context(), network, addr)
	}
	p.OnRequest().HandleConnectFunc(func(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		name, _, err := net.SplitHostPort(host)
		if s.permit(ctx.Req, name) && err == nil {
			return goproxy.OkConnect, host
		}
		return goproxy.RejectConnect, host
	})
	p.OnRequest().DoFunc(func(req *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		if s.permit(req, req.URL.Hostname()) {
			return req, nil
		}
		return req, goproxy.NewResponse(req, goproxy.ContentTypeText, http.StatusForbidden, "denied\n")
	})
	server := &http.Server{Addr: s.listen, Handler: p, ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}

func (s *setup) permit(req *http.Request, name string) bool {
	allowed := s.allowed[name]
	s.log.line(req.RemoteAddr, name, allowed)
	return allowed
}
