package proxy

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sallyport/sallyport/policy"
)

// helloFrames collects the records of one ClientHello. Every check runs as
// soon as the bytes it needs are there, in the order of those bytes, so that
// the answer does not depend on how they were cut into segments.
type helloFrames struct {
	buf     []byte // all bytes taken, including any behind the hello
	next    int    // in buf: where the next record begins
	records int    // complete ones
	have    int    // message bytes in them
	want    int    // message length with its header, 0 while unknown
	head    [helloMessageHeader]byte
}

// fill reads once, into a buffer that doubles when it is full. It returns an
// error only when nothing came.
func (f *helloFrames) fill(r io.Reader) error {
	if len(f.buf) == cap(f.buf) {
		grown := make([]byte, len(f.buf), max(min(2*cap(f.buf), helloMaxWire), len(f.buf)+1, sniffSize))
		copy(grown, f.buf)
		f.buf = grown
	}
	const patience = 100 // reads without a byte and without an error, as in bufio
	for range patience {
		n, err := r.Read(f.buf[len(f.buf):cap(f.buf)])
		f.buf = f.buf[:len(f.buf)+n]
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// advance takes in the records that are complete and reports whether the
// hello is.
func (f *helloFrames) advance() (done bool, refusal *helloError) {
	for {
		rest := f.buf[f.next:]
		if refusal := f.checkHeader(rest); refusal != nil {
			return false, refusal
		}
		if len(rest) < helloRecordHeader {
			return false, nil
		}
		end := helloRecordHeader + int(binary.BigEndian.Uint16(rest[3:]))
		if f.records == 0 && len(rest) > helloRecordHeader && rest[helloRecordHeader] != helloMessageType {
			return false, malformed("the first handshake message is of type %d, not a ClientHello", rest[helloRecordHeader])
		}
		if len(rest) < end {
			return false, nil
		}
		if refusal := f.take(rest[helloRecordHeader:end]); refusal != nil {
			return false, refusal
		}
		f.next += end
		if f.have == f.want {
			return true, nil
		}
	}
}

// checkHeader judges as much of a record header as rest holds.
func (f *helloFrames) checkHeader(rest []byte) *helloError {
	if len(rest) > 0 && rest[0] != helloContentType {
		if f.records == 0 {
			return &helloError{reason: policy.ReasonNotTLS, msg: "not TLS: " + firstByte(rest[0])}
		}
		return malformed("a record of type %d interrupts the ClientHello", rest[0])
	}
	if len(rest) > 0 && f.records == helloMaxRecords {
		return malformed("the ClientHello is cut into more than %d records", helloMaxRecords)
	}
	if len(rest) > 1 && rest[1] != versionSSL30>>8 {
		return malformed("a record has version 0x%02x.., not 0x03..", rest[1])
	}
	if len(rest) < helloRecordHeader {
		return nil
	}
	switch n := int(binary.BigEndian.Uint16(rest[3:])); {
	case n == 0:
		return malformed("a handshake record is empty")
	case n > helloMaxFragment:
		return malformed("a record claims %d bytes, more than %d", n, helloMaxFragment)
	case f.want > 0 && f.have+n > f.want:
		return notAlone()
	}
	return nil
}

// take counts a complete record's fragment towards the message.
func (f *helloFrames) take(fragment []byte) *helloError {
	if f.have < helloMessageHeader {
		copy(f.head[f.have:], fragment)
	}
	f.records++
	f.have += len(fragment)
	if f.want == 0 && f.have >= helloMessageHeader {
		f.want = helloMessageHeader + int(binary.BigEndian.Uint32(f.head[:])&0xffffff)
		if f.want > helloMaxMessage {
			return malformed("the ClientHello claims %d bytes, more than %d", f.want, helloMaxMessage)
		}
	}
	if f.want > 0 && f.have > f.want {
		return notAlone()
	}
	return nil
}

// notAlone refuses a message behind the hello in the hello's own record. The
// keys may change there, so RFC 8446, section 5.1, wants a record boundary;
// records of their own (early data, change_cipher_spec) are legal.
func notAlone() *helloError {
	return malformed("the ClientHello does not end where its record ends")
}

// message returns the complete handshake message, a part of buf when it came
// in one record.
func (f *helloFrames) message() []byte {
	if f.records == 1 {
		return f.buf[helloRecordHeader:f.next]
	}
	m := make([]byte, 0, f.want)
	for rest := f.buf[:f.next]; len(rest) > 0; {
		end := helloRecordHeader + int(binary.BigEndian.Uint16(rest[3:]))
		m = append(m, rest[helloRecordHeader:end]...)
		rest = rest[end:]
	}
	return m
}

// firstByte describes the first byte of something that is not TLS.
func firstByte(b byte) string {
	what := ""
	switch {
	case b == 20:
		what = " (a change_cipher_spec record)"
	case b == 21:
		what = " (an alert record)"
	case b == 23:
		what = " (an application data record)"
	case b >= 0x80:
		what = " (an SSLv2-format hello, perhaps)"
	case b >= 'A' && b <= 'Z':
		what = " (text such as HTTP or SSH, perhaps)"
	}
	return fmt.Sprintf("the first byte is 0x%02x%s, where a handshake record has 0x%02x", b, what, helloContentType)
}
