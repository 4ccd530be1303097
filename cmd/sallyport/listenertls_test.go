package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

func TestListenerTLSConfig(t *testing.T) {
	const file = `
listeners:
  - address: ":1"
    tls: {cert_file: /a.pem, key: "env:SALLYPORT_TLS_KEY", client_ca_file: "env:SALLYPORT_CAS", crl_file: "secretsmanager:egress/crl", client_auth: optional}
  - {address: ":2", tls: {cert_file: /b.pem, key_file: /b.key}}
`
	want := []Listener{
		{Address: ":1", TLS: &ListenerTLS{CertFile: "/a.pem", Key: "env:SALLYPORT_TLS_KEY", ClientCAFile: "env:SALLYPORT_CAS", CRLFile: "secretsmanager:egress/crl", ClientAuth: "optional"}},
		{Address: ":2", TLS: &ListenerTLS{CertFile: "/b.pem", KeyFile: "/b.key"}},
	}
	set := []string{"SALLYPORT_TLS_KEY=x", "SALLYPORT_CAS=y"}
	l, talk := load(t, file, set)
	if talk != "" {
		t.Fatal(talk)
	}
	if diff := cmp.Diff(want, l.Listeners); diff != "" {
		t.Error(diff)
	}
	var printed strings.Builder
	if err := l.writeYAML(&printed); err != nil {
		t.Fatal(err)
	}
	if again, talk := load(t, printed.String(), set); talk != "" || !cmp.Equal(l.Listeners, again.Listeners) {
		t.Errorf("%s\n%s", talk, printed.String())
	}
	// The same in a variable.
	byVariable := "SALLYPORT_LISTENERS=:1?tls.cert_file=/a.pem&tls.key=env:SALLYPORT_TLS_KEY&tls.client_ca_file=env:SALLYPORT_CAS&tls.crl_file=secretsmanager:egress/crl&tls.client_auth=optional,:2?tls.cert_file=/b.pem&tls.key_file=/b.key"
	if l, talk = load(t, "", append(set, byVariable)); talk != "" {
		t.Fatal(talk)
	}
	if diff := cmp.Diff(want, l.Listeners); diff != "" {
		t.Error(diff)
	}
	for tls, want := range map[string]string{
		`{key_file: /k}`:  "tls: there is no cert_file",
		`{cert_file: /c}`: "the certificate has no key",
		`{cert_file: /c, key_file: /k, key: "env:K"}`:                   "key_file and key both name the key",
		`{cert_file: /c, key_file: /k, crl_file: /r}`:                   "there is crl_file and no client_ca_file",
		`{cert_file: /c, key_file: /k, client_auth: maybe}`:             `listeners[0].tls.client_auth: "maybe" is not one of required, optional`,
		`{cert_file: /c, key_file: "env:K"}`:                            "belong into key",
		`{cert_file: /c, key: /k}`:                                      "a path alone belongs into key_file",
		`{cert_fil: /c, key_file: /k}`:                                  `did you mean "cert_file"?`,
		`/c`:                                                            "listeners[0].tls must be a mapping",
		`{cert_file: /c, key_file: /k}, original_destination: redirect`: "does not speak TLS to the proxy",
	} {
		if _, talk := load(t, `listeners: [{address: ":1", tls: `+tls+`}]`, nil); !strings.Contains(talk, want) {
			t.Errorf("%s: %q is not in\n%s", tls, want, talk)
		}
	}
}

// pki writes what a listener's TLS is made of into files.
type pki struct {
	t      *testing.T
	dir    string
	signer *tls.Certificate
	ca     *x509.Certificate // of signer
	next   int64
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir()}
	p.newCA("the CA")
	return p
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) write(name, kind string, der []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pki) newCA(name string) {
	p.t.Helper()
	p.signer = nil
	p.signer = p.sign("ca.pem", &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotAfter: time.Now().Add(365 * 24 * time.Hour),
	})
	p.ca = p.signer.Leaf
}

func (p *pki) sign(file string, template *x509.Certificate) *tls.Certificate {
	p.t.Helper()
	p.next++
	template.SerialNumber, template.NotBefore = big.NewInt(p.next), time.Now().Add(-365*24*time.Hour)
	made := proxytest.Issue(p.t, template, p.signer)
	p.write(file, "CERTIFICATE", made.Leaf.Raw)
	return made
}

// server writes a listener's certificate and its key.
func (p *pki) server(until time.Duration, change func(*x509.Certificate)) {
	p.t.Helper()
	template := &x509.Certificate{DNSNames: []string{"proxy.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotAfter: time.Now().Add(until)}
	if change != nil {
		change(template)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.sign("cert.pem", template).PrivateKey)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("key.pem", "PRIVATE KEY", der)
}

// crl writes the CA's list, which is good until then.
func (p *pki) crl(until time.Duration) {
	p.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-24 * time.Hour), NextUpdate: time.Now().Add(until),
	}, p.ca, p.signer.PrivateKey.(crypto.Signer))
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("crl.pem", "X509 CRL", der)
}

const year = 365 * 24 * time.Hour

