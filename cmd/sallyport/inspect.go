package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // roots for an image that has none

	"github.com/sallyport/sallyport/policy"
)

// inspection returns what inspected connections need: the CA that signs their
// certificates, with its key, its Leaf and those above it but for the root, nil
// when none is configured; and the roots that origins are verified with, nil for the system's. It reads
// what the configuration refers to, and adds to the warnings. No error names
// anything of the key.
func (l *loaded) inspection(ctx context.Context) (*tls.Certificate, *x509.CertPool, error) {
	var ca *tls.Certificate
	var roots *x509.CertPool
	var caErr, rootsErr error
	if l.Inspect.CAFile != "" {
		ca, caErr = l.authority(ctx, time.Now())
	}
	if l.Inspect.OriginCAFile != "" {
		roots, rootsErr = l.originRoots(ctx)
	}
	if err := errors.Join(caErr, rootsErr); err != nil {
		return nil, nil, err
	}
	return ca, roots, nil
}

// authority reads the CA and its key, and refuses what clients would.
func (l *loaded) authority(ctx context.Context, at time.Time) (*tls.Certificate, error) {
	certificate := l.place("inspect.ca_file")
	text, err := l.fetch(ctx, certificate, l.Inspect.CAFile)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(text)
	if err != nil {
		return nil, refuse("name the PEM file that `sallyport ca create --cert` wrote", "%s: %w", certificate, err)
	}
	keyPlace, keyText, err := l.key(ctx)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyText)
	if err != nil {
		return nil, refuse("name the PEM file that `sallyport ca create --key` wrote, with its line breaks", "%s: %w", keyPlace, err)
	}
	if !matches(certs[0], key) {
		return nil, refuse("name the two files of one `sallyport ca create`; in ca_file the CA itself stands first",
			"%s: the key is not that of %q in %s", keyPlace, certs[0].Subject, certificate)
	}
	if err := l.judge(certs, certificate, at); err != nil {
		return nil, err
	}
	ca := &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for i, c := range certs {
		if i == 0 || !selfSigned(c) { // clients have the root above it, or do not trust it
			ca.Certificate = append(ca.Certificate, c.Raw)
		}
	}
	return ca, nil
}

// judge refuses a CA that clients would refuse, and a chain that is none.
func (l *loaded) judge(certs []*x509.Certificate, place string, at time.Time) error {
	wrong, doubts := examineCA(certs[0], at)
	var errs []error
	for _, f := range wrong {
		errs = append(errs, refuse(f.hint, "%s: %q %s", place, certs[0].Subject, f.what))
	}
	for i, c := range certs[1:] {
		if err := certs[i].CheckSignatureFrom(c); err != nil {
			errs = append(errs, refuse("leave only the CA, or the CA and behind it each one that signed the one before; not a bundle",
				"%s: certificate %d, %q, did not sign the one before it", place, i+2, c.Subject))
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, f := range doubts {
		l.warnings = append(l.warnings, fmt.Sprintf("%s: %q %s: %s", place, certs[0].Subject, f.what, f.hint))
	}
	return nil
}

// key reads the CA's key from whichever of the two keys names it, and returns
// the place of that.
func (l *loaded) key(ctx context.Context) (place string, text []byte, err error) {
	place = l.place("inspect.ca_key")
	if l.Inspect.CAKey == "" {
		place = l.place("inspect.ca_key_file")
		if doubt := looseKey(l.Inspect.CAKeyFile); doubt != "" {
			l.warnings = append(l.warnings, place+": "+doubt)
		}
	}
	text, err = l.fetch(ctx, place, cmp.Or(l.Inspect.CAKey, "file:"+l.Inspect.CAKeyFile))
	return place, text, err
}

// looseKey says what is wrong with a key file's mode, "" for nothing.
func looseKey(path string) string {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o007 == 0 {
		return ""
	}
	return fmt.Sprintf("every user of the machine may read or write the key (mode %#o): make it 0600", info.Mode().Perm())
}

// originRoots reads the roots that replace the system's.
func (l *loaded) originRoots(ctx context.Context) (*x509.CertPool, error) {
	place := l.place("inspect.origin_ca_file")
	text, err := l.fetch(ctx, place, l.Inspect.OriginCAFile)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(text)
	if err != nil {
		return nil, refuse("name a PEM file with the roots of the origins", "%s: %w", place, err)
	}
	roots := x509.NewCertPool()
	for _, c := range certs {
		roots.AddCert(c)
	}
	return roots, nil
}

// place names a key of the configuration and where its value comes from.
func (l *loaded) place(key string) string { return fmt.Sprintf("%s (%s)", key, l.origins[key]) }

// fetch reads what the value of a key refers to.
func (l *loaded) fetch(ctx context.Context, place, text string) ([]byte, error) {
	ref, err := parseReference(text, true)
	if err != nil {
		return nil, refuse("", "%s %w", place, err)
	}
	data, err := ref.read(ctx)
	if err == nil && len(bytes.TrimSpace(data)) == 0 {
		err = fmt.Errorf("%s is empty", ref)
	}
	if err != nil {
		return nil, refuse("", "%s: %w", place, err)
	}
	return data, nil
}

// admit refuses a policy that asks for what this process cannot do: without a
// CA no request can be seen, and its rules would deny everything they list.
func (l *loaded) admit(p *policy.Policy) error {
	rules := p.Inspecting()
	if len(rules) == 0 || l.Inspect.CAFile != "" {
		return nil
	}
	more := ""
	if n := len(rules) - 1; n > 0 {
		more = fmt.Sprintf(", as do %d more", n)
	}
	return refuse("set inspect.ca_file and inspect.ca_key_file to what `sallyport ca create` makes, or leave inspect out of the rule",
		"%s: the rule %q says inspect: true%s, and no CA is configured (inspect.ca_file)", rules[0].Pos, rules[0].Name, more)
}
