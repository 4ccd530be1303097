package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxConfigFile bounds the configuration file: it holds a page of settings.
const maxConfigFile = 1 << 20

// configFile is a configuration file that was found to hold known keys, once
// each, with values of their kind.
type configFile struct {
	path   string
	text   string
	places map[string]string // key → "path:line"
	// sources are those of the policy, of certificates and keys, as written.
	sources []string
	errs    []error
}

// readConfigFile reads and checks the file; nil for no path. viper sees its
// bytes only after that: by itself it would take a second document, a key in
// another case or an empty file without a word, and it knows no line numbers.
func readConfigFile(path string) (*configFile, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // no file is no fault
	}
	data, err := readBounded(path, maxConfigFile)
	if err != nil {
		return nil, refuse("", "configuration file: %w", err)
	}
	return checkConfigFile(path, data)
}

func checkConfigFile(path string, data []byte) (*configFile, error) {
	f := &configFile{path: path, text: string(data), places: make(map[string]string)}
	f.read(data)
	return f, errors.Join(f.errs...)
}

// pipePatience bounds how long a pipe in the place of a file may keep its
// reader waiting. The output of a command is such a pipe, and has its uses
// where it is read once; a file whose writer went away must not hold up a
// reload, and with it the end of the process.
const pipePatience = 5 * time.Second

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK the open itself would wait for a pipe's writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // whoever runs the program names its files
	if errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("%w: it is a socket or a device without a driver, not a file", err)
	} else if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	_ = file.SetReadDeadline(time.Now().Add(pipePatience)) // where it can be set; nothing else waits
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	switch pipe := info.Mode()&os.ModeNamedPipe != 0; {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%s is a pipe whose writer neither wrote nor went away for %v: name a file, which can be read again", path, pipePatience)
	case err != nil:
		return nil, err
	case pipe && len(data) == 0:
		return nil, fmt.Errorf("%s is a pipe that nobody writes to: name a file, which can be read again", path)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

func (f *configFile) read(data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		f.errs = append(f.errs, refuse("write at least one key, or leave --config out", "%s: the file is empty", f.path))
		return
	case err != nil:
		f.errs = append(f.errs, refuse("", "%s: %s", f.path, strings.TrimPrefix(err.Error(), "yaml: ")))
		return
	}
	f.mapping(doc.Content[0], "", configSchema())
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		f.errs = append(f.errs, refuse("", "%s: %s", f.path, strings.TrimPrefix(err.Error(), "yaml: ")))
	default:
		f.fault(&second, "one file holds one document: remove everything from the second \"---\" on", "a second YAML document begins here")
	}
}

// schema is what may stand at one place of the file: a leaf with its kind, or
// a mapping with its keys.
type schema struct {
	kind   kind
	keys   []string
	fields map[string]*schema
}

// configSchema builds the tree of keys from [settings].
func configSchema() *schema {
	root := &schema{fields: map[string]*schema{}}
	for _, s := range settings() {
		at := root
		for part := range strings.SplitSeq(s.key, ".") {
			at = at.child(part)
		}
		at.kind = s.kind
	}
	return root
}

func (s *schema) child(key string) *schema {
	c := s.fields[key]
	if c == nil {
		c = &schema{fields: map[string]*schema{}}
		s.fields[key], s.keys = c, append(s.keys, key)
	}
	return c
}

// add lets s have the fields, and where one of them is a mapping those of that.
func (s *schema) add(fields []field) {
	for _, fd := range fields {
		c := s.child(fd.name)
		if c.kind = fd.kind; !fd.kind.list {
			c.add(fd.kind.fields)
		}
	}
}

func (f *configFile) fault(n *yaml.Node, hint, format string, args ...any) {
	f.errs = append(f.errs, refuse(hint, "%s:%d:%d: %s", f.path, n.Line, n.Column, fmt.Sprintf(format, args...)))
}

