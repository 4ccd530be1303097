package history

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The JSON of sites and flows, for the command line and the API: the record's
// words, flat. What is written is read again without loss.

type callerJSON struct {
	Caller       string `json:"caller"`
	Cluster      string `json:"cluster,omitempty"`
	Service      string `json:"service,omitempty"`
	Family       string `json:"family,omitempty"`
	Source       string `json:"source,omitempty"`
	Principal    string `json:"principal,omitempty"`
	VPCEndpoint  string `json:"vpc_endpoint,omitempty"`
	Unidentified bool   `json:"unidentified,omitempty"`
}

type targetJSON struct {
	Host      string        `json:"host"`
	Port      uint16        `json:"port"`
	Via       string        `json:"via"`
	Protocol  string        `json:"protocol"`
	Inspected bool          `json:"inspected,omitempty"`
	S3        *policy.S3Ref `json:"s3,omitempty"`
	Call      *Call         `json:"s3_call,omitempty"`
}

type decisionJSON struct {
	Verdict   string        `json:"verdict"`
	WouldDeny bool          `json:"would_deny"`
	Reason    policy.Reason `json:"reason"`
	Rule      string        `json:"rule,omitempty"`
}

type taskJSON struct {
	ARN      string            `json:"arn,omitempty"`
	Cluster  string            `json:"cluster,omitempty"`
	Service  string            `json:"service,omitempty"`
	Family   string            `json:"family,omitempty"`
	Revision int               `json:"revision,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
}

type exampleJSON struct {
	Client netip.Addr `json:"client,omitzero"`
	Task   *taskJSON  `json:"task,omitempty"`
	At     time.Time  `json:"at,omitzero"`
}

type siteJSON struct {
	ID string `json:"id"`
	callerJSON
	targetJSON
	decisionJSON
	figuresJSON
	First     time.Time   `json:"first_seen"`
	Last      time.Time   `json:"last_seen"`
	Tasks     int         `json:"tasks"`
	Revisions []string    `json:"revisions,omitempty"`
	Example   exampleJSON `json:"example"`
}

type figuresJSON struct {
	Visits        int64 `json:"visits"`
	Failed        int64 `json:"failed"`
	BytesSent     int64 `json:"bytes_sent"`
	BytesReceived int64 `json:"bytes_received"`
}

type flowJSON struct {
	ID       string    `json:"id"`
	Site     string    `json:"site"`
	Instance string    `json:"instance,omitempty"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end,omitzero"`
	Duration float64   `json:"duration_ms,omitempty"` // for readers; it is not read
	callerJSON
	targetJSON
	Folded bool `json:"folded,omitempty"`
	decisionJSON
	Mode          string          `json:"mode"`
	Enforcement   string          `json:"enforcement,omitempty"` // likewise
	PolicyVersion string          `json:"policy_version,omitempty"`
	Outcome       string          `json:"outcome,omitempty"`
	EndedBy       string          `json:"ended_by,omitempty"`
	BytesSent     int64           `json:"bytes_sent"`
	BytesReceived int64           `json:"bytes_received"`
	Client        netip.AddrPort  `json:"client,omitzero"`
	Peer          netip.AddrPort  `json:"peer,omitzero"`
	Original      netip.AddrPort  `json:"original,omitzero"`
	Task          *taskJSON       `json:"task,omitempty"`
	Detail        json.RawMessage `json:"detail,omitempty"`
}

func callerOut(c Caller) callerJSON {
	return callerJSON{c.Name(), c.Cluster, c.Service, c.Family, c.Source, c.Principal, c.VPCEndpoint, c.Unidentified}
}

func (c callerJSON) in() Caller {
	return Caller{c.Cluster, c.Service, c.Family, c.Source, c.Principal, c.VPCEndpoint, c.Unidentified}
}

func targetOut(t Target) targetJSON {
	out := targetJSON{Host: t.Host, Port: t.Port, Via: t.Via.String(), Protocol: t.Protocol.String(), Inspected: t.Inspected}
	if t.S3.Form != "" {
		out.S3 = &t.S3
	}
	if t.Call != (Call{}) {
		out.Call = &t.Call
	}
	return out
}

func (t targetJSON) in() Target {
	out := Target{Host: t.Host, Port: t.Port, Via: viaOf(t.Via), Protocol: protocolOf(t.Protocol), Inspected: t.Inspected}
	if t.S3 != nil {
		out.S3 = *t.S3
	}
	if t.Call != nil {
		out.Call = *t.Call
	}
	return out
}

func viaOf(word string) policy.Via {
	for v := policy.ViaUnknown; v <= policy.ViaDNS; v++ {
		if v.String() == word {
			return v
		}
	}
	return policy.ViaUnknown
}

func protocolOf(word string) policy.Protocol {
	for p := policy.ProtocolUnknown; p <= policy.ProtocolTCP; p++ {
		if p.String() == word {
			return p
		}
	}
	return policy.ProtocolUnknown
}

func verdictOf(word string) policy.Verdict {
	if word == policy.Allow.String() {
		return policy.Allow
	}
	return policy.Deny
}

