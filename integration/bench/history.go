package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	flows "github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// The history's own measurement has no peers: it loads a store with made-up
// flows of a fortnight, and asks it what people ask, through the product's
// commands. -history says how many flows; ten million are a large fleet's.

const (
	historySites    = 5000
	historyServices = 40
	historySpan     = 14 * 24 * time.Hour
)

// measureHistory loads a store and asks it.
func measureHistory(ctx context.Context, o options, root string, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "sallyport-history-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.Sallyport == "" {
		o.Sallyport = filepath.Join(dir, "sallyport")
		if err := goBuild(ctx, root, o.Sallyport, "./cmd/sallyport"); err != nil {
			return err
		}
	}
	store := "sqlite:" + filepath.Join(dir, "history.db")
	fmt.Fprintf(stderr, "loading %d flows over %d sites\n", o.History, historySites)
	began := time.Now()
	load := loader{Store: store, Flows: o.History, End: began.UTC().Truncate(time.Hour)}
	if err := load.start(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	info, err := os.Stat(filepath.Join(dir, "history.db"))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d flows loaded in %.1f s, %.0f/s, %.0f bytes each\n", o.History, took.Seconds(),
		float64(o.History)/took.Seconds(), float64(info.Size())/float64(o.History))
	fmt.Fprintln(stdout, "| question | s | MiB | lines |\n|:--|--:|--:|--:|")
	at := func(d time.Duration) string { return load.End.Add(-d).Format(time.RFC3339) }
	for _, question := range [][]string{
		{"site", "list"},
		{"site", "list", "--since", at(3 * 24 * time.Hour)},
		{"site", "list", "--service", "service-7", "--verdict", "deny"},
		{"flow", "list"},
		{"flow", "list", "--limit", "1000", "--verdict", "deny"},
		{"flow", "list", "--host", "h4999.example.com"},
		{"flow", "list", "--host", "**.example.com", "--service", "service-3", "--since", at(24 * time.Hour), "--limit", "10000"},
		{"flow", "list", "--min-bytes", "900KiB", "--since", at(24 * time.Hour)},
		{"flow", "diff", "--family", "family-7", "1", "2"},
	} {
		if err := askHistory(ctx, o.Sallyport, store, append(question, "--csv"), stdout); err != nil {
			return err
		}
	}
	candidate := filepath.Join(dir, "candidate.yaml")
	const text = "version: 1\nrules:\n  - {name: most, hosts: [\"{h1,h2,h3}*.example.com\"]}\n"
	if err := os.WriteFile(candidate, []byte(text), 0o600); err != nil {
		return err
	}
	for _, question := range [][]string{{"policy", "suggest"}, {"policy", "replay", candidate}} {
		if err := askHistory(ctx, o.Sallyport, store, question, stdout); err != nil {
			return err
		}
	}
	return nil
}

// askHistory runs one of the product's commands, and writes what it took.
func askHistory(ctx context.Context, program, store string, question []string, stdout io.Writer) error {
	cmd := exec.CommandContext(ctx, program, append(question, "--store", store)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	var lines lineCounter
	var talk strings.Builder
	cmd.Stdout, cmd.Stderr = &lines, &talk
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil && (cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1) {
		return fmt.Errorf("%s: %w: %s", strings.Join(question, " "), err, talk.String())
	}
	peak := int64(0)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		peak = usage.Maxrss
	}
	if i := slices.Index(question, "--csv"); i >= 0 {
		question = question[:i] // it is the same for all
	}
	fmt.Fprintf(stdout, "| `%s` | %.2f | %.0f | %d |\n", strings.ReplaceAll(strings.Join(question, " "), os.TempDir()+"/", ""), took.Seconds(), float64(peak)/1024, lines)
	return nil
}

// lineCounter counts lines.
type lineCounter int

// Write implements [io.Writer].
func (c *lineCounter) Write(p []byte) (int, error) {
	*c += lineCounter(strings.Count(string(p), "\n"))
	return len(p), nil
}

// loader is what the process is told that fills a store: one of its own, for
// the memory of whoever starts a process counts as that process's.
type loader struct {
	Store string
	Flows int
	End   time.Time // of the last flow
}

