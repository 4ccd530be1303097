package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// maxPEM bounds a file or variable that holds certificates or a key. Bundles
// of public roots are about 200 KiB.
const maxPEM = 4 << 20

// reference says where a certificate or a key is to be had. What it leads to
// may be secret; the reference itself is not.
type reference struct {
	scheme string // "file", "env" or "secretsmanager"
	name   string // a path, a variable, or a secret's name or ARN
}

// String returns the reference as it is written.
func (r reference) String() string { return r.scheme + ":" + r.name }

// parseReference reads "env:NAME", "file:PATH" or "secretsmanager:NAME-OR-ARN";
// where bare is true, a path alone as well. Its errors never quote the text:
// who gives the key itself in its place must not find it in a log.
func parseReference(text string, bare bool) (reference, error) {
	scheme, name, found := strings.Cut(text, ":")
	switch {
	case strings.Contains(text, "-----BEGIN"):
		return reference{}, errors.New("holds PEM itself, where a reference to it belongs")
	case text == "":
		return reference{}, errors.New("is empty")
	case bare && (!found || strings.ContainsAny(scheme, `/\.`)):
		return reference{"file", text}, nil
	case !found, scheme != "file" && scheme != "env" && scheme != "secretsmanager":
		return reference{}, errors.New("is not a reference")
	case name == "":
		return reference{}, fmt.Errorf("names nothing after its scheme, %s", scheme)
	case scheme == "env" && !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name):
		return reference{}, errors.New("names no environment variable")
	case scheme == "secretsmanager" && !regexp.MustCompile(`^[A-Za-z0-9/_+=.@:!-]+$`).MatchString(name):
		return reference{}, errors.New("names no secret")
	}
	return reference{scheme, name}, nil
}

// read returns what the reference leads to.
func (r reference) read(ctx context.Context) ([]byte, error) {
	switch r.scheme {
	case "env":
		text, ok := os.LookupEnv(r.name)
		if !ok {
			return nil, fmt.Errorf("the variable %s is not set", r.name)
		}
		return []byte(text), nil
	case "secretsmanager":
		return readSecret(ctx, r.name)
	}
	return readBounded(r.name, maxPEM)
}
