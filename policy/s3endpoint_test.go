package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// iamActions is what IAM asks for S3's operations, the other way about: by
// action, as the Service Authorization Reference lists them. "v" before an
// operation: when the request names a version; "h": when its headers ask for it.
const iamActions = `
AbortMultipartUpload: AbortMultipartUpload
BypassGovernanceRetention: hDeleteObject hDeleteObjects hPutObjectRetention
CreateBucket: CreateBucket
CreateBucketMetadataTableConfiguration: CreateBucketMetadataTableConfiguration CreateBucketMetadataConfiguration
DeleteBucket: DeleteBucket
DeleteBucketMetadataTableConfiguration: DeleteBucketMetadataTableConfiguration DeleteBucketMetadataConfiguration
DeleteBucketPolicy: DeleteBucketPolicy
DeleteBucketWebsite: DeleteBucketWebsite
DeleteObject: DeleteObject DeleteObjects
DeleteObjectAnnotation: DeleteObjectAnnotation
DeleteObjectTagging: DeleteObjectTagging
DeleteObjectVersion: vDeleteObject vDeleteObjects
DeleteObjectVersionAnnotation: vDeleteObjectAnnotation
DeleteObjectVersionTagging: vDeleteObjectTagging
GetAccelerateConfiguration: GetBucketAccelerateConfiguration
GetAnalyticsConfiguration: GetBucketAnalyticsConfiguration ListBucketAnalyticsConfigurations
GetBucketAbac: GetBucketAbac
GetBucketAcl: GetBucketAcl
GetBucketCORS: GetBucketCors
GetBucketLocation: GetBucketLocation
GetBucketLogging: GetBucketLogging
GetBucketMetadataTableConfiguration: GetBucketMetadataTableConfiguration GetBucketMetadataConfiguration
GetBucketNotification: GetBucketNotificationConfiguration
GetBucketObjectLockConfiguration: GetObjectLockConfiguration
GetBucketOwnershipControls: GetBucketOwnershipControls
GetBucketPolicy: GetBucketPolicy
GetBucketPolicyStatus: GetBucketPolicyStatus
GetBucketPublicAccessBlock: GetPublicAccessBlock
GetBucketRequestPayment: GetBucketRequestPayment
GetBucketTagging: GetBucketTagging
GetBucketVersioning: GetBucketVersioning
GetBucketWebsite: GetBucketWebsite
GetEncryptionConfiguration: GetBucketEncryption
GetIntelligentTieringConfiguration: GetBucketIntelligentTieringConfiguration ListBucketIntelligentTieringConfigurations
GetInventoryConfiguration: GetBucketInventoryConfiguration ListBucketInventoryConfigurations
GetLifecycleConfiguration: GetBucketLifecycleConfiguration
GetMetricsConfiguration: GetBucketMetricsConfiguration ListBucketMetricsConfigurations
GetObject: GetObject HeadObject SelectObjectContent GetObjectAttributes
GetObjectAcl: GetObjectAcl
GetObjectAnnotation: GetObjectAnnotation
GetObjectAttributes: GetObjectAttributes
GetObjectLegalHold: GetObjectLegalHold
GetObjectRetention: GetObjectRetention
GetObjectTagging: GetObjectTagging
GetObjectTorrent: GetObjectTorrent
GetObjectVersion: vGetObject vHeadObject vGetObjectAttributes
GetObjectVersionAcl: vGetObjectAcl
GetObjectVersionAnnotation: vGetObjectAnnotation
GetObjectVersionAttributes: vGetObjectAttributes
GetObjectVersionTagging: vGetObjectTagging
GetObjectVersionTorrent: vGetObjectTorrent
GetReplicationConfiguration: GetBucketReplication
ListAllMyBuckets: ListBuckets
ListBucket: ListObjects ListObjectsV2 HeadBucket
ListBucketMultipartUploads: ListMultipartUploads
ListBucketVersions: ListObjectVersions
ListMultipartUploadParts: ListParts
ListObjectAnnotations: ListObjectAnnotations
ListObjectVersionAnnotations: vListObjectAnnotations
PutAccelerateConfiguration: PutBucketAccelerateConfiguration
PutAnalyticsConfiguration: PutBucketAnalyticsConfiguration DeleteBucketAnalyticsConfiguration
PutBucketAbac: PutBucketAbac
PutBucketAcl: PutBucketAcl
PutBucketCORS: PutBucketCors DeleteBucketCors
PutBucketLogging: PutBucketLogging
PutBucketNotification: PutBucketNotificationConfiguration
PutBucketObjectLockConfiguration: PutObjectLockConfiguration hCreateBucket
PutBucketOwnershipControls: PutBucketOwnershipControls DeleteBucketOwnershipControls hCreateBucket
PutBucketPolicy: PutBucketPolicy
PutBucketPublicAccessBlock: PutPublicAccessBlock DeletePublicAccessBlock
PutBucketRequestPayment: PutBucketRequestPayment
PutBucketTagging: PutBucketTagging DeleteBucketTagging
PutBucketVersioning: PutBucketVersioning hCreateBucket
PutBucketWebsite: PutBucketWebsite
PutEncryptionConfiguration: PutBucketEncryption DeleteBucketEncryption
PutIntelligentTieringConfiguration: PutBucketIntelligentTieringConfiguration DeleteBucketIntelligentTieringConfiguration
PutInventoryConfiguration: PutBucketInventoryConfiguration DeleteBucketInventoryConfiguration
PutLifecycleConfiguration: PutBucketLifecycleConfiguration DeleteBucketLifecycle
PutMetricsConfiguration: PutBucketMetricsConfiguration DeleteBucketMetricsConfiguration
PutObject: PutObject PostObject CopyObject CreateMultipartUpload UploadPart UploadPartCopy CompleteMultipartUpload UpdateObjectEncryption
PutObjectAcl: PutObjectAcl hPostObject
PutObjectAnnotation: PutObjectAnnotation
PutObjectLegalHold: PutObjectLegalHold hPutObject hPostObject hCopyObject hCreateMultipartUpload
PutObjectRetention: PutObjectRetention hPutObject hPostObject hCopyObject hCreateMultipartUpload
PutObjectTagging: PutObjectTagging hPutObject hPostObject hCopyObject hCreateMultipartUpload
PutObjectVersionAcl: vPutObjectAcl
PutObjectVersionAnnotation: vPutObjectAnnotation
PutObjectVersionTagging: vPutObjectTagging
PutReplicationConfiguration: PutBucketReplication DeleteBucketReplication
RestoreObject: RestoreObject
TagResource: hCreateBucket
UpdateBucketMetadataAnnotationTableConfiguration: UpdateBucketMetadataAnnotationTableConfiguration
UpdateBucketMetadataInventoryTableConfiguration: UpdateBucketMetadataInventoryTableConfiguration
UpdateBucketMetadataJournalTableConfiguration: UpdateBucketMetadataJournalTableConfiguration
UpdateObjectEncryption: UpdateObjectEncryption
`

