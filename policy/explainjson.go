package policy

import (
	"encoding/json"
	"time"
)

// callJSON is a call in words.
type callJSON struct {
	Host       string      `json:"host"`
	S3         S3Ref       `json:"s3"`
	Operation  string      `json:"operation,omitempty"`
	ACL        string      `json:"acl,omitempty"`
	Key        string      `json:"key,omitempty"`
	CopySource *sourceJSON `json:"copy_source,omitempty"`
	Signer     signerJSON  `json:"signer"`
	// OfSource means that the reason is the copy's source's.
	OfSource bool `json:"of_source,omitempty"`
}

type sourceJSON struct {
	S3Ref
	Key     string `json:"key"`
	Version string `json:"version,omitempty"`
}

type signerJSON struct {
	Scheme      S3Scheme `json:"scheme"`
	AccessKeyID string   `json:"access_key_id,omitempty"`
	Account     string   `json:"account,omitempty"`
	Region      string   `json:"region,omitempty"`
	Expires     string   `json:"expires,omitempty"`
}

// newCallJSON returns nil for no call.
func newCallJSON(c *S3Call, d Decision) *callJSON {
	if c == nil {
		return nil
	}
	out := &callJSON{
		Host: c.Host.String(), S3: c.Ref, Operation: c.Operation, ACL: c.ACL, Key: c.Key, OfSource: d.OfSource,
		Signer: signerJSON(c.Signer),
	}
	if c.Source.Ref.Form != "" {
		out.CopySource = &sourceJSON{c.Source.Ref, c.Source.Key, c.Source.Version}
	}
	return out
}

// taskJSON is a task in words.
type taskJSON struct {
	ARN      string            `json:"arn,omitempty"`
	Cluster  string            `json:"cluster,omitempty"`
	Service  string            `json:"service,omitempty"`
	Family   string            `json:"family,omitempty"`
	Revision int               `json:"revision,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// newTaskJSON returns nil for no task.
func newTaskJSON(t *Task) *taskJSON {
	if t == nil {
		return nil
	}
	out := taskJSON(*t)
	return &out
}

// MarshalJSON returns the explanation as one object, its words those of the
// record (DESIGN.md section 8).
func (e Explanation) MarshalJSON() ([]byte, error) {
	d := e.Decision
	out := struct {
		Host      string       `json:"host"`
		Port      uint16       `json:"port"`
		Via       string       `json:"via"`
		Client    string       `json:"client,omitempty"`
		Principal string       `json:"principal,omitempty"`
		Endpoint  string       `json:"vpc_endpoint,omitempty"`
		Task      *taskJSON    `json:"task,omitempty"`
		Unknown   bool         `json:"unidentified,omitempty"`
		At        time.Time    `json:"at,omitzero"`
		Verdict   string       `json:"verdict"`
		Reason    Reason       `json:"reason"`
		Mode      string       `json:"mode"`
		WouldDeny bool         `json:"would_deny"`
		Protocol  string       `json:"protocol,omitempty"`
		Source    string       `json:"source,omitempty"`
		Sources   []string     `json:"sources,omitempty"`
		Rule      string       `json:"rule,omitempty"`
		RuleAt    string       `json:"rule_at,omitempty"`
		Owner     string       `json:"owner,omitempty"`
		Inspect   bool         `json:"inspect,omitempty"`
		Budgets   []budgetJSON `json:"budgets,omitempty"`
		Enforced  string       `json:"enforcement,omitempty"`
		S3        S3Ref        `json:"s3,omitzero"`
		Request   *callJSON    `json:"request,omitempty"`
		Steps     []string     `json:"steps"`
		Remedy    string       `json:"remedy,omitempty"`
	}{
		Principal: e.Query.Source.Principal, Endpoint: e.Query.Source.VPCEndpoint,
		Task: newTaskJSON(e.Query.Source.Task), Unknown: e.Query.Source.Unidentified, Sources: e.Sources,
		Host: e.Query.Host.String(), Port: e.Query.Port, Via: e.Query.Via.String(), At: e.Query.At,
		Verdict: d.Verdict.String(), Reason: d.Reason, Mode: d.Mode.String(),
		WouldDeny: d.WouldDeny(), Source: d.Source, S3: d.S3, Steps: e.Steps, Remedy: e.Remedy,
		Inspect: d.Inspect, Budgets: newBudgetsJSON(&d), Enforced: string(d.Enforcement), Request: newCallJSON(e.Request, d),
	}
	if e.Query.Source.Addr.IsValid() {
		out.Client = e.Query.Source.Addr.String()
	}
	if d.Verdict == Allow {
		out.Protocol = d.Protocol.String()
	}
	if d.Rule != nil {
		out.Rule, out.Owner, out.RuleAt = d.Rule.Name, d.Rule.Owner, d.Rule.Pos.String()
	}
	return json.Marshal(out)
}
