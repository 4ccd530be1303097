package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// refusal is the one error type of the data path: why an attempt ends before
// a byte of it was carried.
type refusal struct {
	// outcome is a policy.Reason when denied, an RFC 9209 error type otherwise.
	outcome flow.Outcome
	denied  bool
	endedBy flow.EndedBy
	// err is for the record, never for the client: it may name addresses.
	err error
	// status overrides the HTTP status that outcome stands for; 0 does not.
	status int
	// hint is for the client: what to do about it, beyond the usual.
	hint string
	// rule is the one that denies, when it is not the decision's.
	rule *policy.Rule
	// over is the budget that is spent, nil when that is not why.
	over *overrun
}

// Error makes a refusal an error, so that it can pass through a dialer.
func (r *refusal) Error() string {
	if text := r.text(); text != "" {
		return string(r.outcome) + ": " + text
	}
	return string(r.outcome)
}

// Unwrap returns the cause, which may be nil.
func (r *refusal) Unwrap() error { return r.err }

func (r *refusal) text() string {
	if r.err == nil {
		return ""
	}
	return r.err.Error()
}

// denial is a refusal for a reason of the policy's vocabulary.
func denial(reason policy.Reason, err error) *refusal {
	return &refusal{outcome: flow.Outcome(reason), denied: true, err: err}
}

// classifiers is the table from errors to outcomes, in order: the first that
// answers decides. Errors are told apart by type, never by text.
func classifiers() []func(error) flow.Outcome {
	return []func(error) flow.Outcome{
		outcomeOfRefusal, outcomeOfDNS, outcomeOfTLS, outcomeOfErrno, outcomeOfTimeout, outcomeOfEnd,
	}
}

// classify turns an error of an allowed attempt into a refusal.
func classify(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	for _, c := range classifiers() {
		if outcome := c(err); outcome != "" {
			return &refusal{outcome: outcome, err: err}
		}
	}
	return &refusal{outcome: flow.OutcomeDestinationUnavailable, err: err}
}

func outcomeOfRefusal(err error) flow.Outcome {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.outcome
	}
	return ""
}

func outcomeOfDNS(err error) flow.Outcome {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case !ok:
		return ""
	case e.IsTimeout:
		return flow.OutcomeDNSTimeout
	}
	return flow.OutcomeDNSError
}

func outcomeOfTLS(err error) flow.Outcome {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return flow.OutcomeTLSCertificateError
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return flow.OutcomeTLSProtocolError
	}
	// crypto/tls words an alert that it was sent so, and has no type for it.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return flow.OutcomeTLSAlertReceived
	}
	return ""
}

func outcomeOfErrno(err error) flow.Outcome {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return ""
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return flow.OutcomeConnectionRefused
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return flow.OutcomeConnectionTerminated
	case syscall.ETIMEDOUT:
		return flow.OutcomeConnectionTimeout
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT:
		return flow.OutcomeDestinationUnroutable
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		return flow.OutcomeInternalError
	}
	return ""
}

func outcomeOfTimeout(err error) flow.Outcome {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return flow.OutcomeConnectionTimeout
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return flow.OutcomeConnectionTimeout
	}
	return ""
}

func outcomeOfEnd(err error) flow.Outcome {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return flow.OutcomeConnectionTerminated
	}
	return ""
}
