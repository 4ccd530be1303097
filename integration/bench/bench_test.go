package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestQuick runs the program as people do, with the subjects that need no
// package and nginx, and requires that everything was measured and written.
func TestQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	out := t.TempDir()
	text := runBench(t, "-quick", "-subject", "direct,floor,sallyport-spliced,sallyport-10,sallyport-tasks,gosplice,goproxy,tcpproxy,nginx", "-out", out)
	var res results
	js, err := os.ReadFile(filepath.Join(out, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(js, &res); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, m := range res.Measures {
		seen[m.Subject+" "+m.Scenario+" "+string(m.Way)] = true
		if m.Failure != "" && m.Subject != "nginx" { // it may lack its stream module
			t.Errorf("%s, %s, %s: %s", m.Subject, m.Scenario, m.Way, m.Failure)
		}
		if m.Errors > 0 || m.Lost > 0 {
			t.Errorf("%s, %s, %s: %d errors (%s), %d lost", m.Subject, m.Scenario, m.Way, m.Errors, m.Error, m.Lost)
		}
		if product := strings.HasPrefix(m.Subject, base); product && !m.Filters {
			t.Errorf("%s, %s, %s: a name on no list was let through", m.Subject, m.Scenario, m.Way)
		}
	}
	for _, want := range []string{
		"direct tunnels connect", base + " tunnels connect", base + " bulk connect", base + " trips connect",
		"direct inspect inspect", base + " inspect inspect", base + "-spliced inspect inspect",
		base + " idle connect", base + " http http", base + " callers header", base + "-tasks callers header", base + "-10 rules connect", "floor bulk connect",
	} {
		if !seen[want] {
			t.Errorf("not measured: %s", want)
		}
	}
	if !strings.Contains(text, "### New tunnels, 32 at a time (CONNECT)") {
		t.Errorf("no table in\n%s", text)
	}
	wellFormed(t, filepath.Join(out, "results.svg"))
}

// TestEndsOnSignal: a run that is told to end ends, with everything it has
// started and without its folder.
func TestEndsOnSignal(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	tmp := t.TempDir()
	cmd := benchCommand(t, "-scenario", "tunnels", "-subject", base, "-seconds", "600", "-out", t.TempDir())
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	deadline := time.Now().Add(2 * time.Minute)
	for { // until a subject has its folder
		found, err := filepath.Glob(filepath.Join(tmp, "sallyport-bench-*", "s0001", "policy.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not begin")
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "sallyport-bench-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func benchCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bench")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = os.Environ()
	return cmd
}

// runBench runs the program to its end and returns its answer.
func runBench(t *testing.T, args ...string) string {
	t.Helper()
	cmd := benchCommand(t, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("bench: %v\n%s", err, &stderr)
	}
	t.Log("\n" + stderr.String())
	return stdout.String()
}

func wellFormed(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rects := 0
	for dec := xml.NewDecoder(f); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			rects++
		}
	}
	if rects < 5 {
		t.Errorf("%s has %d bars", path, rects)
	}
}
