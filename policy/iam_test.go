package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What follows reads and evaluates IAM policies after AWS's grammar and
// evaluation logic, and knows nothing of how they are made here.

// iamDocument is a policy as IAM's grammar has it.
type iamDocument struct {
	Version   string         `json:"Version"`
	Statement []iamStatement `json:"Statement"`
}

type iamStatement struct {
	Sid       string                          `json:"Sid"`
	Effect    string                          `json:"Effect"`
	Principal iamPrincipal                    `json:"Principal"`
	Action    iamValues                       `json:"Action"`
	Resource  iamValues                       `json:"Resource"`
	Condition map[string]map[string]iamValues `json:"Condition"`
}

// iamPrincipal is "*", all that an endpoint policy of S3 can have.
type iamPrincipal struct{}

func (*iamPrincipal) UnmarshalJSON(data []byte) error {
	if string(data) != `"*"` {
		return fmt.Errorf("the principal is %s", data)
	}
	return nil
}

// iamValues is a list of strings that is not empty, or one string.
type iamValues []string

func (v *iamValues) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*v = iamValues{one}
	} else if err := json.Unmarshal(data, (*[]string)(v)); err != nil {
		return err
	}
	if len(*v) == 0 || slices.Contains(*v, "") {
		return fmt.Errorf("the list %s is empty, or a string in it", data)
	}
	return nil
}

// parseIAM reads a document strictly: no key that is none, every element that
// must be there, and in the form that S3's gateway endpoints take.
func parseIAM(t testing.TB, text []byte) iamDocument {
	t.Helper()
	var d iamDocument
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatalf("no IAM policy: %v\n%s", err, text)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("more than one value: %s", text)
	}
	if len(text) > 20480 {
		t.Errorf("%d characters", len(text))
	}
	if d.Version != "2012-10-17" || len(d.Statement) == 0 {
		t.Errorf("version %q, %d statements", d.Version, len(d.Statement))
	}
	sids := map[string]bool{}
	for _, s := range d.Statement {
		if err := s.check(); err != nil {
			t.Errorf("%v: %+v", err, s)
		}
		if s.Sid != "" && sids[s.Sid] {
			t.Errorf("two statements are %s", s.Sid)
		}
		sids[s.Sid] = true
	}
	return d
}

func (s *iamStatement) check() error {
	actions := regexp.MustCompile(`^s3:(\*|[A-Z][A-Za-z]+)$`)
	resources := regexp.MustCompile(`^(\*|arn:aws[a-z-]*:s3:::[a-z0-9._*?-]+(/\*)?|arn:aws[a-z-]*:s3:[a-z0-9*-]+:([0-9]{12}|\*):accesspoint/[a-z0-9*-]+(/object/\*)?)$`)
	values := map[string]string{
		"aws:PrincipalAccount": `^([0-9]{12}|anonymous)$`, "aws:PrincipalArn": `^$`, "aws:ResourceAccount": `^[0-9]{12}$`, "aws:ResourceOrgID": `^o-[a-z0-9]{10,32}$`,
		"s3:authType": `^REST-QUERY-STRING$`, "s3:x-amz-acl": `^(private|bucket-owner-read|bucket-owner-full-control)$`,
		"s3:DataAccessPointArn": `^arn:aws[a-z-]*:s3:[a-z0-9*-]+:([0-9]{12}|\*):accesspoint/[a-z0-9*-]+$`,
	}
	switch {
	case !regexp.MustCompile(`^[A-Za-z0-9]*$`).MatchString(s.Sid):
		return fmt.Errorf("the Sid %q", s.Sid)
	case s.Effect != "Allow" && s.Effect != "Deny":
		return fmt.Errorf("the effect %q", s.Effect)
	case len(s.Action) == 0 || len(s.Resource) == 0:
		return fmt.Errorf("no action or no resource")
	}
	for _, a := range s.Action {
		if !actions.MatchString(a) {
			return fmt.Errorf("the action %q", a)
		}
	}
	for _, r := range s.Resource {
		if !resources.MatchString(r) {
			return fmt.Errorf("the resource %q", r)
		}
	}
	for operator, keys := range s.Condition {
		if !slices.Contains([]string{"StringEquals", "StringNotEquals", "StringLike", "StringEqualsIfExists", "Null"}, operator) {
			return fmt.Errorf("the operator %q", operator)
		}
		for key, all := range keys {
			for _, v := range all {
				if operator == "Null" && (v == "true" || v == "false") && values[key] != "" {
					continue
				}
				if values[key] == "" || !regexp.MustCompile(values[key]).MatchString(v) {
					return fmt.Errorf("%s: the value %q", key, v)
				}
			}
		}
	}
	return nil
}

// iamRequest is one question to IAM.
type iamRequest struct {
	action, resource string
	context          map[string]string
}

// allows evaluates a document: a Deny that matches wins, and what no Allow
// matches is denied.
func (d iamDocument) allows(q iamRequest) bool {
	allowed := false
	for _, s := range d.Statement {
		if !s.matches(q) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

func (s *iamStatement) matches(q iamRequest) bool {
	fits := func(patterns []string, text string, fold bool) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			if fold {
				p, text = strings.ToLower(p), strings.ToLower(text)
			}
			return iamLike(p, text)
		})
	}
	if !fits(s.Action, q.action, true) || !fits(s.Resource, q.resource, false) {
		return false
	}
	for operator, keys := range s.Condition {
		for key, values := range keys {
			got, present := q.context[key]
			holds := false
			switch operator {
			case "StringEquals":
				holds = present && slices.Contains(values, got)
			case "StringNotEquals":
				holds = !present || !slices.Contains(values, got)
			case "StringLike":
				holds = present && fits(values, got, false)
			case "StringEqualsIfExists":
				holds = !present || slices.Contains(values, got)
			case "Null":
				holds = slices.Contains(values, fmt.Sprint(!present))
			}
			if !holds {
				return false
			}
		}
	}
	return true
}

// iamLike matches IAM's wildcards: `*` is any run of characters, "/" and ":"
// among them, `?` is one.
func iamLike(pattern, text string) bool {
	for i := range len(pattern) {
		switch {
		case pattern[i] == '*':
			for j := i; j <= len(text); j++ {
				if iamLike(pattern[i+1:], text[j:]) {
					return true
				}
			}
			return false
		case i >= len(text) || (pattern[i] != '?' && pattern[i] != text[i]):
			return false
		}
	}
	return len(pattern) == len(text)
}

func TestIAMLike(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"a*", "a/b", true},
		{"a*", "a", true},
		{"*-x/*", "evil/a-x/k", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"a", "ab", false},
		{"ab", "a", false},
		{"*a*b*", "xxaxxbxx", true},
		{"*a*b*", "xxbxxa", false},
	} {
		if got := iamLike(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q, %q: %v", tt.pattern, tt.text, got)
		}
	}
}
