package proxy

import (
	"context"
	"errors"
	"net"

	"github.com/rs/zerolog"
)

// Config is what a [Server] needs to know. Its zero values are usable but for
// Listeners.
type Config struct {
	// Listeners are the sockets to accept on; at least one.
	Listeners []ListenerConfig
	Timeouts  Timeouts
	Limits    Limits
	// CutDenied ends, on [Server.PolicyChanged], the attempts under way that
	// the new policy denies.
	CutDenied bool
}

// ListenerConfig is one socket to accept on. Raw TLS and HTTP share it.
type ListenerConfig struct {
	// Address is "host:port" or ":port" (every address, IPv4 and IPv6).
	Address string
}

// Deps are the parts that a [Server] is handed. All are required but Log.
type Deps struct {
	Decider  Decider
	Resolver Resolver
	Recorder Recorder
	// NewID makes a flow's ID.
	NewID func() string
	// Log receives what an operator should hear; never one line a connection.
	Log zerolog.Logger
}

// Server accepts connections and carries those that the policy allows.
type Server struct{}

// New checks cfg and deps and returns a Server that holds no socket and runs
// no goroutine.
func New(cfg Config, deps Deps) (*Server, error) { return nil, errors.New("under construction") }

// Listen binds every listener. Once it has returned nil, clients can connect,
// and wait until Run serves them.
func (s *Server) Listen(ctx context.Context) error { return nil }

// Addrs returns the bound addresses in the order of Config.Listeners.
func (s *Server) Addrs() []net.Addr { return nil }

// Run serves until ctx ends, then stops accepting, waits for what is under
// way (Timeouts.Drain at most), cuts the rest and returns once the last
// attempt is recorded. It returns nil after such an end.
func (s *Server) Run(ctx context.Context) error { return nil }

// Cut ends a drain at once: everything under way is cut. Safe at any time.
func (s *Server) Cut() {}

// PolicyChanged tells the server that its Decider now answers from another
// policy: pooled origin connections are dropped, and with Config.CutDenied
// every attempt under way is decided again. It returns how many were cut.
func (s *Server) PolicyChanged() int { return 0 }

// Active returns how many accepted connections are open now.
func (s *Server) Active() int { return 0 }
