package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// strictRules list a bucket, some operations and whose keys may sign; in the
// second bucket, whose name has a dot, no signature may be in a URL.
const strictRules = `
  - name: data
    resolves_to: [127.0.0.0/8]
    s3:
      buckets: [app-data]
      inspect: true
      operations: [GetObject, HeadObject, PutObject, CopyObject, ListObjectsV2, ListObjects, CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload, AbortMultipartUpload]
      accounts: ["111122223333"]
  - name: no-urls
    resolves_to: [127.0.0.0/8]
    s3: {buckets: [app.dotted], inspect: true, presigned: deny, accounts: ["111122223333"]}
`

// seed puts objects where the tests look for them, directly.
func (s *inspectingWorld) seed(t *testing.T) {
	t.Helper()
	c := s.client(s.way("direct"), "path", s.ours)
	for _, bucket := range []string{s3Data, s3Other, s3Dotted} {
		if _, err := c.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: strings.NewReader("of " + bucket)}); err != nil {
			t.Fatal(err)
		}
	}
	s.take()
}

// refused requires of an attempt on a way that the record says why, and that
// nothing of it came to the server.
func (s *inspectingWorld) refused(t *testing.T, way s3Way, host, reason string) {
	t.Helper()
	l := s.r.denied(host, way.via, reason)
	if l.Sallyport.Enforcement != "inspect" || l.HTTP.Response.StatusCode != http.StatusForbidden || l.HTTP.Request.Method == "" {
		t.Errorf("the record of a refused request: %s", l.text)
	}
	s.untouched(t)
}

// proxied are the ways that lead through the proxy.
func (s *inspectingWorld) proxied() []s3Way { return s.ways[1:] }

// refusal is something that the server would do, and the proxy must not let
// it.
type refusal struct {
	name, style, bucket, reason string
	key                         s3Key
	do                          func(context.Context, *awss3.Client, *string) error
}