func taskOut(t *policy.Task) *taskJSON {
	if t == nil {
		return nil
	}
	return (*taskJSON)(t)
}

// MarshalJSON implements [json.Marshaler].
func (s Site) MarshalJSON() ([]byte, error) {
	out := siteJSON{
		ID: s.ID, callerJSON: callerOut(s.Caller), targetJSON: targetOut(s.Target),
		decisionJSON: decisionJSON{s.Verdict.String(), s.WouldDeny, s.Reason, s.Rule},
		figuresJSON:  figuresJSON(s.Figures), First: s.First, Last: s.Last, Tasks: s.Tasks,
		Example: exampleJSON{s.Example.Client, taskOut(s.Example.Task), s.Example.At},
	}
	for _, r := range s.Revisions {
		out.Revisions = append(out.Revisions, r.String())
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (s *Site) UnmarshalJSON(text []byte) error {
	var in siteJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*s = Site{
		ID: in.ID, Caller: in.callerJSON.in(), Target: in.targetJSON.in(),
		Verdict: verdictOf(in.Verdict), WouldDeny: in.WouldDeny, Reason: in.Reason, Rule: in.Rule,
		Figures: Figures(in.figuresJSON), First: in.First, Last: in.Last, Tasks: in.Tasks,
		Example: Example{in.Example.Client, (*policy.Task)(in.Example.Task), in.Example.At},
	}
	for _, r := range in.Revisions {
		s.Revisions = append(s.Revisions, revisionOf(r))
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (f Flow) MarshalJSON() ([]byte, error) {
	return json.Marshal(flowJSON{
		ID: f.ID, Site: f.Site, Instance: f.Instance, Start: f.Start, End: f.End, Duration: millis(f.Duration()),
		callerJSON: callerOut(f.Caller), targetJSON: targetOut(f.Target), Folded: f.folded,
		decisionJSON: decisionJSON{f.Verdict.String(), f.WouldDeny, f.Reason, f.Rule},
		Mode:         f.Mode.String(), Enforcement: f.Enforcement(), PolicyVersion: f.PolicyVersion,
		Outcome: string(f.Outcome), EndedBy: string(f.EndedBy), BytesSent: f.BytesSent, BytesReceived: f.BytesReceived,
		Client: f.Client, Peer: f.Peer, Original: f.Original, Task: taskOut(f.Task), Detail: f.Detail,
	})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *Flow) UnmarshalJSON(text []byte) error {
	var in flowJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*f = Flow{
		ID: in.ID, Site: in.Site, Instance: in.Instance, Start: in.Start, End: in.End,
		Caller: in.callerJSON.in(), Target: in.targetJSON.in(), folded: in.Folded,
		Verdict: verdictOf(in.Verdict), WouldDeny: in.WouldDeny, Reason: in.Reason, Rule: in.Rule,
		PolicyVersion: in.PolicyVersion, Outcome: flow.Outcome(in.Outcome), EndedBy: flow.EndedBy(in.EndedBy),
		BytesSent: in.BytesSent, BytesReceived: in.BytesReceived,
		Client: in.Client, Peer: in.Peer, Original: in.Original, Task: (*policy.Task)(in.Task), Detail: in.Detail,
	}
	if in.Mode == policy.Report.String() {
		f.Mode = policy.Report
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (s Summary) MarshalJSON() ([]byte, error) {
	out := struct {
		Caller    string `json:"caller"`
		Cluster   string `json:"cluster,omitempty"`
		Where     string `json:"site"`
		Host      string `json:"host"`
		Bucket    string `json:"bucket,omitempty"`
		Port      uint16 `json:"port"`
		Verdict   string `json:"verdict"`
		WouldDeny int64  `json:"would_deny"`
		figuresJSON
		First      time.Time       `json:"first_seen"`
		Last       time.Time       `json:"last_seen"`
		Tasks      int             `json:"tasks"`
		Revisions  []string        `json:"revisions,omitempty"`
		Reasons    []policy.Reason `json:"reasons"`
		Rules      []string        `json:"rules,omitempty"`
		Vias       []string        `json:"vias"`
		Protocols  []string        `json:"protocols,omitempty"`
		Operations []string        `json:"s3_operations,omitempty"`
		Accounts   []string        `json:"s3_accounts,omitempty"`
		Sites      []string        `json:"ids"`
	}{
		Caller: s.Caller, Cluster: s.Cluster, Where: s.Where(), Host: s.Host, Bucket: s.Bucket, Port: s.Port, Verdict: s.Verdict.String(),
		WouldDeny: s.WouldDeny, figuresJSON: figuresJSON(s.Figures), First: s.First, Last: s.Last, Tasks: s.Tasks,
		Reasons: s.Reasons, Rules: s.Rules, Operations: s.Operations, Accounts: s.Accounts, Sites: s.Sites,
		Revisions: words(s.Revisions), Vias: words(s.Vias), Protocols: words(s.Protocols),
	}
	return json.Marshal(out)
}

func words[T interface{ String() string }](all []T) []string {
	out := make([]string, 0, len(all))
	for _, one := range all {
		out = append(out, one.String())
	}
	return out
}
