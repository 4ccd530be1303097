package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sallyport/sallyport/policy"
)

// These tests hold policy's reading of S3 requests to the word of those who
// write them: AWS's own SDK makes the requests, and each must read back to
// what it was made of.

// An access key id that encodes an account, published as an example of it.
const (
	oracleKey     = "ASIAQNZGKIQY56JQ7WML"
	oracleAccount = "029608264753"
)

// errCaptured ends a call of the SDK's when its request is known.
var errCaptured = errors.New("captured")

// capture is an HTTP client that sends nothing.
type capture struct{ sent *http.Request }

func (c *capture) Do(r *http.Request) (*http.Response, error) {
	c.sent = r
	return nil, errCaptured
}

// sessions hands out credentials for directory buckets without asking for them.
type sessions struct {
	credentials.StaticCredentialsProvider
}

func (s sessions) Retrieve(ctx context.Context, _ string) (aws.Credentials, error) {
	return s.StaticCredentialsProvider.Retrieve(ctx)
}

func oracleClient(c *capture, region string, opts ...func(*awss3.Options)) *awss3.Client {
	static := credentials.NewStaticCredentialsProvider(oracleKey, "secret", "token")
	o := awss3.Options{
		Region: region, HTTPClient: c, Credentials: static, Retryer: aws.NopRetryer{},
		ExpressCredentials: sessions{static},
	}
	return awss3.New(o, opts...)
}

// asSent is a request as HTTP/1.1 puts it on the wire.
func asSent(r *http.Request) policy.S3Request {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	return policy.S3Request{Method: r.Method, Host: host, Target: r.URL.RequestURI(), Header: r.Header.Values}
}

func readBack(t *testing.T, r *http.Request) policy.S3Call {
	t.Helper()
	q := asSent(r)
	call, err := policy.ParseS3Request(q)
	if err != nil {
		t.Fatalf("%s %s %s: %v", q.Method, q.Host, q.Target, err)
	}
	return call
}

// TestS3OracleOperations: every operation of the SDK reads back to its name,
// virtual-hosted and path-style, with all its parameters and with only those
// that it must have.
func TestS3OracleOperations(t *testing.T) {
	known := map[string]bool{}
	for _, name := range policy.S3Operations() {
		known[name] = true
	}
	client := reflect.TypeFor[*awss3.Client]()
	seen := 0
	for m := range client.Methods() {
		if m.Type.NumIn() != 4 || !strings.HasSuffix(m.Type.In(2).String(), "."+m.Name+"Input") {
			continue
		}
		seen++
		if m.Name == "WriteGetObjectResponse" {
			continue // of no bucket, at a host of its own: TestS3OracleObjectLambda
		}
		if !known[m.Name] {
			t.Errorf("no rule can list %s", m.Name)
		}
		for _, pathStyle := range []bool{false, true} {
			for _, all := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/path=%v/all=%v", m.Name, pathStyle, all), func(t *testing.T) {
					checkOperation(t, m, pathStyle, all)
				})
			}
		}
	}
	if seen < 110 {
		t.Errorf("only %d operations found: the oracle is blind", seen)
	}
}

