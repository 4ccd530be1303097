package policy

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func ExampleParseS3Host() {
	for _, s := range []string{
		"acme-prod.s3.us-east-1.amazonaws.com",
		"s3.us-east-1.amazonaws.com",
		"acme-prod.s3.us-east-1.amazonaws.com.evil.example",
	} {
		h, err := ParseHost(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		ref, ok := ParseS3Host(h)
		fmt.Println(ok, ref.Form, ref.Bucket, ref.Opaque())
	}
	// Output:
	// true virtual_hosted acme-prod false
	// true path_style  true
	// false   false
}

// s3Known is a host that someone once wrote down, and what it means.
type s3Known struct {
	host string
	want S3Ref
}

func TestParseS3HostKnown(t *testing.T) {
	aws := func(form S3Form, bucket, region string) S3Ref {
		return S3Ref{Form: form, Bucket: bucket, Region: region, Partition: "aws"}
	}
	tests := []s3Known{
		{"docker-images-prod.s3.amazonaws.com", aws(S3VirtualHosted, "docker-images-prod", "")},
		{"prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com", aws(S3VirtualHosted, "prod-us-east-1-starport-layer-bucket", "us-east-1")},
		{"al2023-repos-us-west-2-de612dc2.s3.dualstack.us-west-2.amazonaws.com", aws(S3VirtualHosted, "al2023-repos-us-west-2-de612dc2", "us-west-2")},
		{"s3.amazonaws.com", aws(S3PathStyle, "", "")},
		{"s3.us-east-1.amazonaws.com", aws(S3PathStyle, "", "us-east-1")},
		{"s3-us-west-2.amazonaws.com", aws(S3PathStyle, "", "us-west-2")},
		{"s3-external-1.amazonaws.com", aws(S3PathStyle, "", "us-east-1")},
		{"amzn-s3-demo-bucket.s3-website-us-west-2.amazonaws.com", aws(S3Website, "amzn-s3-demo-bucket", "us-west-2")},
		{"amzn-s3-demo-bucket.s3-website.eu-central-1.amazonaws.com", aws(S3Website, "amzn-s3-demo-bucket", "eu-central-1")},
		{"s3-accelerate.amazonaws.com", aws(S3Accelerate, "", "")},
		{
			"amzn-s3-demo-bucket-111122223333-us-west-2-an.s3.us-west-2.amazonaws.com",
			S3Ref{Form: S3VirtualHosted, Bucket: "amzn-s3-demo-bucket-111122223333-us-west-2-an", Account: "111122223333", Region: "us-west-2", Partition: "aws"},
		},
		{
			"amzn-s3-demo-bucket-111122223333-us-west-2-an.s3.amazonaws.com",
			S3Ref{Form: S3VirtualHosted, Bucket: "amzn-s3-demo-bucket-111122223333-us-west-2-an", Account: "111122223333", Partition: "aws"},
		},
		// A bucket of that name in another Region is not the reserved one.
		{"x-111122223333-us-west-2-an.s3.us-east-1.amazonaws.com", aws(S3VirtualHosted, "x-111122223333-us-west-2-an", "us-east-1")},
		{"x-111122223333-cn-north-1-an.s3.amazonaws.com", aws(S3VirtualHosted, "x-111122223333-cn-north-1-an", "")},
		{"111122223333-us-west-2-an.s3.us-west-2.amazonaws.com", aws(S3VirtualHosted, "111122223333-us-west-2-an", "us-west-2")},
		{"x-11112222333-us-west-2-an.s3.us-west-2.amazonaws.com", aws(S3VirtualHosted, "x-11112222333-us-west-2-an", "us-west-2")},
		{"x-111122223333-an.s3.us-west-2.amazonaws.com", aws(S3VirtualHosted, "x-111122223333-an", "us-west-2")},
		{"xan.s3.us-west-2.amazonaws.com", aws(S3VirtualHosted, "xan", "us-west-2")},
		// A Region that nobody has heard of.
		{"b.s3.atlantis-far-south-12.amazonaws.com", aws(S3VirtualHosted, "b", "atlantis-far-south-12")},
		// Read from the right.
		{"us-west-2.s3.amazonaws.com", aws(S3VirtualHosted, "us-west-2", "")},
		{"dualstack.s3.amazonaws.com", aws(S3VirtualHosted, "dualstack", "")},
		{"s3.dualstack.s3.amazonaws.com", aws(S3VirtualHosted, "s3.dualstack", "")},
		{"s3.us-west-2.s3.us-east-1.amazonaws.com", aws(S3VirtualHosted, "s3.us-west-2", "us-east-1")},
		{"allowed.s3.us-west-2.amazonaws.com.s3.us-west-2.amazonaws.com", aws(S3VirtualHosted, "allowed.s3.us-west-2.amazonaws.com", "us-west-2")},
		{"team-111122223333.s3-accesspoint.s3.us-east-1.amazonaws.com", aws(S3VirtualHosted, "team-111122223333.s3-accesspoint", "us-east-1")},
		{"a.mrap.accesspoint.s3.amazonaws.com", aws(S3VirtualHosted, "a.mrap.accesspoint", "")},
		{"-an.s3.amazonaws.com", aws(S3VirtualHosted, "-an", "")},
		// The Region decides between two partitions of one suffix.
		{"b.s3.us-gov-west-1.amazonaws.com", S3Ref{Form: S3VirtualHosted, Bucket: "b", Region: "us-gov-west-1", Partition: "aws-us-gov"}},
		{"b.s3-fips-us-gov-west-1.amazonaws.com", S3Ref{Form: S3VirtualHosted, Bucket: "b", Region: "us-gov-west-1", Partition: "aws-us-gov"}},
		{"s3tables.us-gov-east-1.api.aws", S3Ref{Form: S3Tables, Region: "us-gov-east-1", Partition: "aws-us-gov"}},
		{"b.s3.cn-north-1.amazonaws.com.cn", S3Ref{Form: S3VirtualHosted, Bucket: "b", Region: "cn-north-1", Partition: "aws-cn"}},
		// Names that only access points have.
		{
			"team-x-abcdefgh-s3alias.s3.us-west-2.amazonaws.com",
			S3Ref{Form: S3AccessPointAlias, AccessPoint: "team-x-abcdefgh-s3alias", Region: "us-west-2", Partition: "aws"},
		},
		{"x-ext-s3alias.s3-us-west-2.amazonaws.com", S3Ref{Form: S3AccessPointAlias, AccessPoint: "x-ext-s3alias", Region: "us-west-2", Partition: "aws"}},
		{"x--ol-s3.s3.us-west-2.amazonaws.com", S3Ref{Form: S3ObjectLambda, AccessPoint: "x--ol-s3", Region: "us-west-2", Partition: "aws"}},
		{"x--op-s3.s3.us-west-2.amazonaws.com", S3Ref{Form: S3Outposts, AccessPoint: "x--op-s3", Region: "us-west-2", Partition: "aws"}},
		{"x--use1-az4--xa-s3.s3.us-east-1.amazonaws.com", S3Ref{Form: S3Express, AccessPoint: "x--use1-az4--xa-s3", Region: "us-east-1", Partition: "aws"}},
		{"x.mrap.s3.amazonaws.com", S3Ref{Form: S3MultiRegion, AccessPoint: "x.mrap", Partition: "aws"}},
		{"x-s3alias.s3-accelerate.amazonaws.com", S3Ref{Form: S3Accelerate, AccessPoint: "x-s3alias", Partition: "aws"}},
		// S3's and opaque.
		{"io-use1-001.s3-object-lambda.us-east-1.amazonaws.com", aws(S3ObjectLambda, "", "us-east-1")},
		{"a.b-111122223333.s3-accesspoint.us-east-1.amazonaws.com", aws(S3AccessPoint, "", "us-east-1")},
		{"name.s3-accesspoint.us-east-1.amazonaws.com", aws(S3AccessPoint, "", "us-east-1")},
		{"-111122223333.s3-accesspoint.us-east-1.amazonaws.com", aws(S3AccessPoint, "", "us-east-1")},
		{"n-111122223333.s3-outposts.us-east-1.amazonaws.com", aws(S3Outposts, "", "us-east-1")},
		{"b.s3express-use1-az4.us-east-1.amazonaws.com", aws(S3Express, "", "us-east-1")},
		{"b.s3-control.us-east-1.amazonaws.com", aws(S3Control, "", "us-east-1")},
		{"accesspoint.s3-global.amazonaws.com", aws(S3MultiRegion, "", "")},
		{"mrap.accesspoint.s3-global.amazonaws.com", aws(S3MultiRegion, "", "")},
		{"x.accesspoint.s3-global.amazonaws.com", aws(S3MultiRegion, "", "")},
		{"b.s3vectors.us-east-1.api.aws", aws(S3Vectors, "", "us-east-1")},
		{"vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com", aws(S3PrivateLink, "", "us-east-1")},
		{"b.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com", aws(S3PrivateLink, "", "us-east-1")},
		{"b.bucket.s3.us-east-1.vpce.amazonaws.com", aws(S3PrivateLink, "", "us-east-1")},
		{"x.bucket.subnet-1.s3.us-east-1.vpce.amazonaws.com", aws(S3PrivateLink, "", "us-east-1")},
		{"vpce-1a2b-3c4d.s3-outposts.us-east-1.vpce.amazonaws.com", aws(S3PrivateLink, "", "us-east-1")},
		{"vpce-1a2b-3c4d.accesspoint.s3-global.vpce.amazonaws.com", aws(S3PrivateLink, "", "")},
		{"s3-1-w.amazonaws.com", aws(S3Other, "", "")},
		{"b.s3-1-w.amazonaws.com", aws(S3Other, "", "")},
		{"s3-r-w.us-east-1.amazonaws.com", aws(S3Other, "", "us-east-1")},
		{"b.s3.us-east-1.api.aws", aws(S3Other, "", "us-east-1")},
		{"b.s3.us-gov-west-1.amazonaws.com.cn", S3Ref{Form: S3Other, Partition: "aws-cn"}},
		{"b.s3.cn-north-1.amazonaws.com", aws(S3Other, "", "")},
		{"b.s3-cn-north-1.amazonaws.com", aws(S3Other, "", "")},
		{"b.s3-external-1.amazonaws.com.cn", S3Ref{Form: S3Other, Partition: "aws-cn"}},
		{"b.s3.dualstack.amazonaws.com", aws(S3Other, "", "")},
		{"b.s3-website.amazonaws.com", aws(S3Other, "", "")},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) { checkS3(t, tt) })
	}
}

