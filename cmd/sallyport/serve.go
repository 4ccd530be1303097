package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/anomaly"
	"github.com/sallyport/sallyport/logging/budget"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/logging/ipfix"
	"github.com/sallyport/sallyport/logging/metrics"
	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/resolve"
	"github.com/sallyport/sallyport/proxy/steer"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", Short: "serve, until SIGTERM", Args: cobra.NoArgs}
	addFlags(cmd, daemonFlags()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := loadConfig(cmd.Flags())
		if err != nil {
			return err
		}
		if err := l.requirePolicy(); err != nil {
			return err
		}
		p, err := l.firstPolicy(cmd.Context())
		if err != nil {
			return err
		}
		d, err := build(cmd.Context(), l, p, cmd.OutOrStdout(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		signals, release := notify(lateSignals)
		defer release()
		return d.run(cmd.Context(), signals)
	}
	return cmd
}

// daemon is the house, wired: sockets are bound (see trafficTasks), nothing runs yet.
type daemon struct {
	cfg         *loaded
	ca          *tls.Certificate // nil: nothing can be inspected
	originRoots *x509.CertPool   // nil: the system's
	talk        *logging.AsyncWriter
	log         zerolog.Logger
	flows       *logging.FlowWriter
	ipfix       *ipfix.Exporter // nil: no collector is configured
	emf         *metrics.EMF    // nil: CloudWatch is told nothing
	emfLines    *logging.AsyncWriter
	history     *history.Store                // nil: nothing is remembered
	overlays    *overlays                     // nil: likewise
	first       *policy.Policy                // that waits for overlays, see trafficTasks; nil: it waits for none
	texts       atomic.Pointer[[]policy.Text] // of the policy in force
	ledger      *budget.Ledger
	watcher     *anomaly.Watcher // nil: nobody looks
	webhook     *anomaly.Webhook // nil: nobody is told
	token       adminToken
	metrics     *metrics.Metrics
	live        *policy.Live
	resolver    *resolve.Resolver
	callers     *callers
	credentials *credentials // nil: nobody can prove anything by a password
	tls         tlsListeners // by listener; nil in it: that speaks none
	advice      *advice
	proxy       *proxy.Server
	steering    *steer.Server // nil: no DNS server is configured
	admin       net.Listener
	console     *console.Handler
	opened      atomic.Bool // the policy is in force and the listeners are bound
	draining    atomic.Bool
	outliving   atomic.Pointer[string] // what is still waited for; nil: nothing
}

// build makes the parts and binds the sockets. The policy is in force before
// there is a socket for traffic. When a step fails, what was opened is closed.
func build(ctx context.Context, l *loaded, p *policy.Policy, stdout, stderr io.Writer) (_ *daemon, err error) {
	d := &daemon{cfg: l, live: policy.NewLive(), talk: logging.Async(stderr, 0)}
	d.token = adminToken{entry: l.Admin.Token, place: l.place("admin.token")}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err = l.admit(p); err != nil {
		return nil, err
	}
	if d.ca, d.originRoots, err = l.inspection(ctx); err != nil {
		return nil, err
	}
	if d.log, err = logging.New(d.talk, logging.Options{Level: l.Logging.Level, Format: l.Logging.Format}); err != nil {
		return nil, err
	}
	l.sources.log = d.log
	if err = d.buildFlows(stdout); err != nil {
		return nil, err
	}
	if d.resolver, err = resolve.New(resolverConfig(l.Resolver, d.log)); err != nil {
		return nil, &fault{code: exitUsage, err: err}
	}
	if d.callers, err = l.callers(ctx, d.log); err != nil {
		return nil, err
	}
	if d.credentials, err = l.credentials(ctx, d.log); err != nil {
		return nil, err
	}
	if d.tls, err = l.tlsListeners(ctx, d.log); err != nil {
		return nil, err
	}
	if err = d.buildExport(); err != nil {
		return nil, err
	}
	if err = d.buildHistory(ctx); err != nil {
		return nil, err
	}
	if p, err = d.overlaid(ctx, p); err != nil {
		return nil, err
	}
	if err = d.buildWatch(ctx); err != nil {
		return nil, err
	}
	if err = d.token.read(ctx); err != nil {
		return nil, err
	}
	d.advice = &advice{log: d.log, look: d.lookAtCallers}
	d.metrics = metrics.New(d.metricsConfig())
	if d.admin, err = new(net.ListenConfig).Listen(ctx, "tcp", l.Admin.Address); err != nil {
		return nil, bindFault("admin.address", l.origins["admin.address"], err)
	}
	if d.console, err = console.New(d.consoleConfig()); err != nil {
		return nil, err
	}
	bus := flow.NewBus(d.readers()...).OnPanic(func(r flow.Reader, value any) {
		d.log.Error().Str("reader", fmt.Sprintf("%T", r)).Interface("panic", value).Msg("a reader of flow events panicked")
	})
	if err = d.buildDNS(ctx, bus); err != nil {
		return nil, err
	}
	d.proxy, err = proxy.New(d.proxyConfig(), proxy.Deps{
		Decider: d.live, Resolver: d.resolver, Identifier: d.callers.identifier(),
		Authenticator: d.credentials.authenticator(), Recorder: bus, Ledger: ledger{d.ledger}, NewID: flow.NewID, Log: d.log,
	})
	if err != nil {
		return nil, err
	}
	if d.overlays.awaited() {
		d.first = p
		return d, nil
	}
	d.enforce(p)
	if err = d.listen(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// close gives back what a build that failed has opened.
func (d *daemon) close() {
	if d.resolver != nil {
		d.resolver.Close()
	}
	if d.admin != nil {
		_ = d.admin.Close() // the build's error is the one that counts
	}
	if d.history != nil {
		_ = d.history.Close() // likewise
	}
	if d.steering != nil {
		d.steering.Close()
	}
}

func bindFault(key, origin string, err error) error {
	f := &fault{err: fmt.Errorf("%s (%s): %w", key, origin, err)}
	if errors.Is(err, syscall.EADDRINUSE) {
		f.hint = "another program, perhaps another sallyport, has that port"
	}
	return f
}

func (d *daemon) buildFlows(stdout io.Writer) error {
	which, err := logging.ParseFlows(d.cfg.Logging.Flows)
	if err != nil {
		return err
	}
	full, err := flow.ParseFull(d.cfg.Logging.Full)
	if err != nil {
		return err
	}
	d.flows = logging.NewFlowWriter(d.buildEMF(stdout), d.log, logging.FlowOptions{
		Flows: which, Full: full, Size: d.cfg.Logging.Queue, Format: d.cfg.Logging.Format,
	})
	return nil
}

func resolverConfig(r Resolver, log zerolog.Logger) resolve.Config {
	c := resolve.Config{Servers: r.Servers, MinTTL: r.MinTTL, MaxTTL: r.MaxTTL, StaleFor: r.Stale, Logger: log}
	if r.Stale == 0 {
		c.StaleFor = -1 // never; zero would be the default
	}
	for _, h := range r.Hosts {
		host := resolve.Host{Name: h.Name}
		for _, text := range h.Addresses {
			if a, err := netip.ParseAddr(text); err == nil { // checked with the configuration
				host.Addresses = append(host.Addresses, a)
			}
		}
		c.Hosts = append(c.Hosts, host)
	}
	return c
}

func (d *daemon) metricsConfig() metrics.Config {
	b := readBuild()
	return metrics.Config{
		Version: b.Version, Revision: b.Revision,
		Connections: d.connectionStats,
		DNS:         func() metrics.DNSStats { return dnsStats(d.resolver.Stats()) },
		Steering:    d.steeringStats(),
		Policy:      d.cfg.sources.ages,
		Identity:    d.callers.stats(),
		TLS:         d.tls.stats(),
		History:     d.historyStats(),
		Watch:       d.watchStats(),
		Budgets:     d.budgetStats,
		Dropped:     d.droppedBy(),
		Exported:    d.exportedBy(),
	}
}

// connectionStats are the proxy's counts. The registry asks for them once
// before there is a proxy, to learn their names.
func (d *daemon) connectionStats() metrics.ConnectionStats {
	if d.proxy == nil {
		return metrics.ConnectionStats{}
	}
	c := d.proxy.Counts()
	return metrics.ConnectionStats{Accepted: c.Accepted, Refused: c.Refused, Active: c.Active, Headless: d.proxy.Callers().Headless}
}

// dnsStats folds the resolver's figures into the few that are exported. A
// snapshot is not exact under load, hence the floor.
func dnsStats(s resolve.Stats) metrics.DNSStats {
	out := metrics.DNSStats{Hits: s.Static + s.Hits, Stale: s.Stale, Entries: s.Entries}
	for _, word := range []string{"timeout", "unreachable", "overload", "malformed", "bad_name", "closed"} {
		out.Errors += s.Failures[word]
	}
	if known := out.Hits + out.Stale + out.Errors; known < s.Lookups {
		out.Misses = s.Lookups - known
	}
	return out
}

func (d *daemon) consoleConfig() console.Config {
	b := readBuild()
	b.Modules = nil
	c := console.Config{
		Ready: d.ready, Metrics: d.metrics.Handler(), Version: b, Schema: logging.FlowSchema(),
		Hosts: d.cfg.Admin.Hosts, Token: d.token.sum.Load, Routes: d.policyRoutes(), Log: logging.Slog(d.log),
	}
	if d.history != nil {
		c.History = d.history
		maps.Copy(c.Routes, d.anomalyRoutes())
	}
	return c
}

func (d *daemon) proxyConfig() proxy.Config {
	c := proxy.Config{
		Timeouts:  proxy.Timeouts(d.cfg.Timeouts),
		Limits:    proxy.Limits(d.cfg.Limits),
		CutDenied: d.cfg.Reload.CutDenied,
		CA:        d.ca, OriginRoots: d.originRoots, S3Keys: d.cfg.Logging.S3Keys,
	}
	for i, l := range d.cfg.Listeners {
		ln := l.config()
		if ends := d.tls.at(i); ends != nil {
			ln.TLS = ends
		}
		c.Listeners = append(c.Listeners, ln)
	}
	if a, err := netip.ParseAddrPort(d.admin.Addr().String()); err == nil {
		c.OwnSockets = append(c.OwnSockets, a)
	}
	c.OwnSockets = append(c.OwnSockets, d.dnsSockets()...)
	return c
}

// run serves until a signal or a failure ends it.
func (d *daemon) run(ctx context.Context, signals <-chan os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	asked := make(chan struct{}, 1)
	reload := &reloader{
		read: d.readPolicy, pause: d.cfg.sources.pause, admit: d.cfg.admit,
		asked: asked, changed: d.overlaysChanged(ctx), live: d.live,
		swapped: d.policyChanged, also: d.reloadAlso, keep: d.remember, metrics: d.metrics, log: d.log,
		ends: d.overlays.next, over: d.overInForce,
	}
	d.announce()
	return inStages(ctx,
		d.trafficTasks(reload, append(d.dnsTasks(), task{"proxy", d.serveTraffic}, task{"reload", reload.Run})),
		d.watchTasks(),
		slices.Concat(d.callers.tasks(), d.lapseTasks(), d.recordTasks(), []task{
			{"admin", func(ctx context.Context) error { return d.console.Serve(ctx, d.admin) }},
			{"signals", func(ctx context.Context) error { d.obey(ctx, signals, asked, stop); return nil }},
		}),
		d.lastTasks(),
	)
}

// serveTraffic runs the proxy. Whatever ends it, readiness ends first.
func (d *daemon) serveTraffic(ctx context.Context) error {
	defer d.resolver.Close()
	unregister := context.AfterFunc(ctx, func() {
		d.draining.Store(true)
		d.log.Info().Int("active", d.proxy.Active()).Stringer("at_most", d.cfg.Timeouts.Drain).Msg("draining")
	})
	defer unregister()
	// Connections that wait for a stuck reader of the flow log would outlast
	// the drain, and nothing could end the process but SIGKILL.
	over, ended := context.WithCancel(context.WithoutCancel(ctx))
	defer ended()
	defer context.AfterFunc(ctx, func() { d.hurry(over, d.cfg.Timeouts.Drain) })()
	err := d.proxy.Run(ctx)
	d.log.Info().Msg("every connection has ended")
	return err
}

// hurry lets nobody wait for the flow log any more once the drain has had its
// time, unless every connection ends before.
func (d *daemon) hurry(ended context.Context, drain time.Duration) {
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-timer.C:
		d.flows.Hurry()
	case <-ended.Done():
	}
}

// obey turns signals into what they ask for.
func (d *daemon) obey(ctx context.Context, signals <-chan os.Signal, asked chan<- struct{}, stop func()) {
	stopping := false
	ctx, done := context.WithCancel(ctx)
	var outliving sync.WaitGroup
	defer outliving.Wait()
	defer done()
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			d.log.Info().Stringer("signal", s).Msg("signal received")
			switch {
			case s == syscall.SIGHUP:
				select {
				case asked <- struct{}{}:
				default: // a look is due already
				}
			case stopping:
				stop() // whatever was still waited for
				d.cut()
			case d.cfg.Drain.WaitForTask && d.callers.metadata != nil:
				stopping = true
				outliving.Go(func() { d.outlive(ctx, stop) })
			default:
				stopping = true
				stop()
			}
		}
	}
}

