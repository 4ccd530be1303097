package logging

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

var update = flag.Bool("update", false, "write the golden files")

func compileSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(FlowSchema()))
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("flow.schema.json", doc); err != nil {
		tb.Fatal(err)
	}
	s, err := c.Compile("flow.schema.json")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func validate(tb testing.TB, s *jsonschema.Schema, line []byte) {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		tb.Fatalf("%s: %v", line, err)
	}
	if err := s.Validate(v); err != nil {
		tb.Fatalf("%s: %v", line, err)
	}
}

// base is an allowed tunnel with every field that a tunnel can have.
func base() flow.Record {
	start := time.Date(2026, 11, 23, 8, 30, 0, 123_456_789, time.UTC)
	return flow.Record{
		ID:       "01KARN7WS3Q8Z4V6X2Y0T1B5CD",
		Start:    start,
		End:      start.Add(1_234_567 * time.Microsecond),
		Via:      policy.ViaConnect,
		Listener: netip.MustParseAddrPort("10.0.3.7:3128"),
		Client:   netip.MustParseAddrPort("10.0.16.9:40312"),
		Source:   "payments",
		Host:     "acme-prod-data.s3.us-east-1.amazonaws.com",
		Port:     443,
		Peer:     netip.MustParseAddrPort("[2001:db8::7]:443"),
		TLS: flow.TLS{
			ServerName: "acme-prod-data.s3.us-east-1.amazonaws.com",
			ALPN:       []string{"h2", "http/1.1"}, Version: "1.3", ECH: true,
		},
		HTTP: flow.HTTP{Method: "CONNECT", Status: 200},
		S3: policy.S3Ref{
			Form: "virtual_hosted", Bucket: "acme-prod-data", Region: "us-east-1", Partition: "aws",
		},
		Verdict: policy.Allow, Mode: policy.Enforce, Reason: policy.ReasonRule,
		Rule: "app-data", Owner: "équipe données", PolicyVersion: "sha256:0a1b2c",
		Outcome: flow.OutcomeOK,
		Times: flow.Times{
			Hello: 1500 * time.Microsecond, Resolve: 2 * time.Millisecond,
			Dial: 12_345 * time.Microsecond,
		},
		BytesSent: 4096, BytesReceived: 1 << 33,
		ClientTCP: flow.TCP{RTT: 350 * time.Microsecond, MinRTT: 200 * time.Microsecond},
		OriginTCP: flow.TCP{RTT: 11 * time.Millisecond, MinRTT: 10 * time.Millisecond, Retransmits: 3},
	}
}

func denied() flow.Record {
	r := base()
	r.Verdict, r.Reason, r.Outcome = policy.Deny, policy.ReasonNoRule, flow.Outcome(policy.ReasonNoRule)
	r.Rule, r.Owner, r.Peer, r.TLS, r.S3 = "", "", netip.AddrPort{}, flow.TLS{}, policy.S3Ref{}
	r.Host = "paste.example\r\n{\"level\":\"info\"}\u202e"
	r.HTTP.Status = 403
	r.Times = flow.Times{Hello: time.Millisecond}
	r.BytesSent, r.BytesReceived, r.OriginTCP = 0, 0, flow.TCP{}
	return r
}

