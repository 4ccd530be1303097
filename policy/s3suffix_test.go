package policy

import (
	"slices"
	"strings"
	"testing"
)

// TestS3RegionSuffixes holds the list against every form of host that AWS
// writes: what the grammar knows, the list has, and it has nothing else.
func TestS3RegionSuffixes(t *testing.T) {
	for _, part := range s3Partitions() {
		for _, region := range part.regions {
			suffixes := S3RegionSuffixes(region)
			used := make(map[string]bool)
			for _, tmpl := range s3Templates() {
				if tmpl.want.Form == S3Express || tmpl.want.Form == S3Website || tmpl.want.Region == "us-east-1" && region != "us-east-1" {
					continue
				}
				host := strings.NewReplacer("{B}", "b", "{N}", "n", "{A}", "111122223333", "{R}", region, "{S}", part.suffix, "{D}", part.dualStack).Replace(tmpl.host)
				i := slices.IndexFunc(suffixes, func(s string) bool { return host == s || strings.HasSuffix(host, "."+s) })
				if i < 0 {
					t.Errorf("%s is below none of the suffixes of %s", host, region)
					continue
				}
				used[suffixes[i]] = true
			}
			if len(used) < len(suffixes)/2 {
				t.Errorf("%d of the %d suffixes of %s were used", len(used), len(suffixes), region)
			}
			for _, s := range suffixes {
				h, err := ParseHost("b." + s)
				if err != nil {
					t.Fatal(err)
				}
				if ref, ok := ParseS3Host(h); !ok || ref.Partition != part.name && ref.Region != "" {
					t.Errorf("%s: not S3's, or not of %s: %+v", s, part.name, ref)
				}
			}
			if sorted := slices.Sorted(slices.Values(suffixes)); len(slices.Compact(sorted)) != len(suffixes) {
				t.Errorf("%s: a suffix is there twice: %q", region, sorted)
			}
		}
	}
	for _, not := range []string{"", "us-east", "s3", "us-east-1.evil.example", "US-EAST-1"} {
		if got := S3RegionSuffixes(not); got != nil {
			t.Errorf("%q is no Region, and has %q", not, got)
		}
	}
}

func TestS3Suffixes(t *testing.T) {
	for _, part := range s3Partitions() {
		if got := S3Suffixes(part.name); !slices.Equal(got, []string{part.suffix, part.dualStack}) {
			t.Errorf("%s has %q", part.name, got)
		}
		if !slices.Contains(S3Partitions(), part.name) {
			t.Errorf("%s is not listed", part.name)
		}
	}
	if got := S3Suffixes("aws-moon"); got != nil {
		t.Errorf("aws-moon has %q", got)
	}
}

func TestInspecting(t *testing.T) {
	p, err := Load(Text{Name: "p.yaml", Data: []byte(`version: 1
rules:
  - {name: a, hosts: [a.test]}
  - {name: b, s3: {buckets: [bbb], regions: [us-east-1]}}
  - {name: c, s3: {buckets: [ccc], regions: [us-east-1], inspect: true}}
  - {name: d, action: deny, s3: {buckets: [ddd], inspect: true, operations: [PutObject]}}
`)})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range p.Inspecting() {
		names = append(names, r.Name)
	}
	if !slices.Equal(names, []string{"c", "d"}) || len((*Policy)(nil).Inspecting()) != 0 {
		t.Errorf("%q inspect", names)
	}
}
