package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// certificate is one that a test makes, with its key.
type certificate struct {
	*x509.Certificate
	key crypto.Signer
}

// issue makes a certificate from a template that shape may change; a nil by means by itself.
func issue(t *testing.T, key crypto.Signer, by *certificate, shape func(*x509.Certificate)) certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, PermittedDNSDomains: []string{"amazonaws.com"},
	}
	if shape != nil {
		shape(template)
	}
	if by == nil {
		by = &certificate{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate{c, key}
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c certificate) certPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (c certificate) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestInspectionForms: every form of certificate and key that is worth having
// is read, from every kind of place.
func TestInspectionForms(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.Subject.CommonName = "root" })
	for name, key := range map[string]crypto.Signer{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521()), "RSA": rsaKey(t, 2048), "Ed25519": ed,
	} {
		t.Run(name, func(t *testing.T) {
			c := issue(t, key, &root, nil)
			forms := []string{c.keyPEM(t), c.certPEM() + c.keyPEM(t)}
			if k, ok := key.(*rsa.PrivateKey); ok {
				forms = append(forms, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})))
			}
			if k, ok := key.(*ecdsa.PrivateKey); ok {
				der, err := x509.MarshalECPrivateKey(k)
				if err != nil {
					t.Fatal(err)
				}
				params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{5, 0}})
				forms = append(forms, string(params)+string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
			}
			for _, form := range forms {
				l, talk := load(t, "", []string{
					"SALLYPORT_INSPECT_CA_FILE=env:SALLYPORT_CA", "SALLYPORT_INSPECT_CA_KEY=env:SALLYPORT_CA_KEY",
					"SALLYPORT_CA=" + c.certPEM(), "SALLYPORT_CA_KEY=" + form,
				})
				if talk != "" {
					t.Fatal(talk)
				}
				ca, roots, err := l.inspection(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if roots != nil || !ca.Leaf.Equal(c.Certificate) || len(ca.Certificate) != 1 || !matches(ca.Leaf, ca.PrivateKey.(crypto.Signer)) {
					t.Errorf("not what was configured: %+v, %v", ca, roots)
				}
				if len(l.warnings) != 0 {
					t.Errorf("warnings %q", l.warnings)
				}
			}
		})
	}
}

func TestInspectionNone(t *testing.T) {
	l, _ := load(t, "", nil)
	if ca, roots, err := l.inspection(t.Context()); ca != nil || roots != nil || err != nil {
		t.Errorf("%v, %v, %v from nothing", ca, roots, err)
	}
}

// TestInspectionOfFiles reads everything from files, with a chain behind the
// CA, of which clients are sent all but the root.
func TestInspectionOfFiles(t *testing.T) {
	root := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.Subject.CommonName = "root" })
	middle := issue(t, ecKey(t, elliptic.P256()), &root, func(c *x509.Certificate) { c.Subject.CommonName = "middle" })
	ca := issue(t, ecKey(t, elliptic.P256()), &middle, nil)
	origin := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.Subject.CommonName = "origins" })
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		return path
	}
	l, talk := load(t, "inspect:\n  ca_file: "+write("ca.pem", ca.certPEM()+middle.certPEM()+root.certPEM(), 0o644)+
		"\n  ca_key_file: "+write("ca.key", ca.keyPEM(t), 0o644)+"\n  origin_ca_file: file:"+write("o.pem", origin.certPEM(), 0o644)+"\n", nil)
	if talk != "" {
		t.Fatal(talk)
	}
	made, roots, err := l.inspection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Certificate) != 2 || !bytes.Equal(made.Certificate[1], middle.Raw) || !made.Leaf.Equal(ca.Certificate) {
		t.Errorf("the chain has %d certificates", len(made.Certificate))
	}
	want := x509.NewCertPool()
	want.AddCert(origin.Certificate)
	if !roots.Equal(want) {
		t.Error("the origins' roots are others")
	}
	if len(l.warnings) != 1 || !strings.Contains(l.warnings[0], "inspect.ca_key_file (file c.yaml:3): every user of the machine may read or write the key (mode 0644)") {
		t.Errorf("warnings %q", l.warnings)
	}
}

