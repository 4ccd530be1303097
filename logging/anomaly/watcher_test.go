package anomaly

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// desk is a watcher over a past that a test writes.
type desk struct {
	t    *testing.T
	now  time.Time
	past *past
	*Watcher
	told []flow.Anomaly
}

func newDesk(t *testing.T, with ...func(*Config)) *desk {
	t.Helper()
	d := &desk{t: t, now: time.Date(2026, 9, 7, 9, 0, 0, 0, time.UTC)}
	d.past = newPast(func() time.Time { return d.now })
	d.again(with...)
	return d
}

// again puts another watcher in the place of the one before.
func (d *desk) again(with ...func(*Config)) {
	c := Config{
		Clock: func() time.Time { return d.now }, Tell: func(a flow.Anomaly) { d.told = append(d.told, a) },
		Explicit: func(rule string, _ policy.Host) bool { return rule == "explicit" },
	}
	for _, f := range with {
		f(&c)
	}
	d.Watcher = New(c, d.past)
}

func (d *desk) visit(v seen) {
	if v.starts == nil {
		v.starts = []time.Time{d.now}
	}
	d.past.add(v)
}

func (d *desk) look() {
	d.t.Helper()
	if err := d.Look(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// weeks lets a caller do the same each hour.
func (d *desk) weeks(n float64, v seen) {
	for range int(n * 168) {
		d.now = d.now.Add(time.Hour)
		v.starts = []time.Time{d.now}
		d.past.add(v)
	}
}

// took returns what was told since the last call, as "kind subject severity".
func (d *desk) took() string {
	var all []string
	for _, a := range d.told {
		all = append(all, fmt.Sprintf("%s %s %s", a.Kind, a.Subject, a.Severity))
	}
	d.told = nil
	return strings.Join(all, "; ")
}

func TestFirstContact(t *testing.T) {
	tests := []struct {
		name string
		v    seen
		want string
	}{
		{"listed", seen{host: "new.example", rule: "explicit"}, "first_contact new.example low"},
		{"by a wildcard", seen{host: "new.example", rule: "any"}, "first_contact new.example medium"},
		{"beside a known name", seen{host: "b.known.example", rule: "any"}, "first_contact b.known.example low"},
		{"report mode", seen{host: "new.example", wouldDeny: true}, "first_contact new.example medium"},
		{"report mode, an address", seen{host: "203.0.113.9", wouldDeny: true}, "first_contact 203.0.113.9 high"},
		{"denied", seen{host: "new.example", deny: true}, "first_contact new.example medium"},
		{"another port", seen{host: "a.known.example", port: 2222, rule: "any"}, "first_contact a.known.example low"},
		{"a bucket", seen{host: "b.s3.us-east-1.amazonaws.com", bucket: "b", rule: "any"}, "first_contact b medium"},
		{"known", seen{host: "a.known.example", rule: "another"}, ""},
		{"no name", seen{host: "", deny: true}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.look()
			d.weeks(1.2, seen{caller: "web", host: "a.known.example", rule: "explicit"})
			d.look()
			tt.v.caller = "web"
			d.visit(tt.v)
			d.look()
			if got := d.took(); got != tt.want {
				t.Errorf("told %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLearning(t *testing.T) {
	d := newDesk(t)
	d.look()
	for i := range 50 { // a first day
		d.visit(seen{caller: "web", host: fmt.Sprintf("h%d.first%d.example", i, i), rule: "any"})
	}
	d.look()
	if got := d.took(); got != "" {
		t.Errorf("on day one: %s", got)
	}
	// There now and then is not known for a week.
	d.visit(seen{caller: "cron", host: "a.example"})
	d.weeks(1.2, seen{caller: "web", host: "h0.first0.example"})
	d.visit(seen{caller: "cron", host: "b.other.example"})
	d.look()
	if got := d.took(); got != "" {
		t.Errorf("a caller that was there on two days: %s", got)
	}
	for i := range 40 {
		d.visit(seen{caller: "web", host: fmt.Sprintf("h%d.second%d.example", i, i), rule: "any"})
	}
	d.look()
	got := strings.Split(d.took(), "; ")
	if len(got) != manyContacts+1 || got[manyContacts] != "first_contact (many) medium" {
		t.Errorf("a flood is %d findings: %q", len(got), got)
	}
}

// A restart tells nothing again, and misses nothing that came just before it.
func TestRestart(t *testing.T) {
	d := newDesk(t)
	d.look()
	d.weeks(1.5, seen{caller: "web", host: "a.known.example"})
	d.look()
	d.visit(seen{caller: "web", host: "one.example", rule: "any"})
	d.look()
	if got := d.took(); got != "first_contact one.example medium" {
		t.Fatalf("told %q", got)
	}
	d.now = d.now.Add(time.Minute)
	d.visit(seen{caller: "web", host: "two.example", rule: "any"})
	d.now = d.now.Add(2 * time.Minute)
	d.again()
	d.look()
	if got := d.took(); got != "first_contact two.example medium" {
		t.Errorf("after a restart: %q", got)
	}
	d.now = d.now.Add(time.Minute)
	d.look()
	if got := d.took(); got != "" {
		t.Errorf("and then: %q", got)
	}
}

// Of several watchers on one store exactly one tells, of the first time and of
// each return after a quiet day; what is benign is never told again.
func TestToldOnce(t *testing.T) {
	d := newDesk(t)
	others := make([]*Watcher, 4)
	for i := range others {
		others[i] = New(d.cfg, d.past)
	}
	found := func() flow.Anomaly {
		return flow.Anomaly{Kind: flow.AnomalyBeacon, Caller: "web", Subject: "c2.example", Severity: flow.High, First: d.now, Last: d.now}
	}
	round := func() {
		for _, w := range others {
			if err := w.raise(t.Context(), found(), noSite()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 20 {
		round()
		d.now = d.now.Add(30 * time.Minute)
	}
	if len(d.told) != 1 || d.told[0].ID == "" || d.told[0].Count != 1 {
		t.Fatalf("told %+v", d.told)
	}
	d.now = d.now.Add(25 * time.Hour)
	round()
	if len(d.told) != 2 || d.told[1].ID != d.told[0].ID || d.told[1].Count == 1 {
		t.Fatalf("when it came back: %+v", d.told)
	}
	d.past.found[identity{flow.AnomalyBeacon, "web", "c2.example"}].Benign = true
	d.now = d.now.Add(48 * time.Hour)
	round()
	if len(d.told) != 2 {
		t.Errorf("told, though it is benign: %+v", d.told[2:])
	}
}

func TestBytesOut(t *testing.T) {
	for name, tt := range map[string]struct {
		weeks    float64
		sent     int64
		want     string
		evidence string
	}{
		"in the fourth week":   {3.5, 2 << 30, "bytes_out  high", "hour_of_week"},
		"in the second week":   {1.5, 2 << 30, "bytes_out  high", "hour_of_day"},
		"little":               {3.5, 60 << 20, "", ""},
		"somewhat more":        {3.5, 40 << 20, "", ""},
		"in the first week":    {.5, 2 << 30, "", ""},
		"a good deal more":     {3.5, 400 << 20, "bytes_out  medium", "hour_of_week"},
		"as much as it can be": {3.5, 1 << 60, "bytes_out  high", "hour_of_week"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.look()
			d.weeks(tt.weeks, seen{caller: "web", host: "a.example", sent: 10 << 20})
			d.now = d.now.Add(time.Hour)
			d.visit(seen{caller: "web", host: "a.example", sent: tt.sent})
			d.look()
			var basis string
			if len(d.told) > 0 {
				basis = d.told[0].Evidence.Basis
			}
			if got := d.took(); got != tt.want || basis != tt.evidence {
				t.Errorf("told %q by %q", got, basis)
			}
			d.now = d.now.Add(time.Minute)
			d.look()
			if got := d.took(); got != "" {
				t.Errorf("told again: %q", got)
			}
		})
	}
}

func TestBucketWrite(t *testing.T) {
	const bucket, host = "acme", "acme.s3.us-east-1.amazonaws.com"
	for name, tt := range map[string]struct {
		before, v seen
		want      string
	}{
		"inspected":     {seen{operation: "GetObject"}, seen{operation: "PutObject", sent: 9}, "bucket_write acme medium"},
		"much":          {seen{operation: "ListObjectsV2"}, seen{operation: "PutObject", sent: 1 << 30}, "bytes_out  high; bucket_write acme high"},
		"denied":        {seen{operation: "GetObject"}, seen{operation: "DeleteObject", deny: true}, "bucket_write acme medium"},
		"by bytes":      {seen{sent: 1000, received: 1 << 20}, seen{sent: 50 << 20, received: 1000}, "bucket_write acme medium"},
		"read":          {seen{operation: "GetObject"}, seen{operation: "HeadObject"}, ""},
		"both":          {seen{sent: 1 << 20, received: 1 << 20}, seen{sent: 5 << 20, received: 1000}, ""},
		"read by bytes": {seen{sent: 1000, received: 1 << 20}, seen{sent: 5 << 20, received: 1 << 30}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			tt.before.caller, tt.before.host, tt.before.bucket = "web", host, bucket
			d.weeks(1.5, tt.before)
			d.look()
			d.now = d.now.Add(2 * time.Hour)
			tt.v.caller, tt.v.host, tt.v.bucket = "web", host, bucket
			d.visit(tt.v)
			d.look()
			if got := d.took(); got != tt.want {
				t.Errorf("told %q", got)
			}
		})
	}
}

// Whatever clients make up, what is remembered stays within its bounds.
func TestBounded(t *testing.T) {
	d := newDesk(t, func(c *Config) { c.Sites, c.Callers, c.Domains = 500, 20, 100 })
	d.look()
	for i := range 2000 {
		d.visit(seen{caller: fmt.Sprintf("c%d", i%40), host: fmt.Sprintf("a%d.b%d.example", i, i%700), bucket: fmt.Sprintf("b%d", i)})
	}
	for i := range 2000 {
		d.visit(seen{caller: "c1", host: fmt.Sprintf("x%dq9z8w7v6u5.flood.example", i)})
	}
	d.look()
	domains := 0
	for _, c := range d.callers {
		domains += len(c.domains)
		for _, x := range c.domains {
			if len(x.fresh) > maxNames {
				t.Errorf("%d names of a domain", len(x.fresh))
			}
		}
	}
	if len(d.sites) > 500 || len(d.callers) > 20 || domains > 100 || len(d.buckets) > 500 || len(d.crowds) > 500 {
		t.Errorf("%d sites, %d callers, %d domains, %d buckets, %d hosts", len(d.sites), len(d.callers), domains, len(d.buckets), len(d.crowds))
	}
	if s := d.Stats(); s.Unwatched == 0 || s.Sites != len(d.sites) {
		t.Errorf("%+v", s)
	}
}

func TestStoreAway(t *testing.T) {
	d := newDesk(t)
	d.look()
	d.weeks(1.2, seen{caller: "web", host: "a.known.example"})
	d.look()
	d.past.down = errors.New("away")
	d.visit(seen{caller: "web", host: "new.example", rule: "any"})
	if d.Look(t.Context()) == nil || d.Stats().Failures == 0 {
		t.Error("nobody says that the store is away")
	}
	d.now = d.now.Add(20 * time.Minute)
	d.past.down = nil
	d.look()
	if got := d.took(); got != "first_contact new.example medium" {
		t.Errorf("when it is back: %q", got)
	}
}

// Run tells of a spent budget at once, and ends.
func TestRunTellsOfBudgets(t *testing.T) {
	told := make(chan flow.Anomaly, 1)
	w := New(Config{Every: time.Hour, Tell: func(a flow.Anomaly) { told <- a }}, newPast(time.Now))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	w.Spent(flow.Anomaly{Kind: flow.AnomalyBudget, Caller: "payments", Subject: "rule up", Severity: flow.Medium, First: time.Now(), Last: time.Now()})
	if a := <-told; a.Subject != "rule up" || a.ID == "" {
		t.Errorf("%+v", a)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRhythm(t *testing.T) {
	start := time.Date(2026, 9, 7, 9, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		n      int
		every  time.Duration
		jitter float64
		want   bool
	}{
		"a clock":            {60, time.Minute, 0, false}, // 59 minutes are no hour
		"for an hour":        {70, time.Minute, 0, true},
		"with jitter":        {70, time.Minute, .2, true},
		"with much of it":    {70, time.Minute, 1.5, false},
		"few, but a clock":   {13, 20 * time.Minute, 0, true},
		"few, and unsteady":  {13, 20 * time.Minute, .4, false},
		"all at once":        {70, 0, 0, false},
		"every other second": {5000, 2 * time.Second, 0, false},
	} {
		var times []time.Time
		for i := range tt.n {
			shift := tt.jitter * float64(tt.every) * (float64((i*7919)%100)/100 - .5)
			times = append(times, start.Add(time.Duration(i)*tt.every+time.Duration(shift)))
		}
		if r, ok := rhythmOf(times); ok != tt.want {
			t.Errorf("%s: %t, %+v", name, ok, r)
		}
	}
}

func TestLooks(t *testing.T) {
	for text, want := range map[string]bool{
		"customer-support-portal": false, "www": false, "api-eu-west-1": false, "acmecorporation": false, "status.internationalization": false,
		"4f6b2c9d8e1a7053": true, "mzxw6ytboi2gkzlt": true, "k5q2w8e7r4t9.y1u3": true, "bcdfghjklmnpqrst": true,
	} {
		if bits, got := looks(text); got != want {
			t.Errorf("%s: %t with %.2f bits", text, got, bits)
		}
	}
}

func TestOwnEndpoint(t *testing.T) {
	for host, want := range map[string]bool{
		"sqs.us-east-1.amazonaws.com": true, "sts.cn-north-1.amazonaws.com.cn": true, "b.s3.us-east-1.amazonaws.com": false,
		"x.execute-api.us-east-1.amazonaws.com": false, "amazonaws.com": false, "evilamazonaws.com": false, "sqs.us-east-1.amazonaws.com.evil.example": false,
	} {
		if got := ownEndpoint(host); got != want {
			t.Errorf("%s: %t", host, got)
		}
	}
}

func BenchmarkLook(b *testing.B) {
	d := &desk{now: time.Date(2026, 9, 7, 9, 0, 0, 0, time.UTC)}
	d.past = newPast(func() time.Time { return d.now })
	for i := range 5000 {
		d.past.add(seen{caller: fmt.Sprintf("c%d", i%50), host: fmt.Sprintf("a%d.b%d.example", i, i), starts: []time.Time{d.now}, client: netip.MustParseAddr("10.0.0.1")})
	}
	d.again()
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Look(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// Two proxies that both saw the finding as it was: whoever saves it second
// counts higher, and is silent.
func TestReturnedToOne(t *testing.T) {
	d := newDesk(t)
	before := &history.Anomaly{Count: 4, Last: d.now.Add(-quiet)}
	for name, tt := range map[string]struct {
		before *history.Anomaly
		kept   history.Anomaly
		want   bool
	}{
		"the first":        {before, history.Anomaly{Count: 5, Last: d.now}, true},
		"the second":       {before, history.Anomaly{Count: 6, Last: d.now}, false},
		"too soon":         {before, history.Anomaly{Count: 5, Last: d.now.Add(-time.Second)}, false},
		"not known before": {nil, history.Anomaly{Count: 2, Last: d.now}, false},
	} {
		if got := returned(tt.before, &tt.kept); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A caller that makes names up fills its own part of what is remembered, and
// hides nobody else's.
func TestBlindsNobodyElse(t *testing.T) {
	d := newDesk(t, func(c *Config) { c.Sites, c.Domains = 400, 200 })
	d.look()
	d.weeks(1.2, seen{caller: "web", host: "a.known.example", rule: "explicit"})
	for i := range 1000 {
		d.visit(seen{caller: "evil", host: fmt.Sprintf("a.b%d.example", i), deny: true})
	}
	d.look()
	d.took()
	d.visit(seen{caller: "web", host: "new.example", rule: "any"})
	d.now = d.now.Add(time.Minute)
	for i := range 300 {
		d.visit(seen{caller: "web", host: fmt.Sprintf("x%dq9z8w7v6u5.tunnel.example", i), rule: "any"})
	}
	d.look()
	if got := d.took(); !strings.Contains(got, "first_contact new.example medium") || !strings.Contains(got, "tunnel.example") {
		t.Errorf("told %q", got)
	}
}