// ofExpress are the operations that have no action of IAM's service s3.
var ofExpress = []string{"CreateSession", "ListDirectoryBuckets", "RenameObject"}

// iamNeeds returns the table above by operation.
func iamNeeds() map[string]map[byte][]string {
	needs := map[string]map[byte][]string{}
	for line := range strings.Lines(strings.TrimSpace(iamActions)) {
		action, operations, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for o := range strings.FieldsSeq(operations) {
			kind := byte('a')
			if o[0] == 'v' || o[0] == 'h' {
				kind, o = o[0], o[1:]
			}
			if needs[o] == nil {
				needs[o] = map[byte][]string{}
			}
			needs[o][kind] = append(needs[o][kind], action)
		}
	}
	return needs
}

func TestS3Permissions(t *testing.T) {
	needs := iamNeeds()
	for _, o := range ofExpress {
		needs[o] = nil
	}
	if got, want := S3Operations(), slices.Sorted(maps.Keys(needs)); !slices.Equal(got, want) {
		t.Errorf("operations without an action, or actions of no operation: %v", difference(got, want))
	}
	for _, o := range S3Operations() {
		p := s3Permissions()[o]
		for kind, got := range map[byte][]string{'a': p.always, 'v': p.version, 'h': p.headers} {
			want := slices.Sorted(slices.Values(needs[o][kind]))
			if got := slices.Sorted(slices.Values(got)); !slices.Equal(got, want) {
				t.Errorf("%s (%c): %v, want %v", o, kind, got, want)
			}
		}
	}
	if n := len(s3Permissions()); n != len(S3Operations()) {
		t.Errorf("%d permissions for %d operations", n, len(S3Operations()))
	}
}

func difference(a, b []string) []string {
	out := slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	return append(out, slices.DeleteFunc(slices.Clone(b), func(s string) bool { return slices.Contains(a, s) })...)
}

// The world that policies are asked about: one Region, some buckets and who
// owns them, keys that look like other buckets, some access points.

const (
	endpointRegion = "us-east-1"
	ours, theirs   = "029608264753", "609629065308"
	owned          = "-111122223333-us-east-1-an"
)

var (
	// "finance-111122223333-999922223333" is named like another's, by a stranger.
	worldBuckets = []string{
		"acme", "acme-a", "acme-b", "acme-secret", "acme.dots", "evil", "evil-acme-a", "xacme-a", "logs-x", "a" + owned, "team-b" + owned,
		"of-account-3", "prod-us-east-1-starport-layer-bucket",
	}
	worldKeys   = []string{"k", "acme-a/k", "a" + owned + "/k", "acme-secret", "x/acme-secret/y", "b-secret", "logs-x/k", "k/object/k"}
	worldPoints = []string{"finance-111122223333", "finance-999922223333", "finance-111122223333-999922223333", "models-a-111122223333-999922223333", "models-a-111122223333", "models-b-111122223333", "mod-111122223333"}
)

// ownerOf returns who owns a bucket of the world.
func ownerOf(bucket string) string {
	if strings.HasSuffix(bucket, owned) || bucket == "of-account-3" {
		return "111122223333"
	}
	return "444455556666"
}

// s3Tuple is one request.
type s3Tuple struct {
	operation, bucket, point, key string
	version, headers              bool
	acl, signer                   string // signer "": nobody
	presigned, nameless           bool   // nameless: AWS gives nobody no account at all
	from                          string // the bucket that a copy is read from, "" to leave that out
}

