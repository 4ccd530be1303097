package policy

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestReplay(t *testing.T) {
	candidate := mustLoad(t, `
version: 1
sources: [{name: web, ecs: {cluster: prod, service: web}}]
rules:
  - {name: good, hosts: [good.example, "*.wide.example"], sources: [web]}
  - {name: raw, hosts: [raw.example], ports: [22], protocol: tcp}
  - {name: inner, hosts: [inner.example], resolves_to: [10.0.0.0/8]}
  - {name: no, action: deny, hosts: [bad.wide.example]}
`)
	with := func(service, target string, change func(*Seen)) Seen {
		s := seenBy(t, service, target)
		change(&s)
		return s
	}
	enforced := func(s *Seen) { s.Reason, s.WouldDeny = ReasonRule, false }
	denied := func(s *Seen) { s.Verdict, s.WouldDeny = Deny, false }
	seen := []Seen{
		with("web", "https://good.example", enforced),
		with("web", "https://gone.example", enforced),
		with("web", "https://bad.wide.example", enforced),
		with("web", "https://new.wide.example", denied),
		with("web", "https://still.example", denied),
		with("web", "https://barred.wide.example", func(s *Seen) { s.Verdict, s.Reason, s.WouldDeny = Deny, ReasonDenyRule, false }),
		with("billing", "https://good.example", enforced),
		with("web", "tcp://raw.example:22", func(*Seen) {}),
		with("web", "https://good.example", func(s *Seen) { s.Reason = ReasonNameMismatch }),
		with("web", "https://good.example", func(s *Seen) { s.Reason, s.Peer = ReasonAddressProhibited, netip.MustParseAddr("10.0.0.1") }),
		with("web", "https://inner.example", func(s *Seen) { s.Reason, s.Peer = ReasonAddressProhibited, netip.MustParseAddr("10.0.0.1") }),
		with("web", "https://inner.example", func(s *Seen) { s.Reason = ReasonAddressProhibited }),
		with("web", "https://good.example", func(s *Seen) { s.Verdict, s.Reason, s.WouldDeny = Deny, ReasonNotTLS, false }),
		with("web", "https://good.example", func(s *Seen) { s.Host, s.Query.Host = "", Host{} }),
		with("web", "https://asked.example", func(s *Seen) { s.Query.Via = ViaDNS }),
	}
	r := Replay(candidate, nil, seen)
	var got []string
	for _, c := range r.NewlyDenied {
		got = append(got, strings.Join([]string{"-", c.Caller, c.Site, string(c.After.Reason), c.After.Rule}, " "))
	}
	for _, c := range r.NewlyAllowed {
		got = append(got, strings.Join([]string{"+", c.Caller, c.Site, string(c.After.Reason), c.After.Rule}, " "))
	}
	want := []string{
		"- prod/billing good.example no_rule ",
		"- prod/web bad.wide.example deny_rule no",
		"- prod/web gone.example no_rule ",
		"- prod/web good.example address_prohibited good",
		"- prod/web good.example name_mismatch ",
		"+ prod/web barred.wide.example rule good",
		"+ prod/web new.wide.example rule good",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r.Unjudged != 40 || r.Attempts != 12*20 {
		t.Errorf("%d attempts judged and %d not, want 240 and 40", r.Attempts, r.Unjudged)
	}
	if r.Report {
		t.Error("the candidate is not in report mode")
	}

	same := Replay(candidate, candidate, seen)
	if len(same.NewlyDenied)+len(same.NewlyAllowed) > 0 {
		t.Errorf("a policy differs from itself: %+v", same)
	}
	none := Replay(nil, candidate, seen)
	if len(none.NewlyAllowed) > 0 || len(none.NewlyDenied) == 0 {
		t.Errorf("no policy allows: %+v", none)
	}
}

// What is suggested denies nothing of what it kept, and whatever it denies is
// told as left out.
func TestReplayOfSuggestion(t *testing.T) {
	var seen []Seen
	for _, target := range []string{"https://api.stripe.com", "https://once.example", "http://deb.debian.org", "https://192.0.2.1"} {
		seen = append(seen, seenBy(t, "web", target))
	}
	seen[1].Count = 1
	s := Suggest(seen, SuggestOptions{})
	p := checkSuggestion(t, &s)
	denied := Replay(p, nil, seen).NewlyDenied
	if len(denied) != 2 || len(s.LeftOut) != 2 {
		t.Fatalf("newly denied %+v, left out %+v", denied, s.LeftOut)
	}
	for i := range denied {
		if !strings.Contains(string(s.Document()), denied[i].Site) {
			t.Errorf("%s is denied and not told", denied[i].Site)
		}
	}
}

func TestDiff(t *testing.T) {
	a := mustLoad(t, `
version: 1
mode: report
sources: [{name: web, cidrs: [10.0.0.0/16]}]
rules:
  - {name: same, hosts: [b.example, a.example]}
  - {name: gone, hosts: [gone.example]}
  - {name: changed, hosts: [one.example, two.example], sources: [web]}
`)
	b := mustLoad(t, `
version: 1
sources: [{name: web, cidrs: [10.0.0.0/16, 10.1.0.0/16]}]
rules:
  - {name: new, s3: {buckets: [bucket], regions: [us-east-1]}}
  - {name: changed, hosts: [two.example, three.example], ports: [8443], sources: [web]}
  - {name: same, hosts: [a.example, b.example]}
`)
	var got strings.Builder
	for _, d := range Diff(a, b) {
		got.WriteString(d.String())
	}
	const want = `~ policy
  - mode: report
  + mode: enforce
~ source "web"
  - cidrs: ["10.0.0.0/16"]
  + cidrs: ["10.0.0.0/16", "10.1.0.0/16"]
~ rule "changed"
  - host: one.example
  - ports: 443
  + host: three.example
  + ports: 8443
- rule "gone"
  - action: allow
  - host: gone.example
  - protocol: tls
  - ports: 443
+ rule "new"
  + action: allow
  + bucket: bucket
  + region: us-east-1
  + protocol: tls
  + ports: 443
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	if d := Diff(a, a); d != nil {
		t.Errorf("a policy differs from itself: %v", d)
	}
	if d := Diff(nil, nil); d != nil {
		t.Errorf("nothing differs from nothing: %v", d)
	}
}

// What reached an address that nobody remembers is counted where the answer
// could depend on it, and nowhere else.
func TestReplayUnaddressed(t *testing.T) {
	p := mustLoad(t, "version: 1\nrules: [{name: good, hosts: [good.example]}, {name: ip, cidrs: [192.0.2.0/24]}]\n")
	nothing := mustLoad(t, "version: 1\nrules: [{name: other, hosts: [other.example]}]\n")
	with := func(target string, change func(*Seen)) Seen {
		s := seenBy(t, "web", target)
		s.Reason, s.WouldDeny, s.PeerUnknown = ReasonRule, false, true
		change(&s)
		return s
	}
	same := func(*Seen) {}
	for name, c := range map[string]struct {
		seen                []Seen
		candidate, baseline *Policy
		want                int
	}{
		"let through":           {[]Seen{with("https://good.example", same)}, p, nil, 1},
		"known":                 {[]Seen{with("https://good.example", func(s *Seen) { s.PeerUnknown = false })}, p, nil, 0},
		"denied by name":        {[]Seen{with("https://bad.example", same)}, p, nil, 0},
		"the baseline's answer": {[]Seen{with("https://good.example", same)}, nothing, p, 1},
		"denied by both":        {[]Seen{with("https://good.example", same)}, nothing, nothing, 0},
		"an address itself":     {[]Seen{with("https://192.0.2.1", same)}, p, nil, 0},
		"denied then":           {[]Seen{with("https://good.example", func(s *Seen) { s.Verdict, s.Reason = Deny, ReasonNoRule })}, p, nil, 0},
		"never reached":         {[]Seen{with("https://good.example", func(s *Seen) { s.Failed, s.BytesReceived = s.Count, 0 })}, p, nil, 0},
		"known to one of two":   {[]Seen{with("https://good.example", same), with("https://good.example", func(s *Seen) { s.PeerUnknown = false })}, p, nil, 0},
		"unknown to both":       {[]Seen{with("https://good.example", same), with("https://good.example", same)}, p, nil, 1},
	} {
		if r := Replay(c.candidate, c.baseline, c.seen); r.Unaddressed != c.want {
			t.Errorf("%s: %d, want %d: %+v", name, r.Unaddressed, c.want, r)
		}
	}
}
