package ipfix

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/netsampler/goflow2/v2/decoders/netflow"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// collector decodes messages with goflow2, another implementation.
type collector struct {
	tb        testing.TB
	templates netflow.NetFlowTemplateSystem
	names     map[string]string // "PEN/id" to the name announced
	flows     []map[string]any
	announced int
	sequence  *uint32 // of the next message; nil before the first
}

func newCollector(tb testing.TB) *collector {
	return &collector{tb: tb, templates: netflow.CreateTemplateSystem(), names: map[string]string{}}
}

// take decodes one message and holds it to its own header.
func (c *collector) take(msg []byte) {
	c.tb.Helper()
	var packet netflow.IPFIXPacket
	if err := netflow.DecodeMessageVersion(bytes.NewBuffer(msg), c.templates, nil, &packet); err != nil {
		c.tb.Fatalf("goflow2: %v", err)
	}
	if int(packet.Length) != len(msg) || packet.ObservationDomainId != 7 {
		c.tb.Fatalf("length %d and domain %d in a message of %d octets", packet.Length, packet.ObservationDomainId, len(msg))
	}
	if c.sequence != nil && packet.SequenceNumber != *c.sequence {
		c.tb.Fatalf("sequence %d, want %d", packet.SequenceNumber, *c.sequence)
	}
	next := packet.SequenceNumber
	for _, set := range packet.FlowSets {
		switch s := set.(type) {
		case netflow.OptionsDataFlowSet:
			for _, r := range s.Records {
				c.announce(r)
				next++
			}
		case netflow.DataFlowSet:
			for _, r := range s.Records {
				c.flows = append(c.flows, c.flow(r))
				next++
			}
		case netflow.TemplateFlowSet, netflow.IPFIXOptionsTemplateFlowSet:
			c.announced++
		default:
			c.tb.Fatalf("a set of type %T", set)
		}
	}
	c.sequence = &next
}

func (c *collector) announce(r netflow.OptionsDataRecord) {
	c.tb.Helper()
	value := func(i int) []byte { return r.OptionsValues[i].Value.([]byte) }
	pen, id := binary.BigEndian.Uint32(r.ScopesValues[0].Value.([]byte)), binary.BigEndian.Uint16(r.ScopesValues[1].Value.([]byte))
	c.names[fmt.Sprintf("%d/%d", pen, id)] = string(value(3))
	if len(value(4)) == 0 {
		c.tb.Errorf("%s has no description", value(3))
	}
}

// flow names the fields of a data record: IANA's by number, reversed ones with
// a minus, ours as they were announced.
func (c *collector) flow(r netflow.DataRecord) map[string]any {
	c.tb.Helper()
	out := map[string]any{}
	for _, f := range r.Values {
		b := f.Value.([]byte)
		switch {
		case f.PenProvided && f.Pen == reverseEnterprise:
			out[fmt.Sprintf("-%d", f.Type)] = number(b)
		case f.PenProvided:
			name := c.names[fmt.Sprintf("%d/%d", f.Pen, f.Type)]
			switch {
			case name == "":
				c.tb.Fatalf("element %d/%d was never announced", f.Pen, f.Type)
			case strings.HasSuffix(name, "Microseconds"), name == "sallyportEcsRevision", name == "sallyportOriginRetransmits", name == "sallyportWouldDeny":
				out[name] = number(b)
			default:
				out[name] = string(b)
			}
		default:
			key := fmt.Sprint(f.Type)
			switch f.Type {
			case 8, 12, 27, 28:
				a, _ := netip.AddrFromSlice(b)
				out[key] = a.String()
			case 96, 459, 371:
				out[key] = string(b)
			default:
				out[key] = number(b)
			}
		}
	}
	return out
}

