package anomaly

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The simulation: services that do what services do, for five weeks, with
// deployments, batch jobs, customers that come and go, origins that fail; and
// attacks of each kind, of which some are meant to be hard.

const (
	simStep  = 20 * time.Minute
	simWeeks = 5
)

var seeds = flag.Int("seeds", 1, "how many worlds to simulate")

// world is a simulation.
type world struct {
	r        *rand.Rand
	now      time.Time
	start    time.Time
	past     *past
	services []*simService
	attacks  []*simAttack
	deploys  map[string]time.Time // by caller and host: news that people want
	tellings []flow.Anomaly
	at       []time.Time
}

// simService is one service's ordinary life.
type simService struct {
	name     string
	sites    []*simSite
	diurnal  float64 // 0: flat; 1: nothing at night
	weekend  float64 // what is left of it on Saturday and Sunday
	revision int
	own      func(w *world, s *simService) // what else it does in a step
}

// simSite is what a service does at a site.
type simSite struct {
	host, rule, bucket, op string
	rate                   float64       // visits an hour
	every                  time.Duration // instead: like clockwork
	sent, received         float64       // of a visit, the median
	sigma                  float64       // of its logarithm
	deny                   bool
}

// simAttack is something that must be found.
type simAttack struct {
	kind     flow.AnomalyKind
	caller   string
	subject  string
	from, to time.Time
	hard     bool
	step     func(w *world, a *simAttack)
	hits     int
	severity flow.Severity
}

func (w *world) poisson(mean float64) int {
	if mean > 50 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*w.r.NormFloat64())))
	}
	limit, n, p := math.Exp(-mean), 0, 1.0
	for {
		if p *= w.r.Float64(); p <= limit {
			return n
		}
		n++
	}
}

