package policy

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestErrors loads each NAME.yaml of testdata/errors.txtar, which is wrong,
// and compares what is said with NAME.error.
func TestErrors(t *testing.T) {
	const file = "testdata/errors.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		document, want := archive.Files[i], &archive.Files[i+1]
		t.Run(strings.TrimSuffix(document.Name, ".yaml"), func(t *testing.T) {
			data := bytes.ReplaceAll(document.Data, []byte("LATIN"), []byte("version: 1 # caf\xe9"))
			p, err := Load(Text{"policy.yaml", data})
			if err == nil || p != nil {
				t.Fatalf("Load = %v, %v; want an error", p, err)
			}
			var all Errors
			if !errors.As(err, &all) {
				t.Fatalf("the error is %T, not Errors", err)
			}
			for _, e := range all {
				if e.Pos.Line < 1 || e.Pos.Column < 1 || e.Pos.File != "policy.yaml" {
					t.Errorf("%q has no place: %+v", e.Message, e.Pos)
				}
				if len(all.Unwrap()) != len(all) || !errors.As(err, new(*Error)) {
					t.Error("the single errors cannot be reached")
				}
			}
			got := all.Detail() + "\n"
			if *update {
				want.Data = []byte(got)
			} else if got != string(want.Data) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(string(want.Data), got))
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrorsOfSeveralDocuments(t *testing.T) {
	_, err := Load(
		Text{"a.yaml", []byte("version: 1\nsources: [{name: s, cidrs: [10.0.0.0/8]}]\nrules:\n  - {name: r, hosts: [a.example]}\n")},
		Text{"env:SALLYPORT_POLICY", []byte("version: 1\nsources: [{name: s, cidrs: [10.0.0.0/8]}]\nrules:\n  - {name: r, hosts: [b.example]}\n")},
	)
	want := `env:SALLYPORT_POLICY:2:11: the source "s" is defined twice, first at a.yaml:2:11
env:SALLYPORT_POLICY:4:12: the name "r" is taken, by the rule at a.yaml:4:12`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := Load(Text{"big.yaml", bytes.Repeat([]byte("#"), maxDocument+1)})
	if err == nil || !strings.Contains(err.Error(), "more than 16777216") {
		t.Errorf("got %v", err)
	}
}
