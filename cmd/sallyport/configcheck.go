package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/policy"
)

// environment turns "NAME=value" pairs into a map.
func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// unknownVariables refuses every SALLYPORT_* variable that means nothing: a
// misspelt one would otherwise be ignored without a word.
func unknownVariables(env map[string]string, sources []string) error {
	known := []string{envConfig, envPolicy}
	for _, s := range settings() {
		if s.env != "" {
			known = append(known, s.env)
		}
	}
	for _, s := range sources {
		if name, ok := strings.CutPrefix(s, "env:"); ok {
			known = append(known, name)
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if strings.HasPrefix(name, "SALLYPORT_") && !slices.Contains(known, name) {
			errs = append(errs, refuse(unknownVariableHint(name, known), "unknown environment variable %s", name))
		}
	}
	return errors.Join(errs...)
}

func unknownVariableHint(name string, known []string) string {
	// Docker links and Kubernetes inject these for a service named sallyport.
	if regexp.MustCompile(`^SALLYPORT_(PORT|SERVICE_HOST|SERVICE_PORT)(_|$)`).MatchString(name) {
		return "the orchestrator sets it for a service named sallyport: turn that off (enableServiceLinks: false) or rename the service"
	}
	if n := nearest(name, known); n != "" {
		return "did you mean " + n + "?"
	}
	return "unset it; `sallyport serve --help` tells which variables there are"
}

// holdsReference reports whether a key may hold a reference to a variable.
func holdsReference(key string) bool {
	return strings.HasPrefix(key, "inspect.") || key == "admin.token" || key == "history.store" || key == "watch.webhook.secret"
}

// ambientProxies warns of proxy variables: they are for the tasks, and the
// proxy itself goes straight to the origin, whatever they say.
func ambientProxies(env map[string]string) []string {
	var warnings []string
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		if env[name] != "" {
			warnings = append(warnings, name+" is set for the proxy itself and is ignored: origins are dialled directly")
		}
	}
	return warnings
}

// check finds what is wrong between keys; single texts were checked before.
func (l *loaded) check() error {
	return errors.Join(l.checkAddresses(), l.checkHosts(), l.checkTTLs(), l.checkInspect(), l.checkIdentity(), l.checkListeners(), l.checkCredentials(), l.checkDNS(), l.checkWatch(), l.checkOverlays())
}

func (l *loaded) checkAddresses() error {
	var errs []error
	if len(l.Listeners) == 0 {
		errs = append(errs, refuse(`write listeners: [{address: ":3128"}]`, "listeners (%s) is empty: nobody could connect", l.origins["listeners"]))
	}
	seen := make(map[string]bool)
	for _, ln := range l.Listeners {
		if seen[ln.Address] && !strings.HasSuffix(ln.Address, ":0") {
			errs = append(errs, refuse("name each address once", "listeners (%s): %q is there twice", l.origins["listeners"], ln.Address))
		}
		seen[ln.Address] = true
	}
	if seen[l.Admin.Address] && !strings.HasSuffix(l.Admin.Address, ":0") {
		errs = append(errs, refuse("give the admin socket a port of its own",
			"admin.address (%s): %q is a listener's address too", l.origins["admin.address"], l.Admin.Address))
	}
	return errors.Join(errs...)
}

func (l *loaded) checkHosts() error {
	var errs []error
	seen := make(map[policy.Host]bool)
	for _, h := range l.Resolver.Hosts {
		name, err := policy.ParseHost(h.Name)
		if err != nil {
			continue // said already, with its line
		}
		if seen[name] {
			errs = append(errs, refuse("put its addresses into one list", "resolver.hosts (%s): %q is there twice", l.origins["resolver.hosts"], name))
		}
		if len(h.Addresses) == 0 {
			errs = append(errs, refuse("write at least one", "resolver.hosts (%s): %q has no addresses", l.origins["resolver.hosts"], name))
		}
		seen[name] = true
	}
	return errors.Join(errs...)
}

func (l *loaded) checkTTLs() error {
	if l.Resolver.MinTTL <= l.Resolver.MaxTTL {
		return nil
	}
	return refuse("make min_ttl the smaller one", "resolver.min_ttl %s (%s) is above resolver.max_ttl %s (%s)",
		shortDuration(l.Resolver.MinTTL), l.origins["resolver.min_ttl"], shortDuration(l.Resolver.MaxTTL), l.origins["resolver.max_ttl"])
}

// checkInspect finds a CA without its key, a key without its CA, and a key in
// two places. What they hold is not looked at here.
func (l *loaded) checkInspect() error {
	in := l.Inspect
	switch {
	case in.CAFile != "" && in.CAKeyFile == "" && in.CAKey == "":
		return refuse("set inspect.ca_key_file, or inspect.ca_key to env:NAME, file:PATH or secretsmanager:NAME",
			"%s: the CA has no key", l.place("inspect.ca_file"))
	case in.CAKeyFile != "" && in.CAKey != "":
		return refuse("keep one of the two", "%s and %s both name the CA's key", l.place("inspect.ca_key_file"), l.place("inspect.ca_key"))
	case in.CAFile == "" && in.CAKeyFile != "":
		return refuse("set inspect.ca_file", "%s: there is a key, and no CA", l.place("inspect.ca_key_file"))
	case in.CAFile == "" && in.CAKey != "":
		return refuse("set inspect.ca_file", "%s: there is a key, and no CA", l.place("inspect.ca_key"))
	}
	return nil
}

// requirePolicy refuses to go on without a policy: a proxy that denies
// everything because somebody forgot a line helps nobody.
func (l *loaded) requirePolicy() error {
	if len(l.Policy) > 0 {
		return nil
	}
	return refuse(fmt.Sprintf("give --policy FILE, or put the policy's text into %s", envPolicy),
		"no policy: without one everything would be denied")
}
