package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

func emfSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("testdata", "emf.schema.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// held checks that every line is one by the specification: its shape, and that
// each dimension and metric that it names is a member.
func held(tb testing.TB, s *jsonschema.Schema, text string) []map[string]any {
	tb.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		if len(line) > 64<<10 {
			tb.Fatalf("a line of %d bytes", len(line))
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			tb.Fatalf("%v: %s", err, line)
		}
		if err := s.Validate(v); err != nil {
			tb.Fatalf("%v: %s", err, line)
		}
		var members map[string]any
		var meta struct {
			AWS struct {
				CloudWatchMetrics []emfDirective
			} `json:"_aws"`
		}
		if json.Unmarshal([]byte(line), &members) != nil || json.Unmarshal([]byte(line), &meta) != nil {
			tb.Fatal(line)
		}
		named := 1 // _aws
		for _, d := range meta.AWS.CloudWatchMetrics {
			for _, m := range d.Metrics {
				if members[m.Name] == nil {
					tb.Errorf("no member %s in %s", m.Name, line)
				}
			}
			for _, name := range slices.Concat(d.Dimensions...) {
				if _, ok := members[name].(string); !ok {
					tb.Errorf("no text %s in %s", name, line)
				}
			}
			named += len(d.Metrics) + len(slices.Concat(d.Dimensions...))
		}
		if named != len(members) {
			tb.Errorf("%d members, %d of them named, in %s", len(members), named, line)
		}
		all = append(all, members)
	}
	return all
}

func carried(service string, sent int64, dial time.Duration) flow.Event {
	return flow.Event{Kind: flow.Closed, Record: flow.Record{
		Task: &policy.Task{Service: service}, Verdict: policy.Allow, Reason: policy.ReasonRule, Outcome: flow.OutcomeOK,
		BytesSent: sent, BytesReceived: 10 * sent, Times: flow.Times{Dial: dial},
	}}
}

func TestEMF(t *testing.T) {
	schema := emfSchema(t)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		dropped := uint64(5)
		m := NewEMF(&out, EMFConfig{Namespace: "Sallyport", Active: func() int { return 3 }, Dropped: func() uint64 { dropped += 2; return dropped }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()

		m.Observe(flow.Event{Kind: flow.Opened}) // counts when it ends
		m.Observe(carried("payments", 100, 12*time.Millisecond))
		m.Observe(carried("payments", 50, 0))
		m.Observe(carried("billing", 1, 1500*time.Microsecond))
		m.Observe(flow.Event{Kind: flow.Denied, Record: flow.Record{Source: "cidr", Reason: policy.ReasonNoRule}})
		m.Observe(flow.Event{Kind: flow.Denied})
		<-time.After(time.Minute) // of the bubble's clock
		synctest.Wait()
		<-time.After(time.Minute) // nothing happens
		synctest.Wait()
		m.Observe(carried("payments", 7, 0)) // during the drain
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		held(t, schema, out.String())
		file := filepath.Join("testdata", "emf.jsonl")
		if *update {
			if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), out.String()); d != "" {
			t.Errorf("%s (-update writes it anew):\n%s", file, d)
		}
	})
}

// However many services there are, CloudWatch is told of a few, and no flow is
// lost to the bound.
func TestEMFServicesAreBounded(t *testing.T) {
	var out bytes.Buffer
	m := NewEMF(&out, EMFConfig{Namespace: "n", Services: 3})
	for range 2 {
		for i := range 1000 {
			m.Observe(carried(fmt.Sprintf("service-%d", i), 1, time.Millisecond))
		}
		if err := m.report(); err != nil {
			t.Fatal(err)
		}
	}
	flows := map[string]float64{}
	for _, line := range held(t, emfSchema(t), out.String()) {
		service, _ := line["service"].(string)
		flows[service] += line["Flows"].(float64)
		if dials, ok := line["DialTime"].([]any); ok && len(dials) != maxValues {
			t.Errorf("%d dials", len(dials))
		}
	}
	want := map[string]float64{"": 2000, "service-0": 2, "service-1": 2, "service-2": 2, ServiceOther: 1994}
	if d := cmp.Diff(want, flows); d != "" {
		t.Error(d)
	}
}

// Every value has the same chance to be in the sample.
func TestEMFSampleIsFair(t *testing.T) {
	var late, all int
	for range 200 {
		m := NewEMF(nil, EMFConfig{})
		for i := range 1000 {
			m.sample(float64(i))
		}
		for _, v := range m.dials {
			all++
			if v >= 500 {
				late++
			}
		}
	}
	if share := float64(late) / float64(all); share < 0.45 || share > 0.55 {
		t.Errorf("%.3f of the sample are of the second half", share)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestEMFTellsOfAFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewEMF(failing{}, EMFConfig{Namespace: "n"}).Run(ctx); err == nil {
		t.Error("no error")
	}
}

// FuzzEMF: whatever a service is called, the lines are by the specification.
func FuzzEMF(f *testing.F) {
	schema := emfSchema(f)
	f.Add("payments", "no_rule")
	f.Add(":colon", "\n")
	f.Add(" \t\u202e", "because")
	f.Add(strings.Repeat("é", 400), "rule")
	f.Fuzz(func(t *testing.T, service, reason string) {
		var out bytes.Buffer
		m := NewEMF(&out, EMFConfig{Namespace: "n"})
		e := carried(service, 1, time.Millisecond)
		e.Record.Reason = policy.Reason(reason)
		m.Observe(e)
		if err := m.report(); err != nil {
			t.Fatal(err)
		}
		if n := len(held(t, schema, out.String())); n != 2 {
			t.Fatalf("%d lines", n)
		}
	})
}

func BenchmarkEMF(b *testing.B) {
	m := NewEMF(nil, EMFConfig{})
	e := carried("payments", 1, time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(e)
	}
}
