package flow

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Record is everything that is remembered of one attempt to leave: one
// tunnel, or one plain HTTP exchange. Its zero value is usable. The
// connection's goroutine owns it; everyone else sees copies, in an [Event].
// Strings that a client wrote (Host, SNI, ALPN, Method) are kept as sent;
// whoever writes them out escapes and caps them.
type Record struct {
	ID    string // ULID: unique, sorts by time
	Start time.Time
	End   time.Time // zero until the attempt ended

	Via      policy.Via
	Datagram bool           // it came by UDP, as most questions to the DNS server do
	Listener netip.AddrPort // accepted on
	Client   netip.AddrPort // accepted from
	Source   string         // name of the policy source, "" for none
	// Principal, VPCEndpoint and Task are the caller's, see [policy.Source].
	Principal   string
	VPCEndpoint string
	Task        *policy.Task
	// Unidentified means that who the caller is was asked for and is not known.
	Unidentified bool
	// Original is where a transparent client meant to go by address, zero when
	// that is not known. Nothing is decided by it where there is a name.
	Original netip.AddrPort

	Host string // name or address asked for, "" when none could be learned
	Port uint16
	Peer netip.AddrPort // address dialled, zero when none was

	TLS    TLS
	HTTP   HTTP
	S3     policy.S3Ref // Form is "" when the host is not S3's
	S3Call S3Call       // zero but for inspected requests
	// Inspected means that the request came in TLS that ended here.
	Inspected bool
	// Protocol is what it carries, as far as the policy was told, and Asked the
	// inspected request that the policy decided about, nil for none: with them it
	// can be decided again. What Asked says is immutable; its key and access key
	// are never written out.
	Protocol policy.Protocol
	Asked    *policy.S3Call

	Verdict       policy.Verdict
	Mode          policy.Mode
	Reason        policy.Reason
	WouldDeny     bool // let through by report mode only
	Rule          string
	Owner         string
	PolicyVersion string

	Outcome Outcome
	EndedBy EndedBy
	Error   string // for people; never parsed, never holds a secret

	Times         Times
	BytesSent     int64 // client to origin: tunnel bytes, or HTTP request body bytes
	BytesReceived int64 // origin to client
	ClientTCP     TCP
	OriginTCP     TCP
}

// TLS is what the ClientHello said. The zero value means no hello was read.
type TLS struct {
	ServerName string
	ALPN       []string
	Version    string // highest version offered: "1.0" to "1.3"
	ECH        bool   // an encrypted_client_hello extension is present (it may be GREASE)
}

// HTTP is what a plain HTTP exchange (or CONNECT) said.
type HTTP struct {
	Method string
	Path   string // without the query; "" for CONNECT
	Status int    // sent to the client; 0 when none was
}

// S3Call is what an inspected request asks of S3.
type S3Call struct {
	Operation    string          // S3's name for it, "" when it has none that is known
	Key          string          // "" unless keys are to be recorded
	SourceBucket string          // that a copy reads, "" when nothing is copied
	Scheme       policy.S3Scheme // how it is signed
	Account      string          // the signer's, "" when it is not known
}

// Times are the durations of an attempt's stages; 0 for a stage not reached.
type Times struct {
	Hello     time.Duration // from accept until the name was known
	Resolve   time.Duration
	Dial      time.Duration
	FirstByte time.Duration // HTTP: until the response head
}

// TCP is a socket's TCP_INFO as it ended (tcp(7)). Zero when not read.
type TCP struct {
	RTT         time.Duration // smoothed
	MinRTT      time.Duration
	Retransmits uint32 // segments, in the connection's life
}

// Kind says which moment of an attempt an [Event] marks.
type Kind uint8

// An allowed attempt has one Opened and one Closed; a denied one only Denied.
// Found is no moment of an attempt: it tells of an [Anomaly], to the writer of
// the flow log alone.
const (
	Opened Kind = iota + 1
	Closed
	Denied
	Found
)

// Event is one moment of an attempt's life, with a copy of its record.
type Event struct {
	Kind    Kind
	Record  Record
	Anomaly *Anomaly // of Found, nil otherwise; it is not changed any more
}
