package steer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// MaxAnswers bounds the addresses of one family in [Config].Answer: with more,
// an answer would be worth forging questions for.
const MaxAnswers = 8

// Refusal says how a name that is not allowed is answered.
type Refusal uint8

// The refusals.
const (
	NXDomain Refusal = iota // the name does not exist
	Refused                 // nothing is said about the name
)

// String returns the configuration's word.
func (r Refusal) String() string {
	if r == Refused {
		return "refused"
	}
	return "nxdomain"
}

// Config is what a [Server] needs to know.
type Config struct {
	// Address is "host:port" or ":port", for UDP and TCP alike.
	Address string
	// Answer is where clients reach the proxy: its own addresses, or those of the
	// balancer before it. At least one, at most [MaxAnswers] of a family.
	Answer []netip.Addr
	// TTL is how long clients may keep an answer, in whole seconds.
	TTL     time.Duration
	Refused Refusal

	// Connections and PerSource bound TCP; 256 and 16.
	Connections, PerSource int
	// Questions bounds how many UDP questions are being answered at one time;
	// 1,024. One address may have a sixteenth of them. Further ones are dropped.
	Questions int
	// Rate is how many UDP answers with records, or about a refusal, a network
	// gets each second, and Burst how many at once; 200 and 400.
	Rate, Burst int
	// Idle is how long a TCP connection may be silent; 10 s. Patience bounds the
	// time to find out who is asking; 2 s.
	Idle, Patience time.Duration
}

func (c Config) withDefaults() Config {
	c.Connections = cmp.Or(c.Connections, 256)
	c.PerSource = cmp.Or(c.PerSource, 16)
	c.Questions = cmp.Or(c.Questions, 1024)
	c.Rate = cmp.Or(c.Rate, 200)
	c.Burst = cmp.Or(c.Burst, 400)
	c.Idle = cmp.Or(c.Idle, 10*time.Second)
	c.Patience = cmp.Or(c.Patience, 2*time.Second)
	return c
}

// Validate reports everything that is wrong with Answer and TTL, in the words
// of an operator's keys.
func (c Config) Validate() error {
	var errs []error
	seen := make(map[netip.Addr]bool)
	var count [2]int
	for i, a := range c.Answer {
		switch a = a.Unmap(); {
		case !a.IsValid(), a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			errs = append(errs, fmt.Errorf("answer[%d]: %s is not an address that clients could connect to", i, a))
		case seen[a]:
			errs = append(errs, fmt.Errorf("answer[%d]: %s is there twice", i, a))
		}
		seen[a] = true
		if a.Is4() {
			count[0]++
		} else {
			count[1]++
		}
	}
	if len(c.Answer) == 0 {
		errs = append(errs, errors.New("answer: no address to answer with"))
	}
	if max(count[0], count[1]) > MaxAnswers {
		errs = append(errs, fmt.Errorf("answer: more than %d addresses of one family", MaxAnswers))
	}
	if c.TTL < 0 || c.TTL > 24*time.Hour || c.TTL%time.Second != 0 {
		errs = append(errs, fmt.Errorf("ttl: %s is not a number of whole seconds up to a day", c.TTL))
	}
	return errors.Join(errs...)
}

// Decider answers policy questions; a [policy.Live] is one.
type Decider interface {
	Decide(policy.Query) policy.Decision
	Version() string
}

// Identifier tells who is behind an address, within the time that ctx allows.
type Identifier interface {
	Identify(ctx context.Context, source policy.Source) policy.Source
}

// Recorder is told of denied names. Observe may be called from many goroutines
// at once, and may block: questions then wait, within their bounds.
type Recorder interface {
	Observe(flow.Event)
}

// Deps are the parts that a [Server] is handed. All are required but
// Identifier and Log.
type Deps struct {
	Decider    Decider
	Identifier Identifier // nil: callers are known by their addresses only
	Recorder   Recorder
	NewID      func() string
	Log        zerolog.Logger
}
