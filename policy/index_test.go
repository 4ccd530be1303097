package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// fitsHost is the oracle of the index: it matches a pattern without braces
// against a name by recursion over labels and characters, and knows neither
// the index nor gobwas/glob.
func fitsHost(pattern, name string) bool {
	return fitsLabels(strings.Split(pattern, "."), strings.Split(name, "."))
}

func fitsLabels(pattern, name []string) bool {
	if len(pattern) == 0 || len(name) == 0 {
		return len(pattern) == len(name)
	}
	if pattern[0] == "**" {
		for i := 1; i <= len(name); i++ {
			if fitsLabels(pattern[1:], name[i:]) {
				return true
			}
		}
		return false
	}
	return name[0] != "" && fitsText(pattern[0], name[0]) && fitsLabels(pattern[1:], name[1:])
}

// fitsText matches characters, where * is any run of them.
func fitsText(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	if pattern[0] == '*' {
		for i := 0; i <= len(text); i++ {
			if fitsText(pattern[1:], text[i:]) {
				return true
			}
		}
		return false
	}
	return text != "" && pattern[0] == text[0] && fitsText(pattern[1:], text[1:])
}

// found returns the rules that an index finds for a name.
func found(find func(string, visit), name string) []int32 {
	var ids []int32
	find(name, func(rules []int32, _ bool) { ids = append(ids, rules...) })
	slices.Sort(ids)
	return slices.Compact(ids)
}

// randomLabel is drawn from few characters, so that patterns and names meet.
func randomLabel(r *rand.Rand, alphabet string, most int) string {
	b := make([]byte, 1+r.IntN(most))
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func randomName(r *rand.Rand, alphabet string) string {
	labels := make([]string, 1+r.IntN(4))
	for i := range labels {
		labels[i] = randomLabel(r, alphabet, 3)
	}
	return strings.Join(labels, ".")
}

// TestHostIndexAgrees compares the index with the oracle over random rules
// and names.
func TestHostIndexAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := &compiler{policy: &Policy{}}
	hits := 0
	for range 400 {
		var x hostIndex
		var patterns []string
		for len(patterns) < 1+r.IntN(60) {
			labels := strings.Split(randomName(r, "ab*"), ".")
			if r.IntN(3) == 0 {
				labels[r.IntN(len(labels))] = "**"
			}
			p := strings.Join(labels, ".")
			if all, err := parseHostPattern(p); err != nil || len(all) != 1 {
				continue
			}
			x.add(p, int32(len(patterns)), c.hostGlob)
			patterns = append(patterns, p)
		}
		for range 60 {
			name := randomName(r, "ab")
			var want []int32
			for i, p := range patterns {
				if fitsHost(p, name) {
					want = append(want, int32(i))
				}
			}
			hits += len(want)
			if got := found(x.find, name); !slices.Equal(got, want) {
				t.Fatalf("%q: the index finds %v, the oracle %v of %q", name, got, want, patterns)
			}
		}
	}
	if hits < 10000 {
		t.Errorf("only %d patterns matched: the names and patterns do not meet", hits)
	}
}

func TestNameIndexAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c := &compiler{policy: &Policy{}}
	for range 200 {
		var x nameIndex
		var patterns []string
		for len(patterns) < 1+r.IntN(60) {
			p := randomLabel(r, "ab.*", 6)
			if strings.Count(p, "*") > maxLabelStars || strings.Contains(p, "**") {
				continue
			}
			x.add(p, int32(len(patterns)), c.bucketGlob)
			patterns = append(patterns, p)
		}
		for range 60 {
			name := randomLabel(r, "ab.", 6)
			var want []int32
			for i, p := range patterns {
				if fitsText(p, name) {
					want = append(want, int32(i))
				}
			}
			if got := found(x.find, name); !slices.Equal(got, want) {
				t.Fatalf("%q: the index finds %v, the oracle %v of %q", name, got, want, patterns)
			}
		}
	}
}

// TestCoveringAgrees holds the lint's idea of covering to the oracle: whatever
// matches the covered pattern matches the covering one.
func TestCoveringAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	c := &compiler{policy: &Policy{}}
	pattern := func() string {
		for {
			labels := strings.Split(randomName(r, "ab*"), ".")
			if r.IntN(3) == 0 {
				labels[r.IntN(len(labels))] = "**"
			}
			p := strings.Join(labels, ".")
			if _, err := parseHostPattern(p); err == nil {
				return p
			}
		}
	}
	covered := 0
	for range 5000 {
		a, b := pattern(), pattern()
		var x hostIndex
		x.add(a, 1, c.hostGlob)
		covers := false
		x.covering(b, func(rules []int32, _ bool) { covers = covers || len(rules) > 0 })
		if !covers {
			continue
		}
		covered++
		for range 50 {
			if name := randomName(r, "ab"); fitsHost(b, name) && !fitsHost(a, name) {
				t.Fatalf("%q is said to cover %q, but not %q", a, b, name)
			}
		}
	}
	if covered < 50 {
		t.Errorf("only %d pairs were covered", covered)
	}
}