func (p *pki) listener(log *bytes.Buffer) (*tlsListener, error) {
	l := &loaded{Config: Config{Listeners: []Listener{{Address: ":8443", TLS: &ListenerTLS{
		CertFile: p.path("cert.pem"), KeyFile: p.path("key.pem"), ClientCAFile: p.path("ca.pem"), CRLFile: p.path("crl.pem"),
	}}}}, origins: map[string]string{"listeners": "file x.yaml:1"}}
	all, err := l.tlsListeners(p.t.Context(), zerolog.New(log))
	return all[0], err
}

func TestListenerTLSRefused(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*pki)
	}{
		{"no certificate", `":8443": tls: open`, func(p *pki) { os.Remove(p.path("cert.pem")) }},
		{"an empty key", "key.pem is empty", func(p *pki) { os.WriteFile(p.path("key.pem"), nil, 0o600) }},
		{"another's key", "does not belong to the key", func(p *pki) {
			cert, _ := os.ReadFile(p.path("cert.pem"))
			p.server(year, nil)
			os.WriteFile(p.path("cert.pem"), cert, 0o600)
		}},
		{"expired", "expired at", func(p *pki) { p.server(-time.Hour, nil) }},
		{"a client's", "lacks serverAuth", func(p *pki) {
			p.server(year, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}},
		{"without a name", "no subject alternative name", func(p *pki) { p.server(year, func(c *x509.Certificate) { c.DNSNames = nil }) }},
		{"no CA", "client_ca_file: it holds no certificate", func(p *pki) { os.WriteFile(p.path("ca.pem"), []byte("x"), 0o600) }},
		{"no CRL", "crl_file: it holds no CRL", func(p *pki) { os.WriteFile(p.path("crl.pem"), []byte("-----BEGIN X-----"), 0o600) }},
		{"a broken CRL", "crl_file: CRL 1: ", func(p *pki) { p.write("crl.pem", "X509 CRL", []byte{1, 2, 3}) }},
		{"another CA's CRL", "is not signed by the client CA of that name", func(p *pki) { p.newCA("the CA") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPKI(t)
			p.server(year, nil)
			p.crl(year)
			tt.change(p)
			if _, err := p.listener(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestListenerTLSReload: what is written anew is taken, what is broken changes
// nothing and is told once, and what expires is told ahead.
func TestListenerTLSReload(t *testing.T) {
	p := newPKI(t)
	p.server(year, nil)
	p.crl(year)
	var log bytes.Buffer
	ln, err := p.listener(&log)
	if err != nil {
		t.Fatal(err)
	}
	all := tlsListeners{nil, ln}
	all.announce()
	if got := log.String(); !strings.Contains(got, "the listener speaks TLS") || strings.Contains(got, "expire") {
		t.Errorf("the log says %s", got)
	}
	serial := func() int64 { return ln.ends.Config().Certificates[0].Leaf.SerialNumber.Int64() }
	look := func(asked bool, want ...string) {
		t.Helper()
		log.Reset()
		all.reload(t.Context(), asked)
		for _, w := range want {
			if !strings.Contains(log.String(), w) {
				t.Errorf("the log does not say %q: %s", w, log.String())
			}
		}
		if len(want) == 0 && log.Len() > 0 {
			t.Errorf("the log says %s", log.String())
		}
	}
	look(false)
	look(true, "unchanged")
	before := serial()
	p.server(20*24*time.Hour, nil)
	look(false, "the listener's TLS is reloaded", "then no client trusts it")
	if serial() == before {
		t.Error("the new certificate is not in force")
	}
	before = serial()
	look(false) // said once
	p.write("key.pem", "PRIVATE KEY", []byte{1})
	look(false, "is refused, the one in force stays", "tls: the key:")
	look(false)
	look(true, "is refused")
	if s := all.stats()()[0]; serial() != before || !s.Failed || s.Address != ":8443" || len(s.Expires) != 3 {
		t.Errorf("%+v", s)
	}
	if d := all.checks()[0]; !d.OK || !strings.Contains(d.Detail, "the last reload failed") {
		t.Errorf("%+v", d)
	}
	p.server(year, nil)
	look(false, "reloaded")
	p.crl(time.Hour) // of a day
	look(false, "reloaded", "the CRL of", "then clients with its certificates are refused, revoked or not")
	p.crl(-time.Hour)
	look(false, "reloaded", `"level":"error"`, "expired at")
	if d := all.checks()[0]; !strings.Contains(d.Detail, "expired at") || strings.Contains(d.Detail, "the last reload failed") {
		t.Errorf("%+v", d)
	}
	_, err = ln.ends.Principal(&tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{p.ca}, VerifiedChains: [][]*x509.Certificate{{p.ca, p.ca}},
	})
	if err == nil || !strings.Contains(err.Error(), "is expired") {
		t.Errorf("the clients of a CA with an old CRL get %v", err)
	}
	old := p.ca
	p.newCA("a second CA")
	second, err := os.ReadFile(p.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Raw}), second...)
	if err := os.WriteFile(p.path("ca.pem"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	look(true, "reloaded", "a second CA", "which crl_file lacks")
}

// TestExampleConfigurations: what is shown is taken, and README.md tells of it.
func TestExampleConfigurations(t *testing.T) {
	dir, err := filepath.Abs("../../examples/config")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, talk := load(t, string(text), nil); talk != "" {
				t.Error(talk)
			}
			if !strings.Contains(string(readme), "]("+filepath.Base(file)+")") {
				t.Error("README.md does not tell of it")
			}
		})
	}
}
