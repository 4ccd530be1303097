package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

func suggestCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "suggest", Short: "propose the smallest policy for what was observed", Args: cobra.NoArgs}
	addEvidenceFlags(cmd)
	var o policy.SuggestOptions
	cmd.Flags().Int64Var(&o.MinCount, "min-count", 2, "`N` attempts that must have reached a destination")
	cmd.Flags().IntVar(&o.MinSiblings, "min-siblings", 5, "`N` names that make a wildcard where one is safe; 0 for none")
	sources := cmd.Flags().StringArray("policy", nil, "`SOURCE` of the policy in force, for its sources and private ranges; repeatable")
	cases := cmd.Flags().String("cases", "", "`FILE` to write the evidence to, as test cases")
	tests := cmd.Flags().String("tests", "suggested.yaml", "`FILE` that the cases test: where the policy will stand")
	asJSON := cmd.Flags().Bool("json", false, "print the suggestion as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.MinSiblings == 0 {
			o.MinSiblings = -1
		}
		if len(*sources) > 0 {
			p, err := loadSources(cmd, *sources)
			if err != nil {
				return err
			}
			o.Policy = p
		}
		e, err := readEvidence(cmd)
		if err != nil {
			return err
		}
		s := policy.Suggest(e.seen, o)
		if len(s.Rules) == 0 {
			talkSuggestion(cmd.ErrOrStderr(), &s)
			return fmt.Errorf("there is nothing to suggest: %s observed, %d left out", counted(len(e.seen), "site"), len(s.LeftOut))
		}
		if *cases != "" {
			if err := os.WriteFile(*cases, s.Cases(relativeTo(*cases, *tests)), 0o644); err != nil { //nolint:gosec // a test is no secret
				return err
			}
		}
		if *asJSON {
			return writeIndented(cmd.OutOrStdout(), suggested{s, string(s.Document())})
		}
		talkSuggestion(cmd.ErrOrStderr(), &s)
		_, err = cmd.OutOrStdout().Write(s.Document())
		return err
	}
	return cmd
}

// suggested is the result of `policy suggest --json`.
type suggested struct {
	policy.Suggestion
	Document string `json:"document"`
}

// loadSources loads the policy of some sources.
func loadSources(cmd *cobra.Command, sources []string) (*policy.Policy, error) {
	texts, err := readArguments(cmd.Context(), sources, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	p, err := policy.Load(texts...)
	if err != nil {
		return nil, policyFaults(err, exitUsage)
	}
	return p, nil
}

// relativeTo writes a path as seen from the folder of another, where it can.
func relativeTo(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if r, err := filepath.Rel(filepath.Dir(file), path); err == nil {
		return r
	}
	return path
}

// talkSuggestion tells a person how much there is behind a suggestion.
func talkSuggestion(w io.Writer, s *policy.Suggestion) {
	fmt.Fprintf(w, "sallyport: %s\n", s.Coverage)
	if len(s.LeftOut) > 0 {
		fmt.Fprintf(w, "sallyport: %s for %s; %d left out, see the comments at the end\n", counted(len(s.Rules), "rule"), counted(s.Coverage.Callers, "caller"), len(s.LeftOut))
	}
	if !s.Coverage.Complete() {
		fmt.Fprint(w, "sallyport: warning: what happens seldom may not have been seen yet; keep report mode for a week of every service\n")
	}
}

func writeIndented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeLine writes a value as a line of JSON.
func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
