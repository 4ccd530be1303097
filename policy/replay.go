package policy

import (
	"cmp"
	"slices"
	"time"
)

// Replayed is what a policy would have done to what was observed.
type Replayed struct {
	Attempts int64 `json:"attempts"` // that were judged
	Sites    int   `json:"sites"`    // observations that were judged
	// Unjudged counts attempts about which no policy is asked: no name was
	// learned, or they were ended for what they carried, where they led, or how
	// many there were.
	Unjudged int64 `json:"unjudged"`
	// Undecided counts attempts whose names were too many to be kept: the
	// candidate may answer them otherwise, or not.
	Undecided int64 `json:"undecided"`
	// Unaddressed counts observations, of Sites, that were let through for their
	// names alone: they reached an address, nothing tells which ([Seen].PeerUnknown),
	// and if it was a private one, resolves_to may answer otherwise.
	Unaddressed  int      `json:"unaddressed"`
	NewlyDenied  []Change `json:"newly_denied"`
	NewlyAllowed []Change `json:"newly_allowed"`
	// Report means that the candidate is in report mode for some of the callers:
	// what is newly denied would be let through, marked, until it is enforced.
	Report bool `json:"report"`
}

// Change is an observation that is answered otherwise than before.
type Change struct {
	Caller string    `json:"caller"` // as [Seen.Caller]
	Site   string    `json:"site"`   // as [Seen.Site]
	Before Answer    `json:"before"`
	After  Answer    `json:"after"`
	Count  int64     `json:"count"`
	Sent   int64     `json:"bytes_sent"`
	Recvd  int64     `json:"bytes_received"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
}

// Answer is a decision in short.
type Answer struct {
	Verdict   string `json:"verdict"` // "allow" or "deny"
	Reason    Reason `json:"reason"`
	Rule      string `json:"rule,omitempty"`
	WouldDeny bool   `json:"would_deny,omitempty"` // allowed by report mode only
}

// Replay puts what was observed to a candidate, as if it were enforced, and
// tells what differs from what happened, or, with a baseline, from what that
// would have answered. It asks at no particular time.
//
// Where the address is known that a name led to, the candidate's resolves_to is
// replayed, too; where it is not, that is counted. What was recorded cannot tell
// of a task's tags, of which a policy may ask: a store keeps the last visitor's.
func Replay(candidate, baseline *Policy, seen []Seen) Replayed {
	r := Replayed{NewlyDenied: []Change{}, NewlyAllowed: []Change{}}
	sums := merged(seen)
	for i := range sums {
		s := &sums[i]
		if s.Query.Via == ViaDNS {
			continue
		}
		if s.Folded {
			r.Undecided += s.Count
			continue
		}
		if s.Query.Host.IsZero() || (s.Verdict == Deny && unclear(s.Reason)) {
			r.Unjudged += s.Count
			continue
		}
		r.Attempts += s.Count
		r.Sites++
		before := Answer{s.Verdict.String(), s.Reason, s.Rule, s.WouldDeny}
		if baseline != nil {
			before, _ = answerOf(baseline, s)
		}
		after, mode := answerOf(candidate, s)
		r.Report = r.Report || mode == Report
		if s.onNameAlone() && (after.Verdict == Allow.String() || baseline != nil && before.Verdict == Allow.String()) {
			r.Unaddressed++
		}
		if before.Verdict == after.Verdict {
			continue
		}
		c := Change{
			Caller: s.Caller(), Site: s.Site(), Before: before, After: after,
			Count: s.Count, Sent: s.BytesSent, Recvd: s.BytesReceived, First: s.First, Last: s.Last,
		}
		if after.Verdict == Allow.String() {
			r.NewlyAllowed = append(r.NewlyAllowed, c)
		} else {
			r.NewlyDenied = append(r.NewlyDenied, c)
		}
	}
	r.NewlyDenied, r.NewlyAllowed = joined(r.NewlyDenied), joined(r.NewlyAllowed)
	return r
}

// onNameAlone reports whether an attempt reached an address that the name does
// not tell, and nothing else does any more.
func (s *Seen) onNameAlone() bool {
	_, literal := s.Query.Host.Addr()
	return s.PeerUnknown && !literal && s.Verdict == Allow && s.reached() > 0
}

// answerOf returns what a policy answers when it is enforced.
func answerOf(p *Policy, s *Seen) (Answer, Mode) {
	d := p.Decide(s.asked())
	a := Answer{Verdict: Deny.String(), Reason: d.Reason, Rule: d.RuleName()}
	if d.Reason != ReasonRule {
		return a, d.Mode
	}
	mode := d.Mode
	d.Mode = Enforce
	switch {
	case s.Peer.IsValid():
		if reason, ok := d.CheckAddress(s.Peer); !ok {
			a.Reason = reason
			return a, mode
		}
	case s.WouldDeny && s.Reason == ReasonAddressProhibited && len(d.Rule.ResolvesTo) == 0:
		a.Reason, a.Rule = s.Reason, ""
		return a, mode
	}
	// Report mode let it through in spite of what it carried.
	if s.WouldDeny && unclear(s.Reason) && s.Reason != ReasonAddressProhibited && d.Protocol != ProtocolTCP {
		a.Reason, a.Rule = s.Reason, ""
		return a, mode
	}
	a.Verdict = Allow.String()
	return a, mode
}

// joined adds up changes that read alike, the most frequent first.
func joined(all []Change) []Change {
	type line struct {
		caller, site  string
		before, after Answer
	}
	at := map[line]int{}
	sums := all[:0]
	for _, c := range all {
		key := line{c.Caller, c.Site, c.Before, c.After}
		i, known := at[key]
		if !known {
			at[key] = len(sums)
			sums = append(sums, c)
			continue
		}
		sum := &sums[i]
		sum.Count, sum.Sent, sum.Recvd = sum.Count+c.Count, sum.Sent+c.Sent, sum.Recvd+c.Recvd
		if c.First.Before(sum.First) {
			sum.First = c.First
		}
		if c.Last.After(sum.Last) {
			sum.Last = c.Last
		}
	}
	slices.SortStableFunc(sums, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Caller, b.Caller), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Site, b.Site))
	})
	return sums
}
