package proxy

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policy"
)

// overLimitReserve is how many connections beyond Limits.Connections are still
// read far enough to be answered. Past it they are closed unanswered: telling
// people why must not cost what the limit protects.
const overLimitReserve = 64

// accept accepts on d until it is closed. A failing accept (descriptors
// exhausted) is retried with growing pauses: the process must outlive it.
func (s *Server) accept(ctx context.Context, d *door, cfg *ListenerConfig) {
	var pause time.Duration
	for {
		took, err := s.acceptSome(ctx, d, cfg)
		if took {
			pause = 0
		}
		switch {
		case d.closed.Load():
			return
		case err != nil:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.deps.Log.Error().Err(err).Stringer("listener", d.ln.Addr()).Dur("retry_ms", pause).Msg("accept failed")
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// acceptSome accepts what has come, after it has waited for something to come,
// and reports whether that was a connection.
func (s *Server) acceptSome(ctx context.Context, d *door, cfg *ListenerConfig) (took bool, err error) {
	l := s.nextLoop()
	if d.raw == nil || l.closed.Load() {
		tcp, err := d.ln.AcceptTCP()
		if err != nil {
			return false, err //nolint:wrapcheck // it names what failed, and where
		}
		s.take(ctx, tcp, cfg)
		return true, nil
	}
	var failed error
	var away *conn
	n := 0
	err = d.raw.Read(func(fd uintptr) bool {
		for ; n < acceptBatch; n++ {
			tcp, local, err := d.accept(int(fd), l)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return false // wait
			case err != nil:
				failed = os.NewSyscallError("accept4", err)
				return true
			}
			c := &conn{s: s, listener: cfg, tcp: tcp, accepted: time.Now(), local: local, remote: tcp.peer}
			if l.closed.Load() {
				_, _ = c.dress() // if it fails, so will its first read
			}
			if !s.admit(ctx, c) {
				away = c // not here: nobody can close the listener meanwhile
				n++
				return true
			}
			l = s.nextLoop()
		}
		return true
	})
	if away != nil {
		s.turnAway(away)
	}
	return n > 0, cmp.Or(err, failed)
}

// take admits one accepted connection.
func (s *Server) take(ctx context.Context, tcp *net.TCPConn, cfg *ListenerConfig) {
	c := &conn{
		s: s, listener: cfg, tcp: tcp, accepted: time.Now(),
		local: addrPortOf(tcp.LocalAddr()), remote: addrPortOf(tcp.RemoteAddr()),
	}
	if !s.admit(ctx, c) {
		s.turnAway(c)
	}
}

// admit counts c and starts its goroutine. It returns false where c is for
// turnAway.
func (s *Server) admit(ctx context.Context, c *conn) bool {
	cfg := c.listener
	c.source.Addr = c.remote.Addr()
	if !cfg.trusts(c.source.Addr) { // a balancer is none of its clients
		c.counted = callerOf(c.source)
	}
	c.over = s.admission.enter(c.counted)
	if c.over == overHard {
		abort(c.tcp)
		s.admission.leave(c.counted)
		return false
	}
	s.work.Add(1)
	s.live.addConn(c)
	go s.handle(ctx, c)
	return true
}

// turnAway records a connection that is not even answered, which may take as
// long as the Recorder likes.
func (s *Server) turnAway(c *conn) {
	a := s.newAttempt(c, policy.ViaUnknown, c.accepted)
	a.refuse(denial(policy.ReasonLimit, errors.New("too many connections, even to say so")))
}

// over says which limit a connection exceeds.
type over uint8

const (
	overNothing over = iota
	overSource       // Limits.PerSource
	overAll          // Limits.Connections
	overHard         // so far over that it is not even answered
)

// admission counts accepted connections against Limits.
type admission struct {
	limits Limits

	mu      sync.Mutex // guards the rest
	counts  Counts
	sources map[caller]int
}

// caller is who Limits.PerSource is about. An address alone would be several
// callers': VPCs may share theirs.
type caller struct {
	addr     netip.Addr
	endpoint string // the VPC endpoint's ID
}

func callerOf(s policy.Source) caller { return caller{s.Addr, s.VPCEndpoint} }

func newAdmission(l Limits) *admission {
	return &admission{limits: l, sources: make(map[caller]int)}
}

// enter counts a connection and says which limit it exceeds. The zero source
// is one that is not known yet. Each enter is matched by one leave, whatever it
// said.
func (a *admission) enter(source caller) over {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.Accepted++
	a.counts.Active++
	return a.countLocked(source, overNothing)
}

// move counts a connection for another source from now on. One that is over a
// limit already stays so, and is refused once.
func (a *admission) move(from, to caller, is over) over {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgetLocked(from)
	return a.countLocked(to, is)
}

func (a *admission) countLocked(source caller, is over) over {
	if source.addr.IsValid() {
		a.sources[source]++
	}
	if is != overNothing {
		return is
	}
	o := a.limits.exceeded(a.counts.Active, a.sources[source])
	if o != overNothing {
		a.counts.Refused++
	}
	return o
}

func (a *admission) forgetLocked(source caller) {
	if a.sources[source]--; a.sources[source] <= 0 {
		delete(a.sources, source)
	}
}

// exceeded says which limit is exceeded with so many connections in all and
// of one source.
func (l Limits) exceeded(all, source int) over {
	switch {
	case l.Connections > 0 && all > l.Connections+overLimitReserve,
		l.PerSource > 0 && source > l.PerSource+overLimitReserve:
		return overHard
	case l.Connections > 0 && all > l.Connections:
		return overAll
	case l.PerSource > 0 && source > l.PerSource:
		return overSource
	}
	return overNothing
}

func (a *admission) leave(source caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.Active--
	a.forgetLocked(source)
}

func (a *admission) snapshot() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

// overLimit is the refusal of a connection that exceeds a limit.
func overLimit(o over) *refusal {
	r := denial(policy.ReasonLimit, nil)
	r.hint = "try again later, or ask the operator to raise limits.connections"
	if o == overSource {
		r.status = http.StatusTooManyRequests
		r.hint = "close connections, or ask the operator to raise limits.per_source"
	}
	return r
}
