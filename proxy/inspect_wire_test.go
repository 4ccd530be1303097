package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policy"
)

// raw opens an inspected connection and returns it for the test to write on.
func (s *s3Rig) raw(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "CONNECT %s:%d HTTP/1.1\r\n\r\n", testBucketHost, s.port)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	inner := tls.Client(c, &tls.Config{RootCAs: s.trust, ServerName: testBucketHost})
	return inner, bufio.NewReader(inner)
}

const signedHead = " HTTP/1.1\r\nHost: " + testBucketHost + "\r\n" +
	"Authorization: AWS4-HMAC-SHA256 Credential=ASIAY34FZKBOKMUTVV7A/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00\r\n"

// head reads the head of an answer as it comes.
func head(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	var all strings.Builder
	for {
		line, err := in.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			t.Fatalf("%v after %q", err, all.String())
		}
		if line == "\r\n" {
			return all.String()
		}
	}
}

// TestInspectKeepsLength: a length of 0 may be signed, also where a method has
// no need of it.
func TestInspectKeepsLength(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	c, in := s.raw(t)
	for _, tt := range []struct{ method, field, want string }{
		{"GET", "Content-Length: 0\r\n", "[0]"},
		{"DELETE", "Content-Length: 0\r\n", "[0]"},
		{"PUT", "Content-Length: 0\r\n", "[0]"},
		{"DELETE", "", "[]"},
		{"GET", "", "[]"},
	} {
		io.WriteString(c, tt.method+" /k"+signedHead+tt.field+"\r\n")
		if got := head(t, in); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Fatalf("%s: %q", tt.method, got)
		}
		if got := fmt.Sprint((<-s.seen).Header["Content-Length"]); got != tt.want {
			t.Errorf("%s with %q: the origin saw the lengths %s", tt.method, tt.field, got)
		}
	}
}

// TestInspectKeepsCase: SDKs read metadata's names from the fields' own.
func TestInspectKeepsCase(t *testing.T) {
	s := newS3Rig(t, "", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["x-amz-meta-who-is-it"] = []string{"Me", "You"}
		w.Header()["x-amz-version-id"] = []string{"1"}
	})
	c, in := s.raw(t)
	io.WriteString(c, "GET /k"+signedHead+"\r\n")
	got := head(t, in)
	for _, want := range []string{"\r\nx-amz-meta-who-is-it: Me\r\n", "\r\nx-amz-meta-who-is-it: You\r\n", "\r\nx-amz-version-id: 1\r\n"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if strings.Contains(got, "X-Amz") {
		t.Errorf("%q", got)
	}
}

// TestInspectExpectsNothing: a client asks to be told 100 before a body of no
// bytes. It is, if the origin says so; if it is not, the connection is spent.
func TestInspectExpectsNothing(t *testing.T) {
	s := newS3Rig(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/100" {
			w.WriteHeader(http.StatusContinue)
		}
	})
	const expect = signedHead + "Content-Length: 0\r\nExpect: 100-continue\r\n\r\n"
	c, in := s.raw(t)
	for range 2 { // and the connection goes on
		io.WriteString(c, "PUT /100"+expect)
		if got := head(t, in); got != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("first %q", got)
		}
		if got := head(t, in); !strings.HasPrefix(got, "HTTP/1.1 200 ") || strings.Contains(got, "close") {
			t.Fatalf("then %q", got)
		}
	}
	io.WriteString(c, "PUT /200"+expect)
	if got := head(t, in); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "\r\nConnection: close\r\n") {
		t.Errorf("%q", got)
	}
	c, in = s.raw(t)
	io.WriteString(c, "PUT /?policy"+expect)
	if got := head(t, in); !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "\r\nConnection: close\r\n") {
		t.Errorf("denied: %q", got)
	}
}

// TestInspectUnread: the record of a head that net/http will not read says on
// which connection it came.
func TestInspectUnread(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	c, in := s.raw(t)
	io.WriteString(c, "GET /%zz"+signedHead+"\r\n")
	if got := head(t, in); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("%q", got)
	}
	rec := s.ended(t)
	if rec.Host != testBucketHost || rec.Reason != policy.ReasonS3Opaque || rec.Enforcement() != "inspect" || rec.HTTP.Status != http.StatusBadRequest {
		t.Errorf("record %+v", rec)
	}
}

// TestInspectAnswersSenders: a client that sends a large body without waiting
// to be asked for it, and reads when it is done, finds why it was refused.
func TestInspectAnswersSenders(t *testing.T) {
	s := newS3Rig(t, "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) })
	body := make([]byte, 8<<20)
	for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
		for target, status := range map[string]string{"/?policy": "403", "/early": "409"} {
			c, in := s.raw(t)
			fmt.Fprintf(c, "PUT %s%s%sContent-Length: %d\r\n\r\n", target, signedHead, expect, len(body))
			if _, err := c.Write(body); err != nil {
				t.Errorf("%s with %q: %v", target, expect, err)
			}
			got := head(t, in)
			if strings.HasPrefix(got, "HTTP/1.1 100 ") {
				got = head(t, in)
			}
			if !strings.HasPrefix(got, "HTTP/1.1 "+status) {
				t.Errorf("%s with %q: %q", target, expect, got)
			}
		}
	}
}