// FuzzPattern parses a pattern and matches it against a name: what parses
// matches as the oracle says, and never an invalid name.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"*.example.com", "a.example.com"},
		{"**.example.com", "a.b.example.com"},
		{"login.*.example.com", "login.eu.example.com"},
		{"{a,b*}.example.com", "bb.example.com"},
		{"a*b*c.**.x", "aabbcc.d.e.x"},
		{"{a.b,c}.x", "a.b.x"},
		{"**", "a"},
		{"Example.COM.", "example.com"},
		{"*.*.*", "a.b.c"},
		{"a*.**", "ab.c"},
		{"1*", "1a"},
		{"***", "a"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"{,}", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	c := &compiler{policy: &Policy{}}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		all, perr := parseHostPattern(pattern)
		if perr != nil {
			if perr.offset < 0 || perr.offset > len(pattern) || perr.message == "" {
				t.Fatalf("parseHostPattern(%q) = %+v", pattern, perr)
			}
			return
		}
		h, err := ParseHost(name)
		if err != nil {
			return
		}
		if _, literal := h.Addr(); literal {
			return
		}
		var x hostIndex
		want := false
		for _, p := range all {
			if again, err := parseHostPattern(p); err != nil || !slices.Equal(again, []string{p}) {
				t.Fatalf("%q stands for %q, which stands for %q, %v", pattern, p, again, err)
			}
			x.add(p, 0, c.hostGlob)
			want = want || fitsHost(p, h.String())
		}
		if got := len(found(x.find, h.String())) > 0; got != want {
			t.Fatalf("pattern %q, name %q: the index says %v, the oracle %v", pattern, h, got, want)
		}
	})
}

// manyRules is a policy of n rules of every kind, and names that it allows
// and denies.
func manyRules(n int) Text {
	var b strings.Builder
	b.WriteString("version: 1\nrules:\n")
	for i := range n {
		var pattern string
		switch i % 10 {
		default:
			pattern = fmt.Sprintf("host-%d.example.com", i)
		case 6:
			pattern = fmt.Sprintf("*.zone-%d.example.net", i)
		case 7:
			pattern = fmt.Sprintf("**.tree-%d.example.org", i)
		case 8:
			pattern = fmt.Sprintf("app-%d-*.example.com", i)
		case 9:
			pattern = fmt.Sprintf("*-svc-%d.example.com", i)
		}
		fmt.Fprintf(&b, "  - {name: r%d, hosts: [%q]}\n", i, pattern)
	}
	return Text{"policy.yaml", []byte(b.String())}
}

var benchmarkTargets = []struct{ name, target string }{
	{"exact", "https://host-0.example.com"},
	{"one", "https://a.zone-6.example.net"},
	{"many", "https://a.b.c.tree-7.example.org"},
	{"glob", "https://app-8-x.example.com"},
	{"miss", "https://www.nowhere.example.com"},
	{"miss-other", "https://www.nowhere.test"},
	{"miss-s3", "https://bucket.s3.us-east-1.amazonaws.com"},
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		p, err := Load(manyRules(n))
		if err != nil {
			b.Fatal(err)
		}
		for _, target := range benchmarkTargets {
			q := ask(b, target.target)
			b.Run(fmt.Sprintf("rules=%d/%s", n, target.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.Decide(q)
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		text := manyRules(n)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(text.Data)))
			for b.Loop() {
				if _, err := Load(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestDecideDoesNotAllocate covers every way through the index, with sources.
func TestDecideDoesNotAllocate(t *testing.T) {
	p := mustLoad(t, `version: 1
sources: [{name: s, cidrs: [10.0.0.0/8, "2001:db8::/32"], mode: report}]
rules:
  - {name: host, hosts: ["a.example", "*.b.example", "**.c.example", "d-*.example.com", "*-d*e.example.com"], sources: [s]}
  - {name: net, cidrs: [203.0.113.0/24], sources: [s]}
  - {name: s3, s3: {buckets: [abc, "team-*"], access_points: [finance-111122223333, "f*-111122223333"]}, sources: [s]}
  - {name: no, action: deny, hosts: ["**.bad.example"]}
`)
	var live Live
	live.Swap(p)
	for _, target := range []string{
		"https://a.example", "https://x.b.example", "https://x.y.c.example", "https://d-1.example.com", "https://x-dee.example.com",
		"203.0.113.7:443", "https://203.0.114.7", "https://abc.s3.amazonaws.com", "https://team-x.s3.us-east-1.amazonaws.com",
		"https://finance-111122223333.s3-accesspoint.us-east-1.amazonaws.com", "https://s3.amazonaws.com", "https://x.bad.example", "https://nowhere.test",
	} {
		for _, from := range []string{"10.1.2.3", "192.0.2.1", "2001:db8::1"} {
			q := ask(t, target+" from "+from)
			// The race detector has a sync.Pool lose things now and then, and the
			// globs have one; an allocation of ours is there every time.
			least := math.Inf(1)
			for range 5 {
				least = min(least, testing.AllocsPerRun(100, func() { live.Decide(q) }))
			}
			if least != 0 {
				t.Errorf("%s from %s: %v allocations", target, from, least)
			}
		}
	}
}
