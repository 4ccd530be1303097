package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// historySource is what the commands that look back read: a store, or a running
// proxy's API.
type historySource interface {
	Sites(ctx context.Context, f history.Filter) ([]history.Site, error)
	Flows(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error]
	Flow(ctx context.Context, id string) (history.Flow, error)
	Follow(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error]
	Gaps(ctx context.Context, since time.Time) ([]history.Gap, error)
}

// addSourceFlags gives a command the flags that say where the history is.
func addSourceFlags(cmd *cobra.Command) {
	addFlags(cmd, "admin")
	cmd.Flags().String("store", "", "read the `STORE` itself instead of asking a proxy")
	cmd.Flags().String("token-file", "", "`FILE` with the proxy's admin.token")
}

// openHistory opens what a command's flags say: a store, else the proxy at the
// admin address. The caller closes it.
func openHistory(cmd *cobra.Command) (_ historySource, closing func(), err error) {
	l, err := loadConfig(cmd.Flags())
	if err != nil {
		return nil, nil, err
	}
	if f := cmd.Flags().Lookup("store"); f.Changed {
		return l.openStore(cmd.Context(), f.Value.String())
	}
	c := &adminClient{address: localAddress(l.Admin.Address)}
	entry := l.Admin.Token
	if f := cmd.Flags().Lookup("token-file"); f.Changed {
		entry = "file:" + f.Value.String()
	}
	if entry != "" {
		if c.token, err = readToken(cmd.Context(), entry); err != nil {
			return nil, nil, refuse("", "the admin token: %w", err)
		}
	}
	return c, func() {}, nil
}

// storeToOpen returns the store that a flag names.
func (l *loaded) storeToOpen(ctx context.Context, name string) (string, error) {
	if wrong, hint := historyStore().check(name); wrong != "" || name == historyOff {
		return "", refuse(hint, "--store: %s", wrong)
	}
	store, err := l.storeName(ctx, name)
	if err != nil {
		return "", err
	}
	if store == history.Memory {
		return "", refuse("leave --store out: then the proxy itself is asked", "--store: the memory of a proxy cannot be opened by another process")
	}
	return store, nil
}

// openStore opens a store to look at it.
func (l *loaded) openStore(ctx context.Context, name string) (historySource, func(), error) {
	store, err := l.storeToOpen(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	s, err := history.Open(ctx, history.Config{Store: store, ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	return s, func() { _ = s.Close() }, nil // nothing was written
}

// addFilterFlags gives a command the flags of a filter; those that are left out
// mean nothing to it.
func addFilterFlags(cmd *cobra.Command, without ...string) {
	for _, f := range []struct{ name, usage string }{
		{"since", "from `TIME` on: 3d, 12h, or RFC 3339"},
		{"until", "before `TIME`"},
		{"service", "of `NAME`, or CLUSTER/NAME; * stands for anything"},
		{"source", "of the policy's source `NAME`"},
		{"task", "of the task with that `ID` or ARN"},
		{"family", "of task definitions `FAMILY` or FAMILY:REVISION"},
		{"host", "to `GLOB`: a host, a bucket, *.example.com, **.example.com"},
		{"verdict", "`WORD`: allow, deny, or would-deny"},
		{"rule", "decided by the rule `NAME`"},
		{"min-bytes", "with at least `SIZE` both ways: 4096, 10MiB"},
		{"limit", "at most `N`; 0 for all"},
	} {
		if !slices.Contains(without, f.name) {
			cmd.Flags().String(f.name, "", f.usage)
		}
	}
	if !slices.Contains(without, "reason") {
		cmd.Flags().StringArray("reason", nil, "with the reason `WORD`; repeatable")
	}
}

// readFilter reads the flags of a filter.
func readFilter(cmd *cobra.Command, now time.Time, limit int) (history.Filter, error) {
	f := history.Filter{Limit: limit}
	var errs []error
	take := func(name string, set func(text string) error) {
		flag := cmd.Flags().Lookup(name)
		if flag == nil || !flag.Changed {
			return
		}
		if err := set(flag.Value.String()); err != nil {
			errs = append(errs, refuse("see "+cmd.CommandPath()+" --help", "--%s: %w", name, err))
		}
	}
	text := func(to *string) func(string) error {
		return func(s string) error { *to = s; return nil }
	}
	moment := func(to *time.Time) func(string) error {
		return func(s string) (err error) { *to, err = parseMoment(s, now); return err }
	}
	take("since", func(s string) (err error) {
		if f.Since, err = parseMoment(s, now); err == nil && f.Since.After(now) {
			err = fmt.Errorf("%q has yet to come", s) // nothing was seen then, which must not pass for an answer
		}
		return err
	})
	take("until", moment(&f.Until))
	take("service", text(&f.Service))
	take("source", text(&f.Source))
	take("task", text(&f.Task))
	take("host", text(&f.Host))
	take("rule", text(&f.Rule))
	take("family", func(s string) error { return readFamily(&f, s) })
	take("verdict", func(s string) error { return readVerdict(&f, s) })
	take("min-bytes", func(s string) (err error) { f.MinBytes, err = readBytes(s); return err })
	take("limit", func(s string) (err error) { f.Limit, err = strconv.Atoi(s); return err })
	if all, err := cmd.Flags().GetStringArray("reason"); err == nil {
		for _, r := range all {
			f.Reasons = append(f.Reasons, policy.Reason(r))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return history.Filter{}, err
	}
	if err := f.Check(); err != nil {
		return history.Filter{}, refuse("see "+cmd.CommandPath()+" --help", "%w", err)
	}
	return f, nil
}

// readFamily reads FAMILY or FAMILY:REVISION.
func readFamily(f *history.Filter, s string) error {
	family, revision, found := strings.Cut(s, ":")
	f.Family = family
	if !found {
		return nil
	}
	n, err := strconv.Atoi(revision)
	if err != nil || n <= 0 {
		return fmt.Errorf("%q is no revision", revision)
	}
	f.Revision = n
	return nil
}

func readVerdict(f *history.Filter, s string) error {
	verdict, would := policy.Allow, true
	switch s {
	case "allow":
	case "deny":
		verdict = policy.Deny
	case "would-deny":
		f.WouldDeny = &would
		return nil
	default:
		return fmt.Errorf("%q is not one of allow, deny, would-deny", s)
	}
	f.Verdict = &verdict
	return nil
}

// readBytes reads a number of bytes, with a unit or without.
func readBytes(s string) (int64, error) {
	if n, ok := bytesOf(s); ok {
		return n, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size such as 4096 or 10MiB", s)
	}
	return n, nil
}

// parseMoment reads a time: how long ago (90m, 12h, 3d, 2w), a date, or RFC
// 3339.
func parseMoment(s string, now time.Time) (time.Time, error) {
	const hint = "%q is no time: write 90m, 12h, 3d, 2w, 2026-11-20 or 2026-11-20T08:00:00Z"
	for unit, d := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			if err != nil || n > uint64(math.MaxInt64/d) {
				return time.Time{}, fmt.Errorf(hint, s)
			}
			return now.Add(-time.Duration(n) * d), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf(hint, s)
}
