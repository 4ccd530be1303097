package anomaly

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// manyContacts is how many first contacts of one caller are told one by one in
// a day. What is beyond is one finding, whose subject is manySubject.
const (
	manyContacts = 10
	manySubject  = "(many)"
)

// siblings is how many names below a domain make another one of them nothing
// new: what is below it changes as a matter of course.
const siblings = 3

// contacts finds the sites that were visited for the first time.
func (w *Watcher) contacts(ctx context.Context, sites []history.Site, now time.Time) error {
	slices.SortStableFunc(sites, func(a, b history.Site) int { return a.First.Compare(b.First) })
	var errs []error
	for i := range sites {
		s := &sites[i]
		if s.Host == "" || s.Host == history.Other {
			continue
		}
		c := w.callers[s.Name()]
		if c == nil {
			continue
		}
		before := c.below(s)
		if !w.know(s) {
			continue
		}
		if a, ok := w.contact(c, s, before); ok {
			errs = append(errs, w.raise(ctx, a, *s))
		}
	}
	errs = append(errs, w.tunnels(ctx, now))
	return errors.Join(errs...)
}

// contact judges a site that c had not visited before.
func (w *Watcher) contact(c *caller, s *history.Site, before int) (flow.Anomaly, bool) {
	at := s.First
	if !c.mature(w.cfg.Learn, at) || before >= siblings || c.explorer(at) {
		return flow.Anomaly{}, false
	}
	host := hostOf(s)
	explicit := w.cfg.Explicit(s.Rule, host)
	severity, how := flow.Medium, "a wildcard lets it pass"
	switch _, literal := host.Addr(); {
	case s.Verdict == policy.Deny:
		how = "it is denied"
	case s.WouldDeny && literal:
		severity, how = flow.High, "an address, and report mode alone lets it pass"
	case s.WouldDeny:
		how = "report mode alone lets it pass"
	case explicit:
		severity, how = flow.Low, fmt.Sprintf("the rule %q lists it", s.Rule)
	case before > 0:
		severity, how = flow.Low, "a wildcard lets it pass, and names beside it are known"
	}
	subject := cmp.Or(bucketOf(s), s.Host)
	e := siteEvidence(s)
	e.Text = fmt.Sprintf("%s visits %s for the first time in %s: %s", c.name, subject, ageText(at.Sub(c.first)), how)
	for _, r := range s.Revisions {
		e.Revisions = append(e.Revisions, r.Family+":"+strconv.Itoa(r.Revision))
	}
	c.contacts = slices.DeleteFunc(c.contacts, func(t time.Time) bool { return at.Sub(t) > 24*time.Hour })
	if c.contacts = append(c.contacts, at); len(c.contacts) > manyContacts {
		c.contacts = c.contacts[:manyContacts+1] // it goes on as long as they come
		c.contacts[manyContacts] = at
		subject, severity = manySubject, flow.Medium
		e = flow.Evidence{
			Text:  fmt.Sprintf("%s visits more than %d sites for the first time in a day, such as %s", c.name, manyContacts, s.Host),
			Names: []string{s.Host}, Verdict: s.Verdict.String(), WouldDeny: s.WouldDeny, Rule: s.Rule, Revisions: e.Revisions,
		}
	}
	return flow.Anomaly{Kind: flow.AnomalyFirstContact, Caller: c.name, Subject: subject, Severity: severity, First: at, Last: s.Last, Evidence: e}, true
}

// siteEvidence is what a site tells by itself.
func siteEvidence(s *history.Site) flow.Evidence {
	return flow.Evidence{
		Host: s.Host, Port: s.Port, Rule: s.Rule, Verdict: s.Verdict.String(), WouldDeny: s.WouldDeny, Operation: s.Call.Operation,
	}
}

// ageText writes a time as people say it.
func ageText(d time.Duration) string {
	switch h := int(d.Hours()); {
	case h >= 48:
		return strconv.Itoa(h/24) + " days"
	case h >= 2:
		return strconv.Itoa(h) + " hours"
	}
	return strconv.Itoa(int(d.Minutes())) + " minutes"
}

func portText(p uint16) string { return strconv.Itoa(int(p)) }
