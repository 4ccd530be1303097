package policy

// Need is something that a source asks of its callers and that only some
// deployments can know: what can be named to whoever serves the policy where
// nothing tells it.
type Need struct {
	Source    string
	Pos       Pos
	Condition string // "ecs", "principals" or "vpc_endpoints"
}

// Needs returns what the policy's sources ask for, in the documents' order.
func (p *Policy) Needs() []Need {
	if p == nil {
		return nil
	}
	var all []Need
	for i := range p.sources {
		s := &p.sources[i]
		for _, asked := range []struct {
			is        bool
			condition string
		}{{s.ecs != nil, "ecs"}, {len(s.principals) > 0, "principals"}, {len(s.endpoints) > 0, "vpc_endpoints"}} {
			if asked.is {
				all = append(all, Need{Source: s.name, Pos: s.pos, Condition: asked.condition})
			}
		}
	}
	return all
}

// TellsCallers reports whether the policy tells callers apart by where they
// call from: by their addresses, or by the tasks that have these.
func (p *Policy) TellsCallers() bool {
	if p == nil {
		return false
	}
	for i := range p.sources {
		if s := &p.sources[i]; s.ecs != nil || s.cidrs {
			return true
		}
	}
	return false
}
