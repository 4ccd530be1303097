package proxy

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

var updateHellos = flag.Bool("update-hellos", false, "write the synthetic hellos to testdata/hello, and capture genuine ones from the clients on PATH")

// u8 and u16 prefix the concatenated parts with their length.
func u8(parts ...[]byte) []byte {
	b := bytes.Join(parts, nil)
	return append([]byte{byte(len(b))}, b...)
}

func u16(parts ...[]byte) []byte {
	b := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func ext(typ uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, typ), u16(body)...)
}

func hostName(name string) []byte { return append([]byte{serverNameTypeHost}, u16([]byte(name))...) }

func sni(name string) []byte { return ext(extServerName, u16(hostName(name))) }

func alpn(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, u8([]byte(n))...)
	}
	return ext(extALPN, u16(list))
}

func versions(v ...uint16) []byte {
	var list []byte
	for _, v := range v {
		list = binary.BigEndian.AppendUint16(list, v)
	}
	return ext(extSupportedVersions, u8(list))
}

func echExt(payload int) []byte {
	return ext(extEncryptedHello, slices.Concat([]byte{echOuter, 0, 1, 0, 1, 7}, u16(make([]byte, 32)), u16(make([]byte, payload))))
}

// hello12Body is a hello up to its extensions.
func hello12Body() []byte {
	return slices.Concat([]byte{3, 3}, bytes.Repeat([]byte{0x5a}, 32), u8(bytes.Repeat([]byte{0xa5}, 32)),
		u16([]byte{0x13, 1, 0xc0, 0x2f}), u8([]byte{0}))
}

func message(body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	return append([]byte{helloMessageType, byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// hello12 is a hello message with these extensions.
func hello12(exts ...[]byte) []byte { return message(hello12Body(), u16(exts...)) }

// frame cuts data into handshake records of these sizes, the last of which
// repeats.
func frame(data []byte, sizes ...int) []byte {
	var wire []byte
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), sizes[min(i, len(sizes)-1)])
		wire = append(wire, helloContentType, 3, 1, byte(n>>8), byte(n))
		wire = append(wire, data[:n]...)
		data = data[n:]
	}
	return wire
}

// helloCase is a hello and what must become of it.
type helloCase struct {
	name string
	wire []byte
	sni  string // as sent
	alpn []string
	ver  string        // "1.2" when empty and accepted
	ech  bool          //
	want policy.Reason // "" when accepted
	text string        // in the refusal
}

