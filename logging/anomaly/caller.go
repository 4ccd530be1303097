package anomaly

import (
	"hash/maphash"
	"math"
	"slices"
	"time"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// visit is one caller's visits of one destination, as a hash: two that share
// one are taken for each other, which at 200,000 sites happens once in a
// billion processes.
type visit uint64

// visitOf hashes whom and where to: by the bucket where there is one, since it
// has many hosts.
func (w *Watcher) visitOf(caller, place string) visit {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_, _ = h.WriteString(caller) // it never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(place)
	return visit(h.Sum64())
}

// place names a site's destination: the bucket or access point, else the host
// with a port that is not one of the web's.
func place(s *history.Site) string {
	if bucket := bucketOf(s); bucket != "" {
		return "s3:" + bucket
	}
	switch s.Port {
	case 0, 80, 443:
		return s.Host
	}
	return s.Host + ":" + portText(s.Port)
}

func bucketOf(s *history.Site) string {
	if s.S3.Bucket != "" {
		return s.S3.Bucket
	}
	return s.S3.AccessPoint
}

// caller is what is known of one caller.
type caller struct {
	name   string
	first  time.Time
	sites  int            // that are remembered
	days   map[int64]bool // numbers of the days on which it was there, of late
	fresh  map[int64]int  // how many new sites each of them has brought
	sent   *series        // nil until loaded
	denied *series

	domains  map[string]*domain
	contacts []time.Time // of the first contacts that were told, in a day
}

func day(t time.Time) int64  { return t.Unix() / 86400 }
func hour(t time.Time) int64 { return t.Unix() / 3600 }

// caller returns what is known of a caller, nil when it is beyond the bound.
func (w *Watcher) caller(name string, at time.Time) *caller {
	c := w.callers[name]
	if c == nil {
		if len(w.callers) >= w.cfg.Callers {
			w.unwatched()
			return nil
		}
		c = &caller{name: name, first: at, days: map[int64]bool{}, fresh: map[int64]int{}, domains: map[string]*domain{}}
		w.callers[name] = c
	}
	if at.Before(c.first) {
		c.first = at
	}
	return c
}

func (c *caller) active(at time.Time) { c.days[day(at)] = true }

// forget drops the days that nobody asks about any more.
func (c *caller) forget(now time.Time) {
	for d := range c.days {
		if d < day(now)-70 {
			delete(c.days, d)
			delete(c.fresh, d)
		}
	}
	for name, d := range c.domains {
		if d.stale(now) {
			delete(c.domains, name)
		}
	}
}

// coverage is the share of the learning time's days on which a caller must
// have been there before anything about it counts as new.
const coverage = 4.0 / 7

// mature reports whether the caller was learned from long enough at a moment.
func (c *caller) mature(learn time.Duration, at time.Time) bool {
	if at.Sub(c.first) < learn {
		return false
	}
	seen := 0
	for d := range c.days {
		if d <= day(at) {
			seen++
		}
	}
	return seen >= int(math.Ceil(coverage*learn.Hours()/24))
}

// explorer reports whether the caller finds new sites as its daily work: on
// most of its days it found several.
func (c *caller) explorer(at time.Time) bool {
	many, days := 0, 0
	for d := range c.days {
		if d < day(at) && d >= day(at)-14 && d > day(c.first)+1 { // the first days are all new
			days++
			if c.fresh[d] >= explores {
				many++
			}
		}
	}
	return days >= 3 && 2*many > days
}

// explores is how many new sites a day make an explorer.
const explores = 3

// fair is the part of what is remembered that one caller may take: who makes
// names up blinds nobody but himself.
const fair = 4

// meet notes that a site was visited.
func (w *Watcher) meet(s *history.Site, now time.Time) {
	c := w.caller(s.Name(), s.First)
	if c == nil {
		return
	}
	for _, at := range []time.Time{s.First, s.Last} {
		if now.Sub(at) < 69*24*time.Hour {
			c.active(at)
		}
	}
	w.crowd(s.Host, c.name)
}

// know remembers a site, and reports whether it was unknown.
func (w *Watcher) know(s *history.Site) bool {
	v := w.visitOf(s.Name(), place(s))
	if first, known := w.sites[v]; known {
		if s.First.Before(first) {
			w.sites[v] = s.First
		}
		return false
	}
	c := w.callers[s.Name()]
	if len(w.sites) >= w.cfg.Sites || c != nil && c.sites >= w.cfg.Sites/fair {
		w.unwatched()
		return false
	}
	w.sites[v] = s.First
	if c == nil {
		return false
	}
	c.sites++
	if c.below(s) < siblings {
		c.fresh[day(s.First)]++
	}
	w.name(c, s)
	return true
}

// below returns how many names the caller is known to visit below the domain
// that the site's name belongs to.
func (c *caller) below(s *history.Site) int {
	if d := c.domains[policy.RegisteredDomain(hostOf(s))]; d != nil {
		return d.known
	}
	return 0
}

// crowd is who visits a host. Beyond a few it does not matter.
type crowd struct {
	callers [3]string
	n       int
}

func (w *Watcher) crowd(host, caller string) {
	x := w.crowds[host]
	if x == nil {
		if len(w.crowds) >= w.cfg.Sites {
			return
		}
		x = &crowd{}
		w.crowds[host] = x
	}
	if x.n < len(x.callers) && !slices.Contains(x.callers[:x.n], caller) {
		x.callers[x.n] = caller
		x.n++
	}
}

// common reports whether several callers visit a host: it is no secret.
func (w *Watcher) common(host string) bool {
	x := w.crowds[host]
	return x != nil && x.n == len(x.callers)
}

// hostOf reads a site's host; the zero Host for what is none.
func hostOf(s *history.Site) policy.Host {
	h, err := policy.ParseHost(s.Host)
	if err != nil {
		return policy.Host{}
	}
	return h
}
