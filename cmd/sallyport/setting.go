package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/policy"
)

// setting is one key of the configuration: where it may come from and what it
// may hold. The table of all of them, [settings], is the only place that
// lists keys; strictness, help and `sallyport config` read it.
type setting struct {
	key  string // in the file, sections joined by dots
	env  string // environment variable; "" for none
	flag string // command-line flag of serve; "" for none
	kind kind
	get  func(*Config) any // the effective value, as plain text, numbers, lists and maps
}

// kind says what a setting may hold. Texts are checked one by one, whether
// they come from a flag, a variable or the file, so that all three are
// refused with the same words.
type kind struct {
	want string // for messages: "a duration such as 5s"
	tag  string // YAML's tag of one text in the file
	list bool   // many: a sequence in the file, commas in a variable, a repeated flag
	// check says what is wrong with one text, and what to do; "" for nothing.
	check func(text string) (wrong, hint string)
	// fields are the keys of each entry of a list of mappings, of which a variable
	// or flag gives the first; or those of one mapping, within such an entry.
	fields []field
}

// judge is check, and what holds for every kind. Nothing is quoted here: the
// text may be a key, in the place of a reference to it.
func (k kind) judge(text string) (wrong, hint string) {
	if wrong, hint = k.check(text); wrong != "" {
		return wrong, hint
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "it holds a control character", "write it on one line, without tabs"
	}
	return "", ""
}

// field is one key of a mapping in a list.
type field struct {
	name     string
	kind     kind
	required bool
}

const (
	tagText  = "!!str"
	tagCount = "!!int"
	tagBool  = "!!bool"
)

// settings returns the table of every key, in the order of the file.
func settings() []setting {
	all := []setting{
		{key: "listeners", flag: "listen", kind: listeners(), get: func(c *Config) any { return plainListeners(c.Listeners) }},
		{key: "admin.address", flag: "admin", kind: address(), get: func(c *Config) any { return c.Admin.Address }},
		{key: "admin.hosts", kind: hostNames(), get: func(c *Config) any { return c.Admin.Hosts }},
		{key: "admin.token", kind: tokenReference(), get: func(c *Config) any { return c.Admin.Token }},
		{key: "policy", env: "SALLYPORT_POLICY_SOURCES", flag: "policy", kind: policySource(), get: func(c *Config) any { return c.Policy }},
		{key: "resolver.servers", flag: "resolver", kind: nameServer(), get: func(c *Config) any { return c.Resolver.Servers }},
		{key: "resolver.hosts", kind: fixedHosts(), get: func(c *Config) any { return plainHosts(c.Resolver.Hosts) }},
		{key: "resolver.min_ttl", kind: duration(time.Second, time.Hour), get: func(c *Config) any { return c.Resolver.MinTTL }},
		{key: "resolver.max_ttl", kind: duration(time.Second, 24*time.Hour), get: func(c *Config) any { return c.Resolver.MaxTTL }},
		{key: "resolver.stale", kind: duration(0, 24*time.Hour), get: func(c *Config) any { return c.Resolver.Stale }},
		{key: "timeouts.hello", kind: duration(100*time.Millisecond, time.Minute), get: func(c *Config) any { return c.Timeouts.Hello }},
		{key: "timeouts.dial", kind: duration(100*time.Millisecond, 5*time.Minute), get: func(c *Config) any { return c.Timeouts.Dial }},
		{key: "timeouts.idle", kind: duration(time.Second, 24*time.Hour), get: func(c *Config) any { return c.Timeouts.Idle }},
		{key: "timeouts.drain", kind: duration(time.Millisecond, time.Hour), get: func(c *Config) any { return c.Timeouts.Drain }},
		{key: "limits.connections", kind: count(0, 10_000_000), get: func(c *Config) any { return c.Limits.Connections }},
		{key: "limits.per_source", kind: count(0, 10_000_000), get: func(c *Config) any { return c.Limits.PerSource }},
		{key: "reload.every", kind: duration(0, 24*time.Hour), get: func(c *Config) any { return c.Reload.Every }},
		{key: "reload.cut_denied", kind: truth(), get: func(c *Config) any { return c.Reload.CutDenied }},
		{key: "logging.level", flag: "log-level", kind: word("debug", "info", "warn", "error"), get: func(c *Config) any { return c.Logging.Level }},
		{key: "logging.format", flag: "log-format", kind: word(logging.Formats()...), get: func(c *Config) any { return c.Logging.Format }},
		{key: "logging.flows", flag: "log-flows", kind: word("both", "close", "deny"), get: func(c *Config) any { return c.Logging.Flows }},
		{key: "logging.full", kind: word("block", "drop"), get: func(c *Config) any { return c.Logging.Full }},
		{key: "logging.queue", kind: count(1, 10_000_000), get: func(c *Config) any { return c.Logging.Queue }},
		{key: "logging.s3_keys", kind: truth(), get: func(c *Config) any { return c.Logging.S3Keys }},
		{key: "inspect.ca_file", kind: fileOrReference(), get: func(c *Config) any { return c.Inspect.CAFile }},
		{key: "inspect.ca_key_file", kind: keyFile("inspect.ca_key"), get: func(c *Config) any { return c.Inspect.CAKeyFile }},
		{key: "inspect.ca_key", kind: keyReference("inspect.ca_key_file"), get: func(c *Config) any { return c.Inspect.CAKey }},
		{key: "inspect.origin_ca_file", kind: fileOrReference(), get: func(c *Config) any { return c.Inspect.OriginCAFile }},
	}
	all = append(all, identitySettings()...)
	all = append(all, dnsSettings()...)
	all = append(all, historySettings()...)
	all = append(all, watchSettings()...)
	all = append(all, exportSettings()...)
	all = append(all, setting{key: "credentials", kind: credentialEntries(), get: func(c *Config) any { return plainCredentials(c.Credentials) }})
	for i, s := range all {
		if s.env == "" && s.key != "resolver.hosts" { // names with addresses do not fit a variable
			all[i].env = "SALLYPORT_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
		}
	}
	return all
}

