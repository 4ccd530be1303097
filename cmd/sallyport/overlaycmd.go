package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

func acceptCommand() *cobra.Command {
	return changeCommand("accept", "allow", "let something through from now on, on top of the policy")
}

func denyCommand() *cobra.Command {
	return changeCommand("deny", "deny", "deny something from now on, on top of the policy")
}

// changeCommand writes overlays, one for each site.
func changeCommand(name, action, short string) *cobra.Command {
	cmd := &cobra.Command{Use: name + " SITE...", Short: short, Args: cobra.MinimumNArgs(1)}
	addSourceFlags(cmd)
	c := overlayChange{Action: action}
	var s signedBy
	addSignFlags(cmd, &s)
	cmd.Flags().StringVar(&c.Service, "service", "", "for the service `NAME` or CLUSTER/NAME alone")
	cmd.Flags().StringVar(&c.Source, "source", "", "for the policy's source `NAME` alone")
	lasts := cmd.Flags().String("until", "", "until `TIME`, or for as long as: 12h, 3d")
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s.sign()
		c.Author, c.Reason = s.Author, s.Reason
		var err error
		if c.Until, err = until(*lasts, time.Now()); err != nil {
			return err
		}
		book, closing, err := openBook(cmd, true)
		if err != nil {
			return err
		}
		defer closing()
		var errs []error
		for _, site := range args {
			c.Site = site
			done, err := book.Change(cmd.Context(), c)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if *asJSON {
				err = writeLine(cmd.OutOrStdout(), done)
			} else {
				err = talkChange(cmd.OutOrStdout(), c, &done)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(errs...)
	}
	return cmd
}

// talkChange tells a person what became of a change.
func talkChange(w io.Writer, c overlayChange, done *overlayChanged) error {
	what, whom := "accepted", ""
	if c.Action == "deny" {
		what = "denied"
	}
	switch {
	case c.Service != "":
		whom = " for " + c.Service
	case c.Source != "":
		whom = " for " + c.Source
	}
	var b strings.Builder
	for _, name := range done.Revoked {
		fmt.Fprintf(&b, "revoked the overlay %s\n", name)
	}
	switch {
	case done.Overlay != nil:
		fmt.Fprintf(&b, "%s %s%s: overlay %s\n", what, c.Site, whom, done.Overlay.Name)
	default:
		fmt.Fprintf(&b, "%s%s is %s already, by the rule %q\n", c.Site, whom, what, done.Already)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func overlayCommand() *cobra.Command {
	return group("overlay", "what was accepted and denied on top of the policy", overlayListCommand(), overlayRevokeCommand())
}

func overlayListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "list the overlays that are active", Args: cobra.NoArgs}
	addSourceFlags(cmd)
	all := cmd.Flags().Bool("all", false, "those that were revoked, too")
	asJSON := cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		book, closing, err := openBook(cmd, false)
		if err != nil {
			return err
		}
		defer closing()
		overlays, err := book.Overlays(cmd.Context(), *all)
		if err != nil {
			return err
		}
		return eachOnItsLine(cmd.OutOrStdout(), overlays, *asJSON, func(o *history.Overlay) any { return o }, talkOverlay)
	}
	return cmd
}

// eachOnItsLine writes each of a list as JSON, or as talk tells it.
func eachOnItsLine[T any](w io.Writer, all []T, asJSON bool, value func(*T) any, talk func(io.Writer, *T) error) error {
	tell := talk
	if asJSON {
		tell = func(w io.Writer, one *T) error { return writeLine(w, value(one)) }
	}
	for i := range all {
		if err := tell(w, &all[i]); err != nil {
			return err
		}
	}
	return nil
}

// talkOverlay tells a person of an overlay, on a line.
func talkOverlay(w io.Writer, o *history.Overlay) error {
	line := fmt.Sprintf("%s  %s  %s  by %s", o.ID, o.At.UTC().Format(time.RFC3339), o.Name, onItsLine(o.Author))
	if o.Reason != "" {
		line += ": " + onItsLine(o.Reason)
	}
	switch {
	case !o.Revoked.IsZero():
		line += fmt.Sprintf(" (revoked at %s by %s)", o.Revoked.UTC().Format(time.RFC3339), onItsLine(o.RevokedBy))
	case !o.Until.IsZero():
		line += " (until " + o.Until.UTC().Format(time.RFC3339) + ")"
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// onItsLine keeps what somebody wrote on its line.
func onItsLine(s string) string {
	if q := fmt.Sprintf("%+q", s); q[1:len(q)-1] != s {
		return q
	}
	return s
}

func overlayRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID...", Short: "end overlays, by their ID or name", Args: cobra.MinimumNArgs(1)}
	addSourceFlags(cmd)
	var s signedBy
	addSignFlags(cmd, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s.sign()
		book, closing, err := openBook(cmd, true)
		if err != nil {
			return err
		}
		defer closing()
		active, err := book.Overlays(cmd.Context(), false)
		if err != nil {
			return err
		}
		var errs []error
		for _, wanted := range args {
			id := wanted
			for _, o := range active {
				if o.Name == wanted {
					id = o.ID
				}
			}
			if err := book.Revoke(cmd.Context(), id, s); err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Fprintf(cmd.OutOrStdout(), "revoked the overlay %s\n", onItsLine(wanted))
		}
		return errors.Join(errs...)
	}
	return cmd
}

func exportCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "export [VERSION]", Short: "print the policy in force, overlays and all, as one document", Args: cobra.MaximumNArgs(1)}
	addSourceFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		book, closing, err := openBook(cmd, false)
		if err != nil {
			return err
		}
		defer closing()
		v, err := versionOf(cmd.Context(), book, args)
		if err != nil {
			return err
		}
		merged, err := policy.Merge(v.Texts...)
		if err != nil {
			return fmt.Errorf("version %s: %w", v.Version, err)
		}
		_, err = cmd.OutOrStdout().Write(merged)
		return err
	}
	return cmd
}

