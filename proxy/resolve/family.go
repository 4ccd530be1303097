package resolve

import (
	"context"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/miekg/dns"
)

const (
	// resolutionDelay is what the second family gets once the first has
	// answered (RFC 8305, section 3).
	resolutionDelay = 50 * time.Millisecond
	// partialTTL bounds how long one family's addresses are kept while the
	// other's answer is missing.
	partialTTL = 5 * time.Second
	// failureTTL is how long a failure is kept: RFC 9520, section 3.2 asks for
	// a second at the least, and recovery for no more.
	failureTTL = time.Second
)

// outcome is what a flight brings home.
type outcome struct {
	addrs []netip.Addr
	ttl   time.Duration // bounded
	fail  *failure      // nil when there are addresses
}

// askFamily asks for one type and follows CNAMEs that a reply leaves open.
// A panic over a message costs that message's lookup and nothing else.
func (r *Resolver) askFamily(ctx context.Context, name string, qtype uint16, home chan<- answer) {
	a := answer{fail: &failure{kind: malformed, text: "panic while asking"}}
	defer func() {
		if p := recover(); p != nil {
			r.cfg.Logger.Error().Str("dns.question.name", name).Any("panic", p).Bytes("stack", debug.Stack()).Msg("panic while asking a DNS server")
		}
		home <- a
	}()
	a = r.chase(ctx, question{name, qtype})
}

func (r *Resolver) chase(ctx context.Context, q question) answer {
	ttl, hops := r.cfg.MaxTTL, 0
	for {
		a := r.up.query(ctx, q)
		// The chain's own TTLs bound what is at its end. A negative answer
		// whose SOA says nothing stays without a TTL.
		if a.fail == nil || a.ttl > 0 {
			ttl = min(ttl, a.ttl)
			a.ttl = ttl
		}
		if hops += a.hops; hops > maxChain {
			return answer{fail: &failure{kind: malformed, text: "the CNAME chain is too long, or a loop"}}
		}
		if a.follow == "" {
			return a
		}
		q.name = a.follow
	}
}

// fly asks for both families, lands the flight as soon as there is something
// to use, and again when the rest is in.
func (r *Resolver) fly(name string, f *flight) {
	defer r.flying.Done()
	ctx, cancel := context.WithTimeout(r.life, r.cfg.Budget)
	defer cancel()
	home := make(chan answer, 2)
	go r.askFamily(ctx, name, dns.TypeAAAA, home)
	go r.askFamily(ctx, name, dns.TypeA, home)
	first := <-home
	var second answer
	if len(first.addrs) == 0 {
		second = <-home
	} else {
		delay := time.NewTimer(r.delay)
		select {
		case second = <-home:
		case <-delay.C:
			r.land(name, f, r.merge(first, answer{fail: &failure{kind: timedOut}}))
			second = <-home
		}
		delay.Stop()
	}
	r.land(name, f, r.merge(first, second))
	r.mu.Lock()
	delete(r.flights, name)
	r.mu.Unlock()
}

// merge makes one outcome of the two families' answers.
func (r *Resolver) merge(a, b answer) outcome {
	if len(a.addrs) == 0 {
		a, b = b, a
	}
	switch {
	case len(a.addrs) == 0:
		return r.mergeFailures(a, b)
	case len(b.addrs) > 0:
		return outcome{addrs: bothFamilies(a.addrs, b.addrs), ttl: r.positiveTTL(min(a.ttl, b.ttl))}
	case !b.fail.kind.negative():
		return outcome{addrs: a.addrs, ttl: min(r.positiveTTL(a.ttl), partialTTL)}
	case b.ttl > 0: // when to look for the other family again
		return outcome{addrs: a.addrs, ttl: r.positiveTTL(min(a.ttl, b.ttl))}
	}
	return outcome{addrs: a.addrs, ttl: r.positiveTTL(a.ttl)}
}

// bothFamilies joins two answers, IPv6 first. An AAAA record may hold an IPv4
// address, so the bound for a family is kept here once more.
func bothFamilies(a, b []netip.Addr) []netip.Addr {
	var v6, v4 []netip.Addr
	for _, addr := range slices.Concat(a, b) {
		family := &v6
		if addr.Is4() {
			family = &v4
		}
		if len(*family) < maxAddresses && !slices.Contains(*family, addr) {
			*family = append(*family, addr)
		}
	}
	return append(v6, v4...)
}

// mergeFailures: "no such name" holds for both families, whoever was told it;
// "no address" needs both; of failures the more telling is kept.
func (r *Resolver) mergeFailures(a, b answer) outcome {
	if b.fail.kind < a.fail.kind {
		a, b = b, a
	}
	switch {
	case a.fail.kind.negative() && b.fail.kind.negative():
		return outcome{fail: a.fail, ttl: min(max(min(a.ttl, b.ttl), failureTTL), r.cfg.NegativeTTLMax)}
	case a.fail.kind == noData:
		return outcome{fail: b.fail, ttl: failureTTL}
	}
	return outcome{fail: a.fail, ttl: failureTTL}
}

func (r *Resolver) positiveTTL(ttl time.Duration) time.Duration {
	return min(max(ttl, r.cfg.MinTTL), r.cfg.MaxTTL)
}
