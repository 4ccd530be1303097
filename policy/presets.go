package policy

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// presetFiles holds the presets: each a list of rules with placeholders, and
// lists of further rules that a suffix "+NAME" adds.
//
//go:embed presets
var presetFiles embed.FS

// presetFile is an embedded preset.
type presetFile struct {
	With   []string             // the parameters, all required
	Rules  yaml.Node            // of the preset itself
	Extras map[string]yaml.Node // by the NAME of +NAME
}

// presetNames lists the presets, sorted.
func presetNames() []string {
	var names []string
	_ = fs.WalkDir(presetFiles, "presets", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(path, "presets/"), ".yaml"))
		}
		return err
	})
	return names
}

// loadPreset reads the preset of a name that presetNames lists.
func loadPreset(name string) (*presetFile, error) {
	data, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return nil, err
	}
	var f presetFile
	return &f, yaml.Unmarshal(data, &f)
}

// preset compiles the rules that a rule with a preset stands for. Each is
// named RULE/PART, stands where the rule stands, and has its owner, action,
// sources and resolves_to.
func (c *compiler) preset(r *reader, text *ruleText) {
	before := r.faults()
	for what, n := range map[string]*yaml.Node{"ports": text.portsAt, "protocol": text.protocolAt, "allow_broad": text.allowBroad} {
		if n != nil {
			r.fail(n, "leave it out, or write rules of hosts", "a preset brings its own %s", what)
		}
	}
	name, extras, _ := strings.Cut(text.preset.Value, "+")
	if !slices.Contains(presetNames(), name) {
		hint := "the presets are " + strings.Join(presetNames(), ", ")
		if near := nearest(name, presetNames()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		r.fail(text.preset, hint, "there is no preset %q", name)
		return
	}
	f, err := loadPreset(name)
	if err != nil {
		r.fail(text.preset, "report this", "the preset %q is broken: %v", name, err)
		return
	}
	parts := presetParts(r, text, f, name, extras)
	values := presetValues(r, text, f)
	if r.faults() > before {
		return
	}
	text.shared = c.budget(r, text)
	for _, n := range parts {
		c.presetPart(r, text, fill(n, text.preset, values))
	}
}

// presetParts returns the rules of a preset and of the suffixes asked for.
func presetParts(r *reader, text *ruleText, f *presetFile, name, extras string) []*yaml.Node {
	parts := slices.Clone(f.Rules.Content)
	if !strings.Contains(text.preset.Value, "+") {
		return parts
	}
	seen := map[string]bool{}
	for extra := range strings.SplitSeq(extras, "+") {
		n, ok := f.Extras[extra]
		switch known := slices.Sorted(maps.Keys(f.Extras)); {
		case !ok && len(known) == 0:
			r.fail(text.preset, fmt.Sprintf("write %q", name), "the preset %q has no suffixes", name)
		case !ok:
			r.fail(text.preset, "its suffixes are +"+strings.Join(known, ", +"), "the preset %q has no suffix %q", name, "+"+extra)
		case seen[extra]:
			r.fail(text.preset, "write it once", "the suffix %q stands there twice", "+"+extra)
		default:
			parts = append(parts, n.Content...)
		}
		seen[extra] = true
	}
	return parts
}

// presetValues checks the parameters of a preset and returns what its
// placeholders stand for.
func presetValues(r *reader, text *ruleText, f *presetFile) map[string]string {
	values := map[string]string{}
	example := map[string]string{"region": "us-east-1", "account": `"111122223333"`}
	switch {
	case text.with == nil:
	case len(f.With) == 0:
		r.fail(text.with, "leave with out", "the preset %q takes no parameters", text.preset.Value)
		return values
	default:
		for key, n := range r.fields(text.with, "with", f.With) {
			if value, ok := r.text(n, key.Value); ok {
				values[key.Value] = value
				checkParameter(r, n, key.Value)
			}
		}
	}
	var missing, written []string
	for _, name := range f.With {
		if text.with == nil || (text.with.Kind == yaml.MappingNode && !hasKey(text.with, name)) {
			missing = append(missing, strconv.Quote(name))
			written = append(written, name+": "+example[name])
		}
	}
	if len(missing) > 0 {
		r.fail(text.preset, fmt.Sprintf("write with: {%s}", strings.Join(written, ", ")), "the preset %q needs %s", text.preset.Value, strings.Join(missing, " and "))
	}
	if region, ok := values["region"]; ok {
		maps.Copy(values, endpointSuffixes(region))
	}
	return values
}

// hasKey reports whether a mapping has a key.
func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

// checkParameter checks the shape of a parameter's value.
func checkParameter(r *reader, n *yaml.Node, name string) {
	switch {
	case name == "region" && !isRegion(n.Value):
		r.fail(n, "write it like us-east-1", "%q is not a Region", n.Value)
	case name == "account" && !isAccount(n.Value):
		r.fail(n, `write its 12 digits in quotes, like "111122223333"`, "%q is not an account", n.Value)
	}
}

// endpointSuffixes returns the DNS suffixes of a Region's partition: suffix,
// dualstack (where service endpoints have IPv6), registry (where ECR's have
// it), and global, which only partition aws has.
func endpointSuffixes(region string) map[string]string {
	partition := regionPartition(region)
	values := map[string]string{"suffix": "amazonaws.com", "dualstack": "api.aws"}
	switch partition {
	case "aws":
		values["global"] = "amazonaws.com"
		values["registry"] = "on.aws"
	case "aws-us-gov":
		values["registry"] = "on.aws"
	case "aws-cn":
		values = map[string]string{"suffix": "amazonaws.com.cn", "dualstack": "api.amazonwebservices.com.cn", "registry": "on.amazonwebservices.com.cn"}
	case "aws-eusc":
		values = map[string]string{"suffix": "amazonaws.eu", "dualstack": "api.amazonwebservices.eu"}
	case "aws-iso":
		values = map[string]string{"suffix": "c2s.ic.gov", "dualstack": "api.aws.ic.gov"}
	case "aws-iso-b":
		values = map[string]string{"suffix": "sc2s.sgov.gov", "dualstack": "api.aws.scloud"}
	case "aws-iso-e":
		values = map[string]string{"suffix": "cloud.adc-e.uk", "dualstack": "api.cloud-aws.adc-e.uk"}
	case "aws-iso-f":
		values = map[string]string{"suffix": "csp.hci.ic.gov", "dualstack": "api.aws.hci.ic.gov"}
	}
	return values
}

// fill returns a copy of a preset's node that stands where the preset is
// named, its placeholders replaced. A list's entry whose placeholder has no
// value in this partition is left out.
func fill(n, at *yaml.Node, values map[string]string) *yaml.Node {
	filled := *n
	filled.Line, filled.Column, filled.Content = at.Line, at.Column, nil
	for name, value := range values {
		filled.Value = strings.ReplaceAll(filled.Value, "${"+name+"}", value)
	}
	for _, child := range n.Content {
		child = fill(child, at, values)
		if n.Kind == yaml.SequenceNode && strings.Contains(child.Value, "${") {
			continue
		}
		filled.Content = append(filled.Content, child)
	}
	return &filled
}

// presetPart compiles one rule of a preset.
func (c *compiler) presetPart(r *reader, text *ruleText, n *yaml.Node) {
	part := r.readRule(n)
	part.name = text.name + "/" + part.name
	part.nameAt, part.node = text.nameAt, text.node
	part.owner, part.verdict = text.owner, text.verdict
	part.sources, part.resolvesTo = text.sources, text.resolvesTo
	part.shared = text.shared
	c.plainRule(r, &part)
}
