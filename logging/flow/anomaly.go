package flow

import (
	"fmt"
	"slices"
	"time"
)

// Anomaly is something out of the ordinary in what one caller does. It is one
// for its Kind, Caller and Subject.
type Anomaly struct {
	ID       string // ULID
	Kind     AnomalyKind
	Caller   string // the service, family, principal or source; see package history
	Subject  string // a host, a bucket, a domain, a budget; "" for the caller as a whole
	Severity Severity
	First    time.Time
	Last     time.Time
	Count    int64 // how often it was found
	Evidence Evidence
}

// AnomalyKind is a word of the closed vocabulary of what is looked for.
type AnomalyKind string

// The kinds.
const (
	AnomalyFirstContact AnomalyKind = "first_contact" // a site that the caller never visited
	AnomalyBytesOut     AnomalyKind = "bytes_out"     // far more is sent than in such an hour
	AnomalyDenials      AnomalyKind = "denials"       // far more is denied than usual
	AnomalySubdomains   AnomalyKind = "subdomains"    // many unseen names below one domain
	AnomalyBeacon       AnomalyKind = "beacon"        // contacts like clockwork with a rare site
	AnomalyBucketWrite  AnomalyKind = "bucket_write"  // a bucket is written that was only read
	AnomalyBudget       AnomalyKind = "budget"        // a budget of the policy is spent
)

// AnomalyKinds returns every [AnomalyKind].
func AnomalyKinds() []AnomalyKind {
	return []AnomalyKind{
		AnomalyFirstContact, AnomalyBytesOut, AnomalyDenials, AnomalySubdomains, AnomalyBeacon, AnomalyBucketWrite, AnomalyBudget,
	}
}

// Valid reports whether k is a word of the vocabulary.
func (k AnomalyKind) Valid() bool { return slices.Contains(AnomalyKinds(), k) }

// Severity says how much an anomaly matters.
type Severity int

// The severities.
const (
	Low Severity = iota + 1
	Medium
	High
)

// String returns "low", "medium" or "high".
func (s Severity) String() string {
	switch s {
	case Low:
		return "low"
	case Medium:
		return "medium"
	case High:
		return "high"
	}
	return "unknown"
}

// ParseSeverity reads the words that [Severity.String] writes.
func ParseSeverity(text string) (Severity, error) {
	for _, s := range []Severity{Low, Medium, High} {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown severity %q, want low, medium or high", text)
}

// Evidence is what an anomaly rests on. What does not belong to its kind is
// zero.
type Evidence struct {
	Text string `json:"text"` // one sentence for people

	// Value is what was measured, Norm what is usual, Limit what had to be
	// exceeded, all in Unit. Basis says where the norm is from: "hour_of_week",
	// "hour_of_day" or "all", Samples how many hours it rests on.
	Value   float64 `json:"value,omitempty"`
	Norm    float64 `json:"norm,omitempty"`
	Limit   float64 `json:"limit,omitempty"`
	Unit    string  `json:"unit,omitempty"`
	Basis   string  `json:"basis,omitempty"`
	Samples int     `json:"samples,omitempty"`

	Host      string   `json:"host,omitempty"`
	Port      uint16   `json:"port,omitempty"`
	Rule      string   `json:"rule,omitempty"`
	Verdict   string   `json:"verdict,omitempty"`
	WouldDeny bool     `json:"would_deny,omitempty"`
	Operation string   `json:"operation,omitempty"` // of S3
	Revisions []string `json:"revisions,omitempty"` // FAMILY:REVISION, of task definitions that do it
	Names     []string `json:"names,omitempty"`     // examples
	Entropy   float64  `json:"entropy,omitempty"`   // of the names' labels, bits a character
	Contacts  int      `json:"contacts,omitempty"`
	Interval  float64  `json:"interval_s,omitempty"` // between contacts, seconds
	Variation float64  `json:"variation,omitempty"`  // of the intervals: deviation by mean
	Flows     []string `json:"flows,omitempty"`      // IDs of examples
}
