package policy

import (
	"strings"
	"testing"
)

func TestOverlayRule(t *testing.T) {
	for _, one := range []struct {
		rule OverlayRule
		asks map[string]Reason
	}{
		{OverlayRule{Site: "api.stripe.com"}, map[string]Reason{
			"https://api.stripe.com": ReasonRule, "https://api.stripe.com:8443": ReasonNoRule, "http://api.stripe.com": ReasonNoRule, "https://x.api.stripe.com": ReasonNoRule,
		}},
		{OverlayRule{Site: "API.Stripe.com."}, map[string]Reason{"https://api.stripe.com": ReasonRule}},
		{OverlayRule{Site: "tcp://sftp.bank.example:22", Service: "prod/web"}, map[string]Reason{
			"tcp://sftp.bank.example:22 service prod/web": ReasonRule, "tcp://sftp.bank.example:22 service prod/other": ReasonNoRule, "tcp://sftp.bank.example:22": ReasonNoRule,
		}},
		{OverlayRule{Site: "http://deb.debian.org", Service: "web"}, map[string]Reason{"http://deb.debian.org service dev/web": ReasonRule}},
		{OverlayRule{Site: "*.datadoghq.com"}, map[string]Reason{"https://a.datadoghq.com": ReasonRule}},
		{OverlayRule{Site: "s3://acme-data"}, map[string]Reason{"https://acme-data.s3.eu-west-1.amazonaws.com": ReasonRule}},
		{OverlayRule{Site: "acme-data.s3.eu-west-1.amazonaws.com"}, map[string]Reason{
			"https://acme-data.s3.eu-west-1.amazonaws.com": ReasonRule, "https://acme-data.s3.us-east-1.amazonaws.com": ReasonS3Bucket,
		}},
		{OverlayRule{Site: "8.8.8.8"}, map[string]Reason{"https://8.8.8.8": ReasonRule, "https://8.8.4.4": ReasonIPLiteral}},
	} {
		one.rule.ID, one.rule.Verdict, one.rule.Author, one.rule.At = "k2x9", Allow, "alice", aDay(3)
		text, err := one.rule.Document()
		if err != nil {
			t.Errorf("%s: %v", one.rule.Site, err)
			continue
		}
		p, err := Load(text)
		if err != nil {
			t.Errorf("%s: %s\n%s", one.rule.Site, detail(err), text.Data)
			continue
		}
		for line, want := range one.asks {
			if d := p.Decide(ask(t, line)); d.Reason != want {
				t.Errorf("%s: %s is answered %s, want %s\n%s", one.rule.Site, line, d.Reason, want, text.Data)
			}
		}
	}
}

func TestOverlayRuleDenies(t *testing.T) {
	o := OverlayRule{ID: "k2x9", Site: "api.stripe.com", Author: "bob", At: aDay(3), Until: aDay(4), Reason: "leak\n  - name: x"}
	text, err := o.Document()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text.Data), `# denied by bob at 2026-11-03T08:00:00Z, until 2026-11-04T08:00:00Z: "leak\n  - name: x"`) {
		t.Errorf("%s", text.Data)
	}
	p := mustLoad(t, string(text.Data))
	for _, line := range []string{"https://api.stripe.com", "http://api.stripe.com", "tcp://api.stripe.com:22"} {
		if d := p.Decide(ask(t, line)); d.Reason != ReasonDenyRule {
			t.Errorf("%s is answered %s", line, d.Reason)
		}
	}
}

func TestOverlayRuleRefuses(t *testing.T) {
	for site, want := range map[string]string{
		"": "", "a b": "", "*.com": "strangers", "**": "strangers", "*": "", "10.0.0.1": "cannot allow", "169.254.170.2": "169.254.170.2",
		"s3://": "", "s3://a*": "strangers", "ftp://x": "unknown scheme", "x\nmode: report": "", "*.x\": [": "", "https://u@x.example": "user name",
	} {
		o := OverlayRule{ID: "k2x9", Verdict: Allow, Site: site, Author: "eve", At: aDay(3)}
		text, err := o.Document()
		if err == nil {
			_, err = Load(text)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", site, err, want)
		}
	}
	for _, service := range []string{"a/b/c", "a b", "x/", "\"}", strings.Repeat("a", 300)} {
		o := OverlayRule{ID: "k2x9", Site: "a.example", Service: service}
		if _, err := o.Document(); err == nil {
			t.Errorf("the service %q is taken", service)
		}
	}
}
