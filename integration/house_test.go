package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These tests hold the house to its plan: who may know whom, where each
// foreign module is at home, and how long anything may get. A failure says
// why the rule is there; when the plan itself has changed, change it here.

const modulePath = "github.com/sallyport/sallyport"

const (
	maxFile     = 450 // lines; tests excepted
	maxFunction = 80  // lines; tests excepted
)

// boundary is one rule of the import diagram, on all that production code of
// the packages from reaches, directly or through others.
type boundary struct {
	from   string   // package path below the module, "..." at its end for the tree
	except []string // packages of from that the rule does not bind
	// ours are the packages of the module that may be reached; nil means any
	// but those that never names.
	ours  []string
	never []string // import paths and, with "..." at their end, trees
	why   string
}

func boundaries() []boundary {
	io := []string{"net/http", "os/exec", "log", "log/slog", "github.com/rs/zerolog/..."}
	daemon := []string{"github.com/spf13/...", modulePath + "/console/...", modulePath + "/cmd/..."}
	return []boundary{
		{
			from: "policy", ours: []string{}, never: io,
			why: "policy decides and does nothing else: no I/O, no log, nothing of ours below it, so that the command line, the tests and the proxy decide alike",
		},
		{
			from: "logging/flow", ours: []string{"policy"}, never: io,
			why: "flow is the noun that every room shares; what it imports, all of them import",
		},
		{
			from: "proxy", ours: []string{"policy", "logging/flow"}, never: append(daemon, "github.com/prometheus/...", "github.com/miekg/dns"),
			why: "proxy carries, and is handed everything else as the interfaces of proxy/ports.go; even its own children reach it only through cmd's wiring",
		},
		{
			from: "proxy/...", except: []string{"proxy", "proxy/proxytest"}, ours: []string{"policy", "logging/flow"}, never: daemon,
			why: "proxy's children know the nouns and not the proxy, so that each can be tested and replaced alone",
		},
		{
			from: "logging/...", except: []string{"logging/flow"}, never: append(daemon, modulePath+"/proxy/..."),
			why: "what remembers reads flow.Event and never knows who made it",
		},
		{
			from: "console/...", never: []string{"github.com/spf13/...", modulePath + "/proxy", modulePath + "/cmd/..."},
			why: "the console is a window: it reads, and carries nothing",
		},
	}
}

// home is the one place that may import a foreign module, so that leaving the
// module costs one file and its hazards are contained there.
type home struct {
	module string
	places []string // files or, with "/" at their end, folders below the root
}

// homes lists every foreign module that production code imports. A module
// that is not here is not welcome without a line of its own.
func homes() []home {
	return []home{
		{"github.com/aws/aws-sdk-go-v2", []string{"cmd/sallyport/awsconfig.go", "cmd/sallyport/awssecret.go", "cmd/sallyport/policyaws.go", "cmd/sallyport/policyawss3.go", "cmd/sallyport/policyawsssm.go", "proxy/identity/ecs/"}},
		{"github.com/aws/smithy-go/logging", []string{"cmd/sallyport/awsconfig.go", "proxy/identity/ecs/"}},
		{"github.com/coder/websocket", nil},
		{"github.com/elazarl/goproxy", []string{"proxy/connect.go", "proxy/front.go", "proxy/http.go", "integration/bench/peers/"}},
		{"github.com/go-viper/mapstructure/v2", []string{"cmd/sallyport/config.go"}},
		{"github.com/gobwas/glob", []string{"policy/compile.go"}},
		{"github.com/google/go-cmp", nil},
		{"github.com/inetaf/tcpproxy", []string{"integration/bench/peers/"}},
		{"github.com/inconshreveable/go-vhost", []string{"proxy/sni.go"}},
		{"github.com/jackc/pgx/v5", []string{"logging/history/"}},
		{"github.com/miekg/dns", []string{"proxy/resolve/", "proxy/steer/", "proxy/proxytest/"}},
		{"github.com/netsampler/goflow2/v2", nil},
		{"github.com/oklog/ulid/v2", []string{"logging/flow/"}},
		{"github.com/pires/go-proxyproto", []string{"proxy/proxyheader.go"}},
		{"github.com/pressly/goose/v3", []string{"logging/history/engine.go"}},
		{"github.com/prometheus", []string{"logging/metrics/"}},
		{"github.com/rogpeppe/go-internal", nil},
		{"github.com/rs/zerolog", []string{"cmd/", "console/", "logging/", "proxy/"}},
		{"github.com/santhosh-tekuri/jsonschema/v6", nil},
		{"github.com/spf13/cobra", []string{"cmd/sallyport/"}},
		{"github.com/spf13/pflag", []string{"cmd/sallyport/"}},
		{"github.com/spf13/viper", []string{"cmd/sallyport/config.go"}},
		{"github.com/weppos/publicsuffix-go", []string{"policy/broad.go"}},
		{"go.uber.org/goleak", nil},
		{"go.yaml.in/yaml/v3", []string{"cmd/sallyport/", "policy/"}},
		{"golang.org/x/crypto/cryptobyte", []string{"proxy/"}},
		{"golang.org/x/crypto/x509roots/fallback", []string{"cmd/sallyport/"}},
		{"golang.org/x/net/http/httpguts", []string{"proxy/"}},
		{"golang.org/x/net/idna", []string{"policy/"}},
		{"golang.org/x/net/publicsuffix", []string{"policy/"}},
		{"golang.org/x/sync", []string{"cmd/sallyport/", "logging/", "proxy/"}},
		{"golang.org/x/sys", []string{"proxy/"}},
		{"golang.org/x/time", []string{"proxy/"}},
		{"modernc.org/sqlite", []string{"logging/history/"}},
	}
}

