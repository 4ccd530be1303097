package policy

import "strings"

// ID returns the task's own part of its ARN, "" when that cannot be read.
func (t *Task) ID() string {
	if !strings.HasPrefix(t.ARN, "arn:") {
		return ""
	}
	return t.ARN[strings.LastIndexByte(t.ARN, '/')+1:]
}

// ClusterARN returns the ARN of the task's cluster, "" when the task's own
// cannot be read.
func (t *Task) ClusterARN() string {
	owner, _, found := strings.Cut(t.ARN, ":task/")
	if !found || t.Cluster == "" || strings.Count(owner, ":") != 4 {
		return ""
	}
	return owner + ":cluster/" + t.Cluster
}
