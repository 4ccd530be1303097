package policy

import (
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ParseTarget reads a destination as people write it, and returns the parts
// of the [Query] that asks for it:
//
//	https://HOST[:PORT]/…    TLS to HOST, port 443 by default
//	http://HOST[:PORT]/…     plain HTTP, port 80 by default
//	tcp://HOST:PORT          a CONNECT tunnel that carries anything
//	HOST:PORT                a CONNECT tunnel before its first bytes
//	HOST                     TLS, port 443
//
// An IPv6 address is in brackets where a port can follow it. A URL's path and
// query are ignored: no rule judges them.
func ParseTarget(s string) (Via, Host, uint16, Protocol, error) {
	fail := func(err error) (Via, Host, uint16, Protocol, error) {
		return ViaUnknown, Host{}, 0, ProtocolUnknown, fmt.Errorf("target %q: %w", s, err)
	}
	via, protocol, name, port, err := splitTarget(s)
	if err != nil {
		return fail(err)
	}
	h, err := ParseHost(name)
	if err != nil {
		return fail(err)
	}
	return via, h, port, protocol, nil
}

// ParseRequest reads a request as people write it down: a method, a whole URL,
// and headers, of which Host, where it is given, goes before the URL's. It
// returns the URL without its path, for [ParseTarget], and the request as it
// is sent there: path and query stay as written, since what they encode is
// what is asked about.
func ParseRequest(method, rawURL string, headers map[string][]string) (site string, r S3Request, err error) {
	scheme, rest, isURL := strings.Cut(rawURL, "://")
	if !isURL {
		return "", r, fmt.Errorf("request to %q: write a whole URL, https://HOST/PATH", rawURL)
	}
	rest, _, _ = strings.Cut(rest, "#") // never sent
	authority, target := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, target = rest[:i], rest[i:]
	}
	if target[0] != '/' {
		target = "/" + target
	}
	canonical := make(map[string][]string, len(headers))
	for name, values := range headers {
		name = textproto.CanonicalMIMEHeaderKey(name)
		canonical[name] = append(slices.Clip(canonical[name]), values...)
	}
	r = S3Request{Method: method, Host: authority, Target: target, Header: func(name string) []string { return canonical[name] }}
	switch hosts := canonical["Host"]; len(hosts) {
	case 0:
	case 1:
		r.Host = hosts[0]
	default:
		return "", r, fmt.Errorf("request to %q: it has %d Host headers", rawURL, len(hosts))
	}
	return scheme + "://" + authority, r, nil
}

// splitTarget takes a target apart without looking at the host.
func splitTarget(s string) (via Via, protocol Protocol, name string, port uint16, err error) {
	scheme, rest, isURL := strings.Cut(s, "://")
	if !isURL {
		via, protocol, port = ViaTLS, ProtocolTLS, 443
		name = s
		host, portText, splitErr := net.SplitHostPort(s)
		if splitErr == nil && (strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1) {
			via, protocol, name = ViaConnect, ProtocolUnknown, host
			port, err = parsePort(portText)
		}
		return via, protocol, unbracket(name), port, err
	}
	switch strings.ToLower(scheme) {
	case "https":
		via, protocol, port = ViaTLS, ProtocolTLS, 443
	case "http":
		via, protocol, port = ViaHTTP, ProtocolHTTP, 80
	case "tcp":
		via, protocol = ViaConnect, ProtocolTCP
	default:
		return 0, 0, "", 0, fmt.Errorf("unknown scheme %q: write https://, http:// or tcp://", scheme)
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		if urlErr, ok := err.(*url.Error); ok { //nolint:errorlint // url.Parse returns nothing else, unwrapped
			err = urlErr.Err
		}
		return 0, 0, "", 0, err
	}
	if u.User != nil {
		return 0, 0, "", 0, errors.New("a user name has no place here")
	}
	if text := u.Port(); text != "" {
		port, err = parsePort(text)
	} else if port == 0 {
		err = fmt.Errorf("tcp has no default port: write tcp://%s:PORT", u.Host)
	}
	return via, protocol, u.Hostname(), port, err
}

// unbracket takes the brackets off an IPv6 address.
func unbracket(s string) string {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			return inner
		}
	}
	return s
}

func parsePort(s string) (uint16, error) {
	v, err := strconv.ParseUint(s, 10, 16)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("the port must be between 1 and 65535, not %q", s)
	}
	return uint16(v), nil
}
