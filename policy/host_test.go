package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func ExampleParseHost() {
	for _, s := range []string{"API.Example.COM.", "[2001:DB8::7]", "::ffff:192.0.2.1", "0x7f.1"} {
		h, err := ParseHost(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(h)
	}
	// Output:
	// api.example.com
	// 2001:db8::7
	// 192.0.2.1
	// host "0x7f.1" ends in a number and is not an IPv4 address in dotted-decimal form
}

var (
	longLabel = strings.Repeat("a", 63)
	longName  = strings.Repeat(longLabel+".", 3) + strings.Repeat("b", 61) // 253 bytes
)

func TestParseHost(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"canonical", "example.com", "example.com"},
		{"upper case", "Example.COM", "example.com"},
		{"trailing dot", "example.com.", "example.com"},
		{"single label", "localhost", "localhost"},
		{"single letter", "x", "x"},
		{"underscore", "_dmarc.my_bucket.example", "_dmarc.my_bucket.example"},
		{"inner hyphens", "r3---sn-4g5e6nsz.googlevideo.com", "r3---sn-4g5e6nsz.googlevideo.com"},
		{"hyphen ends a label", "foo-.example.com", "foo-.example.com"},
		{"hyphen begins a later label", "a.-foo.example.com", "a.-foo.example.com"},
		{"A-label", "XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"A-label that is no punycode", "xn--0.example", "xn--0.example"},
		{"A-label in the root", "example.xn--p1ai", "example.xn--p1ai"},
		{"numeric inner labels", "1.2.3.4.example", "1.2.3.4.example"},
		{"last label begins with 0x", "a.0xg", "a.0xg"},
		{"last label of digits and a letter", "1.2.3.4a", "1.2.3.4a"},
		{"longest label", longLabel + ".example", longLabel + ".example"},
		{"longest name", longName, longName},
		{"longest name with a dot", longName + ".", longName},
		{"IPv4", "192.0.2.1", "192.0.2.1"},
		{"IPv4 zero", "0.0.0.0", "0.0.0.0"},
		{"IPv6", "2001:db8::1", "2001:db8::1"},
		{"IPv6 in brackets", "[2001:DB8:0:0::1]", "2001:db8::1"},
		{"IPv6 unspecified", "::", "::"},
		{"IPv4-mapped", "::ffff:10.0.0.1", "10.0.0.1"},
		{"IPv4-mapped in hexadecimal, brackets", "[::FFFF:a9fe:a9fe]", "169.254.169.254"},
		{"IPv4-compatible stays", "::10.0.0.1", "::a00:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHost(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if h.String() != tt.want {
				t.Errorf("ParseHost(%q) = %q, want %q", tt.in, h, tt.want)
			}
			_, err = netip.ParseAddr(tt.want)
			if _, isAddr := h.Addr(); isAddr != (err == nil) {
				t.Errorf("ParseHost(%q) is an address: %v", tt.in, isAddr)
			}
		})
	}
}

func TestParseHostRefuses(t *testing.T) {
	tests := []struct{ name, in, problem string }{
		{"empty", "", "is empty"},
		{"root", ".", "empty label"},
		{"two dots at the end", "example.com..", "empty label"},
		{"leading dot", ".example.com", "empty label"},
		{"empty label", "a..b", "empty label"},
		{"long label", longLabel + "a.example", "label longer than 63"},
		{"long last label", "a." + longLabel + "a", "label longer than 63"},
		{"long name", longName + "b", "longer than 253"},
		{"long name with a dot", longName + "b.", "longer than 253"},
		{"endless", strings.Repeat("a.", 10000), "longer than 253"},
		{"leading hyphen", "-rf.example", "begins with a hyphen"},
		{"full-width letters", "ｅvil.example", `write that`},
		{"full-width letters, hint", "ｅvil.example", `"evil.example"`},
		{"ideographic full stop", "evil。example", `"evil.example"`},
		{"circled digits", "①②⑦.0.0.1", `"127.0.0.1"`},
		{"soft hyphen", "ev\u00adil.example", `"evil.example"`},
		{"umlaut", "bücher.example", `"xn--bcher-kva.example"`},
		{"Kelvin sign", "\u212aube.example", "not ASCII"},
		{"not UTF-8", "a\xff.example", "not ASCII; write internationalised names as A-labels"},
		{"NUL", "allowed\x00.example", "NUL"},
		{"space", "a b", "space"},
		{"leading space", " example.com", "space"},
		{"newline", "example.com\n", "control character"},
		{"CRLF", "a\r\nHost: b", "holds ':'"}, // a colon makes an address of it
		{"DEL", "a\x7f", "control character"},
		{"wildcard", "*.example.com", "patterns"},
		{"path", "example.com/x", "path"},
		{"scheme", "https://example.com", "holds ':'"},
		{"user", "allowed@evil.example", "user information"},
		{"percent", "ex%61mple.com", `'%'`},
		{"backslash", `a\b`, `'\\'`},
		{"comma", "a,b", `','`},
		{"port", "example.com:443", "port does not belong"},
		{"port alone", ":443", "port does not belong"},
		{"IPv4 and port", "192.0.2.1:443", "port does not belong"},
		{"IPv6 and port", "[2001:db8::1]:443", "brackets"},
		{"IPv4 with a dot", "192.0.2.1.", "ends in a number"},
		{"IPv4 short", "127.1", "ends in a number"},
		{"IPv4 decimal", "2130706433", "ends in a number"},
		{"IPv4 hexadecimal", "0x7f000001", "ends in a number"},
		{"IPv4 hexadecimal, upper case", "0X7F.0.0.1", "ends in a number"},
		{"IPv4 hexadecimal last, upper case", "127.0.0.0X1", "ends in a number"},
		{"IPv4 hexadecimal last", "127.0.0.0x1", "ends in a number"},
		{"IPv4 hexadecimal empty", "127.0.0.0x", "ends in a number"},
		{"IPv4 octal", "0177.0.0.1", "ends in a number"},
		{"IPv4 leading zero", "127.0.0.01", "ends in a number"},
		{"IPv4 too large", "256.0.0.1", "ends in a number"},
		{"IPv4 five parts", "1.2.3.4.5", "ends in a number"},
		{"numeric last label", "example.123", "ends in a number"},
		{"numeric last label and a dot", "example.123.", "ends in a number"},
		{"hexadecimal last label", "example.0xabc", "ends in a number"},
		{"zone", "fe80::1%eth0", "zone"},
		{"zone in brackets", "[fe80::1%25eth0]", "zone"},
		{"brackets around IPv4", "[192.0.2.1]", "brackets"},
		{"brackets around a name", "[example.com]", "brackets"},
		{"brackets around nothing", "[]", "brackets"},
		{"bracket open", "[::1", "brackets"},
		{"brackets twice", "[[::1]]", "not an IPv6"},
		{"bracket inside", "a[::1]", "not an IPv6"},
		{"future literal", "[v1.x:y]", "not an IPv6"},
		{"IPv6 too long", "1:2:3:4:5:6:7:8:9", "not an IPv6"},
		{"IPv6 with a dot", "::1.", "not an IPv6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHost(tt.in)
			if err == nil {
				t.Fatalf("ParseHost(%q) = %q, want an error", tt.in, h)
			}
			if !h.IsZero() {
				t.Errorf("ParseHost(%q) = %q beside its error", tt.in, h)
			}
			if !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("ParseHost(%q): %v\nwant it to say %q", tt.in, err, tt.problem)
			}
			if len(err.Error()) > 4*maxQuoted+1000 {
				t.Errorf("ParseHost of %d bytes: an error of %d bytes", len(tt.in), len(err.Error()))
			}
		})
	}
}

