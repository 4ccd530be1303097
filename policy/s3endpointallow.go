package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// bounded is a set of bucket patterns under the same bound on their owner.
type bounded struct {
	account  string // "" for any
	anyOwner bool   // exempt from the organizations
	patterns []string
}

// allow renders an allow rule.
func (d *endpointRenderer) allow(r *endpointRule) {
	condition := r.signers()
	operations := r.operations()
	actions := named(actionsOf(slices.DeleteFunc(slices.Clone(operations), ofNoBucket), d.copies))
	if operations == nil {
		actions = []string{"s3:*"}
	} else {
		d.noteShared(r, operations)
	}
	if slices.Contains(operations, "ListBuckets") {
		d.add(r.sid()+"ListBuckets", EndpointStatement{Effect: "Allow", Action: []string{"s3:ListAllMyBuckets"}, Resource: []string{"*"}, Condition: condition})
	}
	emit := func(suffix string, resources []string, c EndpointCondition) {
		if len(resources) == 0 {
			return
		}
		d.add(r.sid()+suffix, EndpointStatement{Effect: "Allow", Action: actions, Resource: resources, Condition: c})
		if slices.ContainsFunc(operations, carriesACL) && !slices.Contains(actions, "s3:PutObjectAcl") {
			d.add(r.sid()+suffix+"OwnAcl", EndpointStatement{
				Effect: "Allow", Action: []string{"s3:PutObjectAcl"}, Resource: objectsOf(resources),
				Condition: c.with("StringEquals", "s3:x-amz-acl", ownACLs()...),
			})
		}
	}
	if r.everything {
		emit("", []string{"*"}, d.owners(condition, false))
	}
	if len(actions) > 0 {
		for _, b := range d.bound(r) {
			c := d.owners(condition, b.anyOwner)
			if b.account != "" {
				c = c.with("StringEquals", "aws:ResourceAccount", b.account)
			}
			emit("", d.bucketARNs(b.patterns, actions), c)
		}
		if points := d.points(r); len(points) > 0 {
			emit("AccessPoints", d.pointResources(points), d.owners(condition, false).with("StringLike", "s3:DataAccessPointArn", points...))
		}
	}
}

// signers says in IAM's words who may sign. Signed is who has an ARN; AWS
// gives those who do not sign the account "anonymous", or none.
func (r *endpointRule) signers() EndpointCondition {
	if !r.inspects() {
		return nil
	}
	var c EndpointCondition
	m := r.match.s3
	accounts := slices.Compact(slices.Sorted(slices.Values(m.accounts)))
	switch {
	case len(accounts) > 0 && m.anonymous:
		c = c.with("StringEqualsIfExists", "aws:PrincipalAccount", append(accounts, "anonymous")...)
	case len(accounts) > 0:
		c = c.with("StringEquals", "aws:PrincipalAccount", accounts...)
	case !m.anonymous:
		c = c.with("Null", "aws:PrincipalArn", "false")
	}
	if m.noPresigned {
		c = c.with("StringNotEquals", "s3:authType", "REST-QUERY-STRING")
	}
	return c
}

// owners adds the organizations that must own a bucket.
func (d *endpointRenderer) owners(c EndpointCondition, anyOwner bool) EndpointCondition {
	if anyOwner || len(d.Organizations) == 0 {
		return c
	}
	return c.with("StringEquals", "aws:ResourceOrgID", slices.Compact(slices.Sorted(slices.Values(d.Organizations)))...)
}

// with returns the condition and one more key.
func (c EndpointCondition) with(operator, key string, values ...string) EndpointCondition {
	more := EndpointCondition{}
	for o, keys := range c {
		more[o] = maps.Clone(keys)
	}
	if more[operator] == nil {
		more[operator] = map[string][]string{}
	}
	more[operator][key] = values
	return more
}

