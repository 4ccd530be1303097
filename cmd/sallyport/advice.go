package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy"
)

// A policy that tells callers apart where all of them look alike is no
// connection after that one. It takes so many, and so long, to be sure.
const (
	alikeConnections = 100
	alikeTime        = 5 * time.Minute
)

// advice is what is probably not meant in how the policy, the configuration
// and the traffic go together. Each is said once, and stays in /readyz as long
// as it is so. It is safe for concurrent use.
type advice struct {
	log  zerolog.Logger
	look func() []string

	mu   sync.Mutex // guards said
	said []string   // what was true when it was looked at last
}

// say looks, and says what is new.
func (a *advice) say() {
	now := a.look()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, text := range now {
		if key := adviceKey(text); !slices.Contains(a.said, key) {
			a.said = append(a.said, key)
			a.log.Warn().Str("warning", text).Msg("who is calling may not be known")
		}
	}
}

// forget makes all be said again: another policy is in force.
func (a *advice) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = nil
}

// adviceKey is what stays the same in a text whose figures grow.
func adviceKey(text string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, text)
}

// checks are none where there is nothing to say.
func (a *advice) checks() []console.Check {
	texts := a.look()
	if len(texts) == 0 {
		return nil
	}
	return []console.Check{{Name: "callers", OK: true, Detail: strings.Join(texts, "; ")}}
}

// lookAtCallers says what is true at this moment.
func (d *daemon) lookAtCallers() []string {
	p := d.live.Current()
	all := unmet(p, d.known())
	if d.proxy == nil {
		return all
	}
	c := d.proxy.Callers()
	if c.Headless > 0 {
		all = append(all, fmt.Sprintf("%d connections were refused because they came without a PROXY header, or from outside proxy_from: "+
			"switch the header on at the balancer (an NLB's target group: proxy_protocol_v2.enabled), or name its subnets in proxy_from", c.Headless))
	}
	if d.callers.own == nil && p.TellsCallers() {
		if text := alike(c, time.Now()); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// known are the conditions of which this process can know something.
func (d *daemon) known() map[string]bool {
	known := map[string]bool{"ecs": d.callers.identifier() != nil, "principals": d.credentials != nil}
	for i := range d.cfg.Listeners {
		ln := &d.cfg.Listeners[i]
		known["vpc_endpoints"] = known["vpc_endpoints"] || ln.ProxyProtocol != ""
		known["principals"] = known["principals"] || ln.TLS != nil && ln.TLS.ClientCAFile != ""
	}
	return known
}

// unmet says, for each condition that nobody can fulfil, which source asks for
// it first.
func unmet(p *policy.Policy, known map[string]bool) (all []string) {
	remedies := map[string]string{
		"ecs":           "no caller's task is known: set identity.ecs.clusters, or run where ECS gives the task's metadata",
		"principals":    "nobody can prove a principal: set credentials, or a listener's tls with client_ca_file",
		"vpc_endpoints": "no connection tells its VPC endpoint: set proxy_protocol on the balancer's listener",
	}
	more := make(map[string]int)
	first := make(map[string]policy.Need)
	for _, n := range p.Needs() {
		if more[n.Condition]++; more[n.Condition] == 1 {
			first[n.Condition] = n
		}
	}
	for _, condition := range []string{"ecs", "principals", "vpc_endpoints"} {
		if more[condition] == 0 || known[condition] {
			continue
		}
		others := ""
		if n := more[condition] - 1; n > 0 {
			others = fmt.Sprintf(", as do %d more", n)
		}
		all = append(all, fmt.Sprintf("%s: the source %q asks for %s%s, and %s",
			first[condition].Pos, first[condition].Source, condition, others, remedies[condition]))
	}
	return all
}

// alike says that nobody can be told from anybody, "" when it may be otherwise.
func alike(c proxy.Callers, at time.Time) string {
	if !c.Addr.IsValid() || c.Addr.IsLoopback() || c.Headers > 0 || c.Connections < alikeConnections || at.Sub(c.Since) < alikeTime {
		return ""
	}
	return fmt.Sprintf("all of %d connections come from %s, and the policy tells callers apart: if that is a balancer or a NAT, "+
		"have it keep client addresses, or send PROXY headers to a listener with proxy_protocol", c.Connections, c.Addr)
}
