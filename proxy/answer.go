package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// proxyName is how this proxy calls itself in Proxy-Status (RFC 9209, section 2).
const proxyName = "sallyport"

// answer is what a client is told over HTTP when it cannot pass.
type answer struct {
	status int
	header http.Header
	body   string
}

// answerFor words r for the client of a. It says what was refused, why, what
// to do, and the flow's ID; never an address that a name leads to.
func answerFor(a *attempt, r *refusal) answer {
	status, kind := statusOf(r)
	if r.status != 0 {
		status = r.status
	}
	what := a.rec.Host
	if what == "" {
		what = "the request"
	} else if a.rec.Port != 0 {
		what += ":" + strconv.Itoa(int(a.rec.Port))
	}
	verb := "could not be reached"
	if r.denied {
		verb = "is denied"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "sallyport: %s %s\n", what, verb)
	fmt.Fprintf(&b, "why: %s (%s)\n", meaningOf(r), r.outcome)
	if rule := ruleOf(a, r); rule != "" {
		fmt.Fprintf(&b, "rule: %s\n", rule)
	}
	fmt.Fprintf(&b, "what to do: %s\n", remedyFor(a, r))
	fmt.Fprintf(&b, "flow: %s\n", a.rec.ID)

	h := http.Header{}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Proxy-Status", fmt.Sprintf(`%s; error=%s; details="%s"`, proxyName, kind, details(a, r)))
	if status == http.StatusProxyAuthRequired {
		h.Set("Proxy-Authenticate", `Basic realm="`+proxyName+`", charset="UTF-8"`) // RFC 7617, section 2
	}
	if r.outcome == flow.Outcome(policy.ReasonLimit) {
		h.Set("Retry-After", "1")
		if r.over != nil {
			h.Set("Retry-After", strconv.Itoa(int(max(time.Until(r.over.resets).Seconds(), 0))+1))
		}
	}
	return answer{status: status, header: h, body: b.String()}
}

// details is our reason for Proxy-Status, with the rule and the flow. Rule
// names and IDs need no escaping: their alphabets exclude quotes.
func details(a *attempt, r *refusal) string {
	d := string(r.outcome)
	if rule := ruleOf(a, r); rule != "" {
		d += " rule=" + rule
	}
	if o := r.over; o != nil {
		d += fmt.Sprintf(" budget=%s:%s:%s/%s resets=%s", o.budget.Of, o.budget.Name,
			policy.SizeText(o.budget.BytesOut), o.budget.Per, o.resets.Format(time.RFC3339))
	}
	d += " flow=" + a.rec.ID
	if client := a.rec.Client.Addr(); client.IsValid() {
		d += " client=" + client.String() // who the policy took it for, which a balancer in between may hide
	}
	return d
}

// ruleOf names the rule that r is about, "" when there is none.
func ruleOf(a *attempt, r *refusal) string {
	if r.rule != nil {
		return r.rule.Name
	}
	return a.rec.Rule
}

// statusOf maps an outcome to the status code and to the error type of RFC
// 9209, section 2.3.
func statusOf(r *refusal) (int, string) {
	if r.denied {
		switch policy.Reason(r.outcome) {
		case policy.ReasonCredentials:
			return http.StatusProxyAuthRequired, "http_request_denied"
		case policy.ReasonLimit:
			if r.over != nil {
				return http.StatusTooManyRequests, "http_request_denied"
			}
			return http.StatusServiceUnavailable, "connection_limit_reached"
		case policy.ReasonAddressProhibited:
			return http.StatusForbidden, "destination_ip_prohibited"
		case policy.ReasonSelf:
			return http.StatusForbidden, "proxy_loop_detected"
		case policy.ReasonNoName:
			return http.StatusBadRequest, "http_request_error"
		}
		return http.StatusForbidden, "http_request_denied"
	}
	switch r.outcome {
	case flow.OutcomeHTTPRequestError:
		return http.StatusBadRequest, string(r.outcome)
	case flow.OutcomeDNSTimeout, flow.OutcomeConnectionTimeout, flow.OutcomeConnectionReadTimeout,
		flow.OutcomeConnectionWriteTimeout, flow.OutcomeHTTPResponseTimeout:
		return http.StatusGatewayTimeout, string(r.outcome)
	case flow.OutcomeInternalError:
		return http.StatusInternalServerError, string(r.outcome)
	}
	return http.StatusBadGateway, string(r.outcome)
}