// bound sorts a rule's buckets by what must hold of their owners, and refuses
// those that only an owner could hold where there is none.
func (d *endpointRenderer) bound(r *endpointRule) []bounded {
	var all []bounded
	take := func(b bounded, pattern string) {
		for i := range all {
			if all[i].account == b.account && all[i].anyOwner == b.anyOwner {
				all[i].patterns = append(all[i].patterns, pattern)
				return
			}
		}
		b.patterns = []string{pattern}
		all = append(all, b)
	}
	preset := strings.Contains(r.Name, "/") // names of rules as written hold none
	for _, p := range r.buckets {
		b := bounded{anyOwner: len(d.Organizations) > 0 && (preset || ownedByAWS(p))}
		if suffix := otherEndpoint(p); suffix != "" {
			d.note(r.Rule, "", "the bucket %q of the rule %q is not one that S3's gateway endpoints serve (%s): left out", p, r.Name, suffix)
			continue
		}
		if !hasTail(p) {
			take(b, p)
			continue
		}
		if ownedByAccount(p) {
			b.account, _ = ownedBucket(p[strings.LastIndexByte(p, '*'):])
		}
		whose := "account " + b.account
		switch {
		case b.account != "":
		case len(d.Organizations) > 0 && !b.anyOwner:
			whose = "the organization"
		default:
			d.fail(r.Rule, "list whole names, or globs that end in *, or give the organization that owns them: --org o-a1b2c3d4e5",
				"the bucket glob %q of the rule %q cannot be said in IAM, whose * crosses \"/\": it would let in any bucket, by an object's key that holds %q",
				p, r.Name, p[strings.LastIndexByte(p, '*')+1:])
			continue
		}
		d.note(r.Rule, "list whole names, or globs that end in *",
			"the bucket glob %q of the rule %q is wider in IAM, whose * crosses \"/\": it also lets in other buckets of %s, where an object's key holds %q",
			p, r.Name, whose, p[strings.LastIndexByte(p, '*')+1:])
		take(b, p)
	}
	return all
}

// hasTail reports whether text follows a glob's first `*`. Without it IAM
// reads the glob as the policy does.
func hasTail(pattern string) bool {
	return hasWildcard(pattern) && strings.IndexByte(pattern, '*') != len(pattern)-1
}

// otherEndpoint returns the ending of a bucket's name that only other
// endpoints serve, "" for the rest.
func otherEndpoint(bucket string) string {
	if strings.HasSuffix(bucket, "--x-s3") {
		return "--x-s3" // directory buckets: their own service, s3express
	}
	return ""
}

// ownedByAWS reports whether a bucket is one that AWS serves Fargate tasks,
// instances and its own agents from, by the names that AWS documents.
func ownedByAWS(bucket string) bool {
	if bucket == "amazoncloudwatch-agent" {
		return true
	}
	for _, shape := range [...][2]string{
		{"prod-", "-starport-layer-bucket"},
		{"al2023-repos-", "-de612dc2"},
		{"al2023-", ""},
		{"amazonlinux-2-repos-", ""},
		{"packages.", ".amazonaws.com"},
		{"repo.", ".amazonaws.com"},
		{"aws-ssm-", ""},
		{"amazon-ssm-", ""},
		{"amazon-ssm-packages-", ""},
		{"patch-baseline-snapshot-", ""},
		{"", "-birdwatcher-prod"},
		{"amazoncloudwatch-agent-", ""},
		{"aws-codedeploy-", ""},
		{"cloudformation-waitcondition-", ""},
	} {
		rest, ok := strings.CutPrefix(bucket, shape[0])
		region, ok2 := strings.CutSuffix(rest, shape[1])
		if ok && ok2 && isRegion(region) {
			return true
		}
	}
	return false
}

