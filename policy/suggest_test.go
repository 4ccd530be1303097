package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// aDay is a day of the observations in tests.
func aDay(n int) time.Time { return time.Date(2026, 11, n, 8, 0, 0, 0, time.UTC) }

// seenBy makes an observation of a service and a target like those of
// [ParseTarget].
func seenBy(t testing.TB, service, target string) Seen {
	t.Helper()
	s := Seen{
		Verdict: Allow, Reason: ReasonNoRule, WouldDeny: true,
		Count: 20, BytesSent: 2048, BytesReceived: 1 << 20, First: aDay(1), Last: aDay(12), Tasks: 3,
	}
	q := &s.Query
	var err error
	if q.Via, q.Host, q.Port, q.Protocol, err = ParseTarget(target); err != nil {
		t.Fatal(err)
	}
	s.Host = q.Host.String()
	q.Source.Addr = netip.MustParseAddr("10.0.16.7")
	if service != "" {
		q.Source.Task = &Task{Cluster: "prod", Service: service, Family: service, Revision: 7}
	}
	return s
}

// inspectedBy makes an observation of a request to S3.
func inspectedBy(t testing.TB, service, operation, host, bucket, account string) Seen {
	t.Helper()
	s := seenBy(t, service, "https://"+host)
	ref, ok := ParseS3Host(s.Query.Host)
	if !ok {
		t.Fatalf("%s is not S3's", host)
	}
	ref.Bucket = bucket
	s.Query.S3 = &S3Call{Host: s.Query.Host, Ref: ref, Operation: operation, Signer: S3Signer{Scheme: S3SigV4, Account: account}}
	return s
}

// checkSuggestion holds a suggestion to its promises and returns its policy.
func checkSuggestion(t testing.TB, s *Suggestion) *Policy {
	t.Helper()
	document := s.Document()
	p, err := Load(Text{"suggested.yaml", document})
	if err != nil {
		t.Fatalf("the suggestion does not compile: %v\n%s", detail(err), document)
	}
	if w := p.Warnings(aDay(20)); len(w) > 0 {
		t.Fatalf("the suggestion has warnings: %v\n%s", w, document)
	}
	for i := range s.kept {
		if d := p.Decide(s.kept[i].query); d.Reason != ReasonRule {
			t.Errorf("%s to %s was kept, and is answered %s\n%s", s.kept[i].Caller(), s.kept[i].Site(), d.Reason, document)
		}
	}
	cases, err := LoadCases(Text{"cases.yaml", s.Cases("suggested.yaml")})
	if err != nil {
		t.Fatalf("the cases cannot be read: %v\n%s", detail(err), s.Cases("suggested.yaml"))
	}
	for _, r := range cases.Run(p) {
		if !r.OK() {
			t.Errorf("case %q: %s\n%s", r.Case.Name, r.Failure, document)
		}
	}
	for i, c := range document {
		if c != '\n' && (c < ' ' || c > '~') {
			t.Fatalf("byte %d of the document is %#x", i, c)
		}
	}
	return p
}

func TestSuggest(t *testing.T) {
	seen := []Seen{
		seenBy(t, "billing", "https://api.stripe.com"),
		seenBy(t, "billing", "https://111122223333.dkr.ecr.us-east-1.amazonaws.com"),
		seenBy(t, "billing", "https://api.ecr.us-east-1.amazonaws.com"),
		seenBy(t, "billing", "https://logs.us-east-1.amazonaws.com"),
		seenBy(t, "billing", "https://sts.us-east-1.amazonaws.com"),
		seenBy(t, "billing", "https://prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com"),
		seenBy(t, "billing", "https://acme-invoices.s3.us-east-1.amazonaws.com"),
		seenBy(t, "billing", "tcp://sftp.bank.example:22"),
		seenBy(t, "billing", "http://deb.debian.org"),
		inspectedBy(t, "reports", "GetObject", "s3.eu-west-1.amazonaws.com", "acme-data", "111122223333"),
		inspectedBy(t, "reports", "ListObjectsV2", "acme-data.s3.eu-west-1.amazonaws.com", "acme-data", "111122223333"),
	}
	for _, name := range []string{"api", "trace", "intake", "process", "metrics"} {
		seen = append(seen, seenBy(t, "billing", "https://"+name+".datadoghq.com"))
	}
	for _, name := range []string{"one", "two", "three", "four", "five", "six"} {
		seen = append(seen, seenBy(t, "reports", "https://"+name+".github.io"))
	}
	s := Suggest(seen, SuggestOptions{})
	t.Logf("%s", s.Document())
	checkSuggestion(t, &s)
}