func checkS3(t *testing.T, tt s3Known) {
	t.Helper()
	h, err := ParseHost(tt.host)
	if err != nil && !strings.HasPrefix(tt.host, "-") {
		t.Fatal(err)
	} else if err != nil {
		h = Host{name: tt.host} // a bucket that ParseHost refuses, read all the same
	}
	got, ok := ParseS3Host(h)
	if !ok || got != tt.want {
		t.Errorf("ParseS3Host(%q)\n got %+v, %v\nwant %+v", tt.host, got, ok, tt.want)
	}
	if got.Opaque() != (tt.want.Bucket == "" && tt.want.AccessPoint == "") {
		t.Errorf("ParseS3Host(%q).Opaque() = %v", tt.host, got.Opaque())
	}
}

func TestParseS3HostLookAlikes(t *testing.T) {
	for _, s := range []string{
		"example.com", "localhost", "s3", "192.0.2.1", "[2001:db8::1]",
		"amazonaws.com", "us-east-1.amazonaws.com", "api.aws", "vpce.amazonaws.com", "us-east-1.vpce.amazonaws.com",
		"s3.amazonaws.com.evil.example", "b.s3.us-east-1.amazonaws.com.evil.example",
		"evil-s3.us-east-1.amazonaws.com", "evil-s3.amazonaws.com", "b.evil-s3.amazonaws.com",
		"s3.evil.amazonaws.com", "s3.us-east-1.evil.amazonaws.com", "b.s3.us-east.amazonaws.com", "b.s3.us-east-100.amazonaws.com", "b.s3.compute-1.amazonaws.com", "b.s3.us--1.amazonaws.com", "b.s3.us-e4st-1.amazonaws.com",
		"s3.us-east-1.amazonaws.co", "s3.us-east-1.amazonaws.org", "s3.us-east-1.notamazonaws.com", "s3.us-east-1.amazonaws.comx",
		"s3-us-east-1amazonaws.com", "s3.us-east-1.amazonaws.com.co", "s3.us-east-1.aws",
		"abc123.execute-api.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com", "s3.123.us-east-1.elb.amazonaws.com",
		"s3.abc.us-east-1.rds.amazonaws.com", "ec2-1-2-3-4.compute-1.amazonaws.com", "s3.eu-central-1.es.amazonaws.com",
		"vpce-1-2.ec2.us-east-1.vpce.amazonaws.com", "vpce-1-2.vpce-svc-3.us-east-1.vpce.amazonaws.com", "s3.vpce-1.ec2.us-east-1.vpce.amazonaws.com",
		"x.dualstack.amazonaws.com", "s3.sts.dualstack.us-east-1.amazonaws.com", "d111.cloudfront.net", "s3.console.aws.amazon.com",
	} {
		h, err := ParseHost(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := ParseS3Host(h); ok || got != (S3Ref{}) || got.Opaque() {
			t.Errorf("ParseS3Host(%q) = %+v, %v", s, got, ok)
		}
	}
	if _, ok := ParseS3Host(Host{}); ok {
		t.Error("the zero Host is S3's")
	}
}

// s3Template makes hosts: {B} is a bucket, {N} an access point's name, {A} an
// account, {R} a Region, {S} and {D} the partition's suffixes. want is a
// template too.
type s3Template struct {
	host string
	want S3Ref
}

// s3Templates has every form of S3's endpoints as AWS writes it.
func s3Templates() []s3Template {
	var all []s3Template
	add := func(want S3Ref, hosts ...string) {
		for _, h := range hosts {
			all = append(all, s3Template{h, want})
		}
	}
	add(
		S3Ref{Form: S3VirtualHosted, Bucket: "{B}", Region: "{R}"},
		"{B}.s3.{R}.{S}", "{B}.s3-fips.{R}.{S}", "{B}.s3.dualstack.{R}.{S}", "{B}.s3-fips.dualstack.{R}.{S}", "{B}.s3-{R}.{S}",
	)
	add(
		S3Ref{Form: S3PathStyle, Region: "{R}"},
		"s3.{R}.{S}", "s3-fips.{R}.{S}", "s3.dualstack.{R}.{S}", "s3-fips.dualstack.{R}.{S}", "s3-{R}.{S}", "s3-fips-{R}.{S}",
	)
	add(S3Ref{Form: S3VirtualHosted, Bucket: "{B}"}, "{B}.s3.{S}")
	add(S3Ref{Form: S3PathStyle}, "s3.{S}")
	add(S3Ref{Form: S3VirtualHosted, Bucket: "{B}", Region: "us-east-1"}, "{B}.s3-external-1.{S}")
	add(S3Ref{Form: S3Accelerate, Bucket: "{B}"}, "{B}.s3-accelerate.{S}", "{B}.s3-accelerate.dualstack.{S}", "{B}.s3-accelerate.dualstack.{R}.{S}")
	add(
		S3Ref{Form: S3AccessPoint, AccessPoint: "{N}", Account: "{A}", Region: "{R}"},
		"{N}-{A}.s3-accesspoint.{R}.{S}", "{N}-{A}.s3-accesspoint-fips.{R}.{S}",
		"{N}-{A}.s3-accesspoint.dualstack.{R}.{S}", "{N}-{A}.s3-accesspoint-fips.dualstack.{R}.{S}",
	)
	add(S3Ref{Form: S3AccessPointAlias, AccessPoint: "{N}-s3alias", Region: "{R}"}, "{N}-s3alias.s3.{R}.{S}", "{N}-s3alias.s3.dualstack.{R}.{S}")
	add(
		S3Ref{Form: S3ObjectLambda, AccessPoint: "{N}", Account: "{A}", Region: "{R}"},
		"{N}-{A}.s3-object-lambda.{R}.{S}", "{N}-{A}.s3-object-lambda-fips.{R}.{S}",
	)
	add(S3Ref{Form: S3ObjectLambda, AccessPoint: "{N}--ol-s3", Region: "{R}"}, "{N}--ol-s3.s3.{R}.{S}", "{N}--ol-s3.s3-object-lambda.{R}.{S}")
	add(S3Ref{Form: S3ObjectLambda, Region: "{R}"}, "s3-object-lambda.{R}.{S}", "route.s3-object-lambda.{R}.{S}")
	add(S3Ref{Form: S3MultiRegion, AccessPoint: "{N}.mrap"}, "{N}.mrap.accesspoint.s3-global.{S}")
	add(S3Ref{Form: S3Outposts, AccessPoint: "{N}", Account: "{A}", Region: "{R}"}, "{N}-{A}.op-01234567890123456.s3-outposts.{R}.{S}")
	add(
		S3Ref{Form: S3Outposts, AccessPoint: "{N}--op-s3", Region: "{R}"},
		"{N}--op-s3.op-01234567890123456.s3-outposts.{R}.{S}", "{N}--op-s3.ec2.s3-outposts.{R}.{S}",
	)
	add(S3Ref{Form: S3Outposts, Region: "{R}"}, "s3-outposts.{R}.{S}", "s3-outposts-fips.{R}.{S}", "s3-outposts.{R}.{D}", "s3-outposts-fips.{R}.{D}")
	for _, service := range []string{"s3express-usw2-az1", "s3express-fips-usw2-az1", "s3express-usw2-az1.dualstack", "s3express-fips-usw2-az1.dualstack"} {
		add(S3Ref{Form: S3Express, Bucket: "{N}--usw2-az1--x-s3", Region: "{R}"}, "{N}--usw2-az1--x-s3."+service+".{R}.{S}")
		add(S3Ref{Form: S3Express, AccessPoint: "{N}--usw2-az1--xa-s3", Region: "{R}"}, "{N}--usw2-az1--xa-s3."+service+".{R}.{S}")
	}
	add(
		S3Ref{Form: S3ExpressControl, Region: "{R}"},
		"s3express-control.{R}.{S}", "s3express-control-fips.{R}.{S}", "s3express-control.dualstack.{R}.{S}", "s3express-control-fips.dualstack.{R}.{S}",
	)
	add(
		S3Ref{Form: S3Control, Account: "{A}", Region: "{R}"},
		"{A}.s3-control.{R}.{S}", "{A}.s3-control-fips.{R}.{S}", "{A}.s3-control.dualstack.{R}.{S}", "{A}.s3-control-fips.dualstack.{R}.{S}",
	)
	add(S3Ref{Form: S3Control, Region: "{R}"}, "s3-control.{R}.{S}")
	add(S3Ref{Form: S3Website, Bucket: "{B}", Region: "{R}"}, "{B}.s3-website-{R}.{S}", "{B}.s3-website.{R}.{S}")
	add(S3Ref{Form: S3PrivateLink, Region: "{R}"}, "bucket.vpce-1a2b3c4d-5e6f.s3.{R}.vpce.{S}", "bucket.vpce-1a2b3c4d-5e6f-us-east-1a.s3.{R}.vpce.{S}")
	add(S3Ref{Form: S3PrivateLink, Bucket: "{B}", Region: "{R}"}, "{B}.bucket.vpce-1a2b3c4d-5e6f.s3.{R}.vpce.{S}")
	add(S3Ref{Form: S3PrivateLink, AccessPoint: "{N}", Account: "{A}", Region: "{R}"}, "{N}-{A}.accesspoint.vpce-1a2b3c4d-5e6f.s3.{R}.vpce.{S}")
	add(S3Ref{Form: S3PrivateLink, Account: "{A}", Region: "{R}"}, "{A}.control.vpce-1a2b3c4d-5e6f.s3.{R}.vpce.{S}")
	add(S3Ref{Form: S3Tables, Region: "{R}"}, "s3tables.{R}.{S}", "s3tables-fips.{R}.{S}", "s3tables.{R}.{D}", "s3tables-fips.{R}.{D}")
	add(S3Ref{Form: S3Vectors, Region: "{R}"}, "s3vectors.{R}.{D}", "s3vectors-fips.{R}.{D}")
	add(S3Ref{Form: S3Files, Region: "{R}"}, "s3files.{R}.{D}", "s3files-fips.{R}.{D}")
	return all
}

// s3Partition is a partition as the SDKs know it.
type s3Partition struct {
	name, suffix, dualStack string
	regions                 []string
}

func s3Partitions() []s3Partition {
	return []s3Partition{
		{"aws", "amazonaws.com", "api.aws", []string{
			"us-east-1", "us-west-2", "eu-central-1", "ap-southeast-5", "sa-east-1", "ca-west-1", "me-central-1", "af-south-1", "il-central-1", "mx-central-1",
		}},
		{"aws-us-gov", "amazonaws.com", "api.aws", []string{"us-gov-west-1", "us-gov-east-1"}},
		{"aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn", []string{"cn-north-1", "cn-northwest-1"}},
		{"aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu", []string{"eusc-de-east-1"}},
		{"aws-iso", "c2s.ic.gov", "api.aws.ic.gov", []string{"us-iso-east-1", "us-iso-west-1"}},
		{"aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud", []string{"us-isob-east-1"}},
		{"aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk", []string{"eu-isoe-west-1"}},
		{"aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov", []string{"us-isof-east-1", "us-isof-south-1"}},
	}
}

// TestParseS3HostTemplates makes every form in every partition and Region and
// reads it back, with names that try to be taken for something else.
func TestParseS3HostTemplates(t *testing.T) {
	buckets := []string{
		"acme-prod", "a.b.c", "us-west-2", "s3", "s3-fips", "s3-us-west-2", "dualstack", "vpce", "bucket", "x.bucket", "x.accesspoint", "ec2", "amazonaws.com",
		"s3.us-west-2", "allowed.s3.us-west-2.amazonaws.com", "x.s3-accesspoint.us-west-2", "s3express-usw2-az1", "bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com",
		"mrap", "s3alias", "an", "a-an", "x--table-s3", "123456789012", "n-123456789012", "under_score", "x--usw2-az1--x-s3",
	}
	names := []string{"team", "a", "a-b", "x-999988887777", "us-west-2", "s3", "s3alias", "dualstack"}
	accounts := []string{"111122223333", "000000000000"}
	count := 0
	for _, tmpl := range s3Templates() {
		for _, part := range s3Partitions() {
			if !tmpl.existsIn(part) {
				continue
			}
			for _, region := range part.regions {
				for i := range max(len(buckets), len(names)) {
					host, want := tmpl.fill(part, region, buckets[i%len(buckets)], names[i%len(names)], accounts[i%len(accounts)])
					if got, ok := ParseS3Host(Host{name: host}); !ok || got != want {
						t.Errorf("%s\n%q\n got %+v, %v\nwant %+v", tmpl.host, host, got, ok, want)
					}
					count++
				}
			}
		}
	}
	if count < 10000 {
		t.Errorf("only %d hosts made", count)
	}
}

// existsIn reports whether the partition has such hosts.
func (m s3Template) existsIn(part s3Partition) bool {
	return part.name == "aws" || !strings.Contains(m.host, "s3-external-1")
}

// fill makes a host and what it means.
func (m s3Template) fill(part s3Partition, region, bucket, name, account string) (host string, want S3Ref) {
	r := strings.NewReplacer("{S}", part.suffix, "{D}", part.dualStack, "{R}", region, "{B}", bucket, "{N}", name, "{A}", account)
	want = S3Ref{
		Form:        m.want.Form,
		Bucket:      r.Replace(m.want.Bucket),
		AccessPoint: r.Replace(m.want.AccessPoint),
		Account:     r.Replace(m.want.Account),
		Region:      r.Replace(m.want.Region),
		Partition:   part.name,
	}
	host = r.Replace(m.host)
	if part.name == "aws-us-gov" && !strings.Contains(host, region) {
		want.Partition = "aws" // nothing tells them apart
	}
	return host, want
}

func TestParseS3HostAllocates(t *testing.T) {
	for _, s := range []string{
		"acme-prod.s3.us-east-1.amazonaws.com", "s3.dualstack.us-gov-west-1.amazonaws.com", "n-111122223333.s3-accesspoint.us-east-1.amazonaws.com",
		"x-111122223333-us-west-2-an.s3.us-west-2.amazonaws.com", "a.bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", "www.example.com",
	} {
		h, err := ParseHost(s)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseS3Host(h) }); n != 0 {
			t.Errorf("ParseS3Host(%q) allocates %v times", s, n)
		}
	}
}

