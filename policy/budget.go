package policy

import (
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Budget bounds what may be sent in a period, by the callers of a source or
// under a rule. It is immutable and shared.
//
// [Policy.Decide] knows nothing of what was sent and so never denies for a
// budget: whoever carries the bytes counts them, and asks [Decision.Budgets]
// what they count for. A denial for a budget has [ReasonLimit].
type Budget struct {
	Of       BudgetOf
	Name     string // of the source or the rule
	BytesOut int64  // client to origin, in one period
	Per      Period
	Action   BudgetAction
	Pos      Pos
}

// BudgetOf says what a budget belongs to.
type BudgetOf string

// A budget belongs to a source, or to a rule. A preset's rule has one for all
// its parts.
const (
	BudgetOfSource BudgetOf = "source"
	BudgetOfRule   BudgetOf = "rule"
)

// BudgetAction says what becomes of what is beyond a budget. The zero value
// tells.
type BudgetAction uint8

// The two actions: BudgetAlert tells of it, BudgetDeny ends it as well.
const (
	BudgetAlert BudgetAction = iota
	BudgetDeny
)

// String returns "alert" or "deny".
func (a BudgetAction) String() string {
	if a == BudgetDeny {
		return "deny"
	}
	return "alert"
}

// Period is the time that a budget is for. It begins and ends by the calendar,
// in UTC.
type Period uint8

// The periods. A week begins on Monday.
const (
	PerHour Period = iota + 1
	PerDay
	PerWeek
	PerMonth
)

func periods() []Period { return []Period{PerHour, PerDay, PerWeek, PerMonth} }

// String returns the word that a policy document uses.
func (p Period) String() string {
	switch p {
	case PerHour:
		return "hour"
	case PerDay:
		return "day"
	case PerWeek:
		return "week"
	case PerMonth:
		return "month"
	}
	return "unknown"
}

// Bounds returns when the period that t lies in began, and when the next one
// does.
func (p Period) Bounds(t time.Time) (start, end time.Time) {
	t = t.UTC()
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	switch p {
	case PerHour:
		start = t.Truncate(time.Hour)
		return start, start.Add(time.Hour)
	case PerWeek:
		start = day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
		return start, start.AddDate(0, 0, 7)
	case PerMonth:
		start = time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		return start, start.AddDate(0, 1, 0)
	case PerDay:
	}
	return day, day.AddDate(0, 0, 1)
}

// Subject names what the budget belongs to: `rule "uploads"`.
func (b *Budget) Subject() string { return fmt.Sprintf("%s %q", b.Of, b.Name) }

// String returns the budget as people say it: 50GiB out per day, then deny.
func (b *Budget) String() string {
	return fmt.Sprintf("%s out per %s, then %s", SizeText(b.BytesOut), b.Per, b.Action)
}

// Budgets yields the budgets that the bytes of an allowed attempt count for:
// the rule's, then those of all sources that the caller belongs to. A policy
// without budgets costs nothing here. It does not allocate.
func (d *Decision) Budgets() iter.Seq[*Budget] {
	return func(yield func(*Budget) bool) {
		if d.Verdict != Allow {
			return
		}
		if d.Rule != nil && d.Rule.Budget != nil && d.Rule.Verdict == Allow && !yield(d.Rule.Budget) {
			return
		}
		if d.asked.policy == nil {
			return
		}
		for _, i := range d.asked.policy.budgeted {
			s := &d.asked.policy.sources[i]
			if s.lacks(&d.asked.source) == lackNothing && !yield(s.budget) {
				return
			}
		}
	}
}

// Budgets returns every budget of the policy, rules' before sources', each in
// the documents' order.
func (p *Policy) Budgets() []*Budget {
	if p == nil {
		return nil
	}
	var all []*Budget
	for i := range p.rules {
		if b := p.rules[i].Budget; b != nil && (len(all) == 0 || all[len(all)-1] != b) { // a preset's parts share one
			all = append(all, b)
		}
	}
	for _, i := range p.budgeted {
		all = append(all, p.sources[i].budget)
	}
	return all
}

// sizeUnits are what sizes are written with, the largest first.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{
		{"PiB", 1 << 50},
		{"PB", 1e15},
		{"TiB", 1 << 40},
		{"TB", 1e12},
		{"GiB", 1 << 30},
		{"GB", 1e9},
		{"MiB", 1 << 20},
		{"MB", 1e6},
		{"KiB", 1 << 10},
		{"kB", 1e3},
		{"B", 1},
	}
}

