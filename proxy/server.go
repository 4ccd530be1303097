package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
)

// Config is what a [Server] needs to know. Its zero values are usable but for
// Listeners.
type Config struct {
	// Listeners are the sockets to accept on; at least one.
	Listeners []ListenerConfig
	Timeouts  Timeouts
	Limits    Limits
	// CutDenied ends, on [Server.PolicyChanged] and [Server.CredentialsChanged],
	// the attempts under way that would be denied now.
	CutDenied bool
	// CA signs the certificates that inspected connections show to their clients;
	// it holds its private key. nil: what must be inspected is refused.
	CA *tls.Certificate
	// OriginRoots are what the certificates of inspected origins are verified
	// with; nil stands for the system's.
	OriginRoots *x509.CertPool
	// S3Keys puts objects' keys into the records of inspected requests.
	S3Keys bool
	// OwnSockets are further sockets of this process (the admin port) that no
	// client may reach through it, whatever the policy says. An unspecified
	// address stands for every address of the machine.
	OwnSockets []netip.AddrPort
}

// ListenerConfig is one socket to accept on. Raw TLS and HTTP share it.
type ListenerConfig struct {
	// Address is "host:port" or ":port" (every address, IPv4 and IPv6).
	Address string
	// ProxyProtocol says whether connections begin with a PROXY header, and
	// ProxyFrom from which addresses one is believed.
	ProxyProtocol ProxyProtocol
	ProxyFrom     []netip.Prefix
	// Original says whether connections that were aimed at others are brought
	// here, and how it is learned at whom. It excludes ProxyProtocol.
	Original OriginalDestination
	// TLS ends the TLS that clients speak to the proxy itself, behind the PROXY
	// header where there is one; nil: they speak none. It excludes Original.
	TLS ClientTLS
}

// Deps are the parts that a [Server] is handed. All are required but Log,
// Identifier, Authenticator and Ledger.
type Deps struct {
	Decider  Decider
	Resolver Resolver
	Recorder Recorder
	// Identifier tells who is behind an address; nil: nobody knows.
	Identifier Identifier
	// Authenticator checks proxy credentials; nil: they are neither asked for
	// nor looked at.
	Authenticator Authenticator
	// Ledger keeps what was sent of budgets; nil: the policy's budgets are not
	// regarded.
	Ledger Ledger
	// NewID makes a flow's ID.
	NewID func() string
	// Log receives what an operator should hear; never one line a connection.
	Log zerolog.Logger
}

// Server accepts connections and carries those that the policy allows.
type Server struct {
	cfg        Config
	deps       Deps
	dialer     dialer
	self       *self
	live       *live
	admission  *admission
	front      *front
	inspection *inspection // nil without a CA
	loops      []*loop
	turn       atomic.Uint32 // of loops, see nextLoop
	buffers    relayBuffers
	sniffed    sniffBuffers
	callers    callers
	events     flow.Pool // lent to the Recorder
	sent       *sent     // nil where no connection can come back
	doors      []*door
	work       sync.WaitGroup // accepted connections, and who accepts them
	cut        chan struct{}  // closed by Cut
	cutOnce    sync.Once
}

// New checks cfg and deps and returns a Server that holds no socket and runs
// no goroutine.
func New(cfg Config, deps Deps) (*Server, error) {
	switch {
	case len(cfg.Listeners) == 0:
		return nil, errors.New("proxy: no listener is configured")
	case deps.Decider == nil, deps.Resolver == nil, deps.Recorder == nil, deps.NewID == nil:
		return nil, errors.New("proxy: Decider, Resolver, Recorder and NewID are required")
	}
	cfg.Timeouts = cfg.Timeouts.orDefaults()
	s := &Server{
		cfg:       cfg,
		deps:      deps,
		self:      &self{sockets: cfg.OwnSockets},
		live:      newLive(),
		admission: newAdmission(cfg.Limits),
		cut:       make(chan struct{}),
	}
	var err error
	if s.inspection, err = newInspection(&cfg); err != nil {
		return nil, err
	}
	for _, l := range cfg.Listeners {
		switch {
		case l.Original != OriginalNone && l.ProxyProtocol != ProxyProtocolNone:
			return nil, fmt.Errorf("proxy: the listener %s has both an original destination and a PROXY header", l.Address)
		case l.Original != OriginalNone && l.TLS != nil:
			return nil, fmt.Errorf("proxy: the listener %s has both an original destination and TLS of its own", l.Address)
		case l.Original != OriginalNone:
			s.sent = newSent(cfg.Timeouts.Hello)
		}
	}
	s.front = newFront(s)
	return s, nil
}

