package policy

import "testing"

func TestStrangersBelow(t *testing.T) {
	for _, tt := range []struct{ pattern, suffix string }{
		{"*.com", "com"},
		{"**.com", "com"},
		{"**", "com"},
		{"google.*", "com"},
		{"*.co.uk", "co.uk"},
		{"**.co.uk", "co.uk"},
		{"**.amazonaws.com", "?"},
		{"*.amazonaws.com", ""},
		{"*.s3.amazonaws.com", "s3.amazonaws.com"},
		{"team-*.s3.amazonaws.com", "s3.amazonaws.com"},
		{"*.team.s3.amazonaws.com", ""},
		{"*.s3.*.amazonaws.com", "?"},
		{"bucket.s3.*.amazonaws.com", ""},
		{"*.github.io", "github.io"},
		{"*.me.github.io", ""},
		{"*.execute-api.us-east-1.amazonaws.com", "execute-api.us-east-1.amazonaws.com"},
		{"*.execute-api.*.amazonaws.com", "?"},
		{"*.execute-api.us-*.amazonaws.com", "?"},
		{"*.cloudfront.net", "cloudfront.net"},
		{"*.elb.amazonaws.com", ""}, // each is a suffix itself
		{"*.*.elb.amazonaws.com", "*.elb.amazonaws.com"},
		{"*.dkr.ecr.us-east-1.amazonaws.com", ""},
		{"*.example.com", ""},
		{"**.example.com", ""},
		{"*example.com", "com"},
		{"**.docker.io", ""},
		{"docker.io", ""},
		{"github.io", ""},
		{"*.anything.ck", "*.ck"},
		{"*.www.ck", ""},
		{"*.city.kobe.jp", ""},
		{"*.ward.kobe.jp", "*.kobe.jp"},
		{"*.nosuchtld", "nosuchtld"},
		{"*.a.nosuchtld", ""},
		{"*.internal", ""},
		{"**.corp.internal", ""},
		{"*.local", ""},
		{"*.xn--55qx5d.cn", "xn--55qx5d.cn"},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			got := strangersBelow(tt.pattern)
			if tt.suffix == "?" && got != "" {
				t.Logf("public suffix %q", got)
				return
			}
			if got != tt.suffix {
				t.Errorf("strangersBelow(%q) = %q, want %q", tt.pattern, got, tt.suffix)
			}
		})
	}
}
