package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const inspectPolicy = `version: 1
sources:
  - {name: learner, cidrs: [10.9.0.0/16], mode: report}
  - {name: importer, cidrs: [10.8.0.0/16]}
rules:
  - name: data
    s3:
      buckets: ["acme-prod", "acme-prod-*"]
      access_points: [finance-111122223333]
      regions: [us-west-2]
      inspect: true
      operations: [GetObject, PutObject, CopyObject, UploadPartCopy, ListObjectsV2, ListBuckets]
      accounts: ["029608264753"]
  - name: public
    s3: {buckets: [acme-public], inspect: true, operations: [GetObject], anonymous: allow, presigned: deny}
  - name: open
    s3: {buckets: [acme-open], inspect: true}
  - name: admin
    s3: {buckets: [acme-open], inspect: true, operations: [PutObject, PutObjectAcl, PutBucketPolicy]}
  - name: no-delete
    action: deny
    s3: {buckets: ["acme-*"], inspect: true, operations: [DeleteObject, DeleteObjects]}
  - name: no-secrets
    action: deny
    s3: {buckets: ["acme-prod-secrets"]}
  - name: no-stranger
    action: deny
    s3: {buckets: [acme-open], inspect: true, operations: [GetObjectAcl], accounts: ["609629065308"]}
  - name: layers
    s3: {buckets: [layers], regions: [us-west-2]}
  - name: plain
    s3: {buckets: [plain], inspect: true}
  - name: far
    s3: {buckets: [far], regions: [cn-north-1], inspect: true}
  - name: imports
    sources: [importer]
    s3: {buckets: [supplier], regions: [eu-west-1], inspect: true, operations: [GetObject]}
`

// signedBy is an Authorization header.
func signedBy(key string) string {
	return "\nAuthorization: AWS4-HMAC-SHA256 Credential=" + key + "/20261101/us-west-2/s3/aws4_request, Signature=ab12"
}

// inspectedCall asks a policy about a request in an inspected connection to
// its own host, or to another one that is named first: "HOST: METHOD …".
func inspectedCall(t *testing.T, text string) Query {
	t.Helper()
	connection, rest, named := strings.Cut(text, ": ")
	if !named || strings.Contains(connection, " ") {
		rest, connection = text, strings.Fields(text)[1]
	}
	rest, from, _ := strings.Cut(rest, " from ")
	if head, tail, ok := strings.Cut(from, "\n"); ok {
		from, rest = head, rest+"\n"+tail
	}
	call, err := ParseS3Request(requestOf(rest))
	if err != nil {
		t.Fatalf("%s: %v", rest, err)
	}
	h, err := ParseHost(connection)
	if err != nil {
		t.Fatal(err)
	}
	q := Query{Via: ViaTLS, Host: h, Port: 443, Protocol: ProtocolTLS, S3: &call, At: time.Unix(1.8e9, 0)}
	if from != "" {
		q.Source.Addr = netip.MustParseAddr(from)
	}
	return q
}

// told is a decision in a few words.
func told(d Decision) string {
	word := d.Verdict.String()
	if d.WouldDeny() {
		word = "report"
	}
	line := strings.TrimSpace(fmt.Sprintf("%s %s %s", word, d.Reason, d.RuleName()))
	if d.OfSource {
		line += " (source)"
	}
	return line
}

