package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplaceBetween: only what is between the marks changes, and a text
// without them is left alone.
func TestReplaceBetween(t *testing.T) {
	const text = "# Top\n\n" + readmeBegin + "\nold\nolder\n" + readmeEnd + "\n\nbottom\n"
	got, err := replaceBetween(text, "new\n")
	if want := "# Top\n\n" + readmeBegin + "\nnew\n" + readmeEnd + "\n\nbottom\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if again, err := replaceBetween(got, "new\n"); err != nil || again != got {
		t.Errorf("the second time: %q, %v", again, err)
	}
	for _, bad := range []string{"", "no marks", readmeBegin + "\n", readmeEnd + "\n" + readmeBegin + "\n", text + text} {
		if got, err := replaceBetween(bad, "new\n"); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

// TestPublish: the best peer is the cheapest one that filters and is no reference; the ratio is that of the repeats; a README gets table and plot.
func TestPublish(t *testing.T) {
	one := func(subject string, repeat int, cpu float64, change func(*measure)) measure {
		m := measure{Repeat: repeat, Scenario: "http", Way: wayHTTP, Load: "http-32", Subject: subject, Rate: 1, PerUnit: cpu, Filters: true}
		if change != nil {
			change(&m)
		}
		return m
	}
	r := results{Options: options{Repeat: 2, Quick: true}, Measures: []measure{
		one(base, 0, 10, nil), one(base, 1, 20, nil), one(base+"-lean", 0, 1, nil),
		one("cheap", 0, 30, nil), one("cheap", 1, 80, nil), one("dear", 0, 90, nil),
		one("floor", 0, 1, nil),
		one("open", 0, 2, func(m *measure) { m.Filters = false }),
		one("broken", 0, 2, func(m *measure) { m.Failure = "it ended" }),
		one("faulty", 0, 60, func(m *measure) { m.Errors = 3 }),
		{Scenario: "inspect", Way: wayInspect, Load: "upload-8", Subject: base, PerUnit: 1, Filters: true},
		{Scenario: "inspect", Way: wayInspect, Load: "upload-8", Subject: "faulty", PerUnit: 2, Filters: true, Errors: 3},
	}}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(readmePlot)), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "README.md")
	if err := os.WriteFile(path, []byte("before\n"+readmeBegin+"\n"+readmeEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.publish(root); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| plain HTTP request, CPU µs | 15.0 | 55.0 (cheap) | 3.50× |\n",
		"| inspected upload, CPU s/GB | 1.00 | 2.00 (faulty, with errors) | 2.00× |\n",
	} {
		if !strings.Contains(string(text), row) {
			t.Errorf("no row %q in\n%s", row, text)
		}
	}
	if !strings.Contains(string(text), "A quick run") || strings.Count(string(text), "\n| ") != 3 {
		t.Errorf("the README has become\n%s", text)
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(readmePlot))); err != nil {
		t.Error(err)
	}
}

func TestClaims(t *testing.T) {
	for _, c := range claims() {
		if l := loadOf(c.load); l.title == "" {
			t.Errorf("the README claims %s of %s, which is not measured", c.work, c.load)
		}
	}
}