func copies(operation string) bool { return operation == "CopyObject" || operation == "UploadPartCopy" }

func (u s3Tuple) query(t testing.TB) Query {
	t.Helper()
	name := u.bucket + ".s3." + endpointRegion + ".amazonaws.com"
	if u.point != "" {
		name = u.point + ".s3-accesspoint." + endpointRegion + ".amazonaws.com"
	}
	if u.operation == "ListBuckets" {
		name = "s3." + endpointRegion + ".amazonaws.com"
	}
	h, err := ParseHost(name)
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := ParseS3Host(h)
	call := &S3Call{Host: h, Ref: ref, Operation: u.operation, Key: u.key, Signer: S3Signer{Scheme: S3Anonymous}}
	if u.signer != "" {
		call.Signer = S3Signer{Scheme: S3SigV4, Account: u.signer}
		if u.presigned {
			call.Signer.Scheme = S3SigV4Presigned
		}
	}
	if u.acl == "public-read" && carriesHeaderACL(u.operation) {
		call.ACL = "PutObjectAcl"
	}
	if copies(u.operation) && u.from != "" {
		call.Source = S3Source{Ref: S3Ref{Form: S3PathStyle, Bucket: u.from, Partition: "aws"}, Key: "k"}
	}
	return Query{Via: ViaTLS, Host: h, Port: 443, Protocol: ProtocolTLS, S3: call}
}

func carriesHeaderACL(operation string) bool {
	return slices.Contains([]string{"PutObject", "CopyObject", "CreateMultipartUpload"}, operation)
}

// requests returns what S3 asks IAM about a request: all of it must be allowed.
func (u s3Tuple) requests(needs map[string]map[byte][]string) []iamRequest {
	context := map[string]string{"s3:authType": "REST-HEADER"}
	switch {
	case u.signer != "":
		context["aws:PrincipalAccount"] = u.signer
		context["aws:PrincipalArn"] = "arn:aws:iam::" + u.signer + ":role/task"
		if u.presigned {
			context["s3:authType"] = "REST-QUERY-STRING"
		}
	case !u.nameless:
		context["aws:PrincipalAccount"] = "anonymous"
	}
	if u.acl != "" && (carriesHeaderACL(u.operation) || u.operation == "PutObjectAcl" || u.operation == "PostObject") {
		context["s3:x-amz-acl"] = u.acl
	}
	n := needs[u.operation]
	actions := n['a']
	if u.version && len(n['v']) > 0 {
		actions = n['v']
	}
	if u.headers {
		actions = slices.Concat(actions, n['h'])
	}
	if context["s3:x-amz-acl"] != "" && carriesHeaderACL(u.operation) {
		actions = append(slices.Clip(actions), "PutObjectAcl")
	}
	var all []iamRequest
	for _, a := range actions {
		all = append(all, u.asked(a, context)...)
	}
	if copies(u.operation) && u.from != "" {
		source := s3Tuple{bucket: u.from, key: "k"}
		reads := []string{"GetObject"}
		if u.version {
			reads = []string{"GetObjectVersion"}
		}
		if u.headers && u.operation == "CopyObject" { // the source has tags
			reads = append(reads, "GetObjectTagging", "GetObjectVersionTagging")
		}
		for _, a := range reads {
			all = append(all, source.asked(a, context)...)
		}
	}
	return all
}

// asked returns the questions about an action: through an access point, about
// it and about the bucket behind it.
func (u s3Tuple) asked(action string, context map[string]string) []iamRequest {
	context = maps.Clone(context)
	if action == "ListAllMyBuckets" {
		return []iamRequest{{"s3:" + action, "arn:aws:s3:::*", context}}
	}
	ofObject := regexp.MustCompile(`Object|AbortMultipart|UploadParts|Bypass`).MatchString(action) && !strings.Contains(action, "BucketObjectLock")
	resource := "arn:aws:s3:::" + u.bucket
	if u.point == "" {
		context["aws:ResourceAccount"] = ownerOf(u.bucket)
		context["aws:ResourceOrgID"] = "o-of" + ownerOf(u.bucket)
		if ofObject {
			resource += "/" + u.key
		}
		return []iamRequest{{"s3:" + action, resource, context}}
	}
	name, account, _ := cutAccount(u.point)
	arn := "arn:aws:s3:" + endpointRegion + ":" + account + ":accesspoint/" + name
	context["s3:DataAccessPointArn"] = arn
	context["aws:ResourceAccount"], context["aws:ResourceOrgID"] = account, "o-of"+account
	resource = "arn:aws:s3:::behind-" + name
	if ofObject {
		arn, resource = arn+"/object/"+u.key, resource+"/"+u.key
	}
	return []iamRequest{{"s3:" + action, arn, context}, {"s3:" + action, resource, context}}
}

func (d iamDocument) allowsAll(all []iamRequest) bool {
	return !slices.ContainsFunc(all, func(q iamRequest) bool { return !d.allows(q) })
}