func TestDecideCall(t *testing.T) {
	p := mustLoad(t, inspectPolicy)
	const prod, path = "acme-prod.s3.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"
	mine, theirs, old := signedBy(testKey), signedBy(otherKey), signedBy(oldKey)
	const presigned = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + testKey + "%2F20261101%2Fus-west-2%2Fs3%2Faws4_request&X-Amz-Signature=a"
	for _, tt := range []struct{ call, want string }{
		{"GET " + prod + " /k" + mine, "allow rule data"},
		{"GET " + path + " /acme-prod/k" + mine, "allow rule data"},
		{"GET " + path + " /acme-prod-x.y/k" + mine, "allow rule data"},
		{"GET acme-prod.s3-us-west-2.amazonaws.com /k" + mine, "allow rule data"},
		{"GET acme-prod.s3.dualstack.us-west-2.amazonaws.com /k" + mine, "allow rule data"},
		{"GET acme-prod.s3.us-east-1.amazonaws.com /k" + mine, "deny s3_bucket"},
		{"GET acme-prod.s3.amazonaws.com /k" + mine, "deny s3_bucket"},
		{"GET " + path + " /evil/k" + mine, "deny s3_bucket"},
		{"GET " + path + " /ACME-PROD/k" + mine, "deny s3_bucket"},
		{"GET " + path + " /evil.acme-prod/k" + mine, "deny s3_bucket"},
		{"GET " + path + " /acme-prod-x-s3alias/k" + mine, "deny s3_bucket"},
		{"GET finance-111122223333.s3-accesspoint.us-west-2.amazonaws.com /k" + mine, "allow rule data"},
		{"GET finance-999922223333.s3-accesspoint.us-west-2.amazonaws.com /k" + mine, "deny s3_bucket"},
		{"GET " + path + " /acme-prod-secrets/k" + mine, "deny deny_rule no-secrets"},
		// Operations.
		{"GET " + prod + " /?list-type=2" + mine, "allow rule data"},
		{"GET " + prod + " /" + mine, "deny s3_operation"},
		{"HEAD " + prod + " /k" + mine, "deny s3_operation"},
		{"PUT " + prod + " /k" + mine, "allow rule data"},
		{"PUT " + prod + " /k\nx-amz-acl: public-read" + mine, "deny s3_operation"},
		{"PUT " + prod + " /k?frobnicate" + mine, "deny deny_rule no-delete"}, // unknown, so it may be a DeleteObject
		{"DELETE " + prod + " /k" + mine, "deny deny_rule no-delete"},
		{"POST " + path + " /acme-prod?delete" + mine, "deny deny_rule no-delete"},
		{"PUT layers.s3.us-west-2.amazonaws.com /k?frobnicate" + mine, "allow rule layers"},
		{"PUT acme-public.s3.us-west-2.amazonaws.com /k?tagging" + mine, "deny s3_operation"},
		{"GET " + path + " /" + mine, "allow rule data"},
		{"GET " + path + " /" + theirs, "deny s3_account"},
		{"GET s3.us-east-1.amazonaws.com /" + mine, "deny s3_operation"},
		{"GET 111122223333.s3-control.us-west-2.amazonaws.com /x" + mine, "deny s3_opaque"},
		{"DELETE " + path + " /" + mine, "deny s3_operation"},
		// Without a list: all but the guarded.
		{"GET acme-open.s3.us-east-1.amazonaws.com /k?tagging" + theirs, "allow rule open"},
		{"POST acme-open.s3.us-east-1.amazonaws.com /k?uploads" + theirs, "allow rule open"},
		{"DELETE acme-open.s3.us-east-1.amazonaws.com /k?uploadId=u" + theirs, "allow rule open"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /?replication" + theirs, "deny s3_operation"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /?policy" + theirs, "allow rule admin"},
		{"DELETE acme-open.s3.us-east-1.amazonaws.com /?policy" + theirs, "deny s3_operation"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /" + theirs, "deny s3_operation"},
		{"POST acme-open.s3.us-east-1.amazonaws.com /k?restore" + theirs, "deny s3_operation"},
		{"POST acme-open.s3.us-east-1.amazonaws.com /" + theirs, "deny s3_operation"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /k" + theirs, "allow rule open"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /k\nx-amz-grant-read: id=x" + theirs, "allow rule admin"},
		{"POST acme-open.s3.us-east-1.amazonaws.com /k?uploads\nx-amz-grant-read: id=x" + theirs, "deny s3_operation"},
		{"GET acme-open.s3.us-east-1.amazonaws.com /k?acl" + theirs, "deny deny_rule no-stranger"},
		{"GET acme-open.s3.us-east-1.amazonaws.com /k?acl" + mine, "allow rule open"},
		{"GET acme-open.s3.us-east-1.amazonaws.com /k?acl" + old, "deny deny_rule no-stranger"}, // unknown, so it may be theirs
		{"GET acme-open.s3.us-east-1.amazonaws.com /k?acl", "deny s3_account"},
		// Signers.
		{"GET " + prod + " /k" + theirs, "deny s3_account"},
		{"GET " + prod + " /k" + old, "deny s3_account"},
		{"GET " + prod + " /k", "deny s3_account"},
		{"GET " + prod + " /k?" + presigned, "allow rule data"},
		{"GET acme-public.s3.us-east-1.amazonaws.com /k", "allow rule public"},
		{"GET acme-public.s3.us-east-1.amazonaws.com /k" + old, "allow rule public"},
		{"GET acme-public.s3.us-east-1.amazonaws.com /k?" + presigned, "deny s3_account"},
		{"PUT acme-public.s3.us-east-1.amazonaws.com /k", "deny s3_operation"},
		{"GET acme-open.s3.us-east-1.amazonaws.com /k", "deny s3_account"},
		// Copies.
		{"PUT " + prod + " /k\nx-amz-copy-source: acme-prod/a" + mine, "allow rule data"},
		{"PUT " + prod + " /k\nx-amz-copy-source: /acme-prod-eu/a" + mine, "allow rule data"},
		{"PUT " + prod + " /k\nx-amz-copy-source: layers/a" + mine, "allow rule data"},
		{"PUT " + prod + " /k\nx-amz-copy-source: evil/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k\nx-amz-copy-source: e%76il/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k?partNumber=1&uploadId=u\nx-amz-copy-source: evil/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k\nx-amz-copy-source: acme-prod-secrets/a" + mine, "deny deny_rule no-secrets (source)"},
		{"PUT " + prod + " /k\nx-amz-copy-source: acme-prod-x-s3alias/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k\nx-amz-copy-source: arn:aws:s3:us-west-2:111122223333:accesspoint/finance/object/a" + mine, "allow rule data"},
		{"PUT " + prod + " /k\nx-amz-copy-source: arn:aws:s3:us-west-2:999922223333:accesspoint/finance/object/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k\nx-amz-copy-source: arn:aws:s3:eu-west-1:111122223333:accesspoint/finance/object/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k\nx-amz-copy-source: supplier/a" + mine, "deny s3_bucket (source)"},
		{"PUT " + prod + " /k from 10.8.0.1\nx-amz-copy-source: supplier/a" + mine, "allow rule data"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /k\nx-amz-copy-source: acme-prod/a" + theirs, "deny s3_account (source)"},
		{"PUT acme-open.s3.us-east-1.amazonaws.com /k\nx-amz-copy-source: acme-open/a" + theirs, "allow rule open"},
		{"PUT evil.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: acme-prod/a" + mine, "deny s3_bucket"},
		// A rule without inspect asks for nothing, also where requests are seen.
		{"DELETE layers.s3.us-west-2.amazonaws.com /k", "allow rule layers"},
		{"GET " + path + " /layers/k", "allow rule layers"},
		// Unknown operations are on no list, and not beside one either.
		{"PUT plain.s3.us-west-2.amazonaws.com /k" + mine, "allow rule plain"},
		{"PUT plain.s3.us-west-2.amazonaws.com /k?frobnicate" + mine, "deny s3_operation"},
		{"PATCH plain.s3.us-west-2.amazonaws.com /k" + mine, "deny s3_operation"},
		{"PUT plain.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: far/a" + mine, "deny s3_bucket (source)"},
		{"PUT far.s3.cn-north-1.amazonaws.com.cn /k\nx-amz-copy-source: far/a" + mine, "allow rule far"},
		{"PUT far.s3.cn-north-1.amazonaws.com.cn /k\nx-amz-copy-source: plain/a" + mine, "deny s3_bucket (source)"},
		// Report mode.
		{"GET " + path + " /evil/k from 10.9.0.1" + mine, "report s3_bucket"},
		{"DELETE " + prod + " /k from 10.9.0.1" + mine, "report deny_rule no-delete"},
		// The connection was opened for another host.
		{path + ": GET " + prod + " /k" + mine, "allow rule data"},
		{prod + ": GET " + path + " /acme-prod/k" + mine, "allow rule data"},
		{prod + ": GET acme-prod-x.s3.us-west-2.amazonaws.com /k" + mine, "allow rule data"},
		{prod + ": GET evil.s3.us-west-2.amazonaws.com /k" + mine, "deny s3_bucket"},
		{prod + ": GET acme-prod.s3.dualstack.us-west-2.amazonaws.com /k" + mine, "deny name_mismatch"},
		{prod + ": GET acme-open.s3.us-east-1.amazonaws.com /k" + mine, "deny name_mismatch"},
		{"finance-111122223333.s3-accesspoint.us-west-2.amazonaws.com: GET " + prod + " /k" + mine, "deny name_mismatch"},
	} {
		q := inspectedCall(t, tt.call)
		d := p.Decide(q)
		if got := told(d); got != tt.want {
			t.Errorf("%s\n\t got %s\n\twant %s", tt.call, got, tt.want)
		}
		if d.Inspect || d.Enforcement != EnforcementInspect {
			t.Errorf("%s: Inspect %v, enforcement %q", tt.call, d.Inspect, d.Enforcement)
		}
		checkExplained(t, p, q, d)
	}
}

// checkExplained: an explanation names its words, and what it proposes helps.
func checkExplained(t *testing.T, p *Policy, q Query, d Decision) {
	t.Helper()
	e := p.Explain(q)
	if told(e.Decision) != told(d) || len(e.Steps) < 3 {
		t.Errorf("explained as %s", e)
	}
	if _, err := e.MarshalJSON(); err != nil {
		t.Error(err)
	}
	if e.Remedy == "" || d.Mode == Report {
		return
	}
	helped, err := Load(Text{"policy.yaml", []byte(inspectPolicy)}, Text{"remedy.yaml", []byte("version: 1\nrules:\n" + e.Remedy)})
	if err != nil {
		t.Errorf("the remedy is no rule: %v\n%s", err, e.Remedy)
		return
	}
	if after := helped.Decide(q); after.Verdict != Allow && after.Reason == d.Reason && after.OfSource == d.OfSource {
		t.Errorf("the remedy changes nothing: %s\n%s", told(after), e)
	}
}

// TestDecideForInspection: what a connection may become before anybody has
// seen a request.
func TestDecideForInspection(t *testing.T) {
	p := mustLoad(t, inspectPolicy)
	spelled := mustLoad(t, `version: 1
rules:
  - {name: host, hosts: [s3.us-west-2.amazonaws.com, acme-x.s3.us-west-2.amazonaws.com], ports: [443], protocol: tcp}
  - {name: http, hosts: [acme-x.s3.us-west-2.amazonaws.com, s3.us-west-2.amazonaws.com], protocol: http}
  - {name: no-delete, action: deny, s3: {buckets: ["acme-*"], regions: [us-west-2], inspect: true, operations: [DeleteObject]}}
  - {name: no-evil, action: deny, s3: {buckets: [evil], inspect: true}}
`)
	opaque := mustLoad(t, `version: 1
rules:
  - {name: lax, s3: {buckets: [acme], regions: [us-west-2], opaque: allow}}
`)
	callers := mustLoad(t, `version: 1
sources: [{name: one, cidrs: [10.1.0.0/16]}, {name: two, cidrs: [10.2.0.0/16]}]
rules:
  - {name: first, sources: [one], s3: {buckets: [acme], regions: [us-west-2], inspect: true}}
  - {name: second, sources: [two], s3: {buckets: [acme], regions: [us-west-2], inspect: true}}
  - {name: third, ports: [8443], s3: {buckets: [acme], regions: [us-west-2], inspect: true}}
`)
	denied := mustLoad(t, `version: 1
rules:
  - {name: host, hosts: [s3.amazonaws.com, s3.eu-west-1.amazonaws.com, s3.us-west-2.amazonaws.com, acme.s3.us-west-2.amazonaws.com], ports: [443], protocol: tcp}
  - {name: no-http, action: deny, hosts: [acme.s3.us-west-2.amazonaws.com], protocol: http}
  - {name: no-west, action: deny, s3: {buckets: [evil], regions: [us-west-2], inspect: true}}
  - {name: no-delete, action: deny, s3: {buckets: [acme], regions: [us-west-2], inspect: true, operations: [DeleteObject]}}
  - {name: no-where, action: deny, s3: {buckets: [worse], partition: aws, inspect: true}}
`)
	for _, tt := range []struct {
		policy *Policy
		target string
		want   string
	}{
		{callers, "https://s3.us-west-2.amazonaws.com from 10.1.0.1", "allow rule first tls inspect"},
		{callers, "https://s3.us-west-2.amazonaws.com from 10.2.0.1", "allow rule second tls inspect"},
		{callers, "https://s3.us-west-2.amazonaws.com from 10.3.0.1", "deny s3_opaque"},
		{callers, "https://s3.us-west-2.amazonaws.com:8443 from 10.3.0.1", "allow rule third tls inspect"},
		{callers, "https://acme.s3.us-west-2.amazonaws.com from 10.2.0.1", "allow rule second tls inspect"},
		{denied, "https://s3.us-west-2.amazonaws.com", "allow rule host tls inspect"},
		{denied, "https://s3.eu-west-1.amazonaws.com", "allow rule host tls inspect"}, // for no-where
		{denied, "https://s3.amazonaws.com", "allow rule host tls inspect"},
		{denied, "acme.s3.us-west-2.amazonaws.com:443", "allow rule host tls inspect"}, // it will carry TLS: no-http denies nothing
		{p, "https://acme-prod.s3.us-west-2.amazonaws.com", "allow rule data tls inspect"},
		{p, "acme-prod.s3.us-west-2.amazonaws.com:443", "allow rule data tls inspect"},
		{p, "https://s3.us-west-2.amazonaws.com", "allow rule data tls inspect"},
		{p, "https://s3.dualstack.us-west-2.amazonaws.com", "allow rule data tls inspect"},
		{p, "https://bucket.vpce-1a2b-3c4d.s3.us-west-2.vpce.amazonaws.com", "allow rule data tls inspect"},
		{p, "https://s3express-control.us-west-2.amazonaws.com", "allow rule data tls inspect"},
		{p, "https://s3.us-east-1.amazonaws.com", "allow rule public tls inspect"}, // of all of the partition
		{p, "https://s3.amazonaws.com", "allow rule public tls inspect"},
		{p, "https://s3.eu-west-1.amazonaws.com from 10.8.0.1", "allow rule public tls inspect"},
		{p, "https://s3.cn-north-1.amazonaws.com.cn", "allow rule far tls inspect"},
		{p, "https://s3.cn-northwest-1.amazonaws.com.cn", "deny s3_opaque"},
		{p, "https://s3.us-gov-west-1.amazonaws.com", "deny s3_opaque"},
		{p, "https://111122223333.s3-control.us-west-2.amazonaws.com", "deny s3_opaque"},
		{p, "https://s3tables.us-west-2.amazonaws.com", "deny s3_opaque"},
		{p, "https://s3-accelerate.amazonaws.com", "deny s3_opaque"},
		{p, "https://s3-1-w.amazonaws.com", "deny s3_opaque"},
		{p, "https://io.s3-object-lambda.us-west-2.amazonaws.com", "deny s3_opaque"},
		{p, "https://evil.s3.us-west-2.amazonaws.com", "deny s3_bucket"},
		{p, "https://acme-prod.s3.us-west-2.amazonaws.com:8443", "deny s3_bucket"},
		{p, "http://acme-prod.s3.us-west-2.amazonaws.com", "deny deny_rule no-delete"},
		{p, "http://s3.us-west-2.amazonaws.com:443", "deny deny_rule no-delete"},
		{p, "tcp://acme-prod.s3.us-west-2.amazonaws.com:443", "deny deny_rule no-delete"},
		{p, "https://acme-prod-secrets.s3.us-west-2.amazonaws.com", "deny deny_rule no-secrets"},
		{p, "https://layers.s3.us-west-2.amazonaws.com", "allow rule layers tls"},
		{p, "https://evil.s3.us-west-2.amazonaws.com from 10.9.0.1", "report s3_bucket tcp"},
		{p, "https://acme-prod.s3.us-west-2.amazonaws.com from 10.9.0.1", "allow rule data tls inspect"},
		// A deny rule that must see the requests makes them seen.
		{spelled, "https://acme-x.s3.us-west-2.amazonaws.com", "allow rule host tls inspect"},
		{spelled, "acme-x.s3.us-west-2.amazonaws.com:443", "allow rule host tls inspect"},
		{spelled, "https://s3.us-west-2.amazonaws.com", "allow rule host tls inspect"},
		{spelled, "https://evil.s3.us-west-2.amazonaws.com", "deny deny_rule no-evil"},
		{spelled, "http://acme-x.s3.us-west-2.amazonaws.com", "deny deny_rule no-delete"}, // nobody would see them
		{spelled, "tcp://acme-x.s3.us-west-2.amazonaws.com:443", "deny deny_rule no-delete"},
		{opaque, "https://s3.us-west-2.amazonaws.com", "allow rule lax tls"},
		{opaque, "https://s3.us-east-1.amazonaws.com", "deny s3_opaque"},
		{opaque, "https://s3tables.us-west-2.amazonaws.com", "deny s3_opaque"},
		{opaque, "https://s3.amazonaws.com", "deny s3_opaque"},
	} {
		q := ask(t, tt.target)
		d := tt.policy.Decide(q)
		got := told(d)
		if d.Verdict == Allow {
			got += " " + d.Protocol.String()
		}
		if d.Inspect {
			got += " inspect"
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.target, got, tt.want)
		}
		if e := tt.policy.Explain(q); told(e.Decision) != told(d) {
			t.Errorf("%s: explained as %s", tt.target, e)
		}
	}
}

// TestGlobalHostInspected: a deny rule with Regions reaches the host that
// tells none, by itself.
func TestGlobalHostInspected(t *testing.T) {
	p := mustLoad(t, `version: 1
rules:
  - {name: host, hosts: [s3.amazonaws.com, s3.eu-west-1.amazonaws.com]}
  - {name: no-west, action: deny, s3: {buckets: [evil], regions: [us-west-2], inspect: true}}
`)
	if d := p.Decide(ask(t, "https://s3.amazonaws.com")); !d.Inspect {
		t.Errorf("the global host: %s, not inspected", told(d))
	}
	if d := p.Decide(ask(t, "https://s3.eu-west-1.amazonaws.com")); d.Inspect || d.Verdict != Allow {
		t.Errorf("another Region: %s, inspected %v", told(d), d.Inspect)
	}
}

// TestSpelledHostSources: a rule of hosts allows copies from the bucket that
// the host names, and from all where it names none.
func TestSpelledHostSources(t *testing.T) {
	p := mustLoad(t, `version: 1
rules:
  - {name: host, hosts: [acme-x.s3.us-west-2.amazonaws.com, s3.eu-west-1.amazonaws.com]}
  - {name: no-delete, action: deny, s3: {buckets: ["acme-*"], inspect: true, operations: [DeleteObject]}}
`)
	for call, want := range map[string]string{
		"PUT acme-x.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: acme-x/a":          "allow rule host",
		"PUT acme-x.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: evil/a":            "deny s3_bucket (source)",
		"PUT acme-x.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: acme-x-s3alias/a":  "deny s3_bucket (source)",
		"PUT s3.eu-west-1.amazonaws.com /any/k\nx-amz-copy-source: other/a":              "allow rule host",
		"acme-x.s3.us-west-2.amazonaws.com: GET s3.us-west-2.amazonaws.com /acme-x/k":    "deny s3_bucket",
		"acme-x.s3.us-west-2.amazonaws.com: DELETE acme-x.s3.us-west-2.amazonaws.com /k": "deny deny_rule no-delete",
	} {
		if d := p.Decide(inspectedCall(t, call)); told(d) != want {
			t.Errorf("%s: got %s, want %s", call, told(d), want)
		}
	}
}

// TestInspectedAlike: a bucket is decided alike, however it is addressed.
func TestInspectedAlike(t *testing.T) {
	p := mustLoad(t, inspectPolicy)
	const path = "s3.us-west-2.amazonaws.com"
	for _, bucket := range []string{"acme-prod", "acme-prod-x", "evil", "layers", "acme-open", "acme-prod-secrets"} {
		virtual := inspectedCall(t, "GET "+bucket+"."+path+" /k"+signedBy(testKey))
		inPath := inspectedCall(t, "GET "+path+" /"+bucket+"/k"+signedBy(testKey))
		if a, b := p.Decide(virtual), p.Decide(inPath); told(a) != told(b) {
			t.Errorf("%s: %s as a host, %s in the path", bucket, told(a), told(b))
		}
	}
}

// TestInspectLints: conditions count when rules are compared, and what goes
// round inspection is noted.
func TestInspectLints(t *testing.T) {
	const lead = "version: 1\nrules:\n"
	for name, tt := range map[string]struct{ rules, warns, notes string }{
		"a wider list covers": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true, operations: [GetObject, PutObject]}}\n- {name: b, s3: {buckets: [abc], inspect: true, operations: [GetObject]}}",
			warns: `"b" changes nothing`,
		},
		"another list does not": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true, operations: [GetObject]}}\n- {name: b, s3: {buckets: [abc], inspect: true, operations: [PutObject]}}",
		},
		"no list covers what is not guarded": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true}}\n- {name: b, s3: {buckets: [abc], inspect: true, operations: [GetObject]}}",
			warns: `"b" changes nothing`,
		},
		"no list does not cover what is": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true}}\n- {name: b, s3: {buckets: [abc], inspect: true, operations: [PutBucketPolicy]}}",
		},
		"nor what is of no bucket": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true}}\n- {name: b, s3: {buckets: [abc], inspect: true, operations: [ListBuckets]}}",
		},
		"what inspects does not cover what asks for nothing": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true}}\n- {name: b, s3: {buckets: [abc], regions: [us-east-1]}}",
			notes: `"b" lets connections to S3 through uninspected`,
		},
		"accounts narrow": {
			rules: `- {name: a, s3: {buckets: [abc], inspect: true, accounts: ["111122223333"]}}` + "\n- {name: b, s3: {buckets: [abc], inspect: true}}",
			warns: `"a" changes nothing`,
		},
		"anonymous widens": {
			rules: "- {name: a, s3: {buckets: [abc], inspect: true}}\n- {name: b, s3: {buckets: [abc], inspect: true, anonymous: allow}}",
			warns: `"a" changes nothing`,
		},
		"a narrow deny rule does not deny all": {
			rules: "- {name: a, action: deny, s3: {buckets: [abc], inspect: true, operations: [DeleteObject]}}\n- {name: b, s3: {buckets: [abc], inspect: true}}",
		},
		"a wide one does": {
			rules: "- {name: a, action: deny, s3: {buckets: [abc], inspect: true}}\n- {name: b, s3: {buckets: [abc], inspect: true}}",
			warns: `"b" can allow nothing`,
		},
		"a rule that inspects not makes inspection vain": {
			rules: "- {name: a, s3: {buckets: [abc]}}\n- {name: b, s3: {buckets: [abc], inspect: true}}",
			warns: `"b" changes nothing`,
			notes: `"a" lets connections to S3 through uninspected, and in them a client reaches what the rule "b" inspects`,
		},
		"another bucket beside it": {
			rules: "- {name: a, s3: {buckets: [xyz], regions: [us-east-1]}}\n- {name: b, s3: {buckets: [abc], inspect: true}}",
			notes: `"a" lets connections to S3 through uninspected`,
		},
		"a host beside it": {
			rules: "- {name: a, hosts: [xyz.s3.us-east-1.amazonaws.com]}\n- {name: b, s3: {buckets: [abc], regions: [us-east-1], inspect: true}}",
			notes: `"a" lets connections to S3 through uninspected`,
		},
		"the global host beside it": {
			rules: "- {name: a, hosts: [xyz.s3.amazonaws.com]}\n- {name: b, s3: {buckets: [abc], regions: [us-east-1], inspect: true}}",
			notes: `"a" lets connections to S3 through uninspected`,
		},
		"another Region": {
			rules: "- {name: a, s3: {buckets: [xyz], regions: [us-east-1]}}\n- {name: b, s3: {buckets: [abc], regions: [us-west-2], inspect: true}}",
		},
		"opaque": {
			rules: "- {name: a, s3: {buckets: [xyz], opaque: allow}}",
			notes: "every bucket of its Regions",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, lead+tt.rules)
			checkSaid(t, "warnings", p.Warnings(time.Time{}), tt.warns, "changes nothing", "can allow nothing")
			checkSaid(t, "notes", p.Notes(), tt.notes, "uninspected", "every bucket")
		})
	}
}

