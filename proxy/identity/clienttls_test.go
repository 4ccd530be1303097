package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// ca is a certificate authority of the tests'.
type ca struct {
	t    *testing.T
	own  *tls.Certificate
	cert *x509.Certificate // of own
}

// newCA makes a CA that the one above signs, if there is one.
func newCA(t *testing.T, name string, above *ca) *ca {
	t.Helper()
	if above == nil {
		above = &ca{t: t}
	}
	own := above.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign})
	return &ca{t: t, own: own, cert: own.Leaf}
}

func (c *ca) sign(template *x509.Certificate) *tls.Certificate {
	c.t.Helper()
	return proxytest.Issue(c.t, template, c.own)
}

// crl signs a list that is valid from then on for an hour.
func (c *ca) crl(from time.Time, change func(*x509.RevocationList), serials ...int64) *x509.RevocationList {
	c.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(from.UnixNano()), ThisUpdate: from, NextUpdate: from.Add(time.Hour)}
	for _, s := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: from})
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, c.cert, c.own.PrivateKey.(crypto.Signer))
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

func TestCertificateName(t *testing.T) {
	c := newCA(t, "the CA", nil)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	two := pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "admin"}, {Type: []int{2, 5, 4, 3}, Value: "payments"}}}
	for _, tt := range []struct {
		name, want, wrong string
		template          x509.Certificate
	}{
		{name: "URI", want: "spiffe://prod/ns/payments", template: x509.Certificate{
			URIs: []*url.URL{uri("spiffe://prod/ns/payments")}, DNSNames: []string{"a.test", "b.test"}, Subject: pkix.Name{CommonName: "x"},
		}},
		{name: "DNS name", want: "payments.prod.test", template: x509.Certificate{DNSNames: []string{"Payments.prod.test"}, Subject: pkix.Name{CommonName: "admin"}}},
		{name: "common name", want: "payments", template: x509.Certificate{Subject: pkix.Name{CommonName: "payments"}, EmailAddresses: []string{"a@b.test"}}},
		{name: "two URIs", wrong: "has 2 names", template: x509.Certificate{URIs: []*url.URL{uri("spiffe://a/b"), uri("spiffe://a/c")}}},
		{name: "two DNS names", wrong: "has 2 names", template: x509.Certificate{DNSNames: []string{"a.test", "b.test"}, Subject: pkix.Name{CommonName: "a.test"}}},
		{name: "two common names", wrong: "has 2 names", template: x509.Certificate{Subject: two}},
		{name: "none", wrong: "names nobody", template: x509.Certificate{Subject: pkix.Name{Organization: []string{"acme"}}}},
		{name: "a wildcard", wrong: "cannot be a principal", template: x509.Certificate{DNSNames: []string{"*.prod.test"}}},
		{name: "a letter that looks like another", wrong: "cannot be a principal", template: x509.Certificate{Subject: pkix.Name{CommonName: "p\u0430yments"}}},
		{name: "a space at its end", wrong: "cannot be a principal", template: x509.Certificate{Subject: pkix.Name{CommonName: "payments "}}},
		{name: "a line break", wrong: "cannot be a principal", template: x509.Certificate{Subject: pkix.Name{CommonName: "pay\nments"}}},
		{name: "too long", wrong: "cannot be a principal", template: x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("x", 256)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert := c.sign(&tt.template).Leaf
			got, err := CertificateName(cert)
			if got != tt.want || (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestRevocation(t *testing.T) {
	root := newCA(t, "root", nil)
	below := newCA(t, "below", root)
	impostor := newCA(t, "root", nil)
	leaf := below.sign(&x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "payments"}}).Leaf
	now := time.Now()
	recent := now.Add(-time.Minute)
	critical := func(id ...int) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: true, Value: []byte{5, 0}}}
		}
	}
	good := root.crl(recent, nil, 1)
	for _, tt := range []struct {
		name, wrong, unfit string
		lists              []*x509.RevocationList
	}{
		{name: "nobody", lists: []*x509.RevocationList{good, below.crl(recent, nil, 1, 2, 3)}},
		{name: "the client", wrong: "was revoked", lists: []*x509.RevocationList{good, below.crl(recent, nil, 7)}},
		{name: "the client, by another CA's list", lists: []*x509.RevocationList{root.crl(recent, nil, 7), below.crl(recent, nil)}},
		{name: "the CA below", wrong: "was revoked", lists: []*x509.RevocationList{root.crl(recent, nil, below.cert.SerialNumber.Int64()), below.crl(recent, nil)}},
		{name: "no list of the CA below", wrong: "no CRL of", lists: []*x509.RevocationList{good}},
		{name: "no list at all", wrong: "no CRL of"},
		{name: "an old list", wrong: "is expired", lists: []*x509.RevocationList{good, below.crl(now.Add(-2*time.Hour), nil)}},
		{name: "an old list, and a new one", lists: []*x509.RevocationList{below.crl(recent, nil), good, below.crl(now.Add(-2*time.Hour), nil, 7)}},
		{name: "a list of tomorrow", wrong: "is not valid before", lists: []*x509.RevocationList{good, below.crl(now.Add(time.Hour), nil)}},
		{name: "a forged list", unfit: "is not signed by", lists: []*x509.RevocationList{impostor.crl(recent, nil)}},
		{name: "a stranger's list", unfit: "of no client CA", lists: []*x509.RevocationList{newCA(t, "stranger", nil).crl(recent, nil)}},
		{name: "a delta", unfit: "critical extension", lists: []*x509.RevocationList{root.crl(recent, critical(2, 5, 29, 27))}},
		{name: "a partial list", unfit: "critical extension", lists: []*x509.RevocationList{root.crl(recent, critical(2, 5, 29, 28))}},
		{name: "an entry of another issuer", unfit: "critical extension", lists: []*x509.RevocationList{root.crl(recent, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: recent, ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}}}}}
		})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewClientTLS(TLSMaterial{ClientCAs: []*x509.Certificate{root.cert, below.cert}, Required: true, CheckRevoked: true, Revoked: tt.lists})
			if tt.unfit != "" {
				if err == nil || !strings.Contains(err.Error(), tt.unfit) {
					t.Errorf("the lists are taken: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			name, err := c.Principal(&tls.ConnectionState{
				PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, below.cert, root.cert}},
			})
			if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) || err == nil && name != "payments" {
				t.Errorf("%q, %v", name, err)
			}
		})
	}
}

