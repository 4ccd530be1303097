package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// outsideName is a name of somebody else's (RFC 6761, section 6.5) that exists.
const outsideName = "example.com"

// maxResolvers is how many resolvers glibc heeds.
const maxResolvers = 3

// resolverSeen is what one resolver says about outsideName.
type resolverSeen struct {
	server netip.AddrPort
	got    response
	detail string
	reply  dnsReply
}

func parseResolver(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 53), nil
	}
	return netip.ParseAddrPort(text)
}

// readResolvers returns the resolvers that resolv.conf names.
func readResolvers(path string) []netip.AddrPort {
	text, err := readBounded(path, 64<<10)
	if err != nil {
		return nil
	}
	var all []netip.AddrPort
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan() && len(all) < maxResolvers; {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if server, err := parseResolver(words[1]); err == nil {
			all = append(all, server)
		}
	}
	return all
}

// resolverOf asks those servers, or for none of them, the system's.
func resolverOf(servers []netip.AddrPort) *net.Resolver {
	r := &net.Resolver{PreferGo: true}
	if len(servers) > 0 {
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, servers[0].String())
		}
	}
	return r
}

// lookup returns the addresses of a name, none if it has none in time.
func (p *prober) lookup(ctx context.Context, name string) []netip.Addr {
	if addr, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{addr.Unmap()}
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	addrs, err := p.resolver.LookupNetIP(ctx, "ip", name+".") // rooted: no search list
	if err != nil {
		return nil
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs
}

// lookups looks names up at once.
func (p *prober) lookups(ctx context.Context, names []string) map[string][]netip.Addr {
	found := make([][]netip.Addr, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { found[i] = p.lookup(ctx, name) })
	}
	all.Wait()
	byName := make(map[string][]netip.Addr, len(names))
	for i, name := range names {
		byName[name] = found[i]
	}
	return byName
}

// resolvers asks each for outsideName.
func (p *prober) resolvers(ctx context.Context, servers []netip.AddrPort) []resolverSeen {
	seen := make([]resolverSeen, len(servers))
	var all sync.WaitGroup
	for i, server := range servers {
		all.Go(func() {
			q := dnsQuestion(outsideName)
			r := resolverSeen{server: server}
			r.got, r.detail = p.udp(ctx, server, q, func(reply []byte) string {
				var ok bool
				if r.reply, ok = parseDNSReply(q, reply); !ok {
					return "answers with what is no answer"
				}
				return "answers " + r.reply.codeText()
			})
			seen[i] = r
		})
	}
	all.Wait()
	return seen
}

// whose names a resolver by its address, and reports whether it is outside.
func whose(server netip.Addr) (name string, outside bool) {
	vpc := []netip.Addr{netip.MustParseAddr("169.254.169.253"), netip.MustParseAddr("fd00:ec2::253")}
	switch {
	case slices.Contains(vpc, server):
		return "the VPC's resolver", false
	case server.IsLoopback():
		return "a resolver in this task", false
	case server.Is4() && server.IsPrivate() && binary.BigEndian.Uint32(server.AsSlice())&0xf == 2:
		// The VPC's range plus two; ranges are at least 16 addresses wide.
		return "the VPC's resolver", false
	case isInside(server):
		return "a resolver inside", false
	}
	return "a resolver outside", true
}

// judgeResolvers judges lookups, which leave by the VPC's resolver whatever
// security groups say.
func (x *examination) judgeResolvers(all []resolverSeen) {
	const name = "resolver"
	if len(all) == 0 {
		x.add(check{Name: name, Result: resultUnknown, Seen: "no resolver is configured here"})
	}
	for _, r := range all {
		c := judgeResolver(r)
		c.Name, c.Subject = name, r.server.Addr().String()
		x.add(c)
	}
}

func judgeResolver(r resolverSeen) check {
	who, outside := whose(r.server.Addr())
	seen := who
	if r.detail != "" {
		seen += " " + r.detail
	}
	public := slices.ContainsFunc(r.reply.addrs, func(a netip.Addr) bool { return !isInside(a) && a.IsGlobalUnicast() })
	switch {
	case r.got == answered && outside:
		return check{
			Result: resultLeak, Sure: certain, Seen: seen + " for " + outsideName,
			Change: "use the VPC's resolver (leave dnsServers out, the default in awsvpc), and let neither udp nor tcp 53 out of the task's security group",
		}
	case outside:
		return check{
			Result: resultWrong, Sure: certain, Seen: seen + ": this task's lookups are meant to leave the VPC",
			Change: "use the VPC's resolver, 169.254.169.253",
		}
	case r.got != answered:
		return check{Result: resultUnknown, Seen: seen + ", no answer for " + outsideName, Change: "if names resolve in this task all the same, all is well"}
	case public:
		return check{
			Result: resultUnknown, Seen: seen + ", and resolves " + outsideName + ": lookups leave through it, and can carry data out in their names",
			Change: "no security group stops this: associate a Route 53 Resolver DNS Firewall rule group that allows the names which tasks need and blocks the rest; the proxy resolves for its clients",
		}
	case len(r.reply.addrs) > 0:
		return check{Result: resultOK, Sure: likely, Seen: seen + ", and leads " + outsideName + " to a private address: names are steered"}
	}
	return check{Result: resultOK, Sure: likely, Seen: seen + " for " + outsideName + ": it does not ask the world"}
}
