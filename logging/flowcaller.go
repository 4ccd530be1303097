package logging

import (
	"strconv"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// addUser adds the principal, as user.name: who stands behind the attempt, by
// the conventions' word.
func addUser(l *zerolog.Event, r *flow.Record) {
	if r.Principal != "" {
		l.Dict("user", text(l.CreateDict(), "name", r.Principal, limitName))
	}
}

// addAWS adds the task that calls and what is asked of S3.
func addAWS(l *zerolog.Event, r *flow.Record) {
	if r.Task == nil && r.S3.Form == "" {
		return
	}
	d := l.CreateDict()
	if r.Task != nil {
		d.Dict("ecs", addTask(d.CreateDict(), r.Task))
	}
	if r.S3.Form != "" {
		d.Dict("s3", addS3(d.CreateDict(), r))
	}
	l.Dict("aws", d)
}

// addTask tells the task that called. Its service is aws.ecs.service.name,
// not service.name: that is whoever writes the telemetry, which is the proxy.
func addTask(d *zerolog.Event, t *policy.Task) *zerolog.Event {
	if t.Cluster != "" {
		cluster := text(d.CreateDict(), "name", t.Cluster, limitName)
		d.Dict("cluster", text(cluster, "arn", t.ClusterARN(), limitARN))
	}
	if t.Service != "" {
		d.Dict("service", text(d.CreateDict(), "name", t.Service, limitName))
	}
	task := text(d.CreateDict(), "arn", t.ARN, limitARN)
	text(task, "id", t.ID(), limitName)
	text(task, "family", t.Family, limitName)
	if t.Revision > 0 {
		task.Str("revision", strconv.Itoa(t.Revision)) // text, by the conventions
	}
	return d.Dict("task", task)
}
