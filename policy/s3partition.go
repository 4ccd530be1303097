package policy

import (
	"strings"
	"sync"
)

// s3Suffix is a DNS suffix below which a partition has its endpoints. The
// partition of one that two share is decided by the Region.
type s3Suffix struct {
	name      string
	partition string
	dualStack bool
}

// s3Suffixes returns every suffix, of each partition the ordinary one first. It
// is shared: callers only read it.
var s3Suffixes = sync.OnceValue(func() []s3Suffix {
	return []s3Suffix{
		{"amazonaws.com", "aws", false}, // and aws-us-gov
		{"api.aws", "aws", true},        // and aws-us-gov
		{"amazonaws.com.cn", "aws-cn", false},
		{"api.amazonwebservices.com.cn", "aws-cn", true},
		{"amazonaws.eu", "aws-eusc", false},
		{"api.amazonwebservices.eu", "aws-eusc", true},
		{"c2s.ic.gov", "aws-iso", false},
		{"api.aws.ic.gov", "aws-iso", true},
		{"sc2s.sgov.gov", "aws-iso-b", false},
		{"api.aws.scloud", "aws-iso-b", true},
		{"cloud.adc-e.uk", "aws-iso-e", false},
		{"api.cloud-aws.adc-e.uk", "aws-iso-e", true},
		{"csp.hci.ic.gov", "aws-iso-f", false},
		{"api.aws.hci.ic.gov", "aws-iso-f", true},
	}
})

// cutS3Suffix takes the partition's suffix off a name and reports whether it
// has one and something before it.
func cutS3Suffix(name string) (sfx s3Suffix, rest string, ok bool) {
	if name == "" {
		return s3Suffix{}, "", false
	}
	last := name[len(name)-1]
	for _, sfx := range s3Suffixes() {
		if sfx.name[len(sfx.name)-1] != last {
			continue // nearly every name that is not S3's ends here
		}
		if rest, ok := strings.CutSuffix(name, sfx.name); ok && len(rest) > 1 && rest[len(rest)-1] == '.' {
			return sfx, rest[:len(rest)-1], true
		}
	}
	return s3Suffix{}, "", false
}

// isRegion reports whether a label has the shape of a Region: two or more words
// of letters and a number, "us-east-1", "us-gov-west-1", "eusc-de-east-1". It
// asks for no more, since a Region that is missed makes a stranger of its S3.
func isRegion(label string) bool {
	i := strings.LastIndexByte(label, '-')
	if i < 0 || len(label)-i-1 < 1 || len(label)-i-1 > 2 || !isAll(label[i+1:], isDigit) {
		return false
	}
	words := 0
	for word := range strings.SplitSeq(label[:i], "-") {
		if word == "" || !isAll(word, isLower) {
			return false
		}
		words++
	}
	return words >= 2
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

// regionPartition returns the partition of a Region by its shape, "" for "".
func regionPartition(region string) string {
	switch {
	case region == "":
		return ""
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "eusc-"):
		return "aws-eusc"
	case strings.HasPrefix(region, "us-iso-"):
		return "aws-iso"
	case strings.HasPrefix(region, "us-isob-"):
		return "aws-iso-b"
	case strings.HasPrefix(region, "eu-isoe-"):
		return "aws-iso-e"
	case strings.HasPrefix(region, "us-isof-"):
		return "aws-iso-f"
	}
	return "aws"
}
