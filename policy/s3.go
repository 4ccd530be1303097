package policy

import "strings"

// S3Form says which of S3's endpoint forms a host has.
type S3Form string

// The forms. B is a bucket, NAME an access point, A an account of 12 digits,
// R a Region, S a partition's suffix; "-fips" and ".dualstack" are read in any
// of them and are not part of the form.
const (
	S3VirtualHosted    S3Form = "virtual_hosted"     // B.s3.R.S, B.s3.S, B.s3-R.S, B.s3-external-1.S
	S3PathStyle        S3Form = "path_style"         // the same without B: the bucket is in the path
	S3Accelerate       S3Form = "accelerate"         // B.s3-accelerate.S
	S3Website          S3Form = "website"            // B.s3-website.R.S, B.s3-website-R.S
	S3AccessPoint      S3Form = "access_point"       // NAME-A.s3-accesspoint.R.S
	S3AccessPointAlias S3Form = "access_point_alias" // an alias where a virtual-hosted bucket stands (…-s3alias)
	S3ObjectLambda     S3Form = "object_lambda"      // NAME-A.s3-object-lambda.R.S, or an alias (…--ol-s3)
	S3MultiRegion      S3Form = "multi_region"       // ALIAS.mrap.accesspoint.s3-global.S
	S3Outposts         S3Form = "outposts"           // NAME-A.OUTPOST.s3-outposts.R.S, an alias (…--op-s3), or its control
	S3Express          S3Form = "express"            // B.s3express-ZONE.R.S (…--x-s3), or an access point (…--xa-s3)
	S3ExpressControl   S3Form = "express_control"    // s3express-control.R.S: the bucket is in the path
	S3Control          S3Form = "control"            // A.s3-control.R.S: the bucket is in the path
	S3PrivateLink      S3Form = "privatelink"        // …vpce-ID.s3.R.vpce.S: bucket, access point or control
	S3Tables           S3Form = "tables"             // s3tables.R.S
	S3Vectors          S3Form = "vectors"            // s3vectors.R.S
	S3Files            S3Form = "files"              // s3files.R.S
	S3Other            S3Form = "other"              // S3's by its service label, in a form not known here
)

// S3Ref is what the S3 grammar reads from a host. Fields that the host does
// not carry are "".
type S3Ref struct {
	// Form is never "" in a reference that [ParseS3Host] made.
	Form S3Form `json:"form"`
	// Bucket is a bucket's name. Names that only access points can have are
	// never here.
	Bucket string `json:"bucket,omitempty"`
	// AccessPoint is an access point's name, when Account is known, or its
	// alias, when it is not: which bucket lies behind it, and whose, the host
	// does not tell.
	AccessPoint string `json:"access_point,omitempty"`
	// Account is the 12-digit account of an access point or a control host, or
	// the one that alone can have made the bucket (names PREFIX-A-R-an).
	Account string `json:"account,omitempty"`
	// Region is the one that the host names. It is "" where S3 finds the
	// bucket's Region by itself: the global host, accelerate, multi-Region.
	Region string `json:"region,omitempty"`
	// Partition is never "": bucket names are unique within one.
	Partition string `json:"partition,omitempty"`
}

// Opaque reports whether the host is S3's and names neither a bucket nor an
// access point: the path, the body or nothing does, so that any bucket of the
// Region may be meant.
func (r S3Ref) Opaque() bool { return r.Form != "" && r.Bucket == "" && r.AccessPoint == "" }

// ParseS3Host reads a host by the S3 grammar and reports whether it is S3's.
// Strings of the result share the host's memory; nothing is allocated.
//
// It reads from the right, as S3 does, since a bucket's name may hold dots and
// look like an S3 host itself. Regions are known by their shape, so that new
// ones need no release. A host that lies where only S3's hosts lie (a service
// label "s3…" below a partition's suffix) and has no known form is S3's too,
// as [S3Other], and opaque: several such names answer for every bucket
// (s3-1-w.amazonaws.com), and none may pass as a stranger to the S3 rules.
func ParseS3Host(h Host) (S3Ref, bool) {
	p, ok := readS3Host(h)
	return p.ref, ok
}

// readS3Host is ParseS3Host, and keeps what only a request's reader needs.
func readS3Host(h Host) (s3Parse, bool) {
	sfx, rest, ok := cutS3Suffix(h.name)
	if !ok {
		return s3Parse{}, false
	}
	p := s3Parse{ref: S3Ref{Partition: sfx.partition}}
	head, last := cutLast(rest)
	switch {
	case last == "vpce":
		ok = p.privateLink(head, sfx)
	case isRegion(last):
		ok = p.regional(head, last, sfx)
	case last == "dualstack":
		ok = p.dualStack(cutLast(head))
	default:
		ok = p.global(head, last)
	}
	if !ok {
		return s3Parse{}, false
	}
	return p, true
}

