package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/sallyport/sallyport/policy"
)

const proxyAuthorization = "Proxy-Authorization"

// authenticate learns whom the sender of r proves to be (RFC 9110, section
// 11.7). Without credentials that is nobody, and the policy says whether it
// matters; with wrong ones the attempt ends here, and so it does with those of
// somebody else than its certificate names. They go no further than this.
func (a *attempt) authenticate(r *http.Request) *refusal {
	given := r.Header[proxyAuthorization]
	delete(r.Header, proxyAuthorization)
	if len(given) == 0 || a.s.deps.Authenticator == nil {
		return nil
	}
	if len(given) > 1 {
		return denial(policy.ReasonCredentials, errors.New("proxy credentials are sent twice"))
	}
	user, password, ok := (&http.Request{Header: http.Header{"Authorization": given}}).BasicAuth()
	if !ok {
		return denial(policy.ReasonCredentials, errors.New("the proxy credentials are not of the Basic scheme (RFC 7617)"))
	}
	principal, stands := a.s.deps.Authenticator.Authenticate(r.Context(), a.query.Source, user, password)
	if principal == "" && password == "" { // then it may stand in place of the user
		return denial(policy.ReasonCredentials, errors.New("the proxy credentials have no password (http://NAME:TOKEN@HOST has one)"))
	}
	if principal == "" && !a.s.deps.Authenticator.Knows(user) {
		return denial(policy.ReasonCredentials, errors.New("the proxy credentials name an unknown principal"))
	}
	if principal == "" {
		return denial(policy.ReasonCredentials, fmt.Errorf("the proxy credentials of %.64q are not accepted", user))
	}
	if proven := a.query.Source.Principal; proven != "" && proven != principal {
		return denial(policy.ReasonCredentials, fmt.Errorf("the proxy credentials are those of %.64q, and the client's certificate names %.255q", principal, proven))
	}
	a.query.Source.Principal, a.rec.Principal = principal, principal
	if stands != nil {
		a.proofs = append(slices.Clip(a.proofs), stands)
	}
	return nil
}
