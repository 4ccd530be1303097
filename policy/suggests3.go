package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// bucketUse is how a caller uses one bucket, or one access point.
type bucketUse struct {
	name        string // as a rule lists it
	protocol    Protocol
	port        uint16
	resolvesTo  []netip.Prefix
	accessPoint bool
	partition   string
	anonymous   bool
	inspected   bool
	anywhere    bool // some host did not tell the Region
	unsure      bool // some signer's account is not known
	regions     map[string]bool
	operations  map[string]bool
	accounts    map[string]bool
	seen        []*Seen
}

// s3Rules writes the rules of S3 for a caller. Buckets that are used alike, in
// the same Regions, share one.
func (g *suggester) s3Rules(c *suggestedCaller, kept []keptSeen) {
	uses := map[string]*bucketUse{}
	for i := range kept {
		useOf(uses, &kept[i])
	}
	joinUninspected(uses)
	joinAnonymous(uses)
	rules := map[string]*SuggestedRule{}
	for _, key := range slices.Sorted(maps.Keys(uses)) {
		u := uses[key]
		s3 := u.destination()
		like := fmt.Sprintf("%+v %s %d %v", *s3, u.protocol, u.port, u.resolvesTo)
		if rules[like] == nil {
			rules[like] = &SuggestedRule{S3: s3, Protocol: u.protocol.String(), Ports: []uint16{u.port}, ResolvesTo: u.resolvesTo}
		}
		r := rules[like]
		if u.accessPoint {
			r.S3.AccessPoints = append(r.S3.AccessPoints, u.name)
		} else {
			r.S3.Buckets = append(r.S3.Buckets, u.name)
		}
		for _, s := range u.seen {
			r.Evidence.add(s)
		}
	}
	for _, r := range slices.SortedFunc(maps.Values(rules), func(a, b *SuggestedRule) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), slices.Compare(a.Ports, b.Ports), slices.Compare(a.S3.Buckets, b.S3.Buckets), slices.Compare(a.S3.AccessPoints, b.S3.AccessPoints), cmp.Compare(fmt.Sprint(*a.S3, a.ResolvesTo), fmt.Sprint(*b.S3, b.ResolvesTo)))
	}) {
		name := g.newRule(c, "s3")
		r.Name, r.Source = name.Name, name.Source
		g.out.Rules = append(g.out.Rules, *r)
	}
}

// useOf adds an observation to the uses, and the source of a copy as a use of
// its own.
func useOf(uses map[string]*bucketUse, k *keptSeen) {
	ref, call := k.s3(), k.query.S3
	u := useAt(uses, k, ref)
	u.seen = append(u.seen, k.Seen)
	if u.resolvesTo == nil {
		u.resolvesTo = k.resolvesTo // through an endpoint of the VPC, now and then
	}
	if call == nil {
		return
	}
	u.operations[call.Operation] = true
	if call.ACL != "" {
		u.operations[call.ACL] = true
	}
	if from := call.Source.Ref; from.Form != "" && call.Operation != "RenameObject" {
		if from.Region == "" {
			from.Region = ref.Region // within the partition the name alone is the bucket
		}
		useAt(uses, k, from).operations["GetObject"] = true
	}
}

// useAt returns the use of what a reference names, by whoever signed.
func useAt(uses map[string]*bucketUse, k *keptSeen, ref S3Ref) *bucketUse {
	call := k.query.S3
	name := ref.Bucket
	if name == "" {
		name = ref.AccessPoint
		if aliasSuffix(name) == "" {
			name += "-" + ref.Account
		}
	}
	anonymous := call != nil && call.Signer.Scheme == S3Anonymous
	key := fmt.Sprintf("%d %d %s %t %s %t %t", k.query.Protocol, k.query.Port, ref.Partition, ref.Bucket == "", name, call != nil, anonymous)
	u := uses[key]
	if u == nil {
		u = &bucketUse{
			resolvesTo: k.resolvesTo,
			name:       name, protocol: k.query.Protocol, port: k.query.Port, accessPoint: ref.Bucket == "", partition: ref.Partition, inspected: call != nil, anonymous: anonymous,
			regions: map[string]bool{}, operations: map[string]bool{}, accounts: map[string]bool{},
		}
		uses[key] = u
	}
	if ref.Region == "" {
		u.anywhere = true
	} else {
		u.regions[ref.Region] = true
	}
	if call != nil && !anonymous {
		u.unsure = u.unsure || !isAccount(call.Signer.Account)
		u.accounts[call.Signer.Account] = true
	}
	return u
}

// joinUninspected makes one of a bucket's uses that were seen with and without
// inspection: a rule that inspects allows both, and a rule beside it that does
// not would take its effect away.
func joinUninspected(uses map[string]*bucketUse) {
	for _, key := range slices.Sorted(maps.Keys(uses)) {
		u := uses[key]
		if u.inspected {
			continue
		}
		base := strings.TrimSuffix(key, " false false")
		into := uses[base+" true false"]
		if into == nil {
			into = uses[base+" true true"]
		}
		if into == nil {
			continue
		}
		into.anywhere = into.anywhere || u.anywhere
		maps.Copy(into.regions, u.regions)
		into.seen = append(into.seen, u.seen...)
		delete(uses, key)
	}
}

// joinAnonymous holds the rule of a bucket's unsigned requests to the accounts
// that sign others, and makes one of both where it would cover them anyway.
func joinAnonymous(uses map[string]*bucketUse) {
	for _, key := range slices.Sorted(maps.Keys(uses)) {
		base, unsigned := strings.CutSuffix(key, " true true")
		signed := uses[base+" true false"]
		if !unsigned || signed == nil {
			continue
		}
		u := uses[key]
		u.unsure, u.accounts = signed.unsure, signed.accounts
		if allIn(signed.operations, u.operations) && (u.anywhere || !signed.anywhere && allIn(signed.regions, u.regions)) {
			u.seen = append(u.seen, signed.seen...)
			delete(uses, base+" true false")
		}
	}
}

// destination returns what a rule asks of the use, besides the name.
func (u *bucketUse) destination() *SuggestedS3 {
	s := &SuggestedS3{Inspect: u.inspected, Anonymous: u.anonymous}
	switch {
	case !u.anywhere:
		s.Regions = slices.Sorted(maps.Keys(u.regions))
	case u.partition != "aws":
		s.Partition = u.partition
	}
	if u.inspected {
		s.Operations = slices.Sorted(maps.Keys(u.operations))
		if !u.unsure {
			s.Accounts = slices.Sorted(maps.Keys(u.accounts))
		}
	}
	return s
}

// allIn reports whether b has all that a has.
func allIn(a, b map[string]bool) bool {
	for key := range a {
		if !b[key] {
			return false
		}
	}
	return true
}
