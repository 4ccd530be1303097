package policy

import (
	"fmt"
	"strings"
)

// ExplainRequest says what becomes of a connection, which q describes without
// its call, and of a request within. Where the connection is not inspected the
// request is not seen, and the answer is the connection's.
func (p *Policy) ExplainRequest(q Query, r S3Request) Explanation {
	e := Explanation{}
	var err *S3RequestError
	e.Query, e.Decision, e.Request, err = p.decideRequest(q, r)
	switch {
	case e.Query.S3 == nil && e.Decision.Enforcement != EnforcementInspect:
		e.tell(p)
		e.say("the connection is not inspected: nobody sees the request")
	case err != nil:
		e.caller(p)
		e.say("the connection is inspected, and its request cannot be judged: %s", err.Message)
		e.outcome()
	default:
		e.tell(p)
	}
	return e
}

// decideRequest decides about a connection and, where it is inspected, about
// a request within. The query that it returns is the last that was put.
func (p *Policy) decideRequest(q Query, r S3Request) (Query, Decision, *S3Call, *S3RequestError) {
	q.S3 = nil
	d := p.Decide(q)
	var call *S3Call
	c, err := r.parse()
	if err == nil {
		call = &c
	}
	switch {
	case !d.Inspect:
	case err != nil:
		d = Decision{Reason: err.Reason, Mode: d.Mode, Source: d.Source, S3: d.S3, Enforcement: EnforcementInspect}
		if d.Mode == Report {
			d.Verdict, d.Protocol = Allow, ProtocolTCP
		}
	default:
		q.S3 = call
		d = p.Decide(q)
	}
	return q, d, call, err
}

// request says what the request asks of S3, and who asks.
func (e *Explanation) request() {
	c := e.Request
	if c == nil {
		return
	}
	what := c.Operation
	if what == "" {
		what = "an operation that is not known"
	}
	if c.Key != "" {
		what += fmt.Sprintf(" of the key %q", c.Key)
	}
	if c.ACL != "" {
		what += ", and by its headers " + c.ACL
	}
	e.say("it asks for %s", what)
	if s := c.Source; s.Ref.Form != "" {
		text := fmt.Sprintf("its source is %s, key %q", refText(s.Ref), s.Key)
		if s.Version != "" {
			text += ", version " + s.Version
		}
		e.say("%s", text)
	}
	e.say("%s", signerText(c.Signer))
}

// signerText says who signed.
func signerText(s S3Signer) string {
	switch s.Scheme {
	case S3Anonymous, "":
		return "nobody signed it"
	case S3SigForm:
		return "who signed it stands in its body, which is not read"
	default:
	}
	text := fmt.Sprintf("it is signed (%s) with the access key %s", s.Scheme, s.AccessKeyID)
	if s.Account == "" {
		return text + ", which does not tell its account"
	}
	return text + " of account " + s.Account
}

// callWording says what of a request a rule does not fit.
func (s *search) callWording(r *Rule, m miss) string {
	verb, rule, signer := "allows", r.match.s3, s.asks.call.Signer
	if r.Verdict == Deny {
		verb = "denies"
	}
	switch {
	case m == missOperation:
		return s.operationWording(verb, rule)
	case r.Verdict == Allow && (signer.Scheme == S3Anonymous || signer.Scheme == ""):
		return "allows signed requests only"
	case rule.noPresigned && signer.Presigned():
		return "allows no signatures in the URL"
	}
	return fmt.Sprintf("%s requests that the accounts %s have signed", verb, strings.Join(rule.accounts, ", "))
}

func (s *search) operationWording(verb string, rule *s3Match) string {
	asked, acl := s.asks.operation(), s.asks.acl()
	switch {
	case asked == "" && verb == "allows":
		return "allows operations that are known, and this is none"
	case len(rule.operations) > 0 && (acl == "" || !rule.lists(asked)):
		return fmt.Sprintf("%s %s, not %s", verb, strings.Join(rule.operations, ", "), asked)
	case acl != "" && rule.lists(asked):
		return fmt.Sprintf("does not list %s, which the request's ACL headers ask for", acl)
	}
	return fmt.Sprintf("does not list %s, which must be spelled out", asked)
}
