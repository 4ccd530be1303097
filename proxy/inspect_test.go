package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

// testCA makes a CA, and the pool that trusts it.
func testCA(t testing.TB) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	ca := proxytest.Issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}, nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	return ca, pool
}

const (
	testBucketHost = "app-data.s3.us-east-1.amazonaws.com"
	testService    = "s3.us-east-1.amazonaws.com"
)

// s3Rig is a proxy that inspects, before an origin for all of S3's names.
type s3Rig struct {
	*rig
	trust *x509.CertPool // of clients
	port  int
	seen  chan *http.Request
	read  map[string]bool // IDs of the records that a test has read
}

// ended waits for the end of an attempt that the test has not read yet.
func (s *s3Rig) ended(t *testing.T) flow.Record {
	t.Helper()
	rec := s.events.wait(t, "the end of another attempt", func(ev flow.Event) bool {
		return ev.Kind != flow.Opened && !s.read[ev.Record.ID]
	})
	s.read[rec.ID] = true
	return rec
}

func newS3Rig(t *testing.T, conditions string, handler http.HandlerFunc, opts ...func(*Config)) *s3Rig {
	t.Helper()
	originCA, originRoots := testCA(t)
	a, err := newAuthority(originCA)
	if err != nil {
		t.Fatal(err)
	}
	s := &s3Rig{seen: make(chan *http.Request, 100), read: map[string]bool{}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen <- r
		handler(w, r)
	}))
	srv.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		host, err := policy.ParseHost(h.ServerName)
		if err != nil {
			return nil, err
		}
		return a.leaf(host)
	}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s.port = srv.Listener.Addr().(*net.TCPAddr).Port
	ca, trust := testCA(t)
	s.trust = trust
	rules := fmt.Sprintf("  - name: data\n    ports: [%d]\n    resolves_to: [127.0.0.0/8]\n    s3:\n      buckets: [app-data]\n      inspect: true\n%s", s.port, conditions)
	s.rig = newRig(t, rules, append(opts, func(c *Config) { c.CA, c.OriginRoots = ca, originRoots })...)
	for _, name := range []string{testBucketHost, testService, "evil.s3.us-east-1.amazonaws.com"} {
		s.resolver.set(name, "127.0.0.1")
	}
	return s
}

// client returns a client of the proxy that speaks TLS to name, whatever the
// URL says.
func (s *s3Rig) client(name string) *http.Client {
	proxy, err := url.Parse("http://" + s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	t := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: s.trust, ServerName: name}, DisableCompression: true}
	s.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 10 * time.Second}
}

// ask sends a request of method to the bucket's host by CONNECT, with host in
// its Host header.
func (s *s3Rig) ask(c *http.Client, method, host, target string, body io.Reader, fields ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, fmt.Sprintf("https://%s:%d%s", testBucketHost, s.port, target), body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=ASIAY34FZKBOKMUTVV7A/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
		if fields[i+1] == "" {
			r.Header.Del(fields[i])
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(all)
}

func TestInspectCarriesAsSent(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	s := newS3Rig(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			got, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("the origin got %d bytes, %v", len(got), err)
			}
			return
		}
		w.Write(body)
	})
	c := s.client(testBucketHost)
	for range 2 {
		resp, got := s.ask(c, "GET", testBucketHost, "/a/%2e%2e/b%2Fc//d?versionId=x%20y", nil)
		if resp.StatusCode != http.StatusOK || got != string(body) {
			t.Fatalf("%s, %d bytes", resp.Status, len(got))
		}
		r := <-s.seen
		if r.RequestURI != "/a/%2e%2e/b%2Fc//d?versionId=x%20y" || r.Host != testBucketHost || r.TLS.ServerName != testBucketHost {
			t.Errorf("the origin saw %s at %s by %s", r.RequestURI, r.Host, r.TLS.ServerName)
		}
		rec := s.ended(t)
		if rec.S3Call.Operation != "GetObject" || rec.S3Call.Account != "609629065308" || rec.Enforcement() != "inspect" || rec.HTTP.Path != "" || rec.S3Call.Key != "" {
			t.Errorf("record %+v", rec)
		}
	}
	resp, _ := s.ask(c, "PUT", testBucketHost, "/key", bytes.NewReader(body), "Expect", "100-continue")
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	if rec := s.ended(t); rec.S3Call.Operation != "PutObject" || rec.BytesSent != int64(len(body)) {
		t.Errorf("record %+v", rec)
	}
}

