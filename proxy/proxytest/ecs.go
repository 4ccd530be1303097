package proxytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// ECSTask is a task as ECS knows it. Its zero values stand for what a running
// task has.
type ECSTask struct {
	Cluster    string // name; "prod"
	ID         string
	Region     string // us-east-1
	Account    string // 111122223333
	Service    string // "" for none
	Family     string // "app"
	Revision   int    // 1
	Tags       map[string]string
	LastStatus string // RUNNING
	Desired    string // RUNNING
	Version    int64  // 1
	Created    time.Time
	IPv4, IPv6 string
	Detached   bool // the interface is given back
	Unlisted   bool // ListTasks does not have it yet
}

// ARN returns the task's ARN.
func (t ECSTask) ARN() string { return t.arn("task/" + t.filled().Cluster + "/" + t.ID) }

func (t ECSTask) arn(resource string) string {
	t = t.filled()
	return fmt.Sprintf("arn:aws:ecs:%s:%s:%s", t.Region, t.Account, resource)
}

func (t ECSTask) filled() ECSTask {
	for _, f := range []struct {
		field *string
		value string
	}{
		{&t.Cluster, "prod"},
		{&t.Region, "us-east-1"},
		{&t.Account, "111122223333"},
		{&t.Family, "app"},
		{&t.LastStatus, "RUNNING"},
		{&t.Desired, "RUNNING"},
	} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	t.Revision, t.Version = max(t.Revision, 1), max(t.Version, 1)
	return t
}

// Put makes tasks exist, or be otherwise than before.
func (a *AWS) Put(tasks ...ECSTask) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range tasks {
		t = t.filled()
		a.tasks[t.ARN()] = t
	}
}

// Change changes the task of that ARN, and its version.
func (a *AWS) Change(taskARN string, change func(*ECSTask)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[taskARN]
	t.Version++
	change(&t)
	a.tasks[taskARN] = t
}

// Forget removes the task: ECS forgets those that stopped an hour ago.
func (a *AWS) Forget(taskARN string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tasks, taskARN)
}

// Event returns the message with which EventBridge tells of the task's state.
func (a *AWS) Event(taskARN string) string {
	a.mu.Lock()
	t := a.tasks[taskARN]
	a.mu.Unlock()
	detail := t.answer()
	delete(detail, "tags") // events have none
	detail["createdAt"] = t.Created.UTC().Format(time.RFC3339Nano)
	for _, at := range detail["attachments"].([]map[string]any) { //nolint:forcetypeassert // as answer made it
		at["type"] = "eni"
	}
	text, err := json.Marshal(map[string]any{
		"version": "0", "id": "e", "detail-type": "ECS Task State Change", "source": "aws.ecs", "account": t.Account,
		"time": time.Now().UTC().Format(time.RFC3339), "region": t.Region, "resources": []string{taskARN}, "detail": detail,
	})
	if err != nil {
		return ""
	}
	return string(text)
}

// answer is what DescribeTasks says of a task.
func (t ECSTask) answer() map[string]any {
	group := "family:" + t.Family
	if t.Service != "" {
		group = "service:" + t.Service
	}
	status := "ATTACHED"
	if t.Detached {
		status = "DELETED"
	}
	var details []map[string]string
	add := func(name, value string) {
		if value != "" {
			details = append(details, map[string]string{"name": name, "value": value})
		}
	}
	add("subnetId", "subnet-1")
	add("networkInterfaceId", "eni-"+t.ID)
	add("macAddress", "0a:00:00:00:00:01")
	add("privateDnsName", "ip.ec2.internal")
	add("privateIPv4Address", t.IPv4)
	nic := map[string]string{"attachmentId": "a-" + t.ID, "privateIpv4Address": t.IPv4}
	if t.IPv6 != "" {
		nic["ipv6Address"] = t.IPv6
	}
	tags := []map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		tags = append(tags, map[string]string{"key": k, "value": t.Tags[k]})
	}
	return map[string]any{
		"taskArn": t.ARN(), "clusterArn": t.arn("cluster/" + t.Cluster), "group": group, "launchType": "FARGATE",
		"taskDefinitionArn": t.arn(fmt.Sprintf("task-definition/%s:%d", t.Family, t.Revision)),
		"lastStatus":        t.LastStatus, "desiredStatus": t.Desired, "version": t.Version,
		"createdAt":   float64(t.Created.UnixMilli()) / 1000,
		"attachments": []map[string]any{{"id": "a-" + t.ID, "type": "ElasticNetworkInterface", "status": status, "details": details}},
		"containers":  []map[string]any{{"name": "app", "networkInterfaces": []map[string]string{nic}}},
		"tags":        tags,
	}
}

// in reports whether the task is in a cluster, named or by ARN.
func (t ECSTask) in(cluster string) bool {
	return cluster == t.Cluster || cluster == t.arn("cluster/"+t.Cluster)
}

func (a *AWS) listTasks(w http.ResponseWriter, body []byte) {
	var in struct {
		Cluster, NextToken, DesiredStatus string
		MaxResults                        int
	}
	if err := json.Unmarshal(body, &in); err != nil || in.MaxResults > 100 {
		writeFault(w, "ecs:ListTasks", &AWSFault{Status: http.StatusBadRequest, Code: "InvalidParameterException", Message: "maxResults"})
		return
	}
	desired, size := in.DesiredStatus, in.MaxResults
	if desired == "" {
		desired = "RUNNING"
	}
	if size == 0 {
		size = 100
	}
	a.mu.Lock()
	var all []string
	for name, t := range a.tasks {
		if t.in(in.Cluster) && t.Desired == desired && !t.Unlisted {
			all = append(all, name)
		}
	}
	a.mu.Unlock()
	slices.Sort(all)
	from, _ := slices.BinarySearch(all, in.NextToken)
	page := all[from:min(from+size, len(all))]
	answer := map[string]any{"taskArns": append([]string{}, page...)}
	if from+size < len(all) {
		answer["nextToken"] = all[from+size]
	}
	writeJSON(w, http.StatusOK, answer)
}

func (a *AWS) describeTasks(w http.ResponseWriter, body []byte) {
	var in struct {
		Cluster        string
		Tasks, Include []string
	}
	if err := json.Unmarshal(body, &in); err != nil || len(in.Tasks) > 100 || len(in.Tasks) == 0 {
		writeFault(w, "ecs:DescribeTasks", &AWSFault{Status: http.StatusBadRequest, Code: "InvalidParameterException", Message: "tasks"})
		return
	}
	found, failures := []map[string]any{}, []map[string]string{}
	a.mu.Lock()
	for _, name := range in.Tasks {
		t, ok := a.tasks[name]
		if !ok || !t.in(in.Cluster) {
			failures = append(failures, map[string]string{"arn": name, "reason": "MISSING"})
			continue
		}
		task := t.answer()
		if !slices.ContainsFunc(in.Include, func(s string) bool { return strings.EqualFold(s, "TAGS") }) {
			delete(task, "tags")
		}
		found = append(found, task)
	}
	a.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"tasks": found, "failures": failures})
}
