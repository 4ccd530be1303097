package policy

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"testing"
)

// request makes a request of lines: "METHOD HOST TARGET", then its headers.
func request(t testing.TB, text string) S3Request {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(text), "\n")
	words := strings.Fields(lines[0])
	if len(words) != 3 {
		t.Fatalf("not METHOD HOST TARGET: %q", lines[0])
	}
	header := map[string][]string{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		name = textproto.CanonicalMIMEHeaderKey(name)
		header[name] = append(header[name], value)
	}
	return S3Request{
		Method: words[0], Host: words[1], Target: words[2],
		Header: func(name string) []string { return header[name] },
	}
}

const (
	testKey  = "ASIAQNZGKIQY56JQ7WML" // of account 029608264753
	otherKey = "ASIAY34FZKBOKMUTVV7A" // of account 609629065308
	oldKey   = "AKIAIOSFODNN7EXAMPLE" // of before 2019: of nobody knows whom
	signed   = "\nAuthorization: AWS4-HMAC-SHA256 Credential=" + testKey + "/20261101/us-west-2/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab12"
)

func ExampleParseS3Request() {
	call, err := ParseS3Request(S3Request{
		Method: "PUT",
		Host:   "s3.us-west-2.amazonaws.com",
		Target: "/acme-prod/reports/2026%20Q4.pdf",
		Header: func(name string) []string {
			return map[string][]string{"X-Amz-Copy-Source": {"/acme-in/q4.pdf?versionId=7"}}[name]
		},
	})
	fmt.Println(call.Operation, call.Ref.Bucket, call.Key, err)
	fmt.Println(call.Source.Ref.Bucket, call.Source.Key, call.Source.Version)
	// Output:
	// CopyObject acme-prod reports/2026 Q4.pdf <nil>
	// acme-in q4.pdf 7
}

// brief is a call in one line: operation, what is named, key.
func brief(c S3Call) string {
	name := c.Ref.Bucket
	if name == "" {
		name = c.Ref.AccessPoint
		if c.Ref.Account != "" {
			name += "@" + c.Ref.Account
		}
	}
	operation := c.Operation
	if operation == "" {
		operation = "?"
	}
	line := fmt.Sprintf("%s %s %s %q", operation, c.Ref.Form, name, c.Key)
	if c.ACL != "" {
		line += " +" + c.ACL
	}
	if s := c.Source; s.Ref.Form != "" {
		line += fmt.Sprintf(" from %s%s %q", s.Ref.Bucket, s.Ref.AccessPoint, s.Key)
		if s.Version != "" {
			line += "@" + s.Version
		}
	}
	return line
}

