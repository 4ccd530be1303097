package proxy

// TLS alert descriptions that the proxy sends in place of a server it will
// not reach (RFC 8446, section 6.2). A client library turns each into a
// message of its own, which beats "connection reset by peer".
const (
	// alertAccessDenied: the answer is no, whatever the reason.
	alertAccessDenied byte = 49
	// alertInternalError: the policy said yes, but the origin could not be
	// reached, or the proxy failed.
	alertInternalError byte = 80
)

// alertRecord returns one plaintext TLS record with a fatal alert, to be
// written before the connection is closed. Its version is TLS 1.2's, which is
// what every client expects of records before a ServerHello (RFC 8446,
// section 5.1). Send nothing to a client that does not speak TLS.
func alertRecord(desc byte) []byte {
	const alert, fatal = 21, 2
	return []byte{alert, 3, 3, 0, 2, fatal, desc}
}