func BenchmarkParseS3Host(b *testing.B) {
	for _, s := range []string{"acme-prod.s3.us-east-1.amazonaws.com", "www.example.com"} {
		h, err := ParseHost(s)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = ParseS3Host(h)
			}
		})
	}
}

// s3Oracle is a second reading of S3's hosts: one expression a form, with a
// group B for what names a bucket or an access point's alias, N and A for an
// access point and its account. AWS's forms do not overlap once the whole host
// is matched, so at most one of them fits.
type s3Oracle struct {
	form S3Form
	re   *regexp.Regexp
}

func s3Oracles() []s3Oracle {
	const (
		region = `(?P<R>[a-z]+(?:-[a-z]+)+-[0-9]{1,2})`
		ap     = `(?P<N>[a-z0-9_-]+)-(?P<A>[0-9]{12})`
		bucket = `(?:(?P<B>.+)\.)?`
	)
	var suffixes []string
	for _, p := range s3Partitions() {
		suffixes = append(suffixes, regexp.QuoteMeta(p.suffix))
	}
	suffix := `(?P<S>` + strings.Join(suffixes, "|") + `)`
	regional := `(?:-fips)?(?:\.dualstack)?\.` + region + `\.` + suffix
	var all []s3Oracle
	for _, o := range []struct {
		form S3Form
		expr string
	}{
		{S3VirtualHosted, bucket + `s3` + regional},
		{S3VirtualHosted, bucket + `s3\.` + suffix},
		{S3VirtualHosted, bucket + `s3-external-1\.amazonaws\.com`},
		{S3VirtualHosted, bucket + `s3-(?:fips-)?` + region + `\.` + suffix},
		{S3Accelerate, bucket + `s3-accelerate(?:\.dualstack)?\.` + suffix},
		{S3Accelerate, bucket + `s3-accelerate` + regional},
		{S3Website, bucket + `s3-website-` + region + `\.` + suffix},
		{S3Website, bucket + `s3-website` + regional},
		{S3AccessPoint, ap + `\.s3-accesspoint` + regional},
		{S3AccessPoint, `(?P<B>.+)\.s3-accesspoint` + regional},
		{S3ObjectLambda, ap + `\.s3-object-lambda` + regional},
		{S3ObjectLambda, `(?P<B>.+)\.s3-object-lambda` + regional},
		{S3Outposts, ap + `\.(?:ec2|op-[^.]*)\.s3-outposts` + regional},
		{S3Outposts, `(?P<B>.+)\.(?:ec2|op-[^.]*)\.s3-outposts` + regional},
		{S3Express, `(?P<B>.+)\.s3express-[^.]+(?:\.dualstack)?\.` + region + `\.` + suffix},
		{S3MultiRegion, `(?P<B>.+)\.accesspoint\.s3-global\.` + suffix},
		{S3PrivateLink, `(?P<B>.+)\.bucket\.vpce-[^.]*\.s3(?:-fips)?\.` + region + `\.vpce\.` + suffix},
		{S3PrivateLink, ap + `\.accesspoint\.vpce-[^.]*\.s3(?:-fips)?\.` + region + `\.vpce\.` + suffix},
		{S3PrivateLink, `(?P<B>.+)\.accesspoint\.vpce-[^.]*\.s3(?:-fips)?\.` + region + `\.vpce\.` + suffix},
	} {
		all = append(all, s3Oracle{o.form, regexp.MustCompile(`^(?:` + o.expr + `)$`)})
	}
	return all
}

