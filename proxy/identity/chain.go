package identity

import (
	"context"

	"github.com/sallyport/sallyport/policy"
)

// Identifier is one way of telling who is behind an address: proxy's interface
// of that name.
type Identifier interface {
	// Identify returns source with what is known beside its Addr and VPCEndpoint.
	Identify(ctx context.Context, source policy.Source) policy.Source
}

// Chain asks its members in turn, until one knows the task.
type Chain []Identifier

// Identify implements [Identifier]. A caller is Unidentified when a member
// says so and none knows its task.
func (c Chain) Identify(ctx context.Context, source policy.Source) policy.Source {
	unidentified := source.Unidentified
	for _, member := range c {
		source = member.Identify(ctx, source)
		if source.Task != nil {
			source.Unidentified = false
			return source
		}
		unidentified = unidentified || source.Unidentified
	}
	source.Unidentified = unidentified
	return source
}