// cut ends everything under way now.
func (d *daemon) cut() {
	d.proxy.Cut()
	d.flows.Hurry()
}

// announce says once, at the start, everything that an operator asks for
// first when something is wrong.
func (d *daemon) announce() {
	b := readBuild()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < 4096 {
		// The runtime has raised the soft limit to the hard one already.
		d.log.Warn().Uint64("descriptors", files.Cur).Msg("few file descriptors: a tunnel takes up to six, two sockets and two pipes of splice(2); raise the ulimit nofile")
	}
	for _, w := range d.cfg.warnings {
		d.log.Warn().Str("warning", w).Msg("configuration warning")
	}
	d.log.Info().Str("version", b.Version).Str("revision", b.Revision).Str("go", b.Go).Uint64("descriptors", files.Cur).
		Interface("config", d.cfg.tree()).Interface("origins", d.cfg.origins).Msg("configuration")
	if d.ca != nil {
		d.log.Info().Stringer("ca", d.ca.Leaf.Subject).Time("expires", d.ca.Leaf.NotAfter).Str("fingerprint", fingerprint(d.ca.Leaf)).
			Msg("connections are inspected where a rule says so")
	}
	d.tls.announce()
	if d.steering != nil {
		d.log.Info().Stringer("dns", d.steering.Addr()).Strs("answer", d.cfg.DNS.Answer).Msg("answering questions for names")
	}
	d.log.Info().Stringer("admin", d.admin.Addr()).Msg("listening for health checks and metrics")
}

// announceTraffic says where clients connect, and what decides about them.
func (d *daemon) announceTraffic() {
	p := d.live.Current()
	for _, a := range d.proxy.Addrs() {
		d.log.Info().Stringer(logging.FieldListener, a).Msg("listening")
	}
	d.log.Info().Str(logging.FieldPolicy, p.Version()).Int("rules", len(p.Rules())).Int("callers", p.Sources()).Strs("sources", d.cfg.Policy).Msg("policy in force")
	logWarnings(d.log, p)
	d.advice.say()
}