// lines are one event of each kind that a reader of the log can meet.
func lines() map[string]flow.Event {
	plain := base()
	plain.Via, plain.Port, plain.TLS, plain.S3 = policy.ViaHTTP, 80, flow.TLS{}, policy.S3Ref{}
	plain.Host = "deb.example"
	plain.HTTP = flow.HTTP{Method: "GET", Path: "/debian/dists/stable/InRelease", Status: 200}
	plain.Times.FirstByte = 20 * time.Millisecond

	failed := base()
	failed.Via, failed.HTTP = policy.ViaTLS, flow.HTTP{}
	failed.Outcome, failed.Error = flow.OutcomeConnectionRefused, "dial 203.0.113.7:443: connection refused"
	failed.EndedBy = flow.EndedByOrigin

	report := base()
	report.Mode, report.Reason, report.WouldDeny = policy.Report, policy.ReasonNoRule, true
	report.Rule, report.Owner = "", ""

	task := base()
	task.Principal, task.VPCEndpoint = "payments", "vpce-0a1b2c3d4e5f60718"
	task.Original = netip.MustParseAddrPort("[2001:db8::9]:443")
	task.Task = &policy.Task{
		ARN:     "arn:aws:ecs:us-east-1:111122223333:task/prod/0f1e2d3c4b5a69788796a5b4c3d2e1f0",
		Cluster: "prod", Service: "payments-api", Family: "payments", Revision: 12, Tags: map[string]string{"team": "payments"},
	}
	stranger := denied()
	stranger.Reason, stranger.Outcome = policy.ReasonUnknownSource, flow.Outcome(policy.ReasonUnknownSource)
	stranger.Task = &policy.Task{ARN: "arn:aws:ecs:us-east-1:111122223333:task/0f1e2d3c", Family: "by-hand"} // of the short form

	nothing := flow.Record{
		Start: base().Start, Reason: policy.ReasonNotTLS, Outcome: flow.Outcome(policy.ReasonNotTLS),
	}
	undecided := nothing
	undecided.Reason, undecided.Outcome = "", flow.OutcomeHTTPRequestError
	undecided.HTTP = flow.HTTP{Method: "BREW", Status: 400}
	anomaly := &flow.Anomaly{
		ID: "01KARN7WS3Q8Z4V6X2Y0T1B5CE", Kind: flow.AnomalySubdomains, Caller: "payments-api", Subject: "evil.example", Severity: flow.High,
		First: base().Start, Last: base().End, Count: 3,
		Evidence: flow.Evidence{
			Text: "61 unseen names below evil.example in an hour,\n\u202e 2 usual", Value: 61, Norm: 2, Limit: 30, Unit: "names", Basis: "all", Samples: 168,
			Host: "a.evil.example", Port: 443, Rule: "any", Verdict: "allow", WouldDeny: true, Operation: "PutObject",
			Revisions: []string{"payments:12"}, Names: []string{"a.evil.example", "b\r\n", "c", "d", "e", "f", "g", "h", "i"},
			Entropy: 3.91, Contacts: 61, Interval: 59.8, Variation: .03, Flows: []string{"01KARN7WS3Q8Z4V6X2Y0T1B5CD"},
		},
	}
	bare := &flow.Anomaly{ID: anomaly.ID, Kind: flow.AnomalyDenials, Caller: "-", Severity: flow.Low, First: anomaly.First, Last: anomaly.Last, Count: 1, Evidence: flow.Evidence{Text: "x"}}
	return map[string]flow.Event{
		"anomaly":        {Kind: flow.Found, Anomaly: anomaly},
		"anomaly_bare":   {Kind: flow.Found, Anomaly: bare},
		"open":           {Kind: flow.Opened, Record: base()},
		"close":          {Kind: flow.Closed, Record: base()},
		"close_http":     {Kind: flow.Closed, Record: plain},
		"close_failed":   {Kind: flow.Closed, Record: failed},
		"close_report":   {Kind: flow.Closed, Record: report},
		"close_task":     {Kind: flow.Closed, Record: task},
		"deny":           {Kind: flow.Denied, Record: denied()},
		"deny_task":      {Kind: flow.Denied, Record: stranger},
		"deny_nothing":   {Kind: flow.Denied, Record: nothing},
		"deny_undecided": {Kind: flow.Denied, Record: undecided},
	}
}

func TestFlowLines(t *testing.T) {
	schema := compileSchema(t)
	for name, e := range lines() {
		t.Run(name, func(t *testing.T) {
			got := AppendFlow(nil, &e)
			if line, ok := bytes.CutSuffix(got, []byte("\n")); !ok || !printable(line) {
				t.Fatalf("%q is not one line of printable ASCII", got)
			}
			if dup := duplicate(t, string(got)); dup != "" {
				t.Errorf("%q occurs twice in %s", dup, got)
			}
			validate(t, schema, got)
			golden(t, "flow_"+name+".json", indented(t, got))
		})
	}
}

