package proxy

import (
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policy"
)

const evilHost = "evil.s3.us-east-1.amazonaws.com"

// TestDeniedBucketIsToldInside: a client that asks for a bucket which no rule
// lists, as SDKs do, is told so by S3's own error, and its name is not looked up.
func TestDeniedBucketIsToldInside(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	for _, method := range []string{"GET", "PUT", "HEAD"} {
		var body io.Reader
		if method == "PUT" {
			body = strings.NewReader(strings.Repeat("x", 4<<20))
		}
		r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("https://%s:%d/k", evilHost, s.port), body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client(evilHost).Do(r)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		all, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		rec := s.ended(t)
		if rec.Reason != policy.ReasonS3Bucket || rec.Verdict != policy.Deny || rec.ID != resp.Header.Get("X-Amz-Request-Id") {
			t.Errorf("%s: record %s %s", method, rec.Verdict, rec.Reason)
		}
		var e s3Error
		if err := xml.Unmarshal(all, &e); method != "HEAD" && (err != nil || e.Code != "AccessDenied" || !strings.Contains(e.Message, "s3_bucket")) {
			t.Errorf("%s: %s, %v", method, all, err)
		}
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
	if n := s.resolver.total(); n != 0 {
		t.Errorf("the denied name was looked up %d times", n)
	}
}

// TestDeniedBucketElsewhereIsNot: nobody's TLS is ended for an endpoint at which
// nothing is inspected, and other names inside are none of the CONNECT's.
func TestDeniedBucketElsewhereIsNot(t *testing.T) {
	s := newS3Rig(t, "      regions: [us-east-1]\n", func(http.ResponseWriter, *http.Request) {})
	got := s.exchange(fmt.Sprintf("CONNECT evil.s3.eu-west-1.amazonaws.com:%d HTTP/1.1\r\nHost: x\r\n\r\n", s.port))
	if !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("CONNECT is answered %q", got)
	}
	c := s.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n", evilHost, s.port))
	readHead(t, c)
	if err := tls.Client(c, &tls.Config{RootCAs: s.trust, ServerName: testBucketHost}).HandshakeContext(t.Context()); err == nil {
		t.Error("TLS for another name is answered")
	}
}
