package ipfix

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/logging"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// DocumentationEnterprise is the private enterprise number that RFC 5612
// keeps for documentation.
const DocumentationEnterprise = 32473

// reverseEnterprise marks an element as that of the reverse direction
// (RFC 5103, section 6.1).
const reverseEnterprise = 29305

// dataType is an abstract data type as RFC 5610, section 3.1, numbers them.
type dataType uint8

const (
	typeUnsigned8  dataType = 1
	typeUnsigned16 dataType = 2
	typeUnsigned32 dataType = 3
	typeUnsigned64 dataType = 4
	typeBoolean    dataType = 11
	typeString     dataType = 13
	typeMillis     dataType = 15 // dateTimeMilliseconds
	typeIPv4       dataType = 18
	typeIPv6       dataType = 19
)

// Semantics and units, as RFC 5610, sections 3.6 and 3.8, number them.
const (
	semanticsDefault    = 0
	semanticsQuantity   = 1
	semanticsTotal      = 2
	semanticsIdentifier = 4

	unitsNone         = 0
	unitsPackets      = 3
	unitsMicroseconds = 7
)

// variable is the length of a field whose records tell it (RFC 7011, section 7).
const variable = 0xffff

// length is the octets of a field of this type in a template.
func (t dataType) length() uint16 {
	switch t {
	case typeUnsigned8, typeBoolean:
		return 1
	case typeUnsigned16:
		return 2
	case typeUnsigned32, typeIPv4:
		return 4
	case typeUnsigned64, typeMillis:
		return 8
	case typeIPv6:
		return 16
	case typeString:
	}
	return variable
}

// whose says to whom an element's number belongs.
type whose uint8

const (
	iana    whose = iota // the registry of RFC 7012
	reverse              // the same, of the other direction
	own                  // the enterprise's
)

// element is one field of a flow record.
type element struct {
	id    uint16
	whose whose
	kind  dataType
	// put appends the field of a record, of the length that kind says.
	put func(dst []byte, r *record) []byte

	// What is announced of the enterprise's own.
	name, about      string
	semantics, units uint8
}

// Element describes one of the enterprise's information elements.
type Element struct {
	ID          uint16
	Name        string // as announced by RFC 5610
	Description string
}

// Elements returns the enterprise's information elements, by number.
func Elements() []Element {
	var all []Element
	for _, e := range ownElements() {
		all = append(all, Element{ID: e.id, Name: e.name, Description: e.about})
	}
	return all
}

// flowElements are the fields of a flow record of the family, with or without
// a destination address, in their order.
func flowElements(v6, destination bool) []element {
	src, dst, kind := uint16(8), uint16(12), typeIPv4
	if v6 {
		src, dst, kind = 27, 28, typeIPv6
	}
	all := []element{
		{id: 152, kind: typeMillis, put: func(b []byte, r *record) []byte { return appendMillis(b, r.Start) }},
		{id: 153, kind: typeMillis, put: func(b []byte, r *record) []byte { return appendMillis(b, r.end()) }},
		{id: src, kind: kind, put: func(b []byte, r *record) []byte { return appendAddr(b, r.Client.Addr(), v6) }},
		{id: 7, kind: typeUnsigned16, put: func(b []byte, r *record) []byte { return appendUint16(b, r.Client.Port()) }},
		{id: dst, kind: kind, put: func(b []byte, r *record) []byte { return appendAddr(b, r.destination(), v6) }},
		{id: 11, kind: typeUnsigned16, put: func(b []byte, r *record) []byte { return appendUint16(b, r.port()) }},
		{id: 4, kind: typeUnsigned8, put: func(b []byte, r *record) []byte { return append(b, r.protocol()) }},
		{id: 1, kind: typeUnsigned64, put: func(b []byte, r *record) []byte { return appendCount(b, r.BytesSent) }},
		{id: 1, whose: reverse, kind: typeUnsigned64, put: func(b []byte, r *record) []byte { return appendCount(b, r.BytesReceived) }},
		{id: 136, kind: typeUnsigned8, put: func(b []byte, r *record) []byte { return append(b, r.endReason()) }},
		{id: 89, kind: typeUnsigned8, put: func(b []byte, r *record) []byte { return append(b, r.forwarding()) }},
		{id: 239, kind: typeUnsigned8, put: func(b []byte, _ *record) []byte { return append(b, 1) }}, // the source is the initiator
		{id: 96, kind: typeString, put: func(b []byte, r *record) []byte { return r.text(b, r.application()) }},
		{id: 459, kind: typeString, put: func(b []byte, r *record) []byte { return r.text(b, r.HTTP.Method) }},
		{id: 457, kind: typeUnsigned16, put: func(b []byte, r *record) []byte { return appendUint16(b, clamp16(r.HTTP.Status)) }},
		{id: 371, kind: typeString, put: func(b []byte, r *record) []byte { return r.text(b, r.Principal) }},
	}
	if !destination {
		all = slices.DeleteFunc(all, func(e element) bool { return e.id == dst })
	}
	return append(all, ownElements()...)
}