func TestInspectionRefuses(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	good := issue(t, key, nil, nil)
	other := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.Subject.CommonName = "other" })
	with := func(shape func(*x509.Certificate)) string { return issue(t, key, nil, shape).certPEM() }
	encrypted := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}))
	legacy := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte{1}}))
	whole := good.keyPEM(t)
	p224, rsa1024 := issue(t, ecKey(t, elliptic.P224()), nil, nil), issue(t, rsaKey(t, 1024), nil, nil)
	tests := []struct {
		name, cert, key string
		want            string
	}{
		{"foreign key", good.certPEM(), other.keyPEM(t), `the key is not that of "CN=test CA" in inspect.ca_file (env SALLYPORT_INSPECT_CA_FILE)`},
		{"no PEM", "nonsense", whole, "inspect.ca_file (env SALLYPORT_INSPECT_CA_FILE): it holds no certificate in PEM"},
		{"key in the place of the certificate", whole, whole, "it holds no certificate in PEM"},
		{"damaged certificate", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Raw[:99]})), whole, "certificate 1: x509"},
		{"empty", "  ", whole, "env:SALLYPORT_CA is empty"},
		{"no key", good.certPEM(), good.certPEM(), "inspect.ca_key (env SALLYPORT_INSPECT_CA_KEY): it holds no private key in PEM"},
		{"line breaks lost", good.certPEM(), strings.ReplaceAll(whole, "\n", " "), "it holds no private key in PEM"},
		{"encrypted", good.certPEM(), encrypted, "the key is encrypted"},
		{"encrypted as of old", good.certPEM(), legacy, "the key is encrypted"},
		{"OpenSSH", good.certPEM(), string(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte{1}})), "a key of OpenSSH"},
		{"cut", good.certPEM(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0x82, 0x01}})), "cut short or damaged"},
		{"other kind", good.certPEM(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0}})), "of a kind that is not known"},
		{"no CA", with(func(c *x509.Certificate) { c.IsCA, c.PermittedDNSDomains = false, nil }), whole, `"CN=test CA" is no CA`},
		{"no basic constraints", with(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid, c.PermittedDNSDomains = false, false, nil }), whole, "is no CA"},
		{"no certSign", with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), whole, "its key usage lacks keyCertSign"},
		{"expired", with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), whole, "expired at 20"},
		{"not yet", with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), whole, "is not valid before 20"},
		{"for clients", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), whole, "lacks serverAuth"},
		{"for something", with(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }), whole, "lacks serverAuth"},
		{"other names", with(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"corp.example"} }), whole, "permits names below corp.example only"},
		{"critical extension", with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), whole, "a critical extension that clients do not know, 1.2.3.4"},
		{"P-224", p224.certPEM(), p224.keyPEM(t), "on a curve that TLS does not take, P-224"},
		{"RSA 1024", rsa1024.certPEM(), rsa1024.keyPEM(t), "an RSA key of 1024 bits; 2048 are the least"},
		{"bundle", good.certPEM() + other.certPEM(), whole, `certificate 2, "CN=other", did not sign the one before it`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, talk := load(t, "", []string{
				"SALLYPORT_INSPECT_CA_FILE=env:SALLYPORT_CA", "SALLYPORT_INSPECT_CA_KEY=env:SALLYPORT_CA_KEY",
				"SALLYPORT_CA=" + tt.cert, "SALLYPORT_CA_KEY=" + tt.key,
			})
			if talk != "" {
				t.Fatal(talk)
			}
			ca, roots, err := l.inspection(t.Context())
			var said strings.Builder
			if code := report(&said, err); code != exitUsage || ca != nil || roots != nil {
				t.Errorf("code %d, %v, %v", code, ca, roots)
			}
			if !strings.Contains(said.String(), tt.want) {
				t.Errorf("no %q in %s", tt.want, &said)
			}
			leaks(t, said.String(), tt.key)
		})
	}
}

// leaks fails the test when a text holds a piece of what is secret.
func leaks(t *testing.T, text, secret string) {
	t.Helper()
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); len(line) > 12 && !strings.Contains(line, "-----") && strings.Contains(text, line) {
			t.Errorf("%q is told in %s", line, text)
		}
	}
	if strings.Contains(text, "-----BEGIN") {
		t.Errorf("PEM is told in %s", text)
	}
}

func TestInspectionUnread(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"no file", "{ca_file: none.pem, ca_key: 'env:X'}", "inspect.ca_file (file c.yaml:1): open none.pem: no such file"},
		{"no variable", "{ca_file: 'env:NOT_THERE', ca_key: 'env:X'}", "inspect.ca_file (file c.yaml:1): the variable NOT_THERE is not set"},
		{"no roots", "{origin_ca_file: none.pem}", "inspect.origin_ca_file (file c.yaml:1): open none.pem"},
		{"roots of nothing", "{origin_ca_file: c.yaml}", "inspect.origin_ca_file (file c.yaml:1): it holds no certificate"},
		{"both", "{origin_ca_file: none.pem, ca_file: none.pem, ca_key: 'env:X'}", "inspect.ca_file (file c.yaml:1): open none.pem: no such file or directory\nsallyport: inspect.origin_ca_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, talk := load(t, "inspect: "+tt.file, nil)
			if talk != "" {
				t.Fatal(talk)
			}
			_, _, err := l.inspection(t.Context())
			var said strings.Builder
			if code := report(&said, err); code != exitUsage || !strings.Contains(said.String(), tt.want) {
				t.Errorf("code %d, no %q in %s", code, tt.want, &said)
			}
		})
	}
}

