package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// subject is something to measure. To add one is to add a few lines to
// [subjects]: its name, how it is started, and for which ways and scenarios.
type subject struct {
	name string
	ways []way
	// only lists its scenarios; nil means all but "rules".
	only []string
	// always measured, whatever is asked for.
	always bool
	// passes is for subjects that leave TLS alone on wayInspect, too.
	passes bool
	// asks is for subjects that ask ECS who calls.
	asks bool
	// silent subjects write no log.
	silent bool
	// private subjects need the namespace: its hosts file, its /run.
	private bool
	// program is what must be on this machine; "" is nothing.
	program string
	// version are the arguments that make program tell its version.
	version []string
	// launch writes the subject's files and says how to start it. It may be
	// asked about any of its ways. Nil is for no proxy at all.
	launch func(*site) launch
}

// base is the subject that all others are set against.
const base = "sallyport"

// launch is how a subject is started.
type launch struct {
	argv []string
	env  []string
}

// site is what a subject has to know to be started.
type site struct {
	way     way
	dir     string         // its own, for anything; the working folder
	listen  netip.AddrPort // where to listen for way
	program string
	rules   int // names on the allowlist
	workers int
	files   int // descriptors it may have
	o       *options
	err     error // of file
}

// file writes one of the subject's files and returns its path.
func (s *site) file(name, text string) string {
	path := filepath.Join(s.dir, name)
	s.err = cmp.Or(s.err, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// path is where a file of the subject's would be.
func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// allowed returns the names of the allowlist: the destination in the middle, for
// those who look at one after the other.
func (s *site) allowed() []string {
	names := make([]string, 0, s.rules)
	for i := range s.rules - 1 {
		names = append(names, fmt.Sprintf("site-%06d.bench.test", i))
	}
	return slices.Insert(names, len(names)/2, s.way.destination())
}

// each writes a line for every allowed name.
func (s *site) each(line func(name string) string) string {
	var b strings.Builder
	for _, name := range s.allowed() {
		b.WriteString(line(name))
		b.WriteByte('\n')
	}
	return b.String()
}

// list is the allowlist with a name a line.
func (s *site) list() string { return s.each(func(name string) string { return name }) }

// missing says why a subject cannot be measured here; "" when it can.
func (s *subject) missing(o *options) string {
	if s.launch == nil {
		return ""
	}
	if s.private && o.Loopback {
		return "needs a namespace"
	}
	if why := o.Missing[filepath.Base(s.program)]; why != "" {
		return why
	}
	if s.program == "" {
		return "not named"
	}
	if _, err := lookPath(s.program); err != nil {
		return "not installed"
	}
	return ""
}

// lookPath finds a program where Debian keeps daemons, too.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func (s *subject) does(sc string) bool {
	if s.only == nil {
		return sc != "rules"
	}
	return slices.Contains(s.only, sc)
}

// subjects lists all that there are, in the order in which they take turns.
func subjects(o *options) []*subject {
	all := []*subject{{name: "direct", silent: true, passes: true, ways: []way{wayConnect, waySNI, wayHTTP, wayInspect}}}
	all = append(all, sallyports(o)...)
	all = append(all, floors()...)
	all = append(all, forwardProxies(o)...)
	all = append(all, relays()...)
	all = append(all, inspectors(o)...)
	return append(all, goReferences(o)...)
}

func subjectNames() []string {
	var names []string
	for _, s := range subjects(&options{}) {
		names = append(names, s.name)
	}
	return names
}
