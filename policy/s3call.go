package policy

import (
	"fmt"
	"slices"
	"strings"
)

// S3Request is a request to S3 as it was sent: nothing decoded, cleaned or
// joined on the way here.
type S3Request struct {
	Method string
	// Host is the Host header as sent.
	Host string
	// Target is the request-target as sent (RFC 9112, section 3.2): a path with
	// its query, or an absolute URL.
	Target string
	// Header returns the values of a header by its canonical name, none when it
	// is not there; [net/http.Header.Values] is one. nil means no headers.
	Header func(name string) []string
}

// S3Call is what a request asks of S3.
type S3Call struct {
	// Host is where the request goes by its Host header, which is what S3 goes
	// by: the name inside TLS, whatever the connection was opened for.
	Host Host
	// Ref is what is asked for. It is the host's reading ([ParseS3Host]), and
	// where the path names the bucket, the bucket, alias and account are the
	// path's.
	Ref S3Ref
	// Key is the object's key as S3 decodes it, "" when the call is about a
	// bucket, or about all of them.
	Key string
	// Operation is the name of S3's API operation: GetObject, ListObjectsV2,
	// CreateMultipartUpload. It is "" when the request is none that is known
	// here; then no list of operations has it.
	Operation string
	// ACL is the operation that the call's ACL headers imply beside Operation:
	// PutObjectAcl or PutBucketAcl, "" when it asks for no grants. S3 asks for
	// that permission, too.
	ACL string
	// Source is where a copy or a rename takes its bytes from.
	Source S3Source
	Signer S3Signer
}

// S3Source is an object that another is copied from. Its Ref.Form is "" when
// nothing is copied.
type S3Source struct {
	Ref     S3Ref
	Key     string
	Version string // "" for the newest
}

// S3Scheme says how a request is signed.
type S3Scheme string

// The schemes.
const (
	S3Anonymous       S3Scheme = "anonymous"        // not at all
	S3SigV4           S3Scheme = "sigv4"            // Authorization: AWS4-HMAC-SHA256
	S3SigV4Presigned  S3Scheme = "sigv4_presigned"  // X-Amz-Algorithm=AWS4-HMAC-SHA256
	S3SigV4A          S3Scheme = "sigv4a"           // Authorization: AWS4-ECDSA-P256-SHA256
	S3SigV4APresigned S3Scheme = "sigv4a_presigned" // X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256
	S3SigV2           S3Scheme = "sigv2"            // Authorization: AWS KEY:…
	S3SigV2Presigned  S3Scheme = "sigv2_presigned"  // AWSAccessKeyId=KEY
	S3SigForm         S3Scheme = "form"             // a browser's upload form: the signer is in the body, unread
)

// S3Signer is who signed a request, as far as the request tells. A signature
// is not verified here: S3 does that, and refuses what is not signed well.
type S3Signer struct {
	Scheme      S3Scheme
	AccessKeyID string
	// Account is the 12 digits that AccessKeyID encodes, "" where that is not
	// known.
	Account string
	// Region is the credential scope's, "" where the scheme has none.
	Region string
	// Expires is for how many seconds a SigV4 presigned URL is good, as written.
	Expires string
}

// Presigned reports whether the signature is in the URL, so that whoever holds
// the URL can use it.
func (s S3Signer) Presigned() bool {
	return s.Scheme == S3SigV4Presigned || s.Scheme == S3SigV4APresigned || s.Scheme == S3SigV2Presigned
}

// S3RequestError is why a request cannot be judged, and so is denied.
type S3RequestError struct {
	// Reason is what the record says: name_mismatch, s3_bucket, s3_opaque,
	// s3_operation or s3_account.
	Reason Reason
	// Message is for people: lower case, no full stop. It quotes no more of the
	// request than a bucket's name.
	Message string
}

// Error returns the message.
func (e *S3RequestError) Error() string { return e.Message }

