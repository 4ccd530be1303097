package ecs

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	sdklog "github.com/aws/smithy-go/logging"
	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
)

const (
	batch = 100 // tasks of one page of ListTasks, and of one DescribeTasks

	// callTime bounds one call with its retries.
	callTime = 15 * time.Second
	// maxPages bounds a listing: 200,000 tasks.
	maxPages = 2000
)

// sdkLog takes what the SDK says by itself, which it would otherwise write
// between our lines in its own way. What matters comes back as an error, too.
type sdkLog struct{ log zerolog.Logger }

// Logf implements the SDK's logger.
func (l sdkLog) Logf(_ sdklog.Classification, format string, args ...any) {
	l.log.Debug().Str("from", "AWS SDK").Msgf(format, args...)
}

// SDKLogger returns what takes the SDK's own lines, for its configuration.
func SDKLogger(log zerolog.Logger) sdklog.Logger { return sdkLog{log} }

// api is what a watcher asks of ECS.
type api struct {
	client *ecs.Client
	pacer  *pacer
	calls  int // since the watcher began its look; its own goroutine's
}

// newAPI returns the API of a cluster's Region, with the role's credentials
// where there is one.
func newAPI(cfg aws.Config, region, role string, p *pacer) *api {
	cfg = cfg.Copy()
	cfg.Region = region
	if role != "" {
		provider := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "sallyport"
		})
		cfg.Credentials = aws.NewCredentialsCache(provider)
	}
	return &api{client: ecs.NewFromConfig(cfg), pacer: p}
}

// list returns one page of the cluster's tasks, and where the next begins.
func (a *api) list(ctx context.Context, cluster, from string) (arns []string, next string, err error) {
	in := &ecs.ListTasksInput{Cluster: &cluster, MaxResults: aws.Int32(batch)}
	if from != "" {
		in.NextToken = &from
	}
	err = a.call(ctx, func(ctx context.Context) error {
		out, err := a.client.ListTasks(ctx, in)
		if err == nil {
			arns, next = out.TaskArns, aws.ToString(out.NextToken)
		}
		return err
	})
	return arns, next, err
}

// describe returns what AWS says of at most [batch] tasks, and which of them
// it does not find.
func (a *api) describe(ctx context.Context, cluster string, arns []string) (found []described, missing []string, err error) {
	in := &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: arns, Include: []types.TaskField{types.TaskFieldTags}}
	err = a.call(ctx, func(ctx context.Context) error {
		out, err := a.client.DescribeTasks(ctx, in)
		if err != nil {
			return err
		}
		for i := range out.Tasks {
			if d, ok := describe(&out.Tasks[i]); ok {
				found = append(found, d)
			}
		}
		for _, f := range out.Failures {
			if aws.ToString(f.Reason) == "MISSING" {
				missing = append(missing, aws.ToString(f.Arn))
			}
		}
		return nil
	})
	return found, missing, err
}

func (a *api) call(ctx context.Context, do func(context.Context) error) error {
	if err := a.pacer.wait(ctx); err != nil {
		return err
	}
	a.calls++
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return do(ctx)
}

// describe turns AWS's word of a task into ours; false when it names none.
func describe(t *types.Task) (described, bool) {
	cluster := clusterName(aws.ToString(t.ClusterArn))
	taskARN := aws.ToString(t.TaskArn)
	if a, ok := parseARN(taskARN); !ok || !strings.HasPrefix(a.resource, "task/") || cluster == "" {
		return described{}, false
	}
	d := described{
		version: t.Version,
		created: aws.ToTime(t.CreatedAt),
		addrs:   addresses(t),
		gone:    ended(aws.ToString(t.LastStatus)),
		task:    &policy.Task{ARN: taskARN, Cluster: cluster},
	}
	if service, ok := strings.CutPrefix(aws.ToString(t.Group), "service:"); ok {
		d.task.Service = service
	}
	d.task.Family, d.task.Revision = definition(aws.ToString(t.TaskDefinitionArn))
	if len(t.Tags) > 0 {
		d.task.Tags = make(map[string]string, len(t.Tags))
		for _, tag := range t.Tags {
			d.task.Tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
		}
	}
	return d, true
}

// ended reports whether a task of that last status can no longer call: its
// containers have stopped, and its network interface is being given back.
func ended(status string) bool {
	return status == "DEPROVISIONING" || status == "STOPPED" || status == "DELETED"
}

// definition returns family and revision of a task definition's ARN.
func definition(s string) (family string, revision int) {
	a, _ := parseARN(s)
	family, number, _ := strings.Cut(strings.TrimPrefix(a.resource, "task-definition/"), ":")
	revision, err := strconv.Atoi(number)
	if err != nil {
		return family, 0
	}
	return family, revision
}

// addresses returns those of the task's own network interface.
func addresses(t *types.Task) []netip.Addr {
	var out []netip.Addr
	add := func(text string) {
		a, err := netip.ParseAddr(text)
		a = a.Unmap()
		if err != nil || a.Zone() != "" || !a.IsGlobalUnicast() {
			return
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	detached := make(map[string]bool)
	for i := range t.Attachments {
		at := &t.Attachments[i]
		switch kind := aws.ToString(at.Type); {
		case kind != "ElasticNetworkInterface" && kind != "eni":
			continue
		case aws.ToString(at.Status) == "DETACHED", aws.ToString(at.Status) == "DELETED":
			detached[aws.ToString(at.Id)] = true
			continue
		}
		for _, detail := range at.Details {
			switch strings.ToLower(aws.ToString(detail.Name)) {
			case "privateipv4address", "privateipv6address", "ipv6address":
				add(aws.ToString(detail.Value))
			}
		}
	}
	// A dual-stack task's IPv6 address stands with its containers.
	for i := range t.Containers {
		for _, n := range t.Containers[i].NetworkInterfaces {
			if !detached[aws.ToString(n.AttachmentId)] {
				add(aws.ToString(n.PrivateIpv4Address))
				add(aws.ToString(n.Ipv6Address))
			}
		}
	}
	return out
}