func number(b []byte) uint64 {
	var n uint64
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

func base() flow.Record {
	start := time.Date(2026, 11, 23, 8, 30, 0, 123_000_000, time.UTC)
	return flow.Record{
		ID: "01KARN7WS3Q8Z4V6X2Y0T1B5CD", Start: start, End: start.Add(1500 * time.Millisecond),
		Via: policy.ViaConnect, Client: netip.MustParseAddrPort("10.0.16.9:40312"), Source: "payments", Principal: "pay",
		Host: "acme-prod.s3.us-east-1.amazonaws.com", Port: 443, Peer: netip.MustParseAddrPort("203.0.113.7:443"),
		TLS:      flow.TLS{ServerName: "acme-prod.s3.us-east-1.amazonaws.com", Version: "1.3"},
		HTTP:     flow.HTTP{Method: "CONNECT", Status: 200},
		S3:       policy.S3Ref{Form: "virtual_hosted", Bucket: "acme-prod"},
		S3Call:   flow.S3Call{Operation: "GetObject"},
		Original: netip.MustParseAddrPort("198.51.100.4:443"),
		Task: &policy.Task{
			ARN: "arn:aws:ecs:us-east-1:111122223333:task/prod/0f1e2d3c", Cluster: "prod", Service: "payments-api", Family: "payments", Revision: 12,
		},
		Verdict: policy.Allow, Reason: policy.ReasonRule, Rule: "app-data", PolicyVersion: "sha256:0a1b2c", Outcome: flow.OutcomeOK,
		BytesSent: 4096, BytesReceived: 1 << 33,
		ClientTCP: flow.TCP{RTT: 350 * time.Microsecond}, OriginTCP: flow.TCP{RTT: 11 * time.Millisecond, Retransmits: 3},
	}
}

// decode sends events through the codec and one message each.
func decode(tb testing.TB, events ...flow.Event) []map[string]any {
	tb.Helper()
	c := newCollector(tb)
	x, err := New(Config{Domain: 7})
	if err != nil {
		tb.Fatal(err)
	}
	m := &message{domain: 7, room: tcpRoom}
	var sequence uint32
	for _, a := range x.codec.announcements() {
		m.add(a.set, a.bytes, a.data)
	}
	for _, e := range events {
		c.take(m.bytes(e.Record.Start, sequence))
		sequence += m.records
		m.reset()
		id, b := x.codec.appendRecord(nil, &e, limitText)
		if !m.add(id, b, true) {
			tb.Fatalf("a record of %d octets does not fit", len(b))
		}
	}
	c.take(m.bytes(time.Unix(0, 0), sequence))
	return c.flows
}

func TestRecords(t *testing.T) {
	start := uint64(base().Start.UnixMilli())
	full := map[string]any{
		"152": start, "153": start + 1500, "8": "10.0.16.9", "7": uint64(40312), "12": "203.0.113.7", "11": uint64(443),
		"4": uint64(6), "1": uint64(4096), "-1": uint64(1 << 33), "136": uint64(3), "89": uint64(64), "239": uint64(1),
		"96": "tls", "459": "CONNECT", "457": uint64(200), "371": "pay",
		"sallyportFlowId": "01KARN7WS3Q8Z4V6X2Y0T1B5CD", "sallyportHost": "acme-prod.s3.us-east-1.amazonaws.com",
		"sallyportTlsServerName": "acme-prod.s3.us-east-1.amazonaws.com", "sallyportVerdict": "allow", "sallyportMode": "enforce",
		"sallyportWouldDeny": uint64(2), "sallyportReason": "rule", "sallyportOutcome": "ok", "sallyportEndedBy": "", "sallyportRule": "app-data",
		"sallyportPolicyVersion": "sha256:0a1b2c", "sallyportSource": "payments", "sallyportVia": "connect", "sallyportEcsCluster": "prod",
		"sallyportEcsService": "payments-api", "sallyportEcsFamily": "payments", "sallyportEcsRevision": uint64(12),
		"sallyportEcsTaskArn": "arn:aws:ecs:us-east-1:111122223333:task/prod/0f1e2d3c", "sallyportS3Bucket": "acme-prod",
		"sallyportS3Operation": "GetObject", "sallyportOriginalDestination": "198.51.100.4:443",
		"sallyportClientRttMicroseconds": uint64(350), "sallyportOriginRttMicroseconds": uint64(11000), "sallyportOriginRetransmits": uint64(3),
	}
	gone := []string{"8", "12"}
	tests := []struct {
		name   string
		kind   flow.Kind
		change func(*flow.Record)
		want   map[string]any // beside full
		absent []string
	}{
		{name: "an allowed tunnel", kind: flow.Closed},
		{
			name: "IPv6 both ways", kind: flow.Closed, absent: gone,
			change: func(r *flow.Record) {
				r.Client, r.Peer = netip.MustParseAddrPort("[2001:db8::9]:1024"), netip.MustParseAddrPort("[2001:db8::7]:8443")
			},
			want: map[string]any{"27": "2001:db8::9", "28": "2001:db8::7", "7": uint64(1024), "11": uint64(8443)},
		},
		{
			name: "IPv4 client, IPv6 origin", kind: flow.Closed, absent: gone,
			change: func(r *flow.Record) { r.Peer = netip.MustParseAddrPort("[2001:db8::7]:443") },
			want:   map[string]any{"27": "::ffff:10.0.16.9", "28": "2001:db8::7"},
		},
		{
			name: "mapped addresses are IPv4", kind: flow.Closed,
			change: func(r *flow.Record) { r.Client = netip.MustParseAddrPort("[::ffff:10.0.16.9]:40312") },
		},
		{
			name: "denied by name", kind: flow.Denied, absent: []string{"12"},
			change: func(r *flow.Record) {
				r.Peer, r.Verdict, r.Reason, r.Outcome, r.Rule = netip.AddrPort{}, policy.Deny, policy.ReasonNoRule, "no_rule", ""
				r.BytesSent, r.BytesReceived = 0, 0
			},
			want: map[string]any{
				"89": uint64(129), "136": uint64(4), "1": uint64(0), "-1": uint64(0), "sallyportVerdict": "deny",
				"sallyportReason": "no_rule", "sallyportOutcome": "no_rule", "sallyportRule": "",
			},
		},
		{
			name: "denied by address", kind: flow.Denied,
			change: func(r *flow.Record) {
				r.Peer, r.Host, r.Reason = netip.AddrPort{}, "198.51.100.4", policy.ReasonIPLiteral
			},
			want: map[string]any{"12": "198.51.100.4", "sallyportHost": "198.51.100.4", "sallyportReason": "ip_literal", "89": uint64(129), "136": uint64(4)},
		},
		{
			name: "denied IPv6 client", kind: flow.Denied, absent: []string{"8", "12", "28"},
			change: func(r *flow.Record) {
				r.Client, r.Peer, r.Reason = netip.MustParseAddrPort("[2001:db8::9]:40312"), netip.AddrPort{}, policy.ReasonLimit
			},
			want: map[string]any{"27": "2001:db8::9", "sallyportReason": "limit", "89": uint64(138), "136": uint64(5)},
		},
		{
			name: "idle", kind: flow.Closed, change: func(r *flow.Record) { r.EndedBy = flow.EndedByIdle },
			want: map[string]any{"136": uint64(1), "sallyportEndedBy": "idle"},
		},
		{
			name: "cut by a new policy", kind: flow.Closed, change: func(r *flow.Record) { r.EndedBy = flow.EndedByPolicy },
			want: map[string]any{"136": uint64(4), "sallyportEndedBy": "policy"},
		},
		{
			name: "refused by the origin", kind: flow.Closed, change: func(r *flow.Record) { r.Outcome = flow.OutcomeConnectionRefused },
			want: map[string]any{"89": uint64(128), "sallyportOutcome": "connection_refused"},
		},
		{
			name: "let through by report mode", kind: flow.Closed, change: func(r *flow.Record) { r.Mode, r.WouldDeny = policy.Report, true },
			want: map[string]any{"sallyportMode": "report", "sallyportWouldDeny": uint64(1)},
		},
		{
			name: "a question to the DNS server", kind: flow.Closed,
			change: func(r *flow.Record) { r.Via, r.Datagram, r.TLS = policy.ViaDNS, true, flow.TLS{} },
			want:   map[string]any{"4": uint64(17), "96": "dns", "sallyportVia": "dns", "sallyportTlsServerName": ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := flow.Event{Kind: tt.kind, Record: base()}
			if tt.change != nil {
				tt.change(&e.Record)
			}
			want := maps.Clone(full)
			for _, key := range tt.absent {
				delete(want, key)
			}
			maps.Copy(want, tt.want)
			if d := cmp.Diff([]map[string]any{want}, decode(t, e)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNothingKnown(t *testing.T) {
	got := decode(t, flow.Event{Kind: flow.Denied})[0]
	if got["8"] != "0.0.0.0" || got["12"] != nil || got["152"] != uint64(0) {
		t.Errorf("%v", got)
	}
}

// Numbers and names are a contract: collectors are configured with them.
func TestElementsNeverChange(t *testing.T) {
	var got []string
	for _, e := range Elements() {
		got = append(got, e.String())
	}
	want := []string{
		"1 sallyportFlowId", "2 sallyportHost", "3 sallyportTlsServerName", "4 sallyportVerdict", "5 sallyportMode", "6 sallyportWouldDeny",
		"7 sallyportReason", "8 sallyportOutcome", "9 sallyportEndedBy", "10 sallyportRule", "11 sallyportPolicyVersion", "12 sallyportSource",
		"13 sallyportVia", "14 sallyportEcsCluster", "15 sallyportEcsService", "16 sallyportEcsFamily", "17 sallyportEcsRevision",
		"18 sallyportEcsTaskArn", "19 sallyportS3Bucket", "20 sallyportS3Operation", "21 sallyportOriginalDestination",
		"22 sallyportClientRttMicroseconds", "23 sallyportOriginRttMicroseconds", "24 sallyportOriginRetransmits",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Whatever a client wrote, another decoder reads exactly what the flow log
// would say, a datagram stays below the MTU, and a message in its bounds.
func FuzzRecord(f *testing.F) {
	f.Add("api.example.com", "api.example.com", "GET", "rule", "arn:aws:ecs:x:1:task/a/b", 1400)
	f.Add(strings.Repeat("a", 254), strings.Repeat("b", 255), strings.Repeat("c", 256), strings.Repeat("d", 511), strings.Repeat("e", 513), 576)
	f.Add("\x00\xff\r\n\u202e", strings.Repeat("\u202e", 300), "\\", "\xed\xa0\x80", strings.Repeat("\\", 900), 65535)
	f.Fuzz(func(t *testing.T, host, sni, method, rule, arn string, mtu int) {
		x, err := New(Config{Collector: Collector{Network: "udp"}, Domain: 7, MTU: max(MinMTU, min(mtu, 9000))})
		if err != nil {
			t.Fatal(err)
		}
		e := flow.Event{Kind: flow.Closed, Record: base()}
		e.Record.Host, e.Record.TLS.ServerName, e.Record.HTTP.Method, e.Record.Rule = host, sni, method, rule
		e.Record.Task = &policy.Task{ARN: arn, Service: rule, Family: host, Cluster: sni}
		e.Record.Source, e.Record.Principal, e.Record.S3.Bucket = host, sni, rule
		c := newCollector(t)
		m := &message{domain: 7, room: tcpRoom}
		for _, a := range x.codec.announcements() {
			m.add(a.set, a.bytes, a.data)
		}
		c.take(m.bytes(time.Unix(0, 0), 0))
		c.sequence = nil
		if !x.add(&e) {
			t.Fatal("the record does not fit, however short its strings")
		}
		msg := x.msg.bytes(time.Unix(0, 0), 0)
		if len(msg) > x.c.MTU-datagramHeaders {
			t.Fatalf("%d octets for an MTU of %d", len(msg), x.c.MTU)
		}
		c.take(msg)
		got := c.flows[0]
		for _, field := range []struct{ key, in string }{
			{"sallyportHost", host}, {"sallyportTlsServerName", sni}, {"459", method}, {"sallyportRule", rule}, {"sallyportEcsTaskArn", arn},
		} {
			text := got[field.key].(string)
			if !slices.ContainsFunc([]int{512, 256, 128, 64, 32, 16, 8}, func(n int) bool { return text == logging.Clean(field.in, n) }) {
				t.Fatalf("%s is %q for %q", field.key, text, field.in)
			}
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	c := newCodec(DocumentationEnterprise)
	e := flow.Event{Kind: flow.Closed, Record: base()}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		_, buf = c.appendRecord(buf[:0], &e, limitText)
	}
	b.SetBytes(int64(len(buf)))
}

// The forms of a string's length, at their edges (RFC 7011, section 7).
func TestVariableLength(t *testing.T) {
	for _, n := range []int{0, 1, 254, 255, 256, 65_535} {
		b := appendVariable(nil, strings.Repeat("x", n))
		head := []byte{byte(n)}
		if n >= 255 {
			head = []byte{255, byte(n >> 8), byte(n)}
		}
		if !bytes.Equal(b[:len(b)-n], head) {
			t.Errorf("%d octets: head %v, want %v", n, b[:len(b)-n], head)
		}
	}
}

// A record fits a message to the octet, and not beyond.
func TestMessageRoom(t *testing.T) {
	record := make([]byte, 100)
	for _, tt := range []struct {
		room, fit int
	}{
		{headerLength + setHeader + 99, 0},
		{headerLength + setHeader + 100, 1},
		{headerLength + setHeader + 199, 1},
		{headerLength + setHeader + 200, 2},
	} {
		m := &message{room: tt.room}
		got := 0
		for m.add(templateIPv4, record, true) {
			got++
		}
		if got != tt.fit || got > 0 && len(m.bytes(time.Unix(0, 0), 0)) > tt.room {
			t.Errorf("%d records of 100 octets in %d, want %d", got, tt.room, tt.fit)
		}
		if got > 0 && tt.room == headerLength+setHeader+200 && m.add(templateIPv6, nil, true) {
			t.Error("the header of another set fits where nothing does")
		}
	}
}
