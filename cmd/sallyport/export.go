package main

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/ipfix"
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

func exportSettings() []setting {
	return []setting{
		{key: "export.ipfix.collector", kind: orNone(collector()), get: func(c *Config) any { return c.Export.IPFIX.Collector }},
		{key: "export.ipfix.template_refresh", kind: duration(time.Second, 24*time.Hour), get: func(c *Config) any { return c.Export.IPFIX.TemplateRefresh }},
		{key: "export.ipfix.observation_domain", kind: count(0, math.MaxUint32), get: func(c *Config) any { return c.Export.IPFIX.ObservationDomain }},
		{key: "export.ipfix.enterprise", kind: count(1, math.MaxUint32), get: func(c *Config) any { return c.Export.IPFIX.Enterprise }},
		{key: "export.ipfix.mtu", kind: count(ipfix.MinMTU, 65_535), get: func(c *Config) any { return c.Export.IPFIX.MTU }},
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
	if d.ipfix != nil {
		all = append(all, d.ipfix)
	}
	return all
}

// recordTasks are those that end after the last connection was recorded.
func (d *daemon) recordTasks() []task {
	all := []task{{"flow log", d.flows.Run}}
	if d.ipfix != nil {
		all = append(all, task{"ipfix", d.ipfix.Run})
	}
	return all
}

// droppedBy tells, by reader, how many events or lines it lost.
func (d *daemon) droppedBy() map[string]func() uint64 {
	all := map[string]func() uint64{"flow_log": d.flows.Dropped, "log": d.talk.Dropped}
	if d.ipfix != nil {
		all["ipfix"] = d.ipfix.Dropped
	}
	return all
}
