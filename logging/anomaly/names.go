package anomaly

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// The signs of a tunnel of names: as many names that nobody had seen below one
// domain, of which most look like no words; or far more than it usually has,
// whatever they look like.
const (
	tunnelHour  = 30
	tunnelDay   = 60
	tunnelAny   = 200
	tunnelShare = .6
)

// maxNames bounds the names of one domain that are remembered one by one.
const maxNames = 512

// domain is what one caller visits below a registered domain.
type domain struct {
	first time.Time
	known int       // names, in all
	fresh []newName // of the last day, oldest first
	at    history.Site
}

// newName is a name when it was new. Of the name itself only the first few are
// kept, as examples.
type newName struct {
	at      time.Time
	random  bool
	entropy float64
	denied  bool
}

func (d *domain) stale(now time.Time) bool {
	n := 0
	for n < len(d.fresh) && now.Sub(d.fresh[n].at) > 24*time.Hour {
		n++
	}
	d.fresh = d.fresh[n:]
	return len(d.fresh) == 0 && d.known == 0
}

// name notes a site whose name is new to its caller.
func (w *Watcher) name(c *caller, s *history.Site) {
	host := hostOf(s)
	registered := policy.RegisteredDomain(host)
	if registered == "" {
		return
	}
	d := c.domains[registered]
	if d == nil {
		if len(c.domains) >= w.cfg.Domains/fair || w.domainCount() >= w.cfg.Domains {
			w.unwatched()
			return
		}
		d = &domain{first: s.First}
		c.domains[registered] = d
	}
	d.known++
	below := strings.TrimSuffix(strings.TrimSuffix(host.String(), registered), ".")
	if below == "" {
		return
	}
	if len(d.fresh) >= maxNames {
		d.fresh = d.fresh[1:]
	}
	bits, random := looks(below)
	d.fresh = append(d.fresh, newName{at: s.First, random: random, entropy: bits, denied: s.Verdict == policy.Deny})
	d.at = *s
}

func (w *Watcher) domainCount() int {
	n := 0
	for _, c := range w.callers {
		n += len(c.domains)
	}
	return n
}

// looks returns the entropy of what stands below a domain, in bits a character,
// and whether it looks like no word: long, and of letters and digits as they
// come.
func looks(below string) (bits float64, random bool) {
	text := strings.ReplaceAll(below, ".", "")
	var counts [256]int
	digits, vowels, letters := 0, 0, 0
	for i := range len(text) {
		b := text[i]
		counts[b]++
		switch {
		case '0' <= b && b <= '9':
			digits++
		case strings.IndexByte("aeiouy", b) >= 0:
			vowels++
			letters++
		case 'a' <= b && b <= 'z':
			letters++
		}
	}
	n := float64(len(text))
	for _, k := range &counts {
		if k > 0 {
			p := float64(k) / n
			bits -= p * math.Log2(p)
		}
	}
	mixed := float64(digits) >= .15*n && letters > 0
	mute := letters >= 12 && float64(vowels) < .22*float64(letters)
	return bits, len(text) >= 12 && bits >= 2.8 && (mixed || mute)
}

// tunnels judges the domains that have new names.
func (w *Watcher) tunnels(ctx context.Context, now time.Time) error {
	var errs []error
	for _, c := range w.callers {
		for registered, d := range c.domains {
			if d.stale(now) || len(d.fresh) < tunnelHour {
				continue
			}
			if a, ok := d.judge(c, registered, w.cfg.Learn, now); ok {
				errs = append(errs, w.raise(ctx, a, d.at))
			}
		}
	}
	return errors.Join(errs...)
}

func (d *domain) judge(c *caller, registered string, learn time.Duration, now time.Time) (flow.Anomaly, bool) {
	var lastHour, random, denied int
	var bits float64
	for _, f := range d.fresh {
		if now.Sub(f.at) <= time.Hour {
			lastHour++
		}
		if f.random {
			random++
		}
		if f.denied {
			denied++
		}
		bits += f.entropy
	}
	all := len(d.fresh)
	days := now.Sub(d.first).Hours()/24 - 1
	usual := float64(d.known-all) / max(days, 1)
	odd := float64(random) >= tunnelShare*float64(all)
	age := now.Sub(c.first)
	switch {
	case float64(all) < 3*usual:
		return flow.Anomaly{}, false
	case odd && (lastHour >= tunnelHour || all >= tunnelDay):
	case age >= learn && all >= tunnelAny:
	default:
		return flow.Anomaly{}, false
	}
	severity := flow.Medium
	if odd && denied < all/2 && c.mature(learn, now) {
		severity = flow.High
	}
	e := siteEvidence(&d.at)
	e.Value, e.Norm, e.Limit, e.Unit = float64(all), math.Round(usual), max(tunnelHour, math.Ceil(3*usual)), "names"
	e.Entropy = math.Round(100*bits/float64(all)) / 100
	e.Names = []string{d.at.Host}
	e.Text = fmt.Sprintf("%s visits %d unseen names below %s in a day, %d of them in an hour, %.0f a day are usual; %.0f%% look random",
		c.name, all, registered, lastHour, usual, 100*float64(random)/float64(all))
	return flow.Anomaly{
		Kind: flow.AnomalySubdomains, Caller: c.name, Subject: registered, Severity: severity,
		First: d.fresh[0].at, Last: now, Evidence: e,
	}, true
}