// mapping checks the keys of n, a mapping at the key path at.
func (f *configFile) mapping(n *yaml.Node, at string, s *schema) {
	if n.Kind != yaml.MappingNode {
		f.fault(n, "write its keys below it: "+strings.Join(s.keys, ", "), "%s must be a mapping, not %s", cmp.Or(at, "the file"), describe(n, at))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := strings.TrimPrefix(at+"."+key.Value, ".")
		// Compared without case: viper would let the last of both win.
		if line, twice := seen[strings.ToLower(key.Value)]; twice {
			f.fault(key, "keep one of the two", "duplicate key %q, already on line %d", path, line)
			continue
		}
		seen[strings.ToLower(key.Value)] = key.Line
		child, known := s.fields[key.Value]
		if !known {
			f.fault(key, unknownKeyHint(key.Value, s.keys), "unknown key %q%s", key.Value, within(at))
			continue
		}
		f.places[path] = fmt.Sprintf("%s:%d", f.path, key.Line)
		f.value(value, path, child)
	}
}

func (f *configFile) value(n *yaml.Node, path string, s *schema) {
	switch {
	case n.Kind == yaml.AliasNode:
		f.fault(n, "write the value out", "%s: anchors and aliases are not read here", path)
	case n.ShortTag() == "!!null":
		f.fault(n, "give it one, or remove the key", "%s has no value", path)
	case len(s.fields) > 0:
		f.mapping(n, path, s)
	default:
		f.leaf(n, path, s.kind)
	}
}

// leaf checks the value of a key, or of a field in a list's mapping.
func (f *configFile) leaf(n *yaml.Node, path string, k kind) {
	if !k.list {
		f.scalar(n, path, k)
		if holdsReference(path) || strings.HasPrefix(path, "credentials[") || strings.Contains(path, "].tls.") {
			f.sources = append(f.sources, n.Value)
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		f.fault(n, "write "+k.want+", in brackets or one \"- \" a line", "%s must be a list, not %s", path, describe(n, path))
		return
	}
	for i, item := range n.Content {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		if len(k.fields) == 0 {
			f.scalar(item, itemPath, k)
			if path == "policy" {
				f.sources = append(f.sources, item.Value)
			}
			continue
		}
		f.item(item, itemPath, k.fields)
	}
}

// item checks one mapping of a list.
func (f *configFile) item(n *yaml.Node, path string, fields []field) {
	s := &schema{fields: map[string]*schema{}}
	s.add(fields)
	f.mapping(n, path, s)
	for _, fd := range fields {
		if _, there := f.places[path+"."+fd.name]; n.Kind == yaml.MappingNode && fd.required && !there {
			f.fault(n, "write "+fd.name+": and "+fd.kind.want, "%s has no %s", path, fd.name)
		}
	}
}

// scalar checks one text. A number where a duration or a name belongs reaches
// the kind's own check first, because that has the better words.
func (f *configFile) scalar(n *yaml.Node, path string, k kind) {
	if n.Kind != yaml.ScalarNode {
		f.fault(n, "write "+k.want, "%s must be one value, not %s", path, describe(n, path))
		return
	}
	wrong, hint := k.judge(n.Value)
	if wrong == "" && n.ShortTag() != k.tag {
		wrong, hint = fmt.Sprintf("%s is not %s", describe(n, path), k.want), "write "+k.want
	}
	if wrong != "" {
		f.fault(n, hint, "%s: %s", path, wrong)
	}
}

func unknownKeyHint(key string, known []string) string {
	if n := nearest(key, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return "the keys here are " + strings.Join(known, ", ")
}

// within names the place of a key path, "" being the file itself.
func within(at string) string {
	if at == "" {
		return ""
	}
	return " in " + at
}

// describe says what a node at a key path is, in words rather than YAML's tags.
// Where references to secrets belong it quotes nothing: a secret may stand there.
func describe(n *yaml.Node, path string) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.Kind == yaml.ScalarNode && (strings.HasPrefix(path, "credentials") || strings.HasPrefix(path, "inspect")):
		return "a text"
	case n.ShortTag() == tagText:
		return fmt.Sprintf("the text %q", n.Value)
	case n.ShortTag() == tagBool:
		return n.Value
	}
	return "the number " + n.Value
}
