package history_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// crowdOf is crowd with identifiers of their own, for many at once.
func crowdOf(s flow.Reader, n int) {
	for range n {
		tell(s, record(func(r *flow.Record) { r.ID = flow.NewID() }))
	}
}

// crowd tells a store of n attempts by several services, and returns their
// records, newest first.
func crowd(s flow.Reader, n int) []flow.Record {
	rng := rand.New(rand.NewPCG(3, 4))
	tasks := make([]*policy.Task, 6)
	for i := range tasks {
		service := []string{"billing-api", "billing-worker", "web"}[i/2]
		tasks[i] = &policy.Task{
			ARN: fmt.Sprintf("arn:aws:ecs:us-east-1:111122223333:task/prod/%d", i), Cluster: "prod", Service: service,
			Family: strings.SplitN(service, "-", 2)[0], Revision: 41 + i%2,
		}
	}
	var all []flow.Record
	for i := range n {
		r := record(func(r *flow.Record) {
			r.Start = noon.Add(time.Duration(i-n) * time.Minute)
			r.ID = flow.IDAt(r.Start)[:10] + fmt.Sprintf("%016d", i)
			r.End = r.Start.Add(time.Duration(rng.IntN(90)) * time.Second)
			r.Task = tasks[rng.IntN(len(tasks))]
			r.Host = []string{"api.example.com", "www.example.com", "a.b.example.com", "rare.example.net"}[min(rng.IntN(40)/13, 3)]
			r.BytesReceived = rng.Int64N(10_000)
			if rng.IntN(3) == 0 {
				r.Verdict, r.Reason, r.Rule, r.Outcome, r.BytesReceived = policy.Deny, policy.ReasonNoRule, "", "no_rule", 0
			} else if rng.IntN(5) == 0 {
				r.Mode, r.WouldDeny, r.Reason, r.Rule = policy.Report, true, policy.ReasonNoRule, ""
			}
		})
		tell(s, r)
		all = append(all, r)
	}
	slices.Reverse(all)
	return all
}

func ids(t *testing.T, s interface {
	flowsOf(f history.Filter) []history.Flow
}, f history.Filter,
) []string {
	t.Helper()
	var out []string
	for _, one := range s.flowsOf(f) {
		out = append(out, one.ID)
	}
	return out
}

func (r *running) flowsOf(f history.Filter) []history.Flow {
	r.t.Helper()
	var out []history.Flow
	for one, err := range r.Flows(r.t.Context(), f) {
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, one)
	}
	return out
}

