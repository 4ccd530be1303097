package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// S3Endpoint is the S3 gateway endpoint that a policy is rendered for.
type S3Endpoint struct {
	// Region is the endpoint's, "" for the one that the rules agree on. A gateway
	// endpoint serves the buckets of its own Region only, so rules of others are
	// left out.
	Region string
	// Partition is the Region's; it is asked for only where no rule tells.
	Partition string
	// Organizations are the ids (o-…) of the AWS Organizations that must own the
	// buckets of the policy's own rules; none: anybody may. A preset's buckets,
	// and those known to be AWS's, belong to none of them and are exempt.
	Organizations []string
}

// EndpointPolicy is an IAM policy document as VPC endpoints take it. Its JSON
// is stable: the same rules make the same bytes.
type EndpointPolicy struct {
	Version    string              `json:"Version"`
	Statements []EndpointStatement `json:"Statement"`
}

// EndpointStatement is one statement of an [EndpointPolicy].
type EndpointStatement struct {
	// Sid is made of the rule's name: letters and digits, unique in the document.
	Sid       string            `json:"Sid,omitempty"`
	Effect    string            `json:"Effect"`    // "Allow" or "Deny"
	Principal string            `json:"Principal"` // "*": conditions narrow it, since gateway endpoints take no more
	Action    []string          `json:"Action"`
	Resource  []string          `json:"Resource"`
	Condition EndpointCondition `json:"Condition,omitempty"`
}

// EndpointCondition has the values by operator and key. All of them must hold.
type EndpointCondition map[string]map[string][]string

// RenderS3Endpoint says the policy's S3 rules in AWS's own language, as the
// policy of the S3 gateway endpoint in the proxy's VPC, so that AWS holds the
// VPC to the same buckets, operations and signers on the bucket that really
// answers, whatever host, path or SNI a client made up.
//
// The document allows whatever [Policy.Decide] allows of an inspected request
// that such an endpoint carries. It allows more where IAM cannot tell apart
// what the policy does, and then the notes say so, rule by rule: operations
// that share a permission, rules for some callers, deny rules that a Deny
// cannot say without refusing what is allowed. What holds for every document:
// IAM sees neither host nor port, so a rule's Region and its other hosts are
// not in it, and it knows every signer's account, where the proxy knows those
// of newer key ids.
//
// What would let strangers in is not rendered but is an error, of type
// [Errors]: a bucket glob with text behind its `*`, because IAM's crosses "/"
// and so reads the text from the key of anybody's bucket, and access points of
// no named account. Other errors are about the endpoint itself.
func (p *Policy) RenderS3Endpoint(e S3Endpoint) (EndpointPolicy, []Warning, error) {
	if p == nil {
		return EndpointPolicy{}, nil, errors.New("there is no policy to render")
	}
	if err := e.check(); err != nil {
		return EndpointPolicy{}, nil, err
	}
	d := endpointRenderer{policy: p, S3Endpoint: e}
	d.locate()
	if len(d.errs) == 0 {
		d.render()
	}
	if len(d.errs) > 0 {
		return EndpointPolicy{}, nil, d.errs
	}
	return d.document, d.notes, nil
}

// check refuses an endpoint that cannot be.
func (e *S3Endpoint) check() error {
	switch {
	case e.Region != "" && !isRegion(e.Region):
		return fmt.Errorf("%q is not a Region: write it like us-east-1", e.Region)
	case e.Partition != "" && !slices.Contains(partitions(), e.Partition):
		return fmt.Errorf("there is no partition %q: write one of %s", e.Partition, strings.Join(partitions(), ", "))
	case e.Region != "" && e.Partition != "" && regionPartition(e.Region) != e.Partition:
		return fmt.Errorf("the Region %q is not in partition %q: leave the partition out", e.Region, e.Partition)
	}
	for _, o := range e.Organizations {
		id, ok := strings.CutPrefix(o, "o-")
		if !ok || len(id) < 10 || len(id) > 32 || !isAll(id, func(c byte) bool { return isLower(c) || isDigit(c) }) {
			return fmt.Errorf("%q is not an organization's id: write it like o-a1b2c3d4e5", o)
		}
	}
	return nil
}

// endpointRenderer renders one policy for one endpoint.
type endpointRenderer struct {
	S3Endpoint
	policy   *Policy
	document EndpointPolicy
	notes    []Warning
	errs     Errors
	sids     map[string]bool
	allowed  []*endpointRule // in scope, in the documents' order
	denied   []*endpointRule
	copies   bool // some rule allows CopyObject, which reads tags
}

// endpointRule is a rule that speaks of the endpoint's Region, and what it
// asks for there.
type endpointRule struct {
	*Rule
	buckets    []string // patterns
	points     []string // patterns of access points
	everything bool     // a host that answers for every bucket
}

// locate finds the endpoint's Region and partition where they are not given.
func (d *endpointRenderer) locate() {
	if d.Region != "" {
		d.Partition = regionPartition(d.Region)
		return
	}
	regions, parts := map[string]*Rule{}, map[string]*Rule{}
	for i := range d.policy.rules {
		r := &d.policy.rules[i]
		if m := r.match.s3; m != nil {
			for _, region := range m.regions {
				regions[region], parts[regionPartition(region)] = r, r
			}
			if len(m.regions) == 0 && m.partition != "" {
				parts[m.partition] = r
			}
		}
		for ref := range r.s3Hosts() {
			if r.Verdict == Allow && ref.Region != "" {
				regions[ref.Region], parts[ref.Partition] = r, r
			}
		}
	}
	region, one := d.only("Region", "region", regions, func(region string) bool {
		return d.Partition == "" || regionPartition(region) == d.Partition
	})
	if d.Region = region; region != "" || !one {
		d.Partition = regionPartition(region)
		return
	}
	if d.Partition == "" {
		d.Partition, _ = d.only("partition", "partition", parts, func(string) bool { return true })
	}
	if d.Partition == "" {
		d.Partition = "aws"
	}
}

