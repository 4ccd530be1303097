package policy

import (
	"slices"
	"strings"
)

// denyAll renders the deny rules. A Deny statement must not refuse what the
// policy allows, so what would is left out, with a note.
func (d *endpointRenderer) denyAll() {
	for _, r := range d.denied {
		rivals := d.rivals(r)
		if i := slices.IndexFunc(rivals, func(a *endpointRule) bool { return !r.reaches(a) }); i >= 0 {
			d.note(r.Rule, "write it without ports, protocol and sources, as far as it may be",
				"the deny rule %q is left out: it is for some callers, ports or protocols, which IAM does not see, and the rule %q allows others", r.Name, rivals[i].Name)
			continue
		}
		d.deny(r, rivals)
	}
}

// rivals returns the allow rules that speak of a bucket or an access point of
// the deny rule's.
func (d *endpointRenderer) rivals(r *endpointRule) []*endpointRule {
	var all []*endpointRule
	for _, a := range d.allowed {
		if a.everything || meetAny(a.buckets, r.buckets) || meetAny(a.points, r.points) {
			all = append(all, a)
		}
	}
	return all
}

// reaches reports whether a deny rule holds for every caller, port and
// protocol of an allow rule.
func (r *endpointRule) reaches(a *endpointRule) bool {
	return (r.Protocol == ProtocolTCP || r.Protocol == a.Protocol) &&
		coversPorts(r.match.ports, a.match.ports) && coversSources(r.match.sources, a.match.sources)
}

// deny renders one deny rule.
func (d *endpointRenderer) deny(r *endpointRule, rivals []*endpointRule) {
	var condition EndpointCondition
	if accounts := r.match.s3.accounts; len(accounts) > 0 {
		condition = condition.with("StringEquals", "aws:PrincipalAccount", slices.Compact(slices.Sorted(slices.Values(accounts)))...)
	}
	actions, acl := []string{"s3:*"}, []string(nil)
	if operations := r.match.s3.operations; len(operations) > 0 {
		actions, acl = d.deniedActions(r, rivals)
	}
	emit := func(suffix string, resources []string, c EndpointCondition) {
		if len(resources) > 0 && len(actions) > 0 {
			d.add(r.sid()+suffix, EndpointStatement{Effect: "Deny", Action: actions, Resource: resources, Condition: c})
		}
		if len(resources) > 0 && len(acl) > 0 {
			d.add(r.sid()+suffix+"Acl", EndpointStatement{
				Effect: "Deny", Action: acl, Resource: objectsOf(resources),
				Condition: c.with("StringNotEquals", "s3:x-amz-acl", ownACLs()...),
			})
		}
	}
	direct := condition
	if d.throughPoints() {
		// The bucket behind an access point is the access point's affair: no rule
		// of buckets speaks of it.
		direct = condition.with("Null", "s3:DataAccessPointArn", "true")
	}
	emit("", d.bucketARNs(d.deniedBuckets(r), append(slices.Clip(actions), acl...)), direct)
	if points := d.points(r); len(points) > 0 {
		emit("AccessPoints", d.pointResources(points), condition.with("StringLike", "s3:DataAccessPointArn", points...))
	}
}

// throughPoints reports whether some rule allows access points.
func (d *endpointRenderer) throughPoints() bool {
	return slices.ContainsFunc(d.allowed, func(a *endpointRule) bool { return len(a.points) > 0 })
}