func TestAppendFlowAppends(t *testing.T) {
	e := flow.Event{Kind: flow.Closed, Record: base()}
	one := AppendFlow(nil, &e)
	two := AppendFlow(AppendFlow(nil, &e), &e)
	if !bytes.Equal(two, append(slices.Clone(one), one...)) {
		t.Error("the second line changes the first")
	}
	if got := AppendFlow(one, &flow.Event{}); !bytes.Equal(got, one) {
		t.Error("an event of no kind wrote something")
	}
}

// A line that the schema must refuse: else it would pass anything.
func TestSchemaRefuses(t *testing.T) {
	schema := compileSchema(t)
	line := func(name string) string { e := lines()[name]; return string(AppendFlow(nil, &e)) }
	tests := []struct{ name, from, old, new string }{
		{"an unknown member", "close", `"would_deny":`, `"wuold_deny":false,"would_deny":`},
		{"an unknown reason", "close", `"reason":"rule"`, `"reason":"because"`},
		{"an unknown outcome", "close", `"outcome":"ok"`, `"outcome":"fine"`},
		{"an unknown form of S3", "close", `"form":"virtual_hosted"`, `"form":"vhost"`},
		{"another version", "close", `"schema":1`, `"schema":2`},
		{"a deny that allows", "deny", `"verdict":"deny"`, `"verdict":"allow"`},
		{"an open that has been answered", "open", `"request":{"method":"CONNECT"}`, `"request":{"method":"CONNECT"},"response":{"status_code":200}`},
		{"an open that ended", "open", `"verdict":"allow"`, `"verdict":"allow","outcome":"ok"`},
		{"a close without its bytes", "close", `"bytes_sent":4096,`, ``},
		{"a level that is another kind's", "deny", `"level":"warn"`, `"level":"info"`},
		{"ok as an error", "deny", `"error":{"type":"no_rule"`, `"error":{"type":"ok"`},
		{"a task's unknown member", "close_task", `"family":"payments"`, `"tags":{}`},
		{"a revision that is a number", "close_task", `"revision":"12"`, `"revision":12`},
		{"a user without a name", "close_task", `"user":{"name":"payments"}`, `"user":{}`},
		{"a control character", "close", `"address":"acme`, `"address":"\u0007acme`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(line(tt.from), tt.old, tt.new, 1)
			if bad == line(tt.from) {
				t.Fatalf("%s is not in %s", tt.old, bad)
			}
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
			if err != nil {
				t.Fatal(err)
			}
			if schema.Validate(v) == nil {
				t.Errorf("it passes: %s", bad)
			}
		})
	}
}

// Every word of every closed vocabulary is in the schema, and no other.
func TestSchemaHasEveryWord(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(FlowSchema(), &doc); err != nil {
		t.Fatal(err)
	}
	enum := func(path ...string) []string {
		var v any = doc
		for _, p := range append(path, "enum") {
			v = v.(map[string]any)[p]
		}
		var out []string
		for _, w := range v.([]any) {
			out = append(out, w.(string))
		}
		return slices.Sorted(slices.Values(out))
	}
	ours := []string{"properties", "sallyport", "properties"}
	own := func(name string) []string { return enum(append(slices.Clone(ours), name)...) }

	var outcomes []string
	for _, o := range flow.Outcomes() {
		outcomes = append(outcomes, string(o))
	}
	var ended []string
	for _, e := range flow.EndedBys() {
		if e != flow.EndedByBoth {
			ended = append(ended, string(e))
		}
	}
	var vias, enforcements []string
	for via := policy.ViaUnknown; via == policy.ViaUnknown || via.String() != "unknown"; via++ {
		vias = append(vias, via.String())
		if e := (&flow.Record{Via: via}).Enforcement(); e != "" {
			enforcements = append(enforcements, e)
		}
	}
	enforcements = append(enforcements, (&flow.Record{Inspected: true}).Enforcement())
	tests := map[string]struct{ got, want []string }{
		"reason":      {enum("$defs", "reason"), constants(t, "../policy", "Reason")},
		"outcome":     {enum("$defs", "outcome"), outcomes},
		"s3.form":     {enum("$defs", "s3_form"), constants(t, "../policy", "S3Form")},
		"ended_by":    {own("ended_by"), ended},
		"via":         {own("via"), vias},
		"enforcement": {own("enforcement"), enforcements},
		"verdict":     {own("verdict"), []string{policy.Allow.String(), policy.Deny.String()}},
		"mode":        {own("mode"), []string{policy.Enforce.String(), policy.Report.String()}},
	}
	for name, tt := range tests {
		slices.Sort(tt.want)
		if d := cmp.Diff(tt.want, tt.got); d != "" {
			t.Errorf("%s: the sources (-) and the schema (+) differ:\n%s", name, d)
		}
	}
}