// Listen binds every listener, or none: what was bound is closed again when a
// later one fails. Once it has returned nil, clients can connect, and wait
// until Run serves them.
func (s *Server) Listen(ctx context.Context) error {
	for _, l := range s.cfg.Listeners {
		// Where a connection may be silent for long, keepalive is set then.
		lc := net.ListenConfig{KeepAlive: -1, Control: l.Original.control}
		ln, err := lc.Listen(ctx, "tcp", l.Address)
		if err != nil {
			s.closeListeners()
			return fmt.Errorf("listen on %s: %w", l.Address, err)
		}
		tcp, ok := ln.(*net.TCPListener)
		if !ok {
			return fmt.Errorf("listen on %s: %T is not a TCP listener", l.Address, ln)
		}
		d, err := openDoor(tcp, l.Original == OriginalNone && l.TLS == nil)
		if err != nil {
			s.closeListeners()
			return fmt.Errorf("listen on %s: %w", l.Address, err)
		}
		s.doors = append(s.doors, d)
		s.self.sockets = append(s.self.sockets, d.local)
	}
	return nil
}

// Addrs returns the bound addresses in the order of Config.Listeners.
func (s *Server) Addrs() []net.Addr {
	out := make([]net.Addr, len(s.doors))
	for i, d := range s.doors {
		out[i] = d.ln.Addr()
	}
	return out
}

// Run serves until ctx ends, then stops accepting, waits for what is under
// way (Timeouts.Drain at most), cuts the rest and returns once the last
// attempt is recorded. It returns nil after such an end.
func (s *Server) Run(ctx context.Context) error {
	// Connections outlive ctx by the drain, so theirs is another.
	connCtx, cutConns := context.WithCancel(context.WithoutCancel(ctx))
	defer cutConns()
	var err error
	if s.loops, err = openLoops(); err != nil {
		return err
	}
	var loops sync.WaitGroup
	loopCtx, endLoops := context.WithCancel(context.WithoutCancel(ctx)) // they outlive every tunnel
	defer endLoops()
	for _, l := range s.loops {
		loops.Go(func() {
			if err := l.run(loopCtx); err != nil {
				s.deps.Log.Error().Err(err).Msg("tunnels are carried by goroutines from now on")
			}
		})
	}
	s.front.base = connCtx
	for i, d := range s.doors {
		s.work.Go(func() { s.accept(connCtx, d, &s.cfg.Listeners[i]) })
	}
	loops.Go(func() { s.front.serve(connCtx) })
	loops.Go(func() { s.sweep(connCtx) })
	loops.Go(func() { s.watchBudgets(connCtx) })

	select {
	case <-ctx.Done():
	case <-s.cut:
	}
	s.closeListeners()
	s.drain()
	s.live.cutAll() // first, so that records say why
	cutConns()
	s.front.close()
	s.work.Wait()
	endLoops()
	loops.Wait()
	return nil
}

// drain waits for what is under way, for Timeouts.Drain at most or until Cut.
func (s *Server) drain() {
	s.front.quiesce()
	idle := make(chan struct{})
	go func() {
		s.work.Wait() // ends with the cut at the latest
		close(idle)
	}()
	timer := time.NewTimer(s.cfg.Timeouts.Drain)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	case <-s.cut:
	}
}

// nextLoop returns the loop whose turn it is to get a tunnel.
func (s *Server) nextLoop() *loop { return s.loops[int(s.turn.Add(1))%len(s.loops)] }

// Cut ends a drain at once: everything under way is cut. Safe at any time.
func (s *Server) Cut() { s.cutOnce.Do(func() { close(s.cut) }) }

// PolicyChanged tells the server that its Decider now answers from another
// policy: pooled origin connections are dropped, and with Config.CutDenied
// every attempt under way is decided again. It returns how many were cut.
func (s *Server) PolicyChanged() int {
	s.front.pool.reset()
	s.front.kept.reset()
	if !s.cfg.CutDenied {
		return 0
	}
	return s.live.cutDenied(s.deps.Decider, time.Now())
}

// CredentialsChanged tells the server that its Authenticator or a listener's
// ClientTLS now asks for other proofs: with Config.CutDenied every attempt under
// way whose principal could not give them is ended. It returns how many were.
func (s *Server) CredentialsChanged() int {
	if !s.cfg.CutDenied {
		return 0
	}
	return s.live.cutUnfounded()
}

// Counts are a server's connections so far.
type Counts struct {
	Accepted uint64 // refused ones included
	Refused  uint64 // by a limit
	Active   int    // open now
}

// Counts returns the figures of this moment.
func (s *Server) Counts() Counts { return s.admission.snapshot() }

// Active returns how many accepted connections are open now.
func (s *Server) Active() int { return s.Counts().Active }

func (s *Server) closeListeners() {
	for _, d := range s.doors {
		d.close()
	}
}

func (t Timeouts) orDefaults() Timeouts {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&t.Hello, 5 * time.Second},
		{&t.Dial, 10 * time.Second},
		{&t.Idle, 15 * time.Minute},
		{&t.Drain, 25 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return t
}

// keepAlive keeps connections alive through middleboxes and finds dead peers:
// an NLB forgets a connection after 350 s without a packet.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}
}
