package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// labelled is a section of testdata/generalise.txt.
type labelled struct {
	title            string
	want, deny, seen []string
}

func readLabelled(t *testing.T) []labelled {
	t.Helper()
	data, err := os.ReadFile("testdata/generalise.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []labelled
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#" || strings.HasPrefix(line, "#"):
		case words[0] == "==":
			all = append(all, labelled{title: strings.Join(words[1:], " ")})
		case words[0] == "want":
			all[len(all)-1].want = words[1:]
		case words[0] == "deny":
			all[len(all)-1].deny = words[1:]
		default:
			last := &all[len(all)-1]
			last.seen = append(last.seen, words...)
		}
	}
	return all
}

// proposed lists what a suggestion says in few words: wildcards, presets, and
// buckets.
func proposed(s *Suggestion) []string {
	var all []string
	for _, r := range s.Rules {
		if r.Preset != "" {
			all = append(all, "preset:"+r.Preset)
		}
		if r.S3 != nil {
			for _, b := range r.S3.Buckets {
				all = append(all, "s3:"+b)
			}
		}
		for _, h := range r.Hosts {
			if hasWildcard(h.Pattern) {
				all = append(all, h.Pattern)
			}
		}
	}
	return all
}

// What an expert would write is the measure. Nobody whom the names' owners did
// not let in may come in; beyond that a name too many on a list is no harm.
func TestSuggestLabelled(t *testing.T) {
	const leastPrecision, leastRecall = 1.0, 0.8
	sections := readLabelled(t)
	right, said, wanted, names, strangers := 0, 0, 0, 0, 0
	for _, one := range sections {
		var seen []Seen
		for _, target := range one.seen {
			if !strings.Contains(target, "://") {
				target = "https://" + target
			}
			seen = append(seen, seenBy(t, "app", target))
		}
		names += len(seen)
		s := Suggest(seen, SuggestOptions{})
		p := checkSuggestion(t, &s)
		got := proposed(&s)
		for _, g := range got {
			said++
			if slices.Contains(one.want, g) {
				right++
			} else {
				t.Logf("%s: proposes %s, which is not wanted", one.title, g)
			}
		}
		for _, w := range one.want {
			wanted++
			if !slices.Contains(got, w) {
				t.Logf("%s: does not propose %s", one.title, w)
			}
		}
		if len(s.kept) != len(seen) {
			t.Errorf("%s: keeps %d of %d names: %+v", one.title, len(s.kept), len(seen), s.LeftOut)
		}
		for _, name := range one.deny {
			strangers++
			q := seenBy(t, "app", "https://"+name).Query
			for _, port := range []uint16{443, 5432, 9092, 27017} {
				q.Port, q.Protocol = port, ProtocolUnknown
				if d := p.Decide(q); d.Reason == ReasonRule {
					t.Errorf("%s: lets %s in by the rule %s", one.title, name, d.RuleName())
				}
			}
		}
	}
	precision, recall := float64(right)/float64(said), float64(right)/float64(wanted)
	t.Logf("%d sections, %d names, %d strangers: precision %.3f (%d of %d), recall %.3f (%d of %d)",
		len(sections), names, strangers, precision, right, said, recall, right, wanted)
	if precision < leastPrecision || recall < leastRecall {
		t.Errorf("precision %.3f and recall %.3f, want at least %.2f and %.2f", precision, recall, leastPrecision, leastRecall)
	}
}
