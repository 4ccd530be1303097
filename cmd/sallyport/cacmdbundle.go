package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// What --roots calls the public roots that are linked in, and no roots.
const (
	builtin = "builtin"
	noRoots = "none"
)

func caBundleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bundle", Short: "write what clients are to trust: public roots and the CA", Args: cobra.NoArgs}
	cas := cmd.Flags().StringArray("ca", nil, "the CA: a `FILE`, or a reference such as env:NAME; repeatable")
	roots := cmd.Flags().String("roots", "", "public roots: a `FILE`, builtin or none")
	out := cmd.Flags().String("out", "-", "write to `FILE`, - for standard output")
	format := cmd.Flags().String("format", "pem", "pem, or jks for Java")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *format != "pem" && *format != "jks" {
			return refuse("write pem or jks", "--format: %q is unknown", *format)
		}
		if len(*cas) == 0 {
			return refuse("write --ca ca.pem, what `sallyport ca create --cert` wrote", "sallyport ca bundle needs --ca")
		}
		b := &trustBundle{has: make(map[string]bool), stdin: cmd.InOrStdin(), talk: cmd.ErrOrStderr()}
		if err := b.gather(cmd.Context(), *cas, *roots); err != nil {
			return err
		}
		text := b.pem()
		if *format == "jks" {
			text = trustStore(b.certs, time.Now())
		}
		if *out != "-" {
			return replaceFile(*out, text)
		}
		_, err := cmd.OutOrStdout().Write(text)
		return err
	}
	return cmd
}

// trustBundle gathers certificates, each once, in order. No key ever gets in.
type trustBundle struct {
	certs []*x509.Certificate
	has   map[string]bool // by DER
	stdin io.Reader
	talk  io.Writer
}

// gather takes the CAs and the public roots, and says how many they are.
func (b *trustBundle) gather(ctx context.Context, cas []string, roots string) error {
	for _, name := range cas {
		if err := b.addCA(ctx, name); err != nil {
			return err
		}
	}
	own := len(b.certs)
	public, from, err := b.publicRoots(ctx, roots, time.Now())
	if err != nil {
		return err
	}
	b.add(public...)
	fmt.Fprintf(b.talk, "sallyport: certificates given: %d; public roots: %d (%s)\n", own, len(b.certs)-own, from)
	return nil
}

func (b *trustBundle) add(certs ...*x509.Certificate) {
	for _, c := range certs {
		if !b.has[string(c.Raw)] {
			b.has[string(c.Raw)] = true
			b.certs = append(b.certs, c)
		}
	}
}

// addCA adds a CA, with what stands behind it, if clients could use it.
func (b *trustBundle) addCA(ctx context.Context, name string) error {
	certs, err := readCA(ctx, b.stdin, name)
	if err != nil {
		return err
	}
	wrong, doubts := examineCA(certs[0], time.Now())
	var errs []error
	for _, d := range wrong {
		errs = append(errs, refuse(d.hint, "%s: %q %s", name, certs[0].Subject, d.what))
	}
	for _, d := range doubts {
		fmt.Fprintf(b.talk, "sallyport: warning: %s: %q %s: %s\n", name, certs[0].Subject, d.what, d.hint)
	}
	b.add(anchors(certs)...)
	return errors.Join(errs...)
}

// anchors returns what clients are to trust of a CA and those above it: the
// roots alone, the highest where there is none. A client that trusts the CA
// itself may take its name constraints for advice.
func anchors(certs []*x509.Certificate) []*x509.Certificate {
	var roots []*x509.Certificate
	for _, c := range certs {
		if selfSigned(c) {
			roots = append(roots, c)
		}
	}
	if len(roots) == 0 {
		return certs[len(certs)-1:]
	}
	return roots
}

// pem writes the certificates, each under its subject.
func (b *trustBundle) pem() []byte {
	var text bytes.Buffer
	for _, c := range b.certs {
		fmt.Fprintf(&text, "# %s\n%s\n", strings.Trim(strconv.QuoteToASCII(c.Subject.String()), `"`), certificatePEM(c))
	}
	return text.Bytes()
}

// publicRoots returns public roots and where they are from: those of a file,
// those that are linked in, or, for "", the system's, else those linked in.
func (b *trustBundle) publicRoots(ctx context.Context, which string, at time.Time) ([]*x509.Certificate, string, error) {
	switch which {
	case "":
		if certs, from := systemRoots(); len(certs) > 0 {
			return certs, from, nil
		}
	case noRoots:
		return nil, noRoots, nil
	case builtin:
	default:
		certs, err := readCA(ctx, b.stdin, which)
		return certs, which, err
	}
	var certs []*x509.Certificate
	for root := range bundle.Roots() {
		c, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, "", fmt.Errorf("the roots that are linked in: %w", err)
		}
		if !distrusted(root, at) {
			certs = append(certs, c)
		}
	}
	return certs, builtin, nil
}

// longestLeaf is how long a public server certificate may live at most
// (CA/Browser Forum, Baseline Requirements, section 6.3.2).
const longestLeaf = 398 * 24 * time.Hour

// distrusted reports whether a root is good for no certificate that still
// lives. A PEM bundle has no words for "only what it signed before a day".
func distrusted(root bundle.Root, at time.Time) bool {
	return root.Constraint != nil && root.Constraint([]*x509.Certificate{{NotBefore: at.Add(-longestLeaf)}}) != nil
}

// systemRoots returns the machine's roots and the file that holds them, as
// crypto/x509 finds them on Linux; nothing where there are none.
func systemRoots() (certs []*x509.Certificate, from string) {
	files := []string{
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, Amazon Linux
		"/etc/ssl/ca-bundle.pem",             // openSUSE
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
	}
	if name := os.Getenv("SSL_CERT_FILE"); name != "" {
		files = []string{name}
	}
	for _, name := range files {
		text, err := readBounded(name, maxPEM)
		if err != nil {
			continue
		}
		if certs, err := parseCertificates(text); err == nil {
			return certs, name
		}
	}
	return nil, ""
}

// replaceFile writes a file as a whole or not at all: a client that starts in
// between sees the old one or the new one.
func replaceFile(path string, text []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
