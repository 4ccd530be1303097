package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
)

func anomalyCommand() *cobra.Command {
	return group("anomaly", "what is out of the ordinary", anomalyListCommand(), anomalyShowCommand(), anomalyAckCommand())
}

// openAnomalies opens what a command's flags say, to write to it where write is
// true.
func openAnomalies(cmd *cobra.Command, write bool) (anomalyStore, func(), error) {
	if f := cmd.Flags().Lookup("store"); write && f.Changed {
		l, err := loadConfig(cmd.Flags())
		if err != nil {
			return nil, nil, err
		}
		return l.openStoreToWrite(cmd, f.Value.String())
	}
	source, closing, err := openHistory(cmd)
	if err != nil {
		return nil, nil, err
	}
	store, ok := source.(anomalyStore)
	if !ok {
		closing()
		return nil, nil, fmt.Errorf("%T keeps no anomalies", source)
	}
	return store, closing, nil
}

// openStoreToWrite opens a store that is there.
func (l *loaded) openStoreToWrite(cmd *cobra.Command, name string) (anomalyStore, func(), error) {
	// To look first makes sure that it is there: nobody means to make a new one.
	_, closing, err := l.openStore(cmd.Context(), name)
	if err != nil {
		return nil, nil, err
	}
	closing()
	store, err := l.storeName(cmd.Context(), name)
	if err != nil {
		return nil, nil, err
	}
	s, err := history.Open(cmd.Context(), history.Config{Store: store})
	if err != nil {
		return nil, nil, err
	}
	return s, func() { _ = s.Close() }, nil // what was written is written
}

func anomalyListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "list anomalies, those found last first", Args: cobra.NoArgs}
	addSourceFlags(cmd)
	cmd.Flags().String("since", "", "found from `TIME` on: 3d, 12h, or RFC 3339")
	cmd.Flags().String("kind", "", "of `KIND`")
	cmd.Flags().String("caller", "", "of the service `NAME`")
	cmd.Flags().String("severity", "", "at least `WORD`: low, medium, high")
	all := cmd.Flags().Bool("all", false, "those too that somebody has acknowledged")
	limit := cmd.Flags().Int("limit", 100, "at most `N`")
	addFormFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, least, err := readAnomalyFilter(cmd, time.Now())
		if err != nil {
			return err
		}
		f.Open = !*all
		store, closing, err := openAnomalies(cmd, false)
		if err != nil {
			return err
		}
		defer closing()
		found, err := store.Anomalies(cmd.Context(), f)
		if err != nil {
			return err
		}
		sheet := newSheet(cmd, []column{
			{"last", "LAST"},
			{"id", "ID"},
			{"severity", "SEVERITY"},
			{"kind", "KIND"},
			{"caller", "CALLER"},
			{"subject", "SUBJECT"},
			{"count", "TIMES"},
			{"first", ""},
			{"text", "WHAT"},
			{"benign", ""},
			{"acknowledged", ""},
			{"by", ""},
			{"reason", ""},
		})
		for i := range found {
			if sheet.rows == *limit || flow.Severity(found[i].Severity) < least {
				continue
			}
			if err := addAnomaly(sheet, &found[i]); err != nil {
				return err
			}
		}
		return sheet.end()
	}
	return cmd
}

func readAnomalyFilter(cmd *cobra.Command, now time.Time) (f history.AnomalyFilter, least flow.Severity, err error) {
	hint := "see " + cmd.CommandPath() + " --help"
	text := func(name string) string { return cmd.Flags().Lookup(name).Value.String() }
	if s := text("since"); s != "" {
		if f.Since, err = parseMoment(s, now); err != nil {
			return f, 0, refuse(hint, "--since: %w", err)
		}
	}
	if s := text("severity"); s != "" {
		if least, err = flow.ParseSeverity(s); err != nil {
			return f, 0, refuse(hint, "--severity: %w", err)
		}
	}
	if f.Kind, f.Caller = text("kind"), text("caller"); f.Kind != "" && !flow.AnomalyKind(f.Kind).Valid() {
		var words []string
		for _, k := range flow.AnomalyKinds() {
			words = append(words, string(k))
		}
		return f, 0, refuse("the kinds are "+strings.Join(words, ", "), "--kind: there is no kind %q", f.Kind)
	}
	return f, least, nil
}

func addAnomaly(sheet *sheet, kept *history.Anomaly) error {
	j, err := newAnomalyJSON(kept)
	if err != nil {
		return err
	}
	return sheet.add(j,
		timeCell(j.Last), plainCell(j.ID), plainCell(j.Severity), plainCell(string(j.Kind)), plainCell(j.Caller), plainCell(j.Subject),
		countCell(j.Count), timeCell(j.First), plainCell(j.Evidence.Text), plainCell(strconv.FormatBool(j.Benign)), timeCell(j.Acknowledged), plainCell(j.By), plainCell(j.Reason))
}

func anomalyShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "tell all that is known of an anomaly", Args: cobra.ExactArgs(1)}
	addSourceFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		store, closing, err := openAnomalies(cmd, false)
		if err != nil {
			return err
		}
		defer closing()
		found, err := store.Anomalies(cmd.Context(), history.AnomalyFilter{ID: args[0]})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return &fault{err: fmt.Errorf("anomaly %q: %w", args[0], history.ErrNotFound), hint: "sallyport anomaly list --all shows the IDs"}
		}
		j, err := newAnomalyJSON(&found[0])
		if err != nil {
			return err
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(j)
	}
	return cmd
}

func anomalyAckCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ack ID...", Short: "say what is known of an anomaly, or that it is none", Args: cobra.MinimumNArgs(1)}
	addSourceFlags(cmd)
	reason := cmd.Flags().String("reason", "", "`WHY`; required")
	benign := cmd.Flags().Bool("benign", false, "it is no anomaly, and is never told again")
	by := cmd.Flags().String("by", "", "`WHO` says so (default: this user)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if strings.TrimSpace(*reason) == "" {
			return refuse(`write --reason "the new billing provider"`, "an anomaly is acknowledged with a reason")
		}
		store, closing, err := openAnomalies(cmd, true)
		if err != nil {
			return err
		}
		defer closing()
		for _, id := range args {
			if err := store.Acknowledge(cmd.Context(), id, cmp.Or(*by, userName()), *reason, *benign); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// userName is who runs the command, as far as the system knows.
func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), "-")
}
