package policy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"1B": 1, "500MB": 500e6, "50GiB": 50 << 30, "1024KiB": 1 << 20, "3PB": 3e15, "10kB": 10_000, "1023B": 1023,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
		if back, err := ParseSize(SizeText(want)); err != nil || back != want {
			t.Errorf("SizeText(%d) = %q, which is read as %d, %v", want, SizeText(want), back, err)
		}
	}
	for _, text := range []string{"", "B", "50", "0GiB", "-1GiB", "+1GiB", "01GiB", "1.5GiB", "50 GiB", "50gib", "50KB", "50GiBi", "9999999PiB", "9223372036854775807B", "99999999999999999999B", "5G"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, n)
		}
	}
}

// FuzzSize: what is read is written so that it is read as the same.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"50GiB", "1B", "500MB", "x", "18446744073709551616B", "9PiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 1 {
			t.Fatalf("%q is %d", s, n)
		}
		if back, err := ParseSize(SizeText(n)); err != nil || back != n {
			t.Fatalf("%q is %d, written %q, which is %d, %v", s, n, SizeText(n), back, err)
		}
	})
}

func TestPeriods(t *testing.T) {
	at := time.Date(2026, 3, 1, 5, 30, 0, 0, time.FixedZone("", 6*3600)) // Saturday 28 February 23:30 UTC
	for _, tt := range []struct {
		per        Period
		start, end string
	}{
		{PerHour, "2026-02-28T23:00:00Z", "2026-03-01T00:00:00Z"},
		{PerDay, "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"},
		{PerWeek, "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"},
		{PerMonth, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
	} {
		start, end := tt.per.Bounds(at)
		if start.Format(time.RFC3339) != tt.start || end.Format(time.RFC3339) != tt.end {
			t.Errorf("%s: %s to %s", tt.per, start, end)
		}
		for _, edge := range []time.Time{start, end.Add(-1)} {
			if s, e := tt.per.Bounds(edge); !s.Equal(start) || !e.Equal(end) {
				t.Errorf("%s at %s: %s to %s", tt.per, edge, s, e)
			}
		}
		if s, _ := tt.per.Bounds(end); !s.Equal(end) {
			t.Errorf("%s: the next one begins at %s, not %s", tt.per, s, end)
		}
	}
}

const budgeted = `version: 1
sources:
  - {name: payments, cidrs: [10.0.1.0/24], budget: {bytes_out: 1GiB, per: hour, action: deny}}
  - {name: everyone, cidrs: [10.0.0.0/8], budget: {bytes_out: 50GiB, per: month}}
rules:
  - {name: uploads, hosts: [up.example], budget: {bytes_out: 500MB, per: day, action: alert}}
  - {name: rest, hosts: ["*.example"]}
  - {name: platform, preset: aws/fargate-base, with: {region: us-east-1, account: "111122223333"}, budget: {bytes_out: 2TB, per: week}}
`

func budgetNames(all []*Budget) string {
	var out []string
	for _, b := range all {
		out = append(out, string(b.Of)+" "+b.Name+" "+b.String())
	}
	return strings.Join(out, "; ")
}

func TestBudgets(t *testing.T) {
	p, err := Load(Text{"p.yaml", []byte(budgeted)})
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Warnings(time.Now()); len(w) > 0 {
		t.Errorf("warnings: %v", w)
	}
	want := "rule uploads 500MB out per day, then alert; rule platform 2TB out per week, then alert; " +
		"source payments 1GiB out per hour, then deny; source everyone 50GiB out per month, then alert"
	if got := budgetNames(p.Budgets()); got != want {
		t.Errorf("budgets: %s", got)
	}
	ask := func(host, from string) Query {
		h, err := ParseHost(host)
		if err != nil {
			t.Fatal(err)
		}
		return Query{Source: Source{Addr: netip.MustParseAddr(from)}, Via: ViaTLS, Host: h, Port: 443, Protocol: ProtocolTLS}
	}
	for _, tt := range []struct{ host, from, want string }{
		{"up.example", "10.0.1.9", "rule uploads 500MB out per day, then alert; source payments 1GiB out per hour, then deny; source everyone 50GiB out per month, then alert"},
		{"up.example", "10.9.1.9", "rule uploads 500MB out per day, then alert; source everyone 50GiB out per month, then alert"},
		{"b.example", "192.0.2.1", ""},
		{"b.example", "10.9.1.9", "source everyone 50GiB out per month, then alert"},
		{"denied.test", "10.0.1.9", ""},
		{"logs.us-east-1.amazonaws.com", "192.0.2.1", "rule platform 2TB out per week, then alert"},
	} {
		d := p.Decide(ask(tt.host, tt.from))
		if got := budgetNames(slices.Collect(d.Budgets())); got != tt.want {
			t.Errorf("%s from %s: %s", tt.host, tt.from, got)
		}
	}
	q := ask("up.example", "10.0.1.9")
	if n := testing.AllocsPerRun(100, func() {
		d := p.Decide(q)
		for b := range d.Budgets() {
			if b == nil {
				t.Error("nil")
			}
		}
	}); n > 0 {
		t.Errorf("asking for budgets allocates %v times", n)
	}
	e := p.Explain(q)
	if text := e.String(); !strings.Contains(text, `the budget of the source "payments" (p.yaml:3:52) counts what is sent: 1GiB out per hour, then deny`) {
		t.Errorf("explained as\n%s", text)
	}
	data, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(data), `{"of":"rule","name":"uploads","at":"p.yaml:6:50","bytes_out":500000000,"per":"day","action":"alert"}`) {
		t.Errorf("%s, %v", data, err)
	}
}

// A rule with a budget is not idle because a broader one follows it.
func TestBudgetIsNotShadowed(t *testing.T) {
	const broad = "version: 1\nrules:\n  - {name: up, hosts: [up.example]%s}\n  - {name: all, hosts: [\"*.example\"]}\n"
	for budget, warnings := range map[string]int{"": 1, ", budget: {bytes_out: 1GB, per: day}": 0} {
		p, err := Load(Text{"p.yaml", []byte(strings.Replace(broad, "%s", budget, 1))})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Warnings(time.Now()); len(got) != warnings {
			t.Errorf("with %q: %v", budget, got)
		}
	}
}
