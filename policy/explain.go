package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Explanation is a decision and how it came about, in words.
type Explanation struct {
	Query    Query
	Decision Decision
	// Steps are what was looked at, in the order in which it counted.
	Steps []string
	// Remedy is the smallest rule that would allow the attempt, as an entry of
	// a document's rules; "" when the attempt is allowed, and when no rule could
	// or should allow it.
	Remedy string
}

// explained bounds how many rules an explanation speaks of.
const explained = 20

// Explain answers a query as [Policy.Decide] does, and says why. It is for
// people, not for the data path.
func (p *Policy) Explain(q Query) Explanation {
	e := Explanation{Query: q, Decision: p.Decide(q)}
	if p == nil || len(p.rules) == 0 {
		e.say("there is no rule: everything is denied")
	}
	if p == nil {
		p = &Policy{}
	}
	e.caller(p)
	e.reading()
	e.considered(p)
	e.outcome()
	if e.Decision.Reason != ReasonRule {
		e.Remedy = p.remedy(q, e.Decision)
	}
	return e
}

func (e *Explanation) say(format string, args ...any) {
	e.Steps = append(e.Steps, fmt.Sprintf(format, args...))
}

// caller says which sources the caller belongs to, and its mode.
func (e *Explanation) caller(p *Policy) {
	a := e.Query.Source.Addr
	switch {
	case len(p.sources) == 0:
	case !a.IsValid():
		e.say("the caller's address is not given, so it belongs to no source")
	case e.Decision.Source == "":
		e.say("the caller %s belongs to no source", a)
	default:
		var names []string
		for i := range p.sources {
			if s := &p.sources[i]; s.prefixes.holds(a.Unmap()) {
				names = append(names, fmt.Sprintf("%q (%s)", s.name, s.pos))
			}
		}
		e.say("the caller %s belongs to %s", a, strings.Join(names, ", "))
	}
	if e.Decision.Mode == Report {
		e.say("report mode: what would be denied is let through and marked")
	}
}

// reading says what the S3 grammar reads from the host.
func (e *Explanation) reading() {
	ref := e.Decision.S3
	if ref.Form == "" {
		return
	}
	var parts []string
	for _, part := range []struct{ name, value string }{
		{"bucket", ref.Bucket},
		{"access point", ref.AccessPoint},
		{"account", ref.Account},
		{"Region", ref.Region},
		{"partition", ref.Partition},
	} {
		if part.value != "" {
			parts = append(parts, part.name+" "+part.value)
		}
	}
	e.say("the host is S3's (%s): %s", ref.Form, strings.Join(parts, ", "))
	if ref.Opaque() {
		e.say("it does not tell the bucket; only a host rule that spells it out could allow it, and with it every bucket there")
	}
}

// near is a rule whose destination fits, and what of it does not.
type near struct {
	rule int32
	miss miss
}

// considered says of each rule whose destination fits why it applies or not.
func (e *Explanation) considered(p *Policy) {
	s := p.begin(e.Query)
	var all []near
	p.candidates(e.Query.Host, s.s3, func(rules []int32, spelled bool) {
		for _, i := range rules {
			all = append(all, near{i, s.misses(&p.rules[i], spelled)})
		}
	})
	s.run(e.Query.Host)
	slices.SortFunc(all, func(a, b near) int {
		if a.rule != b.rule {
			return int(a.rule - b.rule)
		}
		return int(a.miss) - int(b.miss)
	})
	all = slices.CompactFunc(all, func(a, b near) bool { return a.rule == b.rule })
	for _, n := range all[:min(len(all), explained)] {
		e.say("%s", p.wording(&s, n))
	}
	if more := len(all) - explained; more > 0 {
		e.say("and %d more rules that list the destination", more)
	}
	if len(all) == 0 && len(p.rules) > 0 {
		e.strangers(p)
	}
}

// wording says why a rule whose destination fits applies or not.
func (p *Policy) wording(s *search, n near) string {
	r := &p.rules[n.rule]
	verb := "allows"
	if r.Verdict == Deny {
		verb = "denies"
	}
	subject := fmt.Sprintf("rule %q (%s) ", r.Name, r.Pos)
	switch n.miss {
	case missWildcard:
		return subject + "lists the host by a wildcard only; S3 hosts are decided by s3 rules, or by a host rule that spells them out"
	case missRegion:
		where := s.s3.Region
		if where == "" {
			where = "a host that does not tell its Region"
		}
		scope := strings.Join(r.match.s3.regions, ", ")
		if scope == "" {
			scope = "partition " + r.match.s3.partition
		}
		return subject + fmt.Sprintf("%s the bucket in %s, not in %s", verb, scope, where)
	case missPort:
		return subject + fmt.Sprintf("%s it on port %s, not on %d", verb, portsText(r.match.ports), s.port)
	case missProtocol:
		return subject + fmt.Sprintf("%s it for %s, not for %s", verb, r.Protocol, s.protocol)
	case missSource:
		names := make([]string, len(r.match.sources))
		for i, id := range r.match.sources {
			names[i] = strconv.Quote(p.sources[id].name)
		}
		return subject + fmt.Sprintf("%s it for the sources %s only", verb, strings.Join(names, ", "))
	}
	if r.Verdict == Deny {
		if s.deny < 0 { // else this rule or an earlier one decides
			return subject + fmt.Sprintf("denies it for %s, which the rule that allows it does not let through", r.Protocol)
		}
		return subject + "denies it"
	}
	text := subject + "allows it"
	if n.rule != s.allow {
		text += ", but another rule that allows it governs"
	} else if len(r.ResolvesTo) > 0 {
		text += fmt.Sprintf(", and its addresses may lie in %v", r.ResolvesTo)
	}
	return text
}

