package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file reads HTTP/1 as strictly as RFC 9112 lets a recipient be, and
// shares no code with net/http: it is the second opinion of FuzzHTTPHead. A
// message that it accepts has one reading only.

// strictRequest is one request as it stands on the wire.
type strictRequest struct {
	method, target, version string
	fields, trailers        []strictField
	body                    []byte
	complete                bool // false: the body is cut off, or broken
	broken                  bool // the body can not be read strictly
	end                     int  // readStrictAll: where the next request begins
}

// strictField is a header or trailer field; its name is in lower case.
type strictField struct{ name, value string }

// errStrict is for bytes that are no request; a message that is merely cut
// off is io.ErrUnexpectedEOF.
type errStrict string

func (e errStrict) Error() string { return string(e) }

func notStrict(format string, args ...any) error { return errStrict(fmt.Sprintf(format, args...)) }

// readStrictHead reads a request up to its body. io.EOF means that there is
// no further request.
func readStrictHead(br *bufio.Reader) (*strictRequest, error) {
	line, err := strictLine(br)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isStrictToken(parts[0]) || !isStrictTarget(parts[1]) {
		return nil, notStrict("request line %q", line)
	}
	if parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" {
		return nil, notStrict("version %q", parts[2])
	}
	m := &strictRequest{method: parts[0], target: parts[1], version: parts[2]}
	if m.fields, err = strictFields(br); err != nil {
		return nil, err
	}
	if n := len(m.values("host")); n > 1 || n == 0 && m.version == "HTTP/1.1" {
		return nil, notStrict("%d Host fields", n)
	}
	length, coding := m.values("content-length"), m.values("transfer-encoding")
	switch {
	case len(length)+len(coding) > 1:
		return nil, notStrict("two kinds of framing: %q %q", length, coding)
	case len(coding) == 1 && (!strings.EqualFold(coding[0], "chunked") || m.version == "HTTP/1.0"):
		return nil, notStrict("transfer coding %q of %s", coding[0], m.version)
	case len(length) == 1 && (len(length[0]) > 9 || !isAll(length[0], isDigitByte)):
		return nil, notStrict("Content-Length %q", length[0])
	}
	return m, nil
}

// readStrictBody reads the body and the trailers behind m's head.
func (m *strictRequest) readStrictBody(br *bufio.Reader) error {
	var err error
	switch length := m.values("content-length"); {
	case len(m.values("transfer-encoding")) == 1:
		err = m.readChunks(br)
	case len(length) == 1:
		err = m.readBytes(br, length[0], 10)
	}
	_, m.broken = errors.AsType[errStrict](err)
	m.complete = err == nil
	return err
}

func (m *strictRequest) readChunks(br *bufio.Reader) error {
	for {
		size, err := strictLine(br)
		if err != nil {
			return cutOff(err)
		}
		if len(size) == 0 || len(size) > 8 || !isAll(size, isHexByte) {
			return notStrict("chunk size %q", size)
		}
		if strings.Trim(size, "0") == "" {
			m.trailers, err = strictFields(br)
			return cutOff(err)
		}
		if err := m.readBytes(br, size, 16); err != nil {
			return err
		}
		if end, err := strictLine(br); err != nil || end != "" {
			return errors.Join(cutOff(err), notEmpty(end))
		}
	}
}

func notEmpty(s string) error {
	if s == "" {
		return nil
	}
	return notStrict("%q behind a chunk", s)
}

// readBytes appends as many bytes to the body as number says.
func (m *strictRequest) readBytes(br *bufio.Reader, number string, base int) error {
	n, err := strconv.ParseInt(number, base, 64)
	if err != nil {
		return notStrict("size %q", number)
	}
	part, err := io.ReadAll(io.LimitReader(br, n))
	m.body = append(m.body, part...)
	if err == nil && int64(len(part)) < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// strictLine reads a line that ends in CRLF, without it. CR, LF and NUL stand
// nowhere else.
func strictLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadString('\n')
	if err != nil {
		if line != "" {
			err = cutOff(err)
		}
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		return "", notStrict("line %q", line)
	}
	return text, nil
}

