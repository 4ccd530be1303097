package policy

import "slices"

// S3Partitions returns AWS's partitions, those that [S3Suffixes] knows.
func S3Partitions() []string { return partitions() }

// S3Suffixes returns the DNS suffixes below which a partition has S3, and
// everything else of AWS; nil for a partition that is not known.
func S3Suffixes(partition string) []string {
	if partition == "aws-us-gov" {
		partition = "aws" // one suffix serves both
	}
	var names []string
	for _, sfx := range s3Suffixes() {
		if sfx.partition == partition {
			names = append(names, sfx.name)
		}
	}
	return names
}

// S3RegionSuffixes returns DNS suffixes below which a Region has S3 and
// nothing else, and those of the endpoints that all Regions of its partition
// share; nil for what has not the shape of a Region. Together they end every
// host of the Region that [ParseS3Host] knows, but for the zonal endpoints of
// directory buckets (s3express-ZONE.R.S), whose zones no list here knows, and
// websites, which have no TLS.
func S3RegionSuffixes(region string) []string {
	if !isRegion(region) {
		return nil
	}
	partition := regionPartition(region)
	var names []string
	for i, suffix := range S3Suffixes(partition) {
		dualStack := i > 0 // the ordinary suffix stands first
		for _, service := range []string{
			"s3", "s3-accesspoint", "s3-object-lambda", "s3-outposts", "s3-control", "s3express-control", "s3tables", "s3vectors", "s3files",
		} {
			if dualStack && !onDualStackSuffix(service) {
				continue
			}
			for _, label := range []string{service, service + "-fips"} {
				names = append(names, label+"."+region+"."+suffix)
				if !dualStack {
					names = append(names, label+".dualstack."+region+"."+suffix)
				}
			}
		}
		if dualStack {
			continue
		}
		names = append(names,
			"s3."+region+".vpce."+suffix, "s3-fips."+region+".vpce."+suffix,
			"s3-"+region+"."+suffix, "s3-fips-"+region+"."+suffix, // how it was spelt once
			"s3-accelerate.dualstack."+region+"."+suffix, // as one SDK writes it
			"s3."+suffix, "s3-accelerate."+suffix, "s3-accelerate.dualstack."+suffix, "s3-global."+suffix, "s3-global.vpce."+suffix)
		if region == "us-east-1" {
			names = append(names, "s3-external-1."+suffix)
		}
	}
	return slices.Clip(names)
}