func checkOperation(t *testing.T, m reflect.Method, pathStyle, all bool) {
	t.Helper()
	var c capture
	client := oracleClient(&c, "us-west-2", func(o *awss3.Options) { o.UsePathStyle = pathStyle })
	input := reflect.New(m.Type.In(2).Elem())
	fill(input.Elem(), all, 0)
	if b := input.Elem().FieldByName("Bucket"); b.IsValid() {
		b.Set(reflect.ValueOf(aws.String("acme-prod")))
	}
	// The list and the one are told apart by the id alone.
	out := reflect.ValueOf(client).Method(m.Index).Call([]reflect.Value{reflect.ValueOf(t.Context()), input})
	if c.sent == nil {
		t.Fatalf("the SDK refuses what the test made: %v", out[1].Interface())
	}
	call := readBack(t, c.sent)
	if call.Operation != m.Name {
		t.Errorf("%s %s is %q", c.sent.Method, c.sent.URL.RequestURI(), call.Operation)
	}
	if want := bucketOf(input); call.Ref.Bucket != want {
		t.Errorf("bucket %q, want %q", call.Ref.Bucket, want)
	}
	if key := input.Elem().FieldByName("Key"); key.IsValid() && call.Key != key.Elem().String() {
		t.Errorf("key %q, want %q", call.Key, key.Elem())
	}
	if source := input.Elem().FieldByName("CopySource"); source.IsValid() && (call.Source.Ref.Bucket != "acme-source" || call.Source.Key != "a b/ü") {
		t.Errorf("copy source %+v", call.Source)
	}
	if call.Signer.Account != oracleAccount || call.Signer.AccessKeyID != oracleKey {
		t.Errorf("signer %+v", call.Signer)
	}
}

func bucketOf(input reflect.Value) string {
	if b := input.Elem().FieldByName("Bucket"); b.IsValid() && !b.IsNil() {
		return b.Elem().String()
	}
	return ""
}

// fill gives an input values: all that it has, or what the SDK insists on,
// which is nearly everything below the first level.
func fill(v reflect.Value, all bool, depth int) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		if !f.CanSet() || depth > 5 {
			continue
		}
		switch {
		case name == "Key" && depth == 0:
			f.Set(reflect.ValueOf(aws.String("a/../b//c d+e%2Fü?#&=.txt")))
		case name == "CopySource":
			f.Set(reflect.ValueOf(aws.String("acme-source/a%20b/%C3%BC")))
		case strings.HasPrefix(name, "Checksum"), name == "MFA", depth == 0 && strings.HasPrefix(name, "SSE"), strings.HasPrefix(name, "CopySource"):
			// The SDK reckons with these itself.
		case depth > 0 || all || required(name) || (f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct):
			set(f, all, depth)
		}
	}
}

// required reports whether an input's field is one that some operation must
// have. ContinuationToken and Prefix, say, are not.
func required(name string) bool {
	switch name {
	case "ContinuationToken", "Prefix", "Delimiter", "Marker", "KeyMarker", "VersionIdMarker", "StartAfter", "UploadIdMarker",
		"RequestPayer", "ACL", "Tagging", "ExpectedBucketOwner", "VersionId", "Range", "Expires", "WebsiteRedirectLocation":
		return false
	}
	return !strings.HasPrefix(name, "Grant") && !strings.HasPrefix(name, "Response") && !strings.HasPrefix(name, "If")
}

func set(f reflect.Value, all bool, depth int) {
	switch f.Kind() {
	case reflect.Pointer:
		f.Set(reflect.New(f.Type().Elem()))
		set(f.Elem(), all, depth)
	case reflect.String:
		f.SetString("x1")
	case reflect.Int32, reflect.Int64:
		f.SetInt(1)
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Slice:
		if f.Type().Elem().Kind() != reflect.Uint8 {
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			set(f.Index(0), all, depth)
		}
	case reflect.Struct:
		if f.Type() == reflect.TypeFor[time.Time]() {
			f.Set(reflect.ValueOf(time.Unix(1e9, 0)))
			return
		}
		fill(f, all, depth+1)
	case reflect.Interface:
		switch f.Type() {
		case reflect.TypeFor[io.Reader]():
			f.Set(reflect.ValueOf(strings.NewReader("body")))
		case reflect.TypeFor[types.ObjectEncryption]():
			f.Set(reflect.ValueOf(&types.ObjectEncryptionMemberSSEKMS{Value: types.SSEKMSEncryption{KMSKeyArn: aws.String("x1")}}))
		}
	default:
	}
}

// oracleTarget is a bucket as an application writes it, and what must be read.
type oracleTarget struct {
	bucket string
	want   policy.S3Ref // Region and Partition are the client's when ""
	forms  []policy.S3Form
}

