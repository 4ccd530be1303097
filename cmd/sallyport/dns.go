package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/metrics"
	"github.com/sallyport/sallyport/proxy/steer"
)

// DNS says with what names lead clients to the proxy.
type DNS struct {
	Address string        // of the server; "": there is none
	Answer  []string      // the addresses that allowed names get
	TTL     time.Duration // of these
	Refused string        // nxdomain or refused
}

func dnsSettings() []setting {
	return []setting{
		{key: "dns.address", kind: orNone(address()), get: func(c *Config) any { return c.DNS.Address }},
		{key: "dns.answer", kind: answers(), get: func(c *Config) any { return c.DNS.Answer }},
		{key: "dns.ttl", kind: duration(0, 24*time.Hour), get: func(c *Config) any { return c.DNS.TTL }},
		{key: "dns.refused", kind: word(steer.NXDomain.String(), steer.Refused.String()), get: func(c *Config) any { return c.DNS.Refused }},
	}
}

// orNone is k, or "" for none.
func orNone(k kind) kind {
	check := k.check
	k.check = func(s string) (string, string) {
		if s == "" {
			return "", ""
		}
		return check(s)
	}
	return k
}

func answers() kind {
	return kind{want: "a list of addresses", list: true, tag: tagText, check: func(s string) (string, string) {
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
			return fmt.Sprintf("%q is not an IP address", s), "write one without a port, such as 203.0.113.10"
		}
		return "", ""
	}}
}

// steerConfig is the configuration in steer's own words.
func (l *loaded) steerConfig() steer.Config {
	c := steer.Config{Address: l.DNS.Address, TTL: l.DNS.TTL}
	if l.DNS.Refused == steer.Refused.String() {
		c.Refused = steer.Refused
	}
	for _, text := range l.DNS.Answer {
		if a, err := netip.ParseAddr(text); err == nil { // checked with the configuration
			c.Answer = append(c.Answer, a.Unmap())
		}
	}
	return c
}

// checkDNS finds an answer without a server, a server without an answer, and
// a proxy that would ask its own server for the way to the origins.
func (l *loaded) checkDNS() error {
	switch {
	case l.DNS.Address == "" && len(l.DNS.Answer) > 0:
		return refuse(`set dns.address, such as ":53", or remove dns.answer`, "%s: there is an answer, and no dns.address to ask", l.place("dns.answer"))
	case l.DNS.Address == "":
		return nil
	case len(l.DNS.Answer) == 0:
		return refuse("list the addresses where clients reach the proxy, or the balancer before it",
			"%s: there is a DNS server, and dns.answer is empty", l.place("dns.address"))
	}
	var errs []error
	for _, err := range apart(l.steerConfig().Validate()) {
		key, _, _ := strings.Cut("dns."+err.Error(), ":")
		key, _, _ = strings.Cut(key, "[")
		errs = append(errs, refuse("", "dns.%w (%s)", err, l.origins[key]))
	}
	for _, ln := range l.Listeners {
		if ln.Address == l.DNS.Address && !strings.HasSuffix(ln.Address, ":0") {
			errs = append(errs, refuse("give the DNS server a port of its own", "dns.address (%s): %q is a listener's address too", l.origins["dns.address"], ln.Address))
		}
	}
	if l.Admin.Address == l.DNS.Address && !strings.HasSuffix(l.Admin.Address, ":0") {
		errs = append(errs, refuse("give the DNS server a port of its own", "dns.address (%s): %q is the admin socket's address too", l.origins["dns.address"], l.Admin.Address))
	}
	for i, text := range l.Resolver.Servers {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			addr, _ := netip.ParseAddr(text) // checked with the configuration
			server = netip.AddrPortFrom(addr, 53)
		}
		errs = append(errs, l.hairpin(fmt.Sprintf("resolver.servers[%d] (%s)", i, l.origins["resolver.servers"]), server))
	}
	return errors.Join(errs...)
}

