package logging

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// ocsfSchema is what OCSF 1.8.0 demands of the attributes that are used here,
// written down by hand from its published class 4001: the server's own check
// takes the whole of the schema.
func ocsfSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("testdata", "ocsf_4001.schema.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestOCSFLines(t *testing.T) {
	schema := ocsfSchema(t)
	for name, e := range lines() {
		if e.Kind == flow.Found {
			if got := AppendOCSF(nil, &e); len(got) > 0 {
				t.Errorf("an anomaly is no network activity: %s", got)
			}
			continue
		}
		t.Run(name, func(t *testing.T) {
			got := AppendOCSF(nil, &e)
			if line, ok := bytes.CutSuffix(got, []byte("\n")); !ok || !printable(line) {
				t.Fatalf("%q is not one line of printable ASCII", got)
			}
			if dup := duplicate(t, string(got)); dup != "" {
				t.Errorf("%q occurs twice in %s", dup, got)
			}
			validate(t, schema, got)
			golden(t, "ocsf_"+name+".json", indented(t, got))
		})
	}
}

func indented(t *testing.T, line []byte) string {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, line, "", "  "); err != nil {
		t.Fatal(err)
	}
	return pretty.String()
}

// golden compares got with a file, or writes the file with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-update writes it anew):\n%s", file, d)
	}
}

// Every word of every closed vocabulary makes a valid line, and the numbers
// agree with their captions.
func TestOCSFEveryWord(t *testing.T) {
	schema := ocsfSchema(t)
	for _, o := range flow.Outcomes() {
		for _, by := range flow.EndedBys() {
			for _, kind := range []flow.Kind{flow.Opened, flow.Closed, flow.Denied} {
				for _, peer := range []bool{true, false} {
					e := flow.Event{Kind: kind, Record: base()}
					e.Record.Outcome, e.Record.EndedBy = o, by
					if !peer {
						e.Record.Peer = netip.AddrPort{}
					}
					validate(t, schema, AppendOCSF(nil, &e))
				}
			}
		}
	}
	if got := AppendOCSF(nil, &flow.Event{}); len(got) != 0 {
		t.Errorf("an event of no kind wrote %s", got)
	}
}

func TestOCSFActivities(t *testing.T) {
	closed := func(change func(*flow.Record)) *flow.Event {
		e := &flow.Event{Kind: flow.Closed, Record: base()}
		change(&e.Record)
		return e
	}
	tests := []struct {
		name string
		e    *flow.Event
		want []string
	}{
		{"open", &flow.Event{Kind: flow.Opened, Record: base()}, []string{`"type_uid":400101`, `"action_id":1`, `"disposition_id":1`, `"status_id":1`}},
		{"close", closed(func(*flow.Record) {}), []string{`"type_uid":400102`, `"status_id":1`, `"bytes_out":4096`, `"bytes_in":8589934592`}},
		{"cut", closed(func(r *flow.Record) { r.EndedBy, r.Outcome = flow.EndedByPolicy, flow.OutcomeConnectionTerminated }), []string{`"type_uid":400103`, `"status_id":2`}},
		{"failed", closed(func(r *flow.Record) { r.Peer, r.Outcome = netip.AddrPort{}, flow.OutcomeDNSError }), []string{`"type_uid":400104`, `"status_code":"dns_error"`}},
		{"refused by us", &flow.Event{Kind: flow.Denied, Record: denied()}, []string{`"type_uid":400105`, `"action_id":2`, `"disposition_id":2`, `"severity_id":2`}},
		{"report", closed(func(r *flow.Record) { r.WouldDeny = true }), []string{`"action_id":1`, `"disposition_id":17`, `"is_applied":false`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := string(AppendOCSF(nil, tt.e))
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %s in %s", want, got)
				}
			}
		})
	}
}

