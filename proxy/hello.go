package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/sallyport/sallyport/policy"
)

// The bounds of a ClientHello. Genuine ones take 200 bytes to 17 KB, in one
// to three records; post-quantum key shares make 1.7 KB ordinary.
const (
	helloMaxMessage  = 64 << 10 // the handshake message with its header
	helloMaxRecords  = 512
	helloMaxFragment = 1 << 14 // RFC 8446, section 5.1
	// helloMaxWire is what all that can take on the wire. A buffer never grows
	// beyond it, so a peer that stalls holds less than 128 KiB even at the
	// moment when the buffer is copied into a larger one.
	helloMaxWire = helloMaxMessage + helloMaxRecords*helloRecordHeader
	// helloMaxALPN protocols are kept for the record: a hello of 64 KiB can
	// name thousands.
	helloMaxALPN = 128
)

// Code points of TLS (RFC 8446, sections 4 and 5.1).
const (
	helloRecordHeader     = 5
	helloContentType      = 22
	helloMessageHeader    = 4
	helloMessageType      = 1
	extServerName         = 0
	extALPN               = 16
	extPreSharedKey       = 41
	extSupportedVersions  = 43
	extEncryptedHello     = 0xfe0d // RFC 9849
	versionSSL30          = 0x0300
	versionTLS12          = 0x0303
	echOuter, echInner    = 0, 1
	serverNameTypeHost    = 0
	maxServerNameInRecord = 255
)

// hello is an accepted ClientHello. Its strings are copies, so raw can be let
// go as soon as it is forwarded.
type hello struct {
	// raw is every byte taken from the connection, to be forwarded as they
	// came: the hello's records, and whatever was read along behind them
	// (early data, say).
	raw []byte
	// serverName is zero when the hello carries no server_name.
	serverName policy.Host
	// rawName is the server_name as sent, for the record.
	rawName string
	// alpn lists the protocols offered, in order, the first 128 of them. They
	// are bytes of the client's choosing.
	alpn []string
	// version is the highest TLS version offered: "1.0" to "1.3", or "" when
	// only versions yet unknown are.
	version string
	// ech tells that an outer encrypted_client_hello extension is present.
	// Browsers send it as GREASE too, so it proves nothing; serverName is the
	// outer name, the only one that can be decided on.
	ech bool
}

// helloError says why a hello is refused. readHello returns no other error.
type helloError struct {
	reason  policy.Reason // ReasonNotTLS or ReasonMalformedHello
	msg     string        // for the record
	rawName string        // the server_name as sent, if one was read
	taken   int           // bytes that arrived, peeked ones included
	timeout bool          // the deadline passed
	err     error         // of the read, or of the second parser; may be nil
}

// Error implements error.
func (e *helloError) Error() string { return e.msg }

// Unwrap returns what the connection said, nil when the bytes were at fault.
func (e *helloError) Unwrap() error { return e.err }

// malformed returns a refusal of what the client sent.
func malformed(format string, args ...any) *helloError {
	return &helloError{reason: policy.ReasonMalformedHello, msg: fmt.Sprintf(format, args...)}
}

// readHello reads one ClientHello from r, of which peeked was read already,
// and accepts it only if its name can be read in one way. Any other error
// than a [*helloError] is impossible.
//
// r must have one absolute read deadline for the whole hello, set by the
// caller: a deadline for each read would let a byte a second through for
// ever. readHello takes no byte more once it knows its answer, though one
// read may bring bytes from behind the hello; it keeps them in hello.raw.
// peeked is taken over, with its capacity: raw may be a part of it.
func readHello(r io.Reader, peeked []byte) (*hello, error) {
	f := helloFrames{buf: peeked}
	for {
		done, refusal := f.advance()
		if refusal != nil {
			return nil, refusal.after(len(f.buf))
		}
		if done {
			break
		}
		if err := f.fill(r); err != nil {
			return nil, cutShort(err, len(f.buf))
		}
	}
	message := f.message()
	h, refusal := parseHello(message)
	if refusal != nil {
		return nil, refusal.after(len(f.buf))
	}
	if err := secondOpinion(message, h.rawName); err != nil {
		refusal = malformed("%v", err)
		refusal.err, refusal.rawName = err, h.rawName
		return nil, refusal.after(len(f.buf))
	}
	h.raw = f.buf
	return h, nil
}

