package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ours returns every command that this package defines, the root included.
func ours(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.Name() != "completion" && c.Name() != "help" {
			all = append(all, ours(c)...)
		}
	}
	return all
}

// TestHelp holds the hand-laid pages against the commands: every command has
// a page, every page a command, and they speak of the same flags.
func TestHelp(t *testing.T) {
	pages := 0
	for _, cmd := range ours(newRoot()) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			args := strings.Fields(cmd.CommandPath() + " --help")[1:]
			var out, talk bytes.Buffer
			if code := run(t.Context(), args, strings.NewReader(""), &out, &talk); code != exitOK || talk.Len() > 0 {
				t.Fatalf("exit code %d, %s", code, &talk)
			}
			text, err := helpText(cmd)
			if err != nil || out.String() != text {
				t.Fatalf("not the page, %v:\n%s", err, &out)
			}
			pages++
			cmd.InitDefaultHelpFlag()
			cmd.Flags().VisitAll(func(f *pflag.Flag) {
				if !strings.Contains(text, " --"+f.Name) {
					t.Errorf("the page does not mention --%s", f.Name)
				}
			})
			_, options, _ := strings.Cut(text, "\nOptions")
			for _, m := range regexp.MustCompile(`(?m)^ +(?:-., )?--([a-z-]+)`).FindAllStringSubmatch(options, -1) {
				if cmd.Flags().Lookup(m[1]) == nil {
					t.Errorf("the page lists --%s, which is no flag of the command", m[1])
				}
			}
			for line := range strings.Lines(text) {
				if len(line) > 100 {
					t.Errorf("longer than 99 characters: %s", line)
				}
			}
		})
	}
	files, err := fs.Glob(helpTexts, "help/*.txt")
	if err != nil || len(files) != pages {
		t.Errorf("%d pages for %d commands, %v", len(files), pages, err)
	}
}

// TestDefaultsInHelp holds the defaults that serve's page names against the
// defaults that there are.
func TestDefaultsInHelp(t *testing.T) {
	text, err := helpTexts.ReadFile("help/serve.txt")
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	for _, want := range []string{
		"(default " + c.Listeners[0].Address + ")", "(default " + c.Admin.Address + ")",
		"(default " + c.Logging.Level + ")", "(default " + c.Logging.Format + ")", "(default " + c.Logging.Flows + ")",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in help/serve.txt", want)
		}
	}
}

func TestReport(t *testing.T) {
	tests := []struct {
		name string
		err  error
		code int
		want string
	}{
		{"nothing", nil, exitOK, ""},
		{"plain", errors.New("dial: refused"), exitNo, "sallyport: dial: refused\n"},
		{"no", errNo, exitNo, ""},
		{"usage", refuse("do this", "bad %d", 5), exitUsage, "sallyport: bad 5\nsallyport: hint: do this\n"},
		{"joined", errors.Join(errors.New("a"), errors.Join(refuse("", "b"), errors.New("c"))), exitUsage, "sallyport: a\nsallyport: b\nsallyport: c\n"},
		{"lines", errors.New("a\nb"), exitNo, "sallyport: a\n  b\n"},
		{"secret", errors.New("get https://u:p@h/"), exitNo, "sallyport: get https://***@h/\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := report(&out, tt.err); code != tt.code || out.String() != tt.want {
				t.Errorf("code %d, %q; want %d, %q", code, out.String(), tt.code, tt.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	tests := []struct{ in, want string }{{"helo", "hello"}, {"HELLO", "hello"}, {"idel", "idle"}, {"xyz", ""}, {"", ""}, {"drain_timeout", ""}}
	for _, tt := range tests {
		if got := nearest(tt.in, []string{"hello", "dial", "idle", "drain"}); got != tt.want {
			t.Errorf("nearest(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// TestGroupsRefuse: a command that only holds others is no answer.
func TestGroupsRefuse(t *testing.T) {
	for _, args := range [][]string{nil, {"policy"}, {"polic"}, {"policy", "chek"}, {"policy", "chek", "x.yaml"}} {
		var out, talk bytes.Buffer
		if code := run(context.Background(), args, strings.NewReader(""), &out, &talk); code != exitUsage || out.Len() > 0 || !strings.Contains(talk.String(), "hint: ") {
			t.Errorf("%q: code %d, stdout %q, stderr %q", args, code, &out, &talk)
		}
	}
}

// TestExplainAnswersLineByLine plays the caller of a coprocess, who sends a line only once the answer to
// the one before has come, and would wait for ever if answers were held back.
func TestExplainAnswersLineByLine(t *testing.T) {
	e, in, out := streamOf(t, "version: 1\nrules: [{name: a, hosts: [a.test]}]\n")
	defer e.wait()
	for _, ask := range []string{"a.test", "b.test", `{"url": "https://a.test/"}`, "::"} {
		if _, err := io.WriteString(in, ask+"\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"url":"`) {
			t.Fatalf("%s: %q, %v", ask, line, err)
		}
	}
	in.Close()
}

func TestExplainStream(t *testing.T) {
	long := strings.Repeat("x", maxQuestion)
	tests := []struct{ name, in, want string }{
		{"allowed", "a.test", `"verdict":"allow"`},
		{"object", `{"url":"http://a.test:80/","source":"10.0.0.1","at":"2026-01-01T00:00:00Z"}`, `"reason":"no_rule"`},
		{"s3", "bucket-1.s3.eu-west-1.amazonaws.com", `"bucket":"bucket-1"`},
		{"unknown member", `{"url":"a.test","src":"10.0.0.1"}`, `"error":"json: unknown field`},
		{"two values", `{"url":"a.test"} {}`, `"error":"more than one JSON value`},
		{"broken", `{"url":`, `"error":`},
		{"bad source", `{"url":"a.test","source":"me"}`, `"error":"source \"me\" is not an IP address"`},
		{"bad time", `{"url":"a.test","at":"noon"}`, `"error":"time \"noon\"`},
		{"bad host", "a..b", `"error":`},
		{"too long", long + "y", `"error":"the line is longer than`},
		{"carriage return", "a.test\r", `"verdict":"allow"`},
	}
	var in strings.Builder
	for _, tt := range tests {
		in.WriteString(tt.in + "\n\n") // empty lines are skipped
	}
	var out bytes.Buffer
	e := newExplainer(t, "version: 1\nrules: [{name: a, hosts: [a.test]}]\n", &out)
	if err := e.stream(strings.NewReader(strings.TrimSpace(in.String()))); !errors.Is(err, errNo) {
		t.Errorf("err = %v, want errNo", err)
	}
	lines := slices.Collect(strings.Lines(out.String()))
	if len(lines) != len(tests) {
		t.Fatalf("%d answers to %d questions", len(lines), len(tests))
	}
	for i, tt := range tests {
		if !strings.Contains(lines[i], tt.want) {
			t.Errorf("%s: no %s in %s", tt.name, tt.want, lines[i])
		}
		if s3 := strings.Contains(lines[i], `"s3":`); s3 != (tt.name == "s3") {
			t.Errorf("%s: s3 %t: %s", tt.name, s3, lines[i])
		}
	}
}
