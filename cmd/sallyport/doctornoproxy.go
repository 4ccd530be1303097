package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// noProxyContext is what NO_PROXY is held against.
type noProxyContext struct {
	targets []target
	names   map[string][]netip.Addr // where its public names lead; those without addresses could not be told
	fargate bool
}

// publicNames are the entries of NO_PROXY that are names which anybody can
// look up, so that only their addresses tell whether they are meant. They are
// bounded in number.
func (v variables) publicNames() []string {
	var all []string
	for _, entry := range v.direct() {
		if e := parseEntry(entry); e.kind == entryName && !isInsideName(e.name) && !slices.Contains(all, e.name) && len(all) < maxDoctorTargets {
			all = append(all, e.name)
		}
	}
	return all
}

// The kinds of entries in NO_PROXY.
const (
	entryEverything = iota // *
	entryWildcard          // a * within, which few clients understand
	entrySuffix            // .example.com
	entryName              // example.com, and to most clients what is below it
	entryAddress           // an address or, in CIDR, many
)

// directEntry is an entry of NO_PROXY.
type directEntry struct {
	kind   int
	name   string // without the leading dot and the port
	prefix netip.Prefix
}

func parseEntry(text string) directEntry {
	if text == "*" {
		return directEntry{kind: entryEverything}
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return directEntry{kind: entryAddress, prefix: prefix.Masked()}
	}
	host := text
	if port := strings.LastIndexByte(text, ':'); port >= 0 && (strings.Count(text, ":") == 1 || strings.HasPrefix(text, "[")) && !strings.HasSuffix(text, "]") {
		host = text[:port]
	}
	host = strings.Trim(host, "[]")
	if addr, err := netip.ParseAddr(host); err == nil {
		return directEntry{kind: entryAddress, prefix: netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())}
	}
	name := strings.TrimSuffix(strings.TrimPrefix(host, "."), ".")
	switch {
	case strings.Contains(host, "*"):
		return directEntry{kind: entryWildcard, name: strings.TrimPrefix(name, "*.")}
	case strings.HasPrefix(host, "."):
		return directEntry{kind: entrySuffix, name: name}
	}
	return directEntry{kind: entryName, name: name}
}

// covers reports whether an entry sends host past the proxy, in the widest
// reading that any client has.
func (e directEntry) covers(host string) bool {
	switch e.kind {
	case entryEverything:
		return true
	case entryAddress:
		addr, err := netip.ParseAddr(host)
		return err == nil && e.prefix.Contains(addr.Unmap())
	}
	return host == e.name || strings.HasSuffix(host, "."+e.name)
}

// isInsideName reports whether a name is of a kind that means nothing outside
// (RFC 6761, RFC 6762, ICANN's .internal): it has one label, or a suffix that
// the world does not delegate.
func isInsideName(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last == name || slices.Contains([]string{
		"internal", "local", "localhost", "localdomain", "lan", "home", "corp", "intranet", "private", "arpa", "test", "example", "invalid",
	}, last)
}

// judgeNoProxy judges NO_PROXY: what credentials need, and no more.
func (x *examination) judgeNoProxy(v variables, c noProxyContext) {
	const name = "no-proxy"
	const change = "set NO_PROXY and no_proxy to what `sallyport env` prints, 169.254.170.2,169.254.169.254,localhost,127.0.0.1, and add what is meant to be reached directly, by exact name"
	proxies, empty := proxyVariableNames(), v.missing("NO_PROXY", "no_proxy")
	if len(v.missing(proxies...)) == len(proxies) && len(empty) == 2 {
		x.add(check{Name: name, Result: resultOK, Sure: certain, Seen: "not set, nor needed without proxy variables"})
		return
	}
	faults, notes := slices.Concat(lacking(v, empty, c.fargate), excess(v, c)), []string{}
	if c.fargate && !hasExact(v.direct(), "169.254.169.254") {
		notes = append(notes, "lacks 169.254.169.254, which is not there on Fargate")
	}
	if doubts := doubtful(v, c.names); len(faults) == 0 && len(doubts) > 0 {
		x.add(check{
			Name: name, Result: resultUnknown, Seen: strings.Join(doubts, "; "),
			Change: "see that it leads to a VPC endpoint of yours, or take it out",
		})
		return
	}
	if len(faults) > 0 {
		x.add(check{Name: name, Result: resultWrong, Sure: certain, Seen: strings.Join(faults, "; "), Change: change})
		return
	}
	seen := append([]string{strings.Join(v.direct(), ",")}, notes...)
	x.add(check{Name: name, Result: resultOK, Sure: certain, Seen: strings.Join(seen, "; ")})
}

// lacking says what NO_PROXY does not have and should.
func lacking(v variables, empty []string, fargate bool) (faults []string) {
	if len(empty) > 0 {
		faults = append(faults, strings.Join(empty, ", ")+" not set")
	}
	need := []string{"169.254.170.2", "localhost", "127.0.0.1"}
	if !fargate {
		need = append(need, "169.254.169.254")
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		entries := splitDirect(v.values[name])
		for _, host := range need {
			switch {
			case len(entries) == 0 || hasExact(entries, host):
			case slices.ContainsFunc(entries, func(e string) bool { return parseEntry(e).covers(host) && parseEntry(e).kind == entryAddress }):
				faults = append(faults, fmt.Sprintf("%s has %s in a CIDR only, which many clients do not read", name, host))
			default:
				faults = append(faults, fmt.Sprintf("%s lacks %s", name, host))
			}
		}
	}
	if a, b := splitDirect(v.values["NO_PROXY"]), splitDirect(v.values["no_proxy"]); len(empty) == 0 {
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			faults = append(faults, "NO_PROXY and no_proxy differ")
		}
	}
	return faults
}

func hasExact(entries []string, host string) bool { return slices.Contains(entries, host) }

// excess says what NO_PROXY has and should not.
func excess(v variables, c noProxyContext) (faults []string) {
	for _, text := range v.direct() {
		e := parseEntry(text)
		fault := ""
		switch e.kind {
		case entryEverything:
			fault = "sends everything past the proxy"
		case entryWildcard:
			fault = "is a wildcard, which some clients match and others do not"
		case entrySuffix:
			if !isInsideName(e.name) {
				fault = "sends public names past the proxy"
			}
		case entryAddress:
			if !isInsidePrefix(e.prefix) {
				fault = "sends public addresses past the proxy"
			}
		case entryName:
			if addrs := c.names[e.name]; slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !isInside(a) }) {
				fault = fmt.Sprintf("leads to %s and goes past the proxy", addrs[0])
			}
		}
		if i := slices.IndexFunc(c.targets, func(t target) bool { return e.covers(t.host) }); fault == "" && i >= 0 && !isInside(addrOf(c.targets[i].host)) {
			fault = fmt.Sprintf("covers %s, which is to go through the proxy", c.targets[i].host)
		}
		if fault != "" {
			faults = append(faults, fmt.Sprintf("%q %s", text, fault))
		}
	}
	return faults
}

// addrOf is the address that host is, the zero one for a name.
func addrOf(host string) netip.Addr {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// doubtful says which names of NO_PROXY could not be judged.
func doubtful(v variables, names map[string][]netip.Addr) (doubts []string) {
	for _, text := range v.direct() {
		if e := parseEntry(text); e.kind == entryName && !isInsideName(e.name) && len(names[e.name]) == 0 {
			doubts = append(doubts, fmt.Sprintf("%q is a public name, and does not resolve here", text))
		}
	}
	return doubts
}
