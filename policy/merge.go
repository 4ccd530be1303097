package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Merge writes one document that means what all of them mean together, with
// their comments, in their order: what is in force, for a repository. Its error
// is that of [Load]; documents that cannot be written as one are an error too.
func Merge(documents ...Text) ([]byte, error) {
	p, err := Load(documents...)
	if err != nil {
		return nil, err
	}
	if len(documents) == 0 {
		return nil, errors.New("there are no documents to merge")
	}
	sources, rules := list(), list()
	for _, t := range documents {
		var doc yaml.Node
		if err := yaml.Unmarshal(t.Data, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		root := doc.Content[0]
		for i := 0; i+1 < len(root.Content); i += 2 {
			into := sources
			switch root.Content[i].Value {
			case "sources":
			case "rules":
				into = rules
			default:
				continue
			}
			items := root.Content[i+1].Content
			for j, item := range items {
				if j == 0 {
					markOrigin(item, t.Name)
				}
				into.Content = append(into.Content, item)
			}
		}
	}
	merged, err := p.document(sources, rules)
	if err != nil {
		return nil, err
	}
	again, err := Load(Text{"merged.yaml", merged})
	if err != nil {
		return nil, fmt.Errorf("the documents cannot be written as one: %w", err)
	}
	if d := Diff(p, again); len(d) > 0 {
		return nil, fmt.Errorf("the documents cannot be written as one: it would mean something else\n%s", d[0])
	}
	return merged, nil
}

func list() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode} }

// markOrigin writes above the first entry of a list which document it is from.
func markOrigin(n *yaml.Node, name string) {
	from := "# from " + legible(name)
	if n.HeadComment == "" {
		n.HeadComment = from
	} else {
		n.HeadComment = from + "\n" + n.HeadComment
	}
}

// document writes a document of sources and rules with the policy's mode.
func (p *Policy) document(sources, rules *yaml.Node) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	add := func(key string, value *yaml.Node) {
		root.Content = append(root.Content, word(key), value)
	}
	add("version", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"})
	add("mode", word(p.standing.mode.String()))
	if !p.standing.until.IsZero() {
		add("report_until", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!timestamp", Value: p.standing.until.UTC().Format("2006-01-02T15:04:05Z")})
	}
	_, unknown, _ := strings.Cut(p.standingText()[1], ": ")
	add("unknown_source", word(unknown))
	if len(sources.Content) > 0 {
		add("sources", sources)
	}
	if len(rules.Content) > 0 {
		add("rules", rules)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