func TestImportDirections(t *testing.T) {
	graph := goList(t)
	for _, b := range boundaries() {
		for _, p := range slices.Sorted(maps.Keys(graph)) {
			rel, ours := strings.CutPrefix(p, modulePath+"/")
			if !ours || !within(rel, b.from) || slices.Contains(b.except, rel) {
				continue
			}
			for _, chain := range reached(graph, p) {
				if end := chain[len(chain)-1]; b.forbids(rel, end) {
					t.Errorf("%s\n\tWhy not: %s.", strings.Join(chain, "\n\t-> "), b.why)
				}
			}
		}
	}
}

// forbids reports whether a package below the module may not reach target.
func (b boundary) forbids(from, target string) bool {
	if rel, ours := strings.CutPrefix(target, modulePath+"/"); ours && b.ours != nil && rel != from {
		return !slices.Contains(b.ours, rel)
	}
	return slices.ContainsFunc(b.never, func(n string) bool { return within(target, n) })
}

// TestImporters holds the two packages that few may import to those few.
func TestImporters(t *testing.T) {
	for p, pkg := range goList(t) {
		for _, i := range pkg.Imports {
			if within(i, modulePath+"/console/...") && !within(p, modulePath+"/console/...") && !within(p, modulePath+"/cmd/...") {
				t.Errorf("%s imports %s\n\tWhy not: the console is a porch that only cmd joins to the house.", p, i)
			}
			if p == modulePath+"/integration/bench" { // which does not ship
				continue
			}
			if within(i, modulePath+"/proxy/proxytest") || within(i, modulePath+"/logging/history/historytest") {
				t.Errorf("%s imports %s outside its tests\n\tWhy not: it makes certificates and servers for tests, and nothing of it may ship.", p, i)
			}
		}
	}
}

// listed is what go list tells of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// goList returns every package of the module and all it leads to, tests
// apart. Each is asked about for Linux, where the product runs.
func goList(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports", "./...")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	graph := make(map[string]listed)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return graph
		} else if err != nil {
			t.Fatal(err)
		}
		graph[p.ImportPath] = p
	}
}

// reached returns the shortest chain of imports to every package that p leads
// to. What the standard library imports in turn is its own affair, and so is
// what foreign modules import of it.
func reached(graph map[string]listed, p string) [][]string {
	seen := map[string]bool{p: true}
	var chains [][]string
	for queue := [][]string{{p}}; len(queue) > 0; queue = queue[1:] {
		chain := queue[0]
		at := chain[len(chain)-1]
		ours := within(at, modulePath+"/...")
		for _, i := range graph[at].Imports {
			if seen[i] || graph[i].Standard && !ours {
				continue
			}
			seen[i] = true
			next := append(slices.Clip(slices.Clone(chain)), i)
			chains = append(chains, next)
			if !graph[i].Standard {
				queue = append(queue, next)
			}
		}
	}
	return chains
}

// within reports whether a path is the one named or, with "..." at the end of
// the name, in its tree.
func within(p, name string) bool {
	tree, isTree := strings.CutSuffix(name, "/...")
	return p == tree || isTree && strings.HasPrefix(p, tree+"/")
}

func TestThirdPartyHomes(t *testing.T) {
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, spec := range f.syntax.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if within(imported, modulePath+"/...") || !strings.Contains(strings.Split(imported, "/")[0], ".") {
				continue
			}
			i := slices.IndexFunc(homes(), func(h home) bool { return within(imported, h.module+"/...") })
			switch {
			case i < 0:
				t.Errorf("%s imports %s, which has no home\n\tGive it one line in homes(), with the reason in the commit message.", f.path, imported)
			case !slices.ContainsFunc(homes()[i].places, func(place string) bool {
				return f.path == place || strings.HasSuffix(place, "/") && strings.HasPrefix(f.path, place)
			}):
				t.Errorf("%s imports %s, whose home is %q\n\tWhy not: a foreign module has one home, so that its hazards are contained and leaving it costs one file.",
					f.path, imported, homes()[i].places)
			}
		}
	}
}