// render makes a policy's document and reads it back.
func renderEndpoint(t testing.TB, p *Policy, e S3Endpoint) (iamDocument, string) {
	t.Helper()
	document, notes, err := p.RenderS3Endpoint(e)
	if err != nil {
		t.Fatalf("%v", err)
	}
	text, lost, err := document.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range notes {
		fmt.Fprintln(&b, n.Message)
	}
	return parseIAM(t, text), b.String() + lost
}

// randomEndpointPolicy writes a policy, and the same one without its deny
// rules.
func randomEndpointPolicy(r *rand.Rand) (whole, allowing string) {
	pick := func(from []string, most int) string {
		var all []string
		for range 1 + r.IntN(most) {
			all = append(all, fmt.Sprintf("%q", from[r.IntN(len(from))]))
		}
		slices.Sort(all)
		return "[" + strings.Join(slices.Compact(all), ", ") + "]"
	}
	buckets := []string{"acme", "acme-a", "acme-*", "acme*", "acme.dots", "logs-x", "{acme-b,acme-secret}", "*" + owned, "a" + owned, "prod-us-east-1-starport-layer-bucket"}
	denied := []string{"acme-secret", "acme-*", "*", "*-secret", "*secret*", "logs-*", "a" + owned, "acme-a"}
	points := []string{"finance-111122223333", "models-*-111122223333", "models-a-111122223333", "mod"}
	whole = "version: 1\nrules:\n"
	allowing = whole
	for i := range 1 + r.IntN(4) {
		key, names := "buckets", pick(buckets, 3)
		if r.IntN(5) == 0 {
			key, names = "access_points", pick(points, 2)
		}
		s3 := fmt.Sprintf("%s: %s", key, names)
		if r.IntN(4) > 0 {
			s3 += ", inspect: true"
			if r.IntN(3) > 0 {
				s3 += ", operations: " + pick(S3Operations(), 8)
			} else if r.IntN(2) == 0 {
				s3 += ", operations: " + pick([]string{"GetObject", "PutObject", "CopyObject", "DeleteObject", "ListObjectsV2", "ListBuckets", "PutObjectAcl"}, 6)
			}
			if r.IntN(3) == 0 {
				s3 += ", accounts: " + pick([]string{ours, theirs}, 2)
			}
			if r.IntN(3) == 0 {
				s3 += ", anonymous: allow"
			}
			if r.IntN(3) == 0 {
				s3 += ", presigned: deny"
			}
		}
		rule := fmt.Sprintf("  - {name: r%d, allow_broad: true, s3: {%s}}\n", i, s3)
		whole, allowing = whole+rule, allowing+rule
	}
	for i := range r.IntN(3) {
		s3 := "buckets: " + pick(denied, 2)
		if r.IntN(4) > 0 {
			s3 += ", inspect: true"
			if r.IntN(3) > 0 {
				s3 += ", operations: " + pick([]string{"GetObject", "HeadObject", "SelectObjectContent", "PutObject", "DeleteObject", "DeleteObjects", "PutObjectAcl", "ListObjectsV2", "PutBucketPolicy", "GetObjectAttributes", "UpdateObjectEncryption"}, 4)
			}
			if r.IntN(3) == 0 {
				s3 += ", accounts: " + pick([]string{ours, theirs}, 1)
			}
		}
		whole += fmt.Sprintf("  - {name: deny%d, action: deny, s3: {%s}}\n", i, s3)
	}
	return whole, allowing
}

func randomTuple(r *rand.Rand, operations []string) s3Tuple {
	one := func(from []string) string { return from[r.IntN(len(from))] }
	u := s3Tuple{
		operation: one(operations), bucket: one(worldBuckets), key: one(worldKeys), version: r.IntN(3) == 0, headers: r.IntN(3) == 0,
		acl: one([]string{"", "", "private", "bucket-owner-full-control", "public-read"}), signer: one([]string{ours, ours, theirs, ""}),
		from: one(worldBuckets),
	}
	u.presigned = u.signer != "" && r.IntN(3) == 0
	u.nameless = r.IntN(2) == 0
	if r.IntN(6) == 0 && !copies(u.operation) && u.operation != "CreateBucket" {
		u.point = one(worldPoints)
	}
	return u
}

// TestEndpointAllowsWhatDecideDoes is the oracle: of every request the
// rendered document, read and evaluated as AWS does it, allows what Decide
// allows, and nothing more but what the notes own up to.
func TestEndpointAllowsWhatDecideDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2026))
	needs := iamNeeds()
	operations := slices.DeleteFunc(S3Operations(), func(o string) bool { return slices.Contains(ofExpress, o) })
	common := append(slices.Clone(operations), "GetObject", "GetObject", "GetObject", "PutObject", "PutObject", "CopyObject", "CopyObject", "DeleteObject", "ListObjectsV2", "ListBuckets", "PutObjectAcl")
	var agreed, wider, refused int
	for range 250 {
		text, allowing := randomEndpointPolicy(r)
		p, open := mustLoad(t, text), mustLoad(t, allowing)
		d, notes := renderEndpoint(t, p, S3Endpoint{Region: endpointRegion})
		w := explainer{t: t, open: open, needs: needs, operations: operations, seen: map[s3Tuple]map[string]bool{}}
		for range 120 {
			u := randomTuple(r, common)
			decision, got := p.Decide(u.query(t)), d.allowsAll(u.requests(needs))
			switch want := decision.Verdict == Allow; {
			case want && !got:
				t.Fatalf("%+v is allowed by %s, and not by the endpoint\n%s\nnotes:\n%s\n%+v", u, decision.RuleName(), text, notes, d)
			case want:
				agreed++
			case !got:
				refused++
			default:
				wider++
				if why := w.unexplained(u, decision, notes); why != "" {
					t.Fatalf("%+v is denied (%s %s), and the endpoint lets it through: %s\n%s\nnotes:\n%s\n%+v", u, decision.Reason, decision.RuleName(), why, text, notes, d)
				}
			}
		}
	}
	t.Logf("%d allowed by both, %d denied by both, %d by the endpoint alone, for a noted reason", agreed, refused, wider)
	if agreed < 1000 || refused < 1000 || wider < 100 {
		t.Error("too few of one kind: the test proves little")
	}
}

