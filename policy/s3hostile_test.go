package policy

import (
	"strings"
	"testing"
)

// The attacks of a container that may use one bucket with one account's keys
// and wants to use another's. See also proxy/inspect_hostile_test.go.

// TestHostileCalls: requests that are allowed, or not to be read at all, if
// something in them is read in another way than S3 may read it.
func TestHostileCalls(t *testing.T) {
	p := mustLoad(t, `version: 1
rules:
  - name: data
    s3:
      buckets: [acme-prod]
      inspect: true
      operations: [GetObject, PutObject, CopyObject, PostObject, ListObjectsV2]
      accounts: ["029608264753"]
`)
	const host, service = "acme-prod.s3.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"
	const mine, theirs = testKey + "/20261101/us-west-2/s3/aws4_request", otherKey + "/20261101/us-west-2/s3/aws4_request"
	v4 := func(rest string) string { return "\nAuthorization: AWS4-HMAC-SHA256 " + rest }
	presigned := func(credential string) string {
		return "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=a&X-Amz-Credential=" + strings.ReplaceAll(credential, "/", "%2F")
	}
	allowed := map[string]string{
		"as it should be":     "GET " + host + " /k" + signedBy(testKey),
		"another order":       "GET " + host + " /k" + v4("Signature=ab12,SignedHeaders=host;x-amz-date,Credential="+mine),
		"presigned":           "GET " + host + " /k?" + presigned(mine),
		"dots that stay":      "GET " + host + " /a/../k" + signedBy(testKey),
		"dots in a name":      "GET " + host + " /..a/...b" + signedBy(testKey),
		"a slash in the key":  "GET " + host + " //k" + signedBy(testKey),
		"a key like a bucket": "GET " + host + " /evil/k" + signedBy(testKey),
	}
	hostile := map[string]string{
		// Two keys in one signature, of which a careless reader takes the other.
		"a second credential behind a space":     "GET " + host + " /k" + v4("SignedHeaders=host Credential="+theirs+",Credential="+mine+",Signature=a"),
		"a second credential behind a tab":       "GET " + host + " /k" + v4("SignedHeaders=host\tCredential="+theirs+",Credential="+mine+",Signature=a"),
		"a second credential, semicolon":         "GET " + host + " /k" + v4("Credential="+mine+";Credential="+theirs+",Signature=a"),
		"a second credential in another case":    "GET " + host + " /k" + v4("credential="+theirs+",Credential="+mine+",Signature=a"),
		"a credential with space before =":       "GET " + host + " /k" + v4("Credential ="+theirs+",Credential="+mine+",Signature=a"),
		"a quoted credential":                    "GET " + host + " /k" + v4(`X="`+",Credential="+mine+`,Y=",Credential="`+theirs+`",Signature=a`),
		"a part that no signature has":           "GET " + host + " /k" + v4("Key="+theirs+",Credential="+mine+",Signature=a"),
		"two signatures":                         "GET " + host + " /k" + v4("Credential="+mine+",Signature=a,Signature=b"),
		"two lists of headers":                   "GET " + host + " /k" + v4("Credential="+mine+",SignedHeaders=host,SignedHeaders=x,Signature=b"),
		"a newline's ghost in the key":           "GET " + host + " /k" + v4("Credential="+testKey+" /20261101/us-west-2/s3/aws4_request,Signature=a"),
		"version 2, two keys":                    "GET " + host + " /k\nAuthorization: AWS " + testKey + ":" + otherKey + ":c2ln",
		"version 2, a key behind a space":        "GET " + host + " /k\nAuthorization: AWS " + testKey + " " + otherKey + ":c2ln",
		"another's key":                          "GET " + host + " /k" + signedBy(otherKey),
		"another's session in the query":         "GET " + host + " /k?" + presigned(theirs),
		"presigned, and an empty Authorization":  "GET " + host + " /k?" + presigned(mine) + "\nAuthorization: ",
		"presigned in lower case beside another": "GET " + host + " /k?" + presigned(mine) + "&" + strings.ToLower(presigned(theirs)),
		"half a signature in the query":          "GET " + host + " /k?X-Amz-Credential=" + theirs + signedBy(testKey),
		"version 2 in the query, mine in front":  "GET " + host + " /k?AWSAccessKeyId=" + otherKey + "&Signature=x" + signedBy(testKey),
		"a name of the query, encoded":           "GET " + host + " /k?X-Amz-%43redential=" + theirs + "&" + presigned(mine),
		// A form says in its body who signed it.
		"a form under a header":       "POST " + host + " /" + signedBy(testKey),
		"a form under a presigned":    "POST " + host + " /?" + presigned(mine),
		"a form":                      "POST " + host + " /",
		"a form at the service":       "POST " + service + " /acme-prod" + signedBy(testKey),
		"a form with a bucket's ACL":  "POST " + host + " /\nx-amz-acl: public-read" + signedBy(testKey),
		"a form that is also a copy":  "POST " + host + " /\nx-amz-copy-source: acme-prod/k" + signedBy(testKey),
		"a form at an object's place": "POST " + host + " /k" + signedBy(testKey),
		// Out of the bucket. S3 refuses keys that climb above it, and those who
		// join bucket and key, and clean, read another bucket.
		"dots above the host's bucket":           "GET " + host + " /../evil/k" + signedBy(testKey),
		"encoded dots above the host's bucket":   "GET " + host + " /%2e%2e/evil/k" + signedBy(testKey),
		"dots behind a folder":                   "GET " + host + " /a/../../evil/k" + signedBy(testKey),
		"dots behind an encoded slash":           "GET " + host + " /a%2F..%2F..%2Fevil/k" + signedBy(testKey),
		"dots behind empty segments":             "GET " + host + " ///../evil/k" + signedBy(testKey),
		"dots above the path's bucket":           "GET " + service + " /acme-prod/../evil/k" + signedBy(testKey),
		"a bucket and a query":                   "GET " + service + " /acme-prod%3Fx/k" + signedBy(testKey),
		"a bucket and a fragment":                "GET " + service + " /acme-prod%23/k" + signedBy(testKey),
		"a bucket and a parameter":               "GET " + service + " /acme-prod;x/k" + signedBy(testKey),
		"a bucket, encoded wide":                 "GET " + service + " /%EF%BC%A1cme-prod/k" + signedBy(testKey),
		"a bucket and a NUL":                     "GET " + service + " /acme-prod%00/k" + signedBy(testKey),
		"a bucket and a dot":                     "GET " + service + " /acme-prod./k" + signedBy(testKey),
		"a bucket and a line feed":               "GET " + service + " /acme-prod%0A/k" + signedBy(testKey),
		"a bucket behind a plus":                 "GET " + service + " /+acme-prod/k" + signedBy(testKey),
		"overlong UTF-8":                         "GET " + service + " /acme-prod%C0%AF../k" + signedBy(testKey),
		"%u":                                     "GET " + service + " /acme%u002dprod/k" + signedBy(testKey),
		"a bucket behind a user":                 "GET evil@" + host + " /k" + signedBy(testKey),
		"a Host with a path":                     "GET " + host + "/x /k" + signedBy(testKey),
		"two Hosts in one":                       "GET " + host + ",evil.s3.us-west-2.amazonaws.com /k" + signedBy(testKey),
		"a Host with two ports":                  "GET " + host + ":443:443 /k" + signedBy(testKey),
		"a Host with an empty port":              "GET " + host + ": /k" + signedBy(testKey),
		"a Host with two dots":                   "GET " + host + ".. /k" + signedBy(testKey),
		"a Host with a full-width dot":           "GET acme-prod.s3.us-west-2.amazonaws\uff0ecom /k" + signedBy(testKey),
		"a bucket that is a host":                "GET " + host + "." + service + " /k" + signedBy(testKey),
		"a bucket of another partition":          "GET acme-prod.s3.cn-north-1.amazonaws.com.cn /k" + signedBy(testKey),
		"a bucket of another partition's Region": "GET acme-prod.s3.us-gov-west-1.amazonaws.com /k" + signedBy(testKey),
		"a website":                              "PUT acme-prod.s3-website-us-west-2.amazonaws.com /k" + signedBy(testKey),
		"an access point of the bucket's name":   "GET acme-prod-111122223333.s3-accesspoint.us-west-2.amazonaws.com /k" + signedBy(testKey),
		"an object lambda of the bucket's name":  "GET acme-prod-111122223333.s3-object-lambda.us-west-2.amazonaws.com /k" + signedBy(testKey),
		"an alias of the bucket's name":          "GET acme-prod-s3alias.s3.us-west-2.amazonaws.com /k" + signedBy(testKey),
		"an outpost's alias":                     "GET acme-prod.op-1.s3-outposts.us-west-2.amazonaws.com /k" + signedBy(testKey),
		"a multi-Region access point":            "GET acme-prod.mrap.accesspoint.s3-global.amazonaws.com /k" + signedBy(testKey),
		"a directory bucket":                     "GET acme-prod--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com /k" + signedBy(testKey),
		"a control host":                         "PUT 029608264753.s3-control.us-west-2.amazonaws.com /v20180820/jobs" + signedBy(testKey),
		"an answer of an object lambda":          "POST route.s3-object-lambda.us-west-2.amazonaws.com /WriteGetObjectResponse" + signedBy(testKey),
		"a table":                                "PUT s3tables.us-west-2.amazonaws.com /buckets" + signedBy(testKey),
		"the vectors":                            "POST s3vectors.us-west-2.api.aws /PutVectors" + signedBy(testKey),
		"a host that answers for all":            "GET s3-w.us-west-2.amazonaws.com /acme-prod/k" + signedBy(testKey),
		"an endpoint's host without a kind":      "GET vpce-1a2b-3c4d.s3.us-west-2.vpce.amazonaws.com /acme-prod/k" + signedBy(testKey),
		// Operations.
		"a method by another name":             "POST " + host + " /k?_method=PUT" + signedBy(testKey),
		"an upload's part without an upload":   "PUT " + host + " /k?partNumber=1" + signedBy(testKey),
		"a resource with a NUL":                "PUT " + host + " /?policy%00" + signedBy(testKey),
		"a resource behind a space":            "PUT " + host + " /?%20policy" + signedBy(testKey),
		"a resource behind a plus":             "PUT " + host + " /k?+acl" + signedBy(testKey),
		"a resource in brackets":               "PUT " + host + " /k?acl[]" + signedBy(testKey),
		"a resource, encoded twice":            "PUT " + host + " /k?%2561cl" + signedBy(testKey),
		"a resource behind another ?":          "PUT " + host + " /k?x-id=PutObject?acl" + signedBy(testKey) + "\nx-amz-copy-source: evil/k",
		"a resource behind an encoded &":       "PUT " + host + " /k?x%26acl" + signedBy(testKey),
		"a grant that nobody knows of":         "PUT " + host + " /k?X-Amz-Grant-Anything=id" + signedBy(testKey),
		"an ACL of two":                        "PUT " + host + " /k\nx-amz-acl: private,public-read" + signedBy(testKey),
		"an empty ACL":                         "PUT " + host + " /k\nx-amz-acl: " + signedBy(testKey),
		"a session":                            "GET " + host + " /?session" + signedBy(testKey),
		"a copy's source, encoded in the name": "PUT " + host + " /k?X-Amz-Copy%2DSource=evil%2Fk" + signedBy(testKey),
		// Sources of copies.
		"a source behind two slashes":         "PUT " + host + " /k\nx-amz-copy-source: //evil/k" + signedBy(testKey),
		"a source and another":                "PUT " + host + " /k\nx-amz-copy-source: acme-prod,evil/k" + signedBy(testKey),
		"a source behind a backslash":         "PUT " + host + " /k\nx-amz-copy-source: acme-prod\\..\\evil/k" + signedBy(testKey),
		"a source that climbs, encoded":       "PUT " + host + " /k\nx-amz-copy-source: acme-prod/%252e%252e/evil/k" + signedBy(testKey),
		"a source that climbs by its first /": "PUT " + host + " /k\nx-amz-copy-source: acme-prod%2F..%2Fevil%2Fk" + signedBy(testKey),
		"a source's ARN in capitals":          "PUT " + host + " /k\nx-amz-copy-source: ARN:aws:s3:::evil/k" + signedBy(testKey),
		"a source's ARN, encoded":             "PUT " + host + " /k\nx-amz-copy-source: %61rn:aws:s3:us-west-2:111122223333:accesspoint/evil/object/k" + signedBy(testKey),
		"a source's ARN without a Region":     "PUT " + host + " /k\nx-amz-copy-source: arn:aws:s3::111122223333:accesspoint/x.mrap/object/k" + signedBy(testKey),
		"a source's ARN with a colon":         "PUT " + host + " /k\nx-amz-copy-source: arn:aws:s3:us-west-2:111122223333:accesspoint:evil/object/k" + signedBy(testKey),
		"a source in a URL":                   "PUT " + host + " /k\nx-amz-copy-source: https://s3.us-west-2.amazonaws.com/acme-prod/k" + signedBy(testKey),
		"a source behind a space":             "PUT " + host + " /k\nx-amz-copy-source: evil /k" + signedBy(testKey),
		"a source in a list":                  "GET " + host + " /?list-type=2\nx-amz-copy-source: evil/k" + signedBy(testKey),
	}
	try := func(text string) string {
		call, err := ParseS3Request(requestOf(text))
		if err != nil {
			return "unreadable: " + err.Error()
		}
		h, _ := ParseHost(host)
		q := Query{Via: ViaTLS, Host: h, Port: 443, Protocol: ProtocolTLS, S3: &call}
		if named, _ := ParseS3Host(call.Host); named.Form != S3PathStyle && named.Form != S3VirtualHosted {
			q.Host = call.Host // a connection to nothing but it
		}
		return told(p.Decide(q))
	}
	for name, text := range allowed {
		if got := try(text); got != "allow rule data" {
			t.Errorf("%s: %s", name, got)
		}
	}
	for name, text := range hostile {
		if got := try(text); strings.HasPrefix(got, "allow") {
			t.Errorf("%s: %s\n\t%s", name, got, text)
		}
	}
}

