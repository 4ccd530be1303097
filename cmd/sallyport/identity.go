package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/metrics"
	"github.com/sallyport/sallyport/proxy"
	caller "github.com/sallyport/sallyport/proxy/identity"
	"github.com/sallyport/sallyport/proxy/identity/ecs"
)

// identitySettings are the keys of identity and drain.
func identitySettings() []setting {
	return []setting{
		{key: "identity.ecs.clusters", kind: clusters(), get: func(c *Config) any { return plainClusters(c.Identity.ECS.Clusters) }},
		{key: "identity.ecs.poll", kind: duration(time.Second, time.Hour), get: func(c *Config) any { return c.Identity.ECS.Poll }},
		{key: "identity.ecs.events_queue", kind: optional("a queue's URL"), get: func(c *Config) any { return c.Identity.ECS.EventsQueue }},
		{key: "identity.metadata", kind: word("auto", "on", "off"), get: func(c *Config) any { return c.Identity.Metadata }},
		{key: "drain.wait_for_task", kind: truth(), get: func(c *Config) any { return c.Drain.WaitForTask }},
	}
}

func clusters() kind {
	text := func(want string) kind {
		return kind{want: want, tag: tagText, check: func(s string) (string, string) {
			if s == "" {
				return "it is empty", "write " + want + ", or leave the key out"
			}
			return "", ""
		}}
	}
	endpoints := text("VPC endpoints' IDs, such as [vpce-0123456789abcdef0]")
	endpoints.list = true
	return kind{
		want: "a list of mappings, such as [{cluster: prod}]", list: true, tag: tagText, check: text("a cluster's name or ARN").check,
		fields: []field{
			{name: "cluster", kind: text("a cluster's name or ARN"), required: true},
			{name: "region", kind: text("a Region")},
			{name: "role_arn", kind: text("a role's ARN")},
			{name: "vpc_endpoints", kind: endpoints},
		},
	}
}

// optional is any text; "" stands for none. What it means is checked later.
func optional(want string) kind {
	return kind{want: want, tag: tagText, check: func(string) (string, string) { return "", "" }}
}

func plainClusters(all []Cluster) any {
	plain := make([]map[string]any, 0, len(all))
	for _, c := range all {
		entry := map[string]any{"cluster": c.Cluster}
		for key, value := range map[string]string{"region": c.Region, "role_arn": c.RoleARN} {
			if value != "" {
				entry[key] = value
			}
		}
		if len(c.VPCEndpoints) > 0 {
			entry["vpc_endpoints"] = c.VPCEndpoints
		}
		plain = append(plain, entry)
	}
	return plain
}

// ecsConfig is the configuration in identity/ecs's own words.
func (l *loaded) ecsConfig() ecs.Config {
	c := ecs.Config{Poll: l.Identity.ECS.Poll, EventsQueue: l.Identity.ECS.EventsQueue}
	for _, cl := range l.Identity.ECS.Clusters {
		c.Clusters = append(c.Clusters, ecs.Cluster(cl))
	}
	return c
}

// checkIdentity has identity/ecs judge its part.
func (l *loaded) checkIdentity() error {
	const hint = "write [{cluster: NAME-OR-ARN, region: R, role_arn: ARN, vpc_endpoints: [vpce-…]}]; only cluster is needed"
	if len(l.Identity.ECS.Clusters) == 0 {
		if l.Identity.ECS.EventsQueue == "" {
			return nil
		}
		return refuse("list the clusters, too: the queue only tells of their changes",
			"%s is set, and identity.ecs.clusters is empty", l.place("identity.ecs.events_queue"))
	}
	var errs []error
	for _, err := range apart(l.ecsConfig().Validate()) {
		key := "identity.ecs.clusters"
		if strings.HasPrefix(err.Error(), "events_queue") {
			key = "identity.ecs.events_queue"
		}
		errs = append(errs, refuse(hint, "identity.ecs.%w (%s)", err, l.origins[key]))
	}
	return errors.Join(errs...)
}

// apart returns what was joined.
func apart(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		return many.Unwrap()
	}
	return []error{err}
}

