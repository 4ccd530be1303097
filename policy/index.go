package policy

// ruleMatch is what a rule asks of a query besides its destination.
type ruleMatch struct{}
