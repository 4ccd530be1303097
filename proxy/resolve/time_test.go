package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// said is what a scripted server says, and when; dead servers say nothing.
type said struct {
	after time.Duration
	dead  bool
	lines []string
	rcode int
}

// script is servers without a network, for tests under synctest.
type script struct {
	mu    sync.Mutex
	say   func(server string, q question) said
	asked []string // "server type"
}

func (s *script) set(say func(server string, q question) said) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say = say
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *script) exchange(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	s.mu.Lock()
	s.asked = append(s.asked, server.Addr().String()+" "+dns.TypeToString[q.qtype])
	what := s.say(server.Addr().String(), q)
	s.mu.Unlock()
	if what.dead {
		<-ctx.Done()
		return nil, &failure{kind: timedOut}
	}
	select {
	case <-time.After(what.after):
	case <-ctx.Done():
		return nil, &failure{kind: timedOut}
	}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, RecursionAvailable: true, Rcode: what.rcode}}
	for _, line := range what.lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			return nil, err
		}
		m.Answer = append(m.Answer, rr)
	}
	return m, nil
}

// scripted makes a resolver that asks s, inside a synctest bubble.
func scripted(t *testing.T, cfg Config, s *script) *Resolver {
	t.Helper()
	if len(cfg.Servers) == 0 {
		cfg.Servers = []string{"192.0.2.53"}
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.up.exchange = s.exchange
	return r
}

// took looks a name up and returns how long that was, too.
func took(t *testing.T, r *Resolver, name string) ([]netip.Addr, time.Duration, error) {
	t.Helper()
	start := time.Now()
	got, err := r.Lookup(t.Context(), name)
	return got, time.Since(start), err
}

func allDead(string, question) said { return said{dead: true} }

func both(_ string, q question) said {
	if q.qtype == dns.TypeA {
		return said{after: time.Millisecond, lines: []string{q.name + ". 10 IN A 192.0.2.1"}}
	}
	return said{after: time.Millisecond, lines: []string{q.name + ". 10 IN AAAA 2001:db8::1"}}
}

func TestResolutionDelay(t *testing.T) {
	ms := time.Millisecond
	a, aaaa := "192.0.2.1", "2001:db8::1"
	for _, tt := range []struct {
		name    string
		v4, v6  time.Duration // negative: never
		want    []string
		took    time.Duration
		settled []string // what the cache holds in the end
	}{
		{"both at once", 10 * ms, 10 * ms, []string{aaaa, a}, 10 * ms, []string{aaaa, a}},
		{"IPv6 within the delay", 10 * ms, 59 * ms, []string{aaaa, a}, 59 * ms, []string{aaaa, a}},
		{"IPv6 too late", 10 * ms, 61 * ms, []string{a}, 60 * ms, []string{aaaa, a}},
		{"IPv4 too late", 61 * ms, 10 * ms, []string{aaaa}, 60 * ms, []string{aaaa, a}},
		{"IPv6 never", 10 * ms, -1, []string{a}, 60 * ms, []string{a}},
		{"IPv4 never", -1, 10 * ms, []string{aaaa}, 60 * ms, []string{aaaa}},
		{"none ever", -1, -1, nil, 2 * time.Second, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{say: func(server string, q question) said {
					what := both(server, q)
					what.after = tt.v6
					if q.qtype == dns.TypeA {
						what.after = tt.v4
					}
					what.dead = what.after < 0
					return what
				}}
				r := scripted(t, Config{}, s)
				defer r.Close()
				got, d, err := took(t, r, "name.test")
				if !slices.Equal(got, addrs(tt.want...)) || (err == nil) != (tt.want != nil) || d != tt.took {
					t.Errorf("got %v, %v after %s, want %v after %s", got, err, d, tt.want, tt.took)
				}
				time.Sleep(2100 * ms) // the other family's tries have ended
				n := s.count()
				got, d, _ = took(t, r, "name.test")
				if tt.want != nil && (!slices.Equal(got, addrs(tt.settled...)) || d != 0 || s.count() != n) {
					t.Errorf("later got %v after %s, want %v at once", got, d, tt.settled)
				}
			})
		})
	}
}

