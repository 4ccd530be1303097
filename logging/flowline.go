package logging

import (
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The bounds of strings in a flow line, in bytes after escaping. They are the
// maxLength of flow.schema.json.
const (
	limitName   = 255 // host names, SNI, rule, owner, source, names of ECS
	limitARN    = 512
	limitPath   = 512
	limitKey    = 1024 // of an object in S3, its longest
	limitError  = 512
	limitMethod = 32
	limitALPN   = 32 // one protocol
	maxALPN     = 8  // protocols
)

// AppendFlow appends the flow log's line for e, with its line feed, to dst. The
// line is valid by [FlowSchema], printable ASCII, and of bounded length.
//
// A line's time is when its event happened: Start for flow.open, End for the
// others, Last for an anomaly.
func AppendFlow(dst []byte, e *flow.Event) []byte {
	out := lineBuffer{line: dst}
	log := zerolog.New(guard{w: &out, escape: appendASCIIJSON})
	r := &e.Record
	switch e.Kind {
	case flow.Opened:
		line(log.Info(), e, r.Start).Msg("flow opened")
	case flow.Closed:
		line(log.Info(), e, r.End).Msg("flow closed")
	case flow.Denied:
		line(log.Warn(), e, r.End).Msg("flow denied")
	case flow.Found:
		anomalyLine(log.Warn(), e.Anomaly).Msg("anomaly found")
	}
	return out.line
}

// lineBuffer collects what zerolog writes.
type lineBuffer struct{ line []byte }

// Write implements [io.Writer].
func (b *lineBuffer) Write(p []byte) (int, error) {
	b.line = append(b.line, p...)
	return len(p), nil
}

// line builds the whole line. Every nested object is opened exactly once:
// zerolog writes a name as often as it is told to, and a JSON reader keeps
// only the last.
func line(l *zerolog.Event, e *flow.Event, at time.Time) *zerolog.Event {
	r := &e.Record
	if at.IsZero() {
		at = r.Start
	}
	l.Str(FieldTime, at.UTC().Format(timeLayout))
	l.Dict("event", l.CreateDict().Str("name", "flow."+e.Kind.String()))
	if r.Client.IsValid() {
		l.Dict("client", address(l.CreateDict(), r.Client))
	}
	addUser(l, r)
	addServer(l, r)
	addNetwork(l, r)
	addTLS(l, &r.TLS)
	addHTTP(l, e)
	addAWS(l, r)
	if r.Rule != "" {
		l.Dict("rule", label(l.CreateDict(), "name", r.Rule))
	}
	addError(l, e)
	l.Dict("sallyport", own(l.CreateDict(), e))
	return l
}

// text adds a string that a client may have written, unless it is empty.
func text(d *zerolog.Event, key, value string, limit int) *zerolog.Event {
	if value == "" {
		return d
	}
	return d.Str(key, clean(value, limit))
}

// label adds a word of the operator's, unless it is empty.
func label(d *zerolog.Event, key, value string) *zerolog.Event {
	if value == "" {
		return d
	}
	return d.Str(key, legible(value, limitName))
}

func address(d *zerolog.Event, a netip.AddrPort) *zerolog.Event {
	return text(d, "address", a.Addr().Unmap().String(), limitName).Uint16("port", a.Port())
}

func addServer(l *zerolog.Event, r *flow.Record) {
	if r.Host == "" && r.Port == 0 {
		return
	}
	d := text(l.CreateDict(), "address", r.Host, limitName)
	if r.Port != 0 {
		d.Uint16("port", r.Port)
	}
	l.Dict("server", d)
}

func addNetwork(l *zerolog.Event, r *flow.Record) {
	transport := "tcp"
	if r.Datagram {
		transport = "udp"
	}
	d := l.CreateDict().Str("transport", transport)
	switch {
	case r.Via == policy.ViaDNS:
		d.Dict("protocol", d.CreateDict().Str("name", "dns"))
	case r.Via == policy.ViaTLS, r.TLS.Version != "":
		d.Dict("protocol", d.CreateDict().Str("name", "tls"))
	case r.Via == policy.ViaHTTP:
		d.Dict("protocol", d.CreateDict().Str("name", "http"))
	}
	if r.Peer.IsValid() {
		d.Dict("peer", address(d.CreateDict(), r.Peer))
	}
	l.Dict("network", d)
}

// addTLS tells what the client offered, hence tls.client: what was agreed on
// is between it and the origin.
func addTLS(l *zerolog.Event, t *flow.TLS) {
	if t.Version == "" && t.ServerName == "" && len(t.ALPN) == 0 && !t.ECH {
		return
	}
	d := text(l.CreateDict(), "server_name", t.ServerName, limitName)
	text(d, "version", t.Version, limitMethod)
	if len(t.ALPN) > 0 {
		alpn := d.CreateArray()
		for _, p := range t.ALPN[:min(len(t.ALPN), maxALPN)] {
			alpn.Str(clean(p, limitALPN))
		}
		d.Array("alpn", alpn)
	}
	d.Bool("ech", t.ECH)
	l.Dict("tls", l.CreateDict().Dict("client", d))
}

// addHTTP tells the response only of an attempt that ended: before that its
// status may not be the last word.
func addHTTP(l *zerolog.Event, e *flow.Event) {
	h := e.Record.HTTP
	if e.Kind == flow.Opened {
		h.Status = 0
	}
	if h.Method != "" || h.Status != 0 {
		d := l.CreateDict()
		if h.Method != "" {
			d.Dict("request", text(d.CreateDict(), "method", h.Method, limitMethod))
		}
		if h.Status != 0 {
			d.Dict("response", d.CreateDict().Int("status_code", h.Status))
		}
		l.Dict("http", d)
	}
	if h.Path != "" {
		l.Dict("url", text(l.CreateDict(), "path", h.Path, limitPath))
	}
}

// addS3 adds what the host's name says of S3, and the request where it was
// seen.
func addS3(d *zerolog.Event, r *flow.Record) *zerolog.Event {
	d.Str("form", string(r.S3.Form))
	text(d, "bucket", r.S3.Bucket, limitName)
	text(d, "access_point", r.S3.AccessPoint, limitName)
	text(d, "account", r.S3.Account, limitName)
	text(d, "region", r.S3.Region, limitName)
	text(d, "partition", r.S3.Partition, limitName)
	addS3Call(d, &r.S3Call)
	return d
}

// addS3Call adds what an inspected request asks of S3.
func addS3Call(d *zerolog.Event, c *flow.S3Call) {
	if *c == (flow.S3Call{}) {
		return
	}
	text(d, "operation", c.Operation, limitName)
	text(d, "key", c.Key, limitKey)
	text(d, "source_bucket", c.SourceBucket, limitName)
	signer := text(d.CreateDict(), "scheme", string(c.Scheme), limitName)
	d.Dict("signer", text(signer, "account", c.Account, limitName))
}

func addError(l *zerolog.Event, e *flow.Event) {
	r := &e.Record
	if e.Kind == flow.Opened || r.Outcome == flow.OutcomeOK || r.Outcome == "" {
		return
	}
	d := l.CreateDict().Str("type", string(r.Outcome))
	if r.Error != "" {
		d.Str("message", sentence(r.Error, limitError))
	}
	l.Dict("error", d)
}

// own builds the fields that no convention knows.
func own(d *zerolog.Event, e *flow.Event) *zerolog.Event {
	r := &e.Record
	d.Int("schema", schemaVersion)
	text(d, FieldFlowID, r.ID, limitName)
	d.Str("verdict", r.Verdict.String()).Str("mode", r.Mode.String()).Bool("would_deny", r.WouldDeny)
	text(d, "reason", string(r.Reason), limitName)
	d.Str("via", r.Via.String())
	text(d, "enforcement", r.Enforcement(), limitName)
	label(d, "source", r.Source)
	text(d, "vpc_endpoint", r.VPCEndpoint, limitName)
	label(d, "owner", r.Owner)
	label(d, FieldPolicy, r.PolicyVersion)
	if r.Listener.IsValid() {
		d.Str(FieldListener, r.Listener.String())
	}
	if r.Original.IsValid() {
		text(d, "original", r.Original.String(), limitName)
	}
	if e.Kind != flow.Opened {
		text(d, "outcome", string(r.Outcome), limitName)
		text(d, "ended_by", string(r.EndedBy), limitName)
		d.Int64("bytes_sent", r.BytesSent).Int64("bytes_received", r.BytesReceived)
		d.Float64("duration_ms", millis(r.Duration()))
	}
	addTimes(d, &r.Times)
	addTCP(d, r)
	return d
}

func addTimes(l *zerolog.Event, t *flow.Times) {
	if *t == (flow.Times{}) {
		return
	}
	d := l.CreateDict()
	stage := func(key string, took time.Duration) {
		if took > 0 {
			d.Float64(key, millis(took))
		}
	}
	stage("hello_ms", t.Hello)
	stage("resolve_ms", t.Resolve)
	stage("dial_ms", t.Dial)
	stage("first_byte_ms", t.FirstByte)
	l.Dict("times", d)
}

func addTCP(l *zerolog.Event, r *flow.Record) {
	if r.ClientTCP == (flow.TCP{}) && r.OriginTCP == (flow.TCP{}) {
		return
	}
	d := l.CreateDict()
	side := func(key string, t flow.TCP) {
		if t == (flow.TCP{}) {
			return
		}
		d.Dict(key, d.CreateDict().
			Int64("rtt_us", t.RTT.Microseconds()).
			Int64("min_rtt_us", t.MinRTT.Microseconds()).
			Uint32("retransmits", t.Retransmits))
	}
	side("client", r.ClientTCP)
	side("origin", r.OriginTCP)
	l.Dict("tcp", d)
}

// millis is d in milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