// explainer says of a request that only the endpoint allows why it does.
type explainer struct {
	t          testing.TB
	open       *Policy // without the deny rules
	needs      map[string]map[byte][]string
	operations []string
	seen       map[s3Tuple]map[string]bool
}

// unexplained returns "" where the endpoint may be wider: the deny rule is
// noted as left out, and every permission that the request needs is needed by
// some request of the same signer for the same bucket that is allowed.
func (w *explainer) unexplained(u s3Tuple, decision Decision, notes string) string {
	if decision.Reason == ReasonDenyRule && !strings.Contains(notes, fmt.Sprintf("the deny rule %q", decision.RuleName())) &&
		(u.operation != "PutObjectAcl" || u.acl == "" || u.acl == "public-read") {
		return "no note speaks of the deny rule"
	}
	for _, q := range u.requests(w.needs) {
		source := s3Tuple{bucket: u.from, key: "k", signer: u.signer, presigned: u.presigned}
		if !w.granted(u)[asText(q)] && !w.granted(source)[asText(q)] && !ownKey(q, notes) {
			return "nothing that is allowed needs " + asText(q)
		}
	}
	return ""
}

// ownKey reports whether a note owns up to a glob that IAM reads from a key.
func ownKey(q iamRequest, notes string) bool {
	return q.context["aws:ResourceAccount"] == "111122223333" && strings.Contains(q.resource, owned) && strings.Contains(notes, "is wider in IAM")
}

func asText(q iamRequest) string {
	acl := ""
	if q.action == "s3:PutObjectAcl" && q.context["s3:x-amz-acl"] != "" {
		acl = " own ACL"
		if q.context["s3:x-amz-acl"] == "public-read" {
			acl = " another ACL"
		}
	}
	return q.action + " " + q.resource + acl
}

// granted returns what the allowed requests need that differ from u in what
// they do, not in who does it to which bucket and key.
func (w *explainer) granted(u s3Tuple) map[string]bool {
	at := s3Tuple{bucket: u.bucket, point: u.point, key: u.key, signer: u.signer, presigned: u.presigned}
	if all, known := w.seen[at]; known {
		return all
	}
	all := map[string]bool{}
	for _, o := range w.operations {
		for flags := range 16 {
			v := at
			v.operation, v.version, v.headers = o, flags&1 != 0, flags&2 != 0
			v.acl = []string{"", "private", "public-read", ""}[flags>>2]
			if w.open.Decide(v.query(w.t)).Verdict == Deny {
				continue
			}
			for _, q := range v.requests(w.needs) {
				all[asText(q)] = true
			}
		}
	}
	// A copy's tags are read with its source, and written by CopyObject.
	if tags := "s3:GetObject arn:aws:s3:::" + at.bucket + "/" + at.key; all[tags] {
		for _, a := range []string{"GetObjectTagging", "GetObjectVersionTagging"} {
			all["s3:"+a+" arn:aws:s3:::"+at.bucket+"/"+at.key] = true
		}
	}
	w.seen[at] = all
	return all
}

// oneRule is a policy of one S3 rule in us-east-1.
func oneRule(s3 string) string {
	return "version: 1\nrules:\n  - {name: r, s3: {regions: [us-east-1], " + s3 + "}}\n"
}