// checkSaid looks for a text among warnings; "" means that none of the others
// is there.
func checkSaid(t *testing.T, what string, all []Warning, want string, others ...string) {
	t.Helper()
	var text strings.Builder
	for _, w := range all {
		text.WriteString(w.Message + "\n")
	}
	if want != "" && !strings.Contains(text.String(), want) {
		t.Errorf("%s lack %q:\n%s", what, want, &text)
	}
	for _, other := range others {
		if want == "" && strings.Contains(text.String(), other) {
			t.Errorf("%s:\n%s", what, &text)
		}
	}
}

// TestExplainRequest: whole requests, from their connection on.
func TestExplainRequest(t *testing.T) {
	p := mustLoad(t, inspectPolicy)
	for _, tt := range []struct{ target, request, verdict, step string }{
		{"https://acme-prod.s3.us-west-2.amazonaws.com", "GET acme-prod.s3.us-west-2.amazonaws.com /k" + signedBy(testKey), "allow rule data", "the request goes on"},
		{"https://acme-prod.s3.us-west-2.amazonaws.com", "GET acme-prod.s3.us-west-2.amazonaws.com /%zz", "deny s3_opaque", "not percent-encoded well"},
		{"https://acme-prod.s3.us-west-2.amazonaws.com from 10.9.0.1", "GET acme-prod.s3.us-west-2.amazonaws.com /%zz", "report s3_opaque", "cannot be judged"},
		{"https://acme-prod.s3.us-west-2.amazonaws.com", "GET evil.example /", "deny name_mismatch", "no host of S3's"},
		{"https://layers.s3.us-west-2.amazonaws.com", "DELETE layers.s3.us-west-2.amazonaws.com /k", "allow rule layers", "nobody sees the request"},
		{"https://evil.s3.us-west-2.amazonaws.com", "GET acme-prod.s3.us-west-2.amazonaws.com /k", "deny s3_bucket", "nobody sees the request"},
		{"https://s3.us-west-2.amazonaws.com", "PUT s3.us-west-2.amazonaws.com /acme-prod/k\nx-amz-copy-source: evil/a" + signedBy(testKey), "deny s3_bucket (source)", "some rule must allow GetObject of bucket evil"},
		{"https://s3.us-west-2.amazonaws.com", "PUT s3.us-west-2.amazonaws.com /acme-prod?policy" + signedBy(testKey), "deny s3_operation", "not PutBucketPolicy"},
		{"https://s3.us-west-2.amazonaws.com", "PUT s3.us-west-2.amazonaws.com /acme-open?cors" + signedBy(testKey), "deny s3_operation", "does not list PutBucketCors, which must be spelled out"},
	} {
		e := p.ExplainRequest(ask(t, tt.target), requestOf(tt.request))
		if told(e.Decision) != tt.verdict || !strings.Contains(e.String(), tt.step) {
			t.Errorf("%s: want %s and %q:\n%s", tt.request, tt.verdict, tt.step, e)
		}
	}
	var none *Policy
	if e := none.ExplainRequest(ask(t, "https://abc.s3.us-west-2.amazonaws.com"), requestOf("GET abc.s3.us-west-2.amazonaws.com /k")); e.Decision.Verdict != Deny {
		t.Errorf("no policy: %s", e)
	}
}

