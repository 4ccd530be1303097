package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// SuggestOptions says how [Suggest] judges. The zero value is the default.
type SuggestOptions struct {
	// Now is the moment that coverage is told for; zero is that of the last
	// observation.
	Now time.Time
	// MinCount is how many attempts must have reached a destination before it is
	// suggested; 0 is 2, so that what happened once is left out.
	MinCount int64
	// MinSiblings is how many names with one parent make a wildcard, where one is
	// safe; 0 is 5, and less than 0 means never.
	MinSiblings int
	// Policy is the policy in force, nil for none: it defines the sources that
	// observations name, and the private ranges that names may lead to.
	Policy *Policy
}

func (o SuggestOptions) orDefaults(seen []Seen) SuggestOptions {
	if o.MinCount <= 0 {
		o.MinCount = 2
	}
	if o.MinSiblings == 0 {
		o.MinSiblings = 5
	}
	if o.Now.IsZero() {
		for i := range seen {
			if seen[i].Last.After(o.Now) {
				o.Now = seen[i].Last
			}
		}
	}
	return o
}

// Suggestion is a policy for what was seen, with its reasons. It is the
// smallest that allows what is kept: nothing is in it that was not seen, but
// for presets, and for wildcards over names that one owner gives out.
type Suggestion struct {
	Coverage Coverage          `json:"coverage"`
	Sources  []SuggestedSource `json:"sources"`
	Rules    []SuggestedRule   `json:"rules"`
	LeftOut  []LeftOut         `json:"left_out"`

	kept         []keptSeen
	allowUnknown bool // some that were kept came from callers who are not known
}

// SuggestedSource is who calls, as the policy language has it.
type SuggestedSource struct {
	Name string   `json:"name"`
	Text []string `json:"text"` // the lines of its conditions, like `principals: ["web"]`

	example Source
}

// SuggestedRule is one rule, and what speaks for it. One of Hosts, S3 and
// Preset is set.
type SuggestedRule struct {
	Name       string            `json:"name"`
	Source     string            `json:"source,omitempty"` // "" for everybody
	Hosts      []SuggestedHost   `json:"hosts,omitempty"`
	S3         *SuggestedS3      `json:"s3,omitempty"`
	Preset     string            `json:"preset,omitempty"`
	With       map[string]string `json:"with,omitempty"`
	Protocol   string            `json:"protocol,omitempty"` // "tls", "http" or "tcp"; "" of presets
	Ports      []uint16          `json:"ports,omitempty"`
	ResolvesTo []netip.Prefix    `json:"resolves_to,omitempty"`
	Evidence   Evidence          `json:"evidence"`
}

// SuggestedHost is a pattern of hosts, and the names that it stands for.
type SuggestedHost struct {
	Pattern string   `json:"pattern"`
	Names   []string `json:"names,omitempty"` // of a wildcard: those that were seen
}

// SuggestedS3 is the destination of an S3 rule.
type SuggestedS3 struct {
	Buckets      []string `json:"buckets,omitempty"`
	AccessPoints []string `json:"access_points,omitempty"`
	Regions      []string `json:"regions,omitempty"`
	Partition    string   `json:"partition,omitempty"`
	Inspect      bool     `json:"inspect,omitempty"`
	Operations   []string `json:"operations,omitempty"`
	Accounts     []string `json:"accounts,omitempty"`
	Anonymous    bool     `json:"anonymous,omitempty"`
}

// Evidence is what was seen of a rule's traffic.
type Evidence struct {
	Count         int64     `json:"count"`
	BytesSent     int64     `json:"bytes_sent"`
	BytesReceived int64     `json:"bytes_received"`
	First         time.Time `json:"first"`
	Last          time.Time `json:"last"`
	Tasks         int       `json:"tasks,omitempty"` // at least
}

func (e *Evidence) add(s *Seen) {
	e.Count += s.Count
	e.BytesSent, e.BytesReceived = e.BytesSent+s.BytesSent, e.BytesReceived+s.BytesReceived
	if e.First.IsZero() || (!s.First.IsZero() && s.First.Before(e.First)) {
		e.First = s.First
	}
	if s.Last.After(e.Last) {
		e.Last = s.Last
	}
	e.Tasks = max(e.Tasks, s.Tasks)
}