// TestEndpointNeverWidens: text behind IAM's `*` would be read from a key.
func TestEndpointNeverWidens(t *testing.T) {
	const org = "o-of444455556666"
	fishing := iamRequest{"s3:GetObject", "arn:aws:s3:::evil/a-data/k", map[string]string{"aws:ResourceOrgID": "o-evil000000", "aws:ResourceAccount": "666677778888"}}
	for _, tt := range []struct {
		s3, org, refused string
	}{
		{s3: `buckets: ["acme-*"]`},
		{s3: `buckets: [acme-data]`},
		{s3: `buckets: ["*-data"]`, refused: `holds "-data"`},
		{s3: `buckets: ["e*-data"]`, refused: `holds "-data"`},
		{s3: `buckets: ["e*-da*"]`, refused: "holds"},
		{s3: `buckets: ["*-data"]`, org: org},
		{s3: `buckets: ["*-a-data-111122223333-us-east-1-an"]`},
		{s3: `buckets: ["{evil-data,acme-*-data}"]`, refused: "acme-*-data"},
		{s3: `access_points: ["models-*"]`, refused: "any account's"},
		{s3: `access_points: ["*-data-111122223333"]`},
		{s3: `access_points: ["finance-abcdefghij-s3alias"]`, refused: "knows no aliases"},
		{s3: `access_points: ["finance-abcdefghij-s3alias", "payroll-111122223333"]`, refused: "knows no aliases"},
		{s3: `access_points: ["finance-abcdefghij-s3alias", "finance-111122223333"]`},
	} {
		t.Run(tt.s3+tt.org, func(t *testing.T) {
			p := mustLoad(t, oneRule(tt.s3))
			e := S3Endpoint{Organizations: strings.Fields(tt.org)}
			if tt.refused != "" {
				if _, _, err := p.RenderS3Endpoint(e); err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("not refused for %q: %v", tt.refused, err)
				}
				return
			}
			d, _ := renderEndpoint(t, p, e)
			if d.allows(fishing) {
				t.Errorf("a stranger's bucket is let in: %+v", d)
			}
		})
	}
}

// endpointCase is a policy, what a note on it says, and what the document
// allows: "ACTION RESOURCE [ACCOUNT [ORG [ACL]]]", "!" before what it must not.
type endpointCase struct {
	name, rules string
	endpoint    S3Endpoint
	notes       []string
	fails       string
	asks        []string
}

