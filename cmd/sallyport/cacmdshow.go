package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func caShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show FILE", Short: "say what a CA is and whether it will do", Args: cobra.ExactArgs(1)}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		certs, err := readCA(cmd.Context(), cmd.InOrStdin(), args[0])
		if err != nil {
			return err
		}
		if n := len(certs); n > 1 {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: this is the first of %d certificates\n", n)
		}
		wrong, doubts := examineCA(certs[0], time.Now())
		if *asJSON {
			err = writeCAJSON(cmd.OutOrStdout(), certs[0], wrong, doubts)
		} else {
			describeCA(cmd.OutOrStdout(), certs[0], 0)
		}
		if err != nil {
			return err
		}
		for _, d := range doubts {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: warning: it %s: %s\n", d.what, d.hint)
		}
		var errs []error
		for _, d := range wrong {
			errs = append(errs, &fault{code: exitNo, err: errors.New("it " + d.what), hint: d.hint})
		}
		return errors.Join(errs...)
	}
	return cmd
}

// readCA returns the certificates of a file, a reference, or standard input
// for "-".
func readCA(ctx context.Context, stdin io.Reader, text string) ([]*x509.Certificate, error) {
	data, err := readPEM(ctx, stdin, text)
	if err != nil {
		return nil, &fault{code: exitUsage, err: err}
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, refuse("name the PEM file that `sallyport ca create --cert` wrote", "%s: %w", text, err)
	}
	return certs, nil
}

func readPEM(ctx context.Context, stdin io.Reader, text string) ([]byte, error) {
	if text == "-" {
		return io.ReadAll(io.LimitReader(stdin, maxPEM))
	}
	ref, err := parseReference(text, true)
	if err != nil {
		return nil, fmt.Errorf("what should name a file %w", err)
	}
	return ref.read(ctx)
}

func writeCAJSON(w io.Writer, c *x509.Certificate, wrong, doubts []defect) error {
	texts := func(defects []defect) []string {
		all := []string{}
		for _, d := range defects {
			all = append(all, d.what)
		}
		return all
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Subject     string    `json:"subject"`
		Issuer      string    `json:"issuer"`
		Serial      string    `json:"serial"`
		NotBefore   time.Time `json:"not_before"`
		NotAfter    time.Time `json:"not_after"`
		Key         string    `json:"key"`
		CA          bool      `json:"ca"`
		Permits     []string  `json:"permits,omitempty"`
		Excludes    []string  `json:"excludes,omitempty"`
		Fingerprint string    `json:"fingerprint_sha256"`
		Usable      bool      `json:"usable"`
		Problems    []string  `json:"problems"`
		Warnings    []string  `json:"warnings"`
	}{
		c.Subject.String(), c.Issuer.String(), fmt.Sprintf("%x", c.SerialNumber), c.NotBefore.UTC(), c.NotAfter.UTC(), keyKind(c.PublicKey),
		c.BasicConstraintsValid && c.IsCA, c.PermittedDNSDomains, excludedTexts(c), fingerprint(c), len(wrong) == 0, texts(wrong), texts(doubts),
	})
}
