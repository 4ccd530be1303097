package policy

// Inspecting returns the rules that ask for inspection, in the documents'
// order: what can be named to whoever serves the policy without a CA. The
// rules are shared: do not change them.
func (p *Policy) Inspecting() []*Rule {
	if p == nil {
		return nil
	}
	var all []*Rule
	for i := range p.rules {
		if p.rules[i].inspects() {
			all = append(all, &p.rules[i])
		}
	}
	return all
}
