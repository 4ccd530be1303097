package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of what ECS names, by its API.
const (
	maxECSName  = 255 // of clusters, services and families
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
	maxRevision = 1<<31 - 1
	// maxPrincipal bounds a principal: a user's name, or a certificate's.
	maxPrincipal = 255
)

// alphabet is the characters of a kind of names, besides letters and digits.
type alphabet struct {
	others string
	words  string // the alphabet in words, for messages
}

func ecsAlphabet() alphabet { return alphabet{"-_", "letters, digits, - and _"} }

// tagAlphabet is that of tags, as far as it is ASCII: letters that look alike
// must not stand for each other in a policy.
func tagAlphabet() alphabet {
	return alphabet{" +-=._:/@", "letters, digits, spaces and + - = . _ : / @"}
}

// parseNamePattern returns the patterns without braces that a pattern of names
// of clusters, services or families stands for: of letters, digits, "-", "_",
// at most two "*", and one level of {a,b}. Upper and lower case differ, as in
// ECS.
func parseNamePattern(s, what string) ([]string, *patternError) {
	switch slash := strings.LastIndexByte(s, '/'); {
	case slash >= 0 && strings.HasPrefix(s, "arn:"):
		return nil, badPattern(0, fmt.Sprintf("write the name alone: %q", s[slash+1:]), "%q is an ARN, not the name of a %s", s, what)
	case slash >= 0:
		return nil, badPattern(slash, fmt.Sprintf("write the name alone: %q; cluster, service and family are keys of their own", s[slash+1:]), "the name of a %s has no /", what)
	}
	if name, revision, found := strings.Cut(s, ":"); found {
		return nil, badPattern(len(name), fmt.Sprintf("write %q, and revision: %s", name, revision), "the name of a %s has no :", what)
	}
	return parseText(s, ecsAlphabet(), maxECSName)
}

// parseTagPattern is parseNamePattern for the values of tags.
func parseTagPattern(s string) ([]string, *patternError) {
	return parseText(s, tagAlphabet(), maxTagValue)
}

// parseText returns the patterns without braces that one over an alphabet
// stands for.
func parseText(s string, of alphabet, longest int) ([]string, *patternError) {
	if len(s) > maxPattern {
		return nil, badPattern(0, "make several entries of it", "the pattern is longer than %d characters", maxPattern)
	}
	if err := of.check(s, "*{},"); err != nil {
		return nil, err
	}
	if i := strings.Index(s, "**"); i >= 0 {
		return nil, badPattern(i, "write *, which is any run of characters here", "** is for host names")
	}
	all, err := expandBraces(s)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		switch {
		case strings.Contains(p, "**"):
			return nil, badPattern(0, "write *, which is any run of characters here", "%q stands for %q, and ** is for host names", s, p)
		case strings.TrimSpace(p) != p:
			return nil, badPattern(0, fmt.Sprintf("write %q", strings.TrimSpace(p)), "%q has spaces around it", p)
		case strings.Count(p, "*") > maxLabelStars:
			return nil, badPattern(0, "", "%q has more than %d *", p, maxLabelStars)
		case len(strings.ReplaceAll(p, "*", "")) > longest:
			return nil, badPattern(0, "", "%q is longer than any such name: they have at most %d characters", p, longest)
		}
	}
	return all, nil
}

// check refuses a character that is neither of the alphabet nor among the
// signs.
func (a alphabet) check(s, signs string) *patternError {
	for i, c := range s {
		if ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') || ('0' <= c && c <= '9') ||
			strings.ContainsRune(a.others, c) || strings.ContainsRune(signs, c) {
			continue
		}
		hint := "such names are of " + a.words
		if signs != "" {
			hint += `; write * for any characters, {a,b} for alternatives`
		}
		if c >= utf8.RuneSelf {
			return badPattern(i, hint, "%q (U+%04X) is not ASCII, though it may look so", c, c)
		}
		return badPattern(i, hint, "%q has no place here", c)
	}
	return nil
}

// checkTagKey refuses what is no key of a tag that a policy can name.
func checkTagKey(key string) *patternError {
	if i := strings.IndexAny(key, "*{}"); i >= 0 {
		return badPattern(i, "write the key out; its value may have a *", "a tag's key has no wildcards")
	}
	if len(key) > maxTagKey {
		return badPattern(0, "", "a tag's key has at most %d characters", maxTagKey)
	}
	return tagAlphabet().check(key, "")
}

// checkPrincipal refuses what nobody can prove to be: principals are whole
// names, in printable ASCII.
func checkPrincipal(name string) *patternError {
	for i, c := range name {
		switch {
		case c == '*':
			return badPattern(i, "list the names", "principals are whole names, without wildcards")
		case c >= utf8.RuneSelf:
			return badPattern(i, "principals are of ASCII characters", "%q (U+%04X) is not ASCII, though it may look so", c, c)
		case c < ' ' || c == 0x7f:
			return badPattern(i, "", "a principal has no control characters")
		}
	}
	switch {
	case strings.TrimSpace(name) != name:
		return badPattern(0, fmt.Sprintf("write %q", strings.TrimSpace(name)), "%q has spaces around it", name)
	case len(name) > maxPrincipal:
		return badPattern(0, "", "a principal has at most %d characters", maxPrincipal)
	}
	return nil
}

// checkEndpoint refuses what is no ID of a VPC endpoint.
func checkEndpoint(id string) *patternError {
	const hint = "write it like vpce-0a1b2c3d4e5f60718, as the PROXY header names it"
	digits, found := strings.CutPrefix(id, "vpce-")
	switch {
	case strings.HasPrefix(digits, "svc-"):
		return badPattern(0, "list the endpoints of those who call: vpce-…", "%q is the endpoint service, which all callers share", id)
	case !found || (len(digits) != 8 && len(digits) != 17) || strings.Trim(digits, "0123456789abcdef") != "":
		return badPattern(0, hint, "%q is not the ID of a VPC endpoint", id)
	}
	return nil
}

// parseRevision reads a revision of a task definition, in decimal digits only.
func parseRevision(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" || s[0] == '0' {
		return 0, false
	}
	v, err := strconv.ParseInt(s, 10, 32)
	return int(v), err == nil
}