var s3AliasRE = regexp.MustCompile(`(?:-s3alias|--ol-s3|--op-s3|--xa-s3|\.mrap)$`)

// read says which bucket, or access point and account, the host names.
func (o s3Oracle) read(host string) (bucket, accessPoint string, ok bool) {
	m := o.re.FindStringSubmatch(host)
	if m == nil {
		return "", "", false
	}
	group := func(name string) string {
		if i := o.re.SubexpIndex(name); i >= 0 {
			return m[i]
		}
		return ""
	}
	served := map[string]string{
		"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu", "us-iso": "c2s.ic.gov", "us-isob": "sc2s.sgov.gov",
		"eu-isoe": "cloud.adc-e.uk", "us-isof": "csp.hci.ic.gov",
	}
	want := "amazonaws.com"
	for prefix, suffix := range served {
		if strings.HasPrefix(group("R"), prefix+"-") {
			want = suffix
		}
	}
	if group("R") != "" && group("S") != want {
		return "", "", false
	}
	b := group("B")
	switch {
	case group("N") != "":
		return "", group("N"), true
	case s3AliasRE.MatchString(b) && (o.form != S3Express || strings.HasSuffix(b, "--xa-s3")) && (o.form != S3MultiRegion || strings.HasSuffix(b, ".mrap")):
		return "", b, true
	case o.form == S3AccessPoint, o.form == S3ObjectLambda, o.form == S3Outposts, o.form == S3MultiRegion,
		o.form == S3PrivateLink && strings.Contains(o.re.String(), "accesspoint"),
		o.form == S3Express && !strings.HasSuffix(b, "--x-s3"):
		return "", "", false
	}
	return b, "", b != ""
}

