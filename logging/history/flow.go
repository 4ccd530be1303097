package history

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Flow is one attempt, with what it takes to decide it again.
type Flow struct {
	ID       string // ULID, that of the record
	Site     string // ID of its site
	Instance string // the proxy

	Start time.Time
	End   time.Time // zero: it had not ended when it was last heard of
	Caller
	Target // its Host is the flow's own, also where the site is [Other]'s

	Client   netip.AddrPort
	Task     *policy.Task // nil when it is not known
	Peer     netip.AddrPort
	Original netip.AddrPort

	Verdict       policy.Verdict
	Mode          policy.Mode
	WouldDeny     bool
	Reason        policy.Reason
	Rule          string
	PolicyVersion string

	Outcome       flow.Outcome // "" while it lasts
	EndedBy       flow.EndedBy
	BytesSent     int64
	BytesReceived int64
	// Detail is what is only ever shown: the error, TLS, HTTP, times. It is a
	// JSON object, nil for none.
	Detail json.RawMessage

	folded bool // its site is Other's
}

// Folded reports whether the flow is counted at a site of [Other]: its Host is
// its own, and the rest of its Target is not.
func (f *Flow) Folded() bool { return f.folded }
