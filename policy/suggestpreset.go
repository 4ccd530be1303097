package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// presetRules writes rules with presets for what they were made for, and takes
// it from kept. A preset is proposed when at least half of its parts were used,
// its first among them; its suffixes as far as they were. It returns what is S3's of the rest.
func (g *suggester) presetRules(c *suggestedCaller, kept *[]keptSeen) (s3 []keptSeen) {
	g.ownPresets = map[string]bool{}
	if g.effort < effortNoPresets {
		for _, name := range presetNames() {
			for i, with := range presetArguments(name, *kept) {
				g.presetRule(c, name, with, i == 0, kept)
			}
		}
	}
	var rest []keptSeen
	for _, k := range *kept {
		if k.s3().Form != "" {
			s3 = append(s3, k)
		} else {
			rest = append(rest, k)
		}
	}
	*kept = rest
	return s3
}

// presetRule proposes one preset where it fits.
func (g *suggester) presetRule(c *suggestedCaller, name string, with map[string]string, extras bool, kept *[]keptSeen) {
	f, err := loadPreset(name)
	if err != nil {
		return
	}
	var suffixes []string
	if extras {
		suffixes = slices.Sorted(maps.Keys(f.Extras))
	}
	part := presetDecides(strings.Join(slices.Concat([]string{name}, suffixes), "+"), with)
	used := map[string]bool{}
	for i := range *kept {
		used[part(&(*kept)[i])] = true
	}
	parts := partsUsed(f.Rules.Content, used)
	if partsUsed(f.Rules.Content[:1], used) == 0 || parts*2 < len(f.Rules.Content) {
		return
	}
	suffixes = slices.DeleteFunc(suffixes, func(extra string) bool {
		n := f.Extras[extra]
		return partsUsed(n.Content, used) == 0
	})
	chosen := strings.Join(slices.Concat([]string{name}, suffixes), "+")
	rule := g.newRule(c, name[strings.LastIndexByte(name, '/')+1:])
	rule.Preset, rule.With = chosen, with
	part = presetDecides(chosen, with)
	*kept = slices.DeleteFunc(slices.Clone(*kept), func(k keptSeen) bool {
		if part(&k) == "" {
			return false
		}
		rule.Evidence.add(k.Seen)
		g.ownPresets[registrable(k.query.Host.name)] = true
		return true
	})
	g.out.Rules = append(g.out.Rules, rule)
}

// presetDecides returns a function that tells which part of a preset allows an
// observation, "" for none.
func presetDecides(preset string, with map[string]string) func(*keptSeen) string {
	text := fmt.Sprintf("version: 1\nrules:\n  - name: p\n    preset: %q\n%s", preset, withText(with))
	p, err := Load(Text{"preset", []byte(text)})
	return func(k *keptSeen) string {
		if err != nil || k.query.S3 != nil || k.resolvesTo != nil {
			return ""
		}
		q := k.query
		q.Source = Source{} // a preset says nothing of callers
		d := p.Decide(q)
		if d.Reason != ReasonRule {
			return ""
		}
		_, part, _ := strings.Cut(d.RuleName(), "/")
		return part
	}
}

// withText writes a preset's parameters, as a line of a rule.
func withText(with map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(with)) {
		all = append(all, fmt.Sprintf("%s: %q", key, with[key]))
	}
	if all == nil {
		return ""
	}
	return "    with: {" + strings.Join(all, ", ") + "}\n"
}

// partsUsed counts the rules of a preset that decided something.
func partsUsed(parts []*yaml.Node, used map[string]bool) int {
	n := 0
	for _, p := range parts {
		var part struct{ Name string }
		if p.Decode(&part) == nil && used[part.Name] {
			n++
		}
	}
	return n
}

// presetArguments returns the parameters to try a preset with: those that the
// names tell, of each Region with the account that was used most there, the
// busiest Region first.
func presetArguments(name string, kept []keptSeen) []map[string]string {
	f, err := loadPreset(name)
	if err != nil {
		return nil
	}
	if len(f.With) == 0 {
		return []map[string]string{nil}
	}
	if !slices.Equal(f.With, []string{"region", "account"}) {
		return nil // its parameters are not in names
	}
	regions := map[string]int64{}
	accounts := map[string]map[string]int64{}
	for i := range kept {
		account, region := registryOf(kept[i].query.Host.name)
		if region == "" {
			continue
		}
		if accounts[region] == nil {
			accounts[region] = map[string]int64{}
		}
		accounts[region][account] += kept[i].Count
		regions[region] += kept[i].Count
	}
	var all []map[string]string
	for _, region := range busiest(regions) {
		all = append(all, map[string]string{"region": region, "account": busiest(accounts[region])[0]})
	}
	return all
}

// registryOf reads the host of an account's registry: ACCOUNT.dkr.ecr.REGION.S
// or ACCOUNT.dkr-ecr.REGION.S.
func registryOf(name string) (account, region string) {
	labels := strings.Split(name, ".")
	if len(labels) < 4 || !isAccount(labels[0]) {
		return "", ""
	}
	switch at := 2; {
	case labels[1] == "dkr" && (labels[2] == "ecr" || labels[2] == "ecr-fips"):
		at = 3
		fallthrough
	case labels[1] == "dkr-ecr" || labels[1] == "dkr-ecr-fips":
		if isRegion(labels[at]) {
			return labels[0], labels[at]
		}
	}
	return "", ""
}

// busiest returns the keys, the highest count first.
func busiest(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}