// callers is what tells who is calling.
type callers struct {
	metadata *caller.Metadata // nil where this is no ECS task
	own      *caller.Own      // nil: not asked
	must     bool             // own is asked for, not just found
	clusters *ecs.Directory   // nil: none is configured
}

// callers makes what the configuration asks for. Nobody is asked yet.
func (l *loaded) callers(ctx context.Context, log zerolog.Logger) (*callers, error) {
	c := &callers{must: l.Identity.Metadata == "on"}
	if err := c.findTask(l, log); err != nil {
		return nil, err
	}
	if len(l.Identity.ECS.Clusters) == 0 {
		return c, nil
	}
	cfg := l.ecsConfig()
	cfg.Logger = log
	sdk, err := identityConfig(ctx, log)
	if err == nil {
		c.clusters, err = ecs.New(cfg, sdk)
	}
	if err != nil {
		return nil, refuse("", "identity.ecs (%s): %w", l.origins["identity.ecs.clusters"], err)
	}
	return c, nil
}

// findTask finds out whether the proxy is part of an ECS task.
func (c *callers) findTask(l *loaded, log zerolog.Logger) error {
	uri, set := os.LookupEnv(caller.MetadataVariable)
	if set {
		var err error
		if c.metadata, err = caller.NewMetadata(uri); err != nil {
			if c.must {
				return refuse("ECS sets it: leave it as it is", "%s: %w", l.place("identity.metadata"), err)
			}
			l.warnings = append(l.warnings, err.Error()+": it is ignored")
		}
	}
	switch {
	case c.must && !set:
		return refuse("leave it at auto where the proxy also runs elsewhere",
			"%s is on, and there is no %s: this is no ECS task", l.place("identity.metadata"), caller.MetadataVariable)
	case l.Drain.WaitForTask && c.metadata == nil:
		l.warnings = append(l.warnings, l.place("drain.wait_for_task")+" is true, and this is no ECS task: there is nothing to wait for")
	}
	if c.metadata != nil && l.Identity.Metadata != "off" {
		// Where AWS is asked as well, strangers are its affair.
		c.own = caller.NewOwn(c.metadata, c.must && len(l.Identity.ECS.Clusters) == 0, log)
	}
	return nil
}

// identifier returns what the proxy asks, nil where nothing is known of
// anybody.
func (c *callers) identifier() proxy.Identifier {
	switch {
	case c.own != nil && c.clusters != nil:
		return caller.Chain{c.own, c.clusters}
	case c.own != nil:
		return c.own
	case c.clusters != nil:
		return c.clusters
	}
	return nil
}

// tasks are what keeps the answers fresh. They outlast the proxy's drain.
func (c *callers) tasks() []task {
	var all []task
	if c.own != nil {
		all = append(all, task{"identity by metadata", c.own.Run})
	}
	if c.clusters != nil {
		all = append(all, task{"identity by ECS", c.clusters.Run})
	}
	return all
}

// checks say how well callers are known. Nobody is known before each cluster
// was listed once, and clients that come earlier would be denied; what is
// known then stays in force, and old knowledge is no reason to send them away.
func (c *callers) checks() []console.Check {
	var all []console.Check
	if c.own != nil {
		check := console.Check{Name: "identity_task", OK: true, Detail: "not known yet"}
		self, err := c.own.Status()
		switch {
		case self != nil:
			check.Detail = self.ARN
		case err != nil:
			check.Detail = err.Error()
		}
		check.OK = self != nil || !c.must
		all = append(all, check)
	}
	if c.clusters != nil {
		s := c.clusters.Status()
		all = append(all, console.Check{Name: "identity_ecs", OK: s.Loaded, Detail: s.String()})
	}
	return all
}

// stats returns the figures for the metrics, nil where there are none.
func (c *callers) stats() func() metrics.IdentityStats {
	if c.clusters == nil {
		return nil
	}
	return func() metrics.IdentityStats {
		s := c.clusters.Status()
		return metrics.IdentityStats{
			Tasks: s.Tasks, Age: s.Age, Errors: s.Errors,
			Hit: s.Lookups.Hit, Found: s.Lookups.Found, Unknown: s.Lookups.Unknown,
			Absent: s.Lookups.Absent, Unanswered: s.Lookups.Unanswered,
		}
	}
}
