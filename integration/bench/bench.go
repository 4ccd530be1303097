package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// bench is a run.
type bench struct {
	o        *options
	files    int // descriptors that a process may have
	self     string
	talk     io.Writer
	subjects []*subject
	versions map[string]string
	measures []measure
	sessions int
}

// measureAll measures, and writes what came of it. It is in the namespace, or
// on loopback addresses.
func measureAll(ctx context.Context, o options, stdout, stderr io.Writer) error {
	b := &bench{o: &o, talk: stderr, versions: make(map[string]string)}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.files, err = limitFiles(); err != nil {
		return fmt.Errorf("limiting descriptors: %w", err)
	}
	b.choosePorts(ctx)
	b.chooseSubjects(ctx)
	for repeat := range o.Repeat {
		for _, r := range b.round() {
			if err := b.take(ctx, repeat, r); err != nil {
				return err
			}
		}
	}
	return b.write(ctx, stdout)
}

// choosePorts takes the ports that SNI needs, or others where they may not be
// bound: then SNI is left out, for its connections go to 443.
func (b *bench) choosePorts(ctx context.Context) {
	b.o.TLSPort, b.o.HTTPPort = 443, 80
	for _, port := range []int{443, 80} {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(originAddr, strconv.Itoa(port)))
		if err != nil {
			fmt.Fprintf(b.talk, "no SNI: port %d of the origin cannot be had: %v\n", port, err)
			b.o.TLSPort, b.o.HTTPPort = 28443, 28080
			return
		}
		ln.Close()
	}
}

// chooseSubjects leaves out what is not here, and says so.
func (b *bench) chooseSubjects(ctx context.Context) {
	for _, s := range subjects(b.o) {
		if !wants(b.o.Subjects, s.name) && !s.always {
			continue
		}
		if why := s.missing(b.o); why != "" {
			fmt.Fprintf(b.talk, "without %s: %s\n", s.name, why)
			continue
		}
		b.subjects = append(b.subjects, s)
		b.versions[s.name] = versionOf(ctx, s)
	}
}

// startOrigin starts the origin that a way leads to.
func (b *bench) startOrigin(ctx context.Context, w way) (*child, error) {
	addrs := []netip.AddrPort{b.o.originTLS(), b.o.originHTTP()}
	role, told := roleOrigin, any(addrs)
	if w == wayInspect {
		addrs = []netip.AddrPort{b.o.bucket()}
		role, told = roleBucket, bucketConfig{addrs[0], b.o.pem(originCert), b.o.key(originCert)}
	}
	config, err := json.Marshal(told)
	if err != nil {
		return nil, err
	}
	return b.serve(ctx, role, string(config), addrs...)
}

// serve starts a server that the run needs, and waits until it listens.
func (b *bench) serve(ctx context.Context, role, told string, addrs ...netip.AddrPort) (*child, error) {
	dir := b.o.endsDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c, err := command{argv: []string{b.self, role, told}, dir: dir, cpu: b.o.Placement.endsCPU()}.start()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if err := c.awaitPort(ctx, a); err != nil {
			c.stop(0)
			return nil, fmt.Errorf("the %s: %w: %s", role, err, lastWords(filepath.Join(dir, "stderr")))
		}
	}
	return c, nil
}

// stint is what one start of a subject is measured with.
type stint struct {
	way     way
	loads   []stintLoad
	subject *subject
}

type stintLoad struct {
	scenario string
	load     load
}

// round lists the stints of a repeat. Subjects take turns within a load's
// scenario, so that whatever drifts, drifts for all. Idle tunnels begin with a
// fresh process each, for memory is given back late. A quick run starts each
// subject once for each way.
func (b *bench) round() []stint {
	var all []stint
	for _, sc := range scenarios(b.o.Quick) {
		if !wants(b.o.Scenarios, sc.name) {
			continue
		}
		var groups [][]stintLoad
		for i, l := range sc.loads {
			if i == 0 || sc.name == "idle" {
				groups = append(groups, nil)
			}
			groups[len(groups)-1] = append(groups[len(groups)-1], stintLoad{sc.name, l})
		}
		for _, w := range sc.ways {
			if w == waySNI && b.o.TLSPort != 443 {
				continue
			}
			for _, loads := range groups {
				for _, s := range b.subjects {
					if s.does(sc.name) && slices.Contains(s.ways, w) {
						all = append(all, stint{w, loads, s})
					}
				}
			}
		}
	}
	if b.o.Quick {
		return merge(all)
	}
	return all
}

// merge joins the stints of a subject and a way.
func merge(all []stint) []stint {
	var out []stint
	for _, s := range all {
		i := slices.IndexFunc(out, func(o stint) bool { return o.way == s.way && o.subject == s.subject })
		if i < 0 {
			out = append(out, stint{s.way, slices.Clone(s.loads), s.subject})
			continue
		}
		out[i].loads = append(out[i].loads, s.loads...)
	}
	return out
}

// take measures a stint. What goes wrong with a subject is its result; only
// the end of the run is an error.
func (b *bench) take(ctx context.Context, repeat int, st stint) error {
	s, err := b.start(ctx, st)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, l := range st.loads {
			b.note(measure{Repeat: repeat, Scenario: l.scenario, Way: st.way, Load: l.load.name, Subject: st.subject.name, Failure: err.Error()})
		}
		return nil
	}
	defer s.stop()
	for _, l := range st.loads {
		m := s.measure(ctx, l.load)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.Repeat, m.Scenario, m.Way, m.Load, m.Subject = repeat, l.scenario, st.way, l.load.name, st.subject.name
		m.StartMillis, m.Filters = s.startMillis, s.filters
		b.note(m)
	}
	if !st.subject.silent && !b.o.Quick && !s.logged() { // some write it late
		fmt.Fprintf(b.talk, "warning: %s has logged nothing\n", st.subject.name)
	}
	return nil
}

// note keeps a measure and shows it.
func (b *bench) note(m measure) {
	b.measures = append(b.measures, m)
	fmt.Fprintf(b.talk, "%d/%d %-8s %-8s %-10s %-16s %s\n", m.Repeat+1, b.o.Repeat, m.Scenario, m.Way, m.Load, m.Subject, m.brief(loadOf(m.Load)))
}

// write writes the results: to stdout and, complete, to files.
func (b *bench) write(ctx context.Context, stdout io.Writer) error {
	res := results{Machine: describeMachine(ctx), Options: *b.o, Versions: b.versions, Measures: b.measures}
	if err := res.write(b.o.Out, stdout); err != nil {
		return err
	}
	return res.verdict()
}
