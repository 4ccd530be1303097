package flow

// Outcome is how an attempt ended, a closed vocabulary: OutcomeOK, a denial's
// policy.Reason, or one of RFC 9209's error types for a failure after an
// allow (section 2.3). It is the error.type of records, the label of metrics
// and the error of Proxy-Status.
type Outcome string

// The outcomes beside the reasons of a denial.
const (
	OutcomeOK                     Outcome = "ok"
	OutcomeDNSTimeout             Outcome = "dns_timeout"
	OutcomeDNSError               Outcome = "dns_error"
	OutcomeDestinationUnavailable Outcome = "destination_unavailable"
	OutcomeDestinationUnroutable  Outcome = "destination_ip_unroutable"
	OutcomeConnectionRefused      Outcome = "connection_refused"
	OutcomeConnectionTerminated   Outcome = "connection_terminated"
	OutcomeConnectionTimeout      Outcome = "connection_timeout"
	OutcomeConnectionReadTimeout  Outcome = "connection_read_timeout"
	OutcomeConnectionWriteTimeout Outcome = "connection_write_timeout"
	OutcomeTLSProtocolError       Outcome = "tls_protocol_error"
	OutcomeTLSCertificateError    Outcome = "tls_certificate_error"
	OutcomeTLSAlertReceived       Outcome = "tls_alert_received"
	OutcomeHTTPRequestError       Outcome = "http_request_error"
	OutcomeHTTPResponseIncomplete Outcome = "http_response_incomplete"
	OutcomeHTTPResponseTimeout    Outcome = "http_response_timeout"
	OutcomeHTTPProtocolError      Outcome = "http_protocol_error"
	OutcomeInternalError          Outcome = "proxy_internal_error"
)

// EndedBy says who ended an allowed attempt.
type EndedBy string

// The ends of an allowed attempt.
const (
	EndedByBoth   EndedBy = ""       // both sides finished, in order
	EndedByClient EndedBy = "client" // the client reset or vanished, or had finished and took no more
	EndedByOrigin EndedBy = "origin" // the origin reset or vanished, or had finished and took no more
	EndedByIdle   EndedBy = "idle"   // timeouts.idle passed without a byte
	EndedByDrain  EndedBy = "drain"  // the proxy stopped
	EndedByPolicy EndedBy = "policy" // a new policy denies it (reload.cut_denied)
)