// With every server dead a lookup ends within the budget, whatever it takes.
func TestBudget(t *testing.T) {
	for _, tt := range []struct {
		name    string
		servers []string
		want    time.Duration
		asked   int
	}{
		{"one server is asked twice", []string{"192.0.2.1"}, 2 * time.Second, 4},
		{"two servers, until the budget is spent", []string{"192.0.2.1", "192.0.2.2"}, 3 * time.Second, 6},
		{"five servers, until the budget is spent", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"}, 3 * time.Second, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{say: allDead}
				r := scripted(t, Config{Servers: tt.servers}, s)
				defer r.Close()
				_, d, err := took(t, r, "name.test")
				if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsTimeout || d != tt.want || s.count() != tt.asked {
					t.Errorf("%v after %s and %d questions, want a timeout after %s and %d", err, d, s.count(), tt.want, tt.asked)
				}
				_, d, err = took(t, r, "name.test")
				if err == nil || d != 0 || s.count() != tt.asked {
					t.Errorf("the failure was not remembered: %v after %s", err, d)
				}
			})
		})
	}
}

// The first to find out that no server answers waits a little, nobody after.
func TestStaleWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{say: both}
		r := scripted(t, Config{Servers: []string{"192.0.2.1", "192.0.2.2"}}, s)
		defer r.Close()
		want := addrs("2001:db8::1", "192.0.2.1")
		if got, _, err := took(t, r, "name.test"); err != nil || !slices.Equal(got, want) {
			t.Fatal(got, err)
		}
		time.Sleep(11 * time.Second)
		s.set(allDead)
		if got, d, err := took(t, r, "name.test"); err != nil || !slices.Equal(got, want) || d != staleWait {
			t.Errorf("got %v, %v after %s, want the stale answer after %s", got, err, d, staleWait)
		}
		time.Sleep(3 * time.Second)
		for range 40 { // 40 s of outage, a lookup a second
			if got, d, err := took(t, r, "name.test"); err != nil || !slices.Equal(got, want) || d != 0 {
				t.Errorf("got %v, %v after %s, want the stale answer at once", got, err, d)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		if got, _, err := took(t, r, "name.test"); err == nil {
			t.Errorf("got %v more than StaleFor after its time", got)
		}
	})
}

// Names in use during an outage are well again within 2 s of its end,
// whether they were known before or not, and whenever it ends.
func TestRecovery(t *testing.T) {
	for offset := range 20 {
		synctest.Test(t, func(t *testing.T) {
			s := &script{say: both}
			r := scripted(t, Config{}, s)
			defer r.Close()
			if _, _, err := took(t, r, "known.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(11 * time.Second)
			s.set(allDead)
			var callers sync.WaitGroup
			ctx, stop := context.WithCancel(t.Context())
			for _, name := range []string{"known.test", "new.test"} {
				callers.Go(func() {
					for ctx.Err() == nil {
						r.Lookup(ctx, name)
						time.Sleep(10 * time.Millisecond)
					}
				})
			}
			time.Sleep(30*time.Second + time.Duration(offset)*150*time.Millisecond)
			s.set(both)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			stale := r.Stats().Stale
			for _, name := range []string{"known.test", "new.test"} {
				if _, d, err := took(t, r, name); err != nil || d != 0 {
					t.Errorf("offset %d: %s: %v after %s", offset, name, err, d)
				}
			}
			if n := r.Stats().Stale - stale; n != 0 {
				t.Errorf("offset %d: still stale", offset)
			}
			stop()
			callers.Wait()
		})
	}
}

// A panic over one reply is that lookup's failure and nobody else's.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{say: both}
		r := scripted(t, Config{}, s)
		r.up.exchange = func(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
			if q.name == "bad.test" {
				panic("a bug")
			}
			return s.exchange(ctx, server, q)
		}
		defer r.Close()
		expectError(t, r, "bad.test", "panic while asking")
		expect(t, r, "good.test", "2001:db8::1", "192.0.2.1")
		if n := r.Stats().InFlight; n != 0 {
			t.Errorf("%d flights are left", n)
		}
	})
}
