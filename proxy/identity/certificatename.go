package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
)

// maxCertificateName is the most characters that the policy takes for a
// principal.
const maxCertificateName = 255

// CertificateName returns the principal that a client's certificate names: its
// URI, if its subject alternative names hold one (SPIFFE's way), else its DNS
// name, in lower case, else its common name. Where there are two of the kind
// that counts, nobody can say who it is, and that is an error; so is a name
// that no policy could list.
func CertificateName(c *x509.Certificate) (string, error) {
	kind, names := "common name", commonNames(c)
	switch {
	case len(c.URIs) > 0:
		kind, names = "URI", nil
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
	case len(c.DNSNames) > 0:
		kind, names = "DNS name", nil
		for _, n := range c.DNSNames {
			names = append(names, strings.ToLower(n))
		}
	}
	switch {
	case len(names) == 0:
		return "", errors.New("it names nobody: no URI, no DNS name, no common name")
	case len(names) > 1:
		return "", fmt.Errorf("it has %d names of the kind that counts (%s), %.64q and %.64q among them: give each client a certificate with one", len(names), kind, names[0], names[1])
	case !nameable(names[0]):
		return "", fmt.Errorf("its %s, %.300q, cannot be a principal: 1 to %d printable ASCII characters, no *, no space at an end", kind, names[0], maxCertificateName)
	}
	return names[0], nil
}

// commonNames returns the subject's, all of them: pkix.Name keeps the last.
func commonNames(c *x509.Certificate) []string {
	var names []string
	for _, n := range c.Subject.Names {
		if n.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			text, _ := n.Value.(string) // "" is nobody's name
			names = append(names, text)
		}
	}
	return names
}

// nameable reports whether a policy could list the name.
func nameable(name string) bool {
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' || name[i] == '*' {
			return false
		}
	}
	return name != "" && len(name) <= maxCertificateName && strings.TrimSpace(name) == name
}
