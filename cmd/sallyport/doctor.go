package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

// maxPatience is the longest --timeout. A probe has at most two waits, one
// after the other, so that all of them, at once, end within ten seconds.
const maxPatience = 5 * time.Second

// maxDoctorTargets bounds what is asked about in one run.
const maxDoctorTargets = 16

// probeName is asked for where the answer must be no: a name that no policy
// lists and that exists nowhere (RFC 6761, section 6.4).
const probeName = "sallyport-doctor.invalid"

// environ looks a variable up, as os.LookupEnv does.
type environ func(string) (string, bool)

func (e environ) get(name string) string {
	value, _ := e(name)
	return value
}

// target is a destination that the policy is meant to allow.
type target struct {
	host string
	port uint16
	tls  bool // its certificate is looked at, too
}

func (t target) String() string { return joinPort(t.host, t.port) }

// doctor examines the task that it runs in. All that it touches is named here.
type doctor struct {
	proxy    string // in place of the variables' proxy; "" for theirs
	targets  []target
	outside  []netip.Addr     // must not be reached directly
	nobody   []netip.Addr     // where nobody is: who answers for them stands in between
	servers  []netip.AddrPort // resolvers; nil for resolv.conf's
	timeout  time.Duration    // of one wait
	env      environ
	metadata string // the task's metadata and credentials, a URL
	conf     string // resolv.conf
}

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "prove, inside a task, that nothing leaves but through the proxy", Args: cobra.NoArgs}
	d := &doctor{env: os.LookupEnv, metadata: "http://169.254.170.2", conf: "/etc/resolv.conf"}
	cmd.Flags().StringVar(&d.proxy, "proxy", "", "the proxy's `URL`, in place of the variables'")
	targets := cmd.Flags().StringArray("target", nil, "`HOST` that the policy allows; repeatable")
	outside := cmd.Flags().StringArray("outside", []string{"1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2001:4860:4860::8888"}, "`ADDRESS` that must not be reached directly; repeatable")
	nobody := cmd.Flags().StringArray("nobody", []string{"192.0.2.1", "2001:db8::1"}, "`ADDRESS` where nobody is; repeatable")
	resolvers := cmd.Flags().StringArray("resolver", nil, "`ADDRESS` of a resolver; repeatable")
	cmd.Flags().DurationVar(&d.timeout, "timeout", 3*time.Second, "how long one answer may take")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := d.configure(*targets, *outside, *nobody, *resolvers); err != nil {
			return err
		}
		x := d.examine(cmd.Context())
		if err := x.write(cmd.OutOrStdout(), *asJSON); err != nil {
			return err
		}
		if x.failed() {
			return errNo
		}
		return nil
	}
	return cmd
}

// configure takes the flags' texts.
func (d *doctor) configure(targets, outside, nobody, resolvers []string) error {
	if d.timeout < 100*time.Millisecond || d.timeout > maxPatience {
		return refuse("write 100ms to 5s", "--timeout: %v is out of range", d.timeout)
	}
	if d.proxy != "" {
		if _, err := parseProxy(d.proxy); err != nil {
			return refuse("write http://HOST:PORT", "--proxy: %v", err)
		}
	}
	if len(targets) > maxDoctorTargets {
		return refuse("ask about a few that matter", "--target: %d of them, more than %d", len(targets), maxDoctorTargets)
	}
	for _, text := range targets {
		_, host, port, protocol, err := policy.ParseTarget(text)
		if err != nil {
			return refuse("write HOST or HOST:PORT", "--target: %v", err)
		}
		d.targets = append(d.targets, target{host.String(), port, port == 443 || protocol == policy.ProtocolTLS})
	}
	var err error
	if d.outside, err = parseAddresses("outside", outside); err != nil {
		return err
	}
	if d.nobody, err = parseAddresses("nobody", nobody); err != nil {
		return err
	}
	for _, text := range resolvers {
		server, err := parseResolver(text)
		if err != nil {
			return refuse("write 169.254.169.253 or ADDRESS:PORT", "--resolver: %q is not an address", text)
		}
		d.servers = append(d.servers, server)
	}
	return nil
}