func TestParseS3Request(t *testing.T) {
	const virtual, path = "b.s3.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"
	for _, tt := range []struct{ request, want string }{
		// Buckets and keys, as S3 reads them.
		{"GET " + virtual + " /k", `GetObject virtual_hosted b "k"`},
		{"GET " + virtual + ":443 /k", `GetObject virtual_hosted b "k"`},
		{"GET B.S3.US-WEST-2.amazonaws.com. /K", `GetObject virtual_hosted b "K"`},
		{"GET " + virtual + " /", `ListObjects virtual_hosted b ""`},
		{"GET " + virtual + " /a//b/../c/%2e%2e/d", `GetObject virtual_hosted b "a//b/../c/../d"`},
		{"GET " + virtual + " //k", `GetObject virtual_hosted b "/k"`},
		{"GET " + virtual + " /a%2Fb+c%25", `GetObject virtual_hosted b "a/b+c%"`},
		{"GET " + virtual + " /%FF", `GetObject virtual_hosted b "\xff"`},
		{"GET " + virtual + " /other/k", `GetObject virtual_hosted b "other/k"`},
		{"GET " + path + " /acme/k", `GetObject path_style acme "k"`},
		{"GET " + path + " /acme/", `ListObjects path_style acme ""`},
		{"GET " + path + " /acme", `ListObjects path_style acme ""`},
		{"GET " + path + " /acme?list-type=2&prefix=a%2F", `ListObjectsV2 path_style acme ""`},
		{"GET " + path + " /%61cme/k", `GetObject path_style acme "k"`},
		{"GET " + path + " /ACME/k", `GetObject path_style ACME "k"`},
		{"GET " + path + " /acme//k", `GetObject path_style acme "/k"`},
		{"GET " + path + " /acme/a/../k", `GetObject path_style acme "a/../k"`},
		{"GET " + path + " /acme.s3.us-west-2.amazonaws.com/k", `GetObject path_style acme.s3.us-west-2.amazonaws.com "k"`},
		{"GET " + path + " /team-x7-s3alias/k", `GetObject path_style team-x7-s3alias "k"`},
		{"GET s3.amazonaws.com /acme/k", `GetObject path_style acme "k"`},
		{"GET s3.us-west-2.amazonaws.com /acme-111122223333-us-west-2-an/k", `GetObject path_style acme-111122223333-us-west-2-an "k"`},
		{"GET " + path + " https://" + path + "/acme/k?acl", `GetObjectAcl path_style acme "k"`},
		{"GET " + path + " HTTPS://S3.us-west-2.amazonaws.com/acme/k", `GetObject path_style acme "k"`},
		{"GET " + path + " https://" + path + "?x", `ListBuckets path_style  ""`},
		{"GET bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com /acme/k", `GetObject privatelink acme "k"`},
		{"GET bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com /", `ListBuckets privatelink  ""`},
		{"GET acme.bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com /k", `GetObject privatelink acme "k"`},
		// Access points and the other hosts.
		{"GET team-111122223333.s3-accesspoint.us-west-2.amazonaws.com /k", `GetObject access_point team@111122223333 "k"`},
		{"GET x.mrap.accesspoint.s3-global.amazonaws.com /k", `GetObject multi_region x.mrap "k"`},
		{"GET team-111122223333.s3-object-lambda.us-west-2.amazonaws.com /k", `GetObject object_lambda team@111122223333 "k"`},
		{"GET team-111122223333.op-01234567890123456.s3-outposts.us-west-2.amazonaws.com /k", `GetObject outposts team@111122223333 "k"`},
		{"GET acme--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com /?session", `CreateSession express acme--usw2-az1--x-s3 ""`},
		{"PUT acme--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com /new?renameObject\nx-amz-rename-source: /old%20one", `RenameObject express acme--usw2-az1--x-s3 "new" from acme--usw2-az1--x-s3 "old one"`},
		{"GET s3express-control.us-west-2.amazonaws.com /", `ListDirectoryBuckets express_control  ""`},
		{"PUT s3express-control.us-west-2.amazonaws.com /acme--usw2-az1--x-s3?policy", `PutBucketPolicy express_control acme--usw2-az1--x-s3 ""`},
		{"GET acme.s3-website-us-east-1.amazonaws.com /", `GetObject website acme ""`},
		{"HEAD acme.s3-website.eu-central-1.amazonaws.com /a?acl", `HeadObject website acme "a"`},
		{"PUT acme.s3-website.eu-central-1.amazonaws.com /a", `? website acme "a"`},
		{"GET 111122223333.s3-control.us-west-2.amazonaws.com /v20180820/bucket/acme", `? control @111122223333 ""`},
		{"GET s3tables.us-west-2.amazonaws.com /buckets", `? tables  ""`},
		{"POST s3-1-w.amazonaws.com /acme/k", `? other  ""`},
		{"GET s3-accelerate.amazonaws.com /acme/k", `? accelerate  ""`},
		{"POST io-1.s3-object-lambda.us-west-2.amazonaws.com /WriteGetObjectResponse", `? object_lambda  ""`},
		// Operations that the SDK does not make, or makes otherwise.
		{"GET " + virtual + " /k?versionId=1&v=7&response-content-type=a", `GetObject virtual_hosted b "k"`},
		{"GET " + virtual + " /?list-type=1", `? virtual_hosted b ""`},
		{"GET " + virtual + " /?inventory&id=x", `GetBucketInventoryConfiguration virtual_hosted b ""`},
		{"GET " + virtual + " /?inventory", `ListBucketInventoryConfigurations virtual_hosted b ""`},
		{"GET " + virtual + " /k?%61cl", `GetObjectAcl virtual_hosted b "k"`},
		{"GET " + virtual + " /k?policy", `? virtual_hosted b "k"`},
		{"HEAD " + virtual + " /k?acl", `? virtual_hosted b "k"`},
		{"PUT " + virtual + " /k?frobnicate", `? virtual_hosted b "k"`},
		{"PUT " + virtual + " /?frobnicate", `? virtual_hosted b ""`},
		{"DELETE " + virtual + " /?frobnicate", `? virtual_hosted b ""`},
		{"PUT " + virtual + " /k?policy", `? virtual_hosted b "k"`},
		{"PUT " + virtual + " /k?partNumber=1", `? virtual_hosted b "k"`},
		{"PUT " + virtual + " /k?uploadId=u", `? virtual_hosted b "k"`},
		{"PUT " + virtual + " /k?uploadId=u&partNumber=1", `UploadPart virtual_hosted b "k"`},
		{"PUT " + virtual + " /k?=&&", `? virtual_hosted b "k"`},
		{"PUT " + virtual + " /k?x-id=PutBucketPolicy", `PutObject virtual_hosted b "k"`},
		{"POST " + virtual + " /k", `? virtual_hosted b "k"`},
		{"POST " + virtual + " /", `PostObject virtual_hosted b ""`},
		{"POST " + virtual + " /?delete", `DeleteObjects virtual_hosted b ""`},
		{"PATCH " + virtual + " /k", `? virtual_hosted b "k"`},
		{"get " + virtual + " /k", `? virtual_hosted b "k"`},
		{"OPTIONS " + virtual + " /k", `? virtual_hosted b "k"`},
		{"PUT " + path + " /", `? path_style  ""`},
		{"GET " + path + " /?acl", `? path_style  ""`},
		// Grants.
		{"PUT " + virtual + " /k\nx-amz-acl: private", `PutObject virtual_hosted b "k"`},
		{"PUT " + virtual + " /k\nx-amz-acl: bucket-owner-full-control", `PutObject virtual_hosted b "k"`},
		{"PUT " + virtual + " /k\nx-amz-acl: public-read", `PutObject virtual_hosted b "k" +PutObjectAcl`},
		{"PUT " + virtual + " /k\nx-amz-acl: private\nx-amz-acl: public-read", `PutObject virtual_hosted b "k" +PutObjectAcl`},
		{"PUT " + virtual + " /k?X-amz-ACL=public-read", `PutObject virtual_hosted b "k" +PutObjectAcl`},
		{"PUT " + virtual + " /k?x-amz-grant-read=id%3Dx", `PutObject virtual_hosted b "k" +PutObjectAcl`},
		{"PUT " + virtual + " /k\nx-amz-grant-write-acp: id=x", `PutObject virtual_hosted b "k" +PutObjectAcl`},
		{"POST " + virtual + " /k?uploads\nx-amz-grant-full-control: id=x", `CreateMultipartUpload virtual_hosted b "k" +PutObjectAcl`},
		{"PUT " + virtual + " /\nx-amz-acl: public-read", `CreateBucket virtual_hosted b "" +PutBucketAcl`},
		{"PUT " + virtual + " /k?acl\nx-amz-acl: public-read", `PutObjectAcl virtual_hosted b "k"`},
		{"GET " + virtual + " /k\nx-amz-acl: public-read", `GetObject virtual_hosted b "k"`},
		// Sources of copies.
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/a/b", `CopyObject virtual_hosted b "k" from src "a/b"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: /src/a/b", `CopyObject virtual_hosted b "k" from src "a/b"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: %2Fsrc%2Fa%20b", `CopyObject virtual_hosted b "k" from src "a b"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: s%72c/a?versionId=v1", `CopyObject virtual_hosted b "k" from src "a"@v1`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/a%3FversionId=v1", `CopyObject virtual_hosted b "k" from src "a?versionId=v1"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: team-x-s3alias/a", `CopyObject virtual_hosted b "k" from team-x-s3alias "a"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src//a", `CopyObject virtual_hosted b "k" from src "/a"`},
		{"PUT " + virtual + " /k?partNumber=2&uploadId=u\nx-amz-copy-source: src/a", `UploadPartCopy virtual_hosted b "k" from src "a"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn:aws:s3:us-west-2:111122223333:accesspoint/finance/object/x/y", `CopyObject virtual_hosted b "k" from finance "x/y"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn%3Aaws%3As3%3Aus-west-2%3A111122223333%3Aaccesspoint%2Ffinance%2Fobject%2Fx", `CopyObject virtual_hosted b "k" from finance "x"`},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn:aws:s3-outposts:us-west-2:111122223333:outpost/op-1/accesspoint/finance/object/x", `CopyObject virtual_hosted b "k" from finance "x"`},
	} {
		call, err := ParseS3Request(request(t, tt.request))
		if err != nil {
			t.Errorf("%s\n\t%v", tt.request, err)
		} else if got := brief(call); got != tt.want {
			t.Errorf("%s\n\t got %s\n\twant %s", tt.request, got, tt.want)
		}
	}
}

