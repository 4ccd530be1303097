package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// attemptDelay is how long one connection attempt has the field to itself
// before the next begins beside it: RFC 8305, section 5 recommends 250 ms.
const attemptDelay = 250 * time.Millisecond

// dialer opens connections to vetted addresses, by Happy Eyeballs (RFC 8305,
// section 5). It knows no names and reads no environment. The zero value is
// ready to use.
type dialer struct {
	// connect replaces the one attempt, in tests; nil means [connectTo].
	connect func(context.Context, netip.AddrPort, vetFunc) (*net.TCPConn, error)
}

// vetFunc judges an address that is about to be dialled; nil means it may be.
type vetFunc = func(netip.AddrPort) error

// dial connects to the first of addrs that answers and returns when no other
// attempt is left running. The families take turns, IPv6 first; within a
// family the order is kept. ctx bounds all attempts together. vet is asked
// again about each address at the moment of its dialling, whatever was asked
// before; there is no dialling without one. The error is a [*dialError], or
// wraps ctx's cause when ctx was cancelled.
//
// The connection waits in l, a *socket then, unless l is nil.
func (d *dialer) dial(ctx context.Context, l *loop, addrs []netip.AddrPort, vet vetFunc) (endpoint, error) {
	connect := func(ctx context.Context, addr netip.AddrPort, vet vetFunc) (endpoint, error) {
		switch {
		case d.connect != nil:
			return asEndpoint(d.connect(ctx, addr, vet))
		case l != nil && !l.closed.Load() && addr.Addr().Zone() == "":
			return l.connect(ctx, addr, vet)
		}
		return asEndpoint(connectTo(ctx, addr, vet))
	}
	switch {
	case vet == nil:
		return nil, errors.New("dial: no guard was given")
	case len(addrs) == 0:
		return nil, errors.New("dial: no address was given")
	case len(addrs) == 1:
		conn, err := connect(ctx, addrs[0], vet)
		if err != nil {
			return nil, dialFailed(ctx, []error{err})
		}
		return conn, nil
	}
	r := &race{connect: connect, vet: vet, addrs: interleave(addrs), results: make(chan attemptResult, len(addrs))}
	return r.run(ctx)
}

// race is one run of several attempts. One goroutine owns it; an attempt's
// goroutine only sends its result, and results has room for all of them.
type race struct {
	connect func(context.Context, netip.AddrPort, vetFunc) (endpoint, error)
	vet     vetFunc
	addrs   []netip.AddrPort
	results chan attemptResult

	started, ended int
	errs           []error
}

type attemptResult struct {
	conn endpoint
	err  error
}

func (r *race) run(ctx context.Context) (endpoint, error) {
	attempts, cancel := context.WithCancel(ctx)
	defer cancel()
	r.start(attempts)
	next := time.NewTimer(attemptDelay)
	defer next.Stop()
	for r.ended < r.started {
		select {
		case <-next.C:
			if r.start(attempts) {
				next.Reset(attemptDelay)
			}
		case res := <-r.results:
			r.ended++
			if res.err == nil {
				cancel()
				r.reap()
				return res.conn, nil
			}
			r.errs = append(r.errs, res.err)
			if ctx.Err() == nil && r.start(attempts) {
				next.Reset(attemptDelay)
			}
		}
	}
	return nil, dialFailed(ctx, r.errs)
}

// start begins the next attempt and reports whether there was one.
func (r *race) start(ctx context.Context) bool {
	if r.started == len(r.addrs) {
		return false
	}
	addr := r.addrs[r.started]
	r.started++
	go r.attempt(ctx, addr)
	return true
}

func (r *race) attempt(ctx context.Context, addr netip.AddrPort) {
	conn, err := r.connect(ctx, addr, r.vet)
	r.results <- attemptResult{conn, err}
}

// reap waits for the attempts that lost and closes what they opened.
func (r *race) reap() {
	for ; r.ended < r.started; r.ended++ {
		if res := <-r.results; res.err == nil {
			_ = res.conn.Close() // it lost the race: nobody has used it
		}
	}
}

// asEndpoint keeps a nil pointer from becoming an endpoint.
func asEndpoint(tcp *net.TCPConn, err error) (endpoint, error) {
	if err != nil {
		return nil, err
	}
	return tcp, nil
}

// connectTo is one attempt at one address.
func connectTo(ctx context.Context, addr netip.AddrPort, vet vetFunc) (*net.TCPConn, error) {
	d := net.Dialer{
		KeepAlive: -1, // set where a connection may be silent for long
		Control: func(_, address string, _ syscall.RawConn) error {
			// What the kernel is about to connect to, not what was asked for.
			actual, err := netip.ParseAddrPort(address)
			if err != nil {
				return &vetoError{fmt.Errorf("reading the address to dial: %w", err)}
			}
			if err := vet(netip.AddrPortFrom(actual.Addr().Unmap(), actual.Port())); err != nil {
				return &vetoError{err}
			}
			return nil
		},
	}
	// Not DialTCP: even without a local address it binds, and a port that was
	// bound serves one connection at a time, whoever that is to. After 32,000
	// within a minute the search for a free one takes milliseconds.
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the address, and is told apart by type
	}
	return conn.(*net.TCPConn), nil //nolint:forcetypeassert // the network is tcp
}

// vetoError marks an address that the guard refused at the last moment.
type vetoError struct{ err error }

func (e *vetoError) Error() string { return e.err.Error() }
func (e *vetoError) Unwrap() error { return e.err }

// interleave lets the families take turns, IPv6 first (RFC 8305, section 4).
// Within a family the order is kept.
func interleave(addrs []netip.AddrPort) []netip.AddrPort {
	var v6, v4 []netip.AddrPort
	for _, a := range addrs {
		if a.Addr().Unmap().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	out := make([]netip.AddrPort, 0, len(addrs))
	for i := range max(len(v6), len(v4)) {
		if i < len(v6) {
			out = append(out, v6[i])
		}
		if i < len(v4) {
			out = append(out, v4[i])
		}
	}
	return out
}

// dialError is every attempt's error. Only the most telling is unwrapped:
// beside a refused connection, the unreachable network of the other family
// is noise, and whoever classifies the error must not see it first.
type dialError struct{ attempts []error }

// Error tells every attempt, the most telling first.
func (e *dialError) Error() string {
	texts := make([]string, len(e.attempts))
	for i, err := range e.attempts {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the most telling attempt's error.
func (e *dialError) Unwrap() error { return e.attempts[0] }

// dialFailed makes the error of a dial without success.
func dialFailed(ctx context.Context, errs []error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("dial given up: %w", context.Cause(ctx))
	}
	slices.SortStableFunc(errs, func(a, b error) int { return cmp.Compare(dialRank(a), dialRank(b)) })
	return &dialError{attempts: errs}
}

// dialRank orders errors by how much they tell, the most telling first: a
// veto should never happen, a refusal came from the destination itself, a
// timeout from the way there, and no route is our own state.
func dialRank(err error) int {
	if _, ok := errors.AsType[*vetoError](err); ok {
		return 0
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		return 1
	}
	if e, ok := errors.AsType[net.Error](err); errors.Is(err, os.ErrDeadlineExceeded) || ok && e.Timeout() {
		return 2
	}
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		return 4
	}
	return 3
}