// after notes how many bytes had been taken when e was found.
func (e *helloError) after(taken int) *helloError {
	e.taken = taken
	return e
}

// cutShort is the refusal of a hello that ended, with err, before its last
// byte. Nothing at all is not_tls, because that is how a protocol looks in
// which the server speaks first.
func cutShort(err error, taken int) *helloError {
	e := &helloError{reason: policy.ReasonMalformedHello, err: err, taken: taken}
	if taken == 0 {
		e.reason = policy.ReasonNotTLS
	}
	e.timeout = errors.Is(err, os.ErrDeadlineExceeded)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		e.timeout = true
	}
	how := err.Error()
	switch {
	case e.timeout:
		how = "timeout"
	case errors.Is(err, io.EOF):
		how = "EOF"
	default:
		if op, ok := errors.AsType[*net.OpError](err); ok {
			how = op.Err.Error() // without the addresses, which the record has
		}
	}
	e.msg = fmt.Sprintf("%d bytes of a ClientHello, then %s", taken, how)
	return e
}

// parseHello reads a complete ClientHello message (RFC 8446, section 4.1.2).
// It judges everything that leads to the name, and what the record will say;
// the contents of all other extensions are the origin's business.
func parseHello(message []byte) (*hello, *helloError) {
	s := cryptobyte.String(message[helloMessageHeader:])
	var legacy uint16
	var session, suites, compression, extensions cryptobyte.String
	switch {
	case !s.ReadUint16(&legacy) || !s.Skip(32):
		return nil, malformed("the ClientHello ends before its session id")
	case legacy <= versionSSL30: // RFC 8446, appendix D.5
		return nil, malformed("the ClientHello has version 0x%04x, below TLS 1.0", legacy)
	case !s.ReadUint8LengthPrefixed(&session) || len(session) > 32:
		return nil, malformed("the session id is malformed")
	case !s.ReadUint16LengthPrefixed(&suites) || len(suites) < 2 || len(suites)%2 != 0:
		return nil, malformed("the list of cipher suites is malformed")
	case !s.ReadUint8LengthPrefixed(&compression) || len(compression) == 0:
		return nil, malformed("the list of compression methods is malformed")
	}
	h := &hello{version: versionName(min(legacy, versionTLS12))}
	if s.Empty() { // legal up to TLS 1.2
		return h, nil
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return nil, malformed("the extensions do not end where the ClientHello ends")
	}
	if refusal := h.readExtensions(extensions); refusal != nil {
		refusal.rawName = h.rawName
		return nil, refusal
	}
	return h, nil
}

// readExtensions reads the extensions block.
func (h *hello) readExtensions(s cryptobyte.String) *helloError {
	types := make([]uint16, 0, 64)
	for !s.Empty() {
		var typ uint16
		var body cryptobyte.String
		if !s.ReadUint16(&typ) || !s.ReadUint16LengthPrefixed(&body) {
			return malformed("an extension runs past the end of the ClientHello")
		}
		types = append(types, typ)
		var refusal *helloError
		switch typ {
		case extServerName:
			refusal = h.readServerName(body)
		case extALPN:
			refusal = h.readALPN(body)
		case extSupportedVersions:
			refusal = h.readVersions(body)
		case extEncryptedHello:
			refusal = h.readECH(body)
		case extPreSharedKey:
			if !s.Empty() { // RFC 8446, section 4.2.11
				refusal = malformed("pre_shared_key is not the last extension")
			}
		}
		if refusal != nil {
			return refusal
		}
	}
	// Sorted, because comparing each with each would cost a hostile hello's
	// 16,000 extensions a hundred million steps.
	slices.Sort(types)
	for i := 1; i < len(types); i++ {
		if types[i] == types[i-1] {
			return malformed("extension %d appears twice", types[i])
		}
	}
	return nil
}

