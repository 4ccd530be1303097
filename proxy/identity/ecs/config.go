package ecs

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Config says which clusters to know. Clusters is required.
type Config struct {
	Clusters []Cluster
	// Poll is the time between two listings of a cluster; 20 s where it is zero.
	Poll time.Duration
	// Patience is how long a caller that nobody knows waits for an answer; 1 s
	// where it is zero.
	Patience time.Duration
	// EventsQueue is the URL of an SQS queue with ECS task state changes as
	// EventBridge delivers them, "" for none. No other process may read it.
	EventsQueue string
	// Logger is told when something changes for good or bad, never of a caller.
	Logger zerolog.Logger
}

// Cluster is one ECS cluster whose tasks are to be known.
type Cluster struct {
	// Cluster is its name or ARN.
	Cluster string
	// Region is where it is; "" stands for the ARN's, or else the SDK's own.
	Region string
	// RoleARN is a role to assume for asking about it (another account's), "" for
	// the credentials that the SDK finds.
	RoleARN string
	// VPCEndpoints are the VPC endpoints (vpce-…) that its tasks come through;
	// empty when they come directly.
	VPCEndpoints []string
}

const (
	defaultPoll     = 20 * time.Second
	defaultPatience = time.Second
)

// Validate reports all that is wrong, each with the name of its field.
func (c Config) Validate() error {
	var errs []error
	if len(c.Clusters) == 0 {
		errs = append(errs, errors.New("clusters: none is listed"))
	}
	seen := make(map[string]bool)
	for i, cl := range c.Clusters {
		if err := cl.validate(); err != nil {
			errs = append(errs, fmt.Errorf("clusters[%d]: %w", i, err))
			continue
		}
		id := strings.Join([]string{cl.name(), cl.region(), cl.RoleARN}, " ")
		if seen[id] {
			errs = append(errs, fmt.Errorf("clusters[%d]: %q is there twice", i, cl.Cluster))
		}
		seen[id] = true
	}
	if c.EventsQueue != "" {
		if u, err := url.Parse(c.EventsQueue); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") == "" {
			errs = append(errs, fmt.Errorf("events_queue: %q is not a queue's URL", c.EventsQueue))
		}
	}
	return errors.Join(errs...)
}

func (c Cluster) validate() error {
	a, isARN := parseARN(c.Cluster)
	switch {
	case c.Cluster == "":
		return errors.New("cluster: it is empty")
	case isARN && (a.service != "ecs" || !strings.HasPrefix(a.resource, "cluster/") || a.region == ""):
		return fmt.Errorf("cluster: %q is not a cluster's ARN", c.Cluster)
	case !validName(c.name()):
		return fmt.Errorf("cluster: %q is not a cluster's name: letters, digits, - and _, 255 at most", c.Cluster)
	case isARN && c.Region != "" && c.Region != a.region:
		return fmt.Errorf("region: %q is not the Region of %s", c.Region, c.Cluster)
	case c.Region != "" && !validName(c.Region):
		return fmt.Errorf("region: %q is not the name of a Region", c.Region)
	}
	if c.RoleARN != "" {
		if r, ok := parseARN(c.RoleARN); !ok || r.service != "iam" || !strings.HasPrefix(r.resource, "role/") || len(r.account) != 12 {
			return fmt.Errorf("role_arn: %q is not a role's ARN", c.RoleARN)
		}
	}
	for _, e := range c.VPCEndpoints {
		if !strings.HasPrefix(e, "vpce-") || !validName(e) {
			return fmt.Errorf("vpc_endpoints: %q is not a VPC endpoint's ID", e)
		}
	}
	return nil
}

// name returns the cluster's name.
func (c Cluster) name() string { return clusterName(c.Cluster) }

// region returns the Region that the configuration says, "" for none.
func (c Cluster) region() string {
	if a, ok := parseARN(c.Cluster); ok {
		return a.region
	}
	return c.Region
}

// account returns the account that the configuration says, "" for none.
func (c Cluster) account() string {
	for _, s := range []string{c.Cluster, c.RoleARN} {
		if a, ok := parseARN(s); ok {
			return a.account
		}
	}
	return ""
}

// endpoints returns the VPC endpoints of the keys under which the cluster's
// tasks are found.
func (c Cluster) endpoints() []string {
	if len(c.VPCEndpoints) == 0 {
		return []string{""}
	}
	return c.VPCEndpoints
}

// validName accepts what clusters, Regions and endpoints are named with.
func validName(s string) bool {
	return s != "" && len(s) <= 255 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// arn is an Amazon Resource Name, taken apart.
type arn struct{ service, region, account, resource string }

func parseARN(s string) (arn, bool) {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 || p[0] != "arn" {
		return arn{}, false
	}
	return arn{service: p[2], region: p[3], account: p[4], resource: p[5]}, true
}

// clusterName returns the name in a cluster's ARN, or the text itself.
func clusterName(s string) string {
	if a, ok := parseARN(s); ok {
		return strings.TrimPrefix(a.resource, "cluster/")
	}
	return s
}