func parseAddresses(flag string, texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, list := range texts {
		for _, text := range splitList(list) {
			addr, err := netip.ParseAddr(text)
			if err != nil || len(all) == maxDoctorTargets {
				return nil, refuse("write IP addresses, 16 at most", "--%s: %q", flag, text)
			}
			all = append(all, addr.Unmap())
		}
	}
	return all, nil
}

// findings are what the probes saw. What it means is judged apart, by
// functions that touch nothing.
type findings struct {
	direct    []attempt
	targets   []attempt // the targets, without the proxy
	resolvers []resolverSeen
	proxy     proxySeen
	metadata  metadataSeen
	names     map[string][]netip.Addr // where names of NO_PROXY lead
	trust     []trustSeen
	clients   map[string]bool // what seems to be installed
	seenIPv6  bool            // an address for IPv6 is configured
}

// examine probes everything at once, and judges it.
func (d *doctor) examine(ctx context.Context) *examination {
	// Twice the wait, and a little for what comes between.
	ctx, cancel := context.WithTimeout(ctx, min(2*d.timeout+d.timeout/2, 10*time.Second))
	defer cancel()
	servers := d.servers
	if servers == nil {
		servers = readResolvers(d.conf)
	}
	p := &prober{timeout: d.timeout, resolver: resolverOf(d.servers)}
	v := readVariables(d.env)
	url := d.proxyURL(v)
	var f findings
	var all sync.WaitGroup
	all.Go(func() { f.direct = p.direct(ctx, d.outside, d.nobody) })
	all.Go(func() { f.targets = p.targets(ctx, d.targets) })
	all.Go(func() { f.resolvers = p.resolvers(ctx, servers) })
	all.Go(func() { f.proxy = p.throughProxy(ctx, url, d.targets, d.env) })
	all.Go(func() { f.metadata = p.metadata(ctx, d.metadata, d.env) })
	all.Go(func() { f.names = p.lookups(ctx, v.publicNames()) })
	f.trust, f.clients, f.seenIPv6 = readTrust(d.env), installed(d.env), hasIPv6()
	all.Wait()
	return d.judge(v, &f)
}

// proxyURL is the proxy to ask: --proxy, else the one for TLS.
func (d *doctor) proxyURL(v variables) string {
	if d.proxy != "" {
		return d.proxy
	}
	for _, name := range proxyVariableNames() {
		if v.values[name] != "" {
			return v.values[name]
		}
	}
	return ""
}

// judge turns what was seen into the table, in its order.
func (d *doctor) judge(v variables, f *findings) *examination {
	x := &examination{}
	inPath := x.judgeDirect(f)
	x.judgeTargetsDirect(f.targets)
	x.judgeResolvers(f.resolvers)
	x.judgeVariables(v, d.proxy != "", inPath)
	x.judgeNoProxy(v, noProxyContext{targets: d.targets, names: f.names, fargate: d.onFargate()})
	x.judgeProxy(f.proxy, inPath)
	x.judgeMetadata(f.metadata)
	x.judgeTrust(f.trust)
	x.judgeClients(d.env, f.clients, inPath)
	return x
}

func (d *doctor) onFargate() bool { return d.env.get("AWS_EXECUTION_ENV") == "AWS_ECS_FARGATE" }

// hasIPv6 reports whether this task has an address for IPv6 that is not for
// its own link alone.
func hasIPv6() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if ip := prefix.Addr(); ip.Is6() && !ip.Is4In6() && ip.IsGlobalUnicast() {
			return true
		}
	}
	return false
}

func joinPort(host string, port uint16) string {
	return net.JoinHostPort(strings.Trim(host, "[]"), uitoa(port))
}