// hostile is what a client can write where names are expected, and what AWS or
// an operator never would where names of theirs are.
func hostile() []string {
	return []string{
		"a\nrules:\n  - name: evil\n    hosts: [\"**\"]\n    allow_broad: true",
		"a\r\nversion: 1", "x # y", "# x", "a\": [\"b", "'", "\"", "\\", "a\\nb", "- x", "{a,b}", "*", "**", "*.com", "**.evil.example",
		"!!python/object", "&a", "*a", "a: b", "[x]", "|", ">", "%YAML", "---", "...", "\x00", "\x1b[2J", "\u202egnp", "\u2028", "\ufeff",
		"ａ.example", strings.Repeat("a", 5000), "a.example\n", "\ta", " a", "a ", "~", "null", "true", "1", "0x7f.1", "127.1", "[::1]", "::1", "10.0.0.1",
		"a..b", ".a", "a.", "-a.example", "xn--", "${region}", "(other)", "",
	}
}

func TestSuggestHostileText(t *testing.T) {
	var seen []Seen
	for _, text := range hostile() {
		for field := range 9 {
			s := seenBy(t, "web", "https://good.example")
			s.Count = 50
			s.Reason, s.WouldDeny = ReasonRule, false
			switch field {
			case 0: // as a listener would: a name that cannot be read is none
				s.Host = text
				s.Query.Host, _ = ParseHost(text)
			case 1:
				s.Query.Source.Task = &Task{Cluster: text, Service: "web"}
			case 2:
				s.Query.Source.Task = &Task{Cluster: "prod", Service: text}
			case 3:
				s.Query.Source.Task = &Task{Family: text}
			case 4:
				s.Query.Source.Task, s.Query.Source.Principal = nil, text
			case 5:
				s.Query.Source.Task, s.SourceName = nil, text
			case 6:
				s.Rule, s.Verdict, s.Reason = text, Deny, ReasonDenyRule
			case 7:
				s = inspectedBy(t, "web", "GetObject", "s3.us-east-1.amazonaws.com", text, "111122223333")
				s.Query.S3.Ref.Region = text
			case 8:
				s = inspectedBy(t, "web", text, "s3.us-east-1.amazonaws.com", "bucket-a", text)
				s.Query.S3.ACL, s.Query.S3.Source.Ref = text, S3Ref{Form: S3PathStyle, Bucket: text, Partition: text, Region: text}
			}
			seen = append(seen, s)
		}
	}
	s := Suggest(seen, SuggestOptions{})
	p := checkSuggestion(t, &s)
	readsBack(t, &s, p)
	for _, r := range s.Rules {
		for _, h := range r.Hosts {
			if hasWildcard(h.Pattern) {
				t.Errorf("a pattern out of nothing: %s", h.Pattern)
			}
		}
	}
	for line := range strings.Lines(string(s.Document())) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "  ") && !slices.Contains([]string{"\n", "version: 1\n", "mode: enforce\n", "unknown_source: deny\n", "sources:\n", "rules:\n"}, line) {
			t.Errorf("a line that Suggest does not write: %q", line)
		}
	}
}

