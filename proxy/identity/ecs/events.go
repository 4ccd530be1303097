package ecs

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/rs/zerolog"
)

const (
	pollWait = 20 * time.Second // SQS's most
	// receiveTime bounds a long poll with its retries.
	receiveTime = 60 * time.Second
	// maxEvent bounds a message that is read.
	maxEvent = 1 << 20
	// stale is how old an event may be that is worth a call: after a pause the
	// queue holds days of them, and the listing knows better.
	stale = 10 * time.Minute
)

// events reads task state changes from a queue.
type events struct {
	queue    string
	client   *sqs.Client
	watchers []*watcher
	errors   func()
	log      zerolog.Logger

	applied, junk atomic.Uint64

	mu      sync.Mutex // protects failing
	failing error
}

func newEvents(cfg Config, d *Directory, sdk aws.Config) (*events, error) {
	sdk = sdk.Copy()
	if r := queueRegion(cfg.EventsQueue); r != "" {
		sdk.Region = r
	}
	if sdk.Region == "" {
		return nil, fmt.Errorf("events_queue: no AWS Region is known for %s: set AWS_REGION", cfg.EventsQueue)
	}
	return &events{
		queue: cfg.EventsQueue, client: sqs.NewFromConfig(sdk), watchers: d.watchers,
		errors: func() { d.stats.errors.Add(1) },
		log:    cfg.Logger.With().Str("queue", cfg.EventsQueue).Logger(),
	}, nil
}

// queueRegion returns the Region in sqs.REGION.amazonaws.com, "" where there
// is none.
func queueRegion(queue string) string {
	u, err := url.Parse(queue)
	if err != nil {
		return ""
	}
	parts := strings.Split(u.Hostname(), ".")
	if len(parts) >= 4 && parts[0] == "sqs" {
		return parts[1]
	}
	return ""
}

// run reads messages until ctx ends.
func (e *events) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		err := e.receive(ctx)
		if ctx.Err() != nil {
			return
		}
		e.note(err)
		if err == nil {
			failures = 0
			continue
		}
		failures++
		timer := time.NewTimer(jitter(min(maxBackoff, time.Second<<min(failures, 10))))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// receive waits for messages, applies them and deletes them.
func (e *events) receive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, receiveTime)
	defer cancel()
	out, err := e.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &e.queue, MaxNumberOfMessages: 10, WaitTimeSeconds: int32(pollWait / time.Second),
	})
	if err != nil || len(out.Messages) == 0 {
		return err
	}
	done := make([]types.DeleteMessageBatchRequestEntry, 0, len(out.Messages))
	for i := range out.Messages {
		m := &out.Messages[i]
		if e.apply(aws.ToString(m.Body), time.Now()) {
			e.applied.Add(1)
		} else {
			e.junk.Add(1) // deleted too, or it would come back for days
		}
		done = append(done, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
	}
	// What is not deleted is received, and applied, again: no harm.
	_, err = e.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &e.queue, Entries: done})
	return err
}

// note keeps why the queue cannot be read, and logs when that changes.
func (e *events) note(err error) {
	if err != nil {
		e.errors()
		err = explain(err, Cluster{})
	}
	e.mu.Lock()
	before := e.failing
	e.failing = err
	e.mu.Unlock()
	switch {
	case err != nil && before == nil:
		e.log.Warn().Err(err).Msg("the queue of ECS events cannot be read: the clusters are still polled")
	case err == nil && before != nil:
		e.log.Info().Msg("the queue of ECS events can be read again")
	}
}

func (e *events) status() Events {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Events{Applied: e.applied.Load(), Junk: e.junk.Load(), Failing: e.failing}
}

// change is a task state change: what is read of it.
type change struct {
	taskARN    string
	cluster    string // its name
	account    string
	region     string
	lastStatus string
	version    int64
	at         time.Time
}

// parseEvent reads a message; false for anything but a task state change of
// ECS as EventBridge delivers it.
func parseEvent(body string) (change, bool) {
	if len(body) > maxEvent {
		return change{}, false
	}
	var m struct {
		Source string    `json:"source"`
		Type   string    `json:"detail-type"`
		Time   time.Time `json:"time"`
		Detail struct {
			TaskARN    string `json:"taskArn"`
			ClusterARN string `json:"clusterArn"`
			LastStatus string `json:"lastStatus"`
			Version    int64  `json:"version"`
		} `json:"detail"`
	}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return change{}, false
	}
	task, taskOK := parseARN(m.Detail.TaskARN)
	cluster, clusterOK := parseARN(m.Detail.ClusterARN)
	if m.Source != "aws.ecs" || m.Type != "ECS Task State Change" || !taskOK || !clusterOK ||
		task.service != "ecs" || !strings.HasPrefix(task.resource, "task/") ||
		task.region != cluster.region || task.account != cluster.account || len(m.Detail.TaskARN) > 2048 || m.Detail.Version <= 0 {
		return change{}, false
	}
	// ECS refuses all tasks that are asked about together when it cannot read one.
	id, name := strings.TrimPrefix(task.resource, "task/"), clusterName(m.Detail.ClusterARN)
	if in, rest, long := strings.Cut(id, "/"); long {
		if id = rest; in != name {
			return change{}, false
		}
	}
	if !validName(id) {
		return change{}, false
	}
	return change{
		taskARN: m.Detail.TaskARN, cluster: name, account: task.account, region: task.region,
		lastStatus: m.Detail.LastStatus, version: m.Detail.Version, at: m.Time,
	}, true
}

// apply takes a message in, and reports whether it was about a cluster of ours.
func (e *events) apply(body string, now time.Time) bool {
	c, ok := parseEvent(body)
	if !ok {
		return false
	}
	ours := false
	for _, w := range e.watchers {
		if w.cluster.name() != c.cluster || w.region != c.region || w.book.foreign(c.account) {
			continue
		}
		ours = true
		switch {
		case ended(c.lastStatus):
			w.book.ended(c.taskARN, c.version, now)
		case now.Sub(c.at) < stale:
			w.hint(c.taskARN, c.version)
		}
	}
	return ours
}
