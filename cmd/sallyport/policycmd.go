package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

func policyCommand() *cobra.Command {
	return group("policy", "write, check, question, test and change policies", checkCommand(), explainCommand(), testCommand(), suggestCommand(), replayCommand(), diffCommand(),
		acceptCommand(), denyCommand(), overlayCommand(), exportCommand(), historyCommand(), rollbackCommand(), endpointCommand())
}

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "check FILE...", Short: "read policies as serve would, and say what is wrong", Args: cobra.MinimumNArgs(1)}
	strict := cmd.Flags().Bool("strict", false, "warnings fail too")
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		texts, err := readArguments(cmd.Context(), args, cmd.InOrStdin())
		if err != nil {
			return err
		}
		p, err := policy.Load(texts...)
		if *asJSON {
			return writeCheck(cmd.OutOrStdout(), p, err, *strict)
		}
		if err != nil {
			return policyFaults(err, exitNo)
		}
		return talkCheck(cmd, p, *strict)
	}
	return cmd
}

// policyFaults turns what is wrong with policy documents into one fault each.
func policyFaults(err error, code int) error {
	all, ok := errors.AsType[policy.Errors](err)
	if !ok {
		return &fault{code: code, err: err}
	}
	var faults []error
	for _, e := range all {
		detail := *e
		detail.Hint = "" // report prints it in its own place
		faults = append(faults, &fault{code: code, err: errors.New(detail.Detail()), hint: e.Hint})
	}
	return errors.Join(faults...)
}

// talkCheck tells a person about a policy that is good.
func talkCheck(cmd *cobra.Command, p *policy.Policy, strict bool) error {
	warnings := p.Warnings(time.Now())
	for _, w := range warnings {
		talkWarning(cmd.ErrOrStderr(), "warning", w)
	}
	for _, n := range p.Notes() {
		talkWarning(cmd.ErrOrStderr(), "note", n)
	}
	if strict && len(warnings) > 0 {
		return fmt.Errorf("%s, and --strict lets none pass", counted(len(warnings), "warning"))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "ok: %s, %s, version %s\n", counted(len(p.Rules()), "rule"), counted(p.Sources(), "source"), p.Version())
	return nil
}

func talkWarning(w io.Writer, word string, about policy.Warning) {
	fmt.Fprintf(w, "sallyport: %s: %s\n", word, about)
	if about.Hint != "" {
		fmt.Fprintf(w, "sallyport: hint: %s\n", about.Hint)
	}
}

// counted writes a number and its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// finding is an error, a warning or a note, as JSON.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func found(pos policy.Pos, message, hint string) finding {
	return finding{pos.File, pos.Line, pos.Column, message, hint}
}

// checked is the result of `policy check --json`.
type checked struct {
	OK       bool      `json:"ok"`
	Version  string    `json:"version,omitempty"`
	Rules    int       `json:"rules"`
	Sources  int       `json:"sources"`
	Errors   []finding `json:"errors"`
	Warnings []finding `json:"warnings"`
	Notes    []finding `json:"notes"`
}

func writeCheck(w io.Writer, p *policy.Policy, loadErr error, strict bool) error {
	c := checked{Errors: []finding{}, Warnings: []finding{}, Notes: []finding{}}
	if all, ok := errors.AsType[policy.Errors](loadErr); ok {
		for _, e := range all {
			c.Errors = append(c.Errors, found(e.Pos, e.Message, e.Hint))
		}
	} else if loadErr != nil {
		return loadErr
	}
	for _, x := range p.Warnings(time.Now()) {
		c.Warnings = append(c.Warnings, found(x.Pos, x.Message, x.Hint))
	}
	for _, x := range p.Notes() {
		c.Notes = append(c.Notes, found(x.Pos, x.Message, x.Hint))
	}
	c.OK = loadErr == nil && (!strict || len(c.Warnings) == 0)
	c.Version, c.Rules, c.Sources = p.Version(), len(p.Rules()), p.Sources()
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		return err
	}
	if !c.OK {
		return errNo
	}
	return nil
}
