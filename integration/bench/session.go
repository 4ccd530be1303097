package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// session is a subject that runs, for one way.
type session struct {
	bench       *bench
	way         way
	addr        netip.AddrPort
	roots       string // a file: who has signed what TLS shows on wayInspect
	dir         string
	origin      *child
	ecs         *child // nil: nobody asks it
	child       *child // nil: no proxy, the origin itself
	startMillis float64
	filters     bool
}

// start starts the stint's subject, and makes sure that it does what is to be
// measured.
func (b *bench) start(ctx context.Context, st stint) (_ *session, err error) {
	b.sessions++
	s := &session{bench: b, way: st.way, roots: b.o.pem(proxyCA), dir: filepath.Join(b.o.Dir, fmt.Sprintf("s%04d", b.sessions))}
	if st.subject.passes {
		s.roots = b.o.pem(originCA)
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if !b.o.Loopback {
		if err := freshNetwork(); err != nil {
			return nil, err
		}
	}
	if s.origin, err = b.startOrigin(ctx, st.way); err != nil {
		return nil, err
	}
	if st.subject.asks {
		if s.ecs, err = b.startECS(ctx); err != nil {
			return nil, err
		}
	}
	if st.subject.launch == nil {
		switch s.addr = b.o.originTLS(); st.way {
		case wayHTTP:
			s.addr = b.o.originHTTP()
		case wayInspect:
			s.addr = b.o.bucket()
		}
		return s, nil
	}
	// Whoever gives up root must be able to write here.
	if err := errors.Join(os.Mkdir(s.dir, 0o777), os.Chmod(s.dir, 0o777)); err != nil {
		return nil, err
	}
	if s.addr, err = freePort(ctx); err != nil {
		return nil, err
	}
	program, err := lookPath(st.subject.program)
	if err != nil {
		return nil, err
	}
	at := &site{way: st.way, dir: s.dir, listen: s.addr, program: program, rules: b.o.Rules, workers: b.o.Placement.workers(), files: b.files, o: b.o}
	l := st.subject.launch(at)
	if at.err != nil {
		return nil, at.err
	}
	began := time.Now()
	if s.child, err = (command{argv: l.argv, env: l.env, dir: s.dir, cpu: b.o.Placement.proxyCPU()}).start(); err != nil {
		return nil, err
	}
	if err := s.child.awaitPort(ctx, s.addr); err != nil {
		return nil, fmt.Errorf("%w: %s", err, s.complaint())
	}
	s.startMillis = float64(time.Since(began)) / float64(time.Millisecond)
	// Some accept before they can do more.
	if err := until(ctx, 10*time.Second, func() error { return s.probe(ctx, s.way.destination()) }); err != nil {
		return nil, fmt.Errorf("it does not let %s through: %w: %s", s.way.destination(), err, s.complaint())
	}
	s.filters = s.probe(ctx, s.way.stranger()) != nil
	return s, nil
}

// freePort finds a port for the proxy. Nobody else is there to take it before
// the proxy does, or almost nobody.
func freePort(ctx context.Context) (netip.AddrPort, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", proxyAddr+":0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer ln.Close()
	return netip.ParseAddrPort(ln.Addr().String())
}

// awaitPort waits until somebody accepts there, while the process lives.
func (c *child) awaitPort(ctx context.Context, addr netip.AddrPort) error {
	return until(ctx, 20*time.Second, func() error {
		select {
		case <-c.exited:
			return final{fmt.Errorf("it ended: %w", c.err)}
		default:
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// complaint is what the subject said last.
func (s *session) complaint() string {
	var said strings.Builder
	for _, name := range []string{"stderr", "stdout", "error.log", "cache.log", "diags.log"} {
		if words := lastWords(filepath.Join(s.dir, name)); words != "" {
			said.WriteString(name + ": " + words + " ")
		}
	}
	return said.String()
}

// logged reports whether the subject has written a log.
func (s *session) logged() bool {
	for _, name := range []string{"access.log", "stdout", "stderr"} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err == nil && info.Size() > 0 {
			return true
		}
	}
	return false
}

// stop ends the subject and removes its files.
func (s *session) stop() {
	if s.child != nil {
		s.child.stop(3 * time.Second)
	}
	if s.origin != nil {
		s.origin.stop(time.Second)
	}
	if s.ecs != nil {
		s.ecs.stop(time.Second)
	}
	_ = os.RemoveAll(s.dir) // what stays goes with the run's folder
}

func (s *session) pid() int {
	if s.child == nil {
		return 0
	}
	return s.child.pid()
}

// settle is how long idle tunnels are left alone before they are looked at: a
// proxy may give back what it holds for a tunnel when that goes quiet.
func (s *session) settle() time.Duration {
	if s.bench.o.Quick {
		return 300 * time.Millisecond
	}
	return 6 * time.Second
}

// measure puts a load on the subject.
func (s *session) measure(ctx context.Context, l load) measure {
	m, err := s.run(ctx, l)
	if err != nil {
		m.Failure = err.Error()
		if s.child != nil {
			select {
			case <-s.child.exited:
				m.Failure = fmt.Sprintf("it ended: %v: %s", s.child.err, s.complaint())
			default:
			}
		}
	}
	return m
}

func (s *session) run(ctx context.Context, l load) (m measure, err error) {
	o := s.bench.o
	t := l.task
	t.Addr, t.Connect, t.Warm, t.For = s.addr, s.way.tunnels() && s.child != nil, o.warm(), o.length()
	t.Header = s.way.header()
	t.TLSPort, t.HTTPPort, t.Roots, t.Large = o.TLSPort, o.HTTPPort, s.roots, largeObject
	if t.Kind == kindIdle {
		t.For = time.Minute
	}
	before, err := readHolding(s.pid())
	if err != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.Warm+t.For+s.settle()+30*time.Second, errors.New("the client took too long"))
	defer cancel()
	c, err := s.bench.startClient(ctx, t)
	if err != nil {
		return m, err
	}
	defer c.close()
	if _, err := c.next(); err != nil {
		return m, err
	}
	from, err := readClock(s.pid())
	if err != nil {
		return m, err
	}
	r, err := c.next()
	if err != nil {
		return m, err
	}
	to, err := readClock(s.pid())
	if err != nil {
		return m, err
	}
	m = newMeasure(l, r, from, to)
	if t.Kind == kindIdle {
		err = s.weigh(ctx, c, &m, before)
	}
	if err == nil && r.Units == 0 {
		err = fmt.Errorf("nothing was done: %s", r.Error)
	}
	return m, err
}

// weigh looks at what idle tunnels hold.
func (s *session) weigh(ctx context.Context, c *ends, m *measure, before holding) error {
	if err := pause(ctx, s.settle()); err != nil {
		return err
	}
	after, err := readHolding(s.pid())
	if err != nil {
		return err
	}
	r, err := c.release()
	if err != nil {
		return err
	}
	m.Lost = r.Lost
	if n := float64(m.Opened); n > 0 {
		m.RSS = float64(after.RSS-before.RSS) / 1024 / n
		m.Kernel = float64(after.Kernel-before.Kernel) / 1024 / n
		m.Files = float64(after.Files-before.Files) / n
	}
	return nil
}

// ends is the client's process.
type ends struct {
	child  *child
	said   *json.Decoder
	out    io.Closer
	in     io.WriteCloser
	stop   func() bool
	errors string          // a file
	ctx    context.Context //nolint:containedctx // of the process, which it ends
}

func (b *bench) startClient(ctx context.Context, t task) (*ends, error) {
	config, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, outR.Close(), outW.Close())
	}
	dir := b.o.endsDir()
	c, err := command{argv: []string{b.self, roleClient, string(config)}, dir: dir, cpu: b.o.Placement.endsCPU(), stdin: inR, stdout: outW}.start()
	inR.Close()
	outW.Close()
	if err != nil {
		return nil, errors.Join(err, outR.Close(), inW.Close())
	}
	e := &ends{child: c, said: json.NewDecoder(outR), out: outR, in: inW, errors: filepath.Join(dir, "stderr"), ctx: ctx}
	e.stop = context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	return e, nil
}

// next reads the client's next report.
func (e *ends) next() (r report, err error) {
	if err := e.said.Decode(&r); err != nil {
		<-e.child.exited
		return r, errors.Join(fmt.Errorf("the client ended: %w: %s", err, lastWords(e.errors)), e.child.err, context.Cause(e.ctx))
	}
	return r, nil
}

// release lets idle tunnels go.
func (e *ends) release() (report, error) {
	if err := e.in.Close(); err != nil {
		return report{}, err
	}
	return e.next()
}

func (e *ends) close() {
	e.stop()
	e.in.Close()
	e.child.stop(2 * time.Second)
	e.out.Close()
}