// TestFilters compares every filter with the same question put to the records.
func TestFilters(t *testing.T) {
	allow, deny, would := policy.Allow, policy.Deny, true
	type want = func(r *flow.Record) bool
	tests := map[string]struct {
		filter history.Filter
		want   want
	}{
		"all":           {history.Filter{}, func(*flow.Record) bool { return true }},
		"service":       {history.Filter{Service: "web"}, func(r *flow.Record) bool { return r.Task.Service == "web" }},
		"services":      {history.Filter{Service: "billing-*"}, func(r *flow.Record) bool { return strings.HasPrefix(r.Task.Service, "billing-") }},
		"cluster":       {history.Filter{Service: "prod/web"}, func(r *flow.Record) bool { return r.Task.Service == "web" }},
		"other cluster": {history.Filter{Service: "test/*"}, func(*flow.Record) bool { return false }},
		"source":        {history.Filter{Source: "apps"}, func(*flow.Record) bool { return true }},
		"task":          {history.Filter{Task: "3"}, func(r *flow.Record) bool { return r.Task.ID() == "3" }},
		"ARN":           {history.Filter{Task: "arn:aws:ecs:us-east-1:111122223333:task/prod/0"}, func(r *flow.Record) bool { return r.Task.ID() == "0" }},
		"no task":       {history.Filter{Task: "77"}, func(*flow.Record) bool { return false }},
		"family":        {history.Filter{Family: "billing"}, func(r *flow.Record) bool { return r.Task.Family == "billing" }},
		"host":          {history.Filter{Host: "api.example.com"}, func(r *flow.Record) bool { return r.Host == "api.example.com" }},
		"labels":        {history.Filter{Host: "*.example.com"}, func(r *flow.Record) bool { return r.Host == "api.example.com" || r.Host == "www.example.com" }},
		"tree":          {history.Filter{Host: "**.EXAMPLE.com"}, func(r *flow.Record) bool { return strings.HasSuffix(r.Host, ".example.com") }},
		"braces":        {history.Filter{Host: "{api,www}.example.com"}, func(r *flow.Record) bool { return r.Host == "api.example.com" || r.Host == "www.example.com" }},
		"rare":          {history.Filter{Host: "rare.example.net"}, func(r *flow.Record) bool { return r.Host == "rare.example.net" }},
		"rare of task":  {history.Filter{Host: "rare.example.net", Task: "1"}, func(r *flow.Record) bool { return r.Host == "rare.example.net" && r.Task.ID() == "1" }},
		"allow":         {history.Filter{Verdict: &allow}, func(r *flow.Record) bool { return r.Verdict == policy.Allow }},
		"deny":          {history.Filter{Verdict: &deny}, func(r *flow.Record) bool { return r.Verdict == policy.Deny }},
		"would deny":    {history.Filter{WouldDeny: &would}, func(r *flow.Record) bool { return r.WouldDeny }},
		"reason":        {history.Filter{Reasons: []policy.Reason{policy.ReasonNoRule, policy.ReasonS3Bucket}}, func(r *flow.Record) bool { return r.Reason == policy.ReasonNoRule }},
		"rule":          {history.Filter{Rule: "apis"}, func(r *flow.Record) bool { return r.Rule == "apis" }},
		"bytes":         {history.Filter{MinBytes: 5000}, func(r *flow.Record) bool { return r.BytesSent+r.BytesReceived >= 5000 }},
		"since":         {history.Filter{Since: noon.Add(-5 * time.Hour)}, func(r *flow.Record) bool { return !r.Start.Before(noon.Add(-5 * time.Hour)) }},
		"until":         {history.Filter{Until: noon.Add(-5 * time.Hour)}, func(r *flow.Record) bool { return r.Start.Before(noon.Add(-5 * time.Hour)) }},
		"between, rare": {history.Filter{Since: noon.Add(-50 * time.Hour), Until: noon.Add(-5 * time.Hour), Host: "rare.example.net"}, func(r *flow.Record) bool {
			return r.Host == "rare.example.net" && r.Start.Before(noon.Add(-5*time.Hour)) && !r.Start.Before(noon.Add(-50*time.Hour))
		}},
		"of many things": {history.Filter{Service: "billing-*", Host: "**.example.com", Verdict: &allow, MinBytes: 100}, func(r *flow.Record) bool {
			return r.Task.Family == "billing" && strings.HasSuffix(r.Host, ".example.com") && r.Verdict == policy.Allow && r.BytesSent+r.BytesReceived >= 100
		}},
	}
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store, Clock: fixedClock, Retention: history.Retention{Size: 1 << 30}})
		records := crowd(s, 1500)
		s.end()
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				var want []string
				for i := range records {
					if tt.want(&records[i]) {
						want = append(want, records[i].ID)
					}
				}
				if d := cmp.Diff(want, ids(t, s, tt.filter)); d != "" {
					t.Error(d[:min(len(d), 2000)])
				}
				// A URL carries the filter, and pages make the whole.
				f, err := history.ParseFilter(tt.filter.Values())
				if err != nil {
					t.Fatal(err)
				}
				var paged []string
				for f.Limit = 397; ; {
					page := ids(t, s, f)
					paged = append(paged, page...)
					if len(page) < f.Limit {
						break
					}
					f.Cursor = page[len(page)-1]
				}
				if !slices.Equal(want, paged) {
					t.Errorf("%d flows by pages, want %d", len(paged), len(want))
				}
			})
		}
	})
}

