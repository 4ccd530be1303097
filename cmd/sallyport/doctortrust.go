package main

import (
	"crypto/x509"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nodeTrust is the one variable whose certificates add to a client's own.
const nodeTrust = "NODE_EXTRA_CA_CERTS"

// trustSeen is a variable that names certificates to trust.
type trustSeen struct {
	variable, path string
	certs          []*x509.Certificate
	err            error
}

// readTrust reads the files that the variables of `sallyport ca env` name.
func readTrust(env environ) []trustSeen {
	var all []trustSeen
	for _, v := range trustVariables("", "", "") {
		path := env.get(v.Name)
		if path == "" {
			continue
		}
		seen := trustSeen{variable: v.Name, path: path}
		var text []byte
		if text, seen.err = readBounded(path, maxPEM); seen.err == nil {
			seen.certs, seen.err = parseCertificates(text)
		}
		all = append(all, seen)
	}
	return all
}

// privateRoots are those of certs that no public root is among, by DER.
func privateRoots(certs []*x509.Certificate) map[string]*x509.Certificate {
	private := make(map[string]*x509.Certificate, len(certs))
	for _, c := range certs {
		private[string(c.Raw)] = c
	}
	for root := range bundle.Roots() {
		delete(private, string(root.Certificate))
	}
	return private
}

// judgeTrust judges what clients trust: that the files are there, hold the
// same private CA, and the public roots beside it.
func (x *examination) judgeTrust(all []trustSeen) {
	c := judgeTrustOf(all, time.Now())
	c.Name = "ca-trust"
	if c.Result == resultWrong {
		c.Change = "write one bundle with `sallyport ca bundle`, on a volume that this container mounts, and set what `sallyport ca env` prints"
	}
	x.add(c)
}

func judgeTrustOf(all []trustSeen, at time.Time) check {
	if len(all) == 0 {
		return check{Result: resultOK, Sure: certain, Seen: "no variable names a bundle: right, unless rules inspect"}
	}
	var faults []string
	var first *trustSeen // the first bundle: others are held against it
	for i, t := range all {
		if t.err != nil {
			faults = append(faults, fmt.Sprintf("%s=%s: %v", t.variable, t.path, cause(t.err)))
			continue
		}
		private := privateRoots(t.certs)
		for _, c := range private {
			if at.After(c.NotAfter) && c.IsCA && len(private) == 1 {
				faults = append(faults, fmt.Sprintf("%s: its CA %q expired at %s", t.variable, c.Subject, c.NotAfter.UTC().Format(time.RFC3339)))
			}
		}
		switch {
		case t.variable == nodeTrust:
		case len(private) == len(t.certs):
			faults = append(faults, fmt.Sprintf("%s=%s holds no public root, and replaces the client's", t.variable, t.path))
		case first == nil:
			first = &all[i]
		case !sameKeys(private, privateRoots(first.certs)):
			faults = append(faults, fmt.Sprintf("%s and %s trust different private CAs", first.variable, t.variable))
		}
	}
	faults = append(faults, nodeFaults(all, first)...)
	if len(faults) > 0 {
		return check{Result: resultWrong, Sure: certain, Seen: strings.Join(faults, "; ")}
	}
	return judgeCoverage(all, first)
}

// nodeFaults says what Node trusts that the others do not.
func nodeFaults(all []trustSeen, first *trustSeen) []string {
	i := slices.IndexFunc(all, func(t trustSeen) bool { return t.variable == nodeTrust && t.err == nil })
	if i < 0 || first == nil {
		return nil
	}
	others := privateRoots(first.certs)
	for der, c := range privateRoots(all[i].certs) {
		if others[der] == nil {
			return []string{fmt.Sprintf("%s lacks %q, which %s holds", first.variable, c.Subject, nodeTrust)}
		}
	}
	return nil
}

// judgeCoverage judges bundles that are right: do all clients have one?
func judgeCoverage(all []trustSeen, first *trustSeen) check {
	private := map[string]*x509.Certificate{}
	if first != nil {
		private = privateRoots(first.certs)
	}
	for _, t := range all {
		if t.variable == nodeTrust && first == nil {
			private = privateRoots(t.certs)
		}
	}
	if len(private) == 0 {
		return check{Result: resultOK, Sure: certain, Seen: "the bundles hold public roots only: right, unless rules inspect"}
	}
	what := fmt.Sprintf("%d private CAs", len(private))
	for _, c := range private {
		if len(private) == 1 {
			what = fmt.Sprintf("%q, until %s", c.Subject, c.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	var missing []string
	for _, v := range trustVariables("", "", "") {
		if !slices.ContainsFunc(all, func(t trustSeen) bool { return t.variable == v.Name }) {
			missing = append(missing, v.Name)
		}
	}
	if len(missing) > 0 {
		return check{
			Result: resultUnknown, Seen: fmt.Sprintf("the bundles hold %s; not set: %s", what, strings.Join(missing, ", ")),
			Change: "set what `sallyport ca env` prints: each client reads another one",
		}
	}
	return check{Result: resultOK, Sure: certain, Seen: "all bundles hold " + what}
}

func sameKeys[V any](a, b map[string]V) bool {
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return len(a) == len(b)
}

// installed tells which of the clients that need more than variables seem to
// be in this container.
func installed(env environ) map[string]bool {
	found := map[string]bool{}
	for client, marks := range map[string][]string{"node": {"NODE_VERSION"}, "java": {"JAVA_HOME", "JAVA_VERSION", "JAVA_TOOL_OPTIONS"}} {
		_, err := exec.LookPath(client)
		found[client] = err == nil || slices.ContainsFunc(marks, func(m string) bool { return env.get(m) != "" })
	}
	return found
}

// judgeClients judges what clients need that do not heed the variables alone.
func (x *examination) judgeClients(env environ, has map[string]bool, inPath bool) {
	if inPath {
		return // they know of no proxy, and pass one
	}
	if has["node"] {
		x.add(judgeNode(env))
	}
	if has["java"] {
		x.add(judgeJava(env))
	}
}

func judgeNode(env environ) check {
	c := check{Name: "client", Subject: "node", Result: resultOK, Sure: likely, Seen: "NODE_USE_ENV_PROXY is set; the AWS SDK for JavaScript needs an agent in its code all the same"}
	if env.get("NODE_USE_ENV_PROXY") != "1" {
		c.Result, c.Sure, c.Seen = resultUnknown, "", "Node by itself reads no proxy variable"
		c.Change = "set NODE_USE_ENV_PROXY=1 (Node 24 and later); give the AWS SDK for JavaScript a NodeHttpHandler with a proxy agent, or redirect this task's connections to the proxy"
	}
	return c
}

func judgeJava(env environ) check {
	c := check{Name: "client", Subject: "java", Result: resultOK, Sure: likely, Seen: "JAVA_TOOL_OPTIONS names the proxy"}
	options := map[string]string{}
	for word := range strings.FieldsSeq(env.get("JAVA_TOOL_OPTIONS")) {
		if key, value, ok := strings.Cut(strings.TrimPrefix(word, "-D"), "="); ok {
			options[key] = value
		}
	}
	host, port := "HOST", "PORT"
	if u, err := parseProxy(env.get("HTTPS_PROXY")); err == nil {
		host, port = u.Hostname(), u.Port()
	}
	c.Change = fmt.Sprintf("JAVA_TOOL_OPTIONS: -Dhttps.proxyHost=%[1]s -Dhttps.proxyPort=%[2]s -Dhttp.proxyHost=%[1]s -Dhttp.proxyPort=%[2]s -Dhttp.nonProxyHosts=169.254.170.2|169.254.169.254|localhost|127.*", host, port)
	switch {
	case options["https.proxyHost"] == "":
		c.Result, c.Sure, c.Seen = resultUnknown, "", "the JVM reads no proxy variable; of what is common, the AWS SDK for Java 2 does"
	case host != "HOST" && (options["https.proxyHost"] != host || options["https.proxyPort"] != port):
		c.Result, c.Sure, c.Seen = resultWrong, certain, fmt.Sprintf("JAVA_TOOL_OPTIONS names the proxy %s:%s, HTTPS_PROXY %s:%s", options["https.proxyHost"], options["https.proxyPort"], host, port)
	case !strings.Contains(options["http.nonProxyHosts"], "169.254.170.2"):
		c.Result, c.Sure, c.Seen = resultWrong, certain, "JAVA_TOOL_OPTIONS sends 169.254.170.2 to the proxy: http.nonProxyHosts lacks it"
	default:
		c.Change = ""
	}
	return c
}
