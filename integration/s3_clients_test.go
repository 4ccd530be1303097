package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dataRule allows everything in the bucket that is ours, and reads it all.
const dataRule = `
  - name: data
    resolves_to: [127.0.0.0/8]
    s3: {buckets: [app-data, app.dotted], inspect: true, accounts: ["111122223333"]}
`

// failing finds steps that the server refused.
var failing = regexp.MustCompile(`"status": ?[45]\d\d|"error"`)

// everyWay does work on every way, in each style of addressing, both unless
// they are given, and requires that each went as the direct one did: for the
// client, which is what work returns, and for the server.
func (s *inspectingWorld) everyWay(t *testing.T, work func(t *testing.T, way s3Way, style string) []string, styles ...string) {
	t.Helper()
	if len(styles) == 0 {
		styles = []string{"virtual", "path"}
	}
	for _, style := range styles {
		var lines, requests []string
		for _, way := range s.ways {
			t.Run(style+"/"+way.name, func(t *testing.T) {
				s.take()
				got := work(t, way, style)
				seen := sorted(s.take())
				if way.name == "direct" {
					lines, requests = got, seen
					t.Logf("%d lines, %d requests", len(lines), len(seen))
					if n := len(failing.FindAllString(strings.Join(got, "\n"), -1)); n > len(got)/10 {
						t.Errorf("%d steps fail directly, which shows little: %s", n, got)
					}
					return
				}
				differ(t, "the client", lines, got)
				differ(t, "the server", requests, seen)
			})
		}
	}
}

// differ complains of what is not the same.
func differ(t *testing.T, who string, want, got []string) {
	t.Helper()
	if slices.Equal(want, got) {
		return
	}
	n := 0
	for i := range max(len(want), len(got)) {
		a, b := "nothing", "nothing"
		if i < len(want) {
			a = want[i]
		}
		if i < len(got) {
			b = got[i]
		}
		if a != b {
			t.Errorf("for %s, directly:\n%s\nby the proxy:\n%s", who, a, b)
			if n++; n == 3 {
				return
			}
		}
	}
}

// programLines runs a program that prints a line for each step.
func (s *inspectingWorld) programLines(t *testing.T, way s3Way, c command) []string {
	t.Helper()
	res := s.run(t, way, s.ours, c)
	res.succeeds(t)
	return strings.Split(strings.TrimSpace(res.stdout), "\n")
}

func TestS3Boto3(t *testing.T) {
	t.Parallel()
	python := needModule(t, "boto3")
	s := newS3World(t, false, dataRule)
	s.everyWay(t, func(t *testing.T, way s3Way, style string) []string {
		t.Helper()
		return s.programLines(t, way, command{path: python, args: []string{"testdata/clients/s3work.py", style, s3Data}})
	})
}

// nodeModules is where the packages of the Node clients are.
func nodeModules(t *testing.T, module string) string {
	t.Helper()
	modules, err := filepath.Abs("node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "node_modules", module)); err != nil {
		missing(t, "npm ci --prefix integration/node: %v", err)
	}
	return modules
}

func TestS3Node(t *testing.T) {
	t.Parallel()
	node, modules := need(t, "node"), nodeModules(t, "@aws-sdk/client-s3")
	s := newS3World(t, false, dataRule)
	s.everyWay(t, func(t *testing.T, way s3Way, style string) []string {
		t.Helper()
		return s.programLines(t, way, command{
			path: node, args: []string{"testdata/clients/s3work.mjs", style, s3Data}, env: []string{"CLIENTS_MODULES=" + modules},
		})
	})
}
