package policy

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// lapse is a learning window and who is in it.
type lapse struct {
	pos   Pos
	until time.Time
	whose string
}

// Warnings returns what is allowed and probably not meant: rules that another
// shadows, permissions that nothing needs, learning windows that have closed
// at the moment given.
func (p *Policy) Warnings(at time.Time) []Warning {
	if p == nil {
		return nil
	}
	all := append([]Warning(nil), p.warnings...)
	for _, l := range p.lapses {
		if !at.Before(l.until) {
			all = append(all, Warning{
				Pos:     l.pos,
				Message: fmt.Sprintf("report mode of %s ended at %s: it is enforced now", l.whose, l.until.Format(time.RFC3339)),
				Hint:    "write mode: enforce, or a later date",
			})
		}
	}
	return all
}

// Notes returns what the policy's author should know and can do nothing
// about here.
func (p *Policy) Notes() []Warning {
	if p == nil {
		return nil
	}
	return append([]Warning(nil), p.notes...)
}

func (c *compiler) warn(pos Pos, hint, format string, args ...any) {
	c.policy.warnings = append(c.policy.warnings, Warning{pos, fmt.Sprintf(format, args...), hint})
}

func (c *compiler) lint() {}

func (c *compiler) note(r *reader, n *yaml.Node, text *ruleText, pattern string) {}

func (c *compiler) checkBroad(r *reader, n *yaml.Node, text *ruleText, patterns []string) {}
