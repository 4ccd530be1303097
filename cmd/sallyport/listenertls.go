package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging"
	caller "github.com/sallyport/sallyport/proxy/identity"
)

func listenerTLSFields() []field {
	return []field{
		{name: "cert_file", kind: fileOrReference()},
		{name: "key_file", kind: keyFile("key")},
		{name: "key", kind: keyReference("key_file")},
		{name: "client_ca_file", kind: fileOrReference()},
		{name: "crl_file", kind: fileOrReference()},
		{name: "client_auth", kind: word("required", "optional")},
	}
}

// plain shows what is set. All of it may be seen: keys are never here.
func (t *ListenerTLS) plain() map[string]any {
	plain := make(map[string]any)
	for key, value := range map[string]string{
		"cert_file": t.CertFile, "key_file": t.KeyFile, "key": t.Key,
		"client_ca_file": t.ClientCAFile, "crl_file": t.CRLFile, "client_auth": t.ClientAuth,
	} {
		if value != "" {
			plain[key] = value
		}
	}
	return plain
}

// sources are the files and references in it.
func (t *ListenerTLS) sources() []string {
	return []string{t.CertFile, cmp.Or(t.Key, t.KeyFile), t.ClientCAFile, t.CRLFile}
}

// check finds what does not go together.
func (t *ListenerTLS) check(place string, ln *Listener) (errs []error) {
	fail := func(hint, format string, args ...any) {
		errs = append(errs, refuse(hint, "%s: tls: %s", place, fmt.Sprintf(format, args...)))
	}
	if ln.OriginalDestination != "" {
		fail("give explicit clients a listener of their own", "there is original_destination, too: whoever was aimed at others does not speak TLS to the proxy")
	}
	switch {
	case t.CertFile == "":
		fail("write cert_file: and the certificate that clients are to see", "there is no cert_file")
	case t.KeyFile == "" && t.Key == "":
		fail("write key_file: PATH, or key: env:NAME, file:PATH or secretsmanager:NAME", "the certificate has no key")
	case t.KeyFile != "" && t.Key != "":
		fail("keep one of the two", "key_file and key both name the key")
	}
	if t.ClientCAFile == "" {
		for key, value := range map[string]string{"crl_file": t.CRLFile, "client_auth": t.ClientAuth} {
			if value != "" {
				fail("write client_ca_file: and the CAs that have signed the clients' certificates", "there is %s and no client_ca_file: nobody is asked for a certificate", key)
			}
		}
	}
	return errs
}

// tlsListener keeps what a listener ends TLS with as its files and references
// say. What cannot be read or used changes nothing but the log, the metrics and
// the detail of /readyz. Its methods belong to one goroutine, but for status.
type tlsListener struct {
	name    string // the listener's address
	place   string
	cfg     ListenerTLS
	log     zerolog.Logger
	ends    *caller.ClientTLS
	texts   map[string][]byte    // as last read, by reference
	readAt  map[string]time.Time // likewise
	digest  [sha256.Size]byte    // of the texts in force
	refused string               // what was said last of a reload that failed
	said    map[string]bool      // of what is in force, so that it is said once
	status  tlsStatus
}

// tlsListeners are the listeners' in their order, nil where one speaks no TLS.
type tlsListeners []*tlsListener

// tlsListeners makes what the configuration asks for, and adds to the
// warnings.
func (l *loaded) tlsListeners(ctx context.Context, log zerolog.Logger) (tlsListeners, error) {
	all := make(tlsListeners, len(l.Listeners))
	var errs []error
	for i, ln := range l.Listeners {
		if ln.TLS == nil {
			continue
		}
		t := &tlsListener{
			name: ln.Address, place: fmt.Sprintf("%s: %q: tls", l.place("listeners"), ln.Address), cfg: *ln.TLS, log: log,
			readAt: make(map[string]time.Time), said: make(map[string]bool),
		}
		if doubt := looseKey(ln.TLS.KeyFile); doubt != "" {
			l.warnings = append(l.warnings, t.place+".key_file: "+doubt)
		}
		err := t.read(ctx, true)
		if err == nil {
			err = t.load(time.Now())
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all[i] = t
	}
	return all, errors.Join(errs...)
}

// reload reads again what has changed, and says what expires. It reports whether
// anything is another now.
func (all tlsListeners) reload(ctx context.Context, asked bool) (changed bool) {
	for _, t := range all {
		if t != nil {
			changed = t.reload(ctx, asked) || changed
			t.warn(time.Now())
		}
	}
	return changed
}

func (t *tlsListener) reload(ctx context.Context, asked bool) (changed bool) {
	err := t.read(ctx, asked)
	if err == nil && t.sum() != t.digest && !asked {
		// Several files belong together, and each may be written in pieces.
		old := t.sum()
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return false
		}
		if err = t.read(ctx, false); err == nil && t.sum() != old {
			return false // another look will come
		}
	}
	changed = t.sum() != t.digest
	if err == nil && changed {
		err = t.load(time.Now())
	}
	t.status.fail(err) // who has read the log may look
	if err != nil {
		if text := err.Error(); asked || text != t.refused {
			t.refused = text
			t.log.Error().Str(logging.FieldListener, t.name).Err(err).Msg("the listener's TLS is refused, the one in force stays")
		}
		return false
	}
	if t.refused = ""; changed {
		t.log.Info().Str(logging.FieldListener, t.name).Str("until", t.status.text()).Msg("the listener's TLS is reloaded")
	} else if asked {
		t.log.Info().Str(logging.FieldListener, t.name).Msg("the listener's TLS is unchanged")
	}
	return changed
}