// bucketARNs returns the resources of buckets, of their objects, or of both,
// as the actions ask.
func (d *endpointRenderer) bucketARNs(patterns, actions []string) []string {
	objects, buckets := false, false
	for _, a := range actions {
		name := strings.TrimPrefix(a, "s3:")
		objects = objects || name == "*" || actionOfObjects(name)
		buckets = buckets || name == "*" || !actionOfObjects(name)
	}
	var all []string
	for _, p := range slices.Compact(slices.Sorted(slices.Values(patterns))) {
		if p == "*" {
			p = "???*" // as short as a bucket's name can be: ListBuckets, which is about "*", is no bucket's affair
		}
		arn := "arn:" + d.Partition + ":s3:::" + p
		if buckets {
			all = append(all, arn)
		}
		if objects {
			all = append(all, arn+"/*")
		}
	}
	return all
}

// objectsOf returns the resources of objects among some.
func objectsOf(resources []string) []string {
	return slices.DeleteFunc(slices.Clone(resources), func(r string) bool {
		return !strings.HasSuffix(r, "*") || (!strings.Contains(r, "/") && slices.Contains(resources, r+"/*"))
	})
}

// pointResources returns the resources of requests through access points. S3
// asks about the access point, and may ask about the bucket behind it, whose
// name the policy does not know: the condition on the access point holds both.
func (d *endpointRenderer) pointResources(points []string) []string {
	all := []string{"arn:" + d.Partition + ":s3:::*"}
	for _, arn := range points {
		all = append(all, arn, arn+"/object/*")
	}
	return all
}

// points returns the ARNs of a rule's access points, which may hold `*`.
func (d *endpointRenderer) points(r *endpointRule) []string {
	var all []string
	for _, p := range r.points {
		switch form := aliasForm(p); {
		case form == S3AccessPointAlias:
			d.alias(r, p)
		case form != "":
			d.note(r.Rule, "", "the alias %q of the rule %q is not one that S3's gateway endpoints serve (%s): left out", p, r.Name, form)
		case endsInAccount(p):
			i := strings.LastIndexByte(p, '-')
			all = append(all, d.pointARN(p[i+1:], p[:i]))
		case hasWildcard(p) && r.Verdict == Allow:
			d.fail(r.Rule, fmt.Sprintf("write %q, the names and the account that owns them", p+"-111122223333"),
				"the access points %q of the rule %q may be any account's, which an endpoint policy should not say", p, r.Name)
		default:
			all = append(all, d.pointARN("*", p))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (d *endpointRenderer) pointARN(account, name string) string {
	region := d.Region
	if region == "" {
		region = "*"
	}
	return "arn:" + d.Partition + ":s3:" + region + ":" + account + ":accesspoint/" + name
}

// alias looks for the access point that an alias belongs to among those that
// the rule names with their account: IAM knows no aliases.
func (d *endpointRenderer) alias(r *endpointRule, alias string) {
	name := aliasedName(alias)
	for _, p := range r.points {
		if name != "" && aliasForm(p) == "" && endsInAccount(p) && strings.HasPrefix(p, name) {
			if r.Verdict == Allow {
				d.note(r.Rule, "", "IAM knows no aliases: %q of the rule %q is taken for an alias of %q", alias, r.Name, p)
			}
			return
		}
	}
	const hint = "list NAME-ACCOUNT beside it: `aws s3control list-access-points` tells which"
	if r.Verdict == Deny {
		d.note(r.Rule, hint, "IAM knows no aliases: %q of the deny rule %q is left out", alias, r.Name)
		return
	}
	d.fail(r.Rule, hint, "IAM knows no aliases, and the rule %q does not name the access point of %q", r.Name, alias)
}

// aliasedName returns how the name of an alias's access point begins: an alias
// is NAME-METADATA-s3alias, a long NAME cut.
func aliasedName(alias string) string {
	rest := strings.TrimSuffix(strings.TrimSuffix(alias, "-s3alias"), "-ext")
	if head, _, glob := strings.Cut(rest, "*"); glob {
		return strings.TrimRight(head, "-")
	}
	i := strings.LastIndexByte(rest, '-')
	return strings.TrimRight(rest[:max(i, 0)], "-")
}
