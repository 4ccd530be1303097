package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// CallerText is who calls in a person's words: on a command line, or in a case.
// An empty field is not known.
type CallerText struct {
	Addr        string // 10.0.16.7
	VPCEndpoint string // vpce-…
	Principal   string
	// Service is CLUSTER/SERVICE; CLUSTER/ for a task that no service started.
	Service string
	// Family is FAMILY:REVISION, or FAMILY alone.
	Family string
	Tags   map[string]string
	// Unidentified is [Source].Unidentified.
	Unidentified bool
}

// ParseCaller returns the caller that a text describes. Its error names the
// field and what to write.
func ParseCaller(t CallerText) (Source, error) {
	s := Source{Unidentified: t.Unidentified}
	for _, field := range []struct{ key, value string }{
		{"from", t.Addr},
		{"vpc_endpoint", t.VPCEndpoint},
		{"principal", t.Principal},
		{"service", t.Service},
		{"family", t.Family},
	} {
		if field.value == "" {
			continue
		}
		if err := s.set(field.key, field.value); err != nil {
			return Source{}, fmt.Errorf("%s: %w", field.key, err.withHint())
		}
	}
	for key, value := range t.Tags {
		if err := s.tag(key, value); err != nil {
			return Source{}, fmt.Errorf("tag: %w", err.withHint())
		}
	}
	if s.Task != nil && s.Unidentified {
		return Source{}, errors.New("unidentified: the caller's task is given, so it is identified")
	}
	return s, nil
}

// withHint returns the error with its hint in its text.
func (e *patternError) withHint() error {
	if e.hint == "" {
		return e
	}
	return fmt.Errorf("%w; %s", e, e.hint)
}

// set sets what one key of a case says.
func (s *Source) set(key, value string) *patternError {
	switch key {
	case "from":
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return badPattern(0, "write one address, like 10.0.16.7", "from is not an address: %q", value)
		}
		s.Addr = a.Unmap()
	case "vpc_endpoint":
		s.VPCEndpoint = value
		return checkEndpoint(value)
	case "principal":
		s.Principal = value
		return checkPrincipal(value)
	case "service":
		return s.setService(value)
	case "family":
		return s.setFamily(value)
	}
	return nil
}

func (s *Source) setService(value string) *patternError {
	const hint = "write CLUSTER/SERVICE, or CLUSTER/ for a task of no service"
	cluster, service, found := strings.Cut(value, "/")
	if !found || cluster == "" {
		return badPattern(0, hint, "the service %q lacks its cluster", value)
	}
	if err := checkName(cluster, hint); err != nil {
		return err
	}
	if err := checkName(service, hint); err != nil {
		err.offset += len(cluster) + 1
		return err
	}
	t := s.task()
	t.Cluster, t.Service = cluster, service
	return nil
}

func (s *Source) setFamily(value string) *patternError {
	const hint = "write FAMILY or FAMILY:REVISION"
	family, revision, found := strings.Cut(value, ":")
	number, ok := 0, true
	if found {
		number, ok = parseRevision(revision)
	}
	if family == "" || !ok {
		return badPattern(0, hint, "%q is no family with a revision", value)
	}
	if err := checkName(family, hint); err != nil {
		return err
	}
	t := s.task()
	t.Family, t.Revision = family, number
	return nil
}

// checkName refuses what is no name of a cluster, a service or a family.
func checkName(name, hint string) *patternError {
	if err := ecsAlphabet().check(name, ""); err != nil {
		err.hint = hint + "; " + err.hint
		return err
	}
	if len(name) > maxECSName {
		return badPattern(0, "", "%q is longer than %d characters", name, maxECSName)
	}
	return nil
}

// tag sets a tag of the caller's task.
func (s *Source) tag(key, value string) *patternError {
	if key == "" || len(key) > maxTagKey || len(value) > maxTagValue {
		return badPattern(0, "", "a tag has a key of 1 to %d characters, and a value of at most %d", maxTagKey, maxTagValue)
	}
	t := s.task()
	if t.Tags == nil {
		t.Tags = map[string]string{}
	}
	t.Tags[key] = value
	return nil
}

// task returns the task, made when there is none.
func (s *Source) task() *Task {
	if s.Task == nil {
		s.Task = &Task{}
	}
	return s.Task
}

// text names the caller, for people.
func (s *Source) text() string {
	var parts []string
	if s.Addr.IsValid() {
		parts = append(parts, s.Addr.String())
	}
	if s.Principal != "" {
		parts = append(parts, fmt.Sprintf("principal %q", clip(s.Principal)))
	}
	if t := s.Task; t != nil {
		parts = append(parts, t.text()...)
	}
	if s.VPCEndpoint != "" {
		parts = append(parts, clip(s.VPCEndpoint))
	}
	return strings.Join(parts, ", ")
}

// text lists what is known of a task.
func (t *Task) text() []string {
	var parts []string
	switch {
	case t.Service != "":
		parts = append(parts, "service "+clip(t.Cluster)+"/"+clip(t.Service))
	case t.Cluster != "":
		parts = append(parts, "a task of no service in "+clip(t.Cluster))
	}
	if t.Family != "" {
		family := "family " + clip(t.Family)
		if t.Revision > 0 {
			family += fmt.Sprintf(":%d", t.Revision)
		}
		parts = append(parts, family)
	}
	keys := slices.Sorted(maps.Keys(t.Tags))
	for _, key := range keys[:min(len(keys), maxTags)] {
		parts = append(parts, fmt.Sprintf("tag %s=%q", clip(key), clip(t.Tags[key])))
	}
	return parts
}

// clip returns the beginning of a name that is longer than names are.
func clip(name string) string {
	if len(name) <= maxTagValue {
		return name
	}
	return name[:maxTagValue] + "..."
}