func fixedHosts() kind {
	addrs := kind{want: "a list of addresses", tag: tagText, list: true, check: func(s string) (string, string) {
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
			return fmt.Sprintf("%q is not an IP address", s), "write one without a port, such as 127.0.0.2"
		}
		return "", ""
	}}
	return kind{
		want: "a list of mappings, such as [{name: origin.test, addresses: [127.0.0.2]}]", list: true, tag: tagText,
		fields: []field{{name: "name", kind: hostName(), required: true}, {name: "addresses", kind: addrs, required: true}},
	}
}

func hostName() kind {
	return kind{want: "a host name", tag: tagText, check: func(s string) (string, string) {
		h, err := policy.ParseHost(s)
		if err != nil {
			return fmt.Sprintf("%q is not a host name: %v", s, err), "write a full name, such as origin.test"
		}
		if _, isAddr := h.Addr(); isAddr {
			return fmt.Sprintf("%q is an address, not a host name", s), "write a full name, such as origin.test"
		}
		return "", ""
	}}
}

func hostNames() kind {
	k := hostName()
	k.want, k.list = "a list of host names", true
	return k
}

func address() kind {
	return kind{want: `an address and port such as ":3128"`, tag: tagText, check: func(s string) (string, string) {
		const hint = `write ":3128" for every address, or "127.0.0.1:3128" for one`
		host, port, ok := splitAddress(s)
		if !ok {
			return fmt.Sprintf("%q is not an address and port", s), hint
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			return fmt.Sprintf("%q has no port from 0 to 65535", s), hint
		}
		if host != "" {
			if _, err := netip.ParseAddr(host); err != nil {
				return fmt.Sprintf("%q does not begin with an IP address", s), hint
			}
		}
		return "", ""
	}}
}

// splitAddress splits "host:port", "[v6]:port" and ":port".
func splitAddress(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		host, bracketed = strings.CutSuffix(inner, "]")
		return host, port, bracketed
	}
	return host, port, !strings.Contains(host, ":")
}

func nameServer() kind {
	return kind{want: "a list of DNS servers' addresses", list: true, tag: tagText, check: func(s string) (string, string) {
		const hint = `write "169.254.169.253:53", or "169.254.169.253" for port 53`
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			var a netip.Addr
			a, err = netip.ParseAddr(s)
			ap = netip.AddrPortFrom(a, 53)
		}
		if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() {
			return fmt.Sprintf("%q is not a DNS server's address", s), hint
		}
		return "", ""
	}}
}

