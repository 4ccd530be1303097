package steer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Server answers questions. Make it with [New]; it is safe for concurrent use.
type Server struct {
	cfg   Config
	deps  Deps
	v4    []netip.Addr
	v6    []netip.Addr
	rate  *buckets // of full answers by UDP
	fame  *fame    // of denied names
	stats counters

	tcp  *net.TCPListener
	udp  *net.UDPConn
	work sync.WaitGroup // who reads, and what was read
}

// Stats are the questions so far, by what became of them. Each counts once.
type Stats struct {
	Allowed   uint64 // the name is allowed
	Denied    uint64 // it is not
	Unserved  uint64 // a class, type or operation that nobody is answered
	Malformed uint64 // not a question that can be read
	Limited   uint64 // told to come again by TCP
	Dropped   uint64 // too much was under way to answer
	// Unrecorded are those of Denied that should have a record, and for which
	// there was no room.
	Unrecorded uint64
}

// counters is Stats, as it grows.
type counters struct {
	allowed, denied, unserved, malformed, limited, dropped, unrecorded atomic.Uint64
}

// New checks cfg and deps and returns a Server that holds no socket and runs
// no goroutine.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("steer: %w", err)
	}
	if deps.Decider == nil || deps.Recorder == nil || deps.NewID == nil {
		return nil, errors.New("steer: Decider, Recorder and NewID are required")
	}
	s := &Server{cfg: cfg.withDefaults(), deps: deps}
	for _, a := range cfg.Answer {
		if a = a.Unmap(); a.Is4() {
			s.v4 = append(s.v4, a)
		} else {
			s.v6 = append(s.v6, a)
		}
	}
	s.rate = newBuckets(s.cfg.Rate, s.cfg.Burst)
	s.fame = newFame()
	return s, nil
}

// Listen binds UDP and TCP, or neither. Once it has returned nil, questions
// wait until Run answers them.
func (s *Server) Listen(ctx context.Context) error {
	const tries = 10 // for port 0: the port that TCP was given may be taken for UDP
	for try := 1; ; try++ {
		err := s.listen(ctx)
		_, port, split := net.SplitHostPort(s.cfg.Address)
		if err == nil || port != "0" || split != nil || try == tries {
			return err
		}
	}
}

func (s *Server) listen(ctx context.Context) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.cfg.Address, err)
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listen on %s: %T is not a TCP listener", s.cfg.Address, ln)
	}
	host, _, err := net.SplitHostPort(s.cfg.Address)
	if err == nil {
		s.udp, err = listenUDP(ctx, net.JoinHostPort(host, strconv.Itoa(int(portOf(tcp.Addr())))))
	}
	if err != nil {
		tcp.Close() //nolint:errcheck // the error that counts is the other one
		return fmt.Errorf("listen on %s for UDP: %w", s.cfg.Address, err)
	}
	s.tcp = tcp
	return nil
}

// listenUDP binds a socket that tells to which of the machine's addresses a
// question came: the answer must come from there, or the client ignores it.
func listenUDP(ctx context.Context, address string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err4, err6 error
		if err := raw.Control(func(fd uintptr) {
			err4 = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
			err6 = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
		}); err != nil {
			return err
		}
		if err4 != nil && err6 != nil { // a socket of one family refuses the other's
			return errors.Join(err4, err6)
		}
		return nil
	}}
	pc, err := lc.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("%T is not a UDP socket", pc)
	}
	return udp, nil
}

func portOf(a net.Addr) uint16 {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Port()
	}
	return 0
}

// Addr returns where the server is bound, after Listen.
func (s *Server) Addr() netip.AddrPort {
	if tcp, ok := s.tcp.Addr().(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// Close gives the sockets back that Listen has bound. Run does so itself.
func (s *Server) Close() {
	if s.tcp != nil {
		s.tcp.Close() //nolint:errcheck // nothing is lost
		s.udp.Close() //nolint:errcheck // likewise
	}
}

// Run answers until ctx ends; then it reads no further question, and returns
// nil once those that it has read are answered.
func (s *Server) Run(ctx context.Context) error {
	connections := newConnections(s.cfg.Connections, s.cfg.PerSource)
	s.work.Go(func() { s.serveUDP(ctx) })
	s.work.Go(func() { s.accept(ctx, connections) })
	<-ctx.Done()
	s.tcp.Close() //nolint:errcheck // nothing is lost
	connections.wake()
	_ = s.udp.SetReadDeadline(time.Unix(1, 0)) // wakes the reader; answers can still be sent
	s.work.Wait()
	s.udp.Close() //nolint:errcheck // nothing is lost
	return nil
}

// Stats returns the figures of this moment.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Allowed: c.allowed.Load(), Denied: c.denied.Load(), Unserved: c.unserved.Load(), Malformed: c.malformed.Load(),
		Limited: c.limited.Load(), Dropped: c.dropped.Load(), Unrecorded: c.unrecorded.Load(),
	}
}