// syntheticHellos are the hand-made part of testdata/hello.
func syntheticHellos() []helloCase {
	const name = "origin.example"
	one := func(exts ...[]byte) []byte { return frame(hello12(exts...), 16384) }
	ok := func(n string, wire []byte) helloCase { return helloCase{name: n, wire: wire, sni: name} }
	bad := func(n string, wire []byte, text string) helloCase {
		return helloCase{name: n, wire: wire, want: policy.ReasonMalformedHello, text: text}
	}
	not := func(n, wire, text string) helloCase {
		return helloCase{name: n, wire: []byte(wire), want: policy.ReasonNotTLS, text: text}
	}
	badName := func(n, sent string) helloCase { return bad(n, one(sni(sent)), "server_name: ") }
	plain := hello12(sni(name), alpn("h2", "http/1.1"))
	withALPN := func(c helloCase) helloCase { c.alpn = []string{"h2", "http/1.1"}; return c }
	head := hello12Body()

	cases := []helloCase{
		ok("plain", one(sni(name))),
		withALPN(ok("split-2", frame(plain, len(plain)-50, 50))),
		withALPN(ok("split-first-1", frame(plain, 1, 16384))),
		withALPN(ok("split-first-2", frame(plain, 2, 16384))),
		withALPN(ok("split-first-3", frame(plain, 3, 16384))),
		withALPN(ok("split-each-byte", frame(plain, 1))),
		ok("mlkem", one(sni(name), ext(51, u16([]byte{0x11, 0xec}, u16(make([]byte, 1216)))))),
		ok("record-12k", one(sni(name), ext(21, make([]byte, 12_300)))),
		ok("record-16k", frame(hello12(sni(name), ext(21, make([]byte, 16_384-4-len(head)-2-len(sni(name))-4))), 16384)),
		ok("message-64k", frame(hello12(sni(name), ext(21, make([]byte, helloMaxMessage-4-len(head)-2-len(sni(name))-4))), 16384)),
		ok("records-512", frame(hello12(sni(name), ext(21, make([]byte, 512-4-len(head)-2-len(sni(name))-4))), 1)),
		{name: "grease", wire: one(ext(0x0a0a, nil), sni(name), ext(10, u16([]byte{0x2a, 0x2a, 0, 29})), versions(0x7a7a, 0x0304, 0x0303), alpn("\x8a\x8a", "h2"), ext(0xfafa, []byte{0})), sni: name, ver: "1.3", alpn: []string{"\x8a\x8a", "h2"}},
		{name: "ech-outer", wire: one(sni(name), echExt(200), versions(0x0304)), sni: name, ver: "1.3", ech: true},
		{name: "ech-inner", wire: one(sni(name), ext(extEncryptedHello, []byte{echInner})), sni: name},
		{name: "psk-last", wire: one(sni(name), versions(0x0304), ext(extPreSharedKey, slices.Concat(u16(u16([]byte("ticket")), []byte{0, 0, 0, 1}), u16(u8(make([]byte, 32)))))), sni: name, ver: "1.3"},
		ok("followed-by-early-data", append(one(sni(name)), 20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 3, 'x', 'y', 'z')),
		{name: "no-sni", wire: one(ext(23, nil))},
		{name: "no-extensions", wire: frame(message(head), 16384)},
		{name: "extensions-empty", wire: one()},
		{name: "sni-upper-case", wire: one(sni("ORIGIN.Example")), sni: "ORIGIN.Example"},
		{name: "sni-253", wire: one(sni(longName(253))), sni: longName(253)},
		{name: "version-1.0", wire: frame(message(append([]byte{3, 1}, head[2:]...), u16(sni(name))), 16384), sni: name, ver: "1.0"},
		{name: "version-1.1", wire: frame(message(append([]byte{3, 2}, head[2:]...), u16(sni(name))), 16384), sni: name, ver: "1.1"},
		{name: "version-7f7f", wire: frame(message(append([]byte{0x7f, 0x7f}, head[2:]...), u16(sni(name))), 16384), sni: name, ver: "1.2"},
		{name: "version-unknown", wire: one(sni(name), versions(0x7a7a, 0x0305)), sni: name, ver: "none"},
		{name: "alpn-100", wire: one(sni(name), alpn(manyProtocols(100)...)), sni: name, alpn: manyProtocols(100)},
		{name: "alpn-200", wire: one(sni(name), alpn(manyProtocols(200)...)), sni: name, alpn: manyProtocols(helloMaxALPN)},

		bad("sni-two-extensions", one(sni(name), sni("other.example")), "extension 0 appears twice"),
		bad("sni-two-extensions-same", one(sni(name), sni(name)), "extension 0 appears twice"),
		bad("sni-two-names", one(ext(0, u16(hostName(name), hostName("other.example")))), "more than one name"),
		bad("sni-other-type-behind", one(ext(0, u16(hostName(name), []byte{1}, u16([]byte("x"))))), "more than one name"),
		bad("sni-type-1", one(ext(0, u16([]byte{1}, u16([]byte(name))))), "of type 1"),
		bad("sni-type-255", one(ext(0, u16([]byte{255}, u16([]byte(name))))), "of type 255"),
		bad("sni-trailing-byte", one(ext(0, append(u16(hostName(name)), 0))), "does not end where"),
		bad("sni-list-trailing-byte", one(ext(0, u16(hostName(name), []byte{0}))), "more than one name"),
		bad("sni-list-too-long", one(ext(0, append([]byte{0, 0xff}, hostName(name)...)), ext(21, make([]byte, 300))), "does not end where"),
		bad("sni-list-too-short", one(ext(0, append([]byte{0, 5}, hostName(name)...))), "does not end where"),
		bad("sni-name-in-next-extension", one(ext(0, u16([]byte{0, 0, 30})), ext(21, []byte("padding.with.a.name.in.it.example"))), "malformed"),
		bad("sni-extension-empty", one(ext(0, nil)), "does not end where"),
		bad("sni-list-empty", one(ext(0, u16())), "malformed"),
		bad("sni-name-empty", one(sni("")), "is empty"),
		badName("sni-nul", "origin.example\x00.evil.example"),
		badName("sni-nul-last", "origin.example\x00"),
		badName("sni-crlf", "origin.example\r\nx: y"),
		badName("sni-space", "origin.example "),
		badName("sni-utf8", "origín.example"),
		badName("sni-kelvin", "\u212aelvin.example"),
		badName("sni-fullwidth", "ｏrigin.example"),
		badName("sni-ideographic-dot", "origin。example"),
		badName("sni-not-utf8", "origin\xff.example"),
		badName("sni-ipv4", "192.0.2.1"),
		badName("sni-ipv4-short", "127.1"),
		badName("sni-ipv4-hex", "0x7f000001"),
		badName("sni-ipv4-decimal", "2130706433"),
		badName("sni-ipv6", "2001:db8::1"),
		badName("sni-ipv6-brackets", "[2001:db8::1]"),
		badName("sni-ipv6-zone", "fe80::1%lo"),
		badName("sni-dot-last", "origin.example."),
		badName("sni-dot-only", "."),
		badName("sni-dot-first", ".origin.example"),
		badName("sni-dots", "origin..example"),
		badName("sni-port", "origin.example:443"),
		badName("sni-wildcard", "*.example"),
		badName("sni-slash", "origin.example/x"),
		badName("sni-userinfo", "origin.example@evil.example"),
		badName("sni-label-64", strings.Repeat("a", 64)+".example"),
		badName("sni-254", longName(254)),
		badName("sni-16000", strings.Repeat("a.", 7999)+"ab"),
		bad("extension-twice", one(sni(name), ext(23, nil), ext(23, nil)), "extension 23 appears twice"),
		bad("grease-twice", one(ext(0x0a0a, nil), sni(name), ext(0x0a0a, []byte{0})), "extension 2570 appears twice"),
		bad("extension-too-long", one(sni(name), []byte{0, 21, 0, 9, 0}), "runs past"),
		bad("extension-cut", one(sni(name), []byte{0, 21, 0}), "runs past"),
		bad("extensions-trailing", frame(message(head, u16(sni(name)), []byte{0}), 16384), "do not end where"),
		bad("extensions-too-long", frame(message(head, []byte{0, 99}, sni(name)), 16384), "do not end where"),
		bad("extensions-one-byte", frame(message(head, []byte{0}), 16384), "do not end where"),
		bad("psk-not-last", one(sni(name), ext(extPreSharedKey, nil), ext(23, nil)), "not the last"),
		bad("alpn-list-empty", one(sni(name), ext(extALPN, u16())), "ALPN"),
		bad("alpn-empty", one(sni(name), alpn("h2", "")), "ALPN"),
		bad("alpn-cut", one(sni(name), ext(extALPN, u16([]byte{9, 'h'}))), "ALPN"),
		bad("alpn-trailing", one(sni(name), ext(extALPN, append(u16(u8([]byte("h2"))), 0))), "ALPN"),
		bad("versions-odd", one(sni(name), ext(extSupportedVersions, u8([]byte{3, 4, 3}))), "supported versions"),
		bad("versions-empty", one(sni(name), ext(extSupportedVersions, u8())), "supported versions"),
		bad("versions-trailing", one(sni(name), ext(extSupportedVersions, []byte{2, 3, 4, 0})), "supported versions"),
		bad("ech-empty", one(sni(name), ext(extEncryptedHello, nil)), "encrypted_client_hello is empty"),
		bad("ech-inner-long", one(sni(name), ext(extEncryptedHello, []byte{echInner, 0})), "encrypted_client_hello is malformed"),
		bad("ech-type-2", one(sni(name), ext(extEncryptedHello, []byte{2})), "type 2"),
		bad("ech-cut", one(sni(name), ext(extEncryptedHello, []byte{echOuter, 0, 1, 0, 1})), "encrypted_client_hello is malformed"),
		bad("second-parser-refuses", one(sni(name), ext(13172, []byte{1})), "two parsers disagree"),
		bad("session-id-33", frame(message(head[:34], u8(make([]byte, 33)), u16([]byte{0x13, 1}), u8([]byte{0}), u16(sni(name))), 16384), "session id"),
		bad("ciphers-odd", frame(message(head[:34], u8(), u16([]byte{0x13, 1, 0}), u8([]byte{0}), u16(sni(name))), 16384), "cipher suites"),
		bad("ciphers-none", frame(message(head[:34], u8(), u16(), u8([]byte{0}), u16(sni(name))), 16384), "cipher suites"),
		bad("compression-none", frame(message(head[:34], u8(), u16([]byte{0x13, 1}), u8(), u16(sni(name))), 16384), "compression"),
		bad("body-cut", frame(message(head[:33]), 16384), "ends before"),
		bad("body-empty", frame(message(), 16384), "ends before"),
		bad("version-ssl3", frame(message(append([]byte{3, 0}, head[2:]...), u16(sni(name))), 16384), "below TLS 1.0"),
		bad("record-empty-first", append([]byte{22, 3, 1, 0, 0}, one(sni(name))...), "record is empty"),
		bad("record-empty-middle", slices.Concat(frame(plain[:50], 50), []byte{22, 3, 1, 0, 0}, frame(plain[50:], 16384)), "record is empty"),
		bad("record-16385", append([]byte{22, 3, 1, 0x40, 1}, make([]byte, 100)...), "claims 16385 bytes"),
		bad("record-version-2", append([]byte{22, 2, 0}, one(sni(name))[3:]...), "0x02"),
		bad("record-513", frame(hello12(sni(name), ext(21, make([]byte, 513-4-len(head)-2-len(sni(name))-4))), 1), "more than 512 records"),
		bad("message-64k-and-1", frame(append([]byte{1, 0, 0xff, 0xfd}, make([]byte, 60)...), 64), "claims 65537 bytes"),
		bad("message-16m", frame(append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 60)...), 64), "more than 65536"),
		bad("message-other", frame(append([]byte{2}, plain[1:]...), 16384), "type 2"),
		bad("message-two-in-record", frame(append(slices.Clone(plain), plain...), 16384), "does not end where its record ends"),
		bad("message-behind-claimed", append(frame(plain[:50], 50), 22, 3, 1, 0x40, 0), "does not end where its record ends"),
		bad("message-byte-behind-in-record", frame(append(slices.Clone(plain), 0), 100, 16384), "does not end where its record ends"),
		bad("alert-in-the-middle", slices.Concat(frame(plain[:50], 50), alertRecord(0), frame(plain[50:], 16384)), "type 21 interrupts"),
		bad("cut-in-header", one(sni(name))[:4], "4 bytes of a ClientHello, then EOF"),
		bad("cut-in-body", one(sni(name))[:60], "60 bytes of a ClientHello, then EOF"),
		bad("cut-between-records", frame(plain, 50)[:55], "55 bytes of a ClientHello, then EOF"),

		not("http", "GET / HTTP/1.1\r\nHost: origin.example\r\n\r\n", "HTTP"),
		not("ssh", "SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
		not("sslv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"+strings.Repeat("\x01", 37), "SSLv2"),
		not("alert-first", string(alertRecord(40))+string(frame(plain, 16384)), "alert record"),
		not("ccs-first", "\x14\x03\x03\x00\x01\x01"+string(frame(plain, 16384)), "change_cipher_spec"),
		not("application-data-first", "\x17\x03\x03\x00\x01\x01", "application data"),
		not("nul", "\x00", "0x00"),
	}
	return cases
}

