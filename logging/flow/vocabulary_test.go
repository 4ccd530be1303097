package flow

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// constants reads the string constants of a type from the sources in dir, so
// that a word that is added there and forgotten here is noticed.
func constants(t *testing.T, dir, typeName string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	var out []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typeName {
				return true
			}
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok {
					s, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					out = append(out, s)
				}
			}
			return true
		})
	}
	slices.Sort(out)
	return out
}

func TestOutcomesAreComplete(t *testing.T) {
	want := constants(t, ".", "Outcome")
	for _, r := range constants(t, "../../policy", "Reason") {
		if policy.Reason(r) != policy.ReasonRule {
			want = append(want, r)
		}
	}
	slices.Sort(want)
	var got []string
	for _, o := range Outcomes() {
		got = append(got, string(o))
		if !o.Valid() {
			t.Errorf("%q is not valid", o)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("Outcomes() is\n%q, the sources say\n%q", got, want)
	}
	for _, o := range []Outcome{"", "rule", "OK", "made_up"} {
		if o.Valid() {
			t.Errorf("%q is valid", o)
		}
	}
}

func TestEndedBysAreComplete(t *testing.T) {
	var got []string
	for _, e := range EndedBys() {
		got = append(got, string(e))
	}
	slices.Sort(got)
	if want := constants(t, ".", "EndedBy"); !slices.Equal(got, want) {
		t.Errorf("EndedBys() is %q, the sources say %q", got, want)
	}
}

func TestKindString(t *testing.T) {
	got := []string{Kind(0).String(), Opened.String(), Closed.String(), Denied.String()}
	if want := []string{"unknown", "open", "close", "deny"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDuration(t *testing.T) {
	start := time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		end  time.Time
		want time.Duration
	}{
		{"lasts", time.Time{}, 0},
		{"ended", start.Add(3 * time.Second), 3 * time.Second},
		{"clock stepped back", start.Add(-time.Second), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Record{Start: start, End: tt.end}
			if got := r.Duration(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestEnforcement(t *testing.T) {
	want := map[policy.Via]string{
		policy.ViaUnknown: "", policy.ViaConnect: "connect", policy.ViaHTTP: "http", policy.ViaTLS: "sni", policy.ViaTCP: "", policy.ViaDNS: "",
	}
	for via, w := range want {
		if r := (Record{Via: via}); r.Enforcement() != w {
			t.Errorf("%v: got %q, want %q", via, r.Enforcement(), w)
		}
	}
}
