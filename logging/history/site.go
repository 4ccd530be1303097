package history

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Other is the host under which names are counted that are beyond the bound.
const Other = "(other)"

// Site is one way in which one caller uses one destination: a row for each
// combination of everything that a policy decides on but the time, the address
// and the task. [Summarize] joins those that people see as one.
type Site struct {
	ID string // 16 characters, made of what stands above Visits
	Caller
	Target

	Verdict   policy.Verdict
	WouldDeny bool // let through by report mode only
	Reason    policy.Reason
	Rule      string // that decided, "" for none

	Figures
	First, Last time.Time // when it was visited

	// Tasks is how many tasks were seen here, in all time and at most
	// [MaxTasks]; Revisions are those of task definitions, in order.
	Tasks     int
	Revisions []Revision

	// Example is who visited last: its address, and its task where that is known.
	Example Example
}

// MaxTasks bounds how many tasks of one site are told apart.
const MaxTasks = 256

// Caller is who visits, without what makes one of many tasks of a service.
type Caller struct {
	Cluster      string // of ECS
	Service      string // of ECS, "" for a task that no service started
	Family       string // of the task definition
	Source       string // the policy's name for the caller, "" for none
	Principal    string
	VPCEndpoint  string
	Unidentified bool
}

// Name is what people call the caller: the service, else the family of the
// task definition, else the principal, else the policy's source, else "-".
func (c Caller) Name() string {
	for _, name := range []string{c.Service, c.Family, c.Principal, c.Source} {
		if name != "" {
			return name
		}
	}
	return "-"
}

// Target is what is asked for.
type Target struct {
	Via       policy.Via
	Protocol  policy.Protocol
	Host      string // name, address, "" when none could be learned, or [Other]
	Port      uint16
	Inspected bool
	S3        policy.S3Ref // as [flow.Record.S3]
	Call      Call         // zero but for inspected requests
}

// Call is what an inspected request asked of S3, as far as a policy decides on
// it.
type Call struct {
	Host      string          `json:"host,omitempty"` // inside TLS
	Operation string          `json:"operation,omitempty"`
	ACL       string          `json:"acl,omitempty"`
	Scheme    policy.S3Scheme `json:"scheme,omitempty"`
	Account   string          `json:"account,omitempty"` // the signer's, "" when it is not known
	Source    policy.S3Ref    `json:"source,omitzero"`   // that a copy reads, Form "" when nothing is copied
}

// Figures are what was done at a site, or at many.
type Figures struct {
	Visits        int64 // attempts, counted when they are allowed or denied
	Failed        int64 // of those that were allowed and have ended
	BytesSent     int64 // client to origin, counted when an attempt ends
	BytesReceived int64
}

// Revision is a revision of a task definition.
type Revision struct {
	Family   string
	Revision int
}

// Example is a caller of a site.
type Example struct {
	Client netip.Addr
	Task   *policy.Task // nil when it is not known any more, or never was
	At     time.Time
}
