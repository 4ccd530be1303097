package policy

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// week is how long a service must be watched before its weekly jobs were seen.
const week = 7 * 24 * time.Hour

// Coverage says how much of a fleet's life the observations can stand for.
type Coverage struct {
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
	Days      float64   `json:"days"`       // from the first to the last observation
	Callers   int       `json:"callers"`    // that were observed
	WholeWeek int       `json:"whole_week"` // of them, those observed for a week or longer
	Sites     int       `json:"sites"`      // names, addresses and buckets
	NewSites  int       `json:"new_sites"`  // of them, those first seen in the last day
	// Young names the callers that were not observed for a week, with their days.
	Young []string `json:"young"`
	// NewNames are the sites of NewSites, at most ten.
	NewNames []string `json:"new_names"`
}

// Complete reports whether every caller was observed for a week and hardly
// anything was new in the last day: a policy of what was seen will then seldom
// deny what is meant.
func (c *Coverage) Complete() bool {
	return c.Callers > 0 && c.WholeWeek == c.Callers && c.NewSites*50 <= c.Sites
}

// coverage measures the observations.
func coverage(sums []Seen, o SuggestOptions) Coverage {
	type life struct{ first, last time.Time }
	callers, sites := map[string]*life{}, map[string]*life{}
	note := func(at map[string]*life, key string, s *Seen) {
		l := at[key]
		if l == nil {
			l = &life{s.First, s.Last}
			at[key] = l
		}
		if s.First.Before(l.first) {
			l.first = s.First
		}
		if s.Last.After(l.last) {
			l.last = s.Last
		}
	}
	all := map[string]*life{}
	for i := range sums {
		s := &sums[i]
		note(callers, s.Caller(), s)
		note(sites, s.Site(), s)
		note(all, "", s)
	}
	c := Coverage{Callers: len(callers), Sites: len(sites), Young: []string{}, NewNames: []string{}}
	if len(sums) == 0 {
		return c
	}
	c.First, c.Last = all[""].first, all[""].last
	c.Days = days(c.Last.Sub(c.First))
	for _, name := range slices.Sorted(maps.Keys(callers)) {
		if l := callers[name]; l.last.Sub(l.first) >= week {
			c.WholeWeek++
		} else {
			c.Young = append(c.Young, fmt.Sprintf("%s (%.1f d)", name, days(l.last.Sub(l.first))))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		if sites[name].first.After(o.Now.Add(-24 * time.Hour)) {
			c.NewSites++
			if len(c.NewNames) < 10 {
				c.NewNames = append(c.NewNames, name)
			}
		}
	}
	return c
}

func days(d time.Duration) float64 { return float64(d/time.Hour) / 24 }

// String tells the coverage in a line.
func (c Coverage) String() string {
	return fmt.Sprintf("%.1f days observed; %d of %s for a whole week; %d of %s new in the last day",
		c.Days, c.WholeWeek, plural(int64(c.Callers), "caller"), c.NewSites, plural(int64(c.Sites), "site"))
}

// lines tells the coverage at the head of a document.
func (c *Coverage) lines() []string {
	if c.Callers == 0 {
		return []string{"Nothing was observed: this policy allows nothing."}
	}
	lines := []string{"Suggested from what was observed, " + span(c.First, c.Last) + ".", "Coverage: " + c.String() + "."}
	if len(c.Young) > 0 {
		lines = append(lines, "Not yet a week, so weekly jobs may be missing: "+someOf(c.Young, 6)+".")
	}
	if c.NewSites > 0 {
		lines = append(lines, "New in the last day: "+someOf(c.NewNames, 6)+".")
	}
	return lines
}
