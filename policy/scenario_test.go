package policy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "re-record the files under testdata")

// mustLoad loads a policy that is meant to be right.
func mustLoad(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Load(Text{"policy.yaml", []byte(text)})
	if err != nil {
		t.Fatalf("Load: %v\n%s", err, detail(err))
	}
	return p
}

func detail(err error) string {
	if all, ok := errors.AsType[Errors](err); ok {
		return all.Detail()
	}
	return fmt.Sprint(err)
}

// ask makes a query of a line "TARGET [KEY VALUE]...", where the keys are
// those of cases that say who calls, tag (K=V), unidentified (true) and at.
func ask(t testing.TB, line string) Query {
	t.Helper()
	words := strings.Fields(line)
	var q Query
	var err error
	if words[0] != "(none)" {
		if q.Via, q.Host, q.Port, q.Protocol, err = ParseTarget(words[0]); err != nil {
			t.Fatal(err)
		}
	}
	var caller CallerText
	for i := 1; i+1 < len(words); i += 2 {
		switch words[i] {
		case "from":
			caller.Addr = words[i+1]
		case "endpoint":
			caller.VPCEndpoint = words[i+1]
		case "principal":
			caller.Principal = words[i+1]
		case "service":
			caller.Service = words[i+1]
		case "family":
			caller.Family = words[i+1]
		case "tag":
			if caller.Tags == nil {
				caller.Tags = map[string]string{}
			}
			key, value, _ := strings.Cut(words[i+1], "=")
			caller.Tags[key] = value
		case "unidentified":
			caller.Unidentified = true
		case "at":
			if q.At, err = time.Parse(time.RFC3339, words[i+1]); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("unknown word %q in %q", words[i], line)
		}
	}
	if q.Source, err = ParseCaller(caller); err != nil {
		t.Fatal(err)
	}
	return q
}

// answer is a decision on one line.
func answer(d Decision) string {
	word := d.Verdict.String()
	if d.WouldDeny() {
		word = "report"
	}
	line := fmt.Sprintf("%s %s", word, d.Reason)
	if d.Rule != nil {
		line += " " + d.Rule.Name
		if d.Verdict == Allow {
			line += " " + d.Protocol.String()
		}
	}
	if d.Source != "" {
		line += " source=" + d.Source
	}
	return line
}

// TestScenarios decides the queries of each file in testdata/scenarios by its
// policies. A file holds *.yaml documents, queries, whose lines are
// "QUERY => ANSWER", and what Load says besides.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			runScenario(t, file, archive)
		})
	}
}

func runScenario(t *testing.T, file string, archive *txtar.Archive) {
	var documents []Text
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			documents = append(documents, Text{f.Name, f.Data})
		}
	}
	p, err := Load(documents...)
	if err != nil {
		t.Fatalf("Load:\n%s", detail(err))
	}
	for i, f := range archive.Files {
		want := string(f.Data)
		var got strings.Builder
		switch f.Name {
		case "queries":
			for line := range strings.Lines(want) {
				query, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " =>")
				if strings.TrimSpace(query) == "" || strings.HasPrefix(query, "#") {
					got.WriteString(line)
					continue
				}
				fmt.Fprintf(&got, "%s => %s\n", query, answer(p.Decide(ask(t, query))))
			}
		case "warnings":
			for _, w := range p.Warnings(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)) {
				fmt.Fprintf(&got, "%s\n  hint: %s\n", w, w.Hint)
			}
		case "notes":
			for _, w := range p.Notes() {
				fmt.Fprintf(&got, "%s\n  hint: %s\n", w, w.Hint)
			}
		case "rules":
			for _, r := range p.Rules() {
				fmt.Fprintf(&got, "%s %s %s %v\n", r.Name, r.Verdict, r.Protocol, r.ResolvesTo)
			}
		default:
			if query, ok := strings.CutPrefix(f.Name, "explain "); ok {
				got.WriteString(p.Explain(ask(t, query)).String())
				break
			}
			continue
		}
		archive.Files[i].Data = []byte(got.String())
		if !*update && got.String() != want {
			t.Errorf("%s (-want +got):\n%s", f.Name, cmp.Diff(want, got.String()))
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
