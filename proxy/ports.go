package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Decider answers policy questions. It is pure and safe for concurrent use.
type Decider interface {
	// Decide answers for the policy in force at this moment.
	Decide(policy.Query) policy.Decision
	// Version names the policy in force, "" when there is none.
	Version() string
}

// Resolver turns a name into addresses. It is asked only after the policy
// has allowed the name (DESIGN.md section 2, principle 3).
type Resolver interface {
	// Lookup returns the name's addresses, IPv6 and IPv4 mixed, unmapped and
	// unvetted. The name is canonical and absolute: no search domain is ever
	// appended. An error is a [*net.DNSError] (IsTimeout when no server answered
	// in time, IsNotFound for NXDOMAIN and NODATA, Err the response code's word)
	// or ctx's cause.
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
}

// Identifier tells who is behind an address. It is asked once a connection,
// before the first decision, and safe for concurrent use.
type Identifier interface {
	// Identify returns source, whose Addr and VPCEndpoint are set, with what is
	// known beside it. It answers from memory in the ordinary case, and otherwise
	// within the time that ctx allows; a caller that nobody knows is no error but
	// Unidentified.
	Identify(ctx context.Context, source policy.Source) policy.Source
}

// Authenticator checks proxy credentials (RFC 9110, section 11.7).
type Authenticator interface {
	// Authenticate returns the principal that user proves to be with password, ""
	// when it proves nothing, and what reports, at any later time, whether it would
	// be proven still; nil: always. It throttles those that guess.
	Authenticate(ctx context.Context, source policy.Source, user, password string) (principal string, stands func() bool)
	// Knows reports whether there is such a principal: what is none's name is not
	// written down, for it may be a secret in the place of one.
	Knows(user string) bool
}

// ClientTLS is what a listener ends its clients' TLS with (an https:// proxy
// URL), and how it tells from their certificates who they are. It is asked once
// a connection, and safe for concurrent use.
type ClientTLS interface {
	// Config returns what a handshake that begins now is made with, its one
	// certificate in Certificates. It stays the callee's, and is copied; functions
	// in it are not asked.
	Config() *tls.Config
	// Principal returns whom the client's certificate names, which the handshake
	// has verified by Config; "" where it has shown none. An error refuses the
	// client.
	Principal(*tls.ConnectionState) (string, error)
	// Stands reports whether a client that Principal has named at that time, and
	// that has shown these certificates, its own first, would be named still: none
	// was revoked, nor their CA given up. That they expire meanwhile is no matter.
	Stands(certs []*x509.Certificate, at time.Time) bool
}

// Recorder receives what becomes of each attempt. Observe may be called from
// many goroutines at once.
type Recorder interface {
	Observe(flow.Event)
}

// Ledger keeps the accounts that budgets are charged to. It is safe for
// concurrent use, and never waits.
type Ledger interface {
	// Account returns the account of a budget, the same one for as long as the
	// budget is of the same source or rule, and for the same period.
	Account(*policy.Budget) Account
}

// Account is what was sent of a budget in the period at hand.
type Account interface {
	// Charge adds bytes that were sent; a negative number gives back what was
	// charged too much.
	Charge(n int64)
	// Spent reports whether the budget is spent, and when the next period begins.
	Spent() (spent bool, resets time.Time)
}

// Timeouts bound every stage of an attempt. Zero means the default.
type Timeouts struct {
	Hello time.Duration // until the name is known: HTTP head or ClientHello; 5 s
	Dial  time.Duration // to connect, all addresses together; 10 s
	Idle  time.Duration // a tunnel without a byte either way; 15 min
	Drain time.Duration // from the stop signal until what is left is cut; 25 s
}

// Limits bound what callers may hold at once. Zero means no limit.
type Limits struct {
	Connections int // accepted connections in all
	PerSource   int // accepted connections of one client address, and VPC endpoint
}