// TestKeyInThePlaceOfItsReference: whoever puts the key itself where a
// reference belongs is told so, and finds no piece of it anywhere.
func TestKeyInThePlaceOfItsReference(t *testing.T) {
	key := issue(t, ecKey(t, elliptic.P256()), nil, nil).keyPEM(t)
	indented := strings.ReplaceAll(key, "\n", "\n    ")
	for _, name := range []string{"ca_key", "ca_key_file", "ca_file", "origin_ca_file"} {
		_, talk := load(t, "", []string{"SALLYPORT_INSPECT_" + strings.ToUpper(name) + "=" + key})
		_, said := load(t, "inspect:\n  "+name+": |\n    "+indented, nil)
		for _, text := range []string{talk, said} {
			if !strings.Contains(text, "it holds PEM itself, where a reference to it belongs") {
				t.Errorf("%s: %s", name, text)
			}
			leaks(t, text, key)
		}
	}
	base64 := strings.Split(key, "\n")[1]
	_, talk := load(t, "", []string{"SALLYPORT_INSPECT_CA_KEY=" + base64})
	leaks(t, talk, base64)
}

func TestDoubts(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	root := issue(t, ecKey(t, elliptic.P256()), nil, func(c *x509.Certificate) { c.Subject.CommonName = "root" })
	at := time.Now()
	tests := []struct {
		name  string
		shape func(*x509.Certificate)
		want  string
	}{
		{"none", func(*x509.Certificate) {}, ""},
		{"soon", func(c *x509.Certificate) { c.NotAfter = at.Add(10*24*time.Hour - time.Minute) }, "expires within 10 days"},
		{"not soon", func(c *x509.Certificate) { c.NotAfter = at.Add(31 * 24 * time.Hour) }, ""},
		{"unconstrained", func(c *x509.Certificate) { c.PermittedDNSDomains = nil }, "has no name constraints"},
		{"no usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, "lacks keyUsage"},
		{"Region's names", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{".s3.us-east-1.amazonaws.com"} }, ""},
		{"everything's name", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"com"} }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wrong, doubts := examineCA(issue(t, key, &root, tt.shape).Certificate, at)
			if len(wrong) != 0 || len(doubts) > 1 || (tt.want == "") != (len(doubts) == 0) || (tt.want != "" && !strings.Contains(doubts[0].what, tt.want)) {
				t.Errorf("wrong %q, doubts %q, want %q", wrong, doubts, tt.want)
			}
		})
	}
}

func TestDoubtOfRoots(t *testing.T) {
	_, doubts := examineCA(issue(t, ecKey(t, elliptic.P256()), nil, nil).Certificate, time.Now())
	if len(doubts) != 1 || !strings.Contains(doubts[0].what, "is a root, whose name constraints") {
		t.Errorf("doubts %q", doubts)
	}
}

// TestProxyIsHanded what the configuration says of inspection.
func TestProxyIsHanded(t *testing.T) {
	l, talk := load(t, "logging: {s3_keys: true}", nil)
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if talk != "" || err != nil {
		t.Fatal(talk, err)
	}
	defer admin.Close()
	d := &daemon{cfg: l, ca: new(tls.Certificate), originRoots: x509.NewCertPool(), admin: admin}
	if c := d.proxyConfig(); c.CA != d.ca || c.OriginRoots != d.originRoots || !c.S3Keys {
		t.Errorf("the proxy gets %+v", c)
	}
}

const inspectingPolicy = "version: 1\nrules:\n  - {name: data, s3: {buckets: [acme-data], regions: [us-east-1], inspect: true}}\n  - {name: more, s3: {buckets: [acme-more], regions: [us-east-1], inspect: true}}\n"

func TestAdmit(t *testing.T) {
	p, err := policy.Load(policy.Text{Name: "p.yaml", Data: []byte(inspectingPolicy)})
	if err != nil {
		t.Fatal(err)
	}
	l := &loaded{}
	var said strings.Builder
	if code := report(&said, l.admit(p)); code != exitUsage {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{`p.yaml:3:5: the rule "data" says inspect: true, as do 1 more, and no CA is configured (inspect.ca_file)`, "hint: set inspect.ca_file"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in %s", want, &said)
		}
	}
	l.Inspect.CAFile = "ca.pem"
	if err := l.admit(p); err != nil {
		t.Error(err)
	}
}

