package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSuggestLeavesOut(t *testing.T) {
	for name, one := range map[string]struct {
		target string
		change func(*Seen)
		want   LeftOutWhy
	}{
		"a habit":                    {"https://a.example", func(*Seen) {}, ""},
		"once":                       {"https://a.example", func(s *Seen) { s.Count = 1 }, LeftOutOnce},
		"once, and it failed before": {"https://a.example", func(s *Seen) { s.Failed = 19 }, LeftOutOnce},
		"never arrived":              {"https://a.example", func(s *Seen) { s.Failed, s.BytesReceived = 20, 0 }, LeftOutFailed},
		"an address":                 {"https://192.0.2.1", func(*Seen) {}, LeftOutAddress},
		"no name":                    {"https://a.example", func(s *Seen) { s.Host, s.Query.Host = "", Host{} }, LeftOutNoName},
		"denied":                     {"https://a.example", func(s *Seen) { s.Verdict, s.WouldDeny = Deny, false }, LeftOutDenied},
		"a deny rule would":          {"https://a.example", func(s *Seen) { s.Reason = ReasonDenyRule }, LeftOutDenied},
		"rebound":                    {"https://a.example", func(s *Seen) { s.Verdict, s.WouldDeny, s.Reason = Deny, false, ReasonAddressProhibited }, LeftOutGuard},
		"private, somewhere":         {"https://a.example", func(s *Seen) { s.Reason = ReasonAddressProhibited }, LeftOutPrivate},
		"private, and known where":   {"https://a.example", func(s *Seen) { s.Reason, s.Peer = ReasonAddressProhibited, netip.MustParseAddr("10.9.8.7") }, ""},
		"not what it said":           {"https://a.example", func(s *Seen) { s.Reason = ReasonNameMismatch }, LeftOutUnclear},
		"no TLS on 443":              {"tcp://a.example:443", func(*Seen) {}, LeftOutNotTLS},
		"S3 by path":                 {"https://s3.us-east-1.amazonaws.com", func(*Seen) {}, LeftOutOpaque},
		"no caller that can be":      {"https://a.example", func(s *Seen) { s.Query.Source.Task = &Task{Cluster: "prod", Service: "a b"} }, LeftOutCaller},
		"a machine-drawn name, seldom": {
			"https://" + strings.Repeat("6aa30f8b08e16409b46e0173d6de2f56.", 3) + "a.example",
			func(s *Seen) { s.Count = 3 }, LeftOutSuspicious,
		},
		"a machine-drawn name, always": {"https://6aa30f8b08e16409b46e0173d6de2f56.a.example", func(*Seen) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := seenBy(t, "web", one.target)
			one.change(&s)
			got := Suggest([]Seen{s}, SuggestOptions{})
			checkSuggestion(t, &got)
			switch {
			case one.want == "" && (len(got.LeftOut) > 0 || len(got.kept) != 1):
				t.Errorf("left out: %+v", got.LeftOut)
			case one.want != "" && (len(got.LeftOut) != 1 || got.LeftOut[0].Why != one.want):
				t.Errorf("left out: %+v, want %s", got.LeftOut, one.want)
			}
		})
	}
}

// Data that leaves in names is told, and neither a rule nor a wildcard lets
// more of it through.
func TestSuggestTunnel(t *testing.T) {
	var seen []Seen
	for i := range 40 {
		s := seenBy(t, "web", fmt.Sprintf("https://%08x%08x%02d.t.evil-cdn.com", i*2654435761, i*40503, i))
		s.Count = 2
		seen = append(seen, s)
	}
	for _, name := range []string{"api", "www", "cdn", "static", "auth", "logs"} {
		seen = append(seen, seenBy(t, "web", "https://"+name+".evil-cdn.com"))
	}
	got := Suggest(seen, SuggestOptions{})
	p := checkSuggestion(t, &got)
	odd := 0
	for _, l := range got.LeftOut {
		if l.Why == LeftOutSuspicious {
			odd++
		}
	}
	if odd != 40 {
		t.Errorf("%d names are suspicious, want 40", odd)
	}
	for _, name := range []string{"0123456789abcdef00.t.evil-cdn.com", "other.evil-cdn.com"} {
		if d := p.Decide(seenBy(t, "web", "https://"+name).Query); d.Reason == ReasonRule {
			t.Errorf("%s is let in", name)
		}
	}
}

