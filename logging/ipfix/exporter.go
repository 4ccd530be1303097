package ipfix

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/flow"
)

// MinMTU and DefaultMTU bound what a UDP datagram may be, headers included, in
// octets. Below the least there is no room for a record.
const (
	MinMTU     = 576
	DefaultMTU = 1400
)

const (
	defaultRefresh = time.Minute
	defaultQueue   = 4096

	datagramHeaders = 48       // of IPv6 and UDP
	tcpRoom         = 32 << 10 // octets of a message by TCP
)

// Config says where flows are exported to, and how.
type Config struct {
	Collector Collector
	// TemplateRefresh is the least time between two repetitions of the templates
	// by UDP; 0 is a minute.
	TemplateRefresh time.Duration
	Domain          uint32 // the observation domain
	Enterprise      uint32 // of our elements; 0 is [DocumentationEnterprise]
	MTU             int    // of UDP, at least [MinMTU]; 0 is [DefaultMTU]
	Queue           int    // events that may wait; 0 is 4096
	// Lookup finds the collector's addresses by its name; nil asks the system.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Log    zerolog.Logger
}

// Exporter is the flow.Reader that exports. Make it with [New], then Run it.
type Exporter struct {
	c     Config
	codec *codec
	queue *flow.Queue
	lost  atomic.Uint64 // beside those that the queue dropped
	sent  atomic.Uint64
	stop  context.Context // ends when Run shall; set by Run

	// What follows belongs to the goroutine inside the queue's sink.
	link     *link // nil: not connected
	sequence uint32
	refresh  time.Time // when templates are due again
	failures int       // to connect, in a row
	complain time.Time // when a failure may be told again
	msg      message
	record   []byte
}

// New returns an exporter. Nothing is dialled before Run.
func New(c Config) (*Exporter, error) {
	c.TemplateRefresh = cmp.Or(c.TemplateRefresh, defaultRefresh)
	c.Enterprise = cmp.Or(c.Enterprise, DocumentationEnterprise)
	c.MTU = cmp.Or(c.MTU, DefaultMTU)
	c.Queue = cmp.Or(c.Queue, defaultQueue)
	if c.MTU < MinMTU {
		return nil, fmt.Errorf("an MTU of %d octets has no room for a record, want at least %d", c.MTU, MinMTU)
	}
	room := tcpRoom
	if c.Collector.Network == "udp" {
		room = min(c.MTU, 65_535) - datagramHeaders
	}
	x := &Exporter{
		c: c, codec: newCodec(c.Enterprise), stop: context.Background(),
		msg: message{domain: c.Domain, room: room},
	}
	x.queue = flow.NewQueue(c.Queue, flow.Drop, x.export, nil)
	return x, nil
}

// Observe implements [flow.Reader]. It never waits.
func (x *Exporter) Observe(e flow.Event) {
	if e.Kind == flow.Closed || e.Kind == flow.Denied {
		x.queue.Observe(e)
	}
}

// Dropped returns how many flows were not exported, since the start: because
// the queue was full, or since the collector could not be reached until the
// end.
func (x *Exporter) Dropped() uint64 { return x.queue.Dropped() + x.lost.Load() }

// Sent returns how many flows were handed to the kernel, since the start.
func (x *Exporter) Sent() uint64 { return x.sent.Load() }

// Run connects and exports until ctx ends and what waits was sent, or could
// not be for [flow.DefaultDrain]. A collector that is not there is no error:
// it is told on the log and counted. Call it once.
func (x *Exporter) Run(ctx context.Context) error {
	x.stop = ctx
	x.connect() //nolint:contextcheck // at once, so that a wrong name is told at the start; it goes by x.stop
	err := x.queue.Run(ctx)
	if err == nil { // or the sink's goroutine still has it
		x.disconnect()
	}
	if n := x.Dropped(); n > 0 {
		x.c.Log.Warn().Stringer("collector", x.c.Collector).Uint64(logging.FieldDropped, n).Msg("flows were not exported")
	}
	return nil
}

// export is the queue's sink: it adds one record to the message, and sends it
// when nothing else waits.
func (x *Exporter) export(e *flow.Event) {
	if !x.add(e) {
		x.flush()
		if !x.add(e) {
			x.lost.Add(1) // no string is left to be cut: a fault of ours
		}
	}
	if x.queue.Len() == 0 {
		runtime.Gosched() // connections that are about to end share the message
	}
	if x.queue.Len() == 0 {
		x.flush()
	}
}

// add puts e into the message under construction. A record that would be too
// long for a whole message has its strings cut shorter until it fits.
func (x *Exporter) add(e *flow.Event) bool {
	for limit := limitText; limit >= 8; limit /= 2 {
		var id uint16
		id, x.record = x.codec.appendRecord(x.record[:0], e, limit)
		if x.msg.add(id, x.record, true) {
			return true
		}
		if headerLength+setHeader+len(x.record) <= x.msg.room {
			return false // it fits an empty one
		}
	}
	return false
}

// flush sends the message under construction, on a new connection if need be.
func (x *Exporter) flush() {
	records := x.msg.records
	if records == 0 {
		return
	}
	defer x.msg.reset()
	for {
		if !x.connect() {
			x.lost.Add(uint64(records))
			return
		}
		err := x.link.write(x.stop, x.msg.bytes(time.Now(), x.sequence))
		if err == nil {
			x.sequence += records
			x.sent.Add(uint64(records))
			return
		}
		// A message that was not written whole is none to the collector.
		x.failed(err)
	}
}

// announce sends the templates and what they need.
func (x *Exporter) announce() error {
	m := message{domain: x.c.Domain, room: x.msg.room}
	send := func() error {
		defer m.reset()
		if m.empty() {
			return nil
		}
		err := x.link.write(x.stop, m.bytes(time.Now(), x.sequence))
		if err == nil {
			x.sequence += m.records
		}
		return err
	}
	for _, a := range x.codec.announcements() {
		if m.add(a.set, a.bytes, a.data) {
			continue
		}
		if err := send(); err != nil {
			return err
		}
		m.add(a.set, a.bytes, a.data)
	}
	return send()
}