// deniedActions returns the actions that only what a deny rule lists needs, of
// what its rivals allow, and apart from those the actions of ACLs, which
// requests for an object's bytes need too.
func (d *endpointRenderer) deniedActions(r *endpointRule, rivals []*endpointRule) (actions, acl []string) {
	listed := r.match.s3.operations
	needed, carried := map[string][]string{}, false
	for _, a := range rivals {
		operations := a.operations()
		if operations == nil {
			operations = S3Operations()
		}
		for _, o := range operations {
			if slices.Contains(listed, o) {
				continue
			}
			carried = carried || carriesACL(o)
			for _, action := range actionsOf([]string{o}, d.copies) {
				needed[action] = append(needed[action], o)
			}
		}
	}
	for _, o := range listed {
		var sharers []string
		blocks := func(all []string) bool {
			blocked := len(all) == 0
			for _, action := range all {
				switch {
				case len(needed[action]) > 0:
					sharers = append(sharers, needed[action]...)
					continue
				case carried && (action == "PutObjectAcl" || action == "PutObjectVersionAcl"):
					acl = append(acl, "s3:"+action)
				default:
					actions = append(actions, "s3:"+action)
				}
				blocked = true
			}
			return blocked
		}
		p := s3Permissions()[o]
		plain, version := blocks(p.always), blocks(p.version)
		switch slices.Sort(sharers); {
		case len(p.always) == 0:
			d.note(r.Rule, "", "%s of the deny rule %q passes no S3 gateway endpoint: left out", o, r.Name)
		case !plain || !version:
			d.note(r.Rule, "list "+strings.Join(slices.Compact(sharers), ", ")+" in it, too, if they may be denied",
				"%s of the deny rule %q is left out: IAM does not tell it from what other rules allow", o, r.Name)
		}
	}
	slices.Sort(actions)
	slices.Sort(acl)
	return slices.Compact(actions), slices.Compact(acl)
}

// deniedBuckets returns the patterns of a deny rule's buckets that a Deny can
// say. Of a glob with text behind its `*` those are the names it matches: IAM
// would match keys of other buckets by it, too.
func (d *endpointRenderer) deniedBuckets(r *endpointRule) []string {
	var all []string
	for _, p := range r.buckets {
		if !hasTail(p) {
			all = append(all, p)
			continue
		}
		missed := ""
		for _, a := range d.allowed {
			if a.everything {
				missed = a.Name
			}
			for _, b := range a.buckets {
				switch {
				case !meet(p, b):
				case hasWildcard(b):
					missed = a.Name
				default:
					all = append(all, b)
				}
			}
		}
		if missed != "" {
			d.note(r.Rule, "list whole names, or globs that end in *",
				"the bucket glob %q of the deny rule %q is left out where the rule %q does not list whole names: in IAM, whose * crosses \"/\", it would refuse keys of other buckets",
				p, r.Name, missed)
		}
	}
	return all
}

// noteDeniedHosts notes a deny rule of hosts that speaks of S3.
func (d *endpointRenderer) noteDeniedHosts(r *Rule) {
	for _, pattern := range r.match.hosts {
		for _, fill := range [...][2]string{{"sample", "sample"}, {"us-east-1", "s3.us-east-1"}, {"s3", "s3.amazonaws.com"}} {
			if isS3Name(strings.ReplaceAll(strings.ReplaceAll(pattern, "**", fill[1]), "*", fill[0])) {
				d.note(r, "deny the buckets: s3: {buckets: [NAME]}", "the deny rule %q is left out: IAM does not see by which host a bucket is reached", r.Name)
				return
			}
		}
	}
}

// meetAny reports whether some name may fit a pattern of each list.
func meetAny(a, b []string) bool {
	return slices.ContainsFunc(a, func(p string) bool {
		return slices.ContainsFunc(b, func(q string) bool { return meet(p, q) })
	})
}

// meet reports whether some name may fit both patterns. It is exact where
// one is a name.
func meet(p, q string) bool {
	if hasWildcard(p) && hasWildcard(q) {
		head := min(strings.IndexByte(p, '*'), strings.IndexByte(q, '*'))
		tail := min(len(p)-strings.LastIndexByte(p, '*'), len(q)-strings.LastIndexByte(q, '*')) - 1
		return p[:head] == q[:head] && p[len(p)-tail:] == q[len(q)-tail:]
	}
	if hasWildcard(q) {
		p, q = q, p
	}
	return p == q || (hasWildcard(p) && new(compiler).bucketGlob(p).Match(q))
}
