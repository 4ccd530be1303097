package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// TLSMaterial is what a listener ends its clients' TLS with.
type TLSMaterial struct {
	// Certificate is what clients are shown, with its key and its Leaf.
	Certificate tls.Certificate
	// ClientCAs have signed the clients' certificates, roots and CAs below them;
	// empty: clients are asked for none.
	ClientCAs []*x509.Certificate
	// Required refuses clients without a certificate.
	Required bool
	// Revoked are lists of ClientCAs'. With CheckRevoked each CA in a client's
	// chain must have one that is current, or the client is refused.
	Revoked      []*x509.RevocationList
	CheckRevoked bool
}

// ClientTLS implements proxy's interface of that name. What it is made of may be
// replaced at any time, and holds for handshakes that begin then. It is safe for
// concurrent use.
type ClientTLS struct {
	now     func() time.Time
	current atomic.Pointer[clientTLS]
}

// clientTLS is the material of one time, prepared.
type clientTLS struct {
	config *tls.Config
	lists  *revocations // nil: nobody's are looked at
}

// NewClientTLS returns one of the material, or what is wrong with that.
func NewClientTLS(m TLSMaterial) (*ClientTLS, error) {
	c := &ClientTLS{now: time.Now}
	if err := c.Set(m); err != nil {
		return nil, err
	}
	return c, nil
}

// Set replaces the material. One that is not acceptable changes nothing.
func (c *ClientTLS) Set(m TLSMaterial) error {
	next := &clientTLS{config: &tls.Config{
		Certificates: []tls.Certificate{m.Certificate},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
		// A session that is resumed would bring an old verdict on a certificate.
		SessionTicketsDisabled: true,
	}}
	switch {
	case len(m.ClientCAs) == 0 && (m.Required || m.CheckRevoked):
		return errors.New("client certificates are asked for, and no CA is named")
	case len(m.ClientCAs) > 0:
		next.config.ClientAuth = tls.VerifyClientCertIfGiven
		if m.Required {
			next.config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		next.config.ClientCAs = x509.NewCertPool()
		for _, ca := range m.ClientCAs {
			next.config.ClientCAs.AddCert(ca)
		}
	}
	if m.CheckRevoked {
		var err error
		if next.lists, err = newRevocations(m.Revoked, m.ClientCAs); err != nil {
			return err
		}
	}
	c.current.Store(next)
	return nil
}

// Config implements proxy.ClientTLS.
func (c *ClientTLS) Config() *tls.Config { return c.current.Load().config }

// Stands implements proxy.ClientTLS.
func (c *ClientTLS) Stands(certs []*x509.Certificate, at time.Time) bool {
	now := c.current.Load()
	if now.config.ClientCAs == nil {
		return false
	}
	opts := x509.VerifyOptions{
		Roots: now.config.ClientCAs, Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, i := range certs[1:] {
		opts.Intermediates.AddCert(i)
	}
	chains, err := certs[0].Verify(opts)
	return err == nil && (now.lists == nil || slices.ContainsFunc(chains, now.lists.clears))
}

// Principal implements proxy.ClientTLS: the client's certificate was verified,
// must not have been revoked, and must have a name; see [CertificateName].
func (c *ClientTLS) Principal(state *tls.ConnectionState) (string, error) {
	if len(state.PeerCertificates) == 0 {
		return "", nil
	}
	if len(state.VerifiedChains) == 0 {
		return "", errors.New("no CA was there to verify it")
	}
	if lists := c.current.Load().lists; lists != nil {
		if err := lists.admit(state.VerifiedChains, c.now()); err != nil {
			return "", err
		}
	}
	name, err := CertificateName(state.PeerCertificates[0])
	if err != nil {
		return "", fmt.Errorf("serial number %x: %w", state.PeerCertificates[0].SerialNumber, err)
	}
	return name, nil
}