func TestParseSNI(t *testing.T) {
	if h, err := ParseSNI("Example.com"); err != nil || h.String() != "example.com" {
		t.Errorf("ParseSNI = %q, %v", h, err)
	}
	for _, s := range []string{"", "example.com.", "192.0.2.1", "2001:db8::1", "[::1]", "a..b", "a\x00b"} {
		if h, err := ParseSNI(s); err == nil || !h.IsZero() {
			t.Errorf("ParseSNI(%q) = %q, %v, want an error", s, h, err)
		}
	}
}

func TestParseHostAllocates(t *testing.T) {
	for _, s := range []string{"example.com", "a.b.c.d.example.com.", "192.0.2.1", "2001:db8::1", "[::1]"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseHost(s) }); n != 0 {
			t.Errorf("ParseHost(%q) allocates %v times", s, n)
		}
	}
}

func BenchmarkParseHost(b *testing.B) {
	for b.Loop() {
		_, _ = ParseHost("acme-prod-assets.s3.us-east-1.amazonaws.com")
	}
}

// hostGrammar is the second opinion of FuzzParseHost: what ParseHost's comment
// says, as expressions.
var (
	hostGrammar = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_-]{1,63})*\.?$`)
	hostNumeric = regexp.MustCompile(`(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$`)
)

func hostOracle(s string) (string, bool) {
	inner := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") && strings.Contains(s, ":") {
		inner = s[1 : len(s)-1]
	}
	if a, err := netip.ParseAddr(inner); err == nil {
		return a.Unmap().String(), a.Zone() == ""
	}
	name := strings.TrimSuffix(s, ".")
	return strings.ToLower(name), hostGrammar.MatchString(s) && !hostNumeric.MatchString(s) && len(name) <= 253
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{
		"example.com", "EXAMPLE.com.", "localhost", "a..b", "-a", "a-.b", "xn--0", "1.2.3.4", "1.2.3.4.", "0x7f.1", "017.0.0.1",
		"::1", "[::1]", "[1.2.3.4]", "::ffff:1.2.3.4", "fe80::1%eth0", "ｅvil。example", "a\x00b", "*.x", "a_b.c", longName, longName + ".",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		want, ok := hostOracle(s)
		if (err == nil) != ok {
			t.Fatalf("ParseHost(%q) = %q, %v; the oracle says %v", s, h, err, ok)
		}
		if err != nil {
			if !h.IsZero() {
				t.Fatalf("ParseHost(%q) = %q beside %v", s, h, err)
			}
			return
		}
		if h.String() != want {
			t.Fatalf("ParseHost(%q) = %q, want %q", s, h, want)
		}
		if again, err := ParseHost(h.String()); err != nil || again != h {
			t.Fatalf("ParseHost(%q) = %q, read again %q, %v", s, h, again, err)
		}
		if sni, err := ParseSNI(s); err == nil && sni != h {
			t.Fatalf("ParseSNI(%q) = %q, ParseHost %q", s, sni, h)
		}
	})
}