// readServerName reads a server_name extension (RFC 6066, section 3): one
// host_name and nothing else. Other name types were never defined.
func (h *hello) readServerName(body cryptobyte.String) *helloError {
	var list, name cryptobyte.String
	var typ uint8
	switch {
	case !body.ReadUint16LengthPrefixed(&list) || !body.Empty():
		return malformed("the server_name list does not end where its extension ends")
	case !list.ReadUint8(&typ) || !list.ReadUint16LengthPrefixed(&name):
		return malformed("the server_name is malformed")
	case typ != serverNameTypeHost:
		return malformed("the server_name is of type %d, not a host name", typ)
	case !list.Empty():
		return malformed("server_name holds more than one name")
	case len(name) == 0:
		return malformed("the server_name is empty")
	}
	h.rawName = string(name)
	host, err := checkServerName(h.rawName)
	if err != nil {
		return malformed("server_name: %v", err)
	}
	h.serverName = host
	return nil
}

// checkServerName admits a DNS name in ASCII, in any case, and nothing that
// an origin might read otherwise: crypto/tls, for one, refuses a trailing dot
// where others cut it off.
func checkServerName(raw string) (policy.Host, error) {
	host, err := policy.ParseSNI(raw)
	if err != nil {
		return policy.Host{}, err
	}
	// Whatever policy may come to forgive, the origin sees raw. Equal length
	// keeps Unicode's folding (the Kelvin sign is a k) out of it.
	if name := host.String(); len(name) != len(raw) || !strings.EqualFold(name, raw) {
		return policy.Host{}, fmt.Errorf("%s would be read as %q", quoteName(raw), name)
	}
	return host, nil
}

// readALPN reads an application_layer_protocol_negotiation extension
// (RFC 7301, section 3.1).
func (h *hello) readALPN(body cryptobyte.String) *helloError {
	var list cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&list) || !body.Empty() || list.Empty() {
		return malformed("the list of ALPN protocols is malformed")
	}
	for !list.Empty() {
		var protocol cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&protocol) || protocol.Empty() {
			return malformed("an ALPN protocol is malformed")
		}
		if len(h.alpn) < helloMaxALPN {
			h.alpn = append(h.alpn, string(protocol))
		}
	}
	return nil
}

// readVersions reads a supported_versions extension, which overrides the
// hello's own version (RFC 8446, section 4.2.1).
func (h *hello) readVersions(body cryptobyte.String) *helloError {
	var list cryptobyte.String
	if !body.ReadUint8LengthPrefixed(&list) || !body.Empty() || len(list) < 2 || len(list)%2 != 0 {
		return malformed("the list of supported versions is malformed")
	}
	h.version = ""
	for !list.Empty() {
		var v uint16
		list.ReadUint16(&v) // can not fail: the length is even
		h.version = max(h.version, versionName(v))
	}
	return nil
}

// readECH reads an encrypted_client_hello extension (RFC 9849, section 5) as
// far as its type and shape, which GREASE has too.
func (h *hello) readECH(body cryptobyte.String) *helloError {
	var typ uint8
	var key, payload cryptobyte.String
	switch {
	case !body.ReadUint8(&typ):
		return malformed("the encrypted_client_hello is empty")
	case typ == echInner:
		if !body.Empty() {
			return malformed("the inner encrypted_client_hello is malformed")
		}
		return nil
	case typ != echOuter:
		return malformed("the encrypted_client_hello is of type %d", typ)
	}
	if !body.Skip(2+2+1) || // HPKE suite, configuration id
		!body.ReadUint16LengthPrefixed(&key) || !body.ReadUint16LengthPrefixed(&payload) || !body.Empty() {
		return malformed("the encrypted_client_hello is malformed")
	}
	h.ech = true
	return nil
}

// versionName returns "1.0" to "1.3", or "" for what is none of them: GREASE
// (RFC 8701), drafts, SSL.
func versionName(v uint16) string {
	switch v {
	case 0x0301:
		return "1.0"
	case 0x0302:
		return "1.1"
	case versionTLS12:
		return "1.2"
	case 0x0304:
		return "1.3"
	}
	return ""
}

// quoteName renders a name from the wire for a message: in ASCII, quoted, and
// cut to a bearable length.
func quoteName(s string) string {
	if len(s) > maxServerNameInRecord {
		return strconv.QuoteToASCII(s[:maxServerNameInRecord]) + "... (" + strconv.Itoa(len(s)) + " bytes)"
	}
	return strconv.QuoteToASCII(s)
}
