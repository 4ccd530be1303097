package flow

import (
	"slices"

	"github.com/sallyport/sallyport/policy"
)

// Outcomes returns every [Outcome]: OutcomeOK, the reasons of a denial, and
// RFC 9209's error types.
func Outcomes() []Outcome {
	return []Outcome{
		OutcomeOK,
		Outcome(policy.ReasonDenyRule),
		Outcome(policy.ReasonNoRule),
		Outcome(policy.ReasonNoName),
		Outcome(policy.ReasonNameMismatch),
		Outcome(policy.ReasonIPLiteral),
		Outcome(policy.ReasonNotTLS),
		Outcome(policy.ReasonMalformedHello),
		Outcome(policy.ReasonECH),
		Outcome(policy.ReasonAddressProhibited),
		Outcome(policy.ReasonSelf),
		Outcome(policy.ReasonUnknownSource),
		Outcome(policy.ReasonCredentials),
		Outcome(policy.ReasonS3Bucket),
		Outcome(policy.ReasonS3Opaque),
		Outcome(policy.ReasonS3Operation),
		Outcome(policy.ReasonS3Account),
		Outcome(policy.ReasonLimit),
		OutcomeDNSTimeout,
		OutcomeDNSError,
		OutcomeDestinationUnavailable,
		OutcomeDestinationUnroutable,
		OutcomeConnectionRefused,
		OutcomeConnectionTerminated,
		OutcomeConnectionTimeout,
		OutcomeConnectionReadTimeout,
		OutcomeConnectionWriteTimeout,
		OutcomeTLSProtocolError,
		OutcomeTLSCertificateError,
		OutcomeTLSAlertReceived,
		OutcomeHTTPRequestError,
		OutcomeHTTPResponseIncomplete,
		OutcomeHTTPResponseTimeout,
		OutcomeHTTPProtocolError,
		OutcomeInternalError,
	}
}

// Valid reports whether o is a word of the vocabulary. "" is not: it stands
// for an attempt that has not ended.
func (o Outcome) Valid() bool { return slices.Contains(Outcomes(), o) }

// EndedBys returns every [EndedBy].
func EndedBys() []EndedBy {
	return []EndedBy{EndedByBoth, EndedByClient, EndedByOrigin, EndedByIdle, EndedByDrain, EndedByPolicy}
}

// String returns the last word of the record's event.name: "open", "close",
// "deny" or "anomaly", and "unknown" for anything else.
func (k Kind) String() string {
	switch k {
	case Opened:
		return "open"
	case Closed:
		return "close"
	case Denied:
		return "deny"
	case Found:
		return "anomaly"
	}
	return "unknown"
}