func endpointCases() []endpointCase {
	const data = "  - {name: data, s3: {buckets: [acme]}}\n"
	return []endpointCase{
		{
			name: "nothing", rules: "  - {name: web, hosts: [api.test]}\n",
			notes: []string{"ECR's images"}, asks: []string{"!s3:GetObject acme/k", "!s3:ListAllMyBuckets *"},
		},
		{name: "nothing of S3's but everything of it", rules: data, asks: []string{"s3:PutBucketPolicy acme", "s3:GetObject acme/k", "!s3:GetObject acme2/k", "!s3:ListAllMyBuckets *"}},
		{
			name:  "the Region that rules name",
			rules: "  - {name: a, s3: {buckets: [east], regions: [us-east-1]}}\n  - {name: b, s3: {buckets: [all]}}\n",
			asks:  []string{"s3:GetObject east/k", "s3:GetObject all/k"},
		},
		{
			name: "two Regions", rules: "  - {name: a, s3: {buckets: [east], regions: [us-east-1]}}\n  - {name: b, s3: {buckets: [west], regions: [us-west-2]}}\n",
			fails: `more than one Region ("b": us-west-2)`,
		},
		{
			name: "one of two", rules: "  - {name: a, s3: {buckets: [east], regions: [us-east-1]}}\n  - {name: b, s3: {buckets: [west], regions: [us-west-2]}}\n",
			endpoint: S3Endpoint{Region: "us-west-2"}, notes: []string{`the rule "a" is for another Region`},
			asks: []string{"!s3:GetObject east/k", "s3:GetObject west/k"},
		},
		{
			name: "a deny elsewhere", rules: data + "  - {name: no, action: deny, s3: {buckets: [acme], regions: [us-west-2]}}\n",
			endpoint: S3Endpoint{Region: "us-east-1"}, asks: []string{"s3:GetObject acme/k"},
		},
		{name: "China", rules: "  - {name: cn, s3: {buckets: [acme], regions: [cn-north-1]}}\n", asks: []string{"s3:GetObject arn:aws-cn:s3:::acme/k", "!s3:GetObject acme/k"}},
		{name: "a partition without Regions", rules: "  - {name: cn, s3: {buckets: [acme], partition: aws-cn}}\n", asks: []string{"s3:GetObject arn:aws-cn:s3:::acme/k"}},
		{name: "two partitions", rules: "  - {name: a, s3: {buckets: [acme]}}\n  - {name: b, s3: {buckets: [acme], partition: aws-cn}}\n", fails: "more than one partition"},
		{
			name: "organization", rules: data + "  - {name: aws, s3: {buckets: [al2023-repos-us-east-1-de612dc2]}}\n  - {name: hub, preset: docker-hub}\n",
			endpoint: S3Endpoint{Organizations: []string{"o-a1b2c3d4e5"}},
			asks: []string{
				"!s3:GetObject acme/k", "s3:GetObject acme/k 1 o-a1b2c3d4e5", "!s3:GetObject acme/k 1 o-other000000",
				"s3:GetObject al2023-repos-us-east-1-de612dc2/k", "s3:GetObject docker-images-prod/k",
			},
		},
		{
			name: "hosts", rules: "  - {name: h, hosts: [acme.s3.us-east-1.amazonaws.com, global.s3.amazonaws.com, far.s3.us-west-2.amazonaws.com, \"*.example.com\", quick.s3-accelerate.amazonaws.com]}\n",
			endpoint: S3Endpoint{Region: "us-east-1"}, notes: []string{"gateway endpoints do not serve (accelerate)"},
			asks: []string{"s3:GetObject acme/k", "s3:GetObject global/k", "!s3:GetObject far/k", "!s3:GetObject quick/k"},
		},
		{
			name: "a host of all buckets", rules: "  - {name: h, hosts: [s3.us-east-1.amazonaws.com]}\n  - {name: no, action: deny, s3: {buckets: [evil]}}\n",
			notes: []string{"lets every bucket through"}, asks: []string{"s3:GetObject acme/k", "s3:ListAllMyBuckets *", "!s3:GetObject evil/k"},
		},
		{
			name: "opaque", rules: "  - {name: o, s3: {buckets: [acme], opaque: allow}}\n", notes: []string{"only the buckets that these rules list: o"},
			asks: []string{"s3:GetObject acme/k", "!s3:GetObject evil/k"},
		},
		{
			name: "a deny by host", rules: data + "  - {name: no, action: deny, hosts: [\"acme.s3.*.amazonaws.com\"]}\n",
			notes: []string{`the deny rule "no" is left out: IAM does not see by which host`}, asks: []string{"s3:GetObject acme/k"},
		},
		{
			name: "denies by wide hosts", rules: data + "  - {name: a, action: deny, hosts: [\"**.amazonaws.com\"]}\n  - {name: b, action: deny, hosts: [\"**\"]}\n" +
				"  - {name: c, action: deny, hosts: [\"*.amazonaws.com\"]}\n  - {name: d, action: deny, hosts: [\"**.example.com\"]}\n",
			notes: []string{`rule "a" is left out`, `rule "b" is left out`, `rule "c" is left out`}, asks: []string{"s3:GetObject acme/k"},
		},
		{
			name: "a deny for some ports", rules: data + "  - {name: no, action: deny, ports: [80], s3: {buckets: [acme]}}\n",
			notes: []string{`the deny rule "no" is left out: it is for some callers`}, asks: []string{"s3:GetObject acme/k"},
		},
		{
			name: "a deny for the ports that are allowed", rules: data + "  - {name: no, action: deny, ports: [443], protocol: tls, s3: {buckets: [acme]}}\n",
			asks: []string{"!s3:GetObject acme/k"},
		},
		{
			name: "directory buckets", rules: "  - {name: x, s3: {buckets: [a--use1-az4--x-s3]}}\n", notes: []string{"not one that S3's gateway endpoints serve (--x-s3)"},
			asks: []string{"!s3:GetObject a--use1-az4--x-s3/k"},
		},
		{
			name: "aliases of other services", rules: "  - {name: x, s3: {access_points: [abc.mrap, l--ol-s3]}}\n", notes: []string{"(multi_region)", "(object_lambda)"},
		},
		{
			name: "a deny that others share", rules: "  - {name: a, s3: {buckets: [acme], inspect: true, operations: [DeleteObject, DeleteObjects]}}\n  - {name: no, action: deny, s3: {buckets: [acme], inspect: true, operations: [DeleteObject]}}\n",
			notes: []string{`DeleteObject of the deny rule "no" is left out`}, asks: []string{"s3:DeleteObject acme/k 029608264753"},
		},
		{
			name: "a deny that others share by version", rules: "  - {name: a, s3: {buckets: [acme], inspect: true, operations: [HeadObject, SelectObjectContent]}}\n  - {name: no, action: deny, s3: {buckets: [acme], inspect: true, operations: [HeadObject]}}\n",
			notes: []string{`HeadObject of the deny rule "no" is left out`}, asks: []string{"s3:GetObject acme/k 029608264753", "!s3:GetObjectVersion acme/k 029608264753"},
		},
		{
			name: "a deny of ACLs", rules: "  - {name: a, s3: {buckets: [acme], inspect: true, operations: [PutObject, PutObjectAcl]}}\n  - {name: no, action: deny, s3: {buckets: [acme], inspect: true, operations: [PutObjectAcl]}}\n",
			asks: []string{"s3:PutObject acme/k 1", "!s3:PutObjectAcl acme/k 1", "s3:PutObjectAcl acme/k 1 o-x private", "!s3:PutObjectAcl acme/k 1 o-x public-read"},
		},
		{
			name: "a copy's tags", rules: "  - {name: to, s3: {buckets: [acme], inspect: true, operations: [CopyObject]}}\n  - {name: from, s3: {buckets: [source], inspect: true, operations: [GetObject]}}\n",
			asks: []string{"s3:GetObjectTagging source/k 1", "s3:PutObjectTagging acme/k 1", "!s3:GetObjectTagging acme/k 1", "!s3:GetObject source/k"},
		},
		{
			name: "operations of buckets alone", rules: "  - {name: a, s3: {buckets: [\"*-111122223333-us-east-1-an\"], inspect: true, operations: [GetBucketTagging]}}\n",
			asks: []string{"!s3:GetBucketTagging evil/x-111122223333-us-east-1-an/k 1"},
		},
		{
			name: "a deny by a glob's tail", rules: "  - {name: a, s3: {buckets: [acme-secret, acme]}}\n  - {name: no, action: deny, s3: {buckets: [\"*-secret\"]}}\n",
			asks: []string{"!s3:GetObject acme-secret/k", "s3:GetObject acme/x-secret"},
		},
	}
}

