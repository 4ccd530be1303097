package policy

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// seeds returns every policy document under testdata.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/scenarios/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, file := range append(files, "testdata/errors.txtar") {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if strings.HasSuffix(f.Name, ".yaml") {
				all = append(all, f.Data)
			}
		}
	}
	return all
}

// probes are queries that meet the seeds' rules, and some that meet none.
func probes(t testing.TB) []Query {
	t.Helper()
	var all []Query
	for _, target := range []string{
		"https://a.example", "https://x.wide.example", "http://www.plain.example", "tcp://db.corp.example:5432", "a.example:443",
		"https://203.0.113.5", "https://10.9.1.1", "https://[2001:db8:1::5]", "https://acme-prod-a.s3.us-east-1.amazonaws.com",
		"api.pay.example:443", "person.example:443", "all.example:443",
		"https://s3.eu-central-1.amazonaws.com", "https://x-s3alias.s3.us-east-1.amazonaws.com", "https://nowhere.test", "(none)",
	} {
		for _, from := range []string{"", " from 10.1.2.3", " from 192.0.2.7"} {
			for _, at := range []string{"", " at 2026-11-01T00:00:00Z"} {
				all = append(all, ask(t, target+from+at))
			}
		}
		for _, caller := range []string{
			" service prod/payments-api family web:7 tag team=payments principal alice", " from 10.9.1.1", " principal alice",
			" unidentified true", " unidentified true from 10.9.1.1", " endpoint vpce-0a1b2c3d4e5f60718",
		} {
			all = append(all, ask(t, target+caller))
		}
	}
	return all
}

// FuzzLoad loads documents. Whatever they are: no panic; an error has places
// and words; and of what loads, that it loads to the same again, that report
// mode changes no reason and no rule, that one more deny rule allows no more,
// that an explanation agrees with the decision, and that a remedy is a rule
// that helps.
func FuzzLoad(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	queries := probes(f)
	deny := Text{"deny.yaml", []byte("version: 1\nrules:\n  - {name: zz-more-deny, action: deny, hosts: [\"**.wide.example\", a.example], ports: [443]}\n")}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Load(Text{"p.yaml", data})
		if err != nil {
			checkErrors(t, err)
			if p != nil {
				t.Fatal("a policy and an error")
			}
			return
		}
		again, err := Load(Text{"p.yaml", data})
		if err != nil || again.Version() != p.Version() || !reflect.DeepEqual(rulesOf(again), rulesOf(p)) {
			t.Fatalf("loaded again, it differs: %v", err)
		}
		p.Warnings(time.Now())
		reported := *p
		reported.standing, reported.sources = standing{mode: Report}, slices.Clone(p.sources)
		for i := range reported.sources {
			reported.sources[i].standing = nil
		}
		more, err := Load(Text{"p.yaml", data}, deny)
		if err != nil && !strings.Contains(err.Error(), "zz-more-deny") {
			t.Fatalf("one more document: %v", err)
		}
		for _, q := range queries {
			d, r := p.Decide(q), reported.Decide(q)
			if again := again.Decide(q); answer(d) != answer(again) {
				t.Fatalf("%v: %s, loaded again %s", q, answer(d), answer(again))
			}
			if d.Reason != r.Reason || d.Rule == nil != (r.Rule == nil) || (d.Rule != nil && d.Rule.Name != r.Rule.Name) {
				t.Fatalf("%v: %s, but in report mode %s", q, answer(d), answer(r))
			}
			if r.Verdict != Allow && r.Reason != ReasonNoName {
				t.Fatalf("%v: report mode denies: %s", q, answer(r))
			}
			if err == nil && d.Verdict == Deny && more.Decide(q).Verdict == Allow {
				t.Fatalf("%v: one more deny rule allows it", q)
			}
			checkExplanation(t, p, q, d, data)
		}
	})
}

func checkErrors(t *testing.T, err error) {
	t.Helper()
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 || len(all) > maxErrors {
		t.Fatalf("%T %v", err, err)
	}
	_ = all.Detail()
	for _, e := range all {
		if e.Message == "" || e.Pos.File != "p.yaml" {
			t.Fatalf("%+v", e)
		}
	}
}

func checkExplanation(t *testing.T, p *Policy, q Query, d Decision, data []byte) {
	t.Helper()
	e := p.Explain(q)
	if answer(e.Decision) != answer(d) || e.String() == "" {
		t.Fatalf("%v: %s, explained as %s", q, answer(d), answer(e.Decision))
	}
	if _, err := e.MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	if e.Remedy == "" {
		return
	}
	// The sources that a remedy may name are in the policy's own document, so
	// it is loaded beside it, and no deny rule can stand against it.
	with, err := Load(Text{"p.yaml", data}, Text{"remedy.yaml", []byte("version: 1\nrules:\n" + e.Remedy)})
	if err != nil {
		t.Fatalf("%v: the remedy does not load: %v\n%s", q, err, e.Remedy)
	}
	if again := with.Decide(q); again.Verdict != Allow || again.Reason != ReasonRule {
		t.Fatalf("%v: the remedy does not help: %s\n%s", q, answer(again), e.Remedy)
	}
}

