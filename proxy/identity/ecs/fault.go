package ecs

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The two words of the SDK's errors that tell what happened, wherever in the
// chain they stand.
type (
	coded interface {
		error
		ErrorCode() string
		ErrorMessage() string
	}
	operation interface {
		error
		Service() string
		Operation() string
	}
)

// code returns AWS's word for what went wrong, "" when AWS did not answer.
func code(err error) string {
	if c, ok := errors.AsType[coded](err); ok {
		return c.ErrorCode()
	}
	return ""
}

// explain words an error for people: what was asked, what AWS said and, of
// what everybody meets, what to do.
func explain(err error, cl Cluster) error {
	what := "ECS"
	// The innermost operation failed: credentials are got within a call.
	for e := err; e != nil; {
		op, ok := errors.AsType[operation](e)
		if !ok {
			break
		}
		what, e = strings.ToLower(op.Service())+":"+op.Operation(), errors.Unwrap(op)
	}
	who := "the task role"
	if cl.RoleARN != "" && !strings.HasPrefix(what, "sts:") {
		who = cl.RoleARN
	}
	c, answered := errors.AsType[coded](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !answered:
		return fmt.Errorf("%s: no answer within %s: %w", what, callTime, err)
	case !answered && strings.Contains(err.Error(), "get credentials") && !strings.HasPrefix(what, "sts:"):
		return fmt.Errorf("there are no AWS credentials: give the task a task role: %w", err)
	case !answered:
		return fmt.Errorf("%s: AWS did not answer: %w", what, err)
	case c.ErrorCode() == "AccessDeniedException", c.ErrorCode() == "AccessDenied", c.ErrorCode() == "UnauthorizedOperation":
		action := deniedAction(c.ErrorMessage(), what)
		hint := fmt.Sprintf("%s needs %s", who, action)
		if action == "sts:AssumeRole" {
			hint = fmt.Sprintf("the task role needs sts:AssumeRole on %s, and that role must trust it", cl.RoleARN)
		}
		return fmt.Errorf("%s (%s: %s)", hint, c.ErrorCode(), c.ErrorMessage())
	case c.ErrorCode() == "ClusterNotFoundException":
		return fmt.Errorf("there is no cluster %s in this Region and account", cl.Cluster)
	}
	return fmt.Errorf("%s: %s: %s", what, c.ErrorCode(), c.ErrorMessage())
}

// deniedAction returns the action that AWS's message names, or else the one
// that was asked for.
func deniedAction(message, asked string) string {
	if m := regexp.MustCompile(`perform: ([A-Za-z0-9-]{2,40}:[A-Za-z]{2,80})`).FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return asked
}
