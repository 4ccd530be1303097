package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sallyport/sallyport/policy"
)

// Bounds of leaf certificates.
const (
	leafLife   = 48 * time.Hour // short: nobody can revoke them
	leafSkew   = time.Hour      // clients' clocks are behind by as much
	leafRenew  = 12 * time.Hour // before its end a leaf is made anew
	leavesKept = 1024           // names, about 3 KB each
)

// authority issues the certificates that inspected connections show to their
// clients, signed by the operator's CA. goproxy's own signer is never used: it
// derives its keys from the CA's (security.md, section 1.2). It is safe for
// concurrent use.
type authority struct {
	ca     *x509.Certificate
	signer any
	chain  [][]byte // what a client is sent behind the leaf
	now    func() time.Time
	flight singleflight.Group

	mu     sync.Mutex // guards leaves
	leaves map[policy.Host]*tls.Certificate
}

// newAuthority returns the authority of ca, which must hold its private key.
func newAuthority(ca *tls.Certificate) (*authority, error) {
	cert, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("the CA for inspection: %w", err)
	}
	return &authority{
		ca: cert, signer: ca.PrivateKey, chain: ca.Certificate, now: time.Now,
		leaves: make(map[policy.Host]*tls.Certificate),
	}, nil
}

// leaf returns the certificate for host. Clients that ask for the same name at
// once share one.
func (a *authority) leaf(host policy.Host) (*tls.Certificate, error) {
	if c := a.kept(host); c != nil {
		return c, nil
	}
	made, err, _ := a.flight.Do(host.String(), func() (any, error) {
		if c := a.kept(host); c != nil {
			return c, nil
		}
		c, err := a.issue(host.String())
		if err != nil {
			return nil, fmt.Errorf("issue a certificate for %s: %w", host, err)
		}
		a.keep(host, c)
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return made.(*tls.Certificate), nil //nolint:forcetypeassert // it is what the function above returns
}

// kept returns a leaf that is good for a while yet, nil if there is none.
func (a *authority) kept(host policy.Host) *tls.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.leaves[host]
	if c == nil || a.now().Add(leafRenew).After(c.Leaf.NotAfter) && c.Leaf.NotAfter.Before(a.ca.NotAfter) {
		return nil
	}
	return c
}

// keep remembers a leaf. Where there are too many, any other gives way: a
// client that asks for name after name costs what it costs, and no memory.
func (a *authority) keep(host policy.Host, c *tls.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other := range a.leaves {
		if len(a.leaves) < leavesKept {
			break
		}
		delete(a.leaves, other)
	}
	a.leaves[host] = c
}

// issue makes a certificate and a key of its own for one DNS name (RFC 5280).
// The key never leaves the process.
func (a *authority) issue(name string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make its key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make its serial number: %w", err)
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // positive (section 4.1.2.2)
		DNSNames:     []string{name},                    // and no subject: names of more than 64 characters have no place there
		NotBefore:    latest(now.Add(-leafSkew), a.ca.NotBefore),
		NotAfter:     earliest(now.Add(leafLife), a.ca.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, key.Public(), a.signer)
	if err != nil {
		return nil, fmt.Errorf("sign it: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read it back: %w", err)
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.chain...), PrivateKey: key, Leaf: leaf}, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
