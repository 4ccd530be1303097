package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// expiresSoon is how long before its end a CA is spoken of: whoever renews it
// must also bring the new one to every client first.
const expiresSoon = 30 * 24 * time.Hour

// minRSA is the shortest RSA modulus, in bits, that clients take.
const minRSA = 2048

// defect is one thing that is wrong, or may be, with a certificate.
type defect struct{ what, hint string }

// examineCA says what makes a certificate unfit to sign others for inspection
// at that time, and what is worth knowing of one that is fit.
func examineCA(c *x509.Certificate, at time.Time) (wrong, doubts []defect) {
	const anew = "make another: sallyport ca create"
	fail := func(format string, args ...any) {
		wrong = append(wrong, defect{fmt.Sprintf(format, args...), anew})
	}
	if !c.BasicConstraintsValid || !c.IsCA {
		fail("is no CA: it lacks the basic constraint CA:TRUE")
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		fail("may not sign certificates: its key usage lacks keyCertSign")
	}
	if at.After(c.NotAfter) {
		fail("expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if at.Before(c.NotBefore) {
		fail("is not valid before %s, and it is %s", c.NotBefore.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	if !signsServers(c) {
		fail("may not sign certificates of servers: its extended key usage lacks serverAuth")
	}
	if what := weakKey(c.PublicKey); what != "" {
		fail("%s", what)
	}
	if n := len(c.UnhandledCriticalExtensions); n > 0 {
		fail("has a critical extension that clients do not know, %s", c.UnhandledCriticalExtensions[0])
	}
	if len(c.PermittedDNSDomains) > 0 && !permitsS3(c.PermittedDNSDomains) {
		fail("permits names below %s only, and none of them is S3's", strings.Join(c.PermittedDNSDomains, ", "))
	}
	if len(wrong) > 0 {
		return wrong, nil
	}
	return nil, doubtsOf(c, at)
}

// doubtsOf says what is worth knowing of a CA that is fit.
func doubtsOf(c *x509.Certificate, at time.Time) (doubts []defect) {
	if left := c.NotAfter.Sub(at); left < expiresSoon {
		days := int(math.Ceil(left.Hours() / 24))
		doubts = append(doubts, defect{
			fmt.Sprintf("expires within %d days, at %s", days, c.NotAfter.UTC().Format(time.RFC3339)),
			"make another, put both into the clients' bundle, then change this one",
		})
	}
	if len(c.PermittedDNSDomains) == 0 {
		doubts = append(doubts, defect{
			"has no name constraints", "whoever steals its key can pass for any site; sallyport ca create makes one for S3's names alone",
		})
	} else if selfSigned(c) {
		doubts = append(doubts, defect{
			"is a root, whose name constraints some clients (Java) do not heed", "sallyport ca create makes a CA below a root, whose constraints all heed",
		})
	}
	if c.KeyUsage == 0 || len(c.SubjectKeyId) == 0 {
		doubts = append(doubts, defect{
			"lacks keyUsage or subjectKeyIdentifier", "strict clients, Python 3.13 and later among them, refuse it",
		})
	}
	return doubts
}

// selfSigned reports whether a certificate is a root.
func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// signsServers reports whether the extended key usage, where there is one,
// lets a CA sign what servers show.
func signsServers(c *x509.Certificate) bool {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// weakKey says what is wrong with a kind of key, "" for nothing.
func weakKey(public any) string {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, key.Curve) {
			return ""
		}
		return "has a key on a curve that TLS does not take, " + key.Curve.Params().Name
	case *rsa.PublicKey:
		if key.N.BitLen() >= minRSA {
			return ""
		}
		return fmt.Sprintf("has an RSA key of %d bits; %d are the least", key.N.BitLen(), minRSA)
	case ed25519.PublicKey:
		return ""
	}
	return "has a key that is none of ECDSA, RSA and Ed25519"
}

// keyKind names a public key's kind for a person.
func keyKind(public any) string {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return "unknown"
}

// permitsS3 reports whether some name of S3's lies below the permitted ones.
func permitsS3(permitted []string) bool {
	for _, partition := range policy.S3Partitions() {
		for _, suffix := range policy.S3Suffixes(partition) {
			if slices.ContainsFunc(permitted, func(p string) bool { return below(p, suffix) || below(suffix, p) }) {
				return true
			}
		}
	}
	return false
}

// below reports whether a name is the suffix or lies under it, as name
// constraints mean it (RFC 5280, section 4.2.1.10).
func below(name, suffix string) bool {
	name, suffix = strings.ToLower(strings.TrimPrefix(name, ".")), strings.ToLower(strings.TrimPrefix(suffix, "."))
	return suffix == "" || name == suffix || strings.HasSuffix(name, "."+suffix)
}

// parseCertificates returns the certificates of a PEM text, at least one, in
// their order. Other blocks, keys above all, are passed over.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return all, nil
}

// parseKey returns the first private key of a PEM text: PKCS #8, or the older
// forms for RSA and EC. Its errors say nothing of what the text holds.
func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, errors.New("the key is encrypted, and nobody is there to type its passphrase")
		case block.Type == "OPENSSH PRIVATE KEY":
			return nil, errors.New("it holds a key of OpenSSH, which signs no certificates")
		case block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return parseSigner(block.Bytes)
		}
	}
	return nil, errors.New("it holds no private key in PEM")
}

func parseSigner(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, errors.New("the key cannot sign")
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if _, err := asn1.Unmarshal(der, new(asn1.RawValue)); err != nil {
		return nil, errors.New("the private key is cut short or damaged")
	}
	return nil, errors.New("the private key is of a kind that is not known")
}

// matches reports whether the key is the certificate's.
func matches(c *x509.Certificate, key crypto.Signer) bool {
	public, ok := c.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && public.Equal(key.Public())
}
