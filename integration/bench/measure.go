package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// measure is what one load on one subject has come to.
type measure struct {
	Repeat   int
	Scenario string
	Way      way
	Load     string
	Subject  string

	Seconds float64 // measured
	Units   float64 // tunnels, round trips, requests, GB
	Rate    float64 // units a second
	CPU     float64 // seconds that the proxy's processes have spent
	PerUnit float64 // of them, for one unit, as the load's unit scales it
	P50     float64 // microseconds
	P99     float64
	Errors  int     // that the client has met
	Error   string  `json:",omitempty"` // the first of them
	Foreign float64 // CPUs that others used meanwhile

	Opened int     `json:",omitempty"` // idle tunnels, and of each:
	Lost   int     `json:",omitempty"`
	RSS    float64 `json:",omitempty"` // KiB
	Kernel float64 `json:",omitempty"` // KiB of slab, the ends' part included
	Files  float64 `json:",omitempty"` // descriptors

	StartMillis float64 `json:",omitempty"` // until it accepted
	Filters     bool    // it refused a name that is on no list
	Failure     string  `json:",omitempty"` // nothing else counts then
}

func newMeasure(l load, r report, from, to clock) measure {
	m := measure{
		Seconds: r.Seconds, Units: r.Units, CPU: (to.subject - from.subject).Seconds(),
		P50: r.P50, P99: r.P99, Errors: r.Errors, Error: r.Error, Opened: r.Opened, Foreign: foreign(from, to),
	}
	if r.Seconds > 0 {
		m.Rate = r.Units / r.Seconds
	}
	if r.Units > 0 {
		m.PerUnit = m.CPU / r.Units * l.unit.scale
	}
	return m
}

// brief is the measure in a line.
func (m measure) brief(l load) string {
	if m.Failure != "" {
		return "FAILED: " + m.Failure
	}
	text := fmt.Sprintf("%s %s, %s %s, p50 %s µs, foreign %.2f",
		number(m.Rate), l.unit.rate, number(m.PerUnit), l.unit.cpu, number(m.P50), m.Foreign)
	if m.Opened > 0 {
		text += fmt.Sprintf("; %d open, each %.1f KiB RSS, %.1f KiB kernel, %.2f fds", m.Opened, m.RSS, m.Kernel, m.Files)
	}
	if m.Errors > 0 {
		text += fmt.Sprintf("; %d errors, first: %s", m.Errors, m.Error)
	}
	if m.Lost > 0 {
		text += fmt.Sprintf("; %d lost", m.Lost)
	}
	return text
}

// loadOf finds a load by its name.
func loadOf(name string) load {
	for _, s := range scenarios(false) {
		for _, l := range s.loads {
			if l.name == name {
				return l
			}
		}
	}
	return load{name: name}
}

// results is all of a run, as results.json has it.
type results struct {
	Machine  machine
	Options  options
	Versions map[string]string
	Measures []measure
}

// write writes all forms of the results to a folder, and the tables to stdout.
func (r *results) write(dir string, stdout io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	js, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	table := r.markdown()
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "results.json"), js, 0o644),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(table), 0o644),
		os.WriteFile(filepath.Join(dir, "results.svg"), []byte(r.svg()), 0o644),
	)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\nwritten: results.json, results.md, results.svg in %s\n", table, dir)
	return nil
}

// machine says where it was measured, as far as that matters.
type machine struct {
	When   time.Time
	Kernel string
	CPUs   int
	Model  string
	Go     string
}

func describeMachine(ctx context.Context) machine {
	m := machine{When: time.Now().UTC().Truncate(time.Minute), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	if out, err := exec.CommandContext(ctx, "uname", "-sr").Output(); err == nil {
		m.Kernel = strings.TrimSpace(string(out))
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.Model = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}

// versionOf asks a subject for its version: the first line that has a figure.
func versionOf(ctx context.Context, s *subject) string {
	if s.version == nil {
		return ""
	}
	program, err := lookPath(s.program)
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, s.version...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if strings.ContainsAny(line, "0123456789") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// verdict is an error when Sallyport has failed at anything: its peers may,
// and the tables say so.
func (r *results) verdict() error {
	var all []error
	for _, m := range r.Measures {
		if m.Subject == base && m.Failure != "" {
			all = append(all, fmt.Errorf("%s, %s, %s: %s", m.Scenario, m.Way, m.Load, m.Failure))
		}
	}
	return errors.Join(all...)
}