// constants reads the string constants of a type from the sources in dir.
func constants(t *testing.T, dir, typeName string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	var out []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if id, ok := spec.Type.(*ast.Ident); ok && id.Name == typeName {
				for _, v := range spec.Values {
					if lit, ok := v.(*ast.BasicLit); ok {
						s, _ := strconv.Unquote(lit.Value)
						out = append(out, s)
					}
				}
			}
			return true
		})
	}
	return out
}

func TestEveryWordMakesAValidLine(t *testing.T) {
	schema := compileSchema(t)
	check := func(kind flow.Kind, change func(*flow.Record)) {
		t.Helper()
		e := flow.Event{Kind: kind, Record: base()}
		if kind == flow.Denied {
			e.Record = denied()
		}
		change(&e.Record)
		validate(t, schema, AppendFlow(nil, &e))
	}
	reasons := constants(t, "../policy", "Reason")
	for _, o := range flow.Outcomes() {
		if slices.Contains(reasons, string(o)) {
			check(flow.Denied, func(r *flow.Record) { r.Reason, r.Outcome = policy.Reason(o), o })
			check(flow.Opened, func(r *flow.Record) { r.Reason, r.WouldDeny, r.Mode = policy.Reason(o), true, policy.Report })
			continue
		}
		check(flow.Closed, func(r *flow.Record) { r.Outcome = o })
	}
	for _, by := range flow.EndedBys() {
		check(flow.Closed, func(r *flow.Record) { r.EndedBy = by })
	}
	for _, via := range []policy.Via{policy.ViaUnknown, policy.ViaConnect, policy.ViaHTTP, policy.ViaTLS, policy.ViaTCP, policy.ViaDNS} {
		for _, kind := range []flow.Kind{flow.Opened, flow.Closed, flow.Denied} {
			check(kind, func(r *flow.Record) { r.Via = via })
		}
	}
	for _, form := range constants(t, "../policy", "S3Form") {
		check(flow.Closed, func(r *flow.Record) { r.S3.Form = policy.S3Form(form) })
	}
}

// maxFlowLine is far above what the bounds of all fields can add up to: each
// escape in JSON doubles at most a byte.
const maxFlowLine = 12 << 10