func badCall(reason Reason, format string, args ...any) *S3RequestError {
	return &S3RequestError{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// ParseS3Request reads a request as S3 does. Its error is [S3RequestError]:
// what S3 and this parser could read in two ways is refused, never guessed.
//
// Nothing is normalised. The bucket is the Host header's, or the first segment
// of the path, decoded once; the key is all the rest, decoded once.
func ParseS3Request(r S3Request) (S3Call, error) {
	call, err := r.parse()
	if err != nil {
		return S3Call{}, err
	}
	return call, nil
}

func (r S3Request) parse() (S3Call, *S3RequestError) {
	var c S3Call
	target, err := splitS3Target(r.Target)
	if err != nil {
		return c, err
	}
	host, err := r.readHost(target.authority)
	if err != nil {
		return c, err
	}
	p, ok := readS3Host(host)
	if !ok {
		return c, badCall(ReasonNameMismatch, "the request's Host %.80q is no host of S3's", host.String())
	}
	c.Host = host
	level, err := c.readPath(&p, target.path)
	if err != nil {
		return c, err
	}
	c.Ref = p.ref
	params, err := parseQuery(target.query)
	if err != nil {
		return c, err
	}
	if c.Signer, err = readSigner(r.values("Authorization"), params); err != nil {
		return c, err
	}
	if err = c.readOperation(r.Method, level, params); err != nil {
		return c, err
	}
	err = c.readHeaders(r, params)
	return c, err
}

// readHost reads the Host header. An absolute target must agree with it: S3
// goes by the target then (RFC 9112, section 3.2.2), others may go by Host.
func (r S3Request) readHost(authority string) (Host, *S3RequestError) {
	host, port, err := parseAuthority(r.Host)
	if err != nil || authority == "" {
		return host, err
	}
	named, namedPort, err := parseAuthority(authority)
	if err != nil {
		return host, err
	}
	if named != host || namedPort != port {
		return host, badCall(ReasonNameMismatch, "the request's target and its Host name two hosts")
	}
	return host, nil
}

// values returns a header's values.
func (r S3Request) values(name string) []string {
	if r.Header == nil {
		return nil
	}
	return r.Header(name)
}

// readPath reads the bucket, where the path has it, and the key.
func (c *S3Call) readPath(p *s3Parse, path string) (s3Level, *S3RequestError) {
	var err *S3RequestError
	if p.inPath {
		c.Key, err = takeBucket(p, path)
	} else if !p.ref.Opaque() {
		var ok bool
		if c.Key, ok = unescape(path[1:]); !ok {
			err = badCall(ReasonS3Opaque, "the path is not percent-encoded well")
		} else if climbs(path[1:]) { // S3 refuses it, too
			err = errClimbs()
		}
	}
	switch {
	case c.Key != "":
		return s3Object, err
	case !p.ref.Opaque():
		return s3Bucket, err
	}
	return s3Service, err
}

// readOperation names the operation.
func (c *S3Call) readOperation(method string, level s3Level, params []param) *S3RequestError {
	if c.Ref.Form == S3Website {
		switch method {
		case "GET":
			c.Operation = "GetObject" // of a bucket, too: its index document
		case "HEAD":
			c.Operation = "HeadObject"
		}
		return nil
	}
	asked, err := readResource(params)
	if err != nil {
		return err
	}
	c.Operation = asked.operation(method, level)
	if level != s3Service || asked.resource != "" || method != "GET" {
		return nil
	}
	switch c.Ref.Form {
	case S3PathStyle, S3PrivateLink:
		c.Operation = "ListBuckets"
	case S3ExpressControl:
		c.Operation = "ListDirectoryBuckets"
	default: // a form whose operations are not S3's own
	}
	return nil
}

// readHeaders reads what headers add to the operation. Presigned URLs may
// carry such headers as parameters.
func (c *S3Call) readHeaders(r S3Request, params []param) *S3RequestError {
	for _, p := range params {
		if strings.EqualFold(p.name, "X-Amz-Copy-Source") || strings.EqualFold(p.name, "X-Amz-Rename-Source") {
			return badCall(ReasonS3Operation, "the query names the source of a copy: send it as a header")
		}
	}
	if err := c.readCopySource(r.values("X-Amz-Copy-Source")); err != nil {
		return err
	}
	if err := c.readRenameSource(r.values("X-Amz-Rename-Source")); err != nil {
		return err
	}
	switch c.Operation {
	case "PutObject", "CopyObject", "CreateMultipartUpload":
		c.ACL = "PutObjectAcl"
	case "CreateBucket":
		c.ACL = "PutBucketAcl"
	case "PostObject":
		c.Signer = S3Signer{Scheme: S3SigForm} // whatever stands beside the form
	}
	if c.ACL != "" && !asksForGrants(r, params) {
		c.ACL = ""
	}
	return nil
}

// asksForGrants reports whether a request gives others access to what it
// makes: any grant, and any canned ACL but those that give it to the bucket's
// owner alone.
func asksForGrants(r S3Request, params []param) bool {
	canned := r.values("X-Amz-Acl")
	for _, p := range params {
		if strings.EqualFold(p.name, "X-Amz-Acl") {
			canned = append(slices.Clip(canned), p.value)
		}
		if len(p.name) > len(grantPrefix) && strings.EqualFold(p.name[:len(grantPrefix)], grantPrefix) {
			return true
		}
	}
	for _, acl := range canned {
		switch acl {
		case "private", "bucket-owner-read", "bucket-owner-full-control":
		default:
			return true
		}
	}
	for _, to := range [...]string{"Read", "Write", "Read-Acp", "Write-Acp", "Full-Control"} {
		if len(r.values(grantPrefix+to)) > 0 {
			return true
		}
	}
	return false
}

const grantPrefix = "X-Amz-Grant-"
