package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Explanation is a decision and how it came about, in words.
type Explanation struct {
	Query    Query
	Decision Decision
	// Request is what the request inside TLS says, nil when there is none or it
	// cannot be read. On a connection that is not inspected nobody sees it, and
	// Decision does not regard it.
	Request *S3Call
	// Sources names the sources that the caller belongs to, in the documents'
	// order.
	Sources []string
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
	e := Explanation{Query: q, Decision: p.Decide(q), Request: q.S3}
	e.tell(p)
	return e
}

// tell fills in how the decision came about.
func (e *Explanation) tell(p *Policy) {
	if p == nil || len(p.rules) == 0 {
		e.say("there is no rule: everything is denied")
	}
	if p == nil {
		p = &Policy{}
	}
	e.caller(p)
	e.reading()
	e.request()
	if e.Query.S3 != nil && e.Decision.Reason == ReasonNameMismatch {
		e.say("the connection is for %s and the request for %s: these are different endpoints, and no rule is asked", e.Query.Host, e.Query.S3.Host)
	} else {
		e.considered(p)
	}
	e.outcome()
	if e.Decision.Reason != ReasonRule {
		e.Remedy = p.remedy(e.Query, e.Decision)
	}
}

func (e *Explanation) say(format string, args ...any) {
	e.Steps = append(e.Steps, fmt.Sprintf(format, args...))
}

// reading says what the S3 grammar reads from the host.
func (e *Explanation) reading() {
	ref, whose := e.Decision.S3, "host"
	if ref.Form == "" {
		return
	}
	if e.Query.S3 != nil {
		whose = "request"
	}
	e.say("the %s is S3's (%s): %s", whose, ref.Form, refText(ref))
	if ref.Opaque() && e.Query.S3 == nil && !e.Decision.Inspect {
		e.say("it does not tell the bucket; a rule that inspects, one with opaque: allow, or a host rule that spells it out could allow it, the latter two every bucket there")
	}
}

// refText lists what S3's grammar read.
func refText(ref S3Ref) string {
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
	return strings.Join(parts, ", ")
}

// near is a rule whose destination fits, and what of it does not.
type near struct {
	rule int32
	miss miss
}

// considered says of each rule whose destination fits why it applies or not,
// then the same of a copy's source.
func (e *Explanation) considered(p *Policy) {
	var s search
	s.begin(p, &e.Query)
	host := e.Query.named()
	s.run(host)
	if e.weigh(&s, func(v visit) { s.candidates(host, v) }) == 0 && len(p.rules) > 0 {
		e.strangers(p)
	}
	if s.deny >= 0 || s.allow < 0 || !s.copies() {
		return
	}
	t := s.ofSource()
	e.say("a copy reads its source, so some rule must allow GetObject of %s", refText(t.s3))
	t.candidatesOfSource(t.consider)
	t.settle(ProtocolTLS)
	if e.weigh(&t, t.candidatesOfSource) == 0 {
		e.say("no rule lists it")
	}
}

// weigh says of each rule that a search visits why it applies or not, and
// returns how many there are.
func (e *Explanation) weigh(s *search, visits func(visit)) int {
	var all []near
	visits(func(rules []int32, spelled bool) {
		for _, i := range rules {
			all = append(all, near{i, s.misses(&s.policy.rules[i], spelled)})
		}
	})
	slices.SortFunc(all, func(a, b near) int {
		if a.rule != b.rule {
			return int(a.rule - b.rule)
		}
		return int(a.miss) - int(b.miss)
	})
	all = slices.CompactFunc(all, func(a, b near) bool { return a.rule == b.rule })
	for _, n := range all[:min(len(all), explained)] {
		e.say("%s", s.policy.wording(s, n))
	}
	if more := len(all) - explained; more > 0 {
		e.say("and %d more rules that list the destination", more)
	}
	return len(all)
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
		text := subject + fmt.Sprintf("%s it for the sources %s only", verb, strings.Join(names, ", "))
		if r.Verdict == Deny || s.caller.Principal != "" || s.asks.call != nil || !s.provable(r.match.sources) {
			return text
		}
		text += "; proxy credentials could make the caller one of them"
		if !s.asksProof {
			text += ", over CONNECT"
		}
		return text
	case missOperation, missAccount:
		return subject + s.callWording(r, n.miss)
	}
	if s.waits(r) {
		return subject + "inspects: it " + verb + " by what the requests inside TLS say"
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
	case d.Verdict == Deny && d.Reason == ReasonCredentials:
		e.say("denied: credentials; the client is asked for proxy credentials (407), with which a rule would allow it")
	case d.Verdict == Deny:
		e.say("denied: %s", d.Reason)
	case d.Inspect:
		e.say("allowed for inspection: TLS ends at the proxy, and each request is decided by its bucket, operation and signer")
	case e.Query.S3 != nil:
		e.say("allowed: the request goes on as it was sent")
	case d.Protocol == ProtocolTLS:
		e.say("allowed, as TLS for this name")
	case d.Protocol == ProtocolHTTP:
		e.say("allowed, as plain HTTP")
	default:
		e.say("allowed, whatever it carries")
	}
	e.budgets()
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
