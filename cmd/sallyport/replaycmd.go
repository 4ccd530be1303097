package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "replay CANDIDATE...", Short: "say what a candidate would have denied and allowed of what was observed", Args: cobra.MinimumNArgs(1)}
	addEvidenceFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		candidate, err := loadSources(cmd, args)
		if err != nil {
			return err
		}
		e, err := readEvidence(cmd)
		if err != nil {
			return err
		}
		r := e.replay(candidate, nil)
		if *asJSON {
			err = writeIndented(cmd.OutOrStdout(), r)
		} else {
			err = talkReplay(cmd.OutOrStdout(), &r, "")
		}
		switch {
		case err != nil:
		case len(r.NewlyDenied) > 0:
			err = errNo
		case r.Attempts == 0:
			err = nothingReplayed(&r.Replayed)
		}
		return err
	}
	return cmd
}

// replayed is the result of `policy replay`.
type replayed struct {
	policy.Replayed
	// FlowsSince is when the oldest flow began that was asked for addresses; zero
	// where none was missed, or there are no flows.
	FlowsSince time.Time `json:"flows_since,omitzero"`
}

// replay puts the evidence to a candidate, see [policy.Replay].
func (e *evidence) replay(candidate, baseline *policy.Policy) replayed {
	r := replayed{Replayed: policy.Replay(candidate, baseline, e.seen)}
	if r.Unaddressed > 0 {
		r.FlowsSince = e.flowsSince
	}
	return r
}

// nothingReplayed says why there was nothing to judge.
func nothingReplayed(r *policy.Replayed) error {
	if r.Undecided > 0 {
		return &fault{err: fmt.Errorf("nothing was replayed: none of %s kept its name, which proves nothing", attempts(r.Undecided)), hint: "the flow log has all of them: --flows FILE"}
	}
	return &fault{err: errors.New("nothing was replayed: what was asked for was never observed, which proves nothing"), hint: "sallyport site list tells what was"}
}

// talkReplay tells a replay to a person. than says what the answers differ from,
// "" for what happened.
func talkReplay(w io.Writer, r *replayed, than string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s replayed", attempts(r.Attempts), counted(r.Sites, "site"))
	if r.Unjudged > 0 {
		fmt.Fprintf(&b, "; %d more ended for what no policy decides", r.Unjudged)
	}
	b.WriteString("\n")
	if r.Undecided > 0 {
		fmt.Fprintf(&b, "%s cannot be decided: there were too many names to keep them\n", attempts(r.Undecided))
	}
	if r.Unaddressed > 0 {
		kept := "no flow is kept that tells"
		if !r.FlowsSince.IsZero() {
			kept = "none of the flows looked at, back to " + r.FlowsSince.UTC().Format("2006-01-02 15:04 UTC") + ", tells"
		}
		fmt.Fprintf(&b, "%s judged by name alone: %s the address, which the candidate may forbid\n", counted(r.Unaddressed, "site"), kept)
	}
	if r.Report {
		b.WriteString("the candidate is in report mode: it is replayed as if it were enforced\n")
	}
	for _, part := range []struct {
		title   string
		changes []policy.Change
	}{{"newly denied", r.NewlyDenied}, {"newly allowed", r.NewlyAllowed}} {
		fmt.Fprintf(&b, "%s%s: %d\n", part.title, than, len(part.changes))
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, c := range part.changes {
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\tlast %s\n", c.Caller, c.Site, deciding(c.After), attempts(c.Count), c.Last.UTC().Format("2006-01-02 15:04 UTC"))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// deciding names what an answer was decided by.
func deciding(a policy.Answer) string {
	if a.Rule == "" {
		return string(a.Reason)
	}
	return fmt.Sprintf("%s %q", a.Reason, a.Rule)
}

func attempts(n int64) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

func diffCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "diff A B", Short: "say how two policies differ, and what it would mean for what was observed", Args: cobra.ExactArgs(2)}
	addEvidenceFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := loadSources(cmd, args[:1])
		if err != nil {
			return err
		}
		b, err := loadSources(cmd, args[1:])
		if err != nil {
			return err
		}
		result := diffed{Differences: append([]policy.Difference{}, policy.Diff(a, b)...)}
		if evidenceGiven(cmd) {
			e, err := readEvidence(cmd)
			if err != nil {
				return err
			}
			effect := e.replay(b, a)
			result.Effect = &effect
		}
		if *asJSON {
			err = writeIndented(cmd.OutOrStdout(), result)
		} else {
			err = result.talk(cmd.OutOrStdout())
		}
		if err == nil && result.differs() {
			err = errNo
		}
		return err
	}
	return cmd
}

// diffed is the result of `policy diff`.
type diffed struct {
	Differences []policy.Difference `json:"differences"`
	Effect      *replayed           `json:"effect,omitempty"`
}

func (d *diffed) differs() bool {
	return len(d.Differences) > 0 || (d.Effect != nil && len(d.Effect.NewlyDenied)+len(d.Effect.NewlyAllowed) > 0)
}

func (d *diffed) talk(w io.Writer) error {
	for _, one := range d.Differences {
		if _, err := io.WriteString(w, one.String()); err != nil {
			return err
		}
	}
	if d.Effect != nil {
		return talkReplay(w, d.Effect, " by B")
	}
	if len(d.Differences) == 0 {
		_, err := fmt.Fprintln(w, "they mean the same")
		return err
	}
	return nil
}