// rulesOf returns the rules without what the index made of them.
func rulesOf(p *Policy) []Rule {
	all := slices.Clone(p.Rules())
	for i := range all {
		all[i].match = ruleMatch{}
	}
	return all
}

// TestTornDocuments loads the seeds' documents cut short at every line:
// what a torn write leaves.
func TestTornDocuments(t *testing.T) {
	for _, seed := range seeds(t) {
		for i, c := range seed {
			if c != '\n' {
				continue
			}
			if p, err := Load(Text{"p.yaml", seed[:i]}); err != nil {
				checkErrors(t, err)
			} else if p == nil {
				t.Fatal("neither a policy nor an error")
			}
		}
	}
}

func TestLoadManyUnknownKeys(t *testing.T) {
	data := bytes.Repeat([]byte("k: 1\n"), 1<<20)
	if _, err := Load(Text{"p.yaml", data}); err == nil {
		t.Fatal("loaded")
	} else {
		checkErrors(t, err)
	}
}

// TestPresetsEverywhere loads every preset with every suffix, in a Region of
// each partition.
func TestPresetsEverywhere(t *testing.T) {
	want := []string{"aws/fargate-base", "debian", "docker-hub", "ghcr", "npm", "pypi"}
	if got := presetNames(); !slices.Equal(got, want) {
		t.Fatalf("presets %v, want %v", got, want)
	}
	for _, region := range []string{
		"us-east-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1",
		"us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "us-isof-south-1",
	} {
		for _, name := range want {
			f, err := loadPreset(name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var document strings.Builder
			document.WriteString("version: 1\nrules:\n  - name: p\n    preset: " + name)
			for extra := range f.Extras {
				document.WriteString("+" + extra)
			}
			if len(f.With) > 0 {
				document.WriteString("\n    with: {region: " + region + ", account: \"111122223333\"}")
			}
			p := mustLoad(t, document.String()+"\n")
			if w := p.Warnings(time.Time{}); len(w) > 0 {
				t.Errorf("%s in %s: %v", name, region, w)
			}
			for _, r := range p.Rules() {
				for _, h := range append(slices.Clone(r.match.hosts), r.match.buckets...) {
					if strings.ContainsAny(h, "${}*") {
						t.Errorf("%s in %s: %s lists %q", name, region, r.Name, h)
					}
				}
				if len(r.match.hosts)+len(r.match.buckets) == 0 {
					t.Errorf("%s in %s: %s lists nothing", name, region, r.Name)
				}
			}
		}
	}
	if err := filepath.WalkDir("presets", func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) != ".yaml" {
			t.Errorf("%s is embedded too", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPresetInherits(t *testing.T) {
	p := mustLoad(t, `version: 1
sources: [{name: s, cidrs: [10.0.0.0/8]}]
rules:
  - {name: no, owner: me, action: deny, preset: npm, sources: [s]}
`)
	r := p.Rules()[0]
	if r.Name != "no/registry" || r.Owner != "me" || r.Verdict != Deny || r.Pos.Line != 4 {
		t.Errorf("%+v", r)
	}
	for query, want := range map[string]string{
		"https://registry.npmjs.org from 10.0.0.1": "deny deny_rule no/registry source=s",
		"registry.npmjs.org:22 from 10.0.0.1":      "deny deny_rule no/registry source=s",
		"https://registry.npmjs.org":               "deny no_rule",
	} {
		if got := answer(p.Decide(ask(t, query))); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestManyPrefixes(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nrules:\n  - name: r\n    cidrs:\n")
	for i := range 50_000 {
		b.WriteString("      - " + prefixNumber(i) + "\n")
	}
	p := mustLoad(t, b.String())
	for i := range 50_000 {
		h, err := ParseHost(strings.TrimSuffix(prefixNumber(i), "/32"))
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(Query{Via: ViaConnect, Host: h, Port: 443}); d.Verdict != Allow {
			t.Fatalf("%s: %s", h, answer(d))
		}
	}
}

func prefixNumber(i int) string {
	parts := []string{"20", strconv.Itoa(i >> 16), strconv.Itoa(i >> 8 & 255), strconv.Itoa(i & 255)}
	return strings.Join(parts, ".") + "/32"
}