// s3Parse is the reading of one host. Its methods take labels off the right.
type s3Parse struct {
	ref S3Ref
	// inPath means that a request's path begins with the bucket.
	inPath bool
}

// global reads the hosts whose service label stands next to the suffix.
func (p *s3Parse) global(head, service string) bool {
	if !isS3Service(service) {
		return false
	}
	switch service {
	case "s3":
		p.bucketOrPath(head)
		return true
	case "s3-external-1":
		if p.setRegion("us-east-1") {
			p.bucketOrPath(head)
		} else {
			p.opaque(S3Other)
		}
		return true
	case "s3-accelerate":
		p.named(S3Accelerate, head)
		return true
	case "s3-global":
		p.multiRegion(head)
		return true
	}
	// The old spelling with a dash between service and Region.
	form, region := S3PathStyle, strings.TrimPrefix(service, "s3-")
	if r, ok := strings.CutPrefix(region, "website-"); ok {
		form, region = S3Website, r
	} else {
		region = strings.TrimPrefix(region, "fips-")
	}
	if !isRegion(region) || !p.setRegion(region) {
		p.opaque(S3Other)
		return true
	}
	if form == S3Website {
		p.named(form, head)
	} else {
		p.bucketOrPath(head)
	}
	return true
}

// dualStack reads the hosts that have "dualstack" and no Region.
func (p *s3Parse) dualStack(head, service string) bool {
	if service == "s3-accelerate" {
		p.named(S3Accelerate, head)
		return true
	}
	p.opaque(S3Other)
	return isS3Service(service)
}

// regional reads head, which stands left of a Region.
func (p *s3Parse) regional(head, region string, sfx s3Suffix) bool {
	head, service := cutLast(head)
	if service == "dualstack" {
		head, service = cutLast(head)
	}
	if !isS3Service(service) {
		return false
	}
	if !p.setRegion(region) {
		p.opaque(S3Other)
		return true
	}
	if zone, ok := strings.CutPrefix(service, "s3express-"); ok {
		p.express(head, zone)
		return true
	}
	service = strings.TrimSuffix(service, "-fips")
	if sfx.dualStack && !onDualStackSuffix(service) {
		p.opaque(S3Other)
		return true
	}
	p.service(head, service)
	return true
}

// service reads head, which stands left of a Regional service label.
func (p *s3Parse) service(head, service string) {
	switch service {
	case "s3":
		p.bucketOrPath(head)
	case "s3-website":
		p.named(S3Website, head)
	case "s3-accelerate":
		// One SDK writes it with a Region, which means nothing there.
		p.ref.Region = ""
		p.named(S3Accelerate, head)
	case "s3-accesspoint":
		p.accessPoint(S3AccessPoint, head)
	case "s3-object-lambda":
		p.accessPoint(S3ObjectLambda, head)
	case "s3-outposts":
		p.outposts(head)
	case "s3-control":
		p.control(S3Control, head)
	case "s3tables":
		p.opaque(S3Tables)
	case "s3vectors":
		p.opaque(S3Vectors)
	case "s3files":
		p.opaque(S3Files)
	default:
		p.opaque(S3Other)
	}
}

// privateLink reads head, which stands left of "vpce".
func (p *s3Parse) privateLink(head string, sfx s3Suffix) bool {
	head, label := cutLast(head)
	if label == "s3-global" {
		p.opaque(S3PrivateLink)
		return true
	}
	rest, service := cutLast(head)
	if !isRegion(label) || !isS3Service(service) {
		return false
	}
	p.ref.Form = S3PrivateLink
	if !p.setRegion(label) || sfx.dualStack || strings.TrimSuffix(service, "-fips") != "s3" {
		return true
	}
	rest, endpoint := cutLast(rest)
	if !strings.HasPrefix(endpoint, "vpce-") {
		return true
	}
	rest, kind := cutLast(rest)
	switch kind {
	case "bucket":
		if rest == "" {
			p.inPath = true
			return true
		}
		p.named(S3PrivateLink, rest)
	case "accesspoint":
		p.accessPoint(S3PrivateLink, rest)
	case "control":
		p.control(S3PrivateLink, rest)
	}
	return true
}

// bucketOrPath reads the two forms of S3 proper.
func (p *s3Parse) bucketOrPath(head string) {
	if head == "" {
		p.opaque(S3PathStyle)
		p.inPath = true
		return
	}
	p.named(S3VirtualHosted, head)
	if p.ref.AccessPoint != "" {
		p.ref.Form = aliasForm(p.ref.AccessPoint)
	}
}

// named reads what stands where S3 expects a bucket's name: a bucket, the
// alias of an access point, or nothing.
func (p *s3Parse) named(form S3Form, name string) {
	p.ref.Form = form
	if aliasForm(name) != "" {
		p.ref.AccessPoint = name
		return
	}
	p.ref.Bucket = name
	account, region := ownedBucket(name)
	// Only where the Regions agree, or the host has none: the reservation of
	// these names is the Region's.
	if part := regionPartition(region); part == p.ref.Partition && (p.ref.Region == "" || p.ref.Region == region) {
		p.ref.Account = account
	}
}