// TestHostileMessages: what is said of a request that cannot be read goes into
// the records, where keys, signatures and tokens have no place.
func TestHostileMessages(t *testing.T) {
	const secret = "SECRET"
	const host, service = "acme-prod.s3.us-west-2.amazonaws.com", "s3.us-west-2.amazonaws.com"
	for _, text := range []string{
		"GET " + service + " /acme-prod%2F" + secret,
		"GET " + service + " /acme-prod%3F" + secret + "/k",
		"GET " + service + " /acme-prod;" + secret + "/k",
		"GET " + service + " //" + secret,
		"GET " + service + " /acme-prod/../" + secret,
		"GET " + host + " /%zz" + secret,
		"GET " + host + " https://" + secret + ":" + secret + "@" + host + "/k",
		"GET " + host + " /k?%zz" + secret,
		"GET " + host + " /k?x=;" + secret,
		"GET " + host + " /k?X-Amz-Security-Token=" + secret + "&X-Amz-Signature=" + secret,
		"GET " + host + " /k?X-Amz-Credential=" + secret + "&X-Amz-Algorithm=" + secret + "&X-Amz-Signature=" + secret,
		"GET " + host + " /k\nAuthorization: Bearer " + secret,
		"GET " + host + " /k\nAuthorization: " + secret + " x",
		"GET " + host + " /k\nAuthorization: AWS " + secret,
		"GET " + host + " /k\nAuthorization: AWS4-HMAC-SHA256 Credential=" + secret,
		"GET " + host + " /k\nAuthorization: AWS4-HMAC-SHA256 " + secret + "=x",
		"PUT " + host + " /k\nx-amz-copy-source: acme-prod%252F" + secret,
		"PUT " + host + " /k\nx-amz-copy-source: acme-prod?" + secret,
		"PUT " + host + " /k\nx-amz-copy-source: arn:" + secret,
		"PUT " + host + " /k?renameObject\nx-amz-rename-source: %zz" + secret,
	} {
		if _, err := ParseS3Request(requestOf(text)); err == nil {
			t.Errorf("%s is read", text)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