// longName is a name of n bytes, its labels legal.
func longName(n int) string {
	return strings.Repeat("a", n-3*64-len(".example")) + strings.Repeat("."+strings.Repeat("b", 63), 3) + ".example"
}

func manyProtocols(n int) []string {
	p := make([]string, n)
	for i := range p {
		p[i] = fmt.Sprintf("proto-%d", i)
	}
	return p
}

// check compares an answer with what c wants.
func (c helloCase) check(t *testing.T, h *hello, err error) {
	t.Helper()
	if c.want != "" {
		e, ok := errors.AsType[*helloError](err)
		switch {
		case !ok:
			t.Errorf("err = %v, want a refusal", err)
		case e.reason != c.want || !strings.Contains(e.msg, c.text):
			t.Errorf("%s: %s; want %s, with %q", e.reason, e.msg, c.want, c.text)
		}
		return
	}
	if err != nil {
		t.Errorf("refused: %v", err)
		return
	}
	ver := c.ver
	switch ver {
	case "":
		ver = "1.2"
	case "none":
		ver = ""
	}
	if h.rawName != c.sni || h.serverName.String() != strings.ToLower(c.sni) || h.serverName.IsZero() != (c.sni == "") {
		t.Errorf("name = %q (%q), want %q", h.rawName, h.serverName, c.sni)
	}
	if !slices.Equal(h.alpn, c.alpn) || h.version != ver || h.ech != c.ech {
		t.Errorf("alpn %q, version %q, ech %t; want %q, %q, %t", h.alpn, h.version, h.ech, c.alpn, ver, c.ech)
	}
	if !bytes.HasPrefix(c.wire, h.raw) {
		t.Errorf("raw (%d bytes) is not what was sent", len(h.raw))
	}
}

