package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// revocations are the lists (CRLs) of a listener's client CAs, verified.
type revocations struct {
	lists map[string]*revocationList   // by issuer, see issuerKey
	above map[string]*x509.Certificate // who signed a client CA, where that is one, too; by what was signed
}

// revocationList is one CA's (RFC 5280, section 5).
type revocationList struct {
	from, until time.Time
	serials     map[string]bool
}

// newRevocations verifies the lists. Of several that a CA has signed the newest
// counts.
func newRevocations(lists []*x509.RevocationList, cas []*x509.Certificate) (*revocations, error) {
	r := &revocations{lists: make(map[string]*revocationList), above: signers(cas)}
	var errs []error
	for _, l := range lists {
		issuer, err := issuerOf(l, cas)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		key := issuerKey(issuer)
		if old := r.lists[key]; old != nil && old.from.After(l.ThisUpdate) {
			continue
		}
		next := &revocationList{from: l.ThisUpdate, until: l.NextUpdate, serials: make(map[string]bool, len(l.RevokedCertificateEntries))}
		for i := range l.RevokedCertificateEntries {
			e := &l.RevokedCertificateEntries[i]
			if e.SerialNumber != nil {
				next.serials[e.SerialNumber.String()] = true // whatever the reason, a hold too
			}
		}
		r.lists[key] = next
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

// issuerOf returns the CA that signed the list, and refuses lists that do not
// speak of all of its certificates, or in a way that is not understood.
func issuerOf(l *x509.RevocationList, cas []*x509.Certificate) (*x509.Certificate, error) {
	for _, x := range l.Extensions {
		if x.Critical {
			return nil, fmt.Errorf("the CRL of %q has the critical extension %s: only complete CRLs of one CA are understood, no delta, partial or indirect ones", l.Issuer, x.Id)
		}
	}
	for i := range l.RevokedCertificateEntries {
		for _, x := range l.RevokedCertificateEntries[i].Extensions {
			if x.Critical {
				return nil, fmt.Errorf("an entry in the CRL of %q has the critical extension %s, which is not understood", l.Issuer, x.Id)
			}
		}
	}
	if l.NextUpdate.IsZero() {
		return nil, fmt.Errorf("the CRL of %q does not say when the next one comes (nextUpdate): nobody could tell that it is old", l.Issuer)
	}
	var last error
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, l.RawIssuer) {
			continue
		}
		if last = l.CheckSignatureFrom(ca); last == nil {
			return ca, nil
		}
	}
	if last != nil {
		return nil, fmt.Errorf("the CRL of %q is not signed by the client CA of that name: %w", l.Issuer, last)
	}
	return nil, fmt.Errorf("the CRL of %q is of no client CA", l.Issuer)
}

// issuerKey tells CAs apart: by name and key.
func issuerKey(ca *x509.Certificate) string {
	return string(ca.RawSubject) + "\x00" + string(ca.RawSubjectPublicKeyInfo)
}

// signers returns the CA that signed each one, where that is among them.
func signers(cas []*x509.Certificate) map[string]*x509.Certificate {
	above := make(map[string]*x509.Certificate)
	for _, c := range cas {
		for _, by := range cas {
			if bytes.Equal(c.RawIssuer, by.RawSubject) && issuerKey(c) != issuerKey(by) && c.CheckSignatureFrom(by) == nil {
				above[string(c.Raw)] = by
				break
			}
		}
	}
	return above
}

// whole returns chain up to its root. crypto/x509 ends one at whatever client CA
// it comes to first, and nobody would ask whether that was revoked.
func (r *revocations) whole(chain []*x509.Certificate) []*x509.Certificate {
	chain = slices.Clip(chain)
	for range r.above { // CAs may have signed each other
		by := r.above[string(chain[len(chain)-1].Raw)]
		if by == nil {
			break
		}
		chain = append(chain, by)
	}
	return chain
}

// admit returns nil when nobody in one of the chains was revoked, as current
// lists say. What no list says is not taken for granted.
func (r *revocations) admit(chains [][]*x509.Certificate, now time.Time) error {
	var first error
	for _, chain := range chains {
		err := r.admitChain(r.whole(chain), now)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// clears reports whether the chain's CAs have lists, whatever their age, and
// none in it was revoked.
func (r *revocations) clears(chain []*x509.Certificate) bool {
	chain = r.whole(chain)
	for i, c := range chain[:len(chain)-1] {
		if l := r.lists[issuerKey(chain[i+1])]; l == nil || l.serials[c.SerialNumber.String()] {
			return false
		}
	}
	return true
}

func (r *revocations) admitChain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain[:len(chain)-1] { // the last is a CA of our own choice
		l := r.lists[issuerKey(chain[i+1])]
		switch {
		case l == nil:
			return fmt.Errorf("there is no CRL of %q, which signed it", chain[i+1].Subject)
		case l.serials[c.SerialNumber.String()]:
			return fmt.Errorf("%q, serial number %x, was revoked", c.Subject, c.SerialNumber)
		case now.After(l.until):
			return fmt.Errorf("the CRL of %q is expired, since %s: nobody knows who was revoked", chain[i+1].Subject, l.until.UTC().Format(time.RFC3339))
		case now.Before(l.from):
			return fmt.Errorf("the CRL of %q is not valid before %s", chain[i+1].Subject, l.from.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