// hairpin refuses a server of the proxy's own lookups that is the proxy's DNS
// server: every name would lead the proxy to itself. key says where the server
// stands.
func (l *loaded) hairpin(key string, server netip.AddrPort) error {
	host, port, _ := splitAddress(l.DNS.Address)
	if port == "0" || port != strconv.Itoa(int(server.Port())) {
		return nil
	}
	own, err := netip.ParseAddr(host)
	everywhere := err != nil || own.IsUnspecified()
	addr := server.Addr().Unmap()
	switch {
	case addr == own.Unmap(), slices.Contains(l.steerConfig().Answer, addr),
		everywhere && (addr.IsLoopback() || slices.Contains(machineAddrs(), addr)):
		return refuse("set resolver.servers to the server that knows the origins, such as the VPC's 169.254.169.253",
			"%s: %s is dns.address (%s): the proxy would ask itself, and every name would lead back to it", key, server, l.origins["dns.address"])
	}
	return nil
}

// machineAddrs lists the addresses of this machine. When they cannot be had
// there are none: the guard refuses the proxy's own addresses at any rate.
func machineAddrs() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var all []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// buildDNS binds the DNS server, where there is to be one.
func (d *daemon) buildDNS(ctx context.Context, recorder steer.Recorder) (err error) {
	if d.cfg.DNS.Address == "" {
		return nil
	}
	for _, server := range d.resolver.Servers() { // those of /etc/resolv.conf, too
		if err := d.cfg.hairpin("the system's DNS servers (/etc/resolv.conf)", server); err != nil {
			return err
		}
	}
	deps := steer.Deps{Decider: d.live, Recorder: recorder, NewID: flow.NewID, Log: d.log}
	if id := d.callers.identifier(); id != nil {
		deps.Identifier = id
	}
	server, err := steer.New(d.cfg.steerConfig(), deps)
	if err != nil {
		return &fault{code: exitUsage, err: err}
	}
	if err := server.Listen(ctx); err != nil {
		return bindFault("dns.address", d.cfg.origins["dns.address"], err)
	}
	d.steering = server
	return nil
}

// dnsSockets are the DNS server's own, and the addresses that names lead clients
// to with every port that leads from there to the proxy: an origin at one of
// them is the proxy itself.
func (d *daemon) dnsSockets() []netip.AddrPort {
	if d.steering == nil {
		return nil
	}
	ports := []uint16{80, 443, d.steering.Addr().Port()} // a balancer before the proxy listens at the first two
	for _, ln := range d.cfg.Listeners {
		_, port, _ := splitAddress(ln.Address)
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			ports = append(ports, uint16(n))
		}
	}
	all := []netip.AddrPort{d.steering.Addr()}
	for _, a := range d.cfg.steerConfig().Answer {
		for _, port := range ports {
			all = append(all, netip.AddrPortFrom(a.Unmap(), port))
		}
	}
	return all
}

// serveDNS answers until ctx ends. Like the proxy's, its records wait for a
// stuck reader no longer than the drain lasts.
func (d *daemon) serveDNS(ctx context.Context) error {
	over, ended := context.WithCancel(context.WithoutCancel(ctx))
	defer ended()
	defer context.AfterFunc(ctx, func() { d.hurry(over, d.cfg.Timeouts.Drain) })()
	return d.steering.Run(ctx)
}

// dnsTasks and dnsChecks are none where there is no DNS server.
func (d *daemon) dnsTasks() []task {
	if d.steering == nil {
		return nil
	}
	return []task{{"dns", d.serveDNS}}
}

func (d *daemon) dnsChecks() []console.Check {
	if d.steering == nil {
		return nil
	}
	return []console.Check{{
		Name: "dns", OK: true,
		Detail: fmt.Sprintf("bound to %s, UDP and TCP; allowed names lead to %s", d.steering.Addr(), strings.Join(d.cfg.DNS.Answer, ", ")),
	}}
}

// steeringStats returns the figures for the metrics, nil where there are none.
func (d *daemon) steeringStats() func() metrics.SteeringStats {
	if d.cfg.DNS.Address == "" {
		return nil
	}
	return func() metrics.SteeringStats {
		if d.steering == nil {
			return metrics.SteeringStats{}
		}
		return metrics.SteeringStats(d.steering.Stats())
	}
}
