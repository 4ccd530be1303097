package proxytest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// TaskMetadata is the ECS task metadata endpoint, version 4, of one container
// on Fargate. It is an [http.Handler]; the container's URI is the server's
// with [TaskMetadata.Path]. Make it with [NewTaskMetadata].
type TaskMetadata struct {
	mu         sync.Mutex // protects what follows
	task       ECSTask
	containers map[string]string // names and their KnownStatus
	order      []string
	asked      map[string]int // by path
	broken     bool
}

// NewTaskMetadata returns the endpoint as the first of the containers sees it.
func NewTaskMetadata(task ECSTask, containers ...string) *TaskMetadata {
	m := &TaskMetadata{task: task.filled(), containers: make(map[string]string), asked: make(map[string]int), order: containers}
	for _, c := range containers {
		m.containers[c] = "RUNNING"
	}
	return m
}

// Path is the path of the endpoint.
func (m *TaskMetadata) Path() string { return "/v4/" + m.id(m.order[0]) }

// Set says the KnownStatus of a container.
func (m *TaskMetadata) Set(container, status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.containers[container] = status
}

// Break makes the endpoint answer nothing but 500, or ends that.
func (m *TaskMetadata) Break(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

// Asked returns how often what is below the endpoint's path was asked for.
func (m *TaskMetadata) Asked(below string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[below]
}

// id is Fargate's ID of a container: the task's and a number.
func (m *TaskMetadata) id(container string) string {
	sum := 0
	for _, b := range []byte(container) {
		sum = sum*31 + int(b)
	}
	return m.task.ID + "-" + strings.Repeat(string(rune('0'+sum%10)), 10)
}

// ServeHTTP implements [http.Handler].
func (m *TaskMetadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	below, ok := strings.CutPrefix(r.URL.Path, m.Path())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[below]++
	switch {
	case m.broken:
		http.Error(w, "broken", http.StatusInternalServerError)
	case !ok:
		http.NotFound(w, r)
	case below == "":
		answerMetadata(w, m.container(m.order[0]))
	case below == "/task", below == "/taskWithTags":
		answerMetadata(w, m.document(below == "/taskWithTags"))
	default:
		http.NotFound(w, r)
	}
}

func answerMetadata(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document) // the client left: nobody to tell
}

func (m *TaskMetadata) document(tags bool) map[string]any {
	var all []any
	for _, c := range m.order {
		all = append(all, m.container(c))
	}
	d := map[string]any{
		"Cluster": m.task.arn("cluster/" + m.task.Cluster), "TaskARN": m.task.ARN(), "Family": m.task.Family,
		"Revision": strconv.Itoa(m.task.Revision), "DesiredStatus": m.task.Desired, "KnownStatus": m.task.LastStatus,
		"LaunchType": "FARGATE", "ServiceName": m.task.Service, "Containers": all,
	}
	if tags && len(m.task.Tags) > 0 {
		d["TaskTags"] = m.task.Tags
	}
	return d
}

func (m *TaskMetadata) container(name string) map[string]any {
	network := map[string]any{"NetworkMode": "awsvpc", "IPv4Addresses": []string{m.task.IPv4}}
	if m.task.IPv6 != "" {
		network["IPv6Addresses"] = []string{m.task.IPv6}
	}
	return map[string]any{
		"DockerId": m.id(name), "Name": name, "DockerName": name, "Type": "NORMAL", "DesiredStatus": "RUNNING",
		"KnownStatus": m.containers[name], "Networks": []any{network},
	}
}