// TestReloadRefusesWhatCannotBeInspected: the last good policy stays in force.
func TestReloadRefusesWhatCannotBeInspected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, 5*time.Second)
		r.set(inspectingPolicy, nil)
		after(time.Minute)
		if r.rule() != "first" || r.swaps != 0 || r.metrics != (counts{failed: 1}) {
			t.Errorf("rule %s, %d swaps, %+v", r.rule(), r.swaps, r.metrics)
		}
		for _, want := range []string{"policy refused", `the rule \"data\"`, "inspect.ca_file", `"hint":"set inspect.ca_file`} {
			if r.said(want) == 0 {
				t.Errorf("no %s in %s", want, &r.log)
			}
		}
	})
}

// secrets plays AWS Secrets Manager: it answers GetSecretValue as the service
// does (AWS JSON 1.1).
func secrets(t *testing.T, answer func(id string) (status int, body map[string]any)) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			SecretID string `json:"SecretId"`
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &ask) != nil || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" ||
			!regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=AKIDTEST/\d{8}/[a-z0-9-]+/secretsmanager/aws4_request`).MatchString(r.Header.Get("Authorization")) {
			t.Errorf("asked %s with %q: %s", r.Header.Get("X-Amz-Target"), r.Header.Get("Authorization"), body)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("X-Region", strings.Split(r.Header.Get("Authorization"), "/")[2])
		status, answer := answer(ask.SecretID)
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": server.URL, "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_MAX_ATTEMPTS": "1", "AWS_CA_BUNDLE": "",
	} {
		t.Setenv(name, value)
	}
	return server
}

func TestSecretsManager(t *testing.T) {
	c := issue(t, ecKey(t, elliptic.P256()), nil, nil)
	const arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:egress/ca-AbCdEf"
	secrets(t, func(id string) (int, map[string]any) {
		switch id {
		case arn:
			return http.StatusOK, map[string]any{"ARN": arn, "SecretString": c.keyPEM(t)}
		case "egress/ca":
			return http.StatusOK, map[string]any{"Name": id, "SecretBinary": []byte(c.certPEM())} // base64 in JSON, as the service has it
		}
		return http.StatusBadRequest, map[string]any{"__type": "ResourceNotFoundException", "Message": "Secrets Manager can't find the specified secret."}
	})
	l, talk := load(t, "inspect: {ca_file: 'secretsmanager:egress/ca', ca_key: 'secretsmanager:"+arn+"'}", []string{"AWS_REGION=us-east-1"})
	if talk != "" {
		t.Fatal(talk)
	}
	ca, _, err := l.inspection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !ca.Leaf.Equal(c.Certificate) {
		t.Error("not the CA that the secret holds")
	}
	if _, err := readSecret(t.Context(), "egress/none"); err == nil || !strings.Contains(err.Error(), "secret egress/none: ") || !strings.Contains(err.Error(), "looked up in the task's own Region") {
		t.Errorf("a secret that is not there: %v", err)
	}
}

func TestSecretsManagerRefuses(t *testing.T) {
	tests := []struct {
		name, region, id string
		status           int
		body             map[string]any
		want             string
	}{
		{"denied", "us-east-1", "x", 400, map[string]any{"__type": "AccessDeniedException", "Message": "User is not authorized"}, "the task role needs secretsmanager:GetSecretValue"},
		{"no Region", "", "x", 200, nil, "no AWS Region is known"},
		{"empty", "us-east-1", "x", 200, map[string]any{"Name": "x"}, "secret x is empty"},
		{"broken", "us-east-1", "x", 500, map[string]any{"__type": "InternalServiceError"}, "InternalServiceError"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			secrets(t, func(string) (int, map[string]any) { return tt.status, tt.body })
			t.Setenv("AWS_REGION", tt.region)
			if text, err := readSecret(t.Context(), tt.id); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, %v, want %q", text, err, tt.want)
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		secrets(t, func(string) (int, map[string]any) { return 200, nil })
		t.Setenv("AWS_REGION", "us-east-1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := readSecret(ctx, "x"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestSecretsGoDirect: HTTPS_PROXY in the proxy's own environment, perhaps
// itself, has no part in how it gets its key.
func TestSecretsGoDirect(t *testing.T) {
	if directClient().GetTransport().Proxy != nil {
		t.Error("secrets are asked for through a proxy")
	}
}

func TestSecretRegion(t *testing.T) {
	for id, want := range map[string]string{
		"arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:a-b": "cn-north-1", "a/b": "", "arn:aws:secretsmanager": "", "": "",
	} {
		if got := secretRegion(id); got != want {
			t.Errorf("%q is of %q, want %q", id, got, want)
		}
	}
}
