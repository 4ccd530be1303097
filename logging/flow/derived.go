package flow

import (
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Duration returns how long the attempt took, 0 while it lasts.
func (r *Record) Duration() time.Duration {
	if r.End.IsZero() {
		return 0
	}
	return max(r.End.Sub(r.Start), 0)
}

// Enforcement says on whose word the name was judged: "connect" (the authority
// of CONNECT; a TLS tunnel's SNI must equal it), "http" (the request's target),
// "sni" (the ClientHello alone) or "inspect" (the request inside TLS), "" when
// nothing was learned. An S3 bucket judged by "connect" or "sni" is advisory:
// S3 routes by the Host inside TLS.
func (r *Record) Enforcement() string {
	return string(policy.EnforcementBy(r.Via, r.Inspected))
}
