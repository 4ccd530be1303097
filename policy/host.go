package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// The longest name and label of the DNS in presentation form, in bytes,
// without the trailing dot (RFC 1035, section 2.3.4).
const (
	maxHost  = 253
	maxLabel = 63
)

// maxQuoted is how many bytes of what a client wrote an error repeats.
const maxQuoted = 255

// Host is a destination in canonical form: a lower-case ASCII name without a
// trailing dot, or an IP address. It is comparable; only [ParseHost] and
// [ParseSNI] make one.
type Host struct {
	name string
	addr netip.Addr
}

// String returns the name, or the address in its canonical form without
// brackets; "" for the zero Host.
func (h Host) String() string {
	if h.addr.IsValid() {
		return h.addr.String()
	}
	return h.name
}

// Addr returns the address of an IP literal and whether the host is one.
func (h Host) Addr() (netip.Addr, bool) { return h.addr, h.addr.IsValid() }

// IsZero reports whether h is the zero Host, which names nothing.
func (h Host) IsZero() bool { return h == Host{} }

// ParseHost reads a host as a client wrote it, without a port: the authority
// of CONNECT, a URL's host, a Host header's. It is the one place where names
// become canonical, so that what is decided, looked up, dialled and recorded
// is the same string.
//
// A name is ASCII letters, digits, '-' and '_' in labels of 1 to 63 bytes, at
// most 253 bytes in all; it is put in lower case and loses one trailing dot.
// A single label is a name. A name whose last label is a number, decimal or
// 0x-hexadecimal, is refused unless it is an IPv4 address in dotted-decimal
// form: resolvers read the octal, hexadecimal and short forms as addresses
// too (WHATWG URL, section 3.5). An IPv6 address may stand in brackets, has
// no zone, and an IPv4-mapped one becomes the IPv4 address.
//
// Hyphens may end a label or begin a later one, as in names that people
// registered below shared domains (foo-.example.com) and that resolve
// everywhere. A name may not begin with one: glibc looks no such name up, and
// on a command line it would be taken for a flag. A-labels ("xn--") are not
// decoded: whatever they hold, they lead nowhere but to themselves.
//
// ParseHost does not allocate when s is canonical already; the Host then
// shares its memory.
func ParseHost(s string) (Host, error) {
	if s == "" {
		return Host{}, hostError(s, "is empty")
	}
	if len(s) > maxHost+len(".") {
		return Host{}, hostError(s, "is longer than 253 bytes")
	}
	if s[0] == '[' {
		inner, ok := strings.CutSuffix(s[1:], "]")
		if !ok || !strings.Contains(inner, ":") {
			return Host{}, hostError(s, "has brackets that do not enclose an IPv6 address")
		}
		return parseIPv6(s, inner)
	}
	if strings.Contains(s, ":") {
		return parseIPv6(s, s)
	}
	return parseName(s)
}

// ParseSNI reads the server_name of a TLS ClientHello. It is [ParseHost] with
// what RFC 6066, section 3 adds: no IP address and no trailing dot.
func ParseSNI(s string) (Host, error) {
	if strings.HasSuffix(s, ".") {
		return Host{}, hostError(s, "ends in a dot, which a server_name must not (RFC 6066, section 3)")
	}
	h, err := ParseHost(s)
	if err != nil {
		return Host{}, err
	}
	if h.addr.IsValid() {
		return Host{}, hostError(s, "is an IP address, which a server_name must not be (RFC 6066, section 3)")
	}
	return h, nil
}

// parseIPv6 reads inner as an IPv6 address; s is what the client wrote.
func parseIPv6(s, inner string) (Host, error) {
	if strings.Contains(inner, "%") {
		return Host{}, hostError(s, "has a zone, which means nothing to another machine")
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil {
		return Host{}, hostError(s, "holds ':' and is not an IPv6 address (a port does not belong to a host)")
	}
	return Host{addr: addr.Unmap()}, nil
}

// parseName reads a name or an IPv4 address.
func parseName(s string) (Host, error) {
	name := strings.TrimSuffix(s, ".")
	if problem := nameProblem(s, name); problem != "" {
		return Host{}, hostError(s, problem)
	}
	if !isNumber(name[strings.LastIndexByte(name, '.')+1:]) {
		return Host{name: strings.ToLower(name)}, nil
	}
	// Only s itself: a trailing dot makes a name of it.
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return Host{}, hostError(s, "ends in a number and is not an IPv4 address in dotted-decimal form")
	}
	return Host{addr: addr}, nil
}

// nameProblem says what is wrong with the characters and labels of name,
// which is s without its trailing dot; "" when nothing is.
func nameProblem(s, name string) string {
	start := 0
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '.':
			if problem := labelProblem(i - start); problem != "" {
				return problem
			}
			start = i + 1
		case c >= 0x80:
			return nonASCII(s)
		case !isNameByte(c):
			return badByte(c)
		}
	}
	if problem := labelProblem(len(name) - start); problem != "" {
		return problem
	}
	if len(name) > maxHost {
		return "is longer than 253 bytes"
	}
	if name[0] == '-' {
		return "begins with a hyphen"
	}
	return ""
}

// labelProblem says what is wrong with a label of n bytes.
func labelProblem(n int) string {
	switch {
	case n == 0:
		return "has an empty label"
	case n > maxLabel:
		return "has a label longer than 63 bytes"
	}
	return ""
}

// badByte names a byte that no name holds.
func badByte(c byte) string {
	switch {
	case c == 0:
		return "holds a NUL byte"
	case c < ' ' || c == 0x7f:
		return "holds a control character"
	case c == ' ':
		return "holds a space"
	case c == '*':
		return "holds '*', which is for patterns, not for hosts"
	case c == '@':
		return "holds '@': user information does not belong to a host"
	case c == '/':
		return "holds '/': a path or a scheme does not belong to a host"
	}
	return fmt.Sprintf("holds %q, which no host name does", c)
}

// nonASCII tells how to write s, which is not ASCII. It is refused and not
// converted: the proxy would have to guess which of IDNA's mappings the client
// meant, and one of them makes "evil.example" of full-width letters.
func nonASCII(s string) string {
	ascii, err := idna.Lookup.ToASCII(s)
	if err != nil || !utf8.ValidString(s) {
		return "is not ASCII; write internationalised names as A-labels (xn--...)"
	}
	return fmt.Sprintf("is not ASCII; if it means %q, write that", quotable(ascii))
}

// isNameByte reports whether a name may hold c. Underscores occur in names
// that are looked up for TLS too, buckets for one.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// isNumber reports whether a resolver would read the label as a number:
// decimal (octal with it), or 0x and hexadecimal digits, of which there may
// be none.
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return isAll(hex, isHexDigit)
	}
	if hex, ok := strings.CutPrefix(label, "0X"); ok {
		return isAll(hex, isHexDigit)
	}
	return isAll(label, isDigit)
}

// isAll reports whether is holds for every byte of s, as it does for "".
func isAll(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHexDigit(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// hostError says what is wrong with s, a host that a client wrote.
func hostError(s, problem string) error {
	return fmt.Errorf("host %q %s", quotable(s), problem)
}

// quotable cuts s to what an error may repeat.
func quotable(s string) string { return s[:min(len(s), maxQuoted)] }