// only returns the one name that rules have, "" for none, and false where
// they have several.
func (d *endpointRenderer) only(what, flag string, names map[string]*Rule, fits func(string) bool) (string, bool) {
	var all []string
	for name := range names {
		if fits(name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	switch len(all) {
	case 0:
		return "", true
	case 1:
		return all[0], true
	}
	r := names[all[1]]
	d.fail(r, fmt.Sprintf("say which: --%s %s", flag, strings.Join(all, ", or --"+flag+" ")),
		"the rules name more than one %s (%q: %s), and an endpoint is in one", what, r.Name, all[1])
	return "", false
}

func (d *endpointRenderer) fail(r *Rule, hint, format string, args ...any) {
	d.errs = append(d.errs, &Error{Pos: r.Pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (d *endpointRenderer) note(r *Rule, hint, format string, args ...any) {
	d.notes = append(d.notes, Warning{r.Pos, fmt.Sprintf(format, args...), hint})
}

// render makes the document.
func (d *endpointRenderer) render() {
	d.document.Version = "2012-10-17"
	d.sids = map[string]bool{}
	for i := range d.policy.rules {
		r := d.scope(&d.policy.rules[i])
		switch {
		case r == nil:
		case r.Verdict == Allow:
			d.allowed = append(d.allowed, r)
			d.copies = d.copies || slices.Contains(r.operations(), "CopyObject")
		default:
			d.denied = append(d.denied, r)
		}
	}
	for _, r := range d.allowed {
		d.allow(r)
	}
	d.denyAll()
	if len(d.document.Statements) == 0 {
		d.add("NothingIsAllowed", EndpointStatement{Effect: "Deny", Action: []string{"s3:*"}, Resource: []string{"*"}})
	}
	d.noteWhole()
}

// scope returns what a rule asks for at this endpoint, nil for nothing.
func (d *endpointRenderer) scope(r *Rule) *endpointRule {
	x := &endpointRule{Rule: r}
	if m := r.match.s3; m != nil {
		fits := m.partition == "" || m.partition == d.Partition
		if len(m.regions) > 0 {
			fits = slices.Contains(m.regions, d.Region)
		}
		if !fits {
			if r.Verdict == Allow {
				d.note(r, "its buckets need an endpoint there, or another way out", "the rule %q is for another Region: left out", r.Name)
			}
			return nil
		}
		x.buckets, x.points = r.match.buckets, r.match.accessPoints
		return x
	}
	if r.Verdict == Deny {
		d.noteDeniedHosts(r)
		return nil
	}
	for ref := range r.s3Hosts() {
		if ref.Partition == d.Partition && (ref.Region == "" || ref.Region == d.Region) {
			d.takeHost(x, ref)
		}
	}
	if len(x.buckets)+len(x.points) == 0 && !x.everything {
		return nil
	}
	return x
}

// takeHost adds what a host that a rule spells out leads to.
func (d *endpointRenderer) takeHost(x *endpointRule, ref S3Ref) {
	switch ref.Form {
	case S3VirtualHosted, S3Website:
		x.buckets = append(x.buckets, ref.Bucket)
	case S3AccessPoint:
		if ref.AccessPoint != "" && ref.Account != "" {
			x.points = append(x.points, ref.AccessPoint+"-"+ref.Account)
		}
	case S3AccessPointAlias:
		x.points = append(x.points, ref.AccessPoint)
	case S3PathStyle, S3Other:
		x.everything = true
		d.note(x.Rule, "list the buckets instead: s3: {buckets: [NAME]}",
			"the rule %q spells a host that answers for every bucket, so the endpoint lets every bucket through", x.Name)
	default:
		d.note(x.Rule, "", "the rule %q spells a host that S3's gateway endpoints do not serve (%s): left out", x.Name, ref.Form)
	}
}

// s3Hosts yields the S3 hosts that a rule of hosts spells without a wildcard.
func (r *Rule) s3Hosts() func(yield func(S3Ref) bool) {
	return func(yield func(S3Ref) bool) {
		for _, pattern := range r.match.hosts {
			h, err := ParseHost(pattern)
			if err != nil || hasWildcard(pattern) {
				continue
			}
			if ref, ok := ParseS3Host(h); ok && !yield(ref) {
				return
			}
		}
	}
}

// operations returns those that an allow rule lets through, nil for all there
// ever will be.
func (r *endpointRule) operations() []string {
	if !r.inspects() {
		return nil
	}
	if listed := r.match.s3.operations; len(listed) > 0 {
		return listed
	}
	return slices.DeleteFunc(S3Operations(), func(o string) bool { return !r.match.s3.lists(o) })
}

// add appends a statement under a name that no other has.
func (d *endpointRenderer) add(name string, s EndpointStatement) {
	s.Sid = name
	for n := 2; d.sids[s.Sid]; n++ {
		s.Sid = fmt.Sprint(name, n)
	}
	d.sids[s.Sid] = true
	s.Principal = "*"
	d.document.Statements = append(d.document.Statements, s)
}

// sid makes a statement's name of a rule's: IAM takes letters and digits.
func (r *endpointRule) sid() string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(r.Name, func(c rune) bool { return strings.ContainsRune("._-/", c) }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}
