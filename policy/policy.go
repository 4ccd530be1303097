package policy

import (
	"net/netip"
	"time"
)

// Verdict says whether an attempt may proceed. The zero value denies, so a
// forgotten Decision refuses.
type Verdict uint8

// The two verdicts.
const (
	Deny Verdict = iota
	Allow
)

// String returns "deny" or "allow".
func (v Verdict) String() string {
	if v == Allow {
		return "allow"
	}
	return "deny"
}

// Mode says what becomes of a denial. The zero value enforces it.
type Mode uint8

// The two modes. In Report an attempt that the policy denies is let through
// and marked, see [Decision.WouldDeny].
const (
	Enforce Mode = iota
	Report
)

// String returns "enforce" or "report".
func (m Mode) String() string {
	if m == Report {
		return "report"
	}
	return "enforce"
}

// Via says how the destination's name was learned.
type Via uint8

// The ways in. ViaUnknown is the zero value: nothing was learned yet.
const (
	ViaUnknown Via = iota
	ViaConnect     // the authority of an HTTP CONNECT request (RFC 9110, section 9.3.6)
	ViaHTTP        // the target of a plain HTTP request, absolute-form or Host (RFC 9112, section 3.2)
	ViaTLS         // the server_name of a raw TLS ClientHello (RFC 6066, section 3)
	ViaTCP         // no name: the address that a transparent connection was aimed at
	ViaDNS         // a question to the proxy's own DNS server, which no connection has followed yet
)

// String returns "connect", "http", "tls", "tcp" or "unknown".
func (v Via) String() string {
	switch v {
	case ViaConnect:
		return "connect"
	case ViaHTTP:
		return "http"
	case ViaTLS:
		return "tls"
	case ViaTCP:
		return "tcp"
	case ViaDNS:
		return "dns"
	}
	return "unknown"
}

// Protocol says what a connection carries. ProtocolUnknown, the zero value,
// is a CONNECT tunnel before its first bytes were read.
type Protocol uint8

// The protocols that a rule can ask for.
const (
	ProtocolUnknown Protocol = iota
	ProtocolTLS              // TLS whose server_name is the destination's name
	ProtocolHTTP             // plain HTTP/1.1
	ProtocolTCP              // anything
)

// String returns the word that a policy document uses: "tls", "http", "tcp",
// and "unknown" for ProtocolUnknown.
func (p Protocol) String() string {
	switch p {
	case ProtocolTLS:
		return "tls"
	case ProtocolHTTP:
		return "http"
	case ProtocolTCP:
		return "tcp"
	}
	return "unknown"
}

// Reason is a word of the closed vocabulary that says why an attempt was
// allowed or denied. It is used identically in records, metrics,
// Proxy-Status headers, the command line and the documents, and is never
// renamed: people alarm on it.
type Reason string

// The reasons (DESIGN.md section 5).
const (
	ReasonRule              Reason = "rule"               // a rule allows it
	ReasonDenyRule          Reason = "deny_rule"          // a rule denies it
	ReasonNoRule            Reason = "no_rule"            // no rule speaks of it
	ReasonNoName            Reason = "no_name"            // the destination's name could not be learned
	ReasonNameMismatch      Reason = "name_mismatch"      // two names of one attempt differ (CONNECT and SNI, CONNECT and Host)
	ReasonIPLiteral         Reason = "ip_literal"         // an address was asked for, and no cidrs rule lists it
	ReasonNotTLS            Reason = "not_tls"            // TLS was required, something else was sent
	ReasonMalformedHello    Reason = "malformed_hello"    // the ClientHello is not acceptable
	ReasonECH               Reason = "ech"                // the name is hidden by Encrypted ClientHello
	ReasonAddressProhibited Reason = "address_prohibited" // every address of the name is prohibited
	ReasonSelf              Reason = "self"               // the address is the proxy's own
	ReasonUnknownSource     Reason = "unknown_source"     // the caller is not known
	ReasonCredentials       Reason = "credentials"        // proxy credentials are missing or wrong
	ReasonS3Bucket          Reason = "s3_bucket"          // the host is S3's and no s3 rule lists the bucket
	ReasonS3Opaque          Reason = "s3_opaque"          // the host is S3's and does not name the bucket
	ReasonS3Operation       Reason = "s3_operation"       // the S3 operation is not listed
	ReasonS3Account         Reason = "s3_account"         // the signing account is not listed
	ReasonLimit             Reason = "limit"              // a limit of connections, or a budget, is reached
)