func oracleTargets(region, partition string) []oracleTarget {
	arn := func(service, resource string) string {
		return fmt.Sprintf("arn:%s:%s:%s:111122223333:%s", partition, service, region, resource)
	}
	plain := []policy.S3Form{policy.S3VirtualHosted, policy.S3PathStyle, policy.S3Accelerate}
	var all []oracleTarget
	for _, b := range []string{"acme-prod", "acme.dots", "s3.us-west-2.amazonaws.com", "us-west-2", "123", "Acme_Prod", "acme-111122223333-" + region + "-an"} {
		all = append(all, oracleTarget{b, policy.S3Ref{Bucket: b}, plain})
	}
	point := policy.S3Ref{AccessPoint: "finance", Account: "111122223333"}
	return append(
		all,
		oracleTarget{arn("s3", "accesspoint/finance"), point, []policy.S3Form{policy.S3AccessPoint}},
		oracleTarget{arn("s3", "accesspoint:finance"), point, []policy.S3Form{policy.S3AccessPoint}},
		oracleTarget{arn("s3-object-lambda", "accesspoint/finance"), point, []policy.S3Form{policy.S3ObjectLambda}},
		oracleTarget{arn("s3-outposts", "outpost/op-01234567890123456/accesspoint/finance"), point, []policy.S3Form{policy.S3Outposts}},
		oracleTarget{
			fmt.Sprintf("arn:%s:s3::111122223333:accesspoint/mfzwi23gnjvgw.mrap", partition),
			policy.S3Ref{AccessPoint: "mfzwi23gnjvgw.mrap"},
			[]policy.S3Form{policy.S3MultiRegion},
		},
		oracleTarget{
			"finance-x7a-s3alias",
			policy.S3Ref{AccessPoint: "finance-x7a-s3alias"},
			[]policy.S3Form{policy.S3AccessPointAlias, policy.S3PathStyle, policy.S3Accelerate},
		},
		oracleTarget{"acme--usw2-az1--x-s3", policy.S3Ref{Bucket: "acme--usw2-az1--x-s3"}, []policy.S3Form{policy.S3Express, policy.S3ExpressControl}},
		oracleTarget{"acme--usw2-az1--xa-s3", policy.S3Ref{AccessPoint: "acme--usw2-az1--xa-s3"}, []policy.S3Form{policy.S3Express}},
	)
}

// TestS3OracleEndpoints: whatever endpoint the SDK makes of a bucket, in every
// partition and with every option, reads back to that bucket.
func TestS3OracleEndpoints(t *testing.T) {
	made := map[policy.S3Form]int{}
	for region, partition := range map[string]string{
		"us-east-1": "aws", "us-west-2": "aws", "ap-southeast-5": "aws", "mx-central-1": "aws",
		"us-gov-west-1": "aws-us-gov", "cn-north-1": "aws-cn", "cn-northwest-1": "aws-cn", "eusc-de-east-1": "aws-eusc",
		"us-iso-east-1": "aws-iso", "us-isob-east-1": "aws-iso-b", "eu-isoe-west-1": "aws-iso-e", "us-isof-south-1": "aws-iso-f",
	} {
		for _, target := range oracleTargets(region, partition) {
			for options := range 16 {
				checkEndpoint(t, region, partition, target, options, made)
			}
		}
	}
	for _, form := range []policy.S3Form{
		policy.S3VirtualHosted, policy.S3PathStyle, policy.S3Accelerate, policy.S3AccessPoint, policy.S3AccessPointAlias,
		policy.S3ObjectLambda, policy.S3MultiRegion, policy.S3Outposts, policy.S3Express, policy.S3ExpressControl,
	} {
		if made[form] == 0 {
			t.Errorf("the SDK made no endpoint of the form %s", form)
		}
	}
	t.Logf("endpoints made, by form: %v", made)
}

