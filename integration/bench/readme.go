package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// Where the README's table begins and ends, on lines of their own.
const (
	readmeBegin = "<!-- bench -->"
	readmeEnd   = "<!-- /bench -->"
)

// readmePlot is where the README finds the plot, below the root.
const readmePlot = "integration/bench/results.svg"

// claim is a row of the README's table. Less is better in all of them.
type claim struct {
	work     string
	scenario string
	way      way
	load     string
	value    func(row) float64
	paired   bool // the value is CPU for a unit of work, of which rows know the ratio in each repeat
}

func claims() []claim {
	cpu := func(r row) float64 { return r.PerUnit }
	// Round trips are not among them: with CPUs shared they show on which CPU the
	// scheduler has put whom.
	return []claim{
		{"new tunnel by CONNECT, CPU µs", "tunnels", wayConnect, "tunnels-32", cpu, true},
		{"new tunnel by SNI, CPU µs", "tunnels", waySNI, "tunnels-32", cpu, true},
		{"bulk in a tunnel, CPU s/GB", "bulk", wayConnect, "down-8", cpu, true},
		{"bulk by SNI, CPU s/GB", "bulk", waySNI, "down-8", cpu, true},
		{"idle tunnel, KiB of RSS and kernel memory", "idle", wayConnect, "idle-many", idleWeight, false},
		{"plain HTTP request, CPU µs", "http", wayHTTP, "http-32", cpu, true},
		{"inspected download, CPU s/GB", "inspect", wayInspect, "download-8", cpu, true},
		{"inspected upload, CPU s/GB", "inspect", wayInspect, "upload-8", cpu, true},
		{"inspected GET of 1 KiB, CPU µs", "inspect", wayInspect, "get-32", cpu, true},
	}
}

// rival reports whether a row is of a peer to be set against: of a proxy that
// somebody could choose, which refuses what is not on its list. One that met
// errors is a rival still, and the table says so: to leave it out would make
// more of a lead than there is.
func (r row) rival() bool {
	switch r.Subject {
	case "direct", "floor", "gosplice":
		return false
	}
	return !strings.HasPrefix(r.Subject, base) && r.Failure == "" && r.Filters
}

// best returns the base's row for a claim, and the best rival's; false where
// there is nothing to compare.
func (r *results) best(c claim) (ours, peer row, ok bool) {
	least := math.Inf(1)
	for _, row := range r.rows(c.scenario, c.way, c.load) {
		v := c.value(row)
		switch {
		case row.Subject == base && row.Failure == "":
			ours, ok = row, true
		case row.rival() && v < least:
			peer, least = row, v
		}
	}
	return ours, peer, ok && peer.Subject != ""
}

// readme is the short table, with the plot.
func (r *results) readme() string {
	var b strings.Builder
	b.WriteString("| what it costs | Sallyport | best peer | times better |\n|---|---:|---:|---:|\n")
	for _, c := range claims() {
		ours, peer, ok := r.best(c)
		if !ok {
			continue
		}
		better := ratio(c.value(peer), c.value(ours))
		if c.paired {
			better = peer.CPURatio
		}
		name := peer.Subject
		if peer.Errors > 0 {
			name += ", with errors"
		}
		fmt.Fprintf(&b, "| %s | %s | %s (%s) | %s |\n", c.work, number(c.value(ours)), number(c.value(peer)), name, times(better))
	}
	m, o := r.Machine, r.Options
	fmt.Fprintf(&b, "\nMedians of %d repeats of %g s, %d rules, a log line for each connection, %s; %s, %d CPUs (%s), %s, %s. "+
		"A best peer is the one that costs least among those that refuse what is not on their list.\n\n",
		o.Repeat, o.Seconds, o.Rules, o.Placement, m.When.Format("2006-01-02"), m.CPUs, m.Model, m.Kernel, m.Go)
	b.WriteString(r.reservations())
	fmt.Fprintf(&b, "![What the proxy costs](%s)\n", readmePlot)
	return b.String()
}

// reservations say why figures are not fit to be shown; "" when they are.
func (r *results) reservations() string {
	var b strings.Builder
	if f := r.foreign(); f > tooForeign {
		fmt.Fprintf(&b, "**Not for publication: other programs used %.1f CPUs meanwhile.**\n\n", f)
	}
	if r.Options.Loopback {
		b.WriteString("**Without a namespace: the machine's own network settings held.**\n\n")
	}
	if r.Options.Quick {
		b.WriteString("**A quick run: it shows that the benchmark works, and nothing else.**\n\n")
	}
	return b.String()
}

// publish writes the table into the README of a source tree, and the plot to
// where that shows it.
func (r *results) publish(root string) error {
	path := filepath.Join(root, "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed, err := replaceBetween(string(text), r.readme())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, filepath.FromSlash(readmePlot)), []byte(r.svg()), 0o644),
		os.WriteFile(path, []byte(changed), 0o644),
	)
}

// replaceBetween puts a table between the marks of a text, in place of what is
// there.
func replaceBetween(text, table string) (string, error) {
	before, rest, begun := strings.Cut(text, readmeBegin+"\n")
	_, after, ended := strings.Cut(rest, readmeEnd)
	if !begun || !ended || strings.Contains(after, readmeBegin) {
		return "", fmt.Errorf("put %s and %s, once, on lines of their own, where the table is to stand", readmeBegin, readmeEnd)
	}
	return before + readmeBegin + "\n" + table + readmeEnd + after, nil
}

// loadResults reads what an earlier run has written.
func loadResults(path string) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &r, nil
}
