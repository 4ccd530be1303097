package policy

// VersionOf returns the version that [Load] gives a policy of these documents,
// whether or not they can be loaded: who reloads tells by it whether anything
// has changed, and names what was refused.
func VersionOf(documents ...Text) string { return versionOf(documents) }

// Sources returns how many sources of traffic the policy names.
func (p *Policy) Sources() int {
	if p == nil {
		return 0
	}
	return len(p.sources)
}
