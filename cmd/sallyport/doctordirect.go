package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// judgeDirect judges the roads out, and reports whether a Sallyport stands in
// the way of connections that know of no proxy.
func (x *examination) judgeDirect(f *findings) (inPath bool) {
	var six []attempt
	for _, r := range roads() {
		var four []attempt
		for _, a := range f.direct {
			inPath = inPath || a.got == intercepted
			switch {
			case a.road != r:
			case a.to.Addr().Is4():
				four = append(four, a)
			default:
				six = append(six, a)
			}
		}
		x.add(judgeRoad("direct-"+r.network+"-"+uitoa(r.port), r, four, refusesNobody(f.direct, true)))
	}
	x.add(judgeIPv6(six, f.seenIPv6))
	return inPath
}

// refusesNobody reports whether somebody on the way refuses, on any road, what
// is sent to where nobody is. Refusals by ICMP come at a few a second (Linux's
// icmp_ratelimit), so that one road may lack what another has.
func refusesNobody(all []attempt, four bool) bool {
	return slices.ContainsFunc(all, func(a attempt) bool { return a.nobody && a.got == refused && a.to.Addr().Is4() == four })
}

// judgeIPv6 is the gravest of what its roads are.
func judgeIPv6(all []attempt, configured bool) check {
	const name = "direct-ipv6"
	c := check{Name: name, Result: resultOK, Sure: certain, Seen: "this task has no route for IPv6"}
	if len(all) == 0 {
		return check{Name: name, Result: resultUnknown, Seen: "no address for IPv6 was given to try", Change: "give one: --outside 2606:4700:4700::1111"}
	}
	if !slices.ContainsFunc(all, func(a attempt) bool { return a.got != unroutable }) {
		if configured {
			c.Seen = "this task has an address for IPv6, and no route out"
		}
		return c
	}
	var seen []string
	c = check{Name: name, Result: resultOK, Sure: certain}
	for _, r := range roads() {
		of := slices.DeleteFunc(slices.Clone(all), func(a attempt) bool { return a.road != r })
		one := judgeRoad(name, r, of, refusesNobody(all, false))
		if severity(one.Result) > severity(c.Result) {
			c, seen = one, nil
		}
		if one.Result == c.Result {
			if one.Sure == likely {
				c.Sure = likely
			}
			seen = append(seen, fmt.Sprintf("%s: %s", r, one.Seen))
		}
	}
	c.Seen = strings.Join(seen, "; ")
	if c.Result == resultLeak {
		c.Change = "take ::/0 (an egress-only or internet gateway) out of the route table of the task's subnets, and every ::/0 out of its security group's outbound rules"
	}
	return c
}

// judgeRoad judges what came back on one road. Addresses where nobody is tell
// a host outside from somebody in between, who responds for all of them;
// refuser says that there is one who refuses, on this road or another.
func judgeRoad(name string, r road, all []attempt, refuser bool) check {
	var between []response
	for _, a := range all {
		if a.nobody {
			between = append(between, a.got)
		}
	}
	worst, tried := check{Name: name, Result: resultOK, Sure: certain}, 0
	var silence, closed []string
	for _, a := range all {
		if a.nobody {
			continue
		}
		tried++
		one := judgeAttempt(a, between, refuser)
		one.Name = name
		switch {
		case severity(one.Result) > severity(worst.Result):
			worst = one
		case severity(worst.Result) > 0:
		case a.got == silent:
			silence, worst.Sure = append(silence, a.to.Addr().String()), likely
		default:
			closed = append(closed, one.Seen)
			if one.Sure == likely {
				worst.Sure = likely
			}
		}
	}
	switch {
	case tried == 0:
		return check{Name: name, Result: resultUnknown, Seen: "no address was given to try", Change: "give one with --outside"}
	case worst.Result == resultLeak:
		worst.Change = closeRoad(r)
	case worst.Result == resultOK:
		if len(silence) > 0 {
			closed = append(closed, "no answer from "+strings.Join(silence, ", "))
		}
		worst.Seen = strings.Join(closed, "; ")
	}
	return worst
}