func checkEndpoint(t *testing.T, region, partition string, target oracleTarget, options int, made map[policy.S3Form]int) {
	t.Helper()
	var c capture
	client := oracleClient(&c, region, func(o *awss3.Options) {
		o.UsePathStyle = options&1 != 0
		o.UseAccelerate = options&2 != 0
		if options&4 != 0 {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
		if options&8 != 0 {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
	})
	const key = "a/b c"
	for _, operation := range []string{"GetObject", "CreateBucket"} {
		c.sent = nil
		var err error
		if operation == "GetObject" {
			_, err = client.GetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String(target.bucket), Key: aws.String(key)})
		} else {
			_, err = client.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: aws.String(target.bucket)})
		}
		if c.sent == nil {
			if err == nil {
				t.Fatal("nothing was sent, and no error")
			}
			continue // the SDK refuses the combination
		}
		call := readBack(t, c.sent)
		made[call.Ref.Form]++
		want := target.want
		want.Form, want.Region, want.Partition = call.Ref.Form, region, partition
		switch call.Ref.Form {
		case policy.S3Accelerate, policy.S3MultiRegion:
			want.Region = ""
			if partition == "aws-us-gov" { // one suffix, and no Region to tell
				want.Partition = "aws"
			}
		default:
		}
		if strings.HasSuffix(want.Bucket, "-an") {
			want.Account = "111122223333"
			if partition == "aws-us-gov" && want.Region == "" {
				want.Account = ""
			}
		}
		if call.Ref != want || call.Operation != operation {
			t.Errorf("%s %s, options %04b: %s%s\n got %+v, %s\nwant %+v, %s",
				region, target.bucket, options, c.sent.URL.Host, c.sent.URL.RequestURI(), call.Ref, call.Operation, want, operation)
		}
		if operation == "GetObject" && call.Key != key {
			t.Errorf("%s %s: key %q, want %q", region, target.bucket, call.Key, key)
		}
		if !containsForm(target.forms, call.Ref.Form) {
			t.Errorf("%s %s, options %04b: %s has the form %s", region, target.bucket, options, c.sent.URL.Host, call.Ref.Form)
		}
	}
}

func containsForm(all []policy.S3Form, form policy.S3Form) bool {
	return slices.Contains(all, form)
}

// TestS3OraclePresigned: what the SDK's presigner makes reads back to the
// operation and the signer.
func TestS3OraclePresigned(t *testing.T) {
	for _, pathStyle := range []bool{false, true} {
		presign := awss3.NewPresignClient(oracleClient(&capture{}, "us-west-2", func(o *awss3.Options) { o.UsePathStyle = pathStyle }))
		bucket, key := aws.String("acme-prod"), aws.String("a b/ü+%2F..")
		for name, presigned := range map[string]func() (string, string, http.Header, error){
			"GetObject": func() (string, string, http.Header, error) {
				r, err := presign.PresignGetObject(t.Context(), &awss3.GetObjectInput{Bucket: bucket, Key: key, VersionId: aws.String("v")})
				return r.Method, r.URL, r.SignedHeader, err
			},
			"PutObject": func() (string, string, http.Header, error) {
				r, err := presign.PresignPutObject(t.Context(), &awss3.PutObjectInput{Bucket: bucket, Key: key, ACL: "public-read"})
				return r.Method, r.URL, r.SignedHeader, err
			},
			"HeadObject": func() (string, string, http.Header, error) {
				r, err := presign.PresignHeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: bucket, Key: key})
				return r.Method, r.URL, r.SignedHeader, err
			},
			"UploadPart": func() (string, string, http.Header, error) {
				r, err := presign.PresignUploadPart(t.Context(), &awss3.UploadPartInput{Bucket: bucket, Key: key, UploadId: aws.String("u"), PartNumber: aws.Int32(1)})
				return r.Method, r.URL, r.SignedHeader, err
			},
			"DeleteObject": func() (string, string, http.Header, error) {
				r, err := presign.PresignDeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: bucket, Key: key})
				return r.Method, r.URL, r.SignedHeader, err
			},
		} {
			method, made, header, err := presigned()
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(made)
			if err != nil {
				t.Fatal(err)
			}
			r := &http.Request{Method: method, URL: u, Host: u.Host, Header: header}
			call := readBack(t, r)
			s := call.Signer
			if call.Operation != name || call.Ref.Bucket != *bucket || call.Key != *key {
				t.Errorf("%s reads as %+v", made, call)
			}
			if s.Scheme != policy.S3SigV4Presigned || s.Account != oracleAccount || s.Region != "us-west-2" || !s.Presigned() {
				t.Errorf("%s: signer %+v", made, s)
			}
			if wantACL := name == "PutObject"; (call.ACL == "PutObjectAcl") != wantACL {
				t.Errorf("%s: ACL %q", made, call.ACL)
			}
		}
	}
}