// FuzzParseS3Host holds the reader against the oracle.
func FuzzParseS3Host(f *testing.F) {
	for i, tmpl := range s3Templates() {
		part := s3Partitions()[i%len(s3Partitions())]
		host, _ := tmpl.fill(part, part.regions[0], "acme.prod", "team", "111122223333")
		f.Add(host)
	}
	for _, s := range []string{
		"s3.amazonaws.com.evil.example", "evil-s3.us-east-1.amazonaws.com", "x-111122223333-us-west-2-an.s3.us-west-2.amazonaws.com",
		"x-s3alias.bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", "b.s3.cn-north-1.amazonaws.com", "x.mrap.s3.amazonaws.com",
	} {
		f.Add(s)
	}
	oracles := s3Oracles()
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err != nil {
			t.Skip("not a host")
		}
		got, ok := ParseS3Host(h)
		if !ok {
			if got != (S3Ref{}) {
				t.Fatalf("ParseS3Host(%q) = %+v, false", h, got)
			}
		} else {
			checkS3Invariants(t, h.String(), got)
		}
		var bucket, accessPoint string
		for _, o := range oracles {
			if b, a, ok := o.read(h.String()); ok {
				if bucket+accessPoint == "" || a != "" && len(a) < len(accessPoint) {
					bucket, accessPoint = b, a
				}
			}
		}
		if got.Bucket != bucket || got.AccessPoint != accessPoint {
			t.Fatalf("ParseS3Host(%q) = %+v, %v; the oracle reads bucket %q, access point %q", h, got, ok, bucket, accessPoint)
		}
	})
}