func TestDecideCallZero(t *testing.T) {
	p := mustLoad(t, inspectPolicy)
	if d := p.Decide(Query{Via: ViaTLS, Host: mustHost(t, "acme-prod.s3.us-west-2.amazonaws.com"), Port: 443, Protocol: ProtocolTLS, S3: &S3Call{}}); d.Verdict != Deny {
		t.Errorf("the zero call: %s", told(d))
	}
	call := S3Call{Host: mustHost(t, "acme-prod.s3.us-west-2.amazonaws.com"), Ref: S3Ref{Form: S3VirtualHosted, Bucket: "acme-prod", Region: "us-west-2", Partition: "aws"}}
	if d := p.Decide(Query{Via: ViaTLS, Host: call.Host, Port: 443, Protocol: ProtocolTLS, S3: &call}); d.Verdict != Deny {
		t.Errorf("a call without an operation or a signer: %s", told(d))
	}
}

func mustHost(t testing.TB, s string) Host {
	t.Helper()
	h, err := ParseHost(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func BenchmarkDecideCall(b *testing.B) {
	p := mustLoad(b, inspectPolicy)
	call, err := ParseS3Request(requestOf("PUT acme-prod.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: acme-prod/a" + signedBy(testKey)))
	if err != nil {
		b.Fatal(err)
	}
	q := Query{Via: ViaTLS, Host: call.Host, Port: 443, Protocol: ProtocolTLS, S3: &call}
	b.ReportAllocs()
	for b.Loop() {
		if p.Decide(q).Verdict != Allow {
			b.Fatal("denied")
		}
	}
}
