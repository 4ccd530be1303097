package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// shake makes a handshake between a client with cert and a server as c says, and
// returns what the server makes of it.
func shake(t *testing.T, c *ClientTLS, cert tls.Certificate) (name string, err error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	cfg := c.Config().Clone()
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		name, err = c.Principal(&state)
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}})
		if client.HandshakeContext(t.Context()) == nil {
			_, _ = client.Read(make([]byte, 1)) // the server's word on the certificate
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	shaken := tls.Server(near, cfg).HandshakeContext(ctx)
	near.Close()
	<-done
	return name, errors.Join(shaken, err)
}

// TestHostileClientOfARevokedCA: crypto/x509 is content with a chain that ends
// at any of the client CAs, so that nobody would look at who signed that one.
func TestHostileClientOfARevokedCA(t *testing.T) {
	root := newCA(t, "root", nil)
	below := newCA(t, "below", root)
	server := root.sign(&x509.Certificate{DNSNames: []string{"proxy.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	client := below.sign(&x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "payments"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	leaf, recent := client.Leaf, time.Now().Add(-time.Minute)
	for _, tt := range []struct {
		name  string
		lists []*x509.RevocationList
		fine  bool
	}{
		{"nobody is revoked", []*x509.RevocationList{root.crl(recent, nil), below.crl(recent, nil)}, true},
		{"its CA is revoked", []*x509.RevocationList{root.crl(recent, nil, below.cert.SerialNumber.Int64()), below.crl(recent, nil)}, false},
		{"nobody knows of its CA", []*x509.RevocationList{below.crl(recent, nil)}, false},
		{"nobody knows any more of its CA", []*x509.RevocationList{root.crl(recent.Add(-2*time.Hour), nil), below.crl(recent, nil)}, false},
	} {
		for sent, chain := range map[string][][]byte{"alone": {leaf.Raw}, "with its CA's": {leaf.Raw, below.cert.Raw}} {
			t.Run(tt.name+", "+sent, func(t *testing.T) {
				c, err := NewClientTLS(TLSMaterial{
					Certificate: *server,
					ClientCAs:   []*x509.Certificate{root.cert, below.cert}, Required: true, CheckRevoked: true, Revoked: tt.lists,
				})
				if err != nil {
					t.Fatal(err)
				}
				name, err := shake(t, c, tls.Certificate{Certificate: chain, PrivateKey: client.PrivateKey})
				if (err == nil) != tt.fine || tt.fine && name != "payments" {
					t.Errorf("%q, %v", name, err)
				}
				// Whoever came before the list did stands no longer; a list that is
				// merely old takes nothing back.
				certs := []*x509.Certificate{leaf, below.cert}[:len(chain)]
				if stands := tt.fine || strings.Contains(tt.name, "any more"); c.Stands(certs, time.Now()) != stands {
					t.Errorf("it stands: %v", !stands)
				}
			})
		}
	}
}
