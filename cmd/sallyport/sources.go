package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/policy"
)

// maxPolicy bounds one policy source, far above the largest policy that
// compiles in reasonable time.
const maxPolicy = 16 << 20

// sourceHint says how a policy source is written.
const sourceHint = "write file:/etc/sallyport/policy.yaml, a bare path, env:NAME, s3://BUCKET/KEY or ssm:/NAME"

// source is one place that holds a policy document.
type source struct {
	scheme string // "file", "env", "s3" or "ssm"
	name   string // a path, a variable's name, BUCKET/KEY, or a parameter's name
	region string // of s3 and ssm; "" for the one that the environment names
	owner  string // of s3: the account that must own the bucket; "" for any
}

// parseSource reads "file:PATH", a bare path, "env:NAME",
// "s3://BUCKET/KEY[?region=R&owner=ACCOUNT]" or "ssm:/NAME[?region=R]".
func parseSource(s string) (source, error) {
	scheme, name, found := strings.Cut(s, ":")
	switch {
	case s == "":
		return source{}, errors.New("a policy source is empty")
	case !found || strings.ContainsAny(scheme, `/\.`):
		return source{scheme: "file", name: s}, nil
	case scheme == "file" && name != "":
		return source{scheme: scheme, name: name}, nil
	case scheme == "env" && regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name):
		return source{scheme: scheme, name: name}, nil
	case scheme == "file" || scheme == "env":
		return source{}, fmt.Errorf("policy source %q names nothing to read", quotable(s))
	case scheme == "s3" || scheme == "ssm":
		src, err := parseAWSSource(scheme, name)
		if err != nil {
			return source{}, fmt.Errorf("policy source %q: %w", quotable(s), err)
		}
		return src, nil
	}
	return source{}, fmt.Errorf("policy source %q has an unknown scheme", quotable(s))
}

// quotable is a source that is refused, without what could be a secret: who may
// use it (USER:PASSWORD@), and all that follows "?".
func quotable(s string) string {
	scheme, rest, found := strings.Cut(s, ":")
	before, _, asked := strings.Cut(rest, "?")
	at := strings.LastIndexByte(rest, '@')
	switch {
	case !found:
		return s
	case at >= 0 && asked: // nobody knows which of them is part of the other
		return scheme + ":***"
	case at >= 0 && strings.HasPrefix(rest, "//"):
		return scheme + "://***" + rest[at:]
	case at >= 0:
		return scheme + ":***" + rest[at:]
	case asked:
		return scheme + ":" + before + "?***"
	}
	return s
}

// parseAWSSource reads what follows "s3:" or "ssm:". Names are taken as they
// stand: nothing in them is percent-decoded, and "?" ends them.
func parseAWSSource(scheme, text string) (source, error) {
	name, query, asked := strings.Cut(text, "?")
	src := source{scheme: scheme, name: name}
	if scheme == "s3" {
		path, ok := strings.CutPrefix(name, "//")
		bucket, key, hasKey := strings.Cut(path, "/")
		switch {
		case !ok || !hasKey || key == "" || strings.HasSuffix(key, "/"):
			return source{}, errors.New("write s3://BUCKET/KEY")
		case !regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`).MatchString(bucket):
			return source{}, errors.New("that is not the name of a bucket") // and may hold a password
		case len(key) > 1024 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return source{}, errors.New("the key is not acceptable")
		}
		src.name = path
	} else if !regexp.MustCompile(`^/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`).MatchString(name) || len(name) > 1011 {
		return source{}, errors.New("write ssm:/NAME, the name of a parameter")
	}
	if !asked {
		return src, nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return source{}, errors.New("what follows ? cannot be read: write ?region=R")
	}
	for key, given := range values {
		switch ok := len(given) == 1; {
		case ok && key == "region" && isRegion(given[0]):
			src.region = given[0]
		case ok && key == "owner" && scheme == "s3" && regexp.MustCompile(`^[0-9]{12}$`).MatchString(given[0]):
			src.owner = given[0]
		case key == "region" || key == "owner":
			return source{}, fmt.Errorf("%s is not understood: what may follow ? is region, and owner (an account) of s3", key)
		default:
			return source{}, errors.New("what follows ? is not understood: it may be region, and owner (an account) of s3")
		}
	}
	return src, nil
}

// isRegion reports whether s has the form of an AWS Region's name.
func isRegion(s string) bool {
	return regexp.MustCompile(`^[a-z]{2,8}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$`).MatchString(s)
}

// canonicalSource writes a valid source with its scheme.
func canonicalSource(s string) string {
	src, err := parseSource(s)
	if err != nil {
		return s
	}
	return src.String()
}

// String returns the source as it is written.
func (s source) String() string {
	query := url.Values{}
	if s.region != "" {
		query.Set("region", s.region)
	}
	if s.owner != "" {
		query.Set("owner", s.owner)
	}
	if len(query) == 0 {
		return s.document()
	}
	return s.document() + "?" + query.Encode()
}

// document names the source in messages about what it holds.
func (s source) document() string {
	if s.scheme == "s3" {
		return "s3://" + s.name
	}
	return s.scheme + ":" + s.name
}

// readLocal returns the document of a source on this machine. A variable that
// is not set is an error, an empty one is left to the policy's own reader to
// refuse.
func (s source) readLocal() (policy.Text, error) {
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

// readArguments reads the documents that a command line names, as sources; "-"
// is standard input.
func readArguments(ctx context.Context, args []string, stdin io.Reader) ([]policy.Text, error) {
	var names []string
	stdinAt := -1
	for i, arg := range args {
		switch {
		case arg != "-":
			names = append(names, arg)
		case stdinAt >= 0:
			return nil, refuse("", "standard input (-) can be read once only")
		default:
			stdinAt = i
		}
	}
	texts, err := readSources(ctx, names)
	if err != nil || stdinAt < 0 {
		return texts, err
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxPolicy+1))
	if err == nil && len(data) > maxPolicy {
		err = fmt.Errorf("standard input is larger than %d bytes", maxPolicy)
	}
	if err != nil {
		return nil, &fault{code: exitUsage, err: err}
	}
	return slices.Insert(texts, stdinAt, policy.Text{Name: "<stdin>", Data: data}), nil
}

// readSources reads every source, and returns what all of them hold or every
// error, as faults of the command line.
func readSources(ctx context.Context, names []string) ([]policy.Text, error) {
	set, err := newSourceSet(names)
	if err != nil {
		return nil, err
	}
	return set.first(ctx)
}