// SizeText writes a number of bytes as documents do: in the largest unit that
// leaves it whole, "50GiB".
func SizeText(n int64) string {
	for _, u := range sizeUnits() {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// ParseSize reads a size with its unit: "50GiB", "500MB".
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "BbKkMmGgTtPpi")
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || number < 1 || digits[0] == '+' || digits[0] == '0' {
		return 0, fmt.Errorf("%.40q is not a size", s)
	}
	for _, u := range sizeUnits() {
		if u.name != s[len(digits):] {
			continue
		}
		if number > math.MaxInt64/2/u.bytes {
			return 0, fmt.Errorf("%.40q is too large", s)
		}
		return number * u.bytes, nil
	}
	return 0, fmt.Errorf("%.40q has no unit that is known", s)
}

// budgetText is the value of a budget key.
type budgetText struct {
	node   *yaml.Node
	bytes  int64
	per    Period
	action BudgetAction
}

func budgetKeys() []string { return []string{"bytes_out", "per", "action"} }

// readBudget reads the value of a budget key.
func (r *reader) readBudget(n *yaml.Node) *budgetText {
	const hint = "write budget: {bytes_out: 50GiB, per: day}"
	b := &budgetText{node: n}
	before := r.faults()
	for key, value := range r.fields(n, "a budget", budgetKeys()) {
		switch key.Value {
		case "bytes_out":
			b.bytes = r.readSize(value)
		case "per":
			b.per = r.readPeriod(value)
		case "action":
			if r.word(value, "action", "alert", "deny") == "deny" {
				b.action = BudgetDeny
			}
		}
	}
	if r.faults() > before {
		return b
	}
	switch {
	case b.bytes == 0:
		r.fail(n, hint, "the budget has no bytes_out")
	case b.per == 0:
		r.fail(n, hint, "the budget has no period")
	}
	return b
}

func (r *reader) readSize(n *yaml.Node) int64 {
	const hint = "write a whole number with a unit, without a space: 500MB, 50GiB; the units are B, kB, KiB, MB, MiB, GB, GiB, TB, TiB, PB, PiB"
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		r.fail(n, hint, "bytes_out must be a size, not %s", kindOf(n))
		return 0
	}
	size, err := ParseSize(n.Value)
	if err != nil {
		r.failIn(n, 0, hint, "%v", err)
	}
	return size
}

func (r *reader) readPeriod(n *yaml.Node) Period {
	words := make([]string, 0, len(periods()))
	for _, p := range periods() {
		words = append(words, p.String())
	}
	word := r.word(n, "per", words...)
	for _, p := range periods() {
		if p.String() == word {
			return p
		}
	}
	return 0
}

// compile returns the budget that the text stands for, nil for none.
func (b *budgetText) compile(r *reader, of BudgetOf, name string) *Budget {
	if b == nil {
		return nil
	}
	return &Budget{Of: of, Name: name, BytesOut: b.bytes, Per: b.per, Action: b.action, Pos: r.pos(b.node)}
}

// budget compiles a rule's budget, which a preset's parts share.
func (c *compiler) budget(r *reader, text *ruleText) *Budget {
	if text.budget != nil && text.verdict == Deny {
		r.fail(text.budget.node, "leave it out", "a budget has no meaning in a deny rule: nothing is sent under it")
		return nil
	}
	if text.shared != nil {
		return text.shared
	}
	return text.budget.compile(r, BudgetOfRule, text.name)
}

// budgets says which budgets count what is sent.
func (e *Explanation) budgets() {
	for b := range e.Decision.Budgets() {
		e.say("the budget of the %s (%s) counts what is sent: %s; how much of it is spent is not judged here", b.Subject(), b.Pos, b)
	}
}

// budgetJSON is a budget in words.
type budgetJSON struct {
	Of       BudgetOf `json:"of"`
	Name     string   `json:"name"`
	At       string   `json:"at"`
	BytesOut int64    `json:"bytes_out"`
	Per      string   `json:"per"`
	Action   string   `json:"action"`
}

func newBudgetsJSON(d *Decision) []budgetJSON {
	var all []budgetJSON
	for b := range d.Budgets() {
		all = append(all, budgetJSON{b.Of, b.Name, b.Pos.String(), b.BytesOut, b.Per.String(), b.Action.String()})
	}
	return all
}