// TestReadHelloCorpus reads each synthetic hello whole, in pieces, and as
// bytes already read, and compares the committed file with its generator.
func TestReadHelloCorpus(t *testing.T) {
	for _, c := range syntheticHellos() {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join("testdata", "hello", c.name+".bin")
			if *updateHellos {
				if err := os.WriteFile(file, c.wire, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			committed, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(committed, c.wire) {
				t.Errorf("%s is not what its generator makes; write it anew with -update-hellos", file)
			}
			c.checkPieces(t)
		})
	}
}

// checkPieces reads c.wire in every way it can arrive.
func (c helloCase) checkPieces(t *testing.T) {
	t.Helper()
	read := func(how string, r io.Reader, peeked []byte) {
		t.Helper()
		h, err := readHello(r, peeked)
		c.check(t, h, err)
		if t.Failed() {
			t.Fatalf("read %s", how)
		}
	}
	read("whole", bytes.NewReader(c.wire), nil)
	read("by bytes", iotest.OneByteReader(bytes.NewReader(c.wire)), nil)
	read("with its last error", iotest.DataErrReader(bytes.NewReader(c.wire)), nil)
	read("as peeked", iotest.ErrReader(io.EOF), c.wire)
	for _, n := range []int{1, 2, 5, 6, 9, 100, len(c.wire) - 1} {
		n = max(0, min(n, len(c.wire)))
		read(fmt.Sprintf("with %d peeked", n), iotest.HalfReader(bytes.NewReader(c.wire[n:])), c.wire[:n])
	}
}

// TestReadHelloResplit cuts every accepted hello anew, into 2 to 512 records:
// the answer stays.
func TestReadHelloResplit(t *testing.T) {
	for _, c := range syntheticHellos() {
		if c.want != "" {
			continue
		}
		f := helloFrames{buf: c.wire}
		if done, refusal := f.advance(); !done {
			t.Fatalf("%s: %v", c.name, refusal)
		}
		m := f.message()
		for _, first := range []int{1, 2, 3, 4, 5, 40, len(m) / 2, len(m) - 1} {
			for _, rest := range []int{1, 7, 128, 1000, helloMaxFragment} {
				again := c
				again.wire = frame(m, min(first, helloMaxFragment), rest)
				if first < 1 || len(again.wire) > len(m)+helloMaxRecords*helloRecordHeader {
					continue
				}
				h, err := readHello(bytes.NewReader(again.wire), nil)
				again.check(t, h, err)
				if t.Failed() {
					t.Fatalf("%s in records of %d, %d, ...", c.name, first, rest)
				}
			}
		}
	}
}

// TestReadHelloOracle holds every verdict on the corpus against crypto/tls:
// what it refuses we refuse, and names are equal.
func TestReadHelloOracle(t *testing.T) {
	// Where crypto/tls is the laxer one.
	ours := []string{
		"sni-type-1", "sni-type-255", "sni-other-type-behind", "sni-nul", "sni-nul-last", "sni-crlf", "sni-space", "sni-utf8",
		"sni-kelvin", "sni-fullwidth", "sni-ideographic-dot", "sni-not-utf8", "sni-ipv4", "sni-ipv4-short", "sni-ipv4-hex",
		"sni-ipv4-decimal", "sni-ipv6", "sni-ipv6-brackets", "sni-ipv6-zone", "sni-dot-first", "sni-dots", "sni-port",
		"sni-wildcard", "sni-slash", "sni-userinfo", "sni-label-64", "sni-254", "sni-16000", "second-parser-refuses",
		"session-id-33", "ciphers-none", "compression-none", "version-ssl3", "ech-empty",
		"record-version-2", "record-513", "message-two-in-record", "message-byte-behind-in-record",
	}
	for _, c := range syntheticHellos() {
		name, _, err := cryptoTLSHello(c.wire)
		switch {
		case c.want == "" && (err != nil || name != c.sni):
			t.Errorf("%s: accepted as %q, but crypto/tls says %q, %v", c.name, c.sni, name, err)
		case c.want != "" && (err == nil) != slices.Contains(ours, c.name):
			t.Errorf("%s: refused, and crypto/tls says %q, %v", c.name, name, err)
		}
	}
}

// errHelloSeen ends crypto/tls's handshake when its parser is done.
var errHelloSeen = errors.New("hello seen")

// cryptoTLSHello is crypto/tls's opinion of a hello.
func cryptoTLSHello(wire []byte) (name string, protocols []string, err error) {
	config := &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		name, protocols = i.ServerName, i.SupportedProtos
		return nil, errHelloSeen
	}}
	err = tls.Server(&replayConn{Reader: bytes.NewReader(wire)}, config).HandshakeContext(context.Background())
	if errors.Is(err, errHelloSeen) {
		err = nil
	}
	return name, protocols, err
}

// replayConn reads what was recorded, and forgets what is written.
type replayConn struct {
	net.Conn
	io.Reader
}

