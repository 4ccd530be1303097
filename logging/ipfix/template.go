package ipfix

import (
	"encoding/binary"

	"github.com/sallyport/sallyport/logging/flow"
)

// The numbers of our templates.
const (
	templateIPv4      = 256
	templateIPv6      = 257
	templateIPv4NoDst = 258
	templateIPv6NoDst = 259
	templateTypes     = 260 // options: RFC 5610
)

// template is the fields of one kind of flow record.
type template struct {
	id       uint16
	v6       bool
	elements []element
}

// codec turns flow records into data records. It holds nothing but tables and
// is safe for concurrent use.
type codec struct {
	enterprise uint32
	templates  []template
	types      []element // what is announced
}

func newCodec(enterprise uint32) *codec {
	return &codec{
		enterprise: enterprise,
		templates: []template{
			{id: templateIPv4, elements: flowElements(false, true)},
			{id: templateIPv6, v6: true, elements: flowElements(true, true)},
			{id: templateIPv4NoDst, elements: flowElements(false, false)},
			{id: templateIPv6NoDst, v6: true, elements: flowElements(true, false)},
		},
		types: ownElements(),
	}
}

// templateOf returns the template that a record fits.
func (c *codec) templateOf(r *record) *template {
	src, dst := r.Client.Addr().Unmap(), r.destination()
	v6 := src.Is6() || dst.Is6()
	switch {
	case dst.IsValid() && v6:
		return &c.templates[1]
	case dst.IsValid():
		return &c.templates[0]
	case v6:
		return &c.templates[3]
	}
	return &c.templates[2]
}

// appendRecord appends the data record of e with strings of at most limit
// octets, and returns the number of its template.
func (c *codec) appendRecord(dst []byte, e *flow.Event, limit int) (uint16, []byte) {
	r := &record{Record: &e.Record, denied: e.Kind == flow.Denied, limit: limit}
	t := c.templateOf(r)
	for i := range t.elements {
		dst = t.elements[i].put(dst, r)
	}
	return t.id, dst
}

// field appends a field specifier (RFC 7011, section 3.2).
func (c *codec) field(dst []byte, e *element) []byte {
	const enterpriseBit = 1 << 15
	length := e.kind.length()
	switch e.whose {
	case reverse:
		dst = appendUint16(dst, e.id|enterpriseBit)
		return binary.BigEndian.AppendUint32(appendUint16(dst, length), reverseEnterprise)
	case own:
		dst = appendUint16(dst, e.id|enterpriseBit)
		return binary.BigEndian.AppendUint32(appendUint16(dst, length), c.enterprise)
	case iana:
	}
	return appendUint16(appendUint16(dst, e.id), length)
}

// announcement is one record that goes before the flows.
type announcement struct {
	set   uint16
	bytes []byte
	data  bool
}

// announcements returns the templates, and what is said of the enterprise's
// elements, in their order.
func (c *codec) announcements() []announcement {
	var all []announcement
	for _, t := range c.templates {
		b := appendUint16(appendUint16(nil, t.id), clamp16(len(t.elements)))
		for i := range t.elements {
			b = c.field(b, &t.elements[i])
		}
		all = append(all, announcement{set: setTemplates, bytes: b})
	}
	fields := typeElements()
	b := appendUint16(appendUint16(nil, templateTypes), clamp16(len(fields)))
	b = appendUint16(b, typeScopes)
	for i := range fields {
		b = c.field(b, &fields[i])
	}
	all = append(all, announcement{set: setOptions, bytes: b})
	for i := range c.types {
		all = append(all, announcement{set: templateTypes, bytes: c.typeRecord(&c.types[i]), data: true})
	}
	return all
}

// typeScopes is how many of [typeElements] are the scope.
const typeScopes = 2

// typeElements are the fields of RFC 5610's type information, section 3.9.
func typeElements() []element {
	return []element{
		{id: 346, kind: typeUnsigned32}, // privateEnterpriseNumber, scope
		{id: 303, kind: typeUnsigned16}, // informationElementId, scope
		{id: 339, kind: typeUnsigned8},  // informationElementDataType
		{id: 344, kind: typeUnsigned8},  // informationElementSemantics
		{id: 345, kind: typeUnsigned16}, // informationElementUnits
		{id: 341, kind: typeString},     // informationElementName
		{id: 340, kind: typeString},     // informationElementDescription
	}
}

// typeRecord announces one element, in the order of [typeElements].
func (c *codec) typeRecord(e *element) []byte {
	b := binary.BigEndian.AppendUint32(nil, c.enterprise)
	b = appendUint16(b, e.id)
	b = append(b, byte(e.kind), e.semantics)
	b = appendUint16(b, uint16(e.units))
	return appendVariable(appendVariable(b, e.name), e.about)
}
