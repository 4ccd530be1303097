package policy

import (
	"strings"
)

// s3Target is a request-target taken apart, nothing decoded yet.
type s3Target struct {
	authority string // "" in origin-form
	path      string // begins with "/"
	query     string // without "?"
}

// splitS3Target takes a request-target apart: origin-form or absolute-form
// (RFC 9112, section 3.2).
func splitS3Target(target string) (s3Target, *S3RequestError) {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return s3Target{}, badCall(ReasonS3Opaque, "the request's target holds %q, which a target never does", c)
		}
	}
	var t s3Target
	rest := target
	if !strings.HasPrefix(target, "/") {
		scheme, after, ok := strings.Cut(target, "://")
		if !ok || (!strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "http")) {
			return t, badCall(ReasonS3Opaque, "the request's target is neither a path nor a URL")
		}
		end := strings.IndexAny(after, "/?")
		if end < 0 {
			end = len(after)
		}
		t.authority, rest = after[:end], after[end:]
		if t.authority == "" {
			return t, badCall(ReasonS3Opaque, "the request's target is a URL without a host")
		}
	}
	t.path, t.query, _ = strings.Cut(rest, "?")
	if t.path == "" {
		t.path = "/"
	}
	return t, nil
}

// parseAuthority reads HOST or HOST:PORT.
func parseAuthority(s string) (Host, string, *S3RequestError) {
	name, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		name, port = s[:i], s[i+1:]
		if port == "" || len(port) > 5 || !isAll(port, isDigit) {
			return Host{}, "", badCall(ReasonS3Opaque, "the request's Host has a port that is none")
		}
	}
	if strings.Contains(s, "@") { // what stands before it may be a password
		return Host{}, "", badCall(ReasonS3Opaque, "the request's Host cannot be read: user information does not belong to a host")
	}
	h, err := ParseHost(unbracket(name))
	if err != nil {
		return Host{}, "", badCall(ReasonS3Opaque, "the request's Host cannot be read: %v", err)
	}
	return h, port, nil
}

// unescape decodes what is percent-encoded, once. Everything else stays as it
// is: "+" is a plus sign in a path.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		high, low := hexDigit(s[i+1]), hexDigit(s[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), true
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// climbs reports whether a path's dot segments lead out of where it begins, for
// some reader that cleans it: before or after it decodes "%2F", with empty
// segments or without. Keys may hold dots, and S3 cleans nothing; it is the
// others on the way that must not differ about the bucket.
func climbs(raw string) bool {
	decoded, _ := unescape(raw)
	return climbsAs(raw) || climbsAs(decoded)
}

func climbsAs(path string) bool {
	depth := 0
	for segment := range strings.SplitSeq(path, "/") {
		if decoded, ok := unescape(segment); ok {
			segment = decoded
		}
		switch segment {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

// takeBucket takes the bucket off a path that begins with it.
func takeBucket(p *s3Parse, path string) (key string, err *S3RequestError) {
	first, rest, _ := strings.Cut(path[1:], "/")
	bucket, ok := unescape(first)
	if !ok {
		return "", badCall(ReasonS3Opaque, "the path is not percent-encoded well")
	}
	if bucket == "" {
		if rest != "" || len(path) > 1 {
			return "", badCall(ReasonS3Opaque, "the path's first part, the bucket, is empty")
		}
		return "", nil
	}
	if err := nameInPath(p, bucket); err != nil {
		return "", err
	}
	if key, ok = unescape(rest); !ok {
		return "", badCall(ReasonS3Opaque, "the path is not percent-encoded well")
	}
	if climbs(rest) {
		return "", errClimbs()
	}
	return key, nil
}

func errClimbs() *S3RequestError {
	return badCall(ReasonS3Opaque, "the path climbs out of its bucket: whoever cleans it reads another one")
}

// nameInPath takes a bucket, or an alias, that stands in a path.
func nameInPath(p *s3Parse, name string) *S3RequestError {
	if !isBucketName(name) {
		// What can not be of a name may be of a key, and is not repeated.
		if end := strings.IndexFunc(name, func(r rune) bool { return r > 0x7f || !isBucketByte(byte(r)) }); end >= 0 {
			return badCall(ReasonS3Bucket, "%.80q with what follows it is no bucket's name", name[:end])
		}
		return badCall(ReasonS3Bucket, "%.80q is no bucket's name", name)
	}
	lower := strings.ToLower(name)
	if lower != name && aliasForm(lower) != "" {
		return badCall(ReasonS3Bucket, "%.80q is an access point's alias, but for its case", name)
	}
	p.named(p.ref.Form, name)
	return nil
}

// isBucketName reports whether a name in a path can be a bucket's. Buckets
// made before 2018 may have upper case and underscores, and 255 characters.
func isBucketName(s string) bool {
	return len(s) >= 3 && len(s) <= 255 && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..") &&
		isAll(s, isBucketByte)
}

func isBucketByte(c byte) bool {
	return isLower(c) || isDigit(c) || ('A' <= c && c <= 'Z') || c == '.' || c == '-' || c == '_'
}

// param is a decoded parameter of a query.
type param struct{ name, value string }

// parseQuery decodes a query. Values keep "+" as S3's signatures do; a name
// with one is no name that S3 knows.
func parseQuery(query string) ([]param, *S3RequestError) {
	if query == "" {
		return nil, nil
	}
	params := make([]param, 0, 1+strings.Count(query, "&"))
	for piece := range strings.SplitSeq(query, "&") {
		if piece == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(piece, "=")
		name, ok := unescape(rawName)
		value, ok2 := unescape(rawValue)
		if !ok || !ok2 {
			return nil, badCall(ReasonS3Operation, "the query is not percent-encoded well")
		}
		// Some readers take ";" for "&" (W3C's old advice), and then see other
		// parameters.
		if strings.Contains(rawName, ";") || (strings.Contains(rawValue, ";") && !strings.EqualFold(name, "X-Amz-SignedHeaders")) {
			return nil, badCall(ReasonS3Operation, `the query holds ";", which some take for "&": write %%3B`)
		}
		params = append(params, param{name, value})
	}
	return params, nil
}