func (c *replayConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c *replayConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *replayConn) Close() error                { return nil }

// countingReader counts what is taken from it, and how often.
type countingReader struct {
	r           io.Reader
	bytes, read int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.bytes += n
	c.read++
	return n, err
}

// neverEnding repeats its bytes for ever.
type neverEnding struct {
	bytes string
	next  int
}

func (s *neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = s.bytes[s.next%len(s.bytes)]
		s.next++
	}
	return len(p), nil
}

// TestReadHelloEndless meets streams that never end: each must be cut long
// before a mebibyte is taken.
func TestReadHelloEndless(t *testing.T) {
	start := string(frame([]byte{1, 0, 0xff, 0xf0}, 4)) // a hello of 65,524 bytes
	tests := []struct {
		name   string
		stream io.Reader
		atMost int
	}{
		{"empty records", &neverEnding{bytes: "\x16\x03\x01\x00\x00"}, sniffSize},
		{"empty records behind a start", io.MultiReader(strings.NewReader(start), &neverEnding{bytes: "\x16\x03\x01\x00\x00"}), 2 * sniffSize},
		{"one-byte records", io.MultiReader(strings.NewReader(start), &neverEnding{bytes: "\x16\x03\x01\x00\x01\x00"}), 4 * sniffSize},
		{"full records", &neverEnding{bytes: "\x16\x03\x01\x40\x00" + "\x01\x00\xff\xf0" + strings.Repeat("x", 16380)}, helloMaxWire},
		{"text", &neverEnding{bytes: "x"}, sniffSize},
		{"handshake bytes", &neverEnding{bytes: "\x16"}, sniffSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &countingReader{r: tt.stream}
			h, err := readHello(r, nil)
			e, ok := errors.AsType[*helloError](err)
			if !ok {
				t.Fatalf("accepted: %+v", h)
			}
			if r.bytes > tt.atMost || e.taken != r.bytes {
				t.Errorf("%d bytes taken, %d counted, want at most %d", r.bytes, e.taken, tt.atMost)
			}
		})
	}
}

// TestReadHelloNoFurther checks that nothing is read once the answer is known.
func TestReadHelloNoFurther(t *testing.T) {
	whole := frame(hello12(sni("origin.example")), 16384)
	for _, peeked := range [][]byte{[]byte("G"), whole, append(slices.Clone(whole), "early"...)} {
		r := &countingReader{r: &neverEnding{bytes: "x"}}
		h, err := readHello(r, peeked)
		if r.read != 0 {
			t.Errorf("%d bytes peeked: read %d times more", len(peeked), r.read)
		}
		if err == nil && !bytes.Equal(h.raw, peeked) {
			t.Error("raw is not what was peeked")
		}
	}
	r := &countingReader{r: iotest.OneByteReader(&neverEnding{bytes: "SSH"})}
	if _, err := readHello(r, nil); err == nil || r.bytes != 1 {
		t.Errorf("%d bytes of SSH taken, want 1 (%v)", r.bytes, err)
	}
}

// TestReadHelloCutShort checks how the end of a connection is told.
func TestReadHelloCutShort(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, Err: errors.New("connection reset by peer")}
	tests := []struct {
		name    string
		sent    string
		err     error
		reason  policy.Reason
		msg     string
		timeout bool
	}{
		{"nothing", "", io.EOF, policy.ReasonNotTLS, "0 bytes of a ClientHello, then EOF", false},
		{"nothing in time", "", os.ErrDeadlineExceeded, policy.ReasonNotTLS, "0 bytes of a ClientHello, then timeout", true},
		{"a byte", "\x16", io.EOF, policy.ReasonMalformedHello, "1 bytes of a ClientHello, then EOF", false},
		{"too slow", "\x16\x03\x01", os.ErrDeadlineExceeded, policy.ReasonMalformedHello, "3 bytes of a ClientHello, then timeout", true},
		{"reset", "\x16\x03", reset, policy.ReasonMalformedHello, "2 bytes of a ClientHello, then connection reset by peer", false},
		{"reader without progress", "\x16", nil, policy.ReasonMalformedHello, "1 bytes of a ClientHello, then " + io.ErrNoProgress.Error(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readHello(io.MultiReader(strings.NewReader(tt.sent), iotest.ErrReader(tt.err)), nil)
			e, ok := errors.AsType[*helloError](err)
			if !ok {
				t.Fatalf("err = %v", err)
			}
			if e.reason != tt.reason || e.msg != tt.msg || e.timeout != tt.timeout || (e.taken == 0) != (tt.sent == "") {
				t.Errorf("%+v", e)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("%v does not wrap %v", err, tt.err)
			}
		})
	}
}

// TestReadHelloDeadline drips a hello over a real connection whose one
// deadline passes meanwhile.
func TestReadHelloDeadline(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	wire := frame(hello12(sni("origin.example")), 16384)
	go func() {
		for i := range 10 {
			client.Write(wire[i : i+1])
		}
		server.SetReadDeadline(time.Now()) // as if the time were up
	}()
	_, err := readHello(server, nil)
	if e, ok := errors.AsType[*helloError](err); !ok || !e.timeout || e.taken != 10 {
		t.Errorf("%+v", err)
	}
}

// TestReadHelloRefusedName checks that a refused name still reaches the record.
func TestReadHelloRefusedName(t *testing.T) {
	_, err := readHello(bytes.NewReader(frame(hello12(sni("origin.example\x00")), 16384)), nil)
	if e, ok := errors.AsType[*helloError](err); !ok || e.rawName != "origin.example\x00" || !strings.Contains(e.msg, `"origin.example\x00"`) {
		t.Errorf("%+v", err)
	}
	_, err = readHello(bytes.NewReader(frame(hello12(sni(strings.Repeat("\u202e", 5000))), 16384)), nil)
	if e, ok := errors.AsType[*helloError](err); !ok || len(e.msg) > 2000 || strings.Contains(e.msg, "\u202e") {
		t.Errorf("a long name is told at length: %d bytes", len(err.Error()))
	}
}