// keptSeen is an observation that the suggestion allows.
type keptSeen struct {
	*Seen
	query      Query
	caller     *suggestedCaller
	resolvesTo []netip.Prefix
}

// effort is how much Suggest tries to say in few words. When what it wrote does
// not pass the checks that it promises, it says it in more.
type effort uint8

const (
	effortAll effort = iota
	effortNoPresets
	effortNoWildcards
)

// Suggest returns the smallest honest policy for what was seen. It is
// deterministic: the order of the observations does not matter.
//
// What it writes compiles without a warning and allows every observation that
// it kept. A wildcard is proposed over at least MinSiblings names with one
// parent when all of this holds: it spans no names that strangers can register
// by the Public Suffix List; its parent is no domain that is known to give names
// to its customers; the names read as parts of one service; none of them looks
// drawn by a machine; and no name below the parent was denied or is suspicious.
// S3 is never written as hosts.
func Suggest(seen []Seen, o SuggestOptions) Suggestion {
	o = o.orDefaults(seen)
	sums := merged(seen)
	var s Suggestion
	for e := range effortNoWildcards + 1 {
		g := newSuggester(sums, o, e)
		if s = g.suggest(); s.sound() {
			break
		}
	}
	s.Coverage = coverage(sums, o)
	return s
}

// sound reports whether the suggestion keeps its promises.
func (s *Suggestion) sound() bool {
	p, err := Load(Text{"suggested.yaml", s.Document()})
	if err != nil || len(p.Warnings(time.Time{})) > 0 {
		return false
	}
	for i := range s.kept {
		if p.Decide(s.kept[i].query).Reason != ReasonRule {
			return false
		}
	}
	return true
}

// suggester makes one suggestion.
type suggester struct {
	SuggestOptions
	effort  effort
	sums    []Seen
	odd     map[*Seen]string // what looks suspicious, and why
	callers *callerBook
	closed  map[string]bool // domains below which a name is to stay out
	// ownPresets are the domains that the caller's presets have names of.
	ownPresets map[string]bool
	names      map[string]bool // of rules
	out        Suggestion
}

func newSuggester(sums []Seen, o SuggestOptions, e effort) *suggester {
	return &suggester{
		SuggestOptions: o, effort: e, sums: sums,
		callers: newCallerBook(sums, o.Policy), odd: suspicious(sums),
		closed: map[string]bool{}, names: map[string]bool{},
		out: Suggestion{Sources: []SuggestedSource{}, Rules: []SuggestedRule{}, LeftOut: []LeftOut{}},
	}
}

func (g *suggester) suggest() Suggestion {
	g.sift()
	byCaller := map[*suggestedCaller][]keptSeen{}
	for _, k := range g.out.kept {
		byCaller[k.caller] = append(byCaller[k.caller], k)
	}
	for _, c := range g.callers.ordered(byCaller) {
		if c.name != "" {
			g.out.Sources = append(g.out.Sources, SuggestedSource{Name: c.name, Text: c.text, example: c.example})
		}
		kept := byCaller[c]
		g.s3Rules(c, g.presetRules(c, &kept))
		g.hostRules(c, kept)
	}
	g.settle()
	return g.out
}

// settle takes from what is left out what the rules allow all the same.
func (g *suggester) settle() {
	p, err := Load(Text{"suggested.yaml", g.out.Document()})
	if err != nil {
		return
	}
	g.out.LeftOut = slices.DeleteFunc(g.out.LeftOut, func(l LeftOut) bool {
		return l.query.Host != (Host{}) && p.Decide(l.query).Reason == ReasonRule
	})
}

// newRule names a rule by its caller and its purpose.
func (g *suggester) newRule(c *suggestedCaller, purpose string) SuggestedRule {
	base := nameFrom(purpose)
	if c.name != "" {
		base = c.name + "-" + base
	}
	const room = len("-9999")
	base = strings.Trim(base[:min(len(base), maxName-room)], "._-")
	name := base
	for i := 2; g.names[name]; i++ {
		name = base + "-" + decimalOf(i)
	}
	g.names[name] = true
	return SuggestedRule{Name: name, Source: c.name}
}