func TestParseS3RequestRefuses(t *testing.T) {
	const virtual, path = "b.s3.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"
	const credential = "AWS4-HMAC-SHA256 Credential=" + testKey + "/20261101/us-west-2/s3/aws4_request, Signature=a"
	const presigned = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + testKey + "%2F20261101%2Fus-west-2%2Fs3%2Faws4_request&X-Amz-Signature=a"
	for _, tt := range []struct {
		request string
		reason  Reason
		why     string // part of the message
	}{
		{"GET example.com /k", ReasonNameMismatch, "no host of S3's"},
		{"GET b.s3.us-west-2.amazonaws.com.evil.example /k", ReasonNameMismatch, "no host of S3's"},
		{"GET 192.0.2.1 /k", ReasonNameMismatch, "no host of S3's"},
		{"GET " + virtual + ":x /k", ReasonS3Opaque, "port"},
		{"GET b_..s3.amazonaws.com /k", ReasonS3Opaque, "cannot be read"},
		{"GET " + virtual + " k", ReasonS3Opaque, "neither a path nor a URL"},
		{"OPTIONS " + virtual + " *", ReasonS3Opaque, "neither a path nor a URL"},
		{"GET " + virtual + " ftp://" + virtual + "/k", ReasonS3Opaque, "neither a path nor a URL"},
		{"GET " + virtual + " https:///k", ReasonS3Opaque, "without a host"},
		{"GET " + virtual + " https://evil.s3.us-west-2.amazonaws.com/k", ReasonNameMismatch, "two hosts"},
		{"GET " + virtual + " https://" + virtual + ":444/k", ReasonNameMismatch, "two hosts"},
		{"GET " + virtual + " https://x@" + virtual + "/k", ReasonS3Opaque, "cannot be read"},
		{"GET " + virtual + " /k#x", ReasonS3Opaque, "'#'"},
		{"GET " + virtual + " /k\x00", ReasonS3Opaque, `'\x00'`},
		{"GET " + virtual + " /%zz", ReasonS3Opaque, "percent-encoded"},
		{"GET " + virtual + " /a%2", ReasonS3Opaque, "percent-encoded"},
		// The bucket in the path.
		{"GET " + path + " /acme%2Fk", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /acme%252Fevil/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /%2561cme/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " //acme/k", ReasonS3Opaque, "empty"},
		{"GET " + path + " /./acme/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /../acme/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /%2e%2e/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /acme/../evil/k", ReasonS3Opaque, "climbs"},
		{"GET " + path + " /acme/%2e%2e/evil/k", ReasonS3Opaque, "climbs"},
		{"GET " + path + " /acme/a/..//../evil", ReasonS3Opaque, "climbs"},
		{"GET " + path + " /acme/a%2F..%2F..%2Fevil", ReasonS3Opaque, "climbs"},
		{"GET " + path + " /acme/a%2Fb/../../evil", ReasonS3Opaque, "climbs"},
		{"GET " + path + ` /acme\evil/k`, ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /acme%00/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /ac/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /acme..x/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /arn:aws:s3:us-west-2:111122223333:accesspoint%2Fx/k", ReasonS3Bucket, "no bucket's name"},
		{"GET " + path + " /team-x-S3Alias/k", ReasonS3Bucket, "alias"},
		{"GET " + path + " /" + strings.Repeat("a", 256) + "/k", ReasonS3Bucket, "no bucket's name"},
		// Sub-resources.
		{"GET " + virtual + " /?acl&policy", ReasonS3Operation, "two sub-resources"},
		{"GET " + virtual + " /?acl&acl", ReasonS3Operation, "two sub-resources"},
		{"PUT " + virtual + " /k?uploadId=u&uploadId=v&partNumber=1", ReasonS3Operation, "two sub-resources"},
		{"PUT " + virtual + " /k?uploadId=u&partNumber=1&partNumber=2", ReasonS3Operation, "twice"},
		{"PUT " + virtual + " /k?uploadId=&partNumber=1", ReasonS3Operation, "empty"},
		{"PUT " + virtual + " /?ACL", ReasonS3Operation, "case alone"},
		{"PUT " + virtual + " /?Policy", ReasonS3Operation, "case alone"},
		{"PUT " + virtual + " /k?x;acl", ReasonS3Operation, `";"`},
		{"PUT " + virtual + " /k?x=1;acl", ReasonS3Operation, `";"`},
		{"PUT " + virtual + " /k?%zz", ReasonS3Operation, "percent-encoded"},
		{"PUT " + virtual + " /k?versionId=1&versionId=2", ReasonS3Operation, "twice"},
		// Signatures.
		{"GET " + virtual + " /k\nAuthorization: " + credential + "\nAuthorization: " + credential, ReasonS3Account, "two Authorization"},
		{"GET " + virtual + " /k?" + presigned + "\nAuthorization: " + credential, ReasonS3Account, "in a header and in its query"},
		{"GET " + virtual + " /k?" + presigned + "&x-amz-credential=x", ReasonS3Account, "twice"},
		{"GET " + virtual + " /k?" + presigned + "&AWSAccessKeyId=x&Signature=y", ReasonS3Account, "two ways"},
		{"GET " + virtual + " /k?X-Amz-Signature=a", ReasonS3Account, "not whole"},
		{"GET " + virtual + " /k?AWSAccessKeyId=x", ReasonS3Account, "not whole"},
		{"GET " + virtual + " /k?" + strings.Replace(presigned, "SHA256", "SHA1", 1), ReasonS3Account, "no algorithm"},
		{"GET " + virtual + " /k\nAuthorization: Bearer x", ReasonS3Account, "no scheme"},
		{"GET " + virtual + " /k\nAuthorization: aws4-hmac-sha256 Credential=x", ReasonS3Account, "no scheme"},
		{"GET " + virtual + " /k\nAuthorization: AWS x", ReasonS3Account, "no scheme"},
		{"GET " + virtual + " /k\nAuthorization: ", ReasonS3Account, "no scheme"},
		{"GET " + virtual + " /k\nAuthorization: AWS4-HMAC-SHA256 Signature=a", ReasonS3Account, "not of the form"},
		{"GET " + virtual + " /k\nAuthorization: AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request,Credential=d/b/c/s3/aws4_request", ReasonS3Account, "two parts of the name Credential"},
		{"GET " + virtual + " /k\nAuthorization: AWS4-HMAC-SHA256 Credential=a/b/c/d/s3/aws4_request", ReasonS3Account, "not of the form"},
		{"GET " + virtual + " /k\nAuthorization: AWS4-HMAC-SHA256 Credential=a/b/c/sts/aws4_request", ReasonS3Account, "another service"},
		// Copies.
		{"GET " + virtual + " /k\nx-amz-copy-source: src/a", ReasonS3Operation, "makes none"},
		{"PUT " + virtual + " /k?tagging\nx-amz-copy-source: src/a", ReasonS3Operation, "makes none"},
		{"PUT " + virtual + " /?frobnicate\nx-amz-copy-source: src/a", ReasonS3Operation, "makes none"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/a\nx-amz-copy-source: src/a", ReasonS3Operation, "two sources"},
		{"PUT " + virtual + " /k?x-amz-copy-source=evil%2Fk", ReasonS3Operation, "as a header"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src", ReasonS3Bucket, "no object"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/", ReasonS3Bucket, "no object"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: //src/a", ReasonS3Bucket, "no bucket's name"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: ", ReasonS3Bucket, "no bucket's name"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src%252Fa/b", ReasonS3Bucket, "no bucket's name"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/../evil/a", ReasonS3Bucket, "climbs"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/%2e%2e/evil/a", ReasonS3Bucket, "climbs"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: src/%zz", ReasonS3Bucket, "percent-encoded"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn:aws:s3:::src/a", ReasonS3Bucket, "is an ARN"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn:aws:sns:us-west-2:111122223333:accesspoint/finance/object/x", ReasonS3Bucket, "is an ARN"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn:aws-cn:s3:us-west-2:111122223333:accesspoint/finance/object/x", ReasonS3Bucket, "is an ARN"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: arn:aws:s3:us-west-2:111122223333:accesspoint/finance/x", ReasonS3Bucket, "is an ARN"},
		{"PUT " + virtual + " /k\nx-amz-copy-source: https://evil.example/k", ReasonS3Bucket, "no bucket's name"},
		{"PUT " + virtual + " /k?renameObject", ReasonS3Operation, "one source"},
		{"PUT " + virtual + " /k\nx-amz-rename-source: a", ReasonS3Operation, "one source"},
	} {
		call, err := ParseS3Request(requestOf(tt.request))
		refused, ok := errors.AsType[*S3RequestError](err)
		switch {
		case !ok:
			t.Errorf("%s\n\treads as %s", tt.request, brief(call))
		case refused.Reason != tt.reason || !strings.Contains(refused.Message, tt.why):
			t.Errorf("%s\n\t got %s: %s\n\twant %s: …%s…", tt.request, refused.Reason, refused.Message, tt.reason, tt.why)
		case brief(call) != brief(S3Call{}):
			t.Errorf("%s\n\ta refused request leaves %s", tt.request, brief(call))
		}
	}
}

// requestOf is request for targets that no HTTP parser would pass on.
func requestOf(text string) S3Request {
	first, headers, _ := strings.Cut(text, "\n")
	words := strings.SplitN(first, " ", 3)
	header := map[string][]string{}
	for line := range strings.SplitSeq(headers, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			name = textproto.CanonicalMIMEHeaderKey(name)
			header[name] = append(header[name], value)
		}
	}
	return S3Request{Method: words[0], Host: words[1], Target: words[2], Header: func(name string) []string { return header[name] }}
}

func TestS3Signer(t *testing.T) {
	const host = "GET b.s3.us-west-2.amazonaws.com "
	const account = "029608264753"
	for _, tt := range []struct {
		request string
		want    S3Signer
	}{
		{host + "/k", S3Signer{Scheme: S3Anonymous}},
		{host + "/k" + signed, S3Signer{S3SigV4, testKey, account, "us-west-2", ""}},
		{host + "/k\nAuthorization: AWS4-HMAC-SHA256 SignedHeaders=host,Signature=a,Credential=" + otherKey + "/20261101/eu-west-1/s3express/aws4_request", S3Signer{S3SigV4, otherKey, "609629065308", "eu-west-1", ""}},
		{host + "/k\nAuthorization: AWS4-HMAC-SHA256 Credential=" + oldKey + "/20261101/us-west-2/s3/aws4_request, Signature=a", S3Signer{S3SigV4, oldKey, "", "us-west-2", ""}},
		{host + "/k\nAuthorization: AWS4-ECDSA-P256-SHA256 Credential=" + testKey + "/20261101/s3/aws4_request, Signature=a", S3Signer{S3SigV4A, testKey, account, "", ""}},
		{host + "/k\nAuthorization: AWS " + testKey + ":c2ln", S3Signer{S3SigV2, testKey, account, "", ""}},
		{host + "/k?AWSAccessKeyId=" + testKey + "&Expires=1700000000&Signature=a%2B", S3Signer{S3SigV2Presigned, testKey, account, "", ""}},
		{
			host + "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + testKey + "%2F20261101%2Fus-west-2%2Fs3%2Faws4_request&X-Amz-SignedHeaders=host;x-amz-acl&X-Amz-Expires=900&X-Amz-Signature=a",
			S3Signer{S3SigV4Presigned, testKey, account, "us-west-2", "900"},
		},
		{
			host + "/k?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&X-Amz-Credential=" + testKey + "/20261101/s3/aws4_request&X-Amz-Signature=a",
			S3Signer{S3SigV4APresigned, testKey, account, "", ""},
		},
		{"POST b.s3.us-west-2.amazonaws.com /", S3Signer{Scheme: S3SigForm}},
	} {
		call, err := ParseS3Request(requestOf(tt.request))
		if err != nil || call.Signer != tt.want {
			t.Errorf("%s\n\t got %+v, %v\n\twant %+v", tt.request, call.Signer, err, tt.want)
		}
	}
}

func TestAccessKeyAccount(t *testing.T) {
	for id, want := range map[string]string{
		testKey: "029608264753", otherKey: "609629065308", oldKey: "",
		"AKIAQNZGKIQY56JQ7WML": "029608264753", // the same bits, long-lived
		"AROAQNZGKIQY56JQ7WML": "",             // a role, which signs nothing
		"asiaqnzgkiqy56jq7wml": "", "ASIAQNZGKIQY56JQ7WM": "", "ASIAQNZGKIQY56JQ7WMLL": "", "ASIAQNZGKIQY56JQ7WM1": "",
		"ASIAQNZGKIQY56JQ7W\n\n": "", "ASIAQNZGKIQY56JQ7W==": "", "": "", "AKIA": "",
		"ASIAI777777777777777": "", // the first bit is not set
		"ASIA7777777777777777": "", // of an account with 13 digits
	} {
		if got := AccessKeyAccount(id); got != want {
			t.Errorf("AccessKeyAccount(%q) = %q, want %q", id, got, want)
		}
	}
}

// FuzzS3Request: whatever is sent, what is read is what a second, simpler
// reader reads, and a request made anew from what was read is read the same.
func FuzzS3Request(f *testing.F) {
	for _, seed := range []struct{ method, host, target, auth, source string }{
		{"GET", "b.s3.us-west-2.amazonaws.com", "/a%2Fb?acl", "", ""},
		{"PUT", "s3.us-west-2.amazonaws.com", "/acme/a/../k?uploadId=u&partNumber=1", "AWS x:y", "/src/a%20b?versionId=1"},
		{"PUT", "s3.amazonaws.com:443", "/%61cme/k", "AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request", "arn:aws:s3:us-west-2:111122223333:accesspoint/finance/object/x"},
		{"GET", "s3.us-west-2.amazonaws.com", "https://s3.us-west-2.amazonaws.com/acme", "", ""},
		{"POST", "n-111122223333.s3-accesspoint.us-west-2.amazonaws.com", "/k?select&select-type=2", "", ""},
		{"GET", "s3express-control.us-west-2.amazonaws.com", "//", "", ""},
	} {
		f.Add(seed.method, seed.host, seed.target, seed.auth, seed.source)
	}
	f.Fuzz(func(t *testing.T, method, host, target, auth, source string) {
		header := func(name string) []string {
			switch {
			case name == "Authorization" && auth != "":
				return []string{auth}
			case name == "X-Amz-Copy-Source" && source != "":
				return []string{source}
			}
			return nil
		}
		call, err := ParseS3Request(S3Request{method, host, target, header})
		if err != nil {
			if refused, ok := errors.AsType[*S3RequestError](err); !ok || refused.Message == "" || refused.Reason == "" {
				t.Fatalf("an error without a reason: %v", err)
			}
			return
		}
		checkSimply(t, call, target)
		// Made anew: fully encoded, which only a decoder that decodes once reads
		// back.
		path := "/" + escapeAll(call.Key)
		if named, _ := ParseS3Host(call.Host); named.Opaque() && !call.Ref.Opaque() {
			path = "/" + call.Ref.Bucket + call.Ref.AccessPoint + path
		}
		if call.Ref.Opaque() {
			return
		}
		_, query, _ := strings.Cut(target, "?")
		again, err := ParseS3Request(S3Request{method, call.Host.String(), path + "?" + query, header})
		if err != nil {
			t.Fatalf("%q made anew as %q: %v", target, path, err)
		}
		if again != call {
			t.Fatalf("%q made anew as %q:\n got %+v\nwant %+v", target, path, again, call)
		}
	})
}

// checkSimply reads bucket and key in the plainest way and compares.
func checkSimply(t *testing.T, call S3Call, target string) {
	t.Helper()
	path := target
	if i := strings.Index(path, "://"); !strings.HasPrefix(path, "/") && i >= 0 {
		path = path[i+3:]
		j := strings.IndexAny(path, "/?")
		if j < 0 {
			j = len(path)
		}
		path = path[j:]
	}
	path = strings.TrimPrefix(strings.Split(path, "?")[0], "/")
	named, _ := ParseS3Host(call.Host)
	switch {
	case call.Ref.Opaque():
		if call.Key != "" {
			t.Fatalf("%q: a key %q of no bucket", target, call.Key)
		}
	case !named.Opaque():
		if call.Ref != named || call.Key != decodeSimply(path) {
			t.Fatalf("%q: read %+v %q", target, call.Ref, call.Key)
		}
	default:
		first, rest, _ := strings.Cut(path, "/")
		if call.Ref.Bucket+call.Ref.AccessPoint != decodeSimply(first) || call.Key != decodeSimply(rest) {
			t.Fatalf("%q: read %+v %q", target, call.Ref, call.Key)
		}
	}
}

// decodeSimply decodes percent-encoding that is known to be right.
func decodeSimply(s string) string {
	parts := strings.Split(s, "%")
	var out strings.Builder
	out.WriteString(parts[0])
	for _, p := range parts[1:] {
		var b byte
		_, _ = fmt.Sscanf(p[:2], "%02x", &b)
		out.WriteString(string([]byte{b}) + p[2:])
	}
	return out.String()
}

func escapeAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func BenchmarkParseS3Request(b *testing.B) {
	for name, text := range map[string]string{
		"get":       "GET acme.s3.us-west-2.amazonaws.com /a/b/c.txt" + signed,
		"presigned": "GET s3.us-west-2.amazonaws.com /acme/a%20b?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + testKey + "%2F20261101%2Fus-west-2%2Fs3%2Faws4_request&X-Amz-SignedHeaders=host&X-Amz-Expires=900&X-Amz-Signature=a",
		"copy":      "PUT acme.s3.us-west-2.amazonaws.com /k\nx-amz-copy-source: /acme-in/a%20b" + signed,
	} {
		b.Run(name, func(b *testing.B) {
			r := requestOf(text)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseS3Request(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
