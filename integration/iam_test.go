package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// iamPolicy is what the tests read of an IAM policy.
type iamPolicy struct {
	Version   string
	Statement []struct {
		Sid, Effect string
		Action      words
		Resource    words
		Principal   map[string]string
		Condition   map[string]map[string]words
	}
}

// words are a JSON text, or a list of them.
type words []string

func (w *words) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(w))
}

// iamActions are the actions that the examples may name, as AWS spells them,
// with the API operations that they allow.
func iamActions() map[string][]string {
	return map[string][]string{
		"ecs:ListTasks":                 {"ecs:ListTasks"},
		"ecs:DescribeTasks":             {"ecs:DescribeTasks"},
		"s3:GetObject":                  {"s3:GetObject"},
		"s3:ListBucket":                 {"s3:ListObjectsV2"},
		"ssm:GetParameter":              {"ssm:GetParameter"},
		"kms:Decrypt":                   {"kms:Decrypt"},
		"secretsmanager:GetSecretValue": {"secretsmanager:GetSecretValue"},
		"sqs:ReceiveMessage":            {"sqs:ReceiveMessage"},
		"sqs:DeleteMessage":             {"sqs:DeleteMessage", "sqs:DeleteMessageBatch"},
		"sqs:SendMessage":               {"sqs:SendMessage", "sqs:SendMessageBatch"},
		"sts:AssumeRole":                {"sts:AssumeRole"},
	}
}

func iamExample(t *testing.T, name string) iamPolicy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "examples", "iam", name))
	if err != nil {
		t.Fatal(err)
	}
	var p iamPolicy
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

// TestExampleIAMPolicies: JSON that IAM takes, actions that exist, nothing
// wider than it must be.
func TestExampleIAMPolicies(t *testing.T) {
	dir := filepath.Join(root(t), "examples", "iam")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no example: %v", err)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	arn := regexp.MustCompile(`^arn:aws:((ecs|sqs|iam|events|ssm|kms|secretsmanager):[a-z0-9-]*:\d{12}(:secret)?|s3::):[A-Za-z0-9/_*.-]+(\?{6})?$`)
	for _, file := range files {
		name := filepath.Base(file)
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("README.md does not tell of %s", name)
		}
		if name == "events-rule.json" {
			continue // an event pattern
		}
		p := iamExample(t, name)
		if p.Version != "2012-10-17" || len(p.Statement) == 0 {
			t.Errorf("%s: version %q, %d statements", name, p.Version, len(p.Statement))
		}
		for _, s := range p.Statement {
			if s.Effect != "Allow" || !regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(s.Sid) {
				t.Errorf("%s: %s: effect %q", name, s.Sid, s.Effect)
			}
			for _, a := range s.Action {
				if iamActions()[a] == nil {
					t.Errorf("%s: %s: %q is not an action that the proxy needs", name, s.Sid, a)
				}
			}
			for _, r := range s.Resource {
				// ListTasks knows no resource; its condition narrows it.
				if r == "*" && len(s.Condition["ArnEquals"]["ecs:cluster"]) > 0 && slices.Equal(s.Action, words{"ecs:ListTasks"}) {
					continue
				}
				if !arn.MatchString(r) {
					t.Errorf("%s: %s: resource %q", name, s.Sid, r)
				}
			}
			for _, values := range s.Condition {
				for key, value := range values {
					for _, v := range value {
						if v == "" || strings.Contains(v, "*") || strings.HasPrefix(v, "arn:") && !arn.MatchString(v) {
							t.Errorf("%s: %s: %s is %q", name, s.Sid, key, v)
						}
					}
				}
			}
			if len(s.Resource) == 0 && s.Principal == nil {
				t.Errorf("%s: %s has neither a resource nor a principal", name, s.Sid)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "events-rule.json"))
	var pattern struct {
		Source     []string `json:"source"`
		DetailType []string `json:"detail-type"`
	}
	if err != nil || json.Unmarshal(text, &pattern) != nil ||
		!slices.Equal(pattern.Source, []string{"aws.ecs"}) || !slices.Equal(pattern.DetailType, []string{"ECS Task State Change"}) {
		t.Errorf("events-rule.json: %v, %+v", err, pattern)
	}
}

// permitted returns the API operations that the identity examples allow.
func permitted(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, name := range []string{"identity-ecs.json", "identity-events.json", "identity-assume-role.json"} {
		for _, s := range iamExample(t, name).Statement {
			for _, a := range s.Action {
				all = append(all, iamActions()[a]...)
			}
		}
	}
	slices.Sort(all)
	return all
}