// strictFields reads fields up to and with the empty line.
func strictFields(br *bufio.Reader) ([]strictField, error) {
	var out []strictField
	for {
		line, err := strictLine(br)
		if err != nil {
			return nil, cutOff(err)
		}
		if line == "" {
			return out, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isStrictToken(name) || !isAll(value, isValueByte) {
			return nil, notStrict("field %q", line)
		}
		out = append(out, strictField{lowerASCII(name), strings.Trim(value, " \t")})
	}
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// values returns the fields of that name, in order.
func (m *strictRequest) values(name string) []string { return strictValues(m.fields, name) }

func strictValues(fields []strictField, name string) []string {
	var out []string
	for _, f := range fields {
		if f.name == name {
			out = append(out, f.value)
		}
	}
	return out
}

// lists reports whether the comma-separated lists of that name hold token.
func (m *strictRequest) lists(name, token string) bool {
	return slices.ContainsFunc(strings.Split(strings.Join(m.values(name), ","), ","), func(s string) bool {
		return lowerASCII(strings.Trim(s, " \t")) == token
	})
}

// split returns the authority that m is for, and what the origin gets as the
// target.
func (m *strictRequest) split() (authority, path string) {
	if m.method == "CONNECT" {
		return m.target, ""
	}
	if strings.HasPrefix(m.target, "/") || m.target == "*" {
		return strings.Join(m.values("host"), ""), m.target
	}
	if len(m.target) < 7 || lowerASCII(m.target[:7]) != "http://" {
		return "", ""
	}
	rest := m.target[7:]
	end := strings.IndexAny(rest, "/?")
	switch {
	case end >= 0 && rest[end] == '?':
		return rest[:end], "/" + rest[end:]
	case end >= 0:
		return rest[:end], rest[end:]
	case m.method == "OPTIONS":
		return rest, "*" // RFC 9112, section 3.2.4
	}
	return rest, "/"
}

// destination returns where m is to go, "" when nobody may guess.
func (m *strictRequest) destination() (host string, port int) {
	authority, _ := m.split()
	if m.method != "CONNECT" {
		return strictAuthority(authority, "80")
	}
	return strictAuthority(authority, "")
}

// strictAuthority reads host [":" port] (RFC 3986, section 3.2, without user
// information), canonically. The host is "" unless both parts are plain.
func strictAuthority(s, fallback string) (host string, port int) {
	end := strings.IndexByte(s, ':')
	if strings.HasPrefix(s, "[") {
		if end = strings.IndexByte(s, ']') + 1; end == 0 {
			return "", 0
		}
	}
	if end < 0 || end == len(s) {
		end = len(s)
		s += ":" + fallback
	}
	host = s[:end]
	digits, ok := strings.CutPrefix(s[end:], ":")
	if !ok {
		return "", 0
	}
	port, err := strconv.Atoi(digits)
	if err != nil || port < 1 || port > 65535 || strconv.Itoa(port) != digits {
		return "", 0
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", 0
		}
		return addr.Unmap().String(), port
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		return addr.String(), port
	}
	if host = strictName(host); host == "" {
		return "", 0
	}
	return host, port
}

// strictName returns a DNS name's canonical form, "" when it is none.
func strictName(s string) string {
	name := lowerASCII(strings.TrimSuffix(s, "."))
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if len(label) < 1 || len(label) > 63 || !isAll(label, isLabelByte) {
			return ""
		}
	}
	last := labels[len(labels)-1]
	if len(name) > 253 || name[0] == '-' || isAll(last, isDigitByte) || strings.HasPrefix(last, "0x") && isAll(last[2:], isHexByte) {
		return ""
	}
	return name
}

func isAll(s string, is func(byte) bool) bool {
	for _, c := range []byte(s) {
		if !is(c) {
			return false
		}
	}
	return true
}

func isDigitByte(c byte) bool { return '0' <= c && c <= '9' }

