package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClean(t *testing.T) {
	tests := []struct {
		name, in string
		limit    int
		want     string
	}{
		{"empty", "", 10, ""},
		{"a name", "api.example.com", 20, "api.example.com"},
		{"exactly the limit", "abcde", 5, "abcde"},
		{"cut", "abcdefgh", 6, "abc..."},
		{"quotes stay", `"a"`, 10, `"a"`},
		{"backslash doubles", `a\u202eb`, 20, `a\\u202eb`},
		{"line feed", "a\r\nb", 20, `a\r\nb`},
		{"NUL, ESC, DEL", "\x00\x1b\x7f", 20, `\x00\x1b\x7f`},
		{"bidi", "a\u202egpj.exe", 20, `a\u202egpj.exe`},
		{"line separators", "\u2028\u0085", 20, `\u2028\u0085`},
		{"beyond the BMP", "\U0001f600", 20, `\U0001f600`},
		{"not UTF-8", "a\xffb\xc3", 20, `a\xffb\xc3`},
		{"the replacement character itself", "\ufffd", 20, `\ufffd`},
		{"never cut within an escape", "aaaa\u202eaaaa", 10, "aaaa..."},
		{"an escape that just fits", "aaaa\u202e", 10, `aaaa\u202e`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := clean(tt.in, tt.limit); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSentenceKeepsQuotations(t *testing.T) {
	text := fmt.Sprintf("host %q\n", "\u202e\\")
	if got, want := sentence(text, 64), `host "\u202e\\"\n`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := sentence(text, 15), `host "\u202e...`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCleanDoesNotAllocateForNames(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { clean("registry-1.docker.io", limitName) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The oracle is strconv: what clean did not cut reads back as it was.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"a.example", "a\\b\"c", "\r\n{\"level\":\"info\"}", "\u202e\u2066", "\xff\xfe", "\U0001f600\x7f", strings.Repeat("\u00e9", 200)} {
		f.Add(s, 64)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 8 + (limit%1024+1024)%1024
		got := clean(s, limit)
		if len(got) > limit || !printable(got) {
			t.Fatalf("clean(%q, %d) = %q", s, limit, got)
		}
		back, err := strconv.Unquote(`"` + strings.ReplaceAll(got, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("clean(%q, %d) = %q does not read back: %v", s, limit, got, err)
		}
		if back == s {
			return
		}
		head, cut := strings.CutSuffix(back, cutMark)
		if !cut || !strings.HasPrefix(s, head) || len(clean(s, 10*len(s)+8)) <= limit {
			t.Fatalf("clean(%q, %d) = %q reads back as %q", s, limit, got, back)
		}
	})
}

// The oracle is encoding/json: the escaped text means what the text meant.
func FuzzASCIIJSON(f *testing.F) {
	f.Add("h\u00e9\u202e\U0001f600\x7f\x00", "k")
	f.Add("\xff\ufffd", "\u2028")
	f.Fuzz(func(t *testing.T, value, key string) {
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "\t")
		if err := enc.Encode(map[string]string{key: value}); err != nil {
			t.Skip()
		}
		got := appendASCIIJSON(nil, text.Bytes())
		if !printable(got) {
			t.Fatalf("%q is not printable", got)
		}
		var a, b map[string]string
		if err := json.Unmarshal(text.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &b); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, b); d != "" {
			t.Fatal(d)
		}
	})
}

func TestLegible(t *testing.T) {
	tests := []struct {
		name, in string
		limit    int
		want     string
	}{
		{"plain", "platform-team", 20, "platform-team"},
		{"any script", "équipe 数据", 20, "équipe 数据"},
		{"a backslash is nothing special", `a\b`, 20, `a\b`},
		{"not printable", "a\n\u202e", 20, `a\n\u202e`},
		{"not UTF-8", "a\xff", 20, `a\xff`},
		{"cut between runes", "ééééé", 8, "éé..."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := legible(tt.in, tt.limit); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