// read brings the texts up to date, all of them or none: files always, others
// when all are asked for or their time has come.
func (t *tlsListener) read(ctx context.Context, all bool) error {
	next := make(map[string][]byte)
	var errs []error
	for _, name := range t.cfg.sources() {
		if name == "" {
			continue
		}
		ref, err := parseReference(name, true)
		if old, known := t.texts[name]; known && !all && ref.scheme != "file" && time.Since(t.readAt[name]) < secretsEvery {
			next[name] = old
			continue
		}
		if err == nil {
			t.readAt[name] = time.Now()
			next[name], err = ref.read(ctx)
		}
		if err == nil && len(bytes.TrimSpace(next[name])) == 0 {
			err = fmt.Errorf("%s is empty", ref)
		}
		if err != nil {
			errs = append(errs, refuse("", "%s: %w", t.place, err))
		}
	}
	if len(errs) == 0 {
		t.texts = next
	}
	return errors.Join(errs...)
}

// sum tells texts apart.
func (t *tlsListener) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range t.cfg.sources() {
		one := sha256.Sum256(t.texts[name])
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum
}

// load puts the texts in force, all of them or none.
func (t *tlsListener) load(at time.Time) error {
	m := caller.TLSMaterial{Required: t.cfg.ClientAuth != "optional" && t.cfg.ClientCAFile != "", CheckRevoked: t.cfg.CRLFile != ""}
	var certErr, caErr, crlErr error
	m.Certificate, certErr = t.certificate(at)
	if name := t.cfg.ClientCAFile; name != "" {
		if m.ClientCAs, caErr = parseCertificates(t.texts[name]); caErr != nil {
			caErr = refuse("name a PEM file with the CAs that have signed the clients' certificates", "%s.client_ca_file: %w", t.place, caErr)
		}
	}
	if name := t.cfg.CRLFile; name != "" {
		if m.Revoked, crlErr = parseCRLs(t.texts[name]); crlErr != nil {
			crlErr = refuse("name a PEM file with the CRLs of the CAs in client_ca_file, one of each", "%s.crl_file: %w", t.place, crlErr)
		}
	}
	if err := errors.Join(certErr, caErr, crlErr); err != nil {
		return err
	}
	var err error
	if t.ends == nil {
		t.ends, err = caller.NewClientTLS(m)
	} else {
		err = t.ends.Set(m)
	}
	if err != nil {
		return refuse("", "%s: %w", t.place, err)
	}
	t.digest = t.sum()
	t.status.set(&m)
	clear(t.said)
	return nil
}

// certificate is what clients are shown. What they would refuse is refused.
func (t *tlsListener) certificate(at time.Time) (tls.Certificate, error) {
	place := t.place + ".cert_file"
	certs, err := parseCertificates(t.texts[t.cfg.CertFile])
	if err != nil {
		return tls.Certificate{}, refuse("name a PEM file with the listener's certificate, and behind it those that signed it but for the root", "%s: %w", place, err)
	}
	key, err := parseKey(t.texts[cmp.Or(t.cfg.Key, t.cfg.KeyFile)])
	if err != nil {
		return tls.Certificate{}, refuse("name a PEM file with the certificate's key", "%s: the key: %w", t.place, err)
	}
	leaf := certs[0]
	fail := func(hint, what string) (tls.Certificate, error) {
		return tls.Certificate{}, refuse(hint, "%s: %q %s", place, leaf.Subject, what)
	}
	switch what := weakKey(leaf.PublicKey); {
	case !matches(leaf, key):
		return fail("the listener's own certificate stands first in cert_file; name its key", "does not belong to the key")
	case at.After(leaf.NotAfter):
		return fail("renew it", "expired at "+leaf.NotAfter.UTC().Format(time.RFC3339))
	case at.Before(leaf.NotBefore):
		return fail("look at the clock", "is not valid before "+leaf.NotBefore.UTC().Format(time.RFC3339))
	case !signsServers(leaf):
		return fail("ask for one for a server", "is not for servers: its extended key usage lacks serverAuth")
	case what != "":
		return fail("make another", what)
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return fail("ask for one with the name in the clients' https:// proxy URL", "has no subject alternative name, and clients look at nothing else")
	}
	out := tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range certs {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}

// parseCRLs returns the revocation lists of a PEM text, or of one in DER, at
// least one.
func parseCRLs(text []byte) ([]*x509.RevocationList, error) {
	var ders [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 && !strings.Contains(string(text), "-----BEGIN") {
		ders = [][]byte{text} // as CAs publish them
	}
	all := make([]*x509.RevocationList, 0, len(ders))
	for i, der := range ders {
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", i+1, err)
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no CRL")
	}
	return all, nil
}

// warn says what will expire or has, once.
func (t *tlsListener) warn(at time.Time) {
	for _, e := range t.status.expiries() {
		what, soon := e.say(at)
		if what == "" || t.said[what] {
			continue
		}
		t.said[what] = true
		level := zerolog.ErrorLevel
		if soon {
			level = zerolog.WarnLevel
		}
		t.log.WithLevel(level).Str(logging.FieldListener, t.name).Time("expires", e.at).Str("hint", e.hint).Msg(what)
	}
}

// announce says what is in force.
func (all tlsListeners) announce() {
	for _, t := range all.present() {
		t.log.Info().Str(logging.FieldListener, t.name).Str("in_force", t.status.text()).Msg("the listener speaks TLS")
		t.warn(time.Now())
	}
}

// at returns what a listener ends TLS with, nil where it speaks none.
func (all tlsListeners) at(i int) *caller.ClientTLS {
	if i < len(all) && all[i] != nil {
		return all[i].ends
	}
	return nil
}

// present are those that there are.
func (all tlsListeners) present() []*tlsListener {
	return slices.DeleteFunc(slices.Clone(all), func(t *tlsListener) bool { return t == nil })
}