// strangers says which rules list something close to a name that none lists.
func (e *Explanation) strangers(p *Policy) {
	name := e.Query.Host.name
	for end := len(name); name != "" && end >= 0; end = strings.LastIndexByte(name[:end], '.') {
		suffix := name
		if end < len(name) {
			suffix = name[end+1:]
		}
		n := p.hosts.nodes[suffix]
		if n == nil || !strings.Contains(suffix, ".") {
			continue
		}
		for _, near := range []struct {
			rules []int32
			text  string
		}{
			{n.one, "lists *." + suffix + ", which is one label below " + suffix},
			{n.many, "lists **." + suffix + ", which does not match " + suffix + " itself"},
			{n.exact, "lists " + suffix + ", which is that name alone"},
		} {
			for _, i := range near.rules[:min(len(near.rules), 1)] {
				e.say("rule %q (%s) %s", p.rules[i].Name, p.rules[i].Pos, near.text)
			}
		}
	}
	e.say("no rule lists the destination")
}

// outcome says what the decision means for the connection.
func (e *Explanation) outcome() {
	d := e.Decision
	switch {
	case d.WouldDeny():
		e.say("enforced, it would be denied: %s", d.Reason)
	case d.Verdict == Deny:
		e.say("denied: %s", d.Reason)
	case d.Protocol == ProtocolTLS:
		e.say("allowed, as TLS for this name")
	case d.Protocol == ProtocolHTTP:
		e.say("allowed, as plain HTTP")
	default:
		e.say("allowed, whatever it carries")
	}
}

// portsText lists ports as a document does.
func portsText(ranges []portRange) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = strconv.Itoa(int(r.low))
		if r.high != r.low {
			texts[i] += "-" + strconv.Itoa(int(r.high))
		}
	}
	return strings.Join(texts, ", ")
}

// Summary returns the answer in one line: the verdict, the target, the
// reason, the rule and its place.
func (e Explanation) Summary() string {
	d := e.Decision
	word := d.Verdict.String()
	if d.WouldDeny() {
		word = "report"
	}
	line := fmt.Sprintf("%s %s: %s", word, targetText(e.Query), d.Reason)
	if d.Rule != nil {
		line += fmt.Sprintf(", rule %q at %s", d.Rule.Name, d.Rule.Pos)
	}
	return line
}

// String returns the summary, the steps and the remedy, for a terminal.
func (e Explanation) String() string {
	var b strings.Builder
	b.WriteString(e.Summary() + "\n")
	for _, s := range e.Steps {
		b.WriteString("  - " + s + "\n")
	}
	if e.Remedy != "" {
		b.WriteString("this rule would allow it:\n")
		for line := range strings.Lines(e.Remedy) {
			b.WriteString("  " + line)
		}
	}
	return b.String()
}

// MarshalJSON returns the explanation as one object, its words those of the
// record (DESIGN.md section 8).
func (e Explanation) MarshalJSON() ([]byte, error) {
	d := e.Decision
	out := struct {
		Host      string    `json:"host"`
		Port      uint16    `json:"port"`
		Via       string    `json:"via"`
		Client    string    `json:"client,omitempty"`
		At        time.Time `json:"at,omitzero"`
		Verdict   string    `json:"verdict"`
		Reason    Reason    `json:"reason"`
		Mode      string    `json:"mode"`
		WouldDeny bool      `json:"would_deny"`
		Protocol  string    `json:"protocol,omitempty"`
		Source    string    `json:"source,omitempty"`
		Rule      string    `json:"rule,omitempty"`
		RuleAt    string    `json:"rule_at,omitempty"`
		Owner     string    `json:"owner,omitempty"`
		S3        S3Ref     `json:"s3,omitzero"`
		Steps     []string  `json:"steps"`
		Remedy    string    `json:"remedy,omitempty"`
	}{
		Host: e.Query.Host.String(), Port: e.Query.Port, Via: e.Query.Via.String(), At: e.Query.At,
		Verdict: d.Verdict.String(), Reason: d.Reason, Mode: d.Mode.String(),
		WouldDeny: d.WouldDeny(), Source: d.Source, S3: d.S3, Steps: e.Steps, Remedy: e.Remedy,
	}
	if e.Query.Source.Addr.IsValid() {
		out.Client = e.Query.Source.Addr.String()
	}
	if d.Verdict == Allow {
		out.Protocol = d.Protocol.String()
	}
	if d.Rule != nil {
		out.Rule, out.Owner, out.RuleAt = d.Rule.Name, d.Rule.Owner, d.Rule.Pos.String()
	}
	return json.Marshal(out)
}

// targetText names a query's destination.
func targetText(q Query) string {
	host := q.Host.String()
	if host == "" {
		host = "(no name)"
	}
	if a, literal := q.Host.Addr(); literal && a.Is6() {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(q.Port))
}
