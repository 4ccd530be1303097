package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// s3Object is a policy that is an object of S3. Only an object that changed is
// transferred: the others are answered with 304.
type s3Object struct {
	bucket, key string
	region      string  // where the bucket is thought to be; "" before anything is known
	owner       *string // nil: any account
	session     *awsSession
	client      *s3.Client // of region; nil before the first use
	etag        *string    // of the document that fetch returned last
}

func newS3Object(s source, session *awsSession) *s3Object {
	bucket, key, _ := strings.Cut(s.name, "/")
	o := &s3Object{bucket: bucket, key: key, region: s.region, session: session}
	if s.owner != "" {
		o.owner = &s.owner
	}
	return o
}

// fetch implements fetcher.
func (o *s3Object) fetch(ctx context.Context) (fetched, error) {
	cfg, err := o.session.signing(ctx)
	if err != nil {
		return fetched{}, err
	}
	if o.client == nil {
		o.connect(cfg, cmp.Or(o.region, cfg.Region, "us-east-1")) // any region tells where the bucket is
	}
	answer, err := o.get(ctx)
	if elsewhere := bucketRegion(err); elsewhere != "" && elsewhere != o.region {
		o.connect(cfg, elsewhere)
		answer, err = o.get(ctx)
	}
	if at, ok := errors.AsType[*awshttp.ResponseError](err); ok && at.HTTPStatusCode() == http.StatusNotModified {
		return fetched{unchanged: true}, nil
	} else if err != nil {
		return fetched{}, awsFailure(err, "S3", o.remedies())
	}
	defer answer.Body.Close()
	if answer.ContentLength != nil && *answer.ContentLength > maxPolicy {
		return fetched{}, tooLarge()
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxPolicy+1))
	switch {
	case err != nil:
		return fetched{}, &sourceError{class: "broken_off", transient: true, err: fmt.Errorf("the answer of S3 broke off: %w", err)}
	case len(data) > maxPolicy:
		return fetched{}, tooLarge()
	}
	o.etag = answer.ETag
	f := fetched{data: data}
	if answer.ETag != nil {
		f.version = strings.Trim(*answer.ETag, `"`)
	}
	return f, nil
}

// connect makes the client for a region.
func (o *s3Object) connect(cfg aws.Config, region string) {
	o.region = region
	o.client = s3.NewFromConfig(cfg, func(options *s3.Options) {
		options.Region = region
		options.RetryMaxAttempts = 1                       // whoever polls has no need of more
		options.UsePathStyle = options.BaseEndpoint != nil // every server of that kind knows it
	})
}

func (o *s3Object) get(ctx context.Context) (*s3.GetObjectOutput, error) {
	return o.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &o.bucket, Key: &o.key, IfNoneMatch: o.etag, ExpectedBucketOwner: o.owner,
	})
}

// bucketRegion returns the region that S3 says the bucket is in, where that is
// all that is wrong.
func bucketRegion(err error) string {
	answer, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || answer.HTTPResponse() == nil {
		return ""
	}
	if region := answer.HTTPResponse().Header.Get("X-Amz-Bucket-Region"); isRegion(region) {
		return region
	}
	return ""
}

func (o *s3Object) remedies() awsRemedies {
	object := o.bucket + "/" + o.key
	return awsRemedies{
		"AccessDenied": "the task role needs s3:GetObject on " + object + ", and kms:Decrypt where the object is encrypted with a key of its own; " +
			"without s3:ListBucket on the bucket, an object that is not there is answered so too",
		"NoSuchKey":    "put the policy there, or name another object",
		"NoSuchBucket": "name a bucket that is there",
	}
}