// TestClientTLSStands: an open connection stands on its certificate for as long
// as the CA is trusted and no list names it, whatever has expired.
func TestClientTLSStands(t *testing.T) {
	root, below, other := newCA(t, "root", nil), (*ca)(nil), newCA(t, "other", nil)
	below = newCA(t, "below", root)
	leaf := below.sign(&x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "payments"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}).Leaf
	now := time.Now()
	lists := func(of ...*x509.RevocationList) []*x509.RevocationList { return of }
	for name, tt := range map[string]struct {
		cas   []*x509.Certificate
		check bool
		lists []*x509.RevocationList
		want  bool
	}{
		"as it was":                {cas: []*x509.Certificate{root.cert}, want: true},
		"with another CA":          {cas: []*x509.Certificate{other.cert, root.cert}, want: true},
		"the CA is replaced":       {cas: []*x509.Certificate{other.cert}},
		"nobody is asked any more": {},
		"lists that do not name it": {
			cas: []*x509.Certificate{root.cert, below.cert}, check: true, want: true, lists: lists(root.crl(now, nil, 8), below.crl(now, nil, 8)),
		},
		"lists that came later, and expired": {
			cas: []*x509.Certificate{root.cert, below.cert}, check: true, want: true, lists: lists(root.crl(now.Add(time.Minute), nil), below.crl(now.Add(-9*time.Hour), nil)),
		},
		"it is revoked": {
			cas: []*x509.Certificate{root.cert, below.cert}, check: true, lists: lists(root.crl(now, nil), below.crl(now, nil, 7)),
		},
		"its CA is revoked": {
			cas: []*x509.Certificate{root.cert}, check: true, lists: lists(root.crl(now, nil, below.cert.SerialNumber.Int64())),
		},
		"a CA without a list": {cas: []*x509.Certificate{root.cert, below.cert}, check: true, lists: lists(root.crl(now, nil))},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := NewClientTLS(TLSMaterial{ClientCAs: tt.cas, CheckRevoked: tt.check, Revoked: tt.lists})
			if err != nil {
				t.Fatal(err)
			}
			c.now = func() time.Time { return now.Add(48 * time.Hour) }
			if got := c.Stands([]*x509.Certificate{leaf, below.cert}, now); got != tt.want {
				t.Errorf("it stands: %v", got)
			}
		})
	}
}

// TestClientTLSSet: what is not acceptable changes nothing.
func TestClientTLSSet(t *testing.T) {
	root := newCA(t, "root", nil)
	c, err := NewClientTLS(TLSMaterial{})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Config().ClientAuth; got != tls.NoClientCert {
		t.Errorf("without a CA the client is asked for a certificate: %v", got)
	}
	before := c.Config()
	if c.Set(TLSMaterial{Required: true}) == nil || c.Set(TLSMaterial{CheckRevoked: true}) == nil || c.Config() != before {
		t.Error("certificates are asked for that no CA could have signed")
	}
	for required, want := range map[bool]tls.ClientAuthType{true: tls.RequireAndVerifyClientCert, false: tls.VerifyClientCertIfGiven} {
		if err := c.Set(TLSMaterial{ClientCAs: []*x509.Certificate{root.cert}, Required: required}); err != nil || c.Config().ClientAuth != want {
			t.Errorf("required: %v: %v, %v", required, c.Config().ClientAuth, err)
		}
	}
	if _, err := c.Principal(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{root.cert}}); err == nil {
		t.Error("a certificate that nobody has verified names a principal")
	}
}