// stalledReader delivers its bytes and then blocks until it is let go.
type stalledReader struct {
	data    io.Reader
	stalled *sync.WaitGroup
	letGo   chan struct{}
}

func (r *stalledReader) Read(p []byte) (int, error) {
	n, err := r.data.Read(p)
	if err == io.EOF {
		r.stalled.Done()
		<-r.letGo
	}
	return n, err
}

// TestReadHelloMemory holds the bound on what a peer that stalls costs: 128
// KiB, whatever it sent before.
func TestReadHelloMemory(t *testing.T) {
	const peers = 64
	most := frame(append([]byte{1, 0, 0xff, 0xfc}, make([]byte, helloMaxMessage-4)...), 128)
	tests := []struct {
		name  string
		wire  []byte
		bound int
	}{
		{"largest hello but for a byte", most[:len(most)-1], 128 << 10},
		{"ordinary hello but for a byte", frame(hello12(sni("origin.example"), ext(21, make([]byte, 1500))), 1700)[:1600], 16 << 10},
		{"large claim", []byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xfc}, 16 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stalled, done sync.WaitGroup
			letGo := make(chan struct{})
			before := memoryInUse()
			for range peers {
				stalled.Add(1)
				done.Go(func() {
					_, err := readHello(&stalledReader{data: bytes.NewReader(tt.wire), stalled: &stalled, letGo: letGo}, nil)
					if err == nil {
						t.Error("accepted")
					}
				})
			}
			stalled.Wait()
			held := int(memoryInUse()-before) / peers
			close(letGo)
			done.Wait()
			t.Logf("%d bytes sent, %d held", len(tt.wire), held)
			if held > tt.bound {
				t.Errorf("a peer that sent %d bytes holds %d, want at most %d", len(tt.wire), held, tt.bound)
			}
		})
	}
}

func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestReadHelloManyExtensions bounds the work for 16,000 extensions, in steps
// rather than in time: it is here for -timeout, and for the profile.
func TestReadHelloManyExtensions(t *testing.T) {
	var exts []byte
	for i := range 16_000 {
		exts = append(exts, ext(uint16(0x2000+i), nil)...)
	}
	c := helloCase{wire: frame(hello12(sni("origin.example"), exts), 16384), sni: "origin.example"}
	h, err := readHello(bytes.NewReader(c.wire), nil)
	c.check(t, h, err)
}

// goHello is what a crypto/tls client with this configuration sends first.
func goHello(tb testing.TB, change func(*tls.Config)) []byte {
	tb.Helper()
	config := &tls.Config{ServerName: "origin.example", NextProtos: []string{"h2", "http/1.1"}}
	if change != nil {
		change(config)
	}
	client, server := net.Pipe()
	defer server.Close()
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		tls.Client(client, config).HandshakeContext(tb.Context()) // it is cut on purpose
		client.Close()
	})
	var sent bytes.Buffer
	h, err := readHello(io.TeeReader(server, &sent), nil)
	server.Close()
	if err != nil {
		tb.Fatalf("%v: %x", err, sent.Bytes())
	}
	if !bytes.Equal(h.raw, sent.Bytes()) {
		tb.Fatal("raw is not what was sent")
	}
	return h.raw
}

// TestReadHelloGo reads what crypto/tls sends in many configurations.
func TestReadHelloGo(t *testing.T) {
	both := []string{"h2", "http/1.1"}
	only := func(v uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion = v, v }
	}
	tests := []struct {
		name   string
		change func(*tls.Config)
		want   helloCase
	}{
		{"default", nil, helloCase{sni: "origin.example", alpn: both, ver: "1.3"}},
		{"1.0", only(tls.VersionTLS10), helloCase{sni: "origin.example", alpn: both, ver: "1.0"}},
		{"1.1", only(tls.VersionTLS11), helloCase{sni: "origin.example", alpn: both, ver: "1.1"}},
		{"1.2", only(tls.VersionTLS12), helloCase{sni: "origin.example", alpn: both, ver: "1.2"}},
		{"1.3", only(tls.VersionTLS13), helloCase{sni: "origin.example", alpn: both, ver: "1.3"}},
		{"no SNI", func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }, helloCase{alpn: both, ver: "1.3"}},
		{"no ALPN", func(c *tls.Config) { c.NextProtos = nil }, helloCase{sni: "origin.example", ver: "1.3"}},
		{"100 ALPN", func(c *tls.Config) { c.NextProtos = manyProtocols(100) }, helloCase{sni: "origin.example", alpn: manyProtocols(100), ver: "1.3"}},
		{"17 KB of ALPN", func(c *tls.Config) { c.NextProtos = manyProtocols(1500) }, helloCase{sni: "origin.example", alpn: manyProtocols(helloMaxALPN), ver: "1.3"}},
		{"classical groups", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} }, helloCase{sni: "origin.example", alpn: both, ver: "1.3"}},
		{"ML-KEM alone", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768} }, helloCase{sni: "origin.example", alpn: both, ver: "1.3"}},
		{"upper case", func(c *tls.Config) { c.ServerName = "ORIGIN.example" }, helloCase{sni: "ORIGIN.example", alpn: both, ver: "1.3"}},
		{"trailing dot, which Go cuts off", func(c *tls.Config) { c.ServerName = "origin.example." }, helloCase{sni: "origin.example", alpn: both, ver: "1.3"}},
		{"ECH", func(c *tls.Config) { c.EncryptedClientHelloConfigList = echConfigs(t, "front.example") }, helloCase{sni: "front.example", alpn: both, ver: "1.3", ech: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.wire = goHello(t, tt.change)
			tt.want.checkPieces(t)
		})
	}
}