// ownElements are the enterprise's, by number. Numbers are never used again.
func ownElements() []element {
	words := func(id uint16, name, about string, get func(*record) string) element {
		return element{
			id: id, whose: own, kind: typeString, name: "sallyport" + name, about: about,
			put: func(b []byte, r *record) []byte { return r.text(b, get(r)) },
		}
	}
	number := func(id uint16, name, about string, semantics, units uint8, get func(*record) uint32) element {
		return element{
			id: id, whose: own, kind: typeUnsigned32, name: "sallyport" + name, about: about, semantics: semantics, units: units,
			put: func(b []byte, r *record) []byte { return binary.BigEndian.AppendUint32(b, get(r)) },
		}
	}
	return []element{
		words(1, "FlowId", "the attempt's ULID, as in the flow log", func(r *record) string { return r.ID }),
		words(2, "Host", "name or address asked for", func(r *record) string { return r.Host }),
		words(3, "TlsServerName", "server_name of the ClientHello", func(r *record) string { return r.TLS.ServerName }),
		words(4, "Verdict", "allow or deny", func(r *record) string { return r.Verdict.String() }),
		words(5, "Mode", "enforce or report", func(r *record) string { return r.Mode.String() }),
		{
			id: 6, whose: own, kind: typeBoolean, name: "sallyportWouldDeny", about: "let through by report mode only",
			put: func(b []byte, r *record) []byte { return appendTruth(b, r.WouldDeny) },
		},
		words(7, "Reason", "why the verdict", func(r *record) string { return string(r.Reason) }),
		words(8, "Outcome", "how the attempt ended", func(r *record) string { return string(r.Outcome) }),
		words(9, "EndedBy", "who ended an allowed attempt", func(r *record) string { return string(r.EndedBy) }),
		words(10, "Rule", "the rule that decided", func(r *record) string { return r.Rule }),
		words(11, "PolicyVersion", "the policy that decided", func(r *record) string { return r.PolicyVersion }),
		words(12, "Source", "the policy's name for the caller", func(r *record) string { return r.Source }),
		words(13, "Via", "how the name was learned", func(r *record) string { return r.Via.String() }),
		words(14, "EcsCluster", "the calling task's cluster", func(r *record) string { return r.task().Cluster }),
		words(15, "EcsService", "the calling task's service", func(r *record) string { return r.task().Service }),
		words(16, "EcsFamily", "the calling task's task definition", func(r *record) string { return r.task().Family }),
		number(17, "EcsRevision", "revision of that task definition", semanticsIdentifier, unitsNone, func(r *record) uint32 { return clamp32(r.task().Revision) }),
		words(18, "EcsTaskArn", "the calling task's ARN", func(r *record) string { return r.task().ARN }),
		words(19, "S3Bucket", "bucket that the host or request names", func(r *record) string { return r.S3.Bucket }),
		words(20, "S3Operation", "operation of an inspected request", func(r *record) string { return r.S3Call.Operation }),
		words(21, "OriginalDestination", "where a transparent client meant to go", func(r *record) string { return r.original() }),
		number(22, "ClientRttMicroseconds", "smoothed, of the client's connection", semanticsQuantity, unitsMicroseconds, func(r *record) uint32 { return micros(r.ClientTCP.RTT) }),
		number(23, "OriginRttMicroseconds", "smoothed, of the origin's connection", semanticsQuantity, unitsMicroseconds, func(r *record) uint32 { return micros(r.OriginTCP.RTT) }),
		number(24, "OriginRetransmits", "segments sent again to the origin", semanticsTotal, unitsPackets, func(r *record) uint32 { return r.OriginTCP.Retransmits }),
	}
}

