package policy

import (
	"fmt"
	"slices"
	"strings"
)

// noteShared notes the operations that AWS cannot tell from those which a rule
// allows.
func (d *endpointRenderer) noteShared(r *endpointRule, operations []string) {
	granted := actionsOf(operations, d.copies)
	var shared, elsewhere []string
	for _, o := range S3Operations() {
		always := s3Permissions()[o].always
		switch {
		case len(always) == 0 && slices.Contains(r.match.s3.operations, o):
			elsewhere = append(elsewhere, o)
		case len(always) > 0 && !slices.Contains(operations, o) && subset(always, granted):
			shared = append(shared, o)
		}
	}
	if len(elsewhere) > 0 {
		d.note(r.Rule, "", "%s of the rule %q pass no S3 gateway endpoint: left out", strings.Join(elsewhere, ", "), r.Name)
	}
	if len(shared) > 0 {
		d.note(r.Rule, "the proxy still refuses them", "IAM does not tell %s from what the rule %q allows: the endpoint lets them through", strings.Join(shared, ", "), r.Name)
	}
}

// noteWhole notes what is true of the document as a whole.
func (d *endpointRenderer) noteWhole() {
	if len(d.policy.rules) == 0 {
		return
	}
	about := &Rule{Pos: Pos{File: d.policy.rules[0].Pos.File}}
	var some, opaque []string
	layers := false
	for _, r := range d.allowed {
		if len(r.match.sources) > 0 {
			some = append(some, r.Name)
		}
		if r.match.s3 != nil && r.match.s3.opaque {
			opaque = append(opaque, r.Name)
		}
		layers = layers || r.everything || slices.ContainsFunc(r.buckets, d.isLayers)
	}
	if len(some) > 0 {
		d.note(about, "", "an endpoint serves its whole VPC, so every caller may do there what these rules allow some sources: %s", strings.Join(some, ", "))
	}
	if len(opaque) > 0 {
		d.note(about, "", "behind opaque: allow the endpoint lets through only the buckets that these rules list: %s", strings.Join(opaque, ", "))
	}
	if d.reports() {
		d.note(about, "wait for mode: enforce, or give the endpoint's policy to a VPC of its own", "the policy reports and does not enforce: AWS would")
	}
	if !layers {
		d.note(about, "write a rule with preset: aws/fargate-base", "no rule allows %s, from which ECR's images come: whatever the endpoint's VPC pulls, the proxy's own image too, would fail", d.layers())
	}
}

// reports reports whether somebody's denials are let through.
func (d *endpointRenderer) reports() bool {
	return d.policy.standing.mode == Report ||
		slices.ContainsFunc(d.policy.sources, func(s source) bool { return s.standing != nil && s.standing.mode == Report })
}

// layers returns the bucket from which ECR serves the layers of images.
func (d *endpointRenderer) layers() string {
	region := d.Region
	if region == "" {
		region = "REGION"
	}
	return fmt.Sprintf("prod-%s-starport-layer-bucket", region)
}

// isLayers reports whether a pattern fits it.
func (d *endpointRenderer) isLayers(pattern string) bool {
	if d.Region != "" {
		return meet(pattern, d.layers())
	}
	return strings.HasSuffix(pattern, "-starport-layer-bucket")
}
