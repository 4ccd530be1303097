package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestZeroPoliciesDeny(t *testing.T) {
	var none *Policy
	var zero Policy
	var live Live
	fresh := NewLive()
	for _, tt := range []struct {
		target string
		reason Reason
	}{
		{"https://a.example", ReasonNoRule},
		{"https://203.0.113.1", ReasonIPLiteral},
		{"https://b.s3.amazonaws.com", ReasonNoRule},
		{"(none)", ReasonNoName},
	} {
		q := ask(t, tt.target)
		for name, decide := range map[string]func(Query) Decision{"nil": none.Decide, "zero": zero.Decide, "Live": live.Decide, "NewLive": fresh.Decide} {
			d := decide(q)
			if d.Verdict != Deny || d.Mode != Enforce || d.Rule != nil || d.WouldDeny() {
				t.Errorf("%s policy, %s: %+v", name, tt.target, d)
			}
			if d.Reason != tt.reason && d.S3.Form == "" && tt.reason != ReasonNoRule {
				t.Errorf("%s policy, %s: reason %s, want %s", name, tt.target, d.Reason, tt.reason)
			}
		}
	}
	if none.Version() != "" || live.Version() != "" || none.Rules() != nil || none.Warnings(time.Now()) != nil || none.Notes() != nil {
		t.Error("a policy that is none has something to say")
	}
	e := none.Explain(ask(t, "https://a.example"))
	if e.Decision.Verdict != Deny || !strings.Contains(e.String(), "there is no rule") {
		t.Errorf("Explain of no policy: %s", e)
	}
}

func TestLiveSwap(t *testing.T) {
	allow := mustLoad(t, "version: 1\nrules:\n  - {name: r, hosts: [a.example]}\n")
	live := NewLive()
	q := ask(t, "https://a.example")
	if old := live.Swap(allow); old != nil {
		t.Errorf("Swap = %v, want nil", old)
	}
	if d := live.Decide(q); d.Verdict != Allow || live.Current() != allow || live.Version() != allow.Version() {
		t.Errorf("after the swap: %+v", d)
	}
	if old := live.Swap(nil); old != allow {
		t.Errorf("Swap = %v, want the policy before", old)
	}
	if d := live.Decide(q); d.Verdict != Deny {
		t.Errorf("after the second swap: %+v", d)
	}
}

func TestVersion(t *testing.T) {
	a := Text{"a.yaml", []byte("version: 1\n")}
	b := Text{"b.yaml", []byte("version: 1\n")}
	versions := map[string]bool{}
	for _, texts := range [][]Text{{}, {a}, {b}, {a, b}, {b, a}, {{"a.yaml", []byte("version: 1 \n")}}} {
		p, err := Load(texts...)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Version()) != 12 || versions[p.Version()] {
			t.Errorf("version %q of %v is not new", p.Version(), texts)
		}
		versions[p.Version()] = true
	}
	p, _ := Load(a)
	again, _ := Load(a)
	if p.Version() != again.Version() {
		t.Error("the same text has two versions")
	}
}

