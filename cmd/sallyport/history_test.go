package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What may change is read again, and what it holds is in no error.
func TestRereadStore(t *testing.T) {
	l := &loaded{origins: map[string]string{}}
	for _, fixed := range []string{"postgres://app:secret@db/h", "sqlite::memory:", "sqlite:/tmp/h.db", "env:HISTORY_URL", historyOff} {
		if l.rereadStore(fixed) != nil {
			t.Errorf("%s is read again", fixed)
		}
	}
	file := filepath.Join(t.TempDir(), "url")
	read := l.rereadStore("file:" + file)
	for _, step := range []struct{ text, want, wrong string }{
		{"postgres://app:secret1@db/h\n", "postgres://app:secret1@db/h", ""},
		{"postgres://app:secret2@db/h\n", "postgres://app:secret2@db/h", ""},
		{" \n", "", "is empty"},
		{"secret3", "", "is no store"},
		{"postgres://app:secret4%zz@db/h", "", "is no store"},
	} {
		if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := read(t.Context())
		if got != step.want || (err == nil) != (step.wrong == "") {
			t.Errorf("%q: %q, %v", step.text, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), step.wrong) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: %v", step.text, err)
		}
	}
	if l.rereadStore("secretsmanager:sallyport/history") == nil {
		t.Error("a secret is not read again")
	}
}
