package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/sallyport/sallyport/policy"
)

// maxPolicy bounds one policy source, far above the largest policy that
// compiles in reasonable time.
const maxPolicy = 16 << 20

// source is one place that holds a policy document.
type source struct {
	scheme string // "file" or "env"
	name   string // a path, or a variable's name
}

// parseSource reads "file:PATH", a bare path, or "env:NAME".
func parseSource(s string) (source, error) {
	scheme, name, found := strings.Cut(s, ":")
	switch {
	case s == "":
		return source{}, errors.New("a policy source is empty")
	case !found || strings.ContainsAny(scheme, `/\.`):
		return source{scheme: "file", name: s}, nil
	case scheme == "file" && name != "":
		return source{scheme, name}, nil
	case scheme == "env" && regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name):
		return source{scheme, name}, nil
	case scheme == "file" || scheme == "env":
		return source{}, fmt.Errorf("policy source %q names nothing to read", s)
	case scheme == "s3" || scheme == "ssm":
		return source{}, fmt.Errorf("policy source %q: %s: arrives with a later version", mask(s), scheme)
	}
	return source{}, fmt.Errorf("policy source %q has an unknown scheme", mask(s))
}

// canonicalSource writes a valid source with its scheme.
func canonicalSource(s string) string {
	src, err := parseSource(s)
	if err != nil {
		return s
	}
	return src.String()
}

func (s source) String() string { return s.scheme + ":" + s.name }

// read returns the source's document. A variable that is not set is an error,
// an empty one is left to the policy's own reader to refuse.
func (s source) read() (policy.Text, error) {
	if s.scheme == "env" {
		text, ok := os.LookupEnv(s.name)
		if !ok {
			return policy.Text{}, fmt.Errorf("%s: the variable is not set", s)
		}
		return policy.Text{Name: s.name, Data: []byte(text)}, nil
	}
	data, err := readBounded(s.name, maxPolicy)
	if err != nil {
		return policy.Text{}, err
	}
	return policy.Text{Name: s.name, Data: data}, nil
}

// readSources reads every source in turn and returns what all of them hold,
// or every error.
func readSources(names []string) ([]policy.Text, error) {
	var texts []policy.Text
	var errs []error
	for _, name := range names {
		src, err := parseSource(name)
		if err == nil {
			var t policy.Text
			if t, err = src.read(); err == nil {
				texts = append(texts, t)
				continue
			}
		}
		errs = append(errs, fmt.Errorf("policy: %w", err))
	}
	return texts, errors.Join(errs...)
}

// readFiles reads the policy documents of a command line; "-" is stdin.
func readFiles(paths []string, stdin io.Reader) ([]policy.Text, error) {
	var texts []policy.Text
	var errs []error
	seenStdin := false
	for _, path := range paths {
		if path != "-" {
			t, err := source{scheme: "file", name: path}.read()
			texts, errs = append(texts, t), append(errs, err)
			continue
		}
		if seenStdin {
			errs = append(errs, errors.New("standard input (-) can be read once only"))
			continue
		}
		seenStdin = true
		data, err := io.ReadAll(io.LimitReader(stdin, maxPolicy+1))
		if err == nil && len(data) > maxPolicy {
			err = fmt.Errorf("standard input is larger than %d bytes", maxPolicy)
		}
		texts, errs = append(texts, policy.Text{Name: "<stdin>", Data: data}), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &fault{code: exitUsage, err: err}
	}
	return texts, nil
}
