package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

func testCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "test FILE...", Short: "run test cases against a policy", Args: cobra.MinimumNArgs(1)}
	override := cmd.Flags().StringArray("policy", nil, "`SOURCE` to test instead of what the files name; repeatable")
	asJSON := cmd.Flags().Bool("json", false, "print a JSON line for each case")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		results, err := runCases(cmd.Context(), args, *override)
		if err != nil {
			return err
		}
		if *asJSON {
			return writeResults(cmd.OutOrStdout(), results)
		}
		return talkResults(cmd.OutOrStdout(), results)
	}
	return cmd
}

// runCases runs the cases of every file, each against the policy that it
// names, relative to itself, or against override where there is one. Nothing
// is run unless all of it can be read.
func runCases(ctx context.Context, files, override []string) ([]policy.CaseResult, error) {
	var results []policy.CaseResult
	var errs []error
	for _, file := range files {
		one, err := runFile(ctx, file, override)
		results, errs = append(results, one...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, refuse("write at least one", "there are no cases: they would prove nothing")
	}
	return results, nil
}

func runFile(ctx context.Context, file string, override []string) ([]policy.CaseResult, error) {
	text, err := readSources(ctx, []string{file})
	if err != nil {
		return nil, err
	}
	cases, err := policy.LoadCases(text[0])
	if err != nil {
		return nil, policyFaults(err, exitUsage)
	}
	sources := override
	if len(sources) == 0 {
		sources = besides(file, cases.Policy)
	}
	if len(sources) == 0 {
		return nil, refuse("write policy: [FILE] into it, or give --policy FILE", "%s names no policy to test", file)
	}
	texts, err := readSources(ctx, sources)
	if err != nil {
		return nil, err
	}
	p, err := policy.Load(texts...)
	if err != nil {
		return nil, policyFaults(err, exitNo)
	}
	return cases.Run(p), nil
}

// besides takes relative paths as relative to the file that names them, so
// that a test means the same from every directory.
func besides(file string, sources []string) []string {
	at, err := parseSource(file)
	if err != nil || at.scheme != "file" {
		return sources
	}
	var all []string
	for _, s := range sources {
		if src, err := parseSource(s); err == nil && src.scheme == "file" && !filepath.IsAbs(src.name) {
			s = "file:" + filepath.Join(filepath.Dir(at.name), src.name)
		}
		all = append(all, s)
	}
	return all
}

func talkResults(w io.Writer, results []policy.CaseResult) error {
	failed := 0
	for _, r := range results {
		if !r.OK() {
			failed++
			fmt.Fprintf(w, "FAIL %s: %s: %s: %s\n", r.Case.Pos, r.Case.Name, r.Case.To, r.Failure)
		}
	}
	if failed > 0 {
		fmt.Fprintf(w, "%d of %s failed\n", failed, counted(len(results), "case"))
		return errNo
	}
	_, err := fmt.Fprintf(w, "ok: %s\n", counted(len(results), "case"))
	return err
}

// caseLine is one line of `policy test --json`.
type caseLine struct {
	At      string        `json:"at"`
	Name    string        `json:"name"`
	To      string        `json:"to"`
	OK      bool          `json:"ok"`
	Failure string        `json:"failure,omitempty"`
	Expect  string        `json:"expect"`
	Verdict string        `json:"verdict"`
	Reason  policy.Reason `json:"reason"`
	Rule    string        `json:"rule,omitempty"`
}

func writeResults(w io.Writer, results []policy.CaseResult) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	var verdict error
	for _, r := range results {
		if !r.OK() {
			verdict = errNo
		}
		if err := enc.Encode(caseLine{
			At: r.Case.Pos.String(), Name: r.Case.Name, To: r.Case.To, OK: r.OK(), Failure: r.Failure, Expect: r.Case.Expect,
			Verdict: r.Decision.Verdict.String(), Reason: r.Decision.Reason, Rule: r.Decision.RuleName(),
		}); err != nil {
			return err
		}
	}
	return verdict
}