// TestS3OracleObjectLambda: the answer of a function goes to a host of its own
// that names no bucket.
func TestS3OracleObjectLambda(t *testing.T) {
	var c capture
	client := oracleClient(&c, "us-west-2")
	_, _ = client.WriteGetObjectResponse(t.Context(), &awss3.WriteGetObjectResponseInput{
		RequestRoute: aws.String("io-cell1"), RequestToken: aws.String("t"), Body: strings.NewReader("x"),
	})
	if call := readBack(t, c.sent); call.Ref.Form != policy.S3ObjectLambda || !call.Ref.Opaque() || call.Operation != "" {
		t.Errorf("%s%s reads as %+v", c.sent.URL.Host, c.sent.URL.Path, call)
	}
}

// TestS3OracleAnonymous: a request without credentials is one.
func TestS3OracleAnonymous(t *testing.T) {
	var c capture
	client := oracleClient(&c, "us-west-2", func(o *awss3.Options) { o.Credentials = aws.AnonymousCredentials{} })
	_, _ = client.GetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("k")})
	if call := readBack(t, c.sent); call.Signer != (policy.S3Signer{Scheme: policy.S3Anonymous}) {
		t.Errorf("signer %+v", call.Signer)
	}
}

// TestS3OracleShippedCases reads the SDK's own cases of endpoints, where the
// module's source is at hand: each URL that a bucket's name leads to must lead
// back to it.
func TestS3OracleShippedCases(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/s3").Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "endpoints_test.go"))
	if err != nil {
		t.Skipf("the module's tests are not here: %v", err)
	}
	bucket := regexp.MustCompile(`Bucket:\s+ptr\.String\("([^"]*)"\)`)
	custom := regexp.MustCompile(`Endpoint:\s+ptr\.String\(`)
	legal := regexp.MustCompile(`^(arn:.*|[A-Za-z0-9._-]{3,})$`)
	address := regexp.MustCompile(`uri, _ := url\.Parse\("([^"]*)"\)`)
	checked := 0
	for _, body := range strings.Split(string(text), "\nfunc Test")[1:] {
		b, u := bucket.FindStringSubmatch(body), address.FindStringSubmatch(body)
		if b == nil || u == nil || custom.MatchString(body) {
			continue
		}
		if !legal.MatchString(b[1]) {
			continue // no bucket has such a name, and none is read
		}
		checked++
		to, err := url.Parse(u[1])
		if err != nil {
			t.Fatal(err)
		}
		call := readBack(t, &http.Request{Method: "GET", URL: to, Host: to.Host, Header: http.Header{}})
		name := b[1]
		if i := strings.LastIndexAny(name, ":/"); i >= 0 {
			name = name[i+1:]
		}
		if call.Ref.Bucket != name && call.Ref.AccessPoint != name {
			t.Errorf("%s for the bucket %s reads as %+v", u[1], b[1], call.Ref)
		}
	}
	if checked < 100 {
		t.Errorf("only %d cases found: the oracle is blind", checked)
	}
}