// accessPoint reads NAME-A. Anything else at these hosts is opaque.
func (p *s3Parse) accessPoint(form S3Form, label string) {
	p.ref.Form = form
	if name, account, ok := cutAccount(label); ok {
		p.ref.AccessPoint, p.ref.Account = name, account
	} else if aliasForm(label) != "" {
		p.ref.AccessPoint = label
	}
}

// outposts reads NAME-A.OUTPOST or ALIAS.OUTPOST; the bare host is the control
// plane of Outposts.
func (p *s3Parse) outposts(head string) {
	name, outpost := cutLast(head)
	if outpost != "ec2" && !strings.HasPrefix(outpost, "op-") {
		name = ""
	}
	p.accessPoint(S3Outposts, name)
}

// express reads the hosts of directory buckets. Their control plane is reached
// by path only.
func (p *s3Parse) express(head, zone string) {
	switch {
	case zone == "control" || zone == "control-fips":
		p.opaque(S3ExpressControl)
		p.inPath = true
	case strings.HasSuffix(head, "--x-s3") || strings.HasSuffix(head, "--xa-s3"):
		p.named(S3Express, head)
	default:
		p.opaque(S3Express)
	}
}

// multiRegion reads ALIAS.mrap.accesspoint. The alias is spelt with ".mrap",
// as AWS does.
func (p *s3Parse) multiRegion(head string) {
	p.ref.Form = S3MultiRegion
	if alias, ok := strings.CutSuffix(head, ".accesspoint"); ok && aliasForm(alias) == S3MultiRegion {
		p.ref.AccessPoint = alias
	}
}

// control reads the account of a control host.
func (p *s3Parse) control(form S3Form, label string) {
	p.opaque(form)
	if isAccount(label) {
		p.ref.Account = label
	}
}

// opaque ends the reading of a host that names no bucket.
func (p *s3Parse) opaque(form S3Form) { p.ref.Form = form }

// setRegion takes the Region, and the partition from its shape, and reports
// whether the host's suffix serves that partition.
func (p *s3Parse) setRegion(region string) bool {
	part := regionPartition(region)
	if part != p.ref.Partition && (p.ref.Partition != "aws" || part != "aws-us-gov") {
		return false
	}
	p.ref.Region, p.ref.Partition = region, part
	return true
}

// onDualStackSuffix reports whether the service has hosts below the dual-stack
// suffix. S3 proper has not: it writes "dualstack" below the ordinary one.
func onDualStackSuffix(service string) bool {
	switch service {
	case "s3tables", "s3vectors", "s3files", "s3-outposts":
		return true
	}
	return false
}

// isS3Service reports whether a service label is S3's. AWS gives these labels
// out, so a customer's name is never one.
func isS3Service(label string) bool { return strings.HasPrefix(label, "s3") }

// aliasForm returns the form of access point whose alias the name is, "" when
// it is a bucket's. Buckets cannot have these suffixes.
func aliasForm(name string) S3Form {
	switch {
	case strings.HasSuffix(name, "-s3alias"):
		return S3AccessPointAlias
	case strings.HasSuffix(name, "--ol-s3"):
		return S3ObjectLambda
	case strings.HasSuffix(name, "--op-s3"):
		return S3Outposts
	case strings.HasSuffix(name, "--xa-s3"):
		return S3Express
	case strings.HasSuffix(name, ".mrap"):
		return S3MultiRegion
	}
	return ""
}

// cutAccount splits NAME-A, one label.
func cutAccount(label string) (name, account string, ok bool) {
	i := len(label) - 13
	if i < 1 || label[i] != '-' || !isAccount(label[i+1:]) || strings.Contains(label, ".") {
		return "", "", false
	}
	return label[:i], label[i+1:], true
}

// ownedBucket splits PREFIX-A-R-an, a bucket of the account-regional
// namespace; "" and "" when the name is not of that form.
func ownedBucket(name string) (account, region string) {
	rest, ok := strings.CutSuffix(name, "-an")
	if !ok {
		return "", ""
	}
	for i := strings.LastIndexByte(rest, '-'); i > 0; i = strings.LastIndexByte(rest[:i], '-') {
		if !isRegion(rest[i+1:]) {
			continue
		}
		if _, a, ok := cutAccount(rest[:i]); ok {
			return a, rest[i+1:]
		}
	}
	return "", ""
}

// isAccount reports whether s is an AWS account's number.
func isAccount(s string) bool { return len(s) == 12 && isAll(s, isDigit) }

// cutLast cuts the last label off a name.
func cutLast(name string) (head, last string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}
