package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// tooForeign is how many CPUs others may use before figures are for
// development only.
const tooForeign = 0.2

// markdown is the tables of a run.
func (r *results) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s; %d CPUs (%s), %s, %s; %d repeats of %g s; %d rules; %s.\n\n",
		m.When.Format("2006-01-02"), m.CPUs, m.Model, m.Kernel, m.Go, r.Options.Repeat, r.Options.Seconds, r.Options.Rules, r.Options.Placement)
	b.WriteString("Ratios say how many times better Sallyport is: its rate over the subject's, the subject's CPU over its own; above 1, Sallyport is ahead. " +
		"CPU is the proxy's processes'. A subject with * let through a name that was not on its list.\n\n")
	b.WriteString(r.reservations())
	for _, s := range scenarios(r.Options.Quick) {
		for _, w := range s.ways {
			r.section(&b, s, w)
		}
	}
	r.footnotes(&b)
	return b.String()
}

func (r *results) section(b *strings.Builder, s scenario, w way) {
	for _, l := range s.loads {
		rows := r.rows(s.name, w, l.name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(b, "### %s, %s (%s)\n\n", s.title, headline(l), wayTitle(w))
		heads, cells := columns(s.name, l)
		fmt.Fprintf(b, "| subject | %s |\n|---|%s\n", strings.Join(heads, " | "), strings.Repeat("---:|", len(heads)))
		for _, row := range rows {
			name := row.Subject
			if row.Failure != "" {
				fmt.Fprintf(b, "| %s | failed%s\n", name, strings.Repeat(" |", len(heads)))
				continue
			}
			if !row.Filters && name != "direct" {
				name += " *"
			}
			fmt.Fprintf(b, "| %s | %s |\n", name, strings.Join(cells(row), " | "))
		}
		b.WriteByte('\n')
	}
}

// headline is a load's title; for idle tunnels, their number.
func headline(l load) string {
	if l.task.Kind == kindIdle {
		return strconv.Itoa(l.task.Count)
	}
	return l.title
}

func wayTitle(w way) string {
	switch w {
	case wayConnect:
		return "CONNECT"
	case waySNI:
		return "SNI"
	case wayHeader:
		return "PROXY header, CONNECT"
	case wayInspect:
		return "CONNECT to a bucket"
	default:
		return "HTTP"
	}
}

// columns are a load's headings, and what stands below them.
func columns(scenario string, l load) ([]string, func(row) []string) {
	ratios := []string{"rate ratio", "CPU ratio", "foreign"}
	ratioCells := func(r row) []string { return []string{times(r.RateRatio), times(r.CPURatio), number(r.Foreign)} }
	switch {
	case l.task.Kind == kindIdle:
		return []string{"opened", "RSS KiB", "kernel KiB", "without the ends'", "descriptors", l.unit.cpu, "foreign"}, func(r row) []string {
			return []string{number(r.Opened), number(r.RSS), number(r.Kernel), number(r.AddedKernel), number(r.Files), number(r.PerUnit), number(r.Foreign)}
		}
	case l.unit == gigabyte():
		return append([]string{l.unit.rate, l.unit.cpu, "errors"}, ratios...), func(r row) []string {
			return append([]string{number(r.Rate), number(r.PerUnit), strconv.Itoa(r.Errors)}, ratioCells(r)...)
		}
	case l.task.Kind == kindEcho:
		return append([]string{"p50 µs", "added p50 µs", "p99 µs", l.unit.cpu}, ratios...), func(r row) []string {
			return append([]string{number(r.P50), number(r.AddedP50), number(r.P99), number(r.PerUnit)}, ratioCells(r)...)
		}
	}
	heads := []string{l.unit.rate, l.unit.cpu, "p50 µs", "p99 µs", "errors"}
	cells := func(r row) []string {
		return []string{number(r.Rate), number(r.PerUnit), number(r.P50), number(r.P99), strconv.Itoa(r.Errors)}
	}
	if scenario == "rules" { // ratios to the one with the fewest
		heads = append(heads, "ready ms")
		plain := cells
		cells = func(r row) []string { return append(plain(r), number(r.StartMillis)) }
	}
	return append(heads, ratios...), func(r row) []string { return append(cells(r), ratioCells(r)...) }
}

// footnotes tell versions and failures.
func (r *results) footnotes(b *strings.Builder) {
	var names []string
	for name, version := range r.Versions {
		if version != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(b, "- %s: %s\n", name, r.Versions[name])
	}
	var told []string // one start that fails fails all its loads
	for _, m := range r.Measures {
		text := fmt.Sprintf("- failed: %s, %s: %.500s\n", m.Subject, m.Way, m.Failure)
		if m.Failure != "" && !slices.Contains(told, text) {
			told = append(told, text)
			b.WriteString(text)
		}
	}
}

// number writes a figure with three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return ""
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	case a == 0:
		return "0"
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

func times(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("%.2f×", v)
}
