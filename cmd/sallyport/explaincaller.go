package main

import (
	"maps"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sallyport/sallyport/policy"
)

// identity is who asks, beside the address.
type identity struct {
	Principal    string            `json:"principal"`
	Service      string            `json:"service"`
	Family       string            `json:"family"`
	Tags         map[string]string `json:"tags"`
	VPCEndpoint  string            `json:"vpc_endpoint"`
	Unidentified bool              `json:"unidentified"`

	tags []string // as flags: KEY=VALUE
}

// addFlags adds a flag for each part of it.
func (i *identity) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&i.Principal, "principal", "", "`NAME` that the caller has proven")
	flags.StringVar(&i.Service, "service", "", "`CLUSTER/SERVICE` of the caller's task")
	flags.StringVar(&i.Family, "family", "", "`FAMILY:REVISION` of its task definition")
	flags.StringArrayVar(&i.tags, "tag", nil, "`KEY=VALUE` of its tags; repeatable")
	flags.StringVar(&i.VPCEndpoint, "vpc-endpoint", "", "`ID` of the VPC endpoint that it came through")
	flags.BoolVar(&i.Unidentified, "unidentified", false, "nobody knows who the caller is")
}

// over returns it with what it does not say taken from what is common to all
// questions. A task is taken whole or not at all.
func (i identity) over(common identity) identity {
	if i.Principal == "" {
		i.Principal = common.Principal
	}
	if i.VPCEndpoint == "" {
		i.VPCEndpoint = common.VPCEndpoint
	}
	if i.Service == "" && i.Family == "" && len(i.Tags) == 0 && !i.Unidentified {
		i.Service, i.Family, i.Unidentified = common.Service, common.Family, common.Unidentified
		i.Tags, i.tags = common.Tags, common.tags
	}
	return i
}

// source returns the caller, without its address.
func (i identity) source() (policy.Source, error) {
	tags := maps.Clone(i.Tags)
	for _, tag := range i.tags {
		key, value, found := strings.Cut(tag, "=")
		if !found {
			return policy.Source{}, refuse("write KEY=VALUE, such as team=payments", "the tag %q has no value", tag)
		}
		if tags == nil {
			tags = map[string]string{}
		}
		tags[key] = value
	}
	source, err := policy.ParseCaller(policy.CallerText{
		VPCEndpoint: i.VPCEndpoint, Principal: i.Principal, Service: i.Service, Family: i.Family,
		Tags: tags, Unidentified: i.Unidentified,
	})
	if err != nil {
		return policy.Source{}, &fault{code: exitUsage, err: err}
	}
	return source, nil
}