// judgeAttempt judges one destination outside, given how addresses where
// nobody is responded on the same road.
func judgeAttempt(a attempt, between []response, refuser bool) check {
	seen := a.to.String() + " " + a.detail
	inBetween := func(some ...response) bool {
		return slices.ContainsFunc(between, func(r response) bool { return slices.Contains(some, r) })
	}
	switch a.got {
	case intercepted:
		return check{Result: resultOK, Sure: certain, Seen: seen}
	case answered, connected:
		if inBetween(answered, connected) {
			return check{
				Result: resultUnknown, Seen: seen + ", and so does somebody for an address where nobody is: a device in between that is no Sallyport",
				Change: "find out what intercepts this task's traffic, and what it lets through",
			}
		}
		sure := certain
		if a.got == connected {
			sure = likely // some devices complete every handshake
		}
		return check{Result: resultLeak, Sure: sure, Seen: seen}
	case refused:
		if inBetween(refused) {
			return check{Result: resultOK, Sure: likely, Seen: seen + ", as does an address where nobody is: refused on the way"}
		}
		if refuser {
			return check{
				Result: resultUnknown, Seen: seen + ": it, or somebody on the way, who refuses elsewhere for an address where nobody is",
				Change: "try again; let the firewall in between drop what it refuses",
			}
		}
		return check{Result: resultLeak, Sure: likely, Seen: seen + ": what was sent has got there"}
	case unroutable:
		return check{Result: resultOK, Sure: certain, Seen: seen}
	case unreachable, silent:
		return check{Result: resultOK, Sure: likely, Seen: seen}
	}
	return check{Result: resultUnknown, Seen: seen, Change: "try again; if it lasts, the probe itself fails here"}
}

// closeRoad says how a road is closed.
func closeRoad(r road) string {
	const sidecar = ". A sidecar shares this group: there, only proxyConfiguration (transparent) or a proxy of its own stands before the application"
	group := fmt.Sprintf("in the task's security group, delete the outbound rules that let %s port %d out (0.0.0.0/0 above all), and keep the one to the proxy's group and those to VPC endpoints", r.network, r.port)
	route := "; take 0.0.0.0/0 (a NAT or internet gateway) out of the route table of the task's subnets"
	switch {
	case r.port == 53:
		return group + route + ". The VPC's own resolver needs no rule"
	case r.network == "udp":
		return group + route + ". No proxy carries QUIC; clients fall back to TCP"
	}
	return group + route + sidecar
}

// judgeTargetsDirect judges whether what the proxy should carry can be had
// without it.
func (x *examination) judgeTargetsDirect(all []attempt) {
	const name = "direct-target"
	done := map[string]bool{}
	for _, a := range all {
		if done[a.host] {
			continue
		}
		done[a.host] = true
		worst := check{Name: name, Subject: a.host, Result: resultOK, Sure: likely, Seen: "no answer from its addresses"}
		for _, b := range all {
			if b.host == a.host {
				one := judgeTargetDirect(b)
				one.Name, one.Subject = name, a.host
				if one.Result != resultOK || b.got == intercepted {
					worst = worse(worst, one)
				}
			}
		}
		x.add(worst)
	}
}

func judgeTargetDirect(a attempt) check {
	if isInside(a.to.Addr()) && a.got != silent && a.got != intercepted {
		return check{
			Result: resultUnknown, Seen: a.to.String() + " " + a.detail + ": a private address",
			Change: "if it is a VPC endpoint or the proxy's own, all is well",
		}
	}
	c := judgeAttempt(a, nil, false)
	if c.Result == resultLeak {
		c.Change = closeRoad(a.road)
	}
	return c
}

// insideRanges are the addresses of VPCs, of links and of this task.
func insideRanges() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8",
		"fc00::/7", "fe80::/10", "::1/128",
	} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// isInside reports whether an address is of the VPC or of this task.
func isInside(a netip.Addr) bool {
	return a.IsValid() && isInsidePrefix(netip.PrefixFrom(a.WithZone(""), a.BitLen()))
}

// isInsidePrefix reports whether all addresses of p are.
func isInsidePrefix(p netip.Prefix) bool {
	return slices.ContainsFunc(insideRanges(), func(r netip.Prefix) bool { return r.Contains(p.Addr()) && r.Bits() <= p.Bits() })
}
