package proxy

// TLS alert descriptions that the proxy sends in place of a server it will
// not reach (RFC 8446, section 6.2). A client library turns each into a
// message of its own, which beats "connection reset by peer".
const (
	// alertUnexpectedMessage: the first message is not a ClientHello, or
	// another record or message is mixed into it.
	alertUnexpectedMessage byte = 10
	// alertRecordOverflow: a record claims more than 2^14 bytes.
	alertRecordOverflow byte = 22
	// alertIllegalParameter: the hello can be read but breaks a rule of its
	// extensions: one appears twice, pre_shared_key is not the last.
	alertIllegalParameter byte = 47
	// alertAccessDenied: the answer is no, for whatever reason but the hello's
	// own faults: the policy, a limit, no name, not the name of CONNECT.
	alertAccessDenied byte = 49
	// alertDecodeError: the hello can not be read, or is too long.
	alertDecodeError byte = 50
	// alertProtocolVersion: nothing from TLS 1.0 on is offered.
	alertProtocolVersion byte = 70
	// alertInternalError: the policy said yes, but the origin could not be
	// reached, or the proxy failed.
	alertInternalError byte = 80
	// alertUnrecognizedName: there is a server_name, but it is no DNS name
	// (RFC 6066, section 3).
	alertUnrecognizedName byte = 112
)

// alertRecord returns one plaintext TLS record with a fatal alert, to be
// written before the connection is closed. Its version is TLS 1.2's, which is
// what every client expects of records before a ServerHello (RFC 8446,
// section 5.1). Send nothing to a client that does not speak TLS.
func alertRecord(desc byte) []byte {
	const alert, fatal = 21, 2
	return []byte{alert, 3, 3, 0, 2, fatal, desc}
}