func FuzzFlowLine(f *testing.F) {
	schema := compileSchema(f)
	f.Add("api.example.com", "api.example.com", "h2", "GET", "/a/b", "oops", uint8(1))
	f.Add("a\r\n{\"level\":\"warn\"}", "\u202e\u2066x", "\x00", "G E T", "/\xff", "\x1b[2J", uint8(2))
	f.Add(strings.Repeat("\\", 600), strings.Repeat("\u2028", 300), strings.Repeat("\"", 99), strings.Repeat("M", 99),
		strings.Repeat("/\x7f", 600), strings.Repeat("\\\"", 600), uint8(3))
	f.Add("\xed\xa0\x80", "", "", "", "", "", uint8(3))
	f.Add("a.example", "a.example", "h2", "GET", "/", "", uint8(255)) // so many ALPN protocols
	f.Fuzz(func(t *testing.T, host, sni, alpn, method, path, text string, kind uint8) {
		e := flow.Event{Kind: flow.Kind(1 + kind%3), Record: base()}
		r := &e.Record
		if e.Kind == flow.Denied {
			*r = denied()
		} else if kind%2 == 0 {
			r.Outcome = flow.OutcomeHTTPProtocolError
		}
		r.Host, r.TLS = host, flow.TLS{ServerName: sni, ALPN: slices.Repeat([]string{alpn}, int(kind)), Version: "1.3"}
		r.HTTP = flow.HTTP{Method: method, Path: path, Status: 200}
		r.Error = text
		line := AppendFlow(nil, &e)
		body, ok := bytes.CutSuffix(line, []byte("\n"))
		if !ok || !printable(body) {
			t.Fatalf("%q is not one line of printable ASCII", line)
		}
		if len(line) > maxFlowLine {
			t.Fatalf("%d bytes", len(line))
		}
		if dup := duplicate(t, string(line)); dup != "" {
			t.Fatalf("%q occurs twice in %s", dup, line)
		}
		validate(t, schema, line)
		var got struct {
			Level  string
			Server struct{ Address string }
			Event  struct{ Name string }
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if got.Server.Address != clean(host, limitName) || got.Event.Name != "flow."+e.Kind.String() ||
			(got.Level == "warn") != (e.Kind == flow.Denied) {
			t.Fatalf("a client changed what is not its own: %s", line)
		}
	})
}

// FuzzFlowCaller writes what is told of a caller: whatever its names hold, the
// line is valid and says nothing else than them.
func FuzzFlowCaller(f *testing.F) {
	schema := compileSchema(f)
	const arn = "arn:aws:ecs:us-east-1:111122223333:task/prod/0f1e2d3c"
	f.Add("payments", arn, "prod", "api", "web", "vpce-0a1b2c3d", 7, uint8(1))
	f.Add("a\r\n{\"level\":\"warn\"}", "arn:\x00/", "pr\u0430d", "\u202e", "\x1b[2J", "\"", -1, uint8(2))
	f.Add(strings.Repeat("\\", 600), "arn::::"+strings.Repeat(":task/", 300), strings.Repeat("c", 600), strings.Repeat("\u2028", 300),
		strings.Repeat("f", 600), strings.Repeat("\xff", 600), 1<<40, uint8(3))
	f.Add("", "", "", "", "", "", 0, uint8(0))
	f.Fuzz(func(t *testing.T, principal, arn, cluster, service, family, endpoint string, revision int, kind uint8) {
		e := flow.Event{Kind: flow.Kind(1 + kind%3), Record: base()}
		if e.Kind == flow.Denied {
			e.Record = denied()
		}
		e.Record.Principal, e.Record.VPCEndpoint = principal, endpoint
		e.Record.Task = &policy.Task{ARN: arn, Cluster: cluster, Service: service, Family: family, Revision: revision}
		line := AppendFlow(nil, &e)
		if body, ok := bytes.CutSuffix(line, []byte("\n")); !ok || !printable(body) || len(line) > maxFlowLine {
			t.Fatalf("%q is not one short line of printable ASCII", line)
		}
		if dup := duplicate(t, string(line)); dup != "" {
			t.Fatalf("%q occurs twice in %s", dup, line)
		}
		validate(t, schema, line)
		var got struct {
			User struct{ Name string }
			AWS  struct {
				ECS struct {
					Cluster, Service struct{ Name string }
					Task             struct{ ARN, Family, Revision string }
				}
			}
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		ecs := got.AWS.ECS
		if got.User.Name != clean(principal, limitName) || ecs.Cluster.Name != clean(cluster, limitName) || ecs.Service.Name != clean(service, limitName) ||
			ecs.Task.ARN != clean(arn, limitARN) || ecs.Task.Family != clean(family, limitName) {
			t.Fatalf("the caller is not told as it is: %s", line)
		}
	})
}

func BenchmarkAppendFlow(b *testing.B) {
	all := lines()
	for _, name := range []string{"close", "close_task"} {
		e := all[name]
		e.Record.Owner = "platform-team"
		b.Run(name, func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = AppendFlow(buf[:0], &e)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}
