package history

import (
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Summary is what people call a site: a caller, a host or bucket, a port and
// a verdict. It joins the [Site]s that differ in the rest.
type Summary struct {
	Sites       []string // their IDs, the busiest first
	Cluster     string
	Caller      string // [Caller.Name]
	Host        string // the bucket's name where there is one: see Bucket
	Bucket      string // also an access point's name
	Port        uint16
	Verdict     policy.Verdict
	WouldDeny   int64           // visits that report mode alone let through
	Reasons     []policy.Reason // the most frequent first, as the lists below
	Rules       []string
	Vias        []policy.Via
	Protocols   []policy.Protocol
	Operations  []string
	Accounts    []string
	Revisions   []Revision
	Tasks       int // at least so many
	First, Last time.Time
	Figures
}

// Summarize joins sites, by caller, destination, port and verdict.
func Summarize(sites []Site) []Summary { return nil }
