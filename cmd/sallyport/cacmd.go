package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

// maxDays bounds a CA's life: nobody can revoke it in the clients' bundles.
const maxDays = 3650

// maxName bounds a CA's name, so that its root can be called after it within
// the 64 characters of a common name (RFC 5280, appendix A.1).
const maxName = 64 - len(rootSuffix)

const rootSuffix = " root"

func caCommand() *cobra.Command {
	return group("ca", "make the CA for inspection and what clients need to trust it",
		caCreateCommand(), caBundleCommand(), caEnvCommand(), caShowCommand())
}

func caCreateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "create", Short: "make a CA that can sign for S3's names and no others", Args: cobra.NoArgs}
	cert := cmd.Flags().String("cert", "", "write the certificate to `FILE`, - for standard output")
	key := cmd.Flags().String("key", "", "write the key to `FILE`, - for standard output")
	days := cmd.Flags().Int("days", 365, "valid for `N` days")
	name := cmd.Flags().String("name", "", "the CA's common `NAME`")
	partitions := cmd.Flags().StringArray("partition", nil, "permit names of `PARTITION`; repeatable")
	regions := cmd.Flags().StringArray("region", nil, "permit S3's names of `REGION` only; repeatable")
	permits := cmd.Flags().StringArray("permit", nil, "permit names below `SUFFIX`; repeatable")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		names, err := permittedNames(*partitions, *regions, *permits)
		if err != nil {
			return err
		}
		switch {
		case *cert == "" || *key == "":
			return refuse("write --cert ca.pem --key ca.key", "sallyport ca create needs --cert and --key")
		case *cert == *key && *cert != "-":
			return refuse("give each a file of its own: clients may have the one and never the other", "--cert and --key name the same file")
		case *days < 1 || *days > maxDays:
			return refuse("", "--days: %d is not within 1 to %d", *days, maxDays)
		case len(*name) > maxName || strings.ContainsFunc(*name, func(r rune) bool { return r < ' ' }):
			return refuse(fmt.Sprintf("write at most %d characters on one line", maxName), "--name: %q is no common name", *name)
		}
		made, err := makeCA(*name, names, time.Now(), *days)
		if err != nil {
			return err
		}
		return made.deliver(*cert, *key, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// permittedNames returns the DNS suffixes that a CA may sign for: those of the
// partitions, or of the Regions, and what is permitted by name.
func permittedNames(partitions, regions, permits []string) ([]string, error) {
	if len(partitions) > 0 && len(regions) > 0 {
		return nil, refuse("leave --partition out: a Region's names say it", "--region narrows what --partition permits")
	}
	if len(partitions)+len(regions)+len(permits) == 0 {
		partitions = []string{"aws"}
	}
	var names []string
	add := func(more ...string) {
		for _, n := range more {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	for _, p := range partitions {
		suffixes := policy.S3Suffixes(p)
		if suffixes == nil {
			return nil, refuse("write one of "+strings.Join(policy.S3Partitions(), ", "), "--partition: there is no partition %q", p)
		}
		add(suffixes...)
	}
	for _, r := range regions {
		suffixes := policy.S3RegionSuffixes(r)
		if suffixes == nil {
			return nil, refuse("write it like us-east-1", "--region: %q is not a Region", r)
		}
		add(suffixes...)
	}
	for _, s := range permits {
		h, err := policy.ParseHost(s)
		if err != nil {
			return nil, refuse("write a name such as s3express-use1-az4.us-east-1.amazonaws.com", "--permit: %q is not a name: %w", s, err)
		}
		if !isAWS(h.String()) {
			return nil, refuse("only connections to S3 are inspected: permit a name of its", "--permit: %s does not lie in AWS", h)
		}
		add(h.String())
	}
	return names, nil
}

// isAWS reports whether a name lies below a suffix of some partition's.
func isAWS(name string) bool {
	return slices.ContainsFunc(policy.S3Partitions(), func(p string) bool {
		return slices.ContainsFunc(policy.S3Suffixes(p), func(suffix string) bool { return below(name, suffix) })
	})
}

// madeCA is a CA that was just made, and the root above it.
type madeCA struct {
	cert, root *x509.Certificate
	key        *ecdsa.PrivateKey // of cert; nobody has the root's
}

// makeCA makes a CA whose key is worth nothing outside the permitted names: it
// signs servers only, no further CA, no name but those, and no address
// (RFC 5280, section 4.2.1.10; a kind of name that is not mentioned there
// would be free).
//
// It stands below a root, which clients trust and whose key is forgotten here.
// What a root says of itself, its name constraints too, is advice that some
// clients do not take (RFC 5280, section 6.1.1; Java is one), whereas they all
// heed a CA below it.
func makeCA(name string, permitted []string, at time.Time, days int) (*madeCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make the serial number: %w", err)
	}
	if name == "" {
		// Two of one name would be mistaken for each other while both are in use.
		name = "Sallyport inspection CA " + hex.EncodeToString(serial.FillBytes(make([]byte, 16))[:4])
	}
	template := x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    at.Add(-time.Hour), // clients' clocks may be behind
		NotAfter:     at.AddDate(0, 0, days),
		IsCA:         true, BasicConstraintsValid: true, MaxPathLen: 0, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         permitted,
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
	above := template
	above.SerialNumber = new(big.Int).Add(template.SerialNumber, big.NewInt(1))
	above.Subject.CommonName += rootSuffix
	above.MaxPathLen, above.MaxPathLenZero = 1, false
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the root's key: %w", err)
	}
	root, err := signed(&above, &above, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	cert, err := signed(&template, root, key.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	return &madeCA{cert, root, key}, nil
}

// signed makes a certificate.
func signed(template, by *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, by, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read a certificate back: %w", err)
	}
	return cert, nil
}

// deliver writes certificate and key to new files, and tells of them where
// neither goes to standard output.
func (m *madeCA) deliver(certPath, keyPath string, stdout, stderr io.Writer) error {
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		return fmt.Errorf("write the key: %w", err)
	}
	for _, path := range []string{certPath, keyPath} {
		if _, err := os.Lstat(path); path != "-" && err == nil {
			return refuse("remove it first, or write to another file", "%s is there already, and nothing is overwritten", path)
		}
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	certText := append(certificatePEM(m.cert), certificatePEM(m.root)...)
	if err := writeNew(certPath, certText, 0o644, stdout); err != nil {
		return err
	}
	if err := writeNew(keyPath, keyText, 0o600, stdout); err != nil {
		if certPath != "-" {
			err = errors.Join(err, os.Remove(certPath)) // a CA without its key is of no use
		}
		return err
	}
	talk := stdout
	if certPath == "-" || keyPath == "-" {
		talk = stderr
	}
	m.tell(talk, certPath, keyPath)
	return nil
}

// writeNew writes a file that must not exist, or to stdout for "-".
func writeNew(path string, text []byte, mode fs.FileMode, stdout io.Writer) error {
	if path == "-" {
		_, err := stdout.Write(text)
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (m *madeCA) tell(w io.Writer, certPath, keyPath string) {
	places := map[string]string{"-": "standard output"}
	place := func(path string) string {
		if p := places[path]; p != "" {
			return p
		}
		return path
	}
	fmt.Fprintf(w, "certificate  %s: the CA, and below it in the file the root that clients trust\n", place(certPath))
	fmt.Fprintf(w, "key          %s: the CA's; the root's is forgotten, so that it signs nothing more\n", place(keyPath))
	describeCA(w, m.cert, 3)
	if certPath == "-" || keyPath == "-" {
		return
	}
	fmt.Fprintf(w, `
next
  sallyport serve    with inspect: {ca_file: %[1]s, ca_key_file: %[2]s} in its configuration
  sallyport ca bundle --ca %[1]s --out ca-bundle.pem    what clients are to trust
  sallyport ca env --bundle /PATH/ca-bundle.pem    the variables that tell them
`, certPath, keyPath)
}

// describeCA writes what a person asks of a CA, a line each. Of its permitted
// names it lists that many.
func describeCA(w io.Writer, c *x509.Certificate, most int) {
	fmt.Fprintf(w, "subject      %s\n", c.Subject)
	if c.Issuer.String() != c.Subject.String() {
		fmt.Fprintf(w, "issuer       %s\n", c.Issuer)
	}
	fmt.Fprintf(w, "valid        %s to %s\n", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	fmt.Fprintf(w, "key          %s\n", keyKind(c.PublicKey))
	signs := "no other certificate"
	switch {
	case c.IsCA && c.MaxPathLen == 0 && c.MaxPathLenZero:
		signs = "certificates, of no further CA"
	case c.IsCA:
		signs = "certificates, of further CAs too"
	}
	fmt.Fprintf(w, "signs        %s\n", signs)
	fmt.Fprintf(w, "permits      %s\n", permittedText(c, most))
	if len(c.ExcludedIPRanges)+len(c.ExcludedDNSDomains) > 0 {
		fmt.Fprintf(w, "excludes     %s\n", strings.Join(excludedTexts(c), ", "))
	}
	fmt.Fprintf(w, "fingerprint  SHA-256 %s\n", fingerprint(c))
}

func permittedText(c *x509.Certificate, most int) string {
	names := c.PermittedDNSDomains
	if len(names) == 0 {
		return "every name"
	}
	more := ""
	if n := len(names) - most; most > 0 && n > 0 {
		names, more = names[:most], fmt.Sprintf(" and %d more", n)
	}
	return "names below " + strings.Join(names, ", ") + more
}

func excludedTexts(c *x509.Certificate) []string {
	texts := slices.Clone(c.ExcludedDNSDomains)
	for _, n := range c.ExcludedIPRanges {
		texts = append(texts, n.String())
	}
	return texts
}

// fingerprint is written as openssl x509 -fingerprint -sha256 does.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(pairs, ":")
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
