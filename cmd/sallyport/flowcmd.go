package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

func flowCommand() *cobra.Command {
	return group("flow", "recent attempts to leave", flowListCommand(), flowFollowCommand(), flowShowCommand(), flowDiffCommand())
}

// flowLimit is how many flows are listed where nothing else is said.
const flowLimit = 100

func flowListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "list recent attempts, the newest first", Args: cobra.NoArgs}
	addSourceFlags(cmd)
	addFilterFlags(cmd)
	addFormFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := readFilter(cmd, time.Now(), flowLimit)
		if err != nil {
			return err
		}
		source, closing, err := openHistory(cmd)
		if err != nil {
			return err
		}
		defer closing()
		sheet := newSheet(cmd, flowColumns())
		for one, err := range source.Flows(cmd.Context(), f) {
			if err != nil {
				return err
			}
			if err := addFlow(sheet, &one); err != nil {
				return err
			}
		}
		if f.Limit > 0 && sheet.rows == f.Limit {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: the newest %d are shown; --limit 0 shows all\n", f.Limit)
		}
		if err := sheet.end(); err != nil {
			return err
		}
		return tellGaps(cmd.Context(), cmd.ErrOrStderr(), source, f.Since)
	}
	return cmd
}

func flowColumns() []column {
	return []column{
		{"start", "START"},
		{"id", "ID"},
		{"service", "SERVICE"},
		{"cluster", ""},
		{"family", ""},
		{"revision", ""},
		{"task", ""},
		{"client", ""},
		{"host", "TO"},
		{"port", ""},
		{"via", "VIA"},
		{"verdict", "VERDICT"},
		{"reason", "REASON"},
		{"rule", ""},
		{"outcome", "OUTCOME"},
		{"bytes_sent", "SENT"},
		{"bytes_received", "RECEIVED"},
		{"duration_ms", "TOOK"},
		{"policy_version", ""},
		{"instance", ""},
	}
}

func addFlow(sheet *sheet, f *history.Flow) error {
	family, revision, task, client := f.Family, "", "", ""
	if t := f.Task; t != nil {
		family, task = t.Family, t.ID()
		if t.Revision > 0 {
			revision = strconv.Itoa(t.Revision)
		}
	}
	if f.Client.IsValid() {
		client = f.Client.String()
	}
	return sheet.add(f,
		timeCell(f.Start), plainCell(f.ID), plainCell(f.CallerName()), plainCell(f.Cluster), plainCell(family), plainCell(revision), plainCell(task), plainCell(client),
		cell{destination(f), f.Host}, countCell(int64(f.Port)), plainCell(f.Via.String()), cell{flowVerdict(f), f.Verdict.String()},
		plainCell(string(f.Reason)), plainCell(f.Rule), plainCell(string(f.Outcome)), bytesCell(f.BytesSent), bytesCell(f.BytesReceived),
		durationCell(f.Duration(), f.End.IsZero()), plainCell(f.PolicyVersion), plainCell(f.Instance),
	)
}

func destination(f *history.Flow) string {
	if f.Host == "" {
		return ""
	}
	if f.Port == 0 {
		return f.Host
	}
	return net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))
}

func flowVerdict(f *history.Flow) string {
	if f.Verdict == policy.Allow && f.WouldDeny {
		return "would deny"
	}
	return f.Verdict.String()
}

func flowFollowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "follow", Short: "print attempts as they come", Args: cobra.NoArgs}
	addSourceFlags(cmd)
	addFilterFlags(cmd, "since", "until", "limit")
	cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := readFilter(cmd, time.Now(), 0)
		if err != nil {
			return err
		}
		source, closing, err := openHistory(cmd)
		if err != nil {
			return err
		}
		defer closing()
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		asJSON, _ := cmd.Flags().GetBool("json") // it is there
		for one, err := range source.Follow(ctx, f) {
			if err != nil {
				return err
			}
			if err := followed(cmd.OutOrStdout(), &one, asJSON); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// followed prints a flow on a line of its own.
func followed(w io.Writer, f *history.Flow, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(f)
	}
	what := "open"
	if !f.End.IsZero() {
		what = fmt.Sprintf("%s, sent %s, received %s, %s", f.Outcome, humanBytes(f.BytesSent), humanBytes(f.BytesReceived), durationCell(f.Duration(), false).table)
	}
	if f.Verdict == policy.Deny {
		what = string(f.Reason)
	}
	_, err := fmt.Fprintf(w, "%s %s %s %s %s (%s)\n", f.Start.UTC().Format("15:04:05.000"), f.ID, flowVerdict(f), shown(f.CallerName()), shown(destination(f)), shown(what))
	return err
}

func flowShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID...", Short: "tell all that is known of an attempt", Args: cobra.MinimumNArgs(1)}
	addSourceFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		source, closing, err := openHistory(cmd)
		if err != nil {
			return err
		}
		defer closing()
		asJSON, _ := cmd.Flags().GetBool("json") // it is there
		for i, id := range args {
			one, err := source.Flow(cmd.Context(), id)
			if err != nil {
				return err
			}
			text, err := json.Marshal(one)
			if err != nil {
				return err
			}
			if asJSON {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
				continue
			}
			if i > 0 {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			if err := writeFields(cmd.OutOrStdout(), "", text); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// writeFields writes a JSON object a field a line, in its own order.
func writeFields(w io.Writer, prefix string, object []byte) error {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		name := prefix + key.(string) //nolint:forcetypeassert // the key of an object
		var text string
		switch {
		case value[0] == '{':
			if err := writeFields(w, name+".", value); err != nil {
				return err
			}
			continue
		case json.Unmarshal(value, &text) != nil:
			text = string(value)
		}
		if _, err := fmt.Fprintf(w, "%-24s %s\n", shown(name), shown(text)); err != nil {
			return err
		}
	}
	return nil
}

func flowDiffCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "diff OLD NEW", Short: "tell what one revision of a task definition reaches and another never did", Args: cobra.ExactArgs(2)}
	addSourceFlags(cmd)
	cmd.Flags().String("family", "", "the task definition's `FAMILY`")
	addFormFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		family, _ := cmd.Flags().GetString("family") // it is there
		if family == "" {
			return refuse("give --family", "of which task definition are %s and %s?", args[0], args[1])
		}
		var revisions [2]int
		for i, text := range args {
			n, err := strconv.Atoi(text)
			if err != nil || n <= 0 {
				return refuse("write two numbers, such as 41 42", "%q is no revision", text)
			}
			revisions[i] = n
		}
		if revisions[0] == revisions[1] {
			return refuse("", "revision %d against itself: nothing is new in it whatever it does", revisions[0])
		}
		source, closing, err := openHistory(cmd)
		if err != nil {
			return err
		}
		defer closing()
		var seen [2][]history.Summary
		for i, n := range revisions {
			sites, err := source.Sites(cmd.Context(), history.Filter{Family: family, Revision: n})
			if err != nil {
				return err
			}
			if len(sites) == 0 {
				return &fault{err: fmt.Errorf("nothing is remembered of %s:%d: there is nothing to compare", family, n), hint: "sallyport site list --family " + family + " tells what is"}
			}
			seen[i] = history.Summarize(sites)
		}
		return diffRevisions(cmd, history.Revision{Family: family, Revision: revisions[0]}, history.Revision{Family: family, Revision: revisions[1]}, seen)
	}
	return cmd
}

// diffRevisions prints what the second one has and the first has not, and says
// no if there is anything.
func diffRevisions(cmd *cobra.Command, old, now history.Revision, seen [2][]history.Summary) error {
	type reach struct {
		where   string
		port    uint16
		verdict policy.Verdict
	}
	known := map[reach]bool{}
	for _, s := range seen[0] {
		// Whether names that were too many to be kept were the same ones nobody knows.
		known[reach{s.Where(), s.Port, s.Verdict}] = s.Host != history.Other
	}
	fresh := slices.DeleteFunc(seen[1], func(s history.Summary) bool { return known[reach{s.Where(), s.Port, s.Verdict}] })
	sheet := newSheet(cmd, siteColumns())
	if sheet.form == "table" {
		if len(fresh) == 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "%s reaches nothing that %s did not\n", now, old)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s reaches %s that %s never did\n", now, plural(len(fresh), "site"), old)
	}
	if err := writeSites(sheet, fresh); err != nil {
		return err
	}
	if len(fresh) > 0 {
		return errNo
	}
	return nil
}