// readsBack checks that the document holds the suggestion's rules and no other.
func readsBack(t testing.TB, s *Suggestion, p *Policy) {
	t.Helper()
	var want, got []string
	for _, r := range s.Rules {
		if r.Preset != "" {
			continue
		}
		for _, h := range r.Hosts {
			want = append(want, r.Name+" "+h.Pattern)
		}
		if r.S3 != nil {
			for _, b := range slices.Concat(r.S3.Buckets, r.S3.AccessPoints) {
				want = append(want, r.Name+" "+b)
			}
		}
	}
	for _, r := range p.Rules() {
		if strings.Contains(r.Name, "/") {
			continue // a preset's
		}
		for _, x := range slices.Concat(r.match.hosts, r.match.buckets, r.match.accessPoints) {
			got = append(got, r.Name+" "+x)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("the document says\n%q\nthe suggestion\n%q", got, want)
	}
}

// evidence makes random observations out of a few hundred names of all kinds.
func evidence(t testing.TB, r *rand.Rand) []Seen {
	domains := []string{
		"datadoghq.com", "acme-corp.com", "svc.acme-corp.com", "docker.io", "example.co.uk", "github.io", "cloudfront.net", "s3.amazonaws.com",
		"s3.us-east-1.amazonaws.com", "s3.eu-west-1.amazonaws.com", "us-east-1.amazonaws.com", "execute-api.us-east-1.amazonaws.com", "sentry.io",
		"snowflakecomputing.com", "blob.core.windows.net", "herokuapp.com", "com", "co.uk", "kawasaki.jp", "city.kawasaki.jp", "corp", "internal", "debian.org",
		"111122223333.s3-control.us-east-1.amazonaws.com", "s3-accesspoint.us-east-1.amazonaws.com", "mrap.accesspoint.s3-global.amazonaws.com",
		"dkr.ecr.us-east-1.amazonaws.com", "dkr.ecr.eu-west-1.amazonaws.com", "ecr.us-east-1.amazonaws.com", "s3.dualstack.us-east-1.amazonaws.com",
	}
	labels := []string{
		"api", "logs", "intake", "trace", "cdn", "auth", "www", "app", "metrics", "node1", "node2", "acme", "globex", "hooli", "prod", "eu", "security",
		"deb", "registry-1", "production", "111122223333", "999988887777", "d111111abcdef8", "6aa30f8b08e16409b46e0173d6de2f56", "a1-b2-c3", "x-s3alias",
		"point-111122223333", "sts", "logs", "bucket--use1-az4--x-s3", "prod-us-east-1-starport-layer-bucket", "a.b", "_dns",
	}
	whole := []string{"registry-1.docker.io", "auth.docker.io", "production.cloudflare.docker.com", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "sts.amazonaws.com", "192.0.2.7", "[2001:db8::1]"}
	schemes := []string{"https://%s", "https://%s", "https://%s", "https://%s:8443", "http://%s", "tcp://%s:22", "tcp://%s:443", "%s:9999"}
	services := []string{"web", "web", "billing", "", "reports"}
	var all []Seen
	for range 20 + r.IntN(300) {
		name := labels[r.IntN(len(labels))] + "." + domains[r.IntN(len(domains))]
		if r.IntN(10) == 0 {
			name = whole[r.IntN(len(whole))]
		}
		if r.IntN(20) == 0 && !strings.ContainsAny(name, "[") && name != "192.0.2.7" {
			name = labels[r.IntN(len(labels))] + "." + name
		}
		s := seenBy(t, services[r.IntN(len(services))], fmt.Sprintf(schemes[r.IntN(len(schemes))], name))
		s.Count = int64(r.IntN(6))
		s.Failed = min(s.Count, int64(r.IntN(3)))
		s.First = aDay(1).Add(time.Duration(r.IntN(1000)) * time.Hour)
		s.Last = s.First.Add(time.Duration(r.IntN(1000)) * time.Hour)
		switch r.IntN(12) {
		case 0:
			s.Verdict, s.WouldDeny = Deny, false
		case 1:
			s.Reason = []Reason{ReasonDenyRule, ReasonAddressProhibited, ReasonNotTLS, ReasonSelf}[r.IntN(4)]
		case 2:
			s.Peer = netip.MustParseAddr("10.1.2.3")
		case 3:
			s.Query.Source.Unidentified, s.Query.Source.Task = true, nil
		case 4:
			s.Query.Source.Task, s.Query.Source.Principal = nil, "robot"
		}
		if ref, ok := ParseS3Host(s.Query.Host); ok && r.IntN(2) == 0 && s.Query.Protocol == ProtocolTLS {
			call := &S3Call{Host: s.Query.Host, Ref: ref, Operation: S3Operations()[r.IntN(len(S3Operations()))], Signer: S3Signer{Scheme: S3SigV4, Account: "111122223333"}}
			if r.IntN(3) == 0 {
				call.Signer = S3Signer{Scheme: S3Anonymous}
			}
			if r.IntN(4) == 0 {
				call.Source.Ref = S3Ref{Form: S3PathStyle, Bucket: "copied-from", Partition: ref.Partition}
				call.Operation = "CopyObject"
			}
			s.Query.S3 = call
		}
		all = append(all, s)
	}
	return all
}

// Whatever was seen: what is kept is allowed, what strangers can register is
// not, and the order in which it was seen does not matter.
func TestSuggestProperties(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 6))
		seen := evidence(t, r)
		s := Suggest(seen, SuggestOptions{})
		p := checkSuggestion(t, &s)
		readsBack(t, &s, p)
		for _, rule := range s.Rules {
			for _, h := range rule.Hosts {
				if !hasWildcard(h.Pattern) {
					continue
				}
				if suffix := strangersBelow(h.Pattern); suffix != "" || tenanted(strings.TrimPrefix(h.Pattern, "*.")) != "" {
					t.Errorf("seed %d: %s spans names of strangers (%s)", seed, h.Pattern, suffix)
				}
			}
		}
		for i := range seen {
			name := seen[i].Query.Host.name
			_, parent, found := strings.Cut(name, ".")
			if !found || (strangersBelow("*."+parent) == "" && tenanted(parent) == "") {
				continue
			}
			q := seen[i].asked()
			var err error
			if q.Host, err = ParseHost("stranger-of-" + fmt.Sprint(seed) + "." + parent); err != nil {
				t.Fatal(err)
			}
			q.S3 = nil
			if d := p.Decide(q); d.Reason == ReasonRule {
				t.Errorf("seed %d: %s is let in by %s", seed, q.Host, d.RuleName())
			}
		}
		shuffled := slices.Clone(seen)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again := Suggest(shuffled, SuggestOptions{})
		if !bytes.Equal(s.Document(), again.Document()) {
			t.Fatalf("seed %d: another order makes another document:\n%s\n%s", seed, s.Document(), again.Document())
		}
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, s.Document())
			return
		}
	}
}
