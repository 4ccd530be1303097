package main

import (
	"encoding/json"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// plainListeners and plainHosts turn lists of mappings into what YAML and JSON
// print with the configuration's own keys.
func plainHosts(all []Host) any {
	plain := make([]map[string]any, 0, len(all))
	for _, h := range all {
		plain = append(plain, map[string]any{"name": h.Name, "addresses": h.Addresses})
	}
	return plain
}

// plain returns a value as it is shown: durations as people write them, no
// list null, no secret.
func plain(value any) any {
	switch v := value.(type) {
	case time.Duration:
		return shortDuration(v)
	case string:
		return mask(v)
	case []string:
		masked := make([]string, 0, len(v))
		for _, s := range v {
			masked = append(masked, mask(s))
		}
		return masked
	}
	return value
}

// tree returns the effective configuration as nested maps.
func (l *loaded) tree() map[string]any {
	root := make(map[string]any)
	for _, s := range settings() {
		at, key := root, s.key
		for section, rest, nested := strings.Cut(key, "."); nested; section, rest, nested = strings.Cut(key, ".") {
			below, there := at[section].(map[string]any)
			if !there {
				below = make(map[string]any)
				at[section] = below
			}
			at, key = below, rest
		}
		at[key] = plain(s.get(&l.Config))
	}
	return root
}

// writeJSON prints the configuration and, apart from it, where each key's
// value comes from.
func (l *loaded) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{"config": l.tree(), "origins": l.origins})
}

// writeYAML prints the configuration as a file that could be used again, each
// key with its origin behind it.
func (l *loaded) writeYAML(w io.Writer) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	sections := make(map[string]*yaml.Node)
	for _, s := range settings() {
		at, key, path := root, s.key, ""
		for section, rest, nested := strings.Cut(key, "."); nested; section, rest, nested = strings.Cut(key, ".") {
			path += section + "."
			if sections[path] == nil {
				sections[path] = &yaml.Node{Kind: yaml.MappingNode}
				at.Content = append(at.Content, textNode(section), sections[path])
			}
			at, key = sections[path], rest
		}
		value := new(yaml.Node)
		if err := value.Encode(plain(s.get(&l.Config))); err != nil {
			return err
		}
		inline(value)
		value.LineComment = l.origins[s.key]
		at.Content = append(at.Content, textNode(key), value)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return err
	}
	return enc.Close()
}

func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tagText, Value: s}
}

// inline lays lists out on one line, so that the comment has a place.
func inline(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		inline(c)
	}
}
