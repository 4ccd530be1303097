package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// newFetcher returns what gets a remote source's document, nil for a source on
// this machine.
func newFetcher(s source, session *awsSession) fetcher {
	switch s.scheme {
	case "s3":
		return newS3Object(s, session)
	case "ssm":
		return &ssmParameter{name: s.name, region: s.region, session: session}
	}
	return nil
}

// signing returns the configuration, and makes sure that there is something to
// sign with: of a missing role the SDK would speak in the middle of another error.
func (s *awsSession) signing(ctx context.Context) (aws.Config, error) {
	cfg, err := s.config(ctx)
	if err != nil {
		return cfg, &sourceError{class: "configuration", err: err}
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return cfg, &sourceError{
			class: "credentials", transient: true, err: fmt.Errorf("no AWS credentials: %w", err),
			hint: "give the task a role (taskRoleArn); its credentials come from 169.254.170.2",
		}
	}
	return cfg, nil
}

// awsRemedies says what to do, by an answer's code.
type awsRemedies map[string]string

// common adds what is the same for every service.
func (r awsRemedies) common() awsRemedies {
	const old = "the task role's session is over: does 169.254.170.2 answer?"
	all := awsRemedies{"ExpiredToken": old, "ExpiredTokenException": old, "RequestTimeTooSkewed": "set this machine's clock"}
	maps.Copy(all, r)
	return all
}

// awsFailure puts an error of the SDK in our own terms.
func awsFailure(err error, service string, remedies awsRemedies) *sourceError {
	status := 0
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = answer.HTTPStatusCode()
	}
	said, ok := errors.AsType[interface {
		error
		ErrorCode() string
		ErrorMessage() string
	}](err)
	if !ok || status == 0 || said.ErrorCode() == "UnknownError" { // the SDK's word for no word
		return unanswered(err, service, status)
	}
	code := said.ErrorCode()
	_, throttled := retry.DefaultThrottleErrorCodes[code]
	throttled = throttled || status == http.StatusTooManyRequests
	failed := &sourceError{
		class: code, throttled: throttled, transient: throttled || status >= http.StatusInternalServerError,
		err: errors.New(code), hint: remedies.common()[code],
	}
	if message := said.ErrorMessage(); message != "" && message != code {
		failed.err = fmt.Errorf("%s: %s", code, message)
	}
	return failed
}

// unanswered is for what came from no service of AWS.
func unanswered(err error, service string, status int) *sourceError {
	if status > 0 {
		return &sourceError{
			class: fmt.Sprintf("HTTP %d", status), transient: true, throttled: status == http.StatusTooManyRequests,
			err: fmt.Errorf("an answer with the status %d that is not %s's", status, service),
		}
	}
	failed := &sourceError{class: "failed", transient: true, err: err}
	if at, ok := errors.AsType[*url.Error](err); ok {
		failed.class, failed.err = "unreachable", at // without what the SDK puts around it
		failed.hint = "is there a route to " + service + " (a VPC endpoint or NAT), and do the security groups let 443 through?"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		failed.class, failed.err = "timeout", fmt.Errorf("%s does not answer within %v", service, fetchPatience)
	}
	return failed
}

// tooLarge is the error for a document above maxPolicy.
func tooLarge() *sourceError {
	return &sourceError{class: "too_large", err: fmt.Errorf("it is larger than %d bytes", maxPolicy)}
}
