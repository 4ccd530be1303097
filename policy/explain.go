package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Explanation is a decision and how it came about, in words.
type Explanation struct {
	Query    Query
	Decision Decision
	// Steps are what was looked at, in the order in which it counted.
	Steps []string
	// Remedy is the smallest rule that would allow the attempt, as YAML; ""
	// when it is allowed, or when nothing should allow it.
	Remedy string
}

// Explain answers a query as [Policy.Decide] does, and says why. It is for
// people, not for the data path.
func (p *Policy) Explain(q Query) Explanation {
	e := Explanation{Query: q, Decision: p.Decide(q)}
	return e
}

// Summary returns the answer in one line: the verdict, the target, the rule
// and its place, the reason.
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
		b.WriteString("to allow it:\n")
		for line := range strings.Lines(e.Remedy) {
			b.WriteString("  " + line)
		}
	}
	return b.String()
}

// MarshalJSON returns the explanation as one object, its words those of the
// record (DESIGN.md section 8).
func (e Explanation) MarshalJSON() ([]byte, error) {
	type ruleJSON struct {
		Name  string `json:"name"`
		Owner string `json:"owner,omitempty"`
		At    string `json:"at"`
	}
	d := e.Decision
	out := struct {
		Host      string    `json:"host"`
		Port      uint16    `json:"port"`
		Via       string    `json:"via"`
		Verdict   string    `json:"verdict"`
		Reason    Reason    `json:"reason"`
		Mode      string    `json:"mode"`
		WouldDeny bool      `json:"would_deny"`
		Protocol  string    `json:"protocol,omitempty"`
		Source    string    `json:"source,omitempty"`
		Rule      *ruleJSON `json:"rule,omitempty"`
		S3        S3Ref     `json:"s3,omitzero"`
		Steps     []string  `json:"steps"`
		Remedy    string    `json:"remedy,omitempty"`
	}{
		Host: e.Query.Host.String(), Port: e.Query.Port, Via: e.Query.Via.String(),
		Verdict: d.Verdict.String(), Reason: d.Reason, Mode: d.Mode.String(),
		WouldDeny: d.WouldDeny(), Source: d.Source, S3: d.S3, Steps: e.Steps, Remedy: e.Remedy,
	}
	if d.Verdict == Allow {
		out.Protocol = d.Protocol.String()
	}
	if d.Rule != nil {
		out.Rule = &ruleJSON{d.Rule.Name, d.Rule.Owner, d.Rule.Pos.String()}
	}
	if out.Steps == nil {
		out.Steps = []string{}
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
