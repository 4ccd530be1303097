package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// gated runs the example's gate as a pipeline does, in a folder with the
// project's examples and these files.
type gated struct {
	*fleet
	dir string
	env []string
}

func newGated(f *fleet, files map[string]string) *gated {
	f.t.Helper()
	g := &gated{fleet: f, dir: f.t.TempDir(), env: []string{"GATE_STORE=env:HISTORY_URL", "HISTORY_URL=" + f.reader}}
	if err := os.Symlink(filepath.Join(root(f.t), "examples"), filepath.Join(g.dir, "examples")); err != nil {
		f.t.Fatal(err)
	}
	for name, text := range files {
		writeFile(f.t, filepath.Join(g.dir, name), text)
	}
	return g
}

// run runs a shell script that finds sallyport, and an aws that only says what
// it was asked for, on its PATH.
func (g *gated) run(script string, env ...string) result {
	g.t.Helper()
	bin := g.t.TempDir()
	if err := os.Symlink(binary(g.t), filepath.Join(bin, "sallyport")); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "aws"), []byte("#!/bin/sh\necho \"aws $*\"\n"), 0o700); err != nil {
		g.t.Fatal(err)
	}
	all := append([]string{"PATH=" + bin + ":" + os.Getenv("PATH")}, g.env...)
	return command{path: need(g.t, "bash"), args: []string{"-c", script}, dir: g.dir, env: append(all, env...)}.run(g.t)
}

const (
	candidate  = "version: 1\nrules:\n  - {name: pay, hosts: [pay.example.test], resolves_to: [127.0.0.0/8]}\n"
	completing = "version: 1\nrules:\n  - {name: all, hosts: [all.example.test], resolves_to: [127.0.0.0/8]}\n"
)

// TestPipelineGate: the gate lets through what may go on, nothing else, and its
// exit code says which of them it was.
func TestPipelineGate(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.become(f.one, 41)
	f.visits(f.one, "all.example.test")
	f.become(f.one, 42)
	f.become(f.one, 43)
	f.visits(f.one, "all.example.test")
	if err := f.visit(f.one, "new.example.test"); err == nil {
		t.Error("what no rule lists is let through")
	}
	f.one.awaitRun("new.example.test", "site", "list", "--store", f.reader, "--family", "payments:43")
	g := newGated(f, map[string]string{
		"hurts.yaml": candidate, "rest.yaml": completing, "egress.yaml": strings.Replace(candidate, "pay.example.test", "pay.example.test, all.example.test", 1),
		"warned.yaml": "mode: report\nreport_until: 2020-01-01T00:00:00Z\n" + candidate, "broken.yaml": "version: 1\nrulez: []\n",
	})
	const gate = "examples/pipeline/gate.sh "
	for _, tt := range []struct {
		name, script, env string
		code              int
		says              []string
		silent            string // what is not said
	}{
		{name: "policy", script: gate + "egress.yaml", says: []string{"--since 14d", "newly denied: 0", "gate: go on"}},
		{name: "policies", script: gate + "hurts.yaml rest.yaml", says: []string{"newly denied: 0"}},
		{name: "hurts", script: gate + "hurts.yaml", code: 1, says: []string{"ok: 1 rule", "newly denied: 1", "all.example.test", "gate: no"}},
		{name: "warns", script: gate + "warned.yaml", code: 1, says: []string{"--strict lets none pass"}, silent: "replayed"},
		{name: "broken", script: gate + "broken.yaml", code: 1, says: []string{`unknown key "rulez"`}, silent: "replayed"},
		{name: "no such file", script: gate + "none.yaml", code: 2, says: []string{"open none.yaml", "gate: no answer (exit code 2)"}},
		{name: "no such time", script: gate + "-s yesterday egress.yaml", code: 2, says: []string{"is no time"}},
		{name: "nothing was observed", script: gate + "-s 0s egress.yaml", code: 1, says: []string{"nothing was replayed"}},
		{name: "revision", script: gate + "-f payments -o 41 -n 42", says: []string{"payments:42 reaches nothing that payments:41 did not", "gate: go on"}, silent: "replayed"},
		{name: "revision reaches more", script: gate + "-f payments -o 42 -n 43", code: 1, says: []string{"payments:43 reaches 2 sites that payments:42 never did", "all.example.test", "new.example.test"}},
		{name: "revision of the future", script: gate + "-f payments -o 42 -n 44", code: 1, says: []string{"nothing is remembered of payments:44"}},
		{name: "both", script: gate + "-f payments -o 42 -n 43 egress.yaml", code: 1, says: []string{"newly denied: 0", "payments:43 reaches 2 sites", "gate: no"}},
		{name: "a wrong policy does not hide the revision", script: gate + "-f payments -o 42 -n 43 none.yaml", code: 2, says: []string{"payments:43 reaches 2 sites"}},
		{name: "no question", script: gate, code: 2, says: []string{"usage: gate.sh"}},
		{name: "half a question", script: gate + "-f payments -o 42 egress.yaml", code: 2, says: []string{"usage: gate.sh"}, silent: "gate: go on"},
		{name: "a policy called like a flag", script: gate + "hurts.yaml --help", code: 2, says: []string{"open --help"}, silent: "gate: go on"},
		{name: "a revision called like a flag", script: gate + "-f payments -o --help -n 42", code: 2, says: []string{`"--help" is no revision`}, silent: "gate: go on"},
		{name: "a revision against itself", script: gate + "-f payments -o 42 -n 42", code: 2, says: []string{"against itself"}, silent: "gate: go on"},
		{name: "unknown flag", script: gate + "-x egress.yaml", code: 2, says: []string{"usage: gate.sh"}},
		{name: "store that lets nobody in", script: gate + "egress.yaml", env: "HISTORY_URL=" + f.role("sallyport_reader", "wrong"), code: 1, says: []string{"password authentication failed"}, silent: "gate: go on"},
		{name: "no store", script: "unset HISTORY_URL; " + gate + "egress.yaml", code: 2, says: []string{"HISTORY_URL"}},
		{name: "no sallyport", script: "PATH=/usr/bin:/bin; " + gate + "egress.yaml", code: 127, says: []string{"gate: no answer (exit code 127)"}},
		{name: "a proxy that wants a token", script: "unset GATE_STORE; " + gate + "egress.yaml", env: "SALLYPORT_ADMIN_ADDRESS=" + f.one.admin, code: 1, says: []string{"--token-file"}},
		{
			name: "a proxy", script: "unset GATE_STORE; export SALLYPORT_ADMIN_TOKEN=file:" + f.token + "; " + gate + "-f payments -o 41 -n 42 egress.yaml",
			env: "SALLYPORT_ADMIN_ADDRESS=" + f.one.admin, says: []string{"newly denied: 0", "gate: go on"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := g.run(tt.script, tt.env)
			got.says(t, tt.says...)
			if got.code != tt.code || tt.silent != "" && strings.Contains(got.stdout, tt.silent) {
				t.Errorf("exit code %d, want %d:\n%s\n%s", got.code, tt.code, got.stdout, got.stderr)
			}
		})
	}
	t.Run("CodeBuild", g.codeBuild)
}