func (s *inspectingWorld) refusals() []refusal {
	k, large := aws.String("k"), s3Content("large", 3<<20)
	get := func(ctx context.Context, c *awss3.Client, b *string) error {
		_, err := c.GetObject(ctx, &awss3.GetObjectInput{Bucket: b, Key: k})
		return err
	}
	put := func(ctx context.Context, c *awss3.Client, b *string) error {
		_, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: k, Body: bytes.NewReader(large)})
		return err
	}
	copies := func(source string) func(context.Context, *awss3.Client, *string) error {
		return func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.CopyObject(ctx, &awss3.CopyObjectInput{Bucket: b, Key: aws.String("copy"), CopySource: &source})
			return err
		}
	}
	nobody := s3Key{}
	return []refusal{
		{"get from a bucket that is not listed", "path", s3Other, "s3_bucket", s.ours, get},
		{"put to a bucket that is not listed", "path", s3Other, "s3_bucket", s.ours, put},
		{"list a bucket that is not listed", "path", s3Other, "s3_bucket", s.ours, func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: b})
			return err
		}},
		{"list the buckets", "path", "", "s3_operation", s.ours, func(ctx context.Context, c *awss3.Client, _ *string) error {
			_, err := c.ListBuckets(ctx, nil)
			return err
		}},
		{"delete", "virtual", s3Data, "s3_operation", s.ours, func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: b, Key: aws.String("another")})
			return err
		}},
		{"delete many", "path", s3Data, "s3_operation", s.ours, func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.DeleteObjects(ctx, &awss3.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("another")}}}})
			return err
		}},
		{"write the bucket's policy", "virtual", s3Data, "s3_operation", s.ours, func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.PutBucketPolicy(ctx, &awss3.PutBucketPolicyInput{Bucket: b, Policy: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::app-data/public/*"}]}`,
			)})
			return err
		}},
		{"write the bucket's ACL", "virtual", s3Data, "s3_operation", s.ours, func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.PutBucketAcl(ctx, &awss3.PutBucketAclInput{Bucket: b, ACL: types.BucketCannedACLPublicRead})
			return cameThrough(err) // versitygw has none by default
		}},
		{"put with an ACL", "virtual", s3Data, "s3_operation", s.ours, func(ctx context.Context, c *awss3.Client, b *string) error {
			_, err := c.PutObject(ctx, &awss3.PutObjectInput{Bucket: b, Key: aws.String("open"), Body: strings.NewReader("x"), ACL: types.ObjectCannedACLPublicRead})
			return cameThrough(err)
		}},
		{"copy from a foreign bucket", "virtual", s3Data, "s3_bucket", s.ours, copies("other-data/k")},
		{"copy from a foreign bucket, encoded", "path", s3Data, "s3_bucket", s.ours, copies("%6fther-data%2Fk")},
		{"copy to a foreign bucket", "path", s3Other, "s3_bucket", s.ours, copies("app-data/k")},
		{"a foreign signer gets", "virtual", s3Data, "s3_account", s.theirs, get},
		{"a foreign signer puts", "path", s3Data, "s3_account", s.theirs, put},
		{"nobody signs", "virtual", s3Data, "s3_account", nobody, func(ctx context.Context, c *awss3.Client, b *string) error { return cameThrough(get(ctx, c, b)) }},
	}
}

// cameThrough is err, less what the server itself says no to.
func cameThrough(err error) error {
	if _, ok := errors.AsType[smithy.APIError](err); ok && !strings.Contains(err.Error(), "sallyport") {
		return nil
	}
	return err
}

// TestS3Refused: what the server does for the asking, the proxy refuses, and
// says so as S3 would: SDKs show their user the code and the message.
func TestS3Refused(t *testing.T) {
	t.Parallel()
	s := newS3World(t, true, strictRules)
	s.seed(t)
	for _, tt := range s.refusals() {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(t.Context(), s.client(s.way("direct"), tt.style, tt.key), &tt.bucket); err != nil || len(s.take()) == 0 {
				t.Fatalf("directly: %v", err)
			}
			host := s3Service
			if tt.style == "virtual" {
				host = tt.bucket + "." + s3Service
			}
			for _, way := range s.proxied() {
				err := tt.do(t.Context(), s.client(way, tt.style, tt.key), &tt.bucket)
				api, ok := errors.AsType[smithy.APIError](err)
				if !ok || api.ErrorCode() != "AccessDenied" || !strings.Contains(api.ErrorMessage(), "("+tt.reason+")") || !strings.Contains(err.Error(), "sallyport") {
					t.Errorf("by %s: %v", way.name, err)
				}
				s.refused(t, way, host, tt.reason)
			}
		})
	}
	t.Run("what is allowed still is", func(t *testing.T) {
		for _, way := range s.proxied() {
			for _, style := range []string{"virtual", "path"} {
				out, err := s.client(way, style, s.ours).GetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String(s3Data), Key: aws.String("k")})
				if err != nil {
					t.Errorf("by %s: %v", way.name, err)
					continue
				}
				if text, err := io.ReadAll(out.Body); len(text) == 0 || err != nil {
					t.Errorf("by %s: %q, %v", way.name, text, err)
				}
			}
		}
	})
}

// TestS3RefusedURLs: a rule may want no signatures in URLs; another may.
func TestS3RefusedURLs(t *testing.T) {
	t.Parallel()
	s := newS3World(t, true, strictRules)
	s.seed(t)
	curl := need(t, "curl")
	for _, tt := range []struct {
		bucket, style, reason string
		key                   s3Key
	}{
		{s3Data, "virtual", "", s.ours},
		{s3Data, "path", "", s.ours},
		{s3Data, "virtual", "s3_account", s.theirs},
		{s3Dotted, "path", "s3_account", s.ours},
		{s3Other, "path", "s3_bucket", s.ours},
	} {
		for _, way := range s.ways {
			t.Run(fmt.Sprint(tt.bucket, "/", tt.style, "/", tt.key.id[:4], "/", way.name), func(t *testing.T) {
				signer := awss3.NewPresignClient(s.client(way, tt.style, tt.key))
				get, err := signer.PresignGetObject(t.Context(), &awss3.GetObjectInput{Bucket: &tt.bucket, Key: aws.String("k")})
				if err != nil {
					t.Fatal(err)
				}
				put, err := signer.PresignPutObject(t.Context(), &awss3.PutObjectInput{Bucket: &tt.bucket, Key: aws.String("by curl")})
				if err != nil {
					t.Fatal(err)
				}
				host := s3Service
				if tt.style == "virtual" {
					host = tt.bucket + "." + s3Service
				}
				for _, args := range [][]string{{get.URL}, {"-T", "testdata/clients/s3work.py", put.URL}} {
					res := s.run(t, way, tt.key, command{path: curl, args: append([]string{"-sSi", "--max-time", "60"}, args...)})
					if tt.reason != "" && way.via != "" {
						res.succeeds(t, "403 Forbidden", "<Code>AccessDenied</Code>", "("+tt.reason+")")
						s.refused(t, way, host, tt.reason)
						continue
					}
					res.succeeds(t, " 200 OK")
					if way.via != "" {
						s.r.allowed(host, way.via)
					}
					s.take()
				}
			})
		}
	}
}