// FuzzParseS3Bucket puts any bucket and access point into every template.
func FuzzParseS3Bucket(f *testing.F) {
	f.Add("acme-prod", "team", uint8(0))
	f.Add("allowed.s3.us-west-2.amazonaws.com", "x-999988887777", uint8(1))
	f.Add("us-west-2", "s3", uint8(2))
	f.Add("bucket", "dualstack", uint8(3))
	templates, partitions := s3Templates(), s3Partitions()
	f.Fuzz(func(t *testing.T, bucket, name string, pick uint8) {
		if h, err := ParseHost(bucket); err != nil || h.name != bucket || aliasForm(bucket) != "" {
			t.Skip("not a bucket")
		}
		if h, err := ParseHost(name); err != nil || h.name != name || strings.Contains(name, ".") {
			t.Skip("not an access point")
		}
		part := partitions[int(pick)%len(partitions)]
		for _, tmpl := range templates {
			if !tmpl.existsIn(part) {
				continue
			}
			host, want := tmpl.fill(part, part.regions[int(pick)%len(part.regions)], bucket, name, "111122223333")
			got, ok := ParseS3Host(Host{name: host})
			if want.Bucket != "" && got.Account != "" {
				want.Account = got.Account // of the bucket's own name, see checkS3Invariants
			}
			if !ok || got != want {
				t.Fatalf("%q\n got %+v, %v\nwant %+v", host, got, ok, want)
			}
			checkS3Invariants(t, host, got)
		}
	})
}