// TestWords holds the words that records and documents share.
func TestWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Deny.String(), "deny"},
		{Allow.String(), "allow"},
		{Enforce.String(), "enforce"},
		{Report.String(), "report"},
		{ViaConnect.String(), "connect"},
		{ViaHTTP.String(), "http"},
		{ViaTLS.String(), "tls"},
		{ViaDNS.String(), "dns"},
		{ViaUnknown.String(), "unknown"},
		{ProtocolTLS.String(), "tls"},
		{ProtocolHTTP.String(), "http"},
		{ProtocolTCP.String(), "tcp"},
		{ProtocolUnknown.String(), "unknown"},
		{Pos{}.String(), ""},
		{Pos{File: "a"}.String(), "a"},
		{Pos{"a", 1, 2}.String(), "a:1:2"},
		{Decision{}.RuleName(), ""},
		{Warning{Pos: Pos{"a", 1, 2}, Message: "m"}.String(), "a:1:2: m"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestMappedSource(t *testing.T) {
	p := mustLoad(t, `version: 1
sources: [{name: s, cidrs: [10.0.0.0/8]}]
rules: [{name: r, hosts: [a.example], sources: [s]}]
`)
	q := ask(t, "https://a.example")
	q.Source.Addr = netip.MustParseAddr("::ffff:10.1.2.3")
	if d := p.Decide(q); d.Verdict != Allow || d.Source != "s" {
		t.Errorf("got %+v", d)
	}
}

func TestRemedies(t *testing.T) {
	p := mustLoad(t, `version: 1
sources: [{name: s, cidrs: [10.0.0.0/8]}]
rules:
  - {name: a.example, hosts: [taken.example]}
  - {name: no, action: deny, hosts: [no.example]}
`)
	for _, tt := range []struct {
		target string
		remedy bool
	}{
		{"https://a.example", true},
		{"https://a.example:8443 from 10.1.1.1", true},
		{"http://a.example", true},
		{"http://a.example:8080", true},
		{"tcp://a.example:22", true},
		{"tcp://a.example:443", true},
		{"a.example:443", true},
		{"a.example:80", true},
		{"https://under_score.example", true},
		{"https://" + strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example", true},
		{"https://1.1.1.1", true},
		{"tcp://[2606:4700::1111]:853", true},
		{"https://10.1.1.1", false},
		{"https://169.254.169.254", false},
		{"https://[::1]", false},
		{"https://no.example", false},
		{"https://b.s3.us-east-1.amazonaws.com", false},
		{"https://bucket.s3.us-east-1.amazonaws.com", true},
		{"https://bucket.s3.amazonaws.com", true},
		{"https://bucket.s3.cn-north-1.amazonaws.com.cn", true},
		{"http://bucket.s3-website-us-east-1.amazonaws.com", true},
		{"https://x-s3alias.s3.us-east-1.amazonaws.com", true},
		{"https://fin-111122223333.s3-accesspoint.eu-west-1.amazonaws.com", true},
		{"https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com", true},
		{"https://s3.us-east-1.amazonaws.com", false},
		{"(none)", false},
	} {
		t.Run(tt.target, func(t *testing.T) {
			q := ask(t, tt.target)
			e := p.Explain(q)
			if e.Decision.Verdict != Deny {
				t.Fatalf("%+v", e.Decision)
			}
			if (e.Remedy != "") != tt.remedy {
				t.Fatalf("remedy %q", e.Remedy)
			}
			if !tt.remedy {
				return
			}
			rules := "version: 1\nsources: [{name: s, cidrs: [10.0.0.0/8]}]\nrules:\n- {name: a.example, hosts: [taken.example]}\n"
			with := mustLoad(t, rules+e.Remedy)
			d := with.Decide(q)
			if d.Verdict != Allow {
				t.Errorf("the remedy does not help: %s\n%s", answer(d), e.Remedy)
			}
			if a, literal := q.Host.Addr(); literal {
				if reason, ok := d.CheckAddress(a); !ok {
					t.Errorf("and the guard refuses it: %s", reason)
				}
			}
		})
	}
}

func TestExplainJSON(t *testing.T) {
	p := mustLoad(t, `version: 1
mode: report
sources: [{name: s, cidrs: [10.0.0.0/8]}]
rules: [{name: r, owner: me, s3: {buckets: [abc]}, sources: [s]}]
`)
	for _, tt := range []struct{ target, want string }{
		{
			"https://abc.s3.us-east-1.amazonaws.com from 10.1.1.1 at 2026-11-01T00:00:00Z",
			`{"host":"abc.s3.us-east-1.amazonaws.com","port":443,"via":"tls","client":"10.1.1.1","at":"2026-11-01T00:00:00Z",` +
				`"verdict":"allow","reason":"rule","mode":"report","would_deny":false,"protocol":"tls","source":"s","sources":["s"],"rule":"r","rule_at":"policy.yaml:4:9","owner":"me",` +
				`"enforcement":"sni","s3":{"form":"virtual_hosted","bucket":"abc","region":"us-east-1","partition":"aws"}}`,
		},
		{
			"1.1.1.1:80",
			`{"host":"1.1.1.1","port":80,"via":"connect","verdict":"allow","reason":"ip_literal","mode":"report","would_deny":true,"protocol":"tcp","enforcement":"connect"}`,
		},
	} {
		data, err := json.Marshal(p.Explain(ask(t, tt.target)))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if steps, ok := got["steps"].([]any); !ok || len(steps) == 0 {
			t.Errorf("no steps in %s", data)
		}
		head, _, _ := strings.Cut(string(data), `,"steps":`)
		if head+"}" != tt.want {
			t.Errorf("got  %s\nwant %s", head+"}", tt.want)
		}
	}
}

func TestExplainIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nrules:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "  - {name: r%d, hosts: [a.example], ports: [%d]}\n", i, 1000+i)
	}
	e := mustLoad(t, b.String()).Explain(ask(t, "https://a.example"))
	if len(e.Steps) > explained+5 || !strings.Contains(e.String(), "and 80 more rules") {
		t.Errorf("%d steps:\n%s", len(e.Steps), e)
	}
}

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"https://A.example./x?y#z", "tls a.example 443 tls"},
		{"https://a.example:8443", "tls a.example 8443 tls"},
		{"HTTP://a.example", "http a.example 80 http"},
		{"http://[2001:DB8::1]:8080/", "http 2001:db8::1 8080 http"},
		{"tcp://a.example:22", "connect a.example 22 tcp"},
		{"a.example:443", "connect a.example 443 unknown"},
		{"[2001:db8::1]:443", "connect 2001:db8::1 443 unknown"},
		{"[2001:db8::1]", "tls 2001:db8::1 443 tls"},
		{"2001:db8::1", "tls 2001:db8::1 443 tls"},
		{"a.example", "tls a.example 443 tls"},
		{"under_score.example", "tls under_score.example 443 tls"},
		{"", "error"},
		{":", "error"},
		{":443", "error"},
		{"a.example:", "error"},
		{"a.example:0", "error"},
		{"a.example:65536", "error"},
		{"a.example:https", "error"},
		{"a.example:-1", "error"},
		{"tcp://a.example", "error"},
		{"ftp://a.example", "error"},
		{"https://", "error"},
		{"https://u@a.example", "error"},
		{"https://a.example:x", "error"},
		{"https://a b", "error"},
		{"[[example.net]]:1337", "error"},
		{"[example.net]:1337", "connect example.net 1337 unknown"},
		{"*.example.com", "error"},
		{"a.example/path", "error"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			via, h, port, protocol, err := ParseTarget(tt.in)
			got := fmt.Sprintf("%s %s %d %s", via, h, port, protocol)
			if err != nil {
				got = "error"
				if !strings.Contains(err.Error(), "target") || via != ViaUnknown || !h.IsZero() {
					t.Errorf("err = %v, host %v", err, h)
				}
			}
			if got != tt.want {
				t.Errorf("ParseTarget(%q) = %s (%v), want %s", tt.in, got, err, tt.want)
			}
		})
	}
}
