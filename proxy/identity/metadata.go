package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// MetadataVariable is the environment variable in which ECS tells a container
// where its metadata are.
const MetadataVariable = "ECS_CONTAINER_METADATA_URI_V4"

const (
	metadataTime = 2 * time.Second
	maxMetadata  = 1 << 20 // a task with its ten containers is some 10 KiB
)

// Metadata is a client of the task metadata endpoint, version 4. It is safe
// for concurrent use.
type Metadata struct {
	base   string
	client *http.Client
}

// NewMetadata returns a client of the endpoint at uri, the value of
// [MetadataVariable]. It asks nothing yet.
func NewMetadata(uri string) (*Metadata, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is not a URL", MetadataVariable, uri)
	}
	if _, err := netip.ParseAddr(u.Hostname()); u.Scheme != "http" || err != nil || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("%s: %q is not http://ADDRESS/PATH", MetadataVariable, uri)
	}
	transport := &http.Transport{
		// Proxy stays nil: HTTP_PROXY in our own environment may be ourselves.
		DialContext:            (&net.Dialer{Timeout: metadataTime}).DialContext,
		DisableKeepAlives:      true, // a question a second at most, for a short while
		ResponseHeaderTimeout:  metadataTime,
		MaxResponseHeaderBytes: 16 << 10,
	}
	return &Metadata{base: strings.TrimSuffix(u.String(), "/"), client: &http.Client{
		Transport: transport, Timeout: metadataTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it redirects, which it never does") },
	}}, nil
}

// Self is a task as it sees itself.
type Self struct {
	Task      *policy.Task
	Addresses []netip.Addr // of its containers' networks
	// HostNetwork means that the task shares the network of its instance with
	// others: its addresses, and loopback, are not its own.
	HostNetwork bool
	// NoTags is why the tags are not known, nil when they are.
	NoTags error
}

// Self asks for the identity of the task, with its tags where they can be had.
func (m *Metadata) Self(ctx context.Context) (Self, error) {
	// Whoever may not read tags gets the task without, or an error instead.
	text, tagErr := m.get(ctx, "/taskWithTags")
	if tagErr == nil {
		s, err := parseSelf(text)
		if err == nil {
			return s, nil
		}
		tagErr = err
	}
	text, err := m.get(ctx, "/task")
	if err != nil {
		return Self{}, err
	}
	s, err := parseSelf(text)
	if err == nil && s.Task.Tags == nil && s.NoTags == nil {
		s.NoTags = tagErr
	}
	return s, err
}

// get returns what is below the endpoint's own path.
func (m *Metadata) get(ctx context.Context, below string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+below, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("task metadata: %w", err)
	}
	answer, err := m.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("task metadata: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxMetadata+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("task metadata: %s: %w", r.URL, err)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("task metadata: %s: %s", r.URL, answer.Status)
	case len(text) > maxMetadata:
		return nil, fmt.Errorf("task metadata: %s: it is larger than %d bytes", r.URL, maxMetadata)
	}
	return text, nil
}

// taskDocument is what is read of /task and /taskWithTags.
type taskDocument struct {
	Cluster     string
	TaskARN     string
	Family      string
	Revision    string
	ServiceName string
	TaskTags    map[string]string
	Containers  []containerDocument
	Errors      []struct{ ErrorField, ErrorCode, ErrorMessage string }
}

type containerDocument struct {
	DockerID      string `json:"DockerId"`
	Name          string
	Type          string
	DesiredStatus string
	KnownStatus   string
	FinishedAt    string
	Networks      []struct {
		NetworkMode                  string
		IPv4Addresses, IPv6Addresses []string
	}
}

func parseTask(text []byte) (taskDocument, error) {
	var d taskDocument
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("task metadata: %w", err)
	}
	if !strings.HasPrefix(d.TaskARN, "arn:") || !strings.Contains(d.TaskARN, ":task/") || len(d.TaskARN) > 2048 {
		return d, fmt.Errorf("task metadata: %.100q is not a task's ARN", d.TaskARN)
	}
	return d, nil
}

func parseSelf(text []byte) (Self, error) {
	d, err := parseTask(text)
	if err != nil {
		return Self{}, err
	}
	s := Self{Task: &policy.Task{
		ARN: d.TaskARN, Family: d.Family, Service: d.ServiceName, Tags: d.TaskTags,
		Cluster: d.Cluster[strings.LastIndexByte(d.Cluster, '/')+1:], // a name or an ARN
	}}
	if n, err := strconv.Atoi(d.Revision); err == nil && n > 0 {
		s.Task.Revision = n
	}
	for _, c := range d.Containers {
		for _, n := range c.Networks {
			s.HostNetwork = s.HostNetwork || n.NetworkMode == "host"
			for _, text := range slices.Concat(n.IPv4Addresses, n.IPv6Addresses) {
				if a, err := netip.ParseAddr(text); err == nil && a.Unmap().IsGlobalUnicast() && !slices.Contains(s.Addresses, a.Unmap()) {
					s.Addresses = append(s.Addresses, a.Unmap())
				}
			}
		}
	}
	for _, e := range d.Errors {
		if e.ErrorField == "TaskTags" && s.Task.Tags == nil {
			s.NoTags = fmt.Errorf("%.60s: %.300s (ecs:ListTagsForResource on the task is needed)", e.ErrorCode, e.ErrorMessage)
		}
	}
	return s, nil
}

// Container is one of the task's containers.
type Container struct {
	Name    string
	Status  string // RUNNING, STOPPED, …
	Stopped bool   // for good
}

// Others asks how the task's other containers are: all but the one that asks,
// and those that the platform adds for itself.
func (m *Metadata) Others(ctx context.Context) ([]Container, error) {
	text, err := m.get(ctx, "/task")
	if err != nil {
		return nil, err
	}
	d, err := parseTask(text)
	if err != nil {
		return nil, err
	}
	own, err := m.ownID(ctx)
	if err != nil {
		return nil, err
	}
	return others(d, own), nil
}

// ownID returns the ID of the container that asks. On Fargate it is the end of
// the endpoint's path; elsewhere that is another ID, and the endpoint itself
// tells.
func (m *Metadata) ownID(ctx context.Context) (string, error) {
	text, err := m.get(ctx, "")
	if err != nil {
		return "", err
	}
	var c containerDocument
	if err := json.Unmarshal(text, &c); err != nil {
		return "", fmt.Errorf("task metadata: %w", err)
	}
	if c.DockerID == "" {
		return path.Base(m.base), nil
	}
	return c.DockerID, nil
}

func others(d taskDocument, own string) []Container {
	var out []Container
	for _, c := range d.Containers {
		if c.DockerID == own || c.Type != "" && c.Type != "NORMAL" || strings.HasPrefix(c.Name, "~internal~") {
			continue
		}
		out = append(out, Container{Name: c.Name, Status: c.KnownStatus, Stopped: c.stopped()})
	}
	return out
}

// stopped reports whether a container has ended, or will never begin.
func (c containerDocument) stopped() bool {
	switch c.KnownStatus {
	case "STOPPED":
		return true
	case "NONE", "PULLED", "CREATED", "":
		return c.DesiredStatus == "STOPPED"
	}
	return c.FinishedAt != ""
}