// TestJSON: what is written is read again without loss.
func TestJSON(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock})
	crowd(s, 200)
	for _, r := range asked(t) {
		tell(s, r)
	}
	s.end()
	for _, one := range s.flowsOf(history.Filter{}) {
		text, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		var again history.Flow
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(one, again, cmpopts.IgnoreUnexported(history.Flow{}), cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Fatal(d)
		}
	}
	sites, err := s.Sites(t.Context(), history.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(sites)
	if err != nil {
		t.Fatal(err)
	}
	var again []history.Site
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sites, again, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

// asked are records of every kind of question, as the proxy makes them.
func asked(t *testing.T) []flow.Record {
	t.Helper()
	s3 := func(method, host, target string, header map[string][]string) *policy.S3Call {
		call, err := policy.ParseS3Request(policy.S3Request{Method: method, Host: host, Target: target, Header: func(name string) []string { return header[name] }})
		if err != nil {
			t.Fatal(err)
		}
		return &call
	}
	const bucket = "acme-prod-data.s3.us-east-1.amazonaws.com"
	signed := map[string][]string{"Authorization": {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"}}
	copies := map[string][]string{"X-Amz-Copy-Source": {"/other-bucket/some/key"}, "X-Amz-Acl": {"public-read"}}
	changes := []func(*flow.Record){
		nil,
		func(r *flow.Record) { r.Via, r.Protocol = policy.ViaTLS, policy.ProtocolTLS },
		func(r *flow.Record) { r.Via, r.Protocol, r.Port = policy.ViaHTTP, policy.ProtocolHTTP, 80 },
		func(r *flow.Record) {
			r.Via, r.Protocol, r.Host, r.Port = policy.ViaTCP, policy.ProtocolTCP, "203.0.113.9", 22
		},
		func(r *flow.Record) { r.Host = "2001:db8::7" },
		func(r *flow.Record) { r.Task, r.Unidentified = nil, true },
		func(r *flow.Record) { r.Task, r.Principal, r.VPCEndpoint = nil, "payments", "vpce-0123456789abcdef0" },
		func(r *flow.Record) { r.Protocol = policy.ProtocolUnknown },
		func(r *flow.Record) {
			r.Host = bucket
			r.Inspected = true
			r.Asked = s3("GET", bucket, "/a/key?versionId=1", signed)
		},
		func(r *flow.Record) {
			r.Host = bucket
			r.Inspected = true
			r.Asked = s3("PUT", bucket, "/a/key", copies)
		},
		func(r *flow.Record) {
			r.Host, r.Inspected = "s3.us-east-1.amazonaws.com", true
			r.Asked = s3("GET", "s3.us-east-1.amazonaws.com", "/acme-prod-data?list-type=2", signed)
		},
	}
	var all []flow.Record
	for _, c := range changes {
		r := record(c)
		if r.Asked != nil {
			r.S3 = r.Asked.Ref
		}
		all = append(all, r)
	}
	return all
}

// TestQueries: what was asked of the policy is asked again, exactly.
func TestQueries(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{PerSite: -1, Store: store, Clock: fixedClock})
		records := asked(t)
		for _, r := range records {
			tell(s, r)
		}
		s.end()
		sites, err := s.Sites(t.Context(), history.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		if len(sites) != len(records) {
			t.Errorf("%d sites of %d questions", len(sites), len(records))
		}
		opts := cmp.Options{
			cmpopts.EquateComparable(netip.Addr{}, policy.Host{}), cmpopts.IgnoreFields(policy.S3Call{}, "Key"),
			cmpopts.IgnoreFields(policy.S3Source{}, "Key", "Version"), cmpopts.IgnoreFields(policy.S3Signer{}, "AccessKeyID", "Region", "Expires"),
		}
		for _, r := range records {
			host, err := policy.ParseHost(r.Host)
			if err != nil {
				t.Fatal(err)
			}
			want := policy.Query{
				Source: policy.Source{Addr: r.Client.Addr(), VPCEndpoint: r.VPCEndpoint, Principal: r.Principal, Task: r.Task, Unidentified: r.Unidentified},
				Via:    r.Via, Host: host, Port: r.Port, Protocol: r.Protocol, S3: r.Asked, At: r.Start,
			}
			f, err := s.Flow(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := f.Query()
			if d := cmp.Diff(want, got, opts); d != "" || !ok {
				t.Errorf("%s: %v %s", r.Host, ok, d)
			}
			i := slices.IndexFunc(sites, func(s history.Site) bool { return s.ID == f.Site })
			got, ok = sites[i].Query()
			got.At = want.At
			if d := cmp.Diff(want, got, opts); d != "" || !ok {
				t.Errorf("site of %s: %v %s", r.Host, ok, d)
			}
		}
	})
}

// TestNoQuestion: what nobody can ask again is not asked.
func TestNoQuestion(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock})
	for _, host := range []string{"", "not a host\x00\n"} {
		r := record(func(r *flow.Record) { r.Host, r.Verdict, r.Reason = host, policy.Deny, policy.ReasonNoName })
		tell(s, r)
	}
	s.end()
	for _, f := range s.flowsOf(history.Filter{}) {
		if q, ok := f.Query(); ok {
			t.Errorf("%q asks %+v", f.Host, q)
		}
		for _, c := range f.Host {
			if c < ' ' || c > '~' {
				t.Errorf("%q is not legible", f.Host)
			}
		}
	}
}