func (w *world) starts(n int) []time.Time {
	all := make([]time.Time, n)
	for i := range all {
		all[i] = w.now.Add(-time.Duration(w.r.Int64N(int64(simStep))))
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

// clock is every contact of a clock in this step, with jitter by share.
func (w *world) clock(every time.Duration, jitter float64) []time.Time {
	var all []time.Time
	begin := w.now.Add(-simStep)
	for t := begin.Truncate(every).Add(-every); !t.After(w.now.Add(every)); t = t.Add(every) {
		r := rand.New(rand.NewPCG(uint64(t.Unix()), uint64(every))) // the same from whichever step it is seen
		at := t.Add(time.Duration(jitter * (2*r.Float64() - 1) / 2 * float64(every)))
		if at.After(begin) && !at.After(w.now) {
			all = append(all, at)
		}
	}
	return all
}

// load is the share of its peak at which a service works now.
func (s *simService) load(at time.Time) float64 {
	h := float64(at.Hour()) + float64(at.Minute())/60
	f := 1 - s.diurnal*(1+math.Cos((h-14)/24*2*math.Pi+math.Pi))/2
	if d := at.Weekday(); d == time.Saturday || d == time.Sunday {
		f *= s.weekend
	}
	return f
}

func (w *world) lognormal(median, sigma float64) float64 {
	return median * math.Exp(sigma*w.r.NormFloat64())
}

func addr(name string) netip.Addr {
	sum := byte(0)
	for i := range len(name) {
		sum = sum*31 + name[i]
	}
	return netip.AddrFrom4([4]byte{10, 0, sum, byte(len(name))})
}

func (w *world) step() {
	w.now = w.now.Add(simStep)
	for _, s := range w.services {
		f := s.load(w.now) * simStep.Hours()
		swing := w.lognormal(1, .15) // what all sites of a service share
		for _, x := range s.sites {
			var starts []time.Time
			if x.every > 0 {
				starts = w.clock(x.every, .02)
			} else {
				starts = w.starts(w.poisson(x.rate * f * swing))
			}
			w.visit(s, x, starts)
		}
		if s.own != nil {
			s.own(w, s)
		}
	}
	for _, a := range w.attacks {
		if w.now.After(a.from) && !w.now.After(a.to) {
			a.step(w, a)
		}
	}
}

func (w *world) visit(s *simService, x *simSite, starts []time.Time) {
	n := float64(len(starts))
	if n == 0 {
		return
	}
	w.past.add(seen{
		caller: s.name, host: x.host, rule: x.rule, bucket: x.bucket, operation: x.op, deny: x.deny, starts: starts, revision: s.revision, client: addr(s.name),
		sent: int64(n * w.lognormal(x.sent, x.sigma/math.Sqrt(n))), received: int64(n * w.lognormal(x.received, x.sigma/math.Sqrt(n))),
	})
}

func web(host string, rate, sent, received float64) *simSite {
	return &simSite{host: host, rule: "web", rate: rate, sent: sent, received: received, sigma: 1}
}

// common is what every service visits.
func common() []*simSite {
	return []*simSite{
		{host: "logs.us-east-1.amazonaws.com", rule: "base/logs", every: 2 * time.Minute, sent: 120e3, received: 1e3, sigma: .5},
		{host: "sts.us-east-1.amazonaws.com", rule: "base/sts", every: 15 * time.Minute, sent: 2e3, received: 3e3, sigma: .1},
		{host: "intake.datadoghq.com", rule: "metrics", every: time.Minute, sent: 24e3, received: 500, sigma: .3},
		{host: "auth.corp.example", rule: "corp", every: 3 * time.Minute, sent: 6e3, received: 1e3, sigma: .1},
	}
}

const hexes, base32s = "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz234567"

func (w *world) letters(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[w.r.IntN(len(alphabet))]
	}
	return string(b)
}

// cast makes the services.
func (w *world) cast() {
	add := func(s *simService) {
		s.sites = append(s.sites, common()...)
		s.revision = 1
		w.services = append(w.services, s)
	}
	for i := range 8 {
		s := &simService{name: fmt.Sprintf("web-%d", i), diurnal: .8, weekend: .5}
		for j := range 3 {
			s.sites = append(s.sites, web(fmt.Sprintf("api%d.partner%d.example", j, i), 60+120*w.r.Float64(), 100e3, 400e3))
		}
		s.sites = append(s.sites, &simSite{host: fmt.Sprintf("assets-%d.s3.us-east-1.amazonaws.com", i), bucket: fmt.Sprintf("assets-%d", i), rule: "assets", rate: 60, sent: 2e3, received: 900e3, sigma: .8})
		add(s)
	}
	for i := range 4 {
		s := &simService{name: fmt.Sprintf("worker-%d", i), weekend: 1}
		for j := range 3 {
			s.sites = append(s.sites, web(fmt.Sprintf("q%d.work%d.example", j, i), 200, 40e3, 20e3))
		}
		s.sites = append(s.sites,
			&simSite{host: fmt.Sprintf("queue.peer%d.example", i), rule: "any", every: time.Minute, sent: 700, received: 900, sigma: .1},
			&simSite{host: fmt.Sprintf("models-%d.s3.us-east-1.amazonaws.com", i), bucket: fmt.Sprintf("models-%d", i), op: "GetObject", rule: "models", rate: 4, sent: 2e3, received: 50e6, sigma: .5},
			// A mistake that nobody mends, and an origin that fails now and then.
			&simSite{host: "telemetry.vendor.example", rate: 6, deny: true})
		s.own = func(w *world, s *simService) {
			if w.r.Float64() < .002 { // a storm of retries: many visits, few bytes
				w.visit(s, web(fmt.Sprintf("q0.work%d.example", i), 0, 300, 0), w.starts(2000))
			}
		}
		add(s)
	}
	for i := range 3 {
		s := &simService{name: fmt.Sprintf("batch-%d", i), weekend: 1}
		nightly := 2*time.Hour + time.Duration(i)*time.Hour
		s.own = func(w *world, s *simService) {
			midnight := w.now.Truncate(24 * time.Hour)
			late := time.Duration(rand.New(rand.NewPCG(uint64(midnight.Unix()), uint64(i))).Int64N(int64(30 * time.Minute)))
			bucket := fmt.Sprintf("backup-%d", i)
			up := &simSite{host: bucket + ".s3.us-east-1.amazonaws.com", bucket: bucket, rule: "backup", sent: 120e6, received: 1e3, sigma: .2}
			if since := w.now.Sub(midnight) - nightly - late; since >= 0 && since < time.Hour {
				w.visit(s, up, w.starts(15))
			}
			if since := w.now.Sub(midnight) - 12*time.Hour; w.now.Weekday() == time.Sunday && since >= 0 && since < 2*time.Hour {
				up.sent = 400e6
				w.visit(s, up, w.starts(20))
			}
		}
		add(s)
	}
	hooks := &simService{name: "webhooks", diurnal: .5, weekend: .7}
	hooks.own = func(w *world, s *simService) {
		for range w.poisson(8.0 / 72) {
			s.sites = append(s.sites, &simSite{host: "hook." + w.letters("bcdfghklmnprst", 7) + "-shop.example", rule: "any", rate: 2, sent: 2e3, received: 500, sigma: .3})
		}
	}
	add(hooks)
	tenants := &simService{name: "helpdesk", diurnal: .6, weekend: .4}
	for range 20 {
		tenants.sites = append(tenants.sites, &simSite{host: w.letters("abcdeilmnorst", 6+w.r.IntN(6)) + ".zendesk.com", rule: "desk", rate: 3, sent: 3e3, received: 9e3, sigma: .4})
	}
	tenants.own = func(w *world, s *simService) {
		for range w.poisson(2.0 / 72) {
			s.sites = append(s.sites, &simSite{host: w.letters("abcdeilmnorst", 6+w.r.IntN(6)) + ".zendesk.com", rule: "desk", rate: 3, sent: 3e3, received: 9e3, sigma: .4})
		}
	}
	add(tenants)
	cdn := &simService{name: "thumbnails", diurnal: .7, weekend: 1}
	for range 15 {
		cdn.sites = append(cdn.sites, &simSite{host: "rr" + w.letters("0123456789", 1) + "---sn-" + w.letters(base32s, 8) + ".video.example", rule: "any", rate: 5, sent: 1e3, received: 3e6, sigma: 1})
	}
	cdn.own = func(w *world, s *simService) { // shards come and go
		for range w.poisson(6.0 / 72) {
			s.sites[w.r.IntN(15)].host = "rr" + w.letters("0123456789", 1) + "---sn-" + w.letters(base32s, 8) + ".video.example"
		}
	}
	add(cdn)
	quiet := &simService{name: "quiet", weekend: 1}
	quiet.sites = append(quiet.sites, web("only.example", 2, 2e3, 2e3))
	add(quiet)
	w.services[len(w.services)-1].sites = quiet.sites[:1]
}

// deploy gives services new revisions, some of which visit a new host that a
// rule lists.
func (w *world) deploy() {
	for _, s := range w.services {
		if w.r.Float64() >= simStep.Hours()/24/10 {
			continue
		}
		s.revision++
		if w.r.Float64() < .4 && w.now.Sub(w.start) > 8*24*time.Hour {
			x := web(fmt.Sprintf("v%d.%s-feature.example", s.revision, s.name), 10, 5e3, 5e3)
			x.rule = "explicit"
			s.sites = append(s.sites, x)
			w.deploys[s.name+"|"+x.host] = w.now
		}
	}
}

// assault plans the attacks.
func (w *world) assault() {
	at := func(days float64) time.Time { return w.start.Add(time.Duration(days * 24 * float64(time.Hour))) }
	plan := func(a simAttack) { w.attacks = append(w.attacks, &a) }
	visitOnce := func(host, rule string, deny, would bool) func(*world, *simAttack) {
		return func(w *world, a *simAttack) {
			w.past.add(seen{caller: a.caller, host: host, rule: rule, deny: deny, wouldDeny: would, starts: w.starts(1), sent: 4e3, received: 9e3, client: addr(a.caller)})
		}
	}
	for i, c := range []string{"web-0", "worker-1", "batch-2", "helpdesk", "quiet", "thumbnails"} {
		host := fmt.Sprintf("drop%d.evil-%d.example", i, i)
		from := at(12 + 3*float64(i) + w.r.Float64())
		plan(simAttack{kind: flow.AnomalyFirstContact, caller: c, subject: host, from: from, to: from.Add(simStep), step: visitOnce(host, "any", i%3 == 1, i%3 == 2)})
	}
	// Data: by night what a day may send, into an allowed bucket of somebody else.
	for i, c := range []struct {
		caller string
		bytes  float64
		hour   float64
		hard   bool
	}{{"web-1", 3e9, 3, false}, {"web-2", 20e9, 14, false}, {"worker-0", 2e9, 10, false}, {"batch-0", 4e9, 15, false}, {"quiet", 300e6, 9, false}, {"web-3", 700e6, 4, true}} {
		from := at(15 + float64(3*i)).Truncate(24 * time.Hour).Add(time.Duration(c.hour * float64(time.Hour)))
		plan(simAttack{kind: flow.AnomalyBytesOut, caller: c.caller, from: from, to: from.Add(time.Hour), hard: c.hard, step: func(w *world, a *simAttack) {
			w.past.add(seen{caller: a.caller, host: "auth.corp.example", rule: "corp", starts: w.starts(2), sent: int64(c.bytes / 3), received: 9e3, client: addr(a.caller)})
		}})
	}
	for i, c := range []string{"web-4", "worker-2", "worker-3", "thumbnails"} {
		from := at(16 + 4*float64(i) + w.r.Float64())
		plan(simAttack{kind: flow.AnomalyDenials, caller: c, from: from, to: from.Add(3 * simStep), step: func(w *world, a *simAttack) {
			for range 10 {
				w.past.add(seen{caller: a.caller, host: w.letters("abcdefgh", 8) + ".scan.example", deny: true, starts: w.starts(8), client: addr(a.caller)})
			}
		}})
	}
	for i, c := range []struct {
		caller, alphabet string
		hourly           float64
		hard             bool
	}{{"web-5", hexes, 90, false}, {"worker-0", base32s, 40, false}, {"thumbnails", hexes, 8, false}, {"quiet", base32s, 5, false}, {"web-6", hexes, 1, true}} {
		from := at(17 + 3*float64(i) + w.r.Float64())
		domain := fmt.Sprintf("tun%d.example", i)
		plan(simAttack{kind: flow.AnomalySubdomains, caller: c.caller, subject: domain, from: from, to: from.Add(24 * time.Hour), hard: c.hard, step: func(w *world, a *simAttack) {
			for range w.poisson(c.hourly * simStep.Hours()) {
				w.past.add(seen{caller: a.caller, host: w.letters(c.alphabet, 24+w.r.IntN(20)) + ".t." + domain, rule: "any", starts: w.starts(1), sent: 2e3, received: 1e3, client: addr(a.caller)})
			}
		}})
	}
	for i, c := range []struct {
		caller string
		every  time.Duration
		jitter float64
		deny   bool
		hard   bool
	}{{"web-7", time.Minute, .1, false, false}, {"worker-3", 5 * time.Minute, .3, false, false}, {"batch-1", 30 * time.Minute, .2, true, false}, {"quiet", 10 * time.Second, .05, false, false}, {"web-0", 10 * time.Minute, 1, false, true}} {
		from := at(18 + 3*float64(i) + w.r.Float64())
		host := fmt.Sprintf("c2-%d.hidden%d.example", i, i)
		plan(simAttack{kind: flow.AnomalyBeacon, caller: c.caller, subject: host, from: from, to: from.Add(20 * time.Hour), hard: c.hard, step: func(w *world, a *simAttack) {
			w.past.add(seen{caller: a.caller, host: host, rule: "any", deny: c.deny, starts: w.clock(c.every, c.jitter), sent: 600, received: 800, client: addr(a.caller)})
		}})
	}
	for i, c := range []struct{ caller, bucket, op string }{{"web-2", "assets-2", ""}, {"worker-0", "models-0", "PutObject"}, {"worker-3", "models-3", "CreateMultipartUpload"}, {"web-6", "assets-6", ""}} {
		from := at(20 + 3*float64(i) + w.r.Float64())
		plan(simAttack{kind: flow.AnomalyBucketWrite, caller: c.caller, subject: c.bucket, from: from, to: from.Add(3 * simStep), step: func(w *world, a *simAttack) {
			w.past.add(seen{caller: a.caller, host: c.bucket + ".s3.us-east-1.amazonaws.com", bucket: c.bucket, rule: "assets-w", operation: c.op, starts: w.starts(3), sent: 400e6, received: 9e3, client: addr(a.caller)})
		}})
	}
}

func simulate(t *testing.T, seed uint64) *world {
	t.Helper()
	start := time.Date(2026, 9, 7, 0, 0, 0, 0, time.UTC) // a Monday
	w := &world{r: rand.New(rand.NewPCG(seed, 1)), now: start, start: start, deploys: map[string]time.Time{}}
	w.past = newPast(func() time.Time { return w.now })
	watcher := New(Config{
		Every: simStep, Clock: func() time.Time { return w.now },
		Explicit: func(rule string, _ policy.Host) bool { return rule == "explicit" || strings.Contains(rule, "/") },
		Tell: func(a flow.Anomaly) {
			w.tellings = append(w.tellings, a)
			w.at = append(w.at, w.now)
		},
	}, w.past)
	w.cast()
	w.assault()
	for w.now.Before(start.Add(simWeeks * 7 * 24 * time.Hour)) {
		w.deploy()
		w.step()
		if err := watcher.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// score is how well one kind was found.
type score struct{ attacks, hits, hard, hardHits, news, falseLow, falseAlarms int }

// judge sorts what was told into hits, news of deployments, and false alarms.
func (w *world) judge(t *testing.T) map[flow.AnomalyKind]*score {
	t.Helper()
	scores := map[flow.AnomalyKind]*score{}
	for _, k := range flow.AnomalyKinds() {
		scores[k] = &score{}
	}
	for i, a := range w.tellings {
		sc, about := scores[a.Kind], false
		for _, x := range w.attacks {
			during := w.at[i].After(x.from) && w.at[i].Before(x.to.Add(90*time.Minute))
			if x.caller != a.Caller || !during {
				continue
			}
			about = true // whatever else an attack shows is no false alarm
			if x.kind == a.Kind && (x.subject == "" || x.subject == a.Subject) {
				x.hits++
				x.severity = max(x.severity, a.Severity)
			}
		}
		_, news := w.deploys[a.Caller+"|"+a.Subject]
		switch {
		case about:
		case news:
			sc.news++
		case a.Severity == flow.Low:
			sc.falseLow++
			t.Logf("false, low: %s %s %q at %s: %s", a.Kind, a.Caller, a.Subject, w.at[i].Format("Mon 02 15:04"), a.Evidence.Text)
		default:
			sc.falseAlarms++
			t.Logf("false: %s %s %q %s at %s: %s", a.Kind, a.Caller, a.Subject, a.Severity, w.at[i].Format("Mon 02 15:04"), a.Evidence.Text)
		}
	}
	for _, x := range w.attacks {
		sc := scores[x.kind]
		switch {
		case x.hard:
			sc.hard++
			sc.hardHits += min(x.hits, 1)
		default:
			sc.attacks++
			sc.hits += min(x.hits, 1)
			if x.hits == 0 {
				t.Logf("missed: %s of %s, %q from %s", x.kind, x.caller, x.subject, x.from.Format("Mon 02 15:04"))
			}
		}
	}
	return scores
}

// TestWeeks holds detection to what it promises on simulated weeks: nearly all
// of what is not meant to be hard, and a false alarm a service in many weeks.
func TestWeeks(t *testing.T) {
	sums := map[flow.AnomalyKind]*score{}
	weeks := 0.0
	for seed := range *seeds {
		w := simulate(t, uint64(seed)+1)
		weeks += float64(len(w.services) * simWeeks)
		for k, s := range w.judge(t) {
			x := cmp.Or(sums[k], &score{})
			sums[k] = &score{x.attacks + s.attacks, x.hits + s.hits, x.hard + s.hard, x.hardHits + s.hardHits, x.news + s.news, x.falseLow + s.falseLow, x.falseAlarms + s.falseAlarms}
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%.0f service-weeks\n%-14s %8s %8s %8s %14s %14s\n", weeks, "kind", "hits", "hard", "news", "false, low/sw", "false/sw")
	all := 0
	for _, k := range flow.AnomalyKinds() {
		s := sums[k]
		fmt.Fprintf(&table, "%-14s %4d/%-3d %4d/%-3d %8d %14.3f %14.3f\n", k, s.hits, s.attacks, s.hardHits, s.hard, s.news, float64(s.falseLow)/weeks, float64(s.falseAlarms)/weeks)
		if float64(s.hits) < .85*float64(s.attacks) {
			t.Errorf("%s: %d of %d found", k, s.hits, s.attacks)
		}
		if rate := float64(s.falseAlarms) / weeks; rate > .05 {
			t.Errorf("%s: %.3f false alarms a service-week", k, rate)
		}
		all += s.falseAlarms + s.falseLow
	}
	if rate := float64(all) / weeks; rate > .15 {
		t.Errorf("%.3f false alarms a service-week, the low ones included", rate)
	}
	t.Log(table.String())
}