// checkS3Invariants checks what holds for every S3 host.
func checkS3Invariants(t *testing.T, host string, r S3Ref) {
	t.Helper()
	suffix := false
	for _, p := range s3Partitions() {
		suffix = suffix || p.name == r.Partition && (strings.HasSuffix(host, "."+p.suffix) || strings.HasSuffix(host, "."+p.dualStack))
	}
	switch {
	case !suffix:
		t.Fatalf("%q: %+v: not a suffix of the partition", host, r)
	case r.Form == "":
		t.Fatalf("%q: %+v: no form", host, r)
	case r.Bucket != "" && r.AccessPoint != "":
		t.Fatalf("%q: %+v: a bucket and an access point", host, r)
	case r.Opaque() != (r.Bucket+r.AccessPoint == ""):
		t.Fatalf("%q: %+v: Opaque() is %v", host, r, r.Opaque())
	case !strings.HasPrefix(host, r.Bucket) || !strings.HasPrefix(host, r.AccessPoint) || !strings.Contains(host, r.Account):
		t.Fatalf("%q: %+v: not the host's", host, r)
	case r.Bucket != "" && (s3AliasRE.MatchString(r.Bucket) || host[len(r.Bucket)] != '.'):
		t.Fatalf("%q: %+v: not a bucket", host, r)
	case r.Account != "" && (len(r.Account) != 12 || strings.Trim(r.Account, "0123456789") != ""):
		t.Fatalf("%q: %+v: not an account", host, r)
	case r.Account != "" && r.Bucket != "" && !strings.HasSuffix(r.Bucket, "-an"):
		t.Fatalf("%q: %+v: an account that the bucket does not name", host, r)
	case r.Region != "" && !strings.Contains(host, r.Region) && !strings.Contains(host, "s3-external-1"):
		t.Fatalf("%q: %+v: not the host's Region", host, r)
	}
}
