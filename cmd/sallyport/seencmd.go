package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// evidence says where a command finds what was observed, and which of it
// counts.
type evidence struct {
	store   string   // a history's
	flows   []string // files of flow log lines
	since   string
	until   string
	service string
}

// addFlags gives a command the flags of the evidence.
func (e *evidence) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.store, "store", "", "`URL` of the history to read")
	cmd.Flags().StringArrayVar(&e.flows, "flows", nil, "`FILE` of flow log lines to read instead; - is standard input; repeatable")
	cmd.Flags().StringVar(&e.since, "since", "", "`TIME` or age (14d, 36h) of the oldest that counts")
	cmd.Flags().StringVar(&e.until, "until", "", "`TIME` or age of the newest that counts")
	cmd.Flags().StringVar(&e.service, "service", "", "`NAME` of the one service that counts, or CLUSTER/NAME; * is anything")
}

// given reports whether the command line names a place.
func (e *evidence) given() bool { return e.store != "" || len(e.flows) > 0 }

// read returns what was observed.
func (e *evidence) read(ctx context.Context, stdin io.Reader) ([]policy.Seen, error) {
	now := time.Now()
	since, err := moment("since", e.since, now)
	if err != nil {
		return nil, err
	}
	until, err := moment("until", e.until, now)
	if err != nil {
		return nil, err
	}
	switch {
	case e.store != "" && len(e.flows) > 0:
		return nil, refuse("give one of them", "--store and --flows are two places to read from")
	case e.store != "":
		return e.fromStore(ctx, history.Filter{Since: since, Until: until, Service: e.service})
	case len(e.flows) > 0:
		return e.fromFlows(stdin, since, until)
	}
	return nil, refuse("write --store URL, or --flows FILE, where - is standard input", "nothing says where to find what was observed")
}

// fromStore reads the sites of a history.
func (e *evidence) fromStore(ctx context.Context, f history.Filter) ([]policy.Seen, error) {
	store, err := storeToRead(ctx, e.store)
	if err != nil {
		return nil, err
	}
	defer store.Close() //nolint:errcheck // it was read only
	return seenIn(ctx, store, f)
}

// storeToRead opens a store that the command line names.
func storeToRead(ctx context.Context, name string) (*history.Store, error) {
	if name == history.Memory {
		return nil, refuse("give the URL of a store that proxies share, or keep one in a file", "a store in memory ends with its process: there is nothing to read")
	}
	store, err := history.Open(ctx, history.Config{Store: name, ReadOnly: true})
	if err != nil {
		return nil, &fault{code: exitUsage, err: err, hint: "write --store sqlite:PATH or --store postgres://USER@HOST/DATABASE"}
	}
	if h := store.Health(); !h.OK {
		return nil, &fault{code: exitUsage, err: fmt.Errorf("the history cannot be opened: %s", h.Detail)}
	}
	return store, nil
}

// seenIn reads the sites of a store as observations. Where a private address
// was what would be denied, one flow tells which.
func seenIn(ctx context.Context, store *history.Store, f history.Filter) ([]policy.Seen, error) {
	sites, err := store.Sites(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("read what was observed: %w", err)
	}
	peers := map[string]history.Flow{}
	private := f
	private.Reasons = []policy.Reason{policy.ReasonAddressProhibited}
	private.Limit = 10_000
	for flow, err := range store.Flows(ctx, private) {
		if err != nil {
			return nil, fmt.Errorf("read what was observed: %w", err)
		}
		if flow.Peer.IsValid() {
			peers[flow.Site] = flow
		}
	}
	all := make([]policy.Seen, 0, len(sites))
	for i := range sites {
		s := &sites[i]
		if s.Via == policy.ViaDNS || s.Visits == 0 {
			continue // the connection behind the question is a site itself
		}
		seen := seenAt(s)
		seen.Peer = peers[s.ID].Peer.Addr()
		all = append(all, seen)
	}
	return all, nil
}

// seenAt returns a site as an observation.
func seenAt(s *history.Site) policy.Seen {
	seen := policy.Seen{
		SourceName: s.Source, Host: s.Host, Verdict: s.Verdict, WouldDeny: s.WouldDeny, Reason: s.Reason, Rule: s.Rule,
		Count: s.Visits, Failed: s.Failed, BytesSent: s.BytesSent, BytesReceived: s.BytesReceived,
		First: s.First, Last: s.Last, Tasks: s.Tasks,
	}
	for _, r := range s.Revisions {
		seen.Revisions = append(seen.Revisions, r.Revision)
	}
	if q, ok := s.Query(); ok {
		seen.Query = q
		return seen
	}
	seen.Query = policy.Query{Via: s.Via, Port: s.Port, Protocol: s.Protocol, Source: policy.Source{Principal: s.Principal, VPCEndpoint: s.VPCEndpoint, Unidentified: s.Unidentified}}
	if s.Cluster+s.Service+s.Family != "" {
		seen.Query.Source.Task = &policy.Task{Cluster: s.Cluster, Service: s.Service, Family: s.Family}
	}
	return seen
}

// fromFlows reads files of flow log lines.
func (e *evidence) fromFlows(stdin io.Reader, since, until time.Time) ([]policy.Seen, error) {
	var all []policy.Seen
	usedStdin := false
	for _, name := range e.flows {
		in := stdin
		if name == "-" {
			if usedStdin {
				return nil, refuse("", "standard input (-) can be read once only")
			}
			usedStdin = true
		} else {
			f, err := os.Open(name)
			if err != nil {
				return nil, &fault{code: exitUsage, err: err}
			}
			defer f.Close() //nolint:errcheck,gocritic // it is read only, and there are few
			in = f
		}
		seen, err := readFlowLines(in, since, until)
		if err != nil {
			return nil, &fault{code: exitUsage, err: fmt.Errorf("%s: %w", name, err), hint: "give it the lines that serve prints on standard output, or an export of them"}
		}
		all = append(all, seen...)
	}
	if e.service == "" {
		return all, nil
	}
	kept := all[:0]
	for _, s := range all {
		if ofService(e.service, &s) {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

// ofService reports whether a caller fits NAME or CLUSTER/NAME, where * is any
// run of characters.
func ofService(pattern string, s *policy.Seen) bool {
	who := s.Caller()
	if !strings.Contains(pattern, "/") {
		_, name, found := strings.Cut(who, "/")
		if found {
			who = name
		}
	}
	head, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return who == pattern
	}
	tail, ok := strings.CutPrefix(who, head)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	last := parts[len(parts)-1]
	for _, part := range parts[:len(parts)-1] {
		_, after, found := strings.Cut(tail, part)
		if !found {
			return false
		}
		tail = after
	}
	return strings.HasSuffix(tail, last)
}

// moment reads a time, RFC 3339 or a date, or an age like 14d or 36h; "" is the
// zero time.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 10_000 {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, refuse("write an age like 14d or 36h, or a time like 2026-11-23T08:00:00Z", "--%s: %s is no time", flag, strconv.QuoteToASCII(text))
}