func TestFollow(t *testing.T) {
	s := open(t, history.Config{PerSite: -1})
	next := make(chan history.Flow)
	go func() {
		defer close(next)
		for f, err := range s.Follow(t.Context(), history.Filter{Host: "*.example.com"}) {
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case next <- f:
			case <-t.Context().Done():
				return
			}
		}
	}()
	start := time.Now().Add(time.Second)
	r := record(func(r *flow.Record) { r.ID, r.Start, r.End = flow.NewID(), start, start.Add(time.Second) })
	opened := r
	opened.End, opened.Outcome = time.Time{}, ""
	s.Observe(flow.Event{Kind: flow.Opened, Record: opened})
	tell(s, record(func(r *flow.Record) { r.ID, r.Host, r.Start = flow.NewID(), "other.example.net", start }))
	if f := <-next; f.ID != r.ID || !f.End.IsZero() {
		t.Errorf("first %+v", f)
	}
	s.Observe(flow.Event{Kind: flow.Closed, Record: r})
	if f := <-next; f.ID != r.ID || f.End.IsZero() || f.Outcome != flow.OutcomeOK {
		t.Errorf("then %+v", f)
	}
}

// TestQuestionOfFolded: a flow of [history.Other] asks by its own host where its
// own port is known, and never for a bucket that was not kept.
func TestQuestionOfFolded(t *testing.T) {
	s := open(t, history.Config{PerSite: -1, Clock: fixedClock})
	for i := range 1024 {
		tell(s, record(func(r *flow.Record) { r.Host = fmt.Sprintf("x%d.example", i) }))
	}
	type question struct {
		host string
		port uint16
		asks bool
	}
	want := map[string]question{}
	for _, one := range []struct {
		question
		change func(*flow.Record)
	}{
		{question{"late.example", 8443, true}, func(r *flow.Record) { r.Port, r.Peer = 8443, netip.MustParseAddrPort("203.0.113.7:8443") }},
		{question{"six.example", 443, true}, func(r *flow.Record) { r.Peer = netip.MustParseAddrPort("[2001:db8::7]:443") }},
		{question{"never-dialled.example", 0, false}, func(r *flow.Record) { r.Port, r.Peer = 8443, netip.AddrPort{} }},
		{question{"acme.s3.us-east-1.amazonaws.com", 0, false}, nil},
		{question{"not a name", 0, false}, nil},
	} {
		r := record(func(r *flow.Record) {
			if r.Host = one.host; one.change != nil {
				one.change(r)
			}
		})
		want[r.ID] = one.question
		tell(s, r)
	}
	s.end()
	for id, want := range want {
		f, err := s.Flow(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		q, asks := f.Query()
		if asks != want.asks || asks && (q.Host.String() != want.host || q.Port != want.port || q.Protocol != policy.ProtocolTLS || q.Source.Task == nil) {
			t.Errorf("%s: %+v, %v", want.host, q, asks)
		}
	}
}
