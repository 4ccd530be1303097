package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// MaxEndpointPolicy is how many characters AWS takes in the policy of a VPC
// endpoint, white space included.
const MaxEndpointPolicy = 20480

// JSON returns the document in the most readable form that AWS takes, and
// with a final newline, and says what it had to give up for it, "" for
// nothing: first the white space,
// then the rules' own statements, put together where they say the same of
// different buckets.
func (p EndpointPolicy) JSON() (text []byte, lost string, err error) {
	readable, err := encodeEndpoint(p, "  ")
	if err != nil || len(readable) <= MaxEndpointPolicy {
		return readable, "", err
	}
	compact, err := encodeEndpoint(p, "")
	if err != nil || len(compact) <= MaxEndpointPolicy {
		return compact, fmt.Sprintf("the document is written without white space: with it it has %d characters, and AWS takes %d", len(readable), MaxEndpointPolicy), err
	}
	merged, err := encodeEndpoint(p.merged(), "")
	if err != nil || len(merged) <= MaxEndpointPolicy {
		return merged, fmt.Sprintf("the statements of several rules are put together: each rule by itself they have %d characters, and AWS takes %d", len(compact), MaxEndpointPolicy), err
	}
	return nil, "", fmt.Errorf("the endpoint's policy has %d characters at its shortest, and AWS takes %d", len(merged), MaxEndpointPolicy)
}

func encodeEndpoint(p EndpointPolicy, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(p); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// merged puts together the statements that differ in their resources alone,
// and leaves out the names and what another resource covers.
func (p EndpointPolicy) merged() EndpointPolicy {
	short := EndpointPolicy{Version: p.Version}
	at := map[string]int{}
	for _, s := range p.Statements {
		s.Sid = ""
		key := fmt.Sprint(s.Effect, s.Action, s.Condition) // maps are printed in order
		i, known := at[key]
		if !known {
			at[key] = len(short.Statements)
			short.Statements = append(short.Statements, s)
			continue
		}
		short.Statements[i].Resource = slices.Concat(short.Statements[i].Resource, s.Resource)
	}
	for i := range short.Statements {
		short.Statements[i].Resource = uncovered(short.Statements[i].Resource)
	}
	return short
}

// uncovered sorts resources and leaves out those that another which ends in `*`
// covers.
func uncovered(resources []string) []string {
	var all []string
	for _, r := range slices.Compact(slices.Sorted(slices.Values(resources))) {
		covered := slices.ContainsFunc(resources, func(other string) bool {
			head, ok := strings.CutSuffix(other, "*")
			return ok && other != r && strings.HasPrefix(r, head)
		})
		if !covered {
			all = append(all, r)
		}
	}
	return all
}