// codeBuild runs the buildspec's commands, of which the first that fails ends
// the phase.
func (g *gated) codeBuild(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "examples", "pipeline", "buildspec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Env struct {
			Variables map[string]string
			Secrets   map[string]string `yaml:"secrets-manager"`
		}
		Phases map[string]struct{ Commands []string }
	}
	if err := yaml.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	var env []string
	for name, value := range spec.Env.Variables {
		env = append(env, name+"="+value)
	}
	if len(spec.Phases) != 1 || len(spec.Phases["build"].Commands) != 2 || spec.Env.Secrets["HISTORY_URL"] == "" {
		t.Fatalf("%+v", spec)
	}
	script := strings.Join(spec.Phases["build"].Commands, " && ")
	const copied = "aws s3 cp egress.yaml s3://acme-config/egress.yaml"
	g.run(script, env...).succeeds(t, "gate: go on", copied)
	writeFile(t, filepath.Join(g.dir, "egress.yaml"), candidate)
	got := g.run(script, env...)
	got.fails(t, "newly denied: 1")
	if strings.Contains(got.stdout, copied) {
		t.Errorf("what the gate refuses is copied:\n%s", got.stdout)
	}
	// The policy goes where the proxies of the example read it.
	if config, _ := fleetConfig(t); !strings.Contains(config, `"s3://acme-config/egress.yaml`) {
		t.Error("the proxies read another policy")
	}
}

// become replaces the task by one of another revision, and returns when the
// proxy knows it: its visits to pay.example.test are on record as the new one's.
func (f *fleet) become(r *rig, revision int) {
	f.t.Helper()
	task := f.run(revision)
	for deadline := time.Now().Add(patience); ; {
		f.visits(r, "pay.example.test")
		if strings.Contains(r.ended("pay.example.test").text, task.ARN()) {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("nobody sees the new revision\n%s", r.said())
		}
	}
}