func TestEndpointCases(t *testing.T) {
	for _, tt := range endpointCases() {
		t.Run(tt.name, func(t *testing.T) {
			p := mustLoad(t, "version: 1\nrules:\n"+tt.rules)
			if tt.fails != "" {
				if _, _, err := p.RenderS3Endpoint(tt.endpoint); err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %v, want %q", err, tt.fails)
				}
				return
			}
			d, notes := renderEndpoint(t, p, tt.endpoint)
			for _, want := range tt.notes {
				if !strings.Contains(notes, want) {
					t.Errorf("no note %q in:\n%s", want, notes)
				}
			}
			for _, ask := range tt.asks {
				ask, denied := strings.CutPrefix(ask, "!")
				if got := d.allows(endpointAsk(ask)); got == denied {
					t.Errorf("%s: %v\n%+v", ask, got, d)
				}
			}
		})
	}
}

func endpointAsk(text string) iamRequest {
	f := append(strings.Fields(text), "", "", "")
	q := iamRequest{f[0], f[1], map[string]string{}}
	if !strings.HasPrefix(q.resource, "arn:") {
		q.resource = "arn:aws:s3:::" + q.resource
	}
	if f[2] != "" {
		q.context["aws:PrincipalAccount"], q.context["aws:PrincipalArn"] = f[2], "arn:aws:iam::"+f[2]+":role/x"
	}
	if f[3] != "" {
		q.context["aws:ResourceOrgID"] = f[3]
	}
	if f[4] != "" {
		q.context["s3:x-amz-acl"] = f[4]
	}
	return q
}

func TestEndpointSourcesAndModes(t *testing.T) {
	const text = `version: 1
sources:
  - {name: a, cidrs: [10.0.0.0/8]}
  - {name: b, cidrs: [10.1.0.0/16], mode: report}
rules:
  - {name: some, sources: [a], s3: {buckets: [acme]}}
  - {name: all, s3: {buckets: [open]}}
  - {name: no-a, action: deny, sources: [a], s3: {buckets: ["*"]}}
  - {name: no-b, action: deny, sources: [a, b], s3: {buckets: [acme]}}
`
	d, notes := renderEndpoint(t, mustLoad(t, text), S3Endpoint{})
	for _, want := range []string{"allow some sources: some\n", "reports and does not enforce", `the deny rule "no-a" is left out`, "prod-REGION-starport-layer-bucket"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in:\n%s", want, notes)
		}
	}
	if d.allows(endpointAsk("s3:GetObject acme/k")) || !d.allows(endpointAsk("s3:GetObject open/k")) {
		t.Errorf("%+v", d)
	}
}

func TestEndpointRefusesItsOwnOptions(t *testing.T) {
	p := mustLoad(t, oneRule("buckets: [acme]"))
	for _, e := range []S3Endpoint{
		{Region: "us-east"},
		{Partition: "mars"},
		{Region: "us-east-1", Partition: "aws-cn"},
		{Organizations: []string{"a1b2c3d4e5"}},
		{Organizations: []string{"o-A1b2c3d4e5"}},
		{Organizations: []string{"o-*"}},
	} {
		if _, _, err := p.RenderS3Endpoint(e); err == nil {
			t.Errorf("%+v is taken", e)
		}
	}
	var none *Policy
	if _, _, err := none.RenderS3Endpoint(S3Endpoint{}); err == nil {
		t.Error("no policy is rendered")
	}
}

// TestEndpointSize: a document gives up its white space, then its form, and
// says the same all the while; then it is refused.
func TestEndpointSize(t *testing.T) {
	shapes := map[string]bool{}
	for _, n := range []int{10, 60, 100, 160, 220, 400, 2000} {
		var b strings.Builder
		b.WriteString("version: 1\nrules:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: rule-%d, s3: {buckets: [bucket-number-%d]%s}}\n", i, i, []string{"", ", inspect: true, operations: [GetObject]", ", inspect: true, operations: [GetObject], anonymous: allow"}[i%3])
		}
		document, _, err := mustLoad(t, b.String()).RenderS3Endpoint(S3Endpoint{})
		if err != nil {
			t.Fatal(err)
		}
		text, lost, err := document.JSON()
		if err != nil {
			shapes["refused"] = true
			if n < 200 || !strings.Contains(err.Error(), "AWS takes 20480") {
				t.Errorf("%d rules: %v", n, err)
			}
			continue
		}
		shapes[lost[:min(len(lost), 30)]] = true
		d := parseIAM(t, text)
		for i := range n {
			for ask, want := range map[string]bool{"s3:GetObject %s 1": true, "s3:GetObject %s": i%3 != 1, "s3:PutObject %s 1": i%3 == 0} {
				if got := d.allows(endpointAsk(fmt.Sprintf(ask, fmt.Sprintf("bucket-number-%d/k", i)))); got != want {
					t.Fatalf("%d rules: bucket %d, %s: %v", n, i, ask, got)
				}
			}
		}
		if d.allows(endpointAsk(fmt.Sprintf("s3:GetObject bucket-number-%d/k", n))) {
			t.Errorf("%d rules: a bucket is let in that no rule names", n)
		}
	}
	if len(shapes) != 4 {
		t.Errorf("not every form came up: %v", shapes)
	}
}