// What the schema must refuse: else it would pass anything.
func TestOCSFSchemaRefuses(t *testing.T) {
	schema := ocsfSchema(t)
	e := flow.Event{Kind: flow.Closed, Record: base()}
	line := string(AppendOCSF(nil, &e))
	for _, change := range [][2]string{
		{`"activity_id":2`, `"activity_id":42`},
		{`"type_uid":400102`, `"type_uid":400105`},
		{`"category_uid":4,`, ``},
		{`"direction_id":2,`, ``},
		{`"disposition_id":1`, `"disposition_id":77`},
		{`"hostname":"acme`, `"hostname":"-acme\\n`},
		{`"time":1795422601358`, `"time":"2026"`},
	} {
		bad := strings.Replace(line, change[0], change[1], 1)
		if bad == line {
			t.Fatalf("%s is not in %s", change[0], line)
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		if schema.Validate(v) == nil {
			t.Errorf("it passes with %s", change[1])
		}
	}
}

// FuzzOCSF: whatever a client or a name holds, the line is one, valid, and
// says who decided what.
func FuzzOCSF(f *testing.F) {
	schema := ocsfSchema(f)
	f.Add("api.example.com", "api.example.com", "GET", "/a", "oops", "arn:aws:ecs:us-east-1:111122223333:task/a/b", uint8(1))
	f.Add("a\r\n{\"action_id\":1}", "\u202e", "G E T", "/\xff", "\x1b[2J", "arn:::::", uint8(2))
	f.Add(strings.Repeat("\\", 600), strings.Repeat("\u2028", 300), strings.Repeat("M", 99), strings.Repeat("/\x7f", 600), strings.Repeat("\"", 600), strings.Repeat("a:", 900), uint8(3))
	f.Add("[::1%lo]", "", "", "", "", "", uint8(3))
	f.Add("203.0.113.9", "", "", "", "", "", uint8(2))
	f.Fuzz(func(t *testing.T, host, sni, method, path, text, arn string, kind uint8) {
		e := flow.Event{Kind: flow.Kind(1 + kind%3), Record: base()}
		if e.Kind == flow.Denied {
			e.Record = denied()
		}
		r := &e.Record
		r.Host, r.TLS.ServerName, r.HTTP.Method, r.HTTP.Path, r.Error = host, sni, method, path, text
		r.Task = &policy.Task{ARN: arn, Service: sni, Family: host}
		r.Principal, r.Source, r.Rule = host, sni, path
		line := AppendOCSF(nil, &e)
		if body, ok := bytes.CutSuffix(line, []byte("\n")); !ok || !printable(body) || len(line) > maxFlowLine {
			t.Fatalf("%q is not one short line of printable ASCII", line)
		}
		if dup := duplicate(t, string(line)); dup != "" {
			t.Fatalf("%q occurs twice in %s", dup, line)
		}
		validate(t, schema, line)
		var got struct {
			ActionID int `json:"action_id"`
			Metadata struct {
				Code string `json:"event_code"`
			}
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if (got.ActionID == 2) != (e.Kind == flow.Denied) || got.Metadata.Code != "flow."+e.Kind.String() {
			t.Fatalf("a client changed what is not its own: %s", line)
		}
	})
}

func TestVPCFlowLines(t *testing.T) {
	var got strings.Builder
	all := lines()
	odd := flow.Event{Kind: flow.Closed, Record: base()}
	odd.Record.Client, odd.Record.Peer = netip.MustParseAddrPort("[::ffff:10.0.16.9]:40312"), netip.MustParseAddrPort("[fe80::7%eth0]:443")
	all["odd_addresses"] = odd
	for _, name := range slices.Sorted(mapKeys(all)) {
		e := all[name]
		text := AppendVPCFlow(nil, &e)
		if e.Kind == flow.Found {
			if len(text) > 0 {
				t.Errorf("an anomaly is no flow: %s", text)
			}
			continue
		}
		got.WriteString("# " + name + "\n")
		got.Write(text)
		for line := range strings.Lines(string(text)) {
			if n := len(strings.Fields(line)); n != 14 {
				t.Errorf("%s: %d fields in %q", name, n, line)
			}
		}
	}
	golden(t, "vpcflow.txt", got.String())
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// FuzzVPCFlow: fourteen fields a line, whatever a client wrote.
func FuzzVPCFlow(f *testing.F) {
	f.Add("a b\n2 1 eni 10.0.0.1", "arn:aws:ecs:x:1 REJECT OK\n:task", int64(-1), uint8(1))
	f.Add("fe80::1%a b", "arn:aws:ecs:x:111122223333:task", int64(1<<62), uint8(2))
	f.Fuzz(func(t *testing.T, host, arn string, bytesSent int64, kind uint8) {
		e := flow.Event{Kind: flow.Kind(1 + kind%3), Record: base()}
		r := &e.Record
		r.Host, r.Task, r.Peer, r.BytesSent = host, &policy.Task{ARN: arn}, netip.AddrPort{}, bytesSent
		for line := range strings.Lines(string(AppendVPCFlow(nil, &e))) {
			body, ok := strings.CutSuffix(line, "\n")
			if !ok || !printable(body) || len(strings.Split(body, " ")) != 14 {
				t.Fatalf("%q", line)
			}
		}
	})
}

// The writer counts lines, of which an event may be none or two.
func TestFlowWriterFormats(t *testing.T) {
	for format, want := range map[string]int{FormatJSON: 3, FormatConsole: 3, FormatOCSF: 3, FormatVPCFlow: 3} {
		var out bytes.Buffer
		w := NewFlowWriter(&out, newLog(t, &bytes.Buffer{}, Options{}), FlowOptions{Format: format})
		for _, e := range []flow.Event{{Kind: flow.Opened, Record: base()}, {Kind: flow.Closed, Record: base()}, {Kind: flow.Denied, Record: denied()}} {
			w.lines(nil, &e) // not through the queue: Run is another test's
			w.add(&e)
		}
		if got := strings.Count(out.String(), "\n"); got != want {
			t.Errorf("%s: %d lines, want %d:\n%s", format, got, want, out.String())
		}
	}
}