// versionOf returns the version that the arguments name, else the one in force.
func versionOf(ctx context.Context, book policyBook, args []string) (history.Version, error) {
	id := "current"
	if len(args) > 0 {
		id = args[0]
	}
	v, err := book.Version(ctx, id)
	if errors.Is(err, history.ErrNotFound) {
		return v, &fault{err: err, hint: "sallyport policy history tells which there are"}
	}
	if err == nil && len(v.Texts) == 0 {
		return v, &fault{err: errors.New("no proxy on this store has had a policy yet"), hint: "start one with this history.store"}
	}
	return v, err
}

func historyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "history [VERSION]", Short: "list the policies that were in force, or show how one differs from that before it", Args: cobra.MaximumNArgs(1)}
	addSourceFlags(cmd)
	limit := cmd.Flags().Int("limit", 20, "at most `N`; 0 for all")
	asJSON := cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		book, closing, err := openBook(cmd, false)
		if err != nil {
			return err
		}
		defer closing()
		if len(args) > 0 {
			v, err := versionOf(cmd.Context(), book, args)
			if err != nil {
				return err
			}
			if *asJSON {
				return writeLine(cmd.OutOrStdout(), newVersionJSON(&v))
			}
			return errors.Join(talkVersion(cmd.OutOrStdout(), &v), talkDiff(cmd.OutOrStdout(), v.Diff))
		}
		all, err := book.Versions(cmd.Context(), *limit)
		if err != nil {
			return err
		}
		return eachOnItsLine(cmd.OutOrStdout(), all, *asJSON, func(v *history.Version) any { return newVersionJSON(v) }, talkVersion)
	}
	return cmd
}

// talkVersion tells a person of a version, on a line.
func talkVersion(w io.Writer, v *history.Version) error {
	line := fmt.Sprintf("%s  %s  by %s", v.Version, v.At.UTC().Format(time.RFC3339), onItsLine(v.Instance))
	if v.Who != "" {
		line += ", for " + onItsLine(v.Who)
	}
	if v.Note != "" {
		line += ": " + onItsLine(v.Note)
	}
	added, removed := 0, 0
	for text := range strings.Lines(v.Diff) {
		switch {
		case strings.HasPrefix(text, "+++"), strings.HasPrefix(text, "---"):
		case strings.HasPrefix(text, "+"):
			added++
		case strings.HasPrefix(text, "-"):
			removed++
		}
	}
	_, err := fmt.Fprintf(w, "%s  (+%d -%d)\n", line, added, removed)
	return err
}

func talkDiff(w io.Writer, diff string) error {
	for line := range strings.Lines(diff) {
		if _, err := fmt.Fprintln(w, onItsLine(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func rollbackCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rollback VERSION", Short: "make the overlays what they were in a version", Args: cobra.ExactArgs(1)}
	addSourceFlags(cmd)
	var s signedBy
	addSignFlags(cmd, &s)
	asJSON := cmd.Flags().Bool("json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s.sign()
		book, closing, err := openBook(cmd, true)
		if err != nil {
			return err
		}
		defer closing()
		done, err := book.Rollback(cmd.Context(), args[0], s)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeIndented(cmd.OutOrStdout(), done)
		} else {
			fmt.Fprintf(cmd.OutOrStdout(), "rolled back to %s: %s revoked, %s restored\n", args[0], counted(len(done.Revoked), "overlay"), counted(len(done.Restored), "overlay"))
		}
		if err == nil && len(done.Differs) > 0 {
			return &fault{
				err:  fmt.Errorf("what the policy's sources hold has changed since, and they are not the store's to change: %s", strings.Join(done.Differs, ", ")),
				hint: "sallyport policy export " + args[0] + " prints what they held",
			}
		}
		return err
	}
	return cmd
}