func policySource() kind {
	return kind{want: "a list of policy sources", list: true, tag: tagText, check: func(s string) (string, string) {
		_, err := parseSource(s)
		if err == nil {
			return "", ""
		}
		return err.Error(), sourceHint
	}}
}

// The kinds below take "" for none, and never quote what they refuse: it may
// be a key, in the place of a reference to it.

func fileOrReference() kind {
	const hint = "write a path, env:NAME, file:PATH or secretsmanager:NAME-OR-ARN"
	return kind{want: "a path or a reference such as env:NAME", tag: tagText, check: func(s string) (string, string) {
		if s == "" {
			return "", ""
		}
		if _, err := parseReference(s, true); err != nil {
			return "it " + err.Error(), hint
		}
		return "", ""
	}}
}

// keyReference is a key's place as a reference; paths is the key of the
// configuration that takes paths.
func keyReference(paths string) kind {
	hint := "write env:NAME, file:PATH or secretsmanager:NAME-OR-ARN; a path alone belongs into " + paths
	return kind{want: "a reference such as env:NAME", tag: tagText, check: func(s string) (string, string) {
		if s == "" {
			return "", ""
		}
		if _, err := parseReference(s, false); err != nil {
			return "it " + err.Error(), hint
		}
		return "", ""
	}}
}

func tokenReference() kind {
	k := keyReference("")
	check := k.check
	k.check = func(s string) (string, string) {
		wrong, _ := check(s)
		return wrong, "write env:NAME, file:PATH or secretsmanager:NAME-OR-ARN; the token itself never stands here"
	}
	return k
}

// keyFile is a key's place as a path; references is the key of the
// configuration that takes others.
func keyFile(references string) kind {
	return kind{want: "a path", tag: tagText, check: func(s string) (string, string) {
		hint := "write a path; env:NAME and secretsmanager:NAME belong into " + references
		switch ref, err := parseReference(s, true); {
		case s == "":
			return "", ""
		case err != nil:
			return "it " + err.Error(), hint
		case ref.name != s:
			return "it is a reference, not a path", hint
		}
		return "", ""
	}}
}

func word(words ...string) kind {
	return kind{want: "one of " + strings.Join(words, ", "), tag: tagText, check: func(s string) (string, string) {
		if slices.Contains(words, s) {
			return "", ""
		}
		hint := "write one of " + strings.Join(words, ", ")
		if n := nearest(s, words); n != "" {
			hint = fmt.Sprintf("did you mean %q?", n)
		}
		return fmt.Sprintf("%q is not one of %s", s, strings.Join(words, ", ")), hint
	}}
}

func duration(least, most time.Duration) kind {
	return kind{want: "a duration such as 5s", tag: tagText, check: func(s string) (string, string) {
		const hint = "write a number with a unit: 250ms, 5s, 15m, 1h"
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return fmt.Sprintf("%s is a bare number, not a duration", s), hint
		}
		d, err := time.ParseDuration(s)
		switch {
		case err != nil:
			return fmt.Sprintf("%q is not a duration", s), hint
		case d < least || d > most:
			return fmt.Sprintf("%s is not within %s to %s", s, shortDuration(least), shortDuration(most)), ""
		}
		return "", ""
	}}
}

func count(least, most int) kind {
	return kind{want: "a whole number", tag: tagCount, check: func(s string) (string, string) {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil || strconv.Itoa(n) != s:
			return fmt.Sprintf("%q is not a whole number", s), "write decimal digits"
		case n < least || n > most:
			return fmt.Sprintf("%d is not within %d to %d", n, least, most), ""
		}
		return "", ""
	}}
}

func truth() kind {
	return kind{want: "true or false", tag: tagBool, check: func(s string) (string, string) {
		if s == "true" || s == "false" {
			return "", ""
		}
		return fmt.Sprintf("%q is neither true nor false", s), "write true or false"
	}}
}

// shortDuration writes d as a person would: 15m, not 15m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// nearest returns the candidate that s was probably meant to be, "" for none.
func nearest(s string, candidates []string) string {
	best, least := "", max(2, len(s)/4)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// distance is Levenshtein's: how many letters to insert, remove or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