// echConfigs is an ECHConfigList (RFC 9849, section 4) with a fresh key.
func echConfigs(t *testing.T, public string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return u16([]byte{0xfe, 0x0d}, u16([]byte{7, 0, 0x20}, u16(key.PublicKey().Bytes()), u16([]byte{0, 1, 0, 1}), []byte{32}, u8([]byte(public)), u16()))
}

// TestReadHelloResumption reads hellos that carry a ticket.
func TestReadHelloResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			server := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MaxVersion: version}
			client := &tls.Config{ServerName: "origin.example", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			for _, resumed := range []bool{false, true} {
				near, far := tcpPair(t)
				var sent bytes.Buffer
				var done sync.WaitGroup
				done.Go(func() {
					defer far.Close()
					s := tls.Server(&teeConn{Conn: far, sent: &sent}, server)
					if _, err := s.Write([]byte("x")); err != nil { // the ticket goes before it
						t.Error(err)
					}
					s.CloseWrite()         // the client has what it needs
					io.Copy(io.Discard, s) // lest a reset overtakes the ticket
				})
				c := tls.Client(near, client)
				_, err := io.ReadAll(c)
				near.Close()
				done.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if c.ConnectionState().DidResume != resumed {
					t.Fatalf("resumed = %t", !resumed)
				}
				h, err := readHello(&sent, nil)
				want := helloCase{sni: "origin.example", ver: strings.TrimPrefix(tls.VersionName(version), "TLS ")}
				if version == tls.VersionTLS12 {
					want.ver = "1.3" // offered all the same
				}
				if err == nil {
					want.wire = h.raw
				}
				want.check(t, h, err)
			}
		})
	}
}

// tcpPair is a connection over loopback. (Both ends of a net.Pipe may come to
// write at once, and then both block.)
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return near, far
}

// teeConn keeps what is read.
type teeConn struct {
	net.Conn
	sent *bytes.Buffer
}

func (c *teeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.sent.Write(p[:n])
	return n, err
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	return *proxytest.Issue(t, &x509.Certificate{DNSNames: []string{"origin.example"}}, nil)
}

// needClient returns the path of a real client. A missing one is skipped,
// except in CI those that .ci/packages.txt lists, or that Debian always has.
func needClient(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	ci := os.Getenv("CI")
	switch {
	case err == nil:
		return path
	case ci != "" && ci != "false" && name != "java" && name != "node":
		t.Fatalf("%s is not installed, and in CI it must be: %v", name, err)
	}
	t.Skipf("NOT TESTED: %s is not installed", name)
	return ""
}

