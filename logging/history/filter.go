package history

import (
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Filter selects sites and flows. What is not set selects all.
type Filter struct {
	Since, Until time.Time // visited at or after, and before
	Service      string    // a [Caller.Name], or CLUSTER/SERVICE; * stands for anything
	Source       string    // the policy's name for the caller
	Task         string    // ID or ARN
	Family       string
	Revision     int // with Family; 0 for any
	// Host is a name, a bucket, or a glob of the policy language's kind: * within
	// a label, ** across labels.
	Host      string
	Verdict   *policy.Verdict
	WouldDeny *bool
	Reasons   []policy.Reason
	Rule      string
	// MinBytes selects flows of at least so many bytes both ways together, and
	// sites that carried so many in the time.
	MinBytes int64
	// Limit bounds how many are returned; 0 does not.
	Limit int
	// Cursor is the ID of a flow: only older ones are returned.
	Cursor string
}