func TestSuggestKeepsSourcesAndRanges(t *testing.T) {
	inForce := mustLoad(t, `
version: 1
mode: report
unknown_source: allow
sources:
  - {name: lan, cidrs: [10.0.16.0/20, 10.1.0.0/16]}
  - {name: tagged, ecs: {cluster: "prod-*", family: [a, "b*"], revision: ["7-9", 12], tags: {team: [x, "y z"]}}, principals: [p], vpc_endpoints: [vpce-0a1b2c3d4e5f60718]}
rules:
  - {name: inner, hosts: [inner.corp.example], resolves_to: [10.20.0.0/16]}
`)
	lan := seenBy(t, "", "https://inner.corp.example")
	lan.SourceName, lan.Rule, lan.Reason, lan.WouldDeny = "lan", "inner", ReasonRule, false
	tagged := seenBy(t, "", "https://other.example")
	tagged.SourceName = "tagged"
	tagged.Query.Source = Source{Addr: tagged.Query.Source.Addr, Principal: "p", VPCEndpoint: "vpce-0a1b2c3d4e5f60718", Task: &Task{Cluster: "prod-1", Family: "", Tags: map[string]string{"team": "y z"}}}
	got := Suggest([]Seen{lan, tagged}, SuggestOptions{Policy: inForce})
	text := string(got.Document())
	for _, want := range []string{
		`cidrs: ["10.0.16.0/20", "10.1.0.0/16"]`, `resolves_to: ["10.20.0.0/16"]`,
		`ecs: {cluster: ["prod-*"], family: ["a", "b*"], revision: ["7-9", "12"], tags: {"team": ["x", "y z"]}}`,
		`principals: ["p"]`, `vpc_endpoints: ["vpce-0a1b2c3d4e5f60718"]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if _, err := Load(Text{"suggested.yaml", []byte(text)}); err != nil {
		t.Errorf("%s\n%s", detail(err), text)
	}
}

func TestCoverage(t *testing.T) {
	old, young := seenBy(t, "old", "https://a.example"), seenBy(t, "young", "https://b.example")
	young.First, young.Last = aDay(11), aDay(12)
	c := Suggest([]Seen{old, young}, SuggestOptions{Now: aDay(12).Add(time.Hour)}).Coverage
	if c.Callers != 2 || c.WholeWeek != 1 || c.Sites != 2 || c.NewSites != 0 || c.Days != 11 || c.Complete() {
		t.Errorf("coverage %+v", c)
	}
	if !slices.Equal(c.Young, []string{"prod/young (1.0 d)"}) {
		t.Errorf("young: %q", c.Young)
	}
	young.First = aDay(12)
	if c = Suggest([]Seen{old, young}, SuggestOptions{}).Coverage; c.NewSites != 1 || !slices.Equal(c.NewNames, []string{"b.example"}) {
		t.Errorf("coverage %+v", c)
	}
	if c = Suggest([]Seen{old}, SuggestOptions{}).Coverage; !c.Complete() {
		t.Errorf("coverage %+v is not complete", c)
	}
	if c = Suggest(nil, SuggestOptions{}).Coverage; c.Complete() {
		t.Error("nothing is complete")
	}
}

// A case can be written for every operation that is about a bucket.
func TestExampleTargets(t *testing.T) {
	for _, operation := range S3Operations() {
		h, _ := ParseHost("s3.us-east-1.amazonaws.com")
		ref, _ := ParseS3Host(h)
		ref.Bucket = "bucket"
		c := &S3Call{Host: h, Ref: ref, Operation: operation}
		switch operation {
		case "CopyObject", "UploadPartCopy", "RenameObject":
			c.Source.Ref = S3Ref{Form: S3PathStyle, Bucket: "bucket", Partition: "aws"}
		}
		if _, _, ok := exampleTarget(c); ok == ofNoBucket(operation) {
			t.Errorf("%s: an example is there: %t", operation, ok)
		}
	}
	for _, account := range []string{"000000000000", "000000000001", "111122223333", "999999999999"} {
		if got := AccessKeyAccount(exampleKeyID(account)); got != account {
			t.Errorf("the key of %s is read as %q", account, got)
		}
	}
}

func TestRegistrable(t *testing.T) {
	for name, want := range map[string]string{
		"example.com": "example.com", "a.b.example.com": "example.com", "com": "", "co.uk": "", "a.co.uk": "a.co.uk",
		"github.io": "", "x.github.io": "x.github.io", "a.x.github.io": "x.github.io", "localhost": "", "x.internal": "x.internal",
		"foo.kawasaki.jp": "", "a.foo.kawasaki.jp": "a.foo.kawasaki.jp", "a.city.kawasaki.jp": "city.kawasaki.jp", "x.unknowntld": "x.unknowntld",
	} {
		if got := registrable(name); got != want {
			t.Errorf("registrable(%q) = %q, want %q", name, got, want)
		}
	}
}