// meaningOf says a refusal's outcome in words. They are constant but for a
// budget's: what went wrong inside is for the record.
func meaningOf(r *refusal) string {
	if r.over != nil {
		return r.over.meaning()
	}
	if r.denied {
		return meaningOfReason(policy.Reason(r.outcome))
	}
	switch r.outcome {
	case flow.OutcomeDNSError:
		return "its name has no address"
	case flow.OutcomeDNSTimeout:
		return "its name could not be resolved in time"
	case flow.OutcomeConnectionRefused:
		return "it refuses connections on this port"
	case flow.OutcomeConnectionTimeout:
		return "it does not answer"
	case flow.OutcomeDestinationUnroutable:
		return "there is no route to it"
	case flow.OutcomeConnectionTerminated, flow.OutcomeHTTPResponseIncomplete:
		return "it closed the connection before it answered"
	case flow.OutcomeHTTPRequestError:
		return "the request cannot be forwarded as it is"
	case flow.OutcomeTLSCertificateError:
		return "its certificate is not to be trusted"
	case flow.OutcomeTLSProtocolError, flow.OutcomeTLSAlertReceived:
		return "it does not speak TLS as we do"
	case flow.OutcomeHTTPProtocolError:
		return "its answer is not HTTP"
	case flow.OutcomeInternalError:
		return "the proxy failed"
	}
	return "the connection failed"
}

func meaningOfReason(reason policy.Reason) string {
	switch reason {
	case policy.ReasonDenyRule:
		return "a rule of the policy denies it"
	case policy.ReasonNoRule:
		return "no rule of the policy allows it"
	case policy.ReasonNoName:
		return "the destination's name could not be learned"
	case policy.ReasonNameMismatch:
		return "two different names were given for one destination"
	case policy.ReasonIPLiteral:
		return "it is an address, and no cidrs rule of the policy lists it"
	case policy.ReasonNotTLS:
		return "the policy requires TLS for it"
	case policy.ReasonMalformedHello:
		return "the TLS ClientHello is not acceptable"
	case policy.ReasonECH:
		return "Encrypted ClientHello hides the destination's name"
	case policy.ReasonAddressProhibited:
		return "it leads to an address that may not be reached from here"
	case policy.ReasonSelf:
		return "it leads back to the proxy itself"
	case policy.ReasonUnknownSource:
		return "the caller is not known"
	case policy.ReasonCredentials:
		return "proxy credentials are missing or wrong"
	case policy.ReasonS3Bucket:
		return "it is an S3 host, and no s3 rule of the policy lists its bucket"
	case policy.ReasonS3Opaque:
		return "it is an S3 host that does not name the bucket"
	case policy.ReasonLimit:
		return "too many connections"
	}
	return "the policy denies it"
}

// remedyFor says what a person can do. The command it names sends no traffic.
func remedyFor(a *attempt, r *refusal) string {
	switch {
	case r.hint != "":
		return r.hint
	case !r.denied && r.outcome == flow.OutcomeHTTPRequestError:
		return "send CONNECT host:port, or an absolute http:// URL"
	case !r.denied:
		return "try again; if it lasts, give the flow to the operator of the proxy"
	case policy.Reason(r.outcome) == policy.ReasonS3Opaque:
		return "use the virtual-hosted form, BUCKET.s3.REGION.amazonaws.com, so that the bucket can be checked"
	case policy.Reason(r.outcome) == policy.ReasonNameMismatch:
		return "use one name: the SNI and the Host must be the name that the proxy was asked for"
	case a.rec.Host == "":
		return "give the flow to the operator of the proxy"
	}
	return "ask the policy's owner for a rule; to see why: sallyport policy explain " + targetOf(a)
}

// targetOf is the attempt's destination as policy explain takes it.
func targetOf(a *attempt) string {
	host := a.rec.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if a.rec.Via == policy.ViaHTTP {
		return fmt.Sprintf("http://%s:%d/", host, a.rec.Port)
	}
	return fmt.Sprintf("%s:%d", host, a.rec.Port)
}

// writeTo sends the answer through net/http.
func (ans answer) writeTo(w http.ResponseWriter) {
	h := w.Header()
	maps.Copy(h, ans.header)
	h.Set("Content-Length", strconv.Itoa(len(ans.body)))
	w.WriteHeader(ans.status)
	_, _ = w.Write([]byte(ans.body)) // the client is gone if it fails
}

// alertFor is the TLS alert (RFC 8446, section 6.2) for a refusal.
func alertFor(r *refusal) byte {
	if r.denied {
		return alertAccessDenied
	}
	return alertInternalError
}