// limitText bounds a string, in octets after escaping.
const limitText = 512

// record is a flow record on its way into a data record.
type record struct {
	*flow.Record
	denied bool
	limit  int // octets that a string may take
}

// text appends a string in the form of section 7, escaped as in the flow log.
func (r *record) text(dst []byte, s string) []byte {
	return appendVariable(dst, logging.Clean(s, min(r.limit, limitText)))
}

// appendVariable appends a field of variable length, of at most 65,535 octets.
func appendVariable(dst []byte, s string) []byte {
	if len(s) < 255 {
		dst = append(dst, byte(len(s)))
	} else {
		dst = append(dst, 255)
		dst = binary.BigEndian.AppendUint16(dst, clamp16(len(s)))
	}
	return append(dst, s...)
}

func (r *record) end() time.Time {
	if r.End.IsZero() {
		return r.Start
	}
	return r.End
}

func (r *record) task() policy.Task {
	if r.Task == nil {
		return policy.Task{}
	}
	return *r.Task
}

func (r *record) original() string {
	if !r.Original.IsValid() {
		return ""
	}
	return r.Original.String()
}

// destination is the address dialled or asked for, invalid for none.
func (r *record) destination() netip.Addr {
	if r.Peer.IsValid() {
		return r.Peer.Addr().Unmap()
	}
	a, err := netip.ParseAddr(r.Host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func (r *record) port() uint16 {
	if r.Peer.IsValid() {
		return r.Peer.Port()
	}
	return r.Port
}

// protocol is IP's number for the transport.
func (r *record) protocol() byte {
	if r.Datagram {
		return 17
	}
	return 6
}

func (r *record) application() string {
	switch {
	case r.Via == policy.ViaDNS:
		return "dns"
	case r.Via == policy.ViaTLS, r.TLS.Version != "":
		return "tls"
	case r.Via == policy.ViaHTTP:
		return "http"
	}
	return ""
}

// endReason is IANA's flowEndReason.
func (r *record) endReason() byte {
	const idle, detected, forced, resources = 1, 3, 4, 5
	switch {
	case r.denied && r.Reason == policy.ReasonLimit:
		return resources
	case r.denied, r.EndedBy == flow.EndedByDrain, r.EndedBy == flow.EndedByPolicy:
		return forced
	case r.EndedBy == flow.EndedByIdle:
		return idle
	}
	return detected
}

// forwarding is IANA's forwardingStatus: its upper two bits say forwarded or
// dropped, the rest why.
func (r *record) forwarding() byte {
	const forwarded, dropped, denied, unroutable, policed = 64, 128, 129, 131, 138
	switch {
	case r.denied && r.Reason == policy.ReasonLimit:
		return policed
	case r.denied:
		return denied
	}
	switch r.Outcome { // every other one happened after bytes could flow
	case flow.OutcomeDestinationUnroutable:
		return unroutable
	case flow.OutcomeDNSError, flow.OutcomeDNSTimeout, flow.OutcomeDestinationUnavailable,
		flow.OutcomeConnectionRefused, flow.OutcomeConnectionTimeout:
		return dropped
	}
	return forwarded
}

func appendUint16(dst []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(dst, n) }

// appendCount appends a counter; one below zero is a fault of ours.
func appendCount(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(max(n, 0)))
}

func appendMillis(dst []byte, t time.Time) []byte { return appendCount(dst, t.UnixMilli()) }

// appendTruth appends RFC 7011's boolean, 1 for true and 2 for false.
func appendTruth(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 2)
}

// appendAddr appends an address; one that is not known is the unspecified one.
func appendAddr(dst []byte, a netip.Addr, v6 bool) []byte {
	switch {
	case !v6 && a.Unmap().Is4():
		b := a.Unmap().As4()
		return append(dst, b[:]...)
	case !v6:
		return append(dst, 0, 0, 0, 0)
	case a.IsValid():
		b := a.As16()
		return append(dst, b[:]...)
	}
	return append(dst, make([]byte, 16)...)
}

func clamp16(n int) uint16 { return uint16(min(max(n, 0), 0xffff)) }

func clamp32(n int) uint32 { return uint32(min(max(n, 0), 0xffff_ffff)) }

func micros(d time.Duration) uint32 { return clamp32(int(d.Microseconds())) }

// String names the element for people.
func (e Element) String() string { return strconv.Itoa(int(e.ID)) + " " + e.Name }
