package steer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The sizes of UDP messages.
const (
	maxUDPQuestion = 1500 // read; what is longer no client sends
	maxUDPAnswer   = 1232 // no fragments on any sane path (DNS flag day 2020)
)

// shareOfOne is the part of Config.Questions that one address may have.
const shareOfOne = 16

// serveUDP reads questions until ctx ends. Each is answered by a goroutine,
// since finding out who asks may take a while; there are Config.Questions of
// them at most, and few for one address: those whom nobody knows must not keep
// out those who are known.
func (s *Server) serveUDP(ctx context.Context) {
	slots := make(chan struct{}, s.cfg.Questions)
	shares := newShares(max(s.cfg.Questions/shareOfOne, 2))
	local := addrPortOf(s.udp.LocalAddr())
	buf := make([]byte, maxUDPQuestion)
	for ctx.Err() == nil {
		n, session, err := dns.ReadFromSessionUDP(s.udp, buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// ICMP errors of earlier answers arrive here; anything lasting must
			// not take a whole CPU.
			pause(ctx, time.Millisecond)
			continue
		}
		from := asker{remote: addrPortOf(session.RemoteAddr()), local: local, datagram: true}
		if !shares.enter(from.remote.Addr()) {
			s.stats.dropped.Add(1)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			shares.leave(from.remote.Addr())
			s.stats.dropped.Add(1)
			continue
		}
		wire := append([]byte(nil), buf[:n]...)
		s.work.Go(func() {
			defer func() { <-slots }()
			defer shares.leave(from.remote.Addr())
			if out := s.respond(ctx, wire, from); out != nil {
				// The client's address may be forged, and nobody there.
				_, _ = dns.WriteToSessionUDP(s.udp, out, session)
			}
		})
	}
}

// shares counts the questions of each address that are being answered.
type shares struct {
	most int

	mu sync.Mutex // guards of
	of map[netip.Addr]int
}

func newShares(most int) *shares { return &shares{most: most, of: make(map[netip.Addr]int)} }

// enter counts a question, unless there are too many. Each that entered leaves
// once.
func (a *shares) enter(addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of[addr] >= a.most {
		return false
	}
	a.of[addr]++
	return true
}

func (a *shares) leave(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of[addr]--; a.of[addr] <= 0 {
		delete(a.of, addr)
	}
}

// asker is where a question comes from.
type asker struct {
	remote, local netip.AddrPort
	datagram      bool // by UDP: the address may be forged, the answer must fit
}

// addrPortOf returns a socket's address, unmapped.
func addrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
