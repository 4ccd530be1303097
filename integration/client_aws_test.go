package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// s3 stands in for S3: a bucket is its host's first label, or the path's.
func s3(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "application/octet-stream")
	rw.Header().Set("ETag", `"0"`)
	rw.Header().Set("Last-Modified", "Mon, 02 Nov 2026 00:00:00 GMT")
	fmt.Fprintf(rw, "object %s of %s, signed: %v", r.URL.Path, r.Host, strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "))
}

// s3World has an S3 of its own, and a proxy whose policy lists one bucket.
func s3World(t *testing.T) (*world, *rig, *origin, []string) {
	t.Helper()
	w := newWorld(t)
	o := w.originAt(loopback(), http.HandlerFunc(s3), "*.s3.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com", "*.s3.amazonaws.com", "s3.amazonaws.com")
	for _, name := range []string{"acme-prod-data", "other-bucket"} {
		w.name(name+".s3.us-east-1.amazonaws.com", o.addr)
		w.name(name+".s3.amazonaws.com", o.addr)
	}
	w.name("s3.us-east-1.amazonaws.com", o.addr)
	r := w.serve(`
  - {name: app-data, s3: {buckets: [acme-prod-data], regions: [us-east-1]}, resolves_to: [127.0.0.0/8]}
`)
	return w, r, o, []string{
		"HTTPS_PROXY=" + r.url(), "HTTP_PROXY=" + r.url(), "AWS_CA_BUNDLE=" + w.caFile,
		"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=example", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=regional", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=",
	}
}

func TestBoto3(t *testing.T) {
	t.Parallel()
	python := needModule(t, "boto3")
	_, r, o, env := s3World(t)
	get := func(style string, objects ...string) []answer {
		t.Helper()
		return command{path: python, args: append([]string{"testdata/clients/s3get.py", style}, objects...), env: env}.answers(t, len(objects))
	}
	got := get("virtual", "acme-prod-data/a/key", "other-bucket/a/key")
	if got[0].Error != "" || got[0].Body != "object /a/key of acme-prod-data.s3.us-east-1.amazonaws.com, signed: true" {
		t.Errorf("the client got %+v", got[0])
	}
	if s := r.allowed("acme-prod-data.s3.us-east-1.amazonaws.com", "connect").AWS.S3; s.Bucket != "acme-prod-data" || s.Region != "us-east-1" || s.Form != "virtual_hosted" {
		t.Errorf("the record's S3: %+v", s)
	}
	got[1].failed(t, "ProxyConnectionError", "Failed to connect to proxy URL") // all that botocore says
	if s := r.denied("other-bucket.s3.us-east-1.amazonaws.com", "connect", "s3_bucket").AWS.S3; s.Bucket != "other-bucket" {
		t.Errorf("the record's S3: %+v", s)
	}
	reached := o.conns.Load()
	got = get("path", "acme-prod-data/a/key")
	got[0].failed(t, "ProxyConnectionError")
	r.denied("s3.us-east-1.amazonaws.com", "connect", "s3_opaque")
	// Left to itself boto3 asks the global endpoint for us-east-1, whose name
	// tells no Region; the rule asks for one.
	env = append(env, "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT=legacy")
	get("virtual", "acme-prod-data/a/key")[0].failed(t, "ProxyConnectionError")
	r.denied("acme-prod-data.s3.amazonaws.com", "connect", "s3_bucket")
	if n := o.conns.Load(); n != reached {
		t.Errorf("what is denied made %d connections", n-reached)
	}
}

func TestAWSCommandLine(t *testing.T) {
	t.Parallel()
	// Debian's own: a shim of another Python may come first on PATH.
	aws := need(t, "/usr/bin/aws")
	_, r, _, env := s3World(t)
	run := func(args ...string) result {
		t.Helper()
		return command{path: aws, args: args, env: env}.run(t)
	}
	run("s3", "cp", "s3://acme-prod-data/a/key", "-").succeeds(t, "object /a/key of acme-prod-data.s3.us-east-1.amazonaws.com, signed: true")
	r.allowed("acme-prod-data.s3.us-east-1.amazonaws.com", "connect")
	run("s3", "cp", "s3://other-bucket/a/key", "-").fails(t, "Failed to connect to proxy URL")
	r.denied("other-bucket.s3.us-east-1.amazonaws.com", "connect", "s3_bucket")
}
