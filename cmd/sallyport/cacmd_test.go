package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// leafFor signs what the proxy shows to clients, for names or an address.
func (m *madeCA) leafFor(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	return issue(t, ecKey(t, elliptic.P256()), &certificate{m.cert, m.key}, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.PermittedDNSDomains = pkix.Name{}, false, nil
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = []net.IP{ip}
		} else {
			c.DNSNames = []string{name}
		}
	}).Certificate
}

// constraints are CAs and the names that they must and must not sign for.
func constraints() map[string]struct{ partitions, regions, permits, good, bad []string } {
	return map[string]struct{ partitions, regions, permits, good, bad []string }{
		"default": {
			good: []string{"b.s3.us-east-1.amazonaws.com", "s3.us-gov-west-1.amazonaws.com", "a.b.c.s3.amazonaws.com", "s3tables.us-east-1.api.aws"},
			bad:  []string{"evil.example", "amazonaws.com.evil.example", "evilamazonaws.com", "s3.cn-north-1.amazonaws.com.cn", "192.0.2.1", "2001:db8::1"},
		},
		"partitions": {
			partitions: []string{"aws-cn", "aws-eusc"},
			good:       []string{"b.s3.cn-north-1.amazonaws.com.cn", "b.s3.eusc-de-east-1.amazonaws.eu"},
			bad:        []string{"b.s3.us-east-1.amazonaws.com", "evil.example", "192.0.2.1"},
		},
		"region": {
			regions: []string{"eu-west-1"},
			permits: []string{"s3express-euw1-az1.eu-west-1.amazonaws.com"},
			good: []string{
				"s3.eu-west-1.amazonaws.com", "b.s3.dualstack.eu-west-1.amazonaws.com", "n-111122223333.s3-accesspoint.eu-west-1.amazonaws.com",
				"b.bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", "b--euw1-az1--x-s3.s3express-euw1-az1.eu-west-1.amazonaws.com", "b.s3.amazonaws.com",
			},
			bad: []string{"sts.eu-west-1.amazonaws.com", "b.s3.us-east-1.amazonaws.com", "evil-s3.eu-west-1.amazonaws.com", "amazonaws.com", "evil.example", "192.0.2.1"},
		},
	}
}

func madeFor(t *testing.T, partitions, regions, permits []string) *madeCA {
	t.Helper()
	names, err := permittedNames(partitions, regions, permits)
	if err != nil {
		t.Fatal(err)
	}
	m, err := makeCA("", names, time.Now(), 30)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestConstraintsByGo and ByOpenSSL ask two implementations whether the CA can
// sign for anything else.
func TestConstraintsByGo(t *testing.T) {
	for name, tt := range constraints() {
		t.Run(name, func(t *testing.T) {
			m := madeFor(t, tt.partitions, tt.regions, tt.permits)
			if wrong, doubts := examineCA(m.cert, time.Now().Add(-time.Minute)); len(wrong)+len(doubts) > 1 { // it expires within 30 days
				t.Errorf("wrong %q, doubts %q", wrong, doubts)
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			roots.AddCert(m.root)
			between.AddCert(m.cert)
			for _, host := range slices.Concat(tt.good, tt.bad) {
				_, err := m.leafFor(t, host).Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host})
				if good := slices.Contains(tt.good, host); good != (err == nil) {
					t.Errorf("%s: good %t, %v", host, good, err)
				}
			}
			// A further CA below it is none.
			sub := issue(t, ecKey(t, elliptic.P256()), &certificate{m.cert, m.key}, func(c *x509.Certificate) { c.PermittedDNSDomains = nil })
			between.AddCert(sub.Certificate)
			leaf := (&madeCA{cert: sub.Certificate, key: sub.key.(*ecdsa.PrivateKey)}).leafFor(t, tt.good[0])
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: tt.good[0]}); err == nil {
				t.Error("a CA below this one is trusted")
			}
			client := issue(t, ecKey(t, elliptic.P256()), &certificate{m.cert, m.key}, func(c *x509.Certificate) {
				c.IsCA, c.PermittedDNSDomains, c.ExtKeyUsage = false, nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			})
			if _, err := client.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
				t.Error("a client's certificate of it is trusted")
			}
		})
	}
}

// tool returns the path of a program. In CI it must be there.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if ci := os.Getenv("CI"); err != nil && ci != "" && ci != "false" {
		t.Fatalf("needs %s: %v", name, err)
	}
	if err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
	return path
}

func TestConstraintsByOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	for name, tt := range constraints() {
		t.Run(name, func(t *testing.T) {
			m := madeFor(t, tt.partitions, tt.regions, tt.permits)
			dir := t.TempDir()
			root, ca, leaf := filepath.Join(dir, "root.pem"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "leaf.pem")
			for path, c := range map[string]*x509.Certificate{root: m.root, ca: m.cert} {
				if err := os.WriteFile(path, certificatePEM(c), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, host := range slices.Concat(tt.good, tt.bad) {
				if err := os.WriteFile(leaf, certificatePEM(m.leafFor(t, host)), 0o600); err != nil {
					t.Fatal(err)
				}
				// -x509_strict is what Python 3.13 does.
				out, err := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore", "-CAfile", root, "-untrusted", ca, leaf).CombinedOutput()
				good := slices.Contains(tt.good, host)
				if good != (err == nil) || !good && !bytes.Contains(out, []byte("subtree violation")) {
					t.Errorf("%s: good %t, %v: %s", host, good, err, out)
				}
			}
		})
	}
}

// TestNamesOfCAsDiffer: while an old CA is replaced both are trusted, and a
// client that finds issuers by name must find the right one.
func TestNamesOfCAsDiffer(t *testing.T) {
	a, b := madeFor(t, nil, nil, nil), madeFor(t, nil, nil, nil)
	if a.cert.Subject.String() == b.cert.Subject.String() || a.root.Subject.String() == b.root.Subject.String() || a.cert.SerialNumber.Cmp(b.cert.SerialNumber) == 0 || a.key.Equal(b.key) {
		t.Errorf("%s twice", a.cert.Subject)
	}
	if bytes.Equal(a.cert.SubjectKeyId, b.cert.SubjectKeyId) || len(a.cert.SubjectKeyId) == 0 {
		t.Error("the keys have one identifier")
	}
}

// TestCAFiles: the mode of the key holds whatever the umask lets through.
func TestCAFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	var out, talk bytes.Buffer
	if code := run(t.Context(), []string{"ca", "create", "--cert", cert, "--key", key}, nil, &out, &talk); code != exitOK || talk.Len() > 0 {
		t.Fatalf("code %d, %s", code, &talk)
	}
	info, err := os.Stat(key)
	if err != nil || info.Mode().Perm()&0o177 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	leaks(t, out.String(), string(text))
	l, said := load(t, "inspect: {ca_file: "+cert+", ca_key_file: "+key+"}", nil)
	if said != "" {
		t.Fatal(said)
	}
	if ca, _, err := l.inspection(t.Context()); err != nil || ca == nil || len(l.warnings) > 0 {
		t.Errorf("what was made is not taken: %v, %q", err, l.warnings)
	}
}

// TestNothingIsOverwritten: nor is what came to be after somebody looked.
func TestNothingIsOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.key")
	for i, want := range []bool{true, false} {
		if err := writeNew(path, []byte{byte('0' + i)}, 0o600, nil); want != (err == nil) {
			t.Errorf("time %d: %v", i, err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "0" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestShowRefuses(t *testing.T) {
	expired := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	leaf := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.IsCA, c.PermittedDNSDomains = false, nil })
	for want, c := range map[string]certificate{"sallyport: it expired at ": expired, "sallyport: it is no CA": leaf} {
		var out, talk bytes.Buffer
		code := run(t.Context(), []string{"ca", "show", "-"}, strings.NewReader(c.certPEM()), &out, &talk)
		if code != exitNo || !strings.Contains(talk.String(), want) || !strings.Contains(out.String(), "fingerprint") {
			t.Errorf("code %d, no %q in %s%s", code, want, &out, &talk)
		}
		out.Reset()
		code = run(t.Context(), []string{"ca", "show", "--json", "-"}, strings.NewReader(c.certPEM()), &out, &talk)
		if code != exitNo || !strings.Contains(out.String(), `"usable": false`) {
			t.Errorf("code %d: %s", code, &out)
		}
	}
}

// TestBundleReplaces: who reads the file while it is written anew sees the old
// one or the new one, and a failure leaves the old one and no rubbish.
func TestBundleReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b.pem")
	for _, text := range []string{"one", "two"} {
		if err := replaceFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(dir, "d"), []byte("x")); err == nil {
		t.Error("a folder was replaced")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestTrustStore holds the Java trust store against Java's own reader.
func TestTrustStore(t *testing.T) {
	keytool := tool(t, "keytool")
	m := madeFor(t, nil, nil, nil)
	path := filepath.Join(t.TempDir(), "t.jks")
	public, _, err := new(trustBundle).publicRoots(t.Context(), builtin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := trustStore(append(public, m.cert), time.Now())
	if err := os.WriteFile(path, store, 0o600); err != nil {
		t.Fatal(err)
	}
	list := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), keytool, "-J-Duser.language=en", "-list", "-keystore", path, "-storepass", trustStorePassword).CombinedOutput()
		return string(out), err
	}
	out, err := list()
	if err != nil || !strings.Contains(out, fingerprint(m.cert)) || strings.Count(out, "trustedCertEntry") != len(public)+1 {
		t.Errorf("%v: %s", err, out)
	}
	store[len(store)/2] ^= 1
	if err := os.WriteFile(path, store, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := list(); err == nil {
		t.Errorf("a damaged store is read: %s", out)
	}
}

// TestBuiltinRoots: a root that is good for nothing that still lives is not
// handed on to clients that know no such conditions.
func TestBuiltinRoots(t *testing.T) {
	roots, from, err := new(trustBundle).publicRoots(t.Context(), builtin, time.Now())
	if err != nil || len(roots) < 100 || from != builtin {
		t.Errorf("%d roots of %q, %v", len(roots), from, err)
	}
	at := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	until := func(day time.Time) bundle.Root {
		return bundle.Root{Constraint: func(chain []*x509.Certificate) error {
			if chain[0].NotBefore.After(day) {
				return errors.New("issued after the day")
			}
			return nil
		}}
	}
	if distrusted(bundle.Root{}, at) || distrusted(until(at.AddDate(0, -6, 0)), at) || !distrusted(until(at.AddDate(-2, 0, 0)), at) {
		t.Error("not the roots that sign for nothing that lives")
	}
}
