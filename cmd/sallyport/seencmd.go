package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// addEvidenceFlags gives a command the flags that say where what was observed
// is found, and which of it counts.
func addEvidenceFlags(cmd *cobra.Command) {
	addSourceFlags(cmd)
	cmd.Flags().StringArray("flows", nil, "`FILE` of flow log lines to read instead; - is standard input; repeatable")
	addFilterFlags(cmd, "source", "task", "family", "verdict", "rule", "min-bytes", "limit", "reason")
}

// evidenceGiven reports whether the command line names a place.
func evidenceGiven(cmd *cobra.Command) bool {
	for _, name := range []string{"store", "flows", "admin"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// evidence is what was observed.
type evidence struct {
	seen []policy.Seen
	// flowsSince is when the oldest flow began of those that were looked at for
	// addresses; zero for none, and where flows are all that was read.
	flowsSince time.Time
}

// readEvidence returns what was observed.
func readEvidence(cmd *cobra.Command) (evidence, error) {
	f, err := readFilter(cmd, time.Now(), 0)
	if err != nil {
		return evidence{}, err
	}
	files, err := cmd.Flags().GetStringArray("flows")
	if err != nil {
		return evidence{}, err
	}
	if len(files) > 0 {
		if cmd.Flags().Changed("store") {
			return evidence{}, refuse("give one of them", "--store and --flows are two places to read from")
		}
		seen, err := readFlowFiles(files, cmd.InOrStdin(), f)
		return evidence{seen: seen}, err
	}
	source, closing, err := openHistory(cmd)
	if err != nil {
		return evidence{}, err
	}
	defer closing()
	e, err := seenIn(cmd.Context(), source, f)
	if err != nil {
		return evidence{}, err
	}
	return e, tellGaps(cmd.Context(), cmd.ErrOrStderr(), source, f.Since)
}

// seenIn reads the sites of a store as observations. The flows tell which of
// them lead to private addresses, and some of the names that were too many.
func seenIn(ctx context.Context, store historySource, f history.Filter) (evidence, error) {
	sites, err := store.Sites(ctx, f)
	if err != nil {
		return evidence{}, fmt.Errorf("read what was observed: %w", err)
	}
	told, err := lookAtFlows(ctx, store, f)
	if err != nil {
		return evidence{}, fmt.Errorf("read what was observed: %w", err)
	}
	all := make([]policy.Seen, 0, len(sites))
	for i := range sites {
		s := &sites[i]
		if s.Via == policy.ViaDNS || s.Visits == 0 {
			continue // the connection behind the question is a site itself
		}
		seen := seenAt(s)
		if s.Host == history.Other {
			all = append(all, unfolded(&seen, told.folded[s.ID])...)
			continue
		}
		seen.Peer, seen.PeerUnknown = told.peers[s.ID], !told.addressed[s.ID]
		all = append(all, seen)
	}
	return evidence{all, told.since}, nil
}

// lookedAt bounds how many flows are looked at for their addresses.
const lookedAt = 20_000

// toldByFlows is what the sites do not tell, by the site's ID.
type toldByFlows struct {
	peers     map[string]netip.Addr     // a private address that the site led to
	addressed map[string]bool           // whether any address is known that it led to
	folded    map[string][]history.Flow // those that were counted as [history.Other], and have a question
	since     time.Time                 // when the oldest began; zero: there are none
}

// lookAtFlows looks at the newest flows: of those that report mode let through,
// and of all.
func lookAtFlows(ctx context.Context, store historySource, f history.Filter) (*toldByFlows, error) {
	told := &toldByFlows{peers: map[string]netip.Addr{}, addressed: map[string]bool{}, folded: map[string][]history.Flow{}}
	taken := map[string]bool{}
	would := true
	for _, only := range []*bool{&would, nil} {
		f.WouldDeny, f.Limit = only, lookedAt
		for fl, err := range store.Flows(ctx, f) {
			if err != nil {
				return nil, err
			}
			if a := fl.Peer.Addr(); a.IsValid() {
				told.addressed[fl.Site] = true
				if policy.ClassifyAddress(a) != policy.AddressGlobal {
					told.peers[fl.Site] = a
				}
			}
			if only == nil && (told.since.IsZero() || fl.Start.Before(told.since)) {
				told.since = fl.Start
			}
			if _, asks := fl.Query(); asks && fl.Folded() && !taken[fl.ID] {
				taken[fl.ID] = true
				told.folded[fl.Site] = append(told.folded[fl.Site], fl)
			}
		}
	}
	return told, nil
}

// unfolded takes the flows whose names are known out of a sum of names that are
// not, and returns them and what is left of it.
func unfolded(sum *policy.Seen, flows []history.Flow) []policy.Seen {
	var all []policy.Seen
	sum.Folded = true
	for i := range flows {
		f := &flows[i]
		one := *sum
		one.Query, _ = f.Query()
		one.Folded, one.Host, one.Peer, one.First, one.Last = false, f.Host, f.Peer.Addr(), f.Start, f.Start
		one.Tasks, one.Revisions = 0, nil
		if f.Task != nil {
			one.Tasks = 1
			if n := f.Task.Revision; n > 0 {
				one.Revisions = []int{n}
			}
		}
		one.Count, one.Failed, one.BytesSent, one.BytesReceived = 1, 0, f.BytesSent, f.BytesReceived
		if f.Verdict == policy.Allow && f.Outcome != flow.OutcomeOK && !f.End.IsZero() {
			one.Failed = 1
		}
		all = append(all, one)
		sum.Count, sum.Failed = sum.Count-1, max(sum.Failed-one.Failed, 0)
		sum.BytesSent, sum.BytesReceived = max(sum.BytesSent-one.BytesSent, 0), max(sum.BytesReceived-one.BytesReceived, 0)
	}
	if sum.Count > 0 {
		all = append(all, *sum)
	}
	return all
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

// readFlowFiles reads files of flow log lines.
func readFlowFiles(files []string, stdin io.Reader, f history.Filter) ([]policy.Seen, error) {
	var all []policy.Seen
	usedStdin := false
	for _, name := range files {
		in := stdin
		if name == "-" {
			if usedStdin {
				return nil, refuse("", "standard input (-) can be read once only")
			}
			usedStdin = true
		} else {
			file, err := os.Open(name)
			if err != nil {
				return nil, &fault{code: exitUsage, err: err}
			}
			defer file.Close() //nolint:errcheck,gocritic // it is read only, and there are few
			in = file
		}
		seen, err := readFlowLines(in, f.Since, f.Until)
		if err != nil {
			return nil, &fault{code: exitUsage, err: fmt.Errorf("%s: %w", name, err), hint: "give it the lines that serve prints on standard output, or an export of them"}
		}
		all = append(all, seen...)
	}
	return slices.DeleteFunc(all, func(s policy.Seen) bool {
		return (f.Service != "" && !ofService(f.Service, &s)) || (f.Host != "" && !matchesHost(f.Host, s.Host))
	}), nil
}

// matchesHost reports whether a host fits a pattern of the policy's language.
func matchesHost(pattern, host string) bool {
	p, err := policy.Load(policy.Text{Name: "--host", Data: []byte("version: 1\nrules: [{name: a, action: deny, hosts: [" + strconv.QuoteToASCII(pattern) + "]}]")})
	h, bad := policy.ParseHost(host)
	return err == nil && bad == nil && p.Decide(policy.Query{Host: h, Port: 443}).Reason == policy.ReasonDenyRule
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