// Enforcement says on whose word a decision was made, a published vocabulary.
// An S3 bucket judged by "connect" or "sni" is advisory: S3 routes by the Host
// header inside TLS.
type Enforcement string

// The enforcements.
const (
	EnforcementConnect Enforcement = "connect" // the authority of CONNECT
	EnforcementHTTP    Enforcement = "http"    // a plain HTTP request's target
	EnforcementSNI     Enforcement = "sni"     // the ClientHello alone
	EnforcementInspect Enforcement = "inspect" // the request inside TLS: Query.S3
)

// Source is the caller, as far as it is known.
type Source struct {
	// Addr is the caller's address, unmapped (never an IPv4-mapped IPv6 address).
	Addr netip.Addr
	// VPCEndpoint is the ID of the VPC endpoint that the caller came through
	// (vpce-…), "" for none. Addresses of several VPCs overlap; with it they do
	// not.
	VPCEndpoint string
	// Principal is whom the caller has proven to be, by proxy credentials or a
	// client certificate; "" when it has proven nothing.
	Principal string
	// Task is the ECS task that the caller is, nil when that is not known. It is
	// immutable and shared.
	Task *Task
	// Unidentified means that who the caller is was asked for and is not known. A
	// caller with a Principal is known all the same.
	Unidentified bool
}

// Task is an ECS task. Whoever makes one never changes it afterwards. Names are
// as ECS writes them; a policy tells upper from lower case.
type Task struct {
	ARN      string // arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID
	Cluster  string // its name, not its ARN
	Service  string // "" for a task that no service started
	Family   string // of its task definition
	Revision int    // likewise
	Tags     map[string]string
}

// Query is one question to a policy: may this source reach this destination?
type Query struct {
	Source Source
	Via    Via
	Host   Host // made by [ParseHost] only; the zero Host is denied with no_name
	Port   uint16
	// Protocol is what the attempt carries, ProtocolUnknown while that is not
	// known (a CONNECT tunnel before its first bytes).
	Protocol Protocol
	// S3 is the request inside an inspected connection, nil before one was read
	// and on every other connection. Host stays the name that the connection
	// was opened for.
	S3 *S3Call
	// At is the only clock that a policy knows.
	At time.Time
}

// Decision is a policy's answer. The zero value denies.
type Decision struct {
	Verdict Verdict
	Mode    Mode
	Reason  Reason
	// Rule decided; nil when no rule spoke. It is immutable.
	Rule *Rule
	// Protocol is what the attempt must carry: the rule's, or ProtocolTCP
	// (anything) for a report-mode allow that no rule backs.
	Protocol Protocol
	// Source is the name of the first of the policy's sources that the caller
	// belongs to, "" when it belongs to none.
	Source string
	// S3 is what the S3 grammar read: from the call where the query has one, else
	// from the host. Its Form is "" when the host is not S3's.
	S3 S3Ref
	// Inspect means that the allowance is provisional: the connection must be
	// inspected, and each request within decided with [Query].S3 before a byte
	// of it is forwarded. Protocol is then ProtocolTLS. It is false in the answer
	// to a query that has the request.
	Inspect bool
	// Inside means of a denied bucket that other buckets at the same endpoint are
	// inspected for this caller, who then trusts the inspecting certificate: the
	// denial can be told inside TLS, where S3's clients look for it.
	Inside bool
	// OfSource means that it is the copy's source to which Reason refers.
	OfSource bool
	// Enforcement is "" when nothing was learned.
	Enforcement Enforcement

	asked asked // for [Decision.DenyingRule] and [Decision.Budgets]
}

// WouldDeny reports whether the attempt passes only because of [Report] mode:
// Verdict is Allow, and Reason says what enforcing would answer.
func (d Decision) WouldDeny() bool { return d.Verdict == Allow && d.Reason != ReasonRule }

// RuleName returns the name of the rule that decided, "" when none did.
func (d Decision) RuleName() string {
	if d.Rule == nil {
		return ""
	}
	return d.Rule.Name
}

// Rule is one compiled rule, immutable and shared.
type Rule struct {
	Name     string
	Owner    string
	Verdict  Verdict
	Protocol Protocol
	// ResolvesTo lists the prohibited ranges that the rule's names may lead to.
	ResolvesTo []netip.Prefix
	// Budget bounds what is sent under the rule, nil for no bound.
	Budget *Budget
	// Pos is where the rule stands in its document.
	Pos Pos

	match ruleMatch
}

// Pos is a place in a policy document: Line and Column count from 1.
type Pos struct {
	File   string
	Line   int
	Column int
}
