package main

import (
	"crypto/sha1" //nolint:gosec // the format's own checksum, no defence
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// trustStorePassword is what Java takes when nothing is said. It guards
// nothing: a trust store holds no secret, and its checksum is for accidents.
const trustStorePassword = "changeit"

// trustStore writes certificates as a Java trust store in the format JKS,
// which every Java reads. Java takes no PEM for one, and the image of the
// proxy has no keytool.
//
// The format: magic, version, number of entries; of each entry the tag of a
// trusted certificate, an alias, a time, the kind and the certificate; last
// the SHA-1 of the password in UTF-16, a phrase, and everything before.
func trustStore(certs []*x509.Certificate, at time.Time) []byte {
	const magic, version, trustedCertificate = 0xFEEDFEED, 2, 2
	store := binary.BigEndian.AppendUint32(nil, magic)
	store = binary.BigEndian.AppendUint32(store, version)
	store = binary.BigEndian.AppendUint32(store, uint32(len(certs)))
	text := func(s string) {
		store = binary.BigEndian.AppendUint16(store, uint16(len(s)))
		store = append(store, s...)
	}
	for _, c := range certs {
		sum := sha1.Sum(c.Raw) //nolint:gosec // tells the entries apart, and no more
		store = binary.BigEndian.AppendUint32(store, trustedCertificate)
		text(hex.EncodeToString(sum[:]))
		store = binary.BigEndian.AppendUint64(store, uint64(at.UnixMilli()))
		text("X.509")
		store = binary.BigEndian.AppendUint32(store, uint32(len(c.Raw)))
		store = append(store, c.Raw...)
	}
	check := sha1.New() //nolint:gosec // the format's own checksum
	for _, letter := range trustStorePassword {
		check.Write([]byte{0, byte(letter)})
	}
	check.Write([]byte("Mighty Aphrodite"))
	check.Write(store)
	return check.Sum(store)
}