func TestPackages(t *testing.T) {
	documented := make(map[string]bool)
	for _, f := range sources(t) {
		dir := path.Dir(f.path)
		if f.test {
			continue
		}
		documented[dir] = documented[dir] || f.syntax.Doc != nil
		switch name := f.syntax.Name.Name; name {
		case "util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "types":
			t.Errorf("%s: package %s\n\tWhy not: a package is named for what it does; this name says nothing and gathers everything.", f.path, name)
		}
		for part := range strings.SplitSeq(dir, "/") {
			if part == "internal" || part == "pkg" {
				t.Errorf("%s: a folder %s\n\tWhy not: the house has four rooms and a porch, and no cellar.", f.path, part)
			}
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no doc comment\n\tIts doc.go is its design page: the idea, the guarantees, what it will never do.", dir)
		}
	}
}

func TestLengths(t *testing.T) {
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		if lines := f.set.Position(f.syntax.FileEnd).Line; lines > maxFile {
			t.Errorf("%s has %d lines, more than %d: it holds two subjects", f.path, lines, maxFile)
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncDecl)
			if !ok {
				return true
			}
			from, to := f.set.Position(fn.Pos()), f.set.Position(fn.End())
			if lines := to.Line - from.Line + 1; lines > maxFunction {
				t.Errorf("%s:%d: %s has %d lines, more than %d", f.path, from.Line, fn.Name.Name, lines, maxFunction)
			}
			return true
		})
	}
}

// source is one Go file that git knows or would take.
type source struct {
	path   string // below the root, with slashes
	test   bool   // serves tests only
	set    *token.FileSet
	syntax *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, p := range tracked(t) {
		if !strings.HasSuffix(p, ".go") {
			continue
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, filepath.Join(root(t), p), nil, parser.ParseComments)
		if err != nil {
			t.Error(err)
			continue
		}
		test := strings.HasSuffix(p, "_test.go")
		all = append(all, source{path: p, test: test, set: set, syntax: syntax})
	}
	if len(all) == 0 {
		t.Fatal("no Go file found: the tests of the house would prove nothing")
	}
	return all
}

// TestNothingOfThisMachine: what is committed works anywhere, so no file names
// a folder of the machine it was written on, and none that installs anything
// names the registry that this machine uses.
func TestNothingOfThisMachine(t *testing.T) {
	tree := []byte(root(t))
	homeFolder := regexp.MustCompile(`(^|[^\w./~-])/(root|home/\w+|Users/\w+)/`)
	hosts := registryHosts(t)
	for _, p := range tracked(t) {
		text, err := os.ReadFile(filepath.Join(root(t), p))
		if err != nil {
			t.Error(err)
			continue
		}
		for n, line := range bytes.Split(text, []byte("\n")) {
			if bytes.Contains(line, tree) || homeFolder.Match(line) {
				t.Errorf("%s:%d names a folder of this machine: %.120q", p, n+1, line)
			}
			for _, host := range hosts {
				if !speaksOfRegistries(p) && bytes.Contains(line, []byte(host)) {
					t.Errorf("%s:%d names this machine's registry: %.120q", p, n+1, line)
				}
			}
		}
	}
}

// speaksOfRegistries reports whether a file may name registries because
// policies about them are its subject.
func speaksOfRegistries(p string) bool {
	return strings.HasPrefix(p, "policy/") || strings.HasPrefix(p, "examples/policies/") ||
		strings.Contains(p, "/testdata/") || strings.HasSuffix(p, "_test.go") || strings.HasSuffix(p, ".md")
}

// registryHosts returns the hosts that Go and npm fetch from here.
func registryHosts(t *testing.T) []string {
	t.Helper()
	var hosts []string
	for _, command := range [][]string{{"go", "env", "GOPROXY"}, {"npm", "config", "get", "registry"}} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).Output()
		if err != nil {
			continue // no npm here
		}
		for url := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return strings.ContainsRune(",| \n", r) }) {
			if _, host, found := strings.Cut(url, "://"); found {
				host, _, _ = strings.Cut(host, "/")
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// tracked returns the files that git knows or would take, below the root.
func tracked(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("this is no git work tree: %v", err)
	}
	var files []string
	for p := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if info, err := os.Lstat(filepath.Join(root(t), p)); err == nil && info.Mode().IsRegular() {
			files = append(files, p)
		}
	}
	return files
}

// root returns the folder that holds go.mod.
func root(t *testing.T) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(wd)
}
