package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// scraped is what /metrics offers: by the name of a sample, its labels, and
// their values where there were some.
type scraped map[string]map[string]map[string]bool

// scrape reads the text format.
func scrape(text string) scraped {
	all := scraped{}
	sample := regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? `)
	pair := regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
	for line := range strings.Lines(text) {
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if all[m[1]] == nil {
			all[m[1]] = map[string]map[string]bool{}
		}
		for _, p := range pair.FindAllStringSubmatch(m[2], -1) {
			if all[m[1]][p[1]] == nil {
				all[m[1]][p[1]] = map[string]bool{}
			}
			all[m[1]][p[1]][p[2]] = true
		}
	}
	return all
}

// metrics returns the whole of /metrics.
func (r *rig) metrics() string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.admin+"/metrics", http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// TestPrometheus: Prometheus' own tool accepts what /metrics says, the alerts
// and their tests; and alerts and dashboard speak of nothing that a running
// proxy does not offer.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	promtool := need(t, "promtool")
	w := newWorld(t)
	w.twoOrigins()
	r := w.serve(twoNames, setting("dns.address", loopback()+":0"), setting("dns.answer", []any{"203.0.113.10"}),
		setting("export.ipfix.collector", "udp://127.0.0.1:9"), setting("metrics.emf.namespace", ""))
	someTraffic(t, w, r)
	text := r.metrics()
	command{path: promtool, args: []string{"check", "metrics"}, stdin: strings.NewReader(text)}.run(t).succeeds(t)

	dir := filepath.Join(root(t), "examples", "prometheus")
	for _, args := range [][]string{
		{"check", "rules", "sallyport.rules.yaml"}, {"test", "rules", "sallyport.rules.test.yaml"}, {"check", "config", "scrape.yaml"},
	} {
		command{path: promtool, args: args, dir: dir}.run(t).succeeds(t)
	}

	// Of the families that need AWS or a budget there are none in this world: the golden
	// file of the metrics themselves stands in for those.
	golden, err := os.ReadFile(filepath.Join(root(t), "logging", "metrics", "testdata", "metrics.txt"))
	if err != nil {
		t.Fatal(err)
	}
	offered := scrape(text)
	for name, labels := range scrape(string(golden)) {
		if offered[name] == nil && (strings.HasPrefix(name, "sallyport_identity_") || strings.HasPrefix(name, "sallyport_budget_")) {
			offered[name] = labels
		}
	}
	offered["up"] = map[string]map[string]bool{} // Prometheus' own
	exprs := slices.Concat(alertExprs(t, filepath.Join(dir, "sallyport.rules.yaml")), dashboardExprs(t))
	if len(exprs) < 35 {
		t.Fatalf("%d expressions found", len(exprs))
	}
	rules := filepath.Join(t.TempDir(), "all.yaml")
	var parsed []any
	for i, expr := range exprs {
		for _, fault := range unknown(offered, expr) {
			t.Errorf("%s\n\tin %s", fault, expr)
		}
		parsed = append(parsed, map[string]string{"record": fmt.Sprintf("expr:%d", i), "expr": expr})
	}
	all, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "all", "rules": parsed}}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, rules, string(all))
	command{path: promtool, args: []string{"check", "rules", rules}}.run(t).succeeds(t) // which parses every one
}

// alertExprs returns the expressions of a file of rules.
func alertExprs(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, g := range doc.Groups {
		for _, rule := range g.Rules {
			all = append(all, rule.Expr)
		}
	}
	return all
}

// dashboardExprs returns the expressions of the dashboard, with Grafana's
// variables filled in as Grafana would.
func dashboardExprs(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "examples", "grafana", "sallyport.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h", "$job", ".+", "$instance", ".+")
	var all []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if expr, ok := v["expr"].(string); ok {
				all = append(all, fill.Replace(expr))
			}
			for _, below := range v {
				walk(below)
			}
		case []any:
			for _, below := range v {
				walk(below)
			}
		}
	}
	walk(doc)
	if i := slices.IndexFunc(all, func(e string) bool { return strings.Contains(e, "$") }); i >= 0 {
		t.Errorf("a variable that Grafana does not know: %s", all[i])
	}
	return all
}

// TestDashboard: Grafana takes panels as they are, and lays none upon another.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root(t), "examples", "grafana", "sallyport.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Datasource  struct{ UID string }
			Targets     []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range doc.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Description == "" || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %q asks nothing, or says nothing", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if cells[cell] != "" || cell[0] >= 24 {
					t.Fatalf("panel %q lies upon %q, or beyond the edge", p.Title, cells[cell])
				}
				cells[cell] = p.Title
			}
		}
	}
	if len(ids) < 20 || doc.UID == "" {
		t.Errorf("%d panels", len(ids))
	}
}

// unknown says which metrics, labels and values of an expression nobody offers.
func unknown(offered scraped, expr string) []string {
	var faults []string
	known := map[string]bool{"job": true, "instance": true}
	selector := regexp.MustCompile(`\b((?:sallyport|process|go)_[a-zA-Z0-9_:]+|up)\b(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`([a-zA-Z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	selectors := selector.FindAllStringSubmatch(expr, -1)
	if len(selectors) == 0 {
		return []string{"no metric"}
	}
	for _, s := range selectors {
		labels := offered[s[1]]
		if labels == nil {
			faults = append(faults, "there is no metric "+s[1])
		}
		for label := range labels {
			known[label] = true
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			switch {
			case m[1] == "job", m[1] == "instance":
				continue
			case labels[m[1]] == nil:
				faults = append(faults, fmt.Sprintf("%s has no label %s", s[1], m[1]))
			}
			for value := range strings.SplitSeq(m[3], "|") {
				if !labels[m[1]][value] && !vocabulary(m[1], value) {
					faults = append(faults, fmt.Sprintf("%s has no %s=%q", s[1], m[1], value))
				}
			}
		}
	}
	for _, m := range regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if !known[strings.TrimSpace(label)] {
				faults = append(faults, "no metric of it has the label "+strings.TrimSpace(label))
			}
		}
	}
	return faults
}

// vocabulary reports whether a closed vocabulary has the word: most of its
// words had no occasion in the test's traffic.
func vocabulary(label, value string) bool {
	switch label {
	case "outcome":
		return flow.Outcome(value).Valid()
	case "reason":
		return flow.Outcome(value).Valid() || value == string(policy.ReasonRule)
	case "mode":
		return value == policy.Report.String() || value == policy.Enforce.String()
	}
	return false
}

// The check of expressions must be able to fail.
func TestUnknownExpressions(t *testing.T) {
	t.Parallel()
	offered := scrape("sallyport_flows_total{via=\"tls\",outcome=\"ok\"} 1\nup 1\n")
	for expr, want := range map[string]string{
		`rate(sallyport_flows_total{via="tls"}[5m])`:                  "",
		`sum by (via) (sallyport_flows_total{outcome="limit"})`:       "",
		`sallyport_flow_total`:                                        "there is no metric sallyport_flow_total",
		`sallyport_flows_total{host="x"}`:                             "has no label host",
		`sallyport_flows_total{outcome=~"ok|fine"}`:                   `has no outcome="fine"`,
		`sum by (host) (sallyport_flows_total)`:                       "has the label host",
		`vector(1)`:                                                   "no metric",
		`up{job="x"} and sallyport_flows_total{via="carrier-pigeon"}`: `has no via="carrier-pigeon"`,
	} {
		if got := strings.Join(unknown(offered, expr), "; "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// TestCloudWatchExample: its alarms are on metrics that the proxy writes, and
// its queries of fields that lines have.
func TestCloudWatchExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root(t), "examples", "cloudwatch", "alarms.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(filepath.Join(root(t), "logging", "metrics", "testdata", "emf.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(lines), "\n") // the proxy's own, without dimensions, as the alarms are
	fields := schemaFields(t)
	queries, alarms := 0, 0
	for _, m := range regexp.MustCompile(`MetricName: (\w+)`).FindAllStringSubmatch(string(text), -1) {
		alarms++
		if !strings.Contains(first, `"Name":`+strconv.Quote(m[1])) {
			t.Errorf("no proxy writes %s", m[1])
		}
	}
	var doc struct {
		Resources map[string]struct {
			Type       string `yaml:"Type"`
			Properties struct {
				QueryString string `yaml:"QueryString"`
			} `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for name, res := range doc.Resources {
		if res.Type != "AWS::Logs::QueryDefinition" {
			continue
		}
		queries++
		bare := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(res.Properties.QueryString, "")
		for _, f := range regexp.MustCompile(`\b[a-z_0-9]+(?:\.[a-z_0-9]+)+\b`).FindAllString(bare, -1) {
			if !fields[f] {
				t.Errorf("%s asks for %s, which no line has", name, f)
			}
		}
	}
	if queries < 5 || alarms < 4 {
		t.Errorf("%d queries, %d metrics of alarms", queries, alarms)
	}
}

// schemaFields returns every field of the flow log, with dots.
func schemaFields(t *testing.T) map[string]bool {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(logging.FlowSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	defs, _ := schema["$defs"].(map[string]any)
	all := map[string]bool{}
	var walk func(prefix string, v map[string]any)
	walk = func(prefix string, v map[string]any) {
		if ref, ok := v["$ref"].(string); ok {
			def, _ := defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
			v = maps.Clone(v)
			maps.Copy(v, def)
		}
		properties, _ := v["properties"].(map[string]any)
		for name, below := range properties {
			path := strings.TrimPrefix(prefix+"."+name, ".")
			all[path] = true
			if b, ok := below.(map[string]any); ok {
				walk(path, b)
			}
		}
	}
	walk("", schema)
	return all
}
