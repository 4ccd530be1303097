package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// proxyVariableNames are the four that name the proxy, that for TLS first.
func proxyVariableNames() []string {
	return []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"}
}

// variables are what proxy variables this task has. One that is empty counts
// as none: clients take it so.
type variables struct{ values map[string]string }

func readVariables(env environ) variables {
	v := variables{values: map[string]string{}}
	for _, name := range append(proxyVariableNames(), "NO_PROXY", "no_proxy") {
		if value := strings.TrimSpace(env.get(name)); value != "" {
			v.values[name] = value
		}
	}
	return v
}

// missing returns which of names have no value.
func (v variables) missing(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return v.values[n] != "" })
}

// direct returns the entries of NO_PROXY and no_proxy, each once.
func (v variables) direct() []string {
	var all []string
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		for _, entry := range splitDirect(v.values[name]) {
			if !slices.Contains(all, entry) {
				all = append(all, entry)
			}
		}
	}
	return all
}

// splitDirect reads a NO_PROXY as most clients do.
func splitDirect(value string) []string {
	return strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// parseProxy reads a proxy's URL. No error holds the URL's password.
func parseProxy(text string) (*url.URL, error) {
	shown := shownProxy(text)
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is no URL", shown)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q does not begin with http://", shown)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q names no host", shown)
	case u.Port() == "":
		return nil, fmt.Errorf("%q names no port, and clients differ in what they take for it", shown)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q has more than a host and a port", shown)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsUnspecified() {
		return nil, errors.New("it names 0.0.0.0, which is where a proxy listens and not where it is")
	}
	return u, nil
}

// shownProxy is a proxy's URL without its user and password, however badly it
// is written: a slash in a password, or no scheme, deceives mask.
func shownProxy(text string) string {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return text
	}
	scheme := ""
	if before, _, ok := strings.Cut(text[:at], "://"); ok {
		scheme = before + "://"
	}
	return scheme + "***" + text[at:]
}

// sameProxy reports whether two texts are the same proxy to a client.
func sameProxy(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }

// judgeVariables judges the four proxy variables. given says that the proxy
// was named on the command line, so that this may be the proxy's own
// container; inPath, that clients pass a Sallyport without them.
func (x *examination) judgeVariables(v variables, given, inPath bool) {
	c := judgeProxyVariables(v, given, inPath)
	c.Name = "proxy-variables"
	x.add(c)
}

func judgeProxyVariables(v variables, given, inPath bool) check {
	const change = "in the task definition, give every container the environment that `sallyport env --proxy URL --format task-definition` prints"
	names := proxyVariableNames()
	missing := v.missing(names...)
	if len(missing) == len(names) {
		switch {
		case inPath:
			return check{Result: resultOK, Sure: certain, Seen: "not set, nor needed: a Sallyport stands in the way"}
		case given:
			return check{Result: resultUnknown, Seen: "not set here", Change: "run it in the application's container, as the application's user"}
		}
		return check{Result: resultWrong, Sure: certain, Seen: "none is set: clients do not know of a proxy", Change: change}
	}
	if len(missing) > 0 {
		return check{Result: resultWrong, Sure: certain, Seen: strings.Join(missing, ", ") + " not set: clients differ in the case that they read", Change: change}
	}
	first := v.values[names[0]]
	for _, name := range names {
		if _, err := parseProxy(v.values[name]); err != nil {
			return check{Result: resultWrong, Sure: certain, Seen: fmt.Sprintf("%s: %v", name, err), Change: change}
		}
		if !sameProxy(v.values[name], first) {
			return check{Result: resultWrong, Sure: certain, Seen: fmt.Sprintf("%s and %s differ: %s, %s", names[0], name, shownProxy(first), shownProxy(v.values[name])), Change: change}
		}
	}
	return check{Result: resultOK, Sure: certain, Seen: "all four are " + shownProxy(first)}
}