func isHexByte(c byte) bool {
	return isDigitByte(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isLabelByte(c byte) bool {
	return isDigitByte(c) || 'a' <= c && c <= 'z' || c == '-' || c == '_'
}

func isValueByte(c byte) bool { return c == '\t' || c >= ' ' && c != 0x7f }

func isStrictToken(s string) bool {
	return s != "" && isAll(s, func(c byte) bool {
		return isDigitByte(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
	})
}

// isStrictTarget allows what stands between two spaces. RFC 3986 allows less,
// but clients write more, and it is ambiguous to nobody.
func isStrictTarget(s string) bool {
	return s != "" && isAll(s, func(c byte) bool { return c > ' ' && c != 0x7f })
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// readStrictAll reads requests until the bytes end, or are none. A last one
// that is cut off in its body is among them.
func readStrictAll(wire string) ([]*strictRequest, error) {
	var out []*strictRequest
	left := strings.NewReader(wire)
	br := bufio.NewReader(left)
	for {
		m, err := readStrictHead(br)
		if err == nil {
			out = append(out, m)
			err = m.readStrictBody(br)
			m.end = len(wire) - left.Len() - br.Buffered()
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

func TestStrictReader(t *testing.T) {
	const host = "Host: a.test\r\n"
	tests := []struct {
		name, wire string
		requests   int
		ok         bool
	}{
		{"nothing", "", 0, true},
		{"a request", "GET / HTTP/1.1\r\n" + host + "\r\n", 1, true},
		{"two, the first with a body", "PUT / HTTP/1.1\r\nContent-Length: 2\r\n" + host + "\r\nabGET / HTTP/1.0\r\n\r\n", 2, true},
		{"chunks and a trailer", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + host + "\r\n2\r\nab\r\n00\r\nX: 1\r\n\r\n", 1, true},
		{"a body cut off", "PUT / HTTP/1.1\r\nContent-Length: 3\r\n" + host + "\r\nab", 1, false},
		{"a head cut off", "GET / HTTP/1.1\r\n" + host, 0, false},
		{"bare LF", "GET / HTTP/1.1\n" + host + "\r\n", 0, false},
		{"bare CR", "GET / HTTP/1.1\r\nX: a\rb\r\n" + host + "\r\n", 0, false},
		{"NUL", "GET / HTTP/1.1\r\nX: \x00\r\n" + host + "\r\n", 0, false},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", 0, false},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 0, false},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 0, false},
		{"a folded field", "GET / HTTP/1.1\r\n" + host + " x\r\n\r\n", 0, false},
		{"a space before the colon", "GET / HTTP/1.1\r\n" + host + "X : 1\r\n\r\n", 0, false},
		{"two framings", "PUT / HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n" + host + "\r\n0\r\n\r\n", 0, false},
		{"two lengths", "PUT / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n" + host + "\r\n", 0, false},
		{"a signed length", "PUT / HTTP/1.1\r\nContent-Length: +0\r\n" + host + "\r\n", 0, false},
		{"another coding", "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" + host + "\r\n", 0, false},
		{"a chunk extension", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + host + "\r\n2;x\r\nab\r\n0\r\n\r\n", 1, false},
		{"a chunk too long", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + host + "\r\n2\r\nabc\r\n0\r\n\r\n", 1, false},
		{"a chunk without a size", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + host + "\r\n\r\n", 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readStrictAll(tt.wire)
			if len(got) != tt.requests || (err == nil) != tt.ok {
				t.Errorf("%d requests, %v", len(got), err)
			}
		})
	}
}

func TestStrictDestination(t *testing.T) {
	tests := []struct {
		method, target, host string
		want                 string
		port                 int
		path                 string
	}{
		{"GET", "/p?q", "A.test.", "a.test", 80, "/p?q"},
		{"GET", "/", "a.test:8080", "a.test", 8080, "/"},
		{"GET", "HTTP://b.test?q", "a.test", "b.test", 80, "/?q"},
		{"GET", "http://b.test:81", "a.test", "b.test", 81, "/"},
		{"OPTIONS", "http://b.test", "a.test", "b.test", 80, "*"},
		{"OPTIONS", "*", "a.test", "a.test", 80, "*"},
		{"GET", "http://[::FFFF:1.2.3.4]:81//x", "a.test", "1.2.3.4", 81, "//x"},
		{"GET", "http://[::1]/", "", "::1", 80, "/"},
		{"CONNECT", "a.test:22", "", "a.test", 22, ""},
		{"CONNECT", "a.test", "a.test:22", "", 0, ""},
		{"GET", "http://u@b.test/", "a.test", "", 0, "/"},
		{"GET", "http://b.test:/", "a.test", "", 0, "/"},
		{"GET", "http://b.test:080/", "a.test", "", 0, "/"},
		{"GET", "https://b.test/", "a.test", "", 0, ""},
		{"GET", "/", "1.2.3", "", 0, "/"},
		{"GET", "/", "::1", "", 0, "/"},
		{"GET", "/", "[::1%25lo]", "", 0, "/"},
		{"GET", "/", "a..test", "", 0, "/"},
		{"GET", "/", "0x7f", "", 0, "/"},
		{"GET", "/", "", "", 0, "/"},
	}
	for _, tt := range tests {
		m := &strictRequest{method: tt.method, target: tt.target, fields: []strictField{{"host", tt.host}}}
		host, port := m.destination()
		if _, path := m.split(); host != tt.want || port != tt.port || path != tt.path {
			t.Errorf("%s %s, Host %q: %q %d %q, want %q %d %q", tt.method, tt.target, tt.host, host, port, path, tt.want, tt.port, tt.path)
		}
	}
}