// runClient lets serve have the first connection that a command opens, and
// returns what the command printed. How it exits does not matter.
func runClient(t *testing.T, serve func(net.Conn), command func(addr string) []string) []byte {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	argv := command(ln.Addr().String())
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var exited sync.WaitGroup
	exited.Go(func() { cmd.Wait() }) // a client that is cut off fails
	defer exited.Wait()
	c, err := ln.Accept()
	if err != nil {
		t.Fatalf("%q did not connect: %v", argv, err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	serve(c)
	c.Close()
	ln.Close()
	exited.Wait()
	return out.Bytes()
}

// javaClient opens one TLS connection: address, port, name, versions, ALPN.
const javaClient = `import java.util.*;
import javax.net.ssl.*;
public class Client {
  public static void main(String[] a) throws Exception {
    SSLSocket s = (SSLSocket) SSLContext.getDefault().getSocketFactory().createSocket(a[0], Integer.parseInt(a[1]));
    SSLParameters p = s.getSSLParameters();
    p.setServerNames(List.of(new SNIHostName(a[2])));
    p.setProtocols(a[3].split(","));
    p.setApplicationProtocols(a[4].split(","));
    s.setSSLParameters(p);
    s.startHandshake();
  }
}
`

// TestReadHelloClients reads what the clients of this machine send. With
// -update-hellos their hellos go to testdata/hello.
func TestReadHelloClients(t *testing.T) {
	const name = "origin.example"
	java := filepath.Join(t.TempDir(), "Client.java")
	if err := os.WriteFile(java, []byte(javaClient), 0o600); err != nil {
		t.Fatal(err)
	}
	both := []string{"h2", "http/1.1"}
	openssl := func(args ...string) []string {
		return append([]string{"openssl", "s_client", "-connect", "HOST:PORT"}, args...)
	}
	curl := func(args ...string) []string {
		return append([]string{"curl", "-q", "-sk", "--noproxy", "*", "--resolve", name + ":PORT:HOST", "https://" + name + ":PORT/"}, args...)
	}
	node := func(options string) []string {
		return []string{"node", "-e", "require('tls').connect({host:'HOST',port:PORT,rejectUnauthorized:false," + options + "}).on('error',()=>{})"}
	}
	python := func(setup string) []string {
		return []string{"python3", "-c", "import socket,ssl\nc=ssl.create_default_context()\n" + setup + "\nc.wrap_socket(socket.create_connection(('HOST',PORT)),server_hostname='" + name + "')"}
	}
	tests := []struct {
		name    string
		command []string
		want    helloCase
	}{
		{"openssl", openssl("-servername", name), helloCase{sni: name, ver: "1.3"}},
		{"openssl-tls12", openssl("-servername", name, "-tls1_2"), helloCase{sni: name, ver: "1.2"}},
		{"openssl-tls13", openssl("-servername", name, "-tls1_3"), helloCase{sni: name, ver: "1.3"}},
		{"openssl-tls10", openssl("-servername", name, "-tls1", "-cipher", "ALL:@SECLEVEL=0"), helloCase{sni: name, ver: "1.0"}},
		{"openssl-groups", openssl("-servername", name, "-groups", "P-521:X25519"), helloCase{sni: name, ver: "1.3"}},
		{"openssl-alpn", openssl("-servername", name, "-alpn", "h2,http/1.1"), helloCase{sni: name, ver: "1.3", alpn: both}},
		{"openssl-status", openssl("-servername", name, "-status"), helloCase{sni: name, ver: "1.3"}},
		{"openssl-nosni", openssl("-noservername"), helloCase{ver: "1.3"}},
		{"openssl-split", openssl("-servername", name, "-split_send_frag", "512", "-max_send_frag", "512", "-alpn", strings.Join(manyProtocols(100), ",")), helloCase{sni: name, ver: "1.3", alpn: manyProtocols(100)}},
		{"curl-h2", curl(), helloCase{sni: name, ver: "1.3", alpn: both}},
		{"curl-h1", curl("--http1.1"), helloCase{sni: name, ver: "1.3", alpn: []string{"http/1.1"}}},
		{"curl-tls12", curl("--tls-max", "1.2"), helloCase{sni: name, ver: "1.2", alpn: both}},
		{"node", node("servername:'" + name + "'"), helloCase{sni: name, ver: "1.3"}},
		{"node-alpn", node("servername:'" + name + "',ALPNProtocols:['h2','http/1.1']"), helloCase{sni: name, ver: "1.3", alpn: both}},
		{"node-tls12", node("servername:'" + name + "',maxVersion:'TLSv1.2'"), helloCase{sni: name, ver: "1.2"}},
		{"python", python(""), helloCase{sni: name, ver: "1.3"}},
		{"python-alpn", python("c.set_alpn_protocols(['h2','http/1.1'])"), helloCase{sni: name, ver: "1.3", alpn: both}},
		{"python-tls12", python("c.maximum_version=ssl.TLSVersion.TLSv1_2"), helloCase{sni: name, ver: "1.2"}},
		{"wget", []string{"wget", "--no-proxy", "--tries=1", "-qO-", "https://localhost:PORT/"}, helloCase{sni: "localhost", ver: "1.3"}},
		{"git", []string{"git", "-c", "http.proxy=", "ls-remote", "https://localhost:PORT/x"}, helloCase{sni: "localhost", ver: "1.3", alpn: both}},
		{
			"chromium",
			[]string{
				"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
				"--user-data-dir=" + t.TempDir(), "--proxy-server=direct://", "--host-resolver-rules=MAP " + name + " HOST", "--dump-dom", "https://" + name + ":PORT/",
			},
			helloCase{sni: name, ver: "1.3", alpn: both, ech: true},
		},
		{"java", []string{"java", java, "HOST", "PORT", name, "TLSv1.3,TLSv1.2", "h2,http/1.1"}, helloCase{sni: name, ver: "1.3", alpn: both}},
		{"java-tls12", []string{"java", java, "HOST", "PORT", name, "TLSv1.2", "h2"}, helloCase{sni: name, ver: "1.2", alpn: []string{"h2"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := needClient(t, tt.command[0])
			var sent bytes.Buffer
			var h *hello
			var err error
			out := runClient(t, func(c net.Conn) { h, err = readHello(io.TeeReader(c, &sent), nil) }, func(addr string) []string {
				host, port, _ := net.SplitHostPort(addr)
				argv := []string{path}
				for _, arg := range tt.command[1:] {
					argv = append(argv, strings.NewReplacer("HOST", host, "PORT", port).Replace(arg))
				}
				return argv
			})
			tt.want.wire = sent.Bytes()
			if err == nil && !bytes.Equal(h.raw, sent.Bytes()) {
				t.Error("raw is not what was sent")
			}
			tt.want.checkPieces(t)
			if t.Failed() {
				t.Logf("sent: %x\nsaid: %s", sent.Bytes(), out)
			} else if *updateHellos {
				if err := os.WriteFile(filepath.Join("testdata", "hello", "client-"+tt.name+".bin"), sent.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestReadHelloCaptured reads the committed hellos of real clients, which this
// machine may not have.
func TestReadHelloCaptured(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "hello", "client-*.bin"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			wire, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, protocols, err := cryptoTLSHello(wire)
			if err != nil {
				t.Fatal(err)
			}
			h, err := readHello(bytes.NewReader(wire), nil)
			if err != nil {
				t.Fatal(err)
			}
			if h.rawName != name || !slices.Equal(h.alpn, protocols) || !bytes.Equal(h.raw, wire) {
				t.Errorf("%q %q; crypto/tls says %q %q", h.rawName, h.alpn, name, protocols)
			}
		})
	}
}

func BenchmarkReadHello(b *testing.B) {
	for name, wire := range map[string][]byte{
		"go":      goHello(b, nil),
		"records": frame(goHello(b, nil)[helloRecordHeader:], 200),
		"refused": frame(hello12(sni("origin.example"), sni("origin.example")), 16384),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			for b.Loop() {
				r.Reset(wire)
				if _, err := readHello(r, nil); (err != nil) != (name == "refused") {
					b.Fatal(err)
				}
			}
		})
	}
	message := goHello(b, nil)[helloRecordHeader:]
	b.Run("parse alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, refusal := parseHello(message); refusal != nil {
				b.Fatal(refusal)
			}
		}
	})
}
