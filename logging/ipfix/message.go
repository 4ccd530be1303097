package ipfix

import (
	"encoding/binary"
	"time"
)

const (
	version      = 10
	headerLength = 16
	setHeader    = 4

	setTemplates = 2 // RFC 7011, section 3.3.2
	setOptions   = 3
)

// message is one under construction: a header and sets of records, of at most
// room octets.
type message struct {
	domain uint32
	room   int

	buf     []byte // empty, or the message without the header's variable parts
	set     int    // where the open set begins
	setID   uint16
	records uint32 // data records within
}

// add puts a record into the set of that number, and reports whether it fits.
// One that does not is left out.
func (m *message) add(set uint16, record []byte, data bool) bool {
	need := len(record)
	if len(m.buf) == 0 {
		need += headerLength
	}
	if m.setID != set {
		need += setHeader
	}
	if len(m.buf)+need > m.room {
		return false
	}
	if len(m.buf) == 0 {
		m.buf = append(m.buf, make([]byte, headerLength)...)
	}
	if m.setID != set {
		m.set, m.setID = len(m.buf), set
		m.buf = binary.BigEndian.AppendUint16(m.buf, set)
		m.buf = append(m.buf, 0, 0)
	}
	m.buf = append(m.buf, record...)
	binary.BigEndian.PutUint16(m.buf[m.set+2:], clamp16(len(m.buf)-m.set))
	if data {
		m.records++
	}
	return true
}

// bytes returns the whole message: now is when it is exported, sequence how
// many data records went before it in the transport session. It stays valid
// until the next add or reset.
func (m *message) bytes(now time.Time, sequence uint32) []byte {
	binary.BigEndian.PutUint16(m.buf[0:], version)
	binary.BigEndian.PutUint16(m.buf[2:], clamp16(len(m.buf)))
	binary.BigEndian.PutUint32(m.buf[4:], clamp32(int(now.Unix())))
	binary.BigEndian.PutUint32(m.buf[8:], sequence)
	binary.BigEndian.PutUint32(m.buf[12:], m.domain)
	return m.buf
}

func (m *message) empty() bool { return len(m.buf) == 0 }

func (m *message) reset() { m.buf, m.set, m.setID, m.records = m.buf[:0], 0, 0, 0 }
