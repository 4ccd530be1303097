package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/ipfix"
	"github.com/sallyport/sallyport/logging/metrics"
)

// Export says to whom flows are sent, beside standard output.
type Export struct {
	IPFIX ExportIPFIX
}

// ExportIPFIX says where an IPFIX collector is; see logging/ipfix.
type ExportIPFIX struct {
	Collector         string        // "udp://host:port" or "tcp://host:port"; "": none
	TemplateRefresh   time.Duration `mapstructure:"template_refresh"` // by UDP
	ObservationDomain int           `mapstructure:"observation_domain"`
	Enterprise        int           // private enterprise number of the elements that IANA has none for
	MTU               int           // of a UDP datagram
}

// Metrics says to whom metrics are told, beside /metrics.
type Metrics struct {
	EMF MetricsEMF
}

// MetricsEMF says what CloudWatch is told, on standard output.
type MetricsEMF struct {
	Namespace string // of the metrics; "": nothing is told
	Every     time.Duration
	Services  int // that are told apart
}

func exportSettings() []setting {
	return []setting{
		{key: "export.ipfix.collector", kind: orNone(collector()), get: func(c *Config) any { return c.Export.IPFIX.Collector }},
		{key: "export.ipfix.template_refresh", kind: duration(time.Second, 24*time.Hour), get: func(c *Config) any { return c.Export.IPFIX.TemplateRefresh }},
		{key: "export.ipfix.observation_domain", kind: count(0, math.MaxUint32), get: func(c *Config) any { return c.Export.IPFIX.ObservationDomain }},
		{key: "export.ipfix.enterprise", kind: count(1, math.MaxUint32), get: func(c *Config) any { return c.Export.IPFIX.Enterprise }},
		{key: "export.ipfix.mtu", kind: count(ipfix.MinMTU, 65_535), get: func(c *Config) any { return c.Export.IPFIX.MTU }},
		{key: "metrics.emf.namespace", kind: orNone(cloudWatchNamespace()), get: func(c *Config) any { return c.Metrics.EMF.Namespace }},
		{key: "metrics.emf.every", kind: duration(time.Second, time.Hour), get: func(c *Config) any { return c.Metrics.EMF.Every }},
		{key: "metrics.emf.services", kind: count(1, 1000), get: func(c *Config) any { return c.Metrics.EMF.Services }},
	}
}

func collector() kind {
	return kind{want: `a collector such as "udp://collector.corp.example:4739"`, tag: tagText, check: func(s string) (string, string) {
		if _, err := ipfix.ParseCollector(s); err != nil {
			return fmt.Sprintf("%q is not a collector: %v", s, err), `write "udp://HOST:4739" or "tcp://HOST:4739"`
		}
		return "", ""
	}}
}

func cloudWatchNamespace() kind {
	return kind{want: "a namespace of CloudWatch's", tag: tagText, check: func(s string) (string, string) {
		const hint = `write a name of your own, such as "Sallyport/prod"`
		switch {
		case !regexp.MustCompile(`^[A-Za-z0-9._/#-][A-Za-z0-9._/#: -]{0,254}$`).MatchString(s):
			return fmt.Sprintf("%q is not a namespace of CloudWatch's", s), hint
		case strings.HasPrefix(s, "AWS/"):
			return fmt.Sprintf("%q is a namespace that AWS keeps for itself", s), hint
		}
		return "", ""
	}}
}

// buildEMF makes what tells CloudWatch of flows, on the same standard output as
// the flow log, and returns what the flow log shall write to.
func (d *daemon) buildEMF(stdout io.Writer) io.Writer {
	c := d.cfg.Metrics.EMF
	if c.Namespace == "" {
		return stdout
	}
	// The sums never wait for a reader that stalls, nor does the process' end.
	stdout = logging.Shared(stdout)
	d.emfLines = logging.Async(stdout, 0)
	d.emf = metrics.NewEMF(d.emfLines, metrics.EMFConfig{
		Namespace: c.Namespace, Every: c.Every, Services: c.Services,
		Active:  func() int { return d.connectionStats().Active },
		Dropped: d.dropped,
	})
	return stdout
}

// buildExport makes what sends flows elsewhere; nil where there is nothing.
func (d *daemon) buildExport() error {
	c := d.cfg.Export.IPFIX
	if c.Collector == "" {
		return nil
	}
	to, err := ipfix.ParseCollector(c.Collector)
	if err != nil {
		return err
	}
	d.ipfix, err = ipfix.New(ipfix.Config{
		Collector: to, TemplateRefresh: c.TemplateRefresh, MTU: c.MTU,
		Domain: uint32(c.ObservationDomain), Enterprise: uint32(c.Enterprise), // checked with the configuration
		Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) { return d.resolver.Lookup(ctx, name) },
		Log:    d.log,
	})
	return err
}

// readers are all that is told of flow events, in the order in which they are.
func (d *daemon) readers() []flow.Reader {
	all := []flow.Reader{d.metrics, d.flows}
	if d.history != nil {
		all = append(all, d.history)
	}
	if d.ipfix != nil {
		all = append(all, d.ipfix)
	}
	if d.emf != nil {
		all = append(all, d.emf)
	}
	return all
}

// recordTasks are those that end after the last connection was recorded.
func (d *daemon) recordTasks() []task {
	all := []task{{"flow log", d.flows.Run}}
	if d.history != nil {
		all = append(all, task{"history", d.runHistory})
	}
	if d.ipfix != nil {
		all = append(all, task{"ipfix", d.ipfix.Run})
	}
	if d.emf != nil {
		all = append(all, task{"emf", d.emf.Run})
	}
	return all
}

// lastTasks are those that write what all others say.
func (d *daemon) lastTasks() []task {
	all := []task{{"log", d.talk.Run}}
	if d.emf != nil {
		all = append(all, task{"emf lines", d.emfLines.Run})
	}
	return all
}

// droppedBy tells, by reader, how many events or lines it lost.
func (d *daemon) droppedBy() map[string]func() uint64 {
	all := map[string]func() uint64{"flow_log": d.flows.Dropped, "log": d.talk.Dropped}
	if d.history != nil {
		all["history"] = d.historyDropped
	}
	if d.ipfix != nil {
		all["ipfix"] = d.ipfix.Dropped
	}
	if d.emf != nil {
		all["emf"] = d.emfLines.Dropped
	}
	return all
}

// exportedBy tells, by exporter, how many flows it sent.
func (d *daemon) exportedBy() map[string]func() uint64 {
	if d.ipfix == nil {
		return nil
	}
	return map[string]func() uint64{"ipfix": d.ipfix.Sent}
}

// dropped is what all readers lost together.
func (d *daemon) dropped() uint64 {
	var n uint64
	for _, by := range d.droppedBy() {
		n += by()
	}
	return n
}