func TestInspectRefuses(t *testing.T) {
	s := newS3Rig(t, "      operations: [GetObject, PutObject, CopyObject]\n      accounts: [\"609629065308\"]\n", func(http.ResponseWriter, *http.Request) {})
	put := func() io.Reader { return strings.NewReader(strings.Repeat("x", 1<<20)) }
	foreign := "AWS4-HMAC-SHA256 Credential=ASIAQNZGKIQY56JQ7WML/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"
	for name, tt := range map[string]struct {
		method, host, target string
		body                 io.Reader
		fields               []string
		reason               policy.Reason
	}{
		"another Host":        {"GET", "evil.s3.us-east-1.amazonaws.com", "/k", nil, nil, policy.ReasonS3Bucket},
		"a Host elsewhere":    {"GET", "evil.example", "/k", nil, nil, policy.ReasonNameMismatch},
		"another Region":      {"GET", "app-data.s3.eu-west-1.amazonaws.com", "/k", nil, nil, policy.ReasonNameMismatch},
		"path-style":          {"GET", testService, "/evil/k", nil, nil, policy.ReasonS3Bucket},
		"an encoded bucket":   {"GET", testService, "/%65vil/k", nil, nil, policy.ReasonS3Bucket},
		"an operation":        {"DELETE", testBucketHost, "/k", nil, nil, policy.ReasonS3Operation},
		"a policy":            {"PUT", testBucketHost, "/?policy", put(), nil, policy.ReasonS3Operation},
		"an upload elsewhere": {"PUT", testService, "/evil/k", put(), nil, policy.ReasonS3Bucket},
		"a foreign signer":    {"PUT", testBucketHost, "/k", put(), []string{"Authorization", foreign}, policy.ReasonS3Account},
		"nobody's signature":  {"GET", testBucketHost, "/k", nil, []string{"Authorization", ""}, policy.ReasonS3Account},
		"a foreign source":    {"PUT", testBucketHost, "/k", nil, []string{"X-Amz-Copy-Source", "/evil/k"}, policy.ReasonS3Bucket},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.ask(s.client(testBucketHost), tt.method, tt.host, tt.target, tt.body, tt.fields...)
			var e s3Error
			if err := xml.Unmarshal([]byte(body), &e); err != nil || e.Code != "AccessDenied" || resp.StatusCode != http.StatusForbidden || !strings.Contains(e.Message, string(tt.reason)) {
				t.Errorf("%s %q, %v", resp.Status, body, err)
			}
			rec := s.ended(t)
			if rec.Reason != tt.reason || rec.Verdict != policy.Deny || rec.ID != resp.Header.Get("X-Amz-Request-Id") {
				t.Errorf("record %s %s", rec.Verdict, rec.Reason)
			}
		})
	}
	if len(s.seen) != 0 {
		t.Errorf("the origin saw %s", (<-s.seen).URL)
	}
}

// TestInspectEveryRequest: what the first request on a connection was allowed
// is nothing to the second.
func TestInspectEveryRequest(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	c := s.client(testBucketHost)
	if resp, _ := s.ask(c, "GET", testBucketHost, "/k", nil); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if resp, _ := s.ask(c, "GET", "evil.s3.us-east-1.amazonaws.com", "/k", nil); resp.StatusCode != http.StatusForbidden {
		t.Error(resp.Status)
	}
	if resp, _ := s.ask(c, "GET", testBucketHost, "/k", nil); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// TestInspectFails looks at what is said when one of the two TLS fails.
func TestInspectFails(t *testing.T) {
	t.Run("the client does not trust us", func(t *testing.T) {
		s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
		_, s.trust = testCA(t)
		r, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://%s:%d/", testBucketHost, s.port), nil)
		if resp, err := s.client(testBucketHost).Do(r); err == nil {
			t.Error(resp.Status)
		}
		if rec := s.ended(t); rec.Outcome != flow.OutcomeTLSAlertReceived || rec.EndedBy != flow.EndedByClient || !strings.Contains(rec.Error, "sallyport ca bundle") {
			t.Errorf("record %s by %q: %s", rec.Outcome, rec.EndedBy, rec.Error)
		}
	})
	t.Run("we do not trust the origin", func(t *testing.T) {
		s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
		_, s.Server.inspection.roots = testCA(t)
		resp, body := s.ask(s.client(testBucketHost), "GET", testBucketHost, "/k", nil)
		if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "tls_certificate_error") {
			t.Errorf("%s %s", resp.Status, body)
		}
		if rec := s.ended(t); rec.Outcome != flow.OutcomeTLSCertificateError {
			t.Errorf("record %s: %s", rec.Outcome, rec.Error)
		}
	})
	t.Run("there is no CA", func(t *testing.T) {
		s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
		s.Server.inspection = nil
		r, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://%s:%d/", testBucketHost, s.port), nil)
		if resp, err := s.client(testBucketHost).Do(r); err == nil {
			t.Error(resp.Status)
		}
		if rec := s.ended(t); rec.Outcome != flow.OutcomeInternalError {
			t.Errorf("record %s", rec.Outcome)
		}
	})
}

// TestLeaf checks what a leaf says, by crypto/x509.
func TestLeaf(t *testing.T) {
	ca, pool := testCA(t)
	a, err := newAuthority(ca)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := policy.ParseHost(testBucketHost)
	c, err := a.leaf(host)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: testBucketHost, Roots: pool}); err != nil {
		t.Error(err)
	}
	if again, _ := a.leaf(host); again != c {
		t.Error("it was made twice")
	}
	a.now = func() time.Time { return time.Now().Add(leafLife - leafRenew + time.Minute) }
	again, err := a.leaf(host)
	if err != nil || again == c || again.Leaf.SerialNumber.Cmp(c.Leaf.SerialNumber) == 0 {
		t.Errorf("it is not renewed: %v", err)
	}
	for i := range 2 * leavesKept {
		a.keep(policy.Host{}, c)
		h, _ := policy.ParseHost(fmt.Sprintf("b%d.s3.us-east-1.amazonaws.com", i))
		a.keep(h, c)
	}
	if len(a.leaves) > leavesKept {
		t.Errorf("%d leaves are kept", len(a.leaves))
	}
}

// TestInspectRecordsSilence: who ends TLS with us and asks for nothing has
// still been let through.
func TestInspectRecordsSilence(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	c := s.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n", testBucketHost, s.port))
	readHead(t, c)
	inner := tls.Client(c, &tls.Config{RootCAs: s.trust, ServerName: testBucketHost})
	if err := inner.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	inner.Close()
	if rec := s.ended(t); rec.Outcome != flow.OutcomeConnectionTerminated || rec.EndedBy != flow.EndedByClient || rec.Enforcement() != "inspect" {
		t.Errorf("record %s by %q, %s", rec.Outcome, rec.EndedBy, rec.Enforcement())
	}
}