func (l loader) start(ctx context.Context) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, self, roleLoader, string(text)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("load: %w: %s", err, out)
	}
	return nil
}

// runLoader fills a store.
func runLoader(ctx context.Context, told string) error {
	var l loader
	if err := json.Unmarshal([]byte(told), &l); err != nil {
		return err
	}
	return loadHistory(ctx, l.Store, l.Flows, l.End)
}

func loadHistory(ctx context.Context, store string, n int, end time.Time) error {
	var now atomic.Int64
	now.Store(end.Add(-historySpan).UnixNano())
	s, err := history.Open(ctx, history.Config{
		Store: store, Instance: "bench", PerSite: -1, Queue: 1 << 14, Drain: time.Hour, Retention: history.Retention{Flows: 2 * historySpan, Size: math.MaxInt64},
		Clock: func() time.Time { return time.Unix(0, now.Load()) },
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(running) }()
	err = tellHistory(ctx, s, n, end, &now)
	stop()
	if ended := <-done; err == nil {
		err = ended
	}
	if stats := s.Stats(); err == nil && (stats.Dropped > 0 || stats.Flows < uint64(n)) {
		err = fmt.Errorf("the store took %d of %d flows", stats.Flows, n)
	}
	if closed := s.Close(); err == nil {
		err = closed
	}
	return err
}

// tellHistory makes the flows up: sites by Zipf's law, each of one service.
func tellHistory(ctx context.Context, s *history.Store, n int, end time.Time, now *atomic.Int64) error {
	rng := rand.New(rand.NewPCG(7, 7))
	zipf := rand.NewZipf(rng, 1.2, 20, historySites-1)
	tasks := make([]*policy.Task, historyServices*2)
	for i := range tasks {
		tasks[i] = &policy.Task{
			ARN: fmt.Sprintf("arn:aws:ecs:us-east-1:111122223333:task/prod/%032d", i), Cluster: "prod", Service: fmt.Sprintf("service-%d", i/2),
			Family: fmt.Sprintf("family-%d", i/2), Revision: 1 + i%2,
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range n {
		site := int(zipf.Uint64())
		start := end.Add(-historySpan + time.Duration(float64(historySpan)*float64(i)/float64(n)))
		now.Store(start.UnixNano())
		r := flows.Record{
			// As the proxy makes them, but of that time.
			ID: flows.IDAt(start)[:10] + fmt.Sprintf("%016d", i), Start: start, End: start.Add(time.Duration(rng.IntN(5000)) * time.Millisecond),
			Via: policy.ViaConnect, Protocol: policy.ProtocolTLS, Host: fmt.Sprintf("h%d.example.com", site), Port: 443,
			Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(site >> 8), byte(site)}), 40000), Task: tasks[site%historyServices*2+rng.IntN(2)], Source: "apps",
			TLS:     flows.TLS{ServerName: fmt.Sprintf("h%d.example.com", site), Version: "1.3", ALPN: []string{"h2", "http/1.1"}},
			Verdict: policy.Allow, Reason: policy.ReasonRule, Rule: fmt.Sprintf("rule-%d", site%200), PolicyVersion: "0123456789ab",
			Outcome: flows.OutcomeOK, BytesSent: rng.Int64N(64 << 10), BytesReceived: rng.Int64N(1 << 20),
		}
		if site%50 == 49 {
			r.Verdict, r.Reason, r.Rule, r.Outcome, r.BytesSent, r.BytesReceived = policy.Deny, policy.ReasonNoRule, "", flows.Outcome(policy.ReasonNoRule), 0, 0
			s.Observe(flows.Event{Kind: flows.Denied, Record: r})
		} else {
			s.Observe(flows.Event{Kind: flows.Opened, Record: r})
			s.Observe(flows.Event{Kind: flows.Closed, Record: r})
		}
		for i == n-1 && s.Stats().Pending > 0 || i%1000 == 0 && s.Stats().Pending > 1<<14 { // a proxy would not wait
			if ctx.Err() != nil {
				return ctx.Err()
			}
			<-tick.C
		}
	}
	return nil
}
