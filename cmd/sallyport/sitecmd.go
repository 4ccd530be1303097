package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

func siteCommand() *cobra.Command {
	return group("site", "what was visited", siteListCommand())
}

func siteListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "list what was visited, and by whom", Args: cobra.NoArgs}
	addSourceFlags(cmd)
	addFilterFlags(cmd)
	addFormFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		f, err := readFilter(cmd, now, 0)
		if err != nil {
			return err
		}
		source, closing, err := openHistory(cmd)
		if err != nil {
			return err
		}
		defer closing()
		limit := f.Limit
		f.Limit = 0 // of what is printed, not of what it is made of
		sites, err := source.Sites(cmd.Context(), f)
		if err != nil {
			return err
		}
		all := history.Summarize(sites)
		sheet := newSheet(cmd, siteColumns())
		if sheet.form == "table" {
			fmt.Fprintln(cmd.OutOrStdout(), discovered(all, f.Since, f.Until, now))
		}
		if limit > 0 && len(all) > limit {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: the first %d of %d are shown\n", limit, len(all))
			all = all[:limit]
		}
		if err := writeSites(sheet, all); err != nil {
			return err
		}
		return tellGaps(cmd.Context(), cmd.ErrOrStderr(), source, f.Since)
	}
	return cmd
}

// discovered is the head line: how much there is, of whom, in what time.
func discovered(all []history.Summary, since, until, now time.Time) string {
	if len(all) == 0 {
		return "Discovered nothing"
	}
	where, callers := map[string]bool{}, map[string]bool{}
	first := now
	for _, s := range all {
		where[fmt.Sprintf("%s:%d", s.Where(), s.Port)] = true
		callers[s.Cluster+"/"+s.Caller] = true
		if s.First.Before(first) {
			first = s.First
		}
	}
	if !since.IsZero() {
		first = since
	}
	if until.IsZero() {
		until = now
	}
	return fmt.Sprintf("Discovered %s visited by %s in %s", plural(len(where), "site"), plural(len(callers), "service"), spanText(until.Sub(first)))
}

func siteColumns() []column {
	return []column{
		{"service", "SERVICE"},
		{"cluster", ""},
		{"site", "SITE"},
		{"port", "PORT"},
		{"verdict", "VERDICT"},
		{"reason", "REASON"},
		{"rule", ""},
		{"visits", "VISITS"},
		{"would_deny", ""},
		{"failed", "FAILED"},
		{"bytes_sent", "SENT"},
		{"bytes_received", "RECEIVED"},
		{"tasks", "TASKS"},
		{"revisions", ""},
		{"s3_operations", ""},
		{"first_seen", "FIRST SEEN"},
		{"last_seen", "LAST SEEN"},
		{"ids", ""},
	}
}

func writeSites(sheet *sheet, all []history.Summary) error {
	for i := range all {
		s := &all[i]
		var reasons, revisions []string
		for _, r := range s.Reasons {
			reasons = append(reasons, string(r))
		}
		for _, r := range s.Revisions {
			revisions = append(revisions, r.String())
		}
		err := sheet.add(s,
			plainCell(s.Caller), plainCell(s.Cluster), plainCell(s.Where()), countCell(int64(s.Port)), cell{verdictText(s), s.Verdict.String()},
			plainCell(strings.Join(reasons, ",")), plainCell(strings.Join(s.Rules, ",")), countCell(s.Visits), countCell(s.WouldDeny), countCell(s.Failed),
			bytesCell(s.BytesSent), bytesCell(s.BytesReceived), countCell(int64(s.Tasks)), plainCell(strings.Join(revisions, ",")),
			plainCell(strings.Join(s.Operations, ",")), timeCell(s.First), timeCell(s.Last), plainCell(strings.Join(s.Sites, ",")),
		)
		if err != nil {
			return err
		}
	}
	return sheet.end()
}

// verdictText tells what report mode lets through from what a rule allows.
func verdictText(s *history.Summary) string {
	if s.Verdict == policy.Allow && s.WouldDeny > 0 {
		return "would deny"
	}
	return s.Verdict.String()
}

// tellGaps says when something is missing in an answer.
func tellGaps(ctx context.Context, talk io.Writer, source historySource, since time.Time) error {
	gaps, err := source.Gaps(ctx, since)
	if err != nil {
		return err
	}
	for _, g := range gaps {
		if g.Events+g.Flows == 0 {
			continue
		}
		fmt.Fprintf(talk, "sallyport: warning: from %s to %s the proxy %s could not keep everything: %d events and %d flows are missing (%s)\n",
			g.From.UTC().Format(time.RFC3339), g.To.UTC().Format(time.RFC3339), shown(g.Instance), g.Events, g.Flows, shown(g.Reason))
	}
	return nil
}
