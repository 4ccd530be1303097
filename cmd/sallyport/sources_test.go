package main

import (
	"cmp"
	"strings"
	"testing"
)

func TestParseSource(t *testing.T) {
	tests := []struct {
		in   string
		want source
		text string // as it is written; "" for the same
	}{
		{in: "policy.yaml", want: source{scheme: "file", name: "policy.yaml"}, text: "file:policy.yaml"},
		{in: "./s3:x", want: source{scheme: "file", name: "./s3:x"}, text: "file:./s3:x"},
		{in: "file:a:b", want: source{scheme: "file", name: "a:b"}},
		{in: "env:TEAM_POLICY", want: source{scheme: "env", name: "TEAM_POLICY"}},
		{in: "s3://acme-config/egress/policy.yaml", want: source{scheme: "s3", name: "acme-config/egress/policy.yaml"}},
		{in: "s3://acme.config/a%20b", want: source{scheme: "s3", name: "acme.config/a%20b"}},
		{in: "s3://acme/p?region=eu-west-1", want: source{scheme: "s3", name: "acme/p", region: "eu-west-1"}},
		{in: "s3://acme/p?region=us-gov-west-1&owner=111122223333", want: source{scheme: "s3", name: "acme/p", region: "us-gov-west-1", owner: "111122223333"}, text: "s3://acme/p?owner=111122223333&region=us-gov-west-1"},
		{in: "ssm:/egress/policy", want: source{scheme: "ssm", name: "/egress/policy"}},
		{in: "ssm:policy?region=ap-southeast-2", want: source{scheme: "ssm", name: "policy", region: "ap-southeast-2"}},
	}
	for _, tt := range tests {
		got, err := parseSource(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", tt.in, got, err)
		}
		if want := cmp.Or(tt.text, tt.in); canonicalSource(tt.in) != want {
			t.Errorf("%s is written %s", tt.in, canonicalSource(tt.in))
		}
	}
}

func TestParseSourceRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "is empty",
		"file:":                        "names nothing",
		"env:A-B":                      "names nothing",
		"https://u:secret@h/p":         "unknown scheme",
		"s3:bucket/key":                "write s3://BUCKET/KEY",
		"s3://bucket":                  "write s3://BUCKET/KEY",
		"s3://bucket/":                 "write s3://BUCKET/KEY",
		"s3://bucket/folder/":          "write s3://BUCKET/KEY",
		"s3:///key":                    "not the name of a bucket",
		"s3://Bucket/key":              "not the name of a bucket",
		"s3://u:secret@bucket/key":     "not the name of a bucket",
		"s3://bucket/a\nb":             "not acceptable",
		"s3://acme/p?regio=eu-west-1":  "what follows ? is not understood",
		"s3://acme/p?region=evil.test": "region is not understood",
		"s3://acme/p?region=eu-west-1&region=eu-west-2": "region is not understood",
		"s3://acme/p?owner=me":                          "owner is not understood",
		"s3://acme/p?%zz":                               "cannot be read",
		"ssm:":                                          "write ssm:/NAME",
		"ssm://egress":                                  "write ssm:/NAME",
		"ssm:/a/":                                       "write ssm:/NAME",
		"ssm:/a:3":                                      "write ssm:/NAME",
		"ssm:/a?owner=111122223333":                     "owner is not understood",
	} {
		src, err := parseSource(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", in, src, err, want)
		}
	}
}

// TestParseSourceKeepsSecrets: what is refused is quoted without what may be
// one.
func TestParseSourceKeepsSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"ssm:/a?token=hunter2":                "ssm:/a?***",
		"ssm:/a?hunter2":                      "ssm:/a?***",
		"s3://acme/p?region=hunter2":          "s3://acme/p?***",
		"s3://acme/p?%zz=hunter2":             "s3://acme/p?***",
		"s3://me:hunter2@acme/p":              "s3://***@acme/p",
		"s3:me:hunter2@acme/p":                "s3:***@acme/p",
		"https://me:hunter2@h/p":              "https://***@h/p",
		"https://me:hun/ter2@h/p":             "https://***@h/p",
		"https://me:hun@ter2@h/p":             "https://***@h/p",
		"https://me:hunt?er2@h/p":             "https:***",
		"https://h/p?X-Amz-Signature=hunter2": "https://h/p?***",
		"env:me:hunter2@h":                    "env:***@h",
		"ssm:me:hunter2@h":                    "ssm:***@h",
	} {
		_, err := parseSource(in)
		if err == nil || !strings.Contains(err.Error(), `"`+want+`"`) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: %v, want %s in it", in, err, want)
		}
		_, said := policySource().check(in)
		if strings.Contains(said, "hunter2") {
			t.Errorf("%s: the hint says %s", in, said)
		}
	}
}

// FuzzParseSource: what is accepted is accepted again as it is written, and
// means the same.
func FuzzParseSource(f *testing.F) {
	for _, seed := range []string{
		"policy.yaml", "file:a", "env:A", "s3://bucket/key?region=eu-west-1&owner=111122223333", "ssm:/a/b?region=eu-west-1", "s3://bucket/?", "ssm:/a?", "x:y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := parseSource(s)
		if err != nil {
			return
		}
		again, err := parseSource(src.String())
		if err != nil || again != src {
			t.Errorf("%q: %+v is written %q: %+v, %v", s, src, src, again, err)
		}
		if src.name == "" {
			t.Errorf("%q names nothing: %+v", s, src)
		}
	})
}
