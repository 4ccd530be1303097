package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The attacks of a container that wants data out to a bucket of the
// attacker's, through a proxy that looks into TLS. See also
// policy/s3hostile_test.go.

// wireRig is an s3Rig whose origin keeps every byte that it is sent.
type wireRig struct {
	*s3Rig
	mu  sync.Mutex
	got bytes.Buffer
}

// newWireRig is a proxy that lets account 609629065308 put, get and copy
// app-data, and nobody anything else.
func newWireRig(t *testing.T, opts ...func(*Config)) *wireRig {
	t.Helper()
	originCA, originRoots := testCA(t)
	a, err := newAuthority(originCA)
	if err != nil {
		t.Fatal(err)
	}
	w := &wireRig{s3Rig: &s3Rig{read: map[string]bool{}}}
	w.port = tcpOrigin(t, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			host, err := policy.ParseHost(h.ServerName)
			if err != nil {
				return nil, err
			}
			return a.leaf(host)
		}})
		in := bufio.NewReader(io.TeeReader(s, w))
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if _, err := io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	})
	ca, trust := testCA(t)
	w.trust = trust
	w.rig = newRig(t, wireRules(w.port), append(opts, func(c *Config) { c.CA, c.OriginRoots = ca, originRoots })...)
	for _, name := range []string{testBucketHost, testService} {
		w.resolver.set(name, "127.0.0.1")
	}
	return w
}

func wireRules(port int) string {
	return fmt.Sprintf(`  - name: data
    ports: [%d]
    resolves_to: [127.0.0.0/8]
    s3:
      buckets: [app-data]
      inspect: true
      operations: [GetObject, CopyObject, ListObjectsV2]
      accounts: ["609629065308"]
`, port)
}

// Write takes what the origin is sent.
func (w *wireRig) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.Write(p)
}

// take returns what the origin was sent since it was last asked.
func (w *wireRig) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.got.Reset()
	return w.got.String()
}

const testAuthorization = "AWS4-HMAC-SHA256 Credential=ASIAY34FZKBOKMUTVV7A/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"

// readAsS3 reads what came to the origin, without net/http, and returns what is
// wrong with it: every request there must be one that the policy allows.
func readAsS3(got string) (calls []policy.S3Call, problem string) {
	for got != "" {
		head, rest, ok := strings.Cut(got, "\r\n\r\n")
		if !ok {
			return calls, "no whole head"
		}
		lines := strings.Split(head, "\r\n")
		words := strings.Split(lines[0], " ")
		if len(words) != 3 {
			return calls, "request line " + lines[0]
		}
		fields := map[string][]string{}
		for _, line := range lines[1:] {
			name, value, ok := strings.Cut(line, ":")
			if !ok || strings.ContainsAny(name, " \t\r\n") || strings.ContainsAny(value, "\r\n\x00") {
				return calls, fmt.Sprintf("field %q", line)
			}
			name = textproto.CanonicalMIMEHeaderKey(name)
			fields[name] = append(fields[name], strings.TrimSpace(value))
		}
		if len(fields["Host"]) != 1 || len(fields["Content-Length"])+len(fields["Transfer-Encoding"]) > 1 {
			return calls, fmt.Sprintf("Host %q, lengths %q, encodings %q", fields["Host"], fields["Content-Length"], fields["Transfer-Encoding"])
		}
		body := 0
		if l := fields["Content-Length"]; len(l) == 1 {
			if _, err := fmt.Sscanf(l[0], "%d", &body); err != nil || fmt.Sprint(body) != l[0] {
				return calls, "length " + l[0]
			}
		}
		got = rest[min(body, len(rest)):] // what was broken off is nobody's request
		if len(fields["Transfer-Encoding"]) == 1 {
			var trailer string
			var ok bool
			if trailer, got, ok = cutChunks(rest); !ok && strings.Contains(rest, "HTTP") {
				return calls, fmt.Sprintf("chunks %q", rest)
			}
			for name := range strings.SplitSeq(trailer, "\r\n") {
				if strings.HasPrefix(strings.ToLower(name), "x-amz-") {
					return calls, "trailer " + name
				}
			}
		}
		call, err := policy.ParseS3Request(policy.S3Request{
			Method: words[0], Host: fields["Host"][0], Target: words[1],
			Header: func(name string) []string { return fields[name] },
		})
		switch {
		case err != nil:
			return calls, err.Error()
		case call.Ref.Bucket != "app-data", call.Signer.Account != "609629065308",
			!slices.Contains([]string{"GetObject", "CopyObject", "ListObjectsV2"}, call.Operation),
			call.Source.Ref.Form != "" && call.Source.Ref.Bucket != "app-data", call.ACL != "":
			return calls, fmt.Sprintf("%s of %s by %q from %q %s", call.Operation, call.Ref.Bucket, call.Signer.Account, call.Source.Ref.Bucket, call.ACL)
		}
		calls = append(calls, call)
	}
	return calls, ""
}

// cutChunks cuts a chunked body off, and returns its trailer.
func cutChunks(s string) (trailer, rest string, ok bool) {
	for {
		line, after, ok := strings.Cut(s, "\r\n")
		n := 0
		if _, err := fmt.Sscanf(line, "%x", &n); !ok || err != nil {
			return "", "", false
		}
		if n == 0 {
			if strings.HasPrefix(after, "\r\n") {
				return "", after[2:], true
			}
			return strings.Cut(after, "\r\n\r\n")
		}
		if len(after) < n+2 {
			return "", "", false
		}
		s = after[n+2:]
	}
}

// TestHostileRequests sends what one might read and another not, and looks at
// what comes to S3: whatever it is, the policy allows it, and the record says so.
func TestHostileRequests(t *testing.T) {
	const (
		host   = "Host: " + testBucketHost + "\r\n"
		evil   = "Host: evil.s3.us-east-1.amazonaws.com\r\n"
		auth   = "Authorization: " + testAuthorization + "\r\n"
		other  = "Authorization: AWS4-HMAC-SHA256 Credential=ASIAQNZGKIQY56JQ7WML/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00\r\n"
		source = "X-Amz-Copy-Source: /app-data/k\r\n"
		hidden = "PUT /stolen HTTP/1.1\r\n" + evil + other + "Content-Length: 0\r\n\r\n"
		ok     = host + auth
	)
	for name, text := range map[string]string{
		"as it should be": "GET /k HTTP/1.1\r\n" + ok + "\r\n",
		"a copy":          "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: 0\r\n\r\n",
		// Fields that go no further than here must not be judged.
		"hop by hop: the copy's source":      "PUT /k HTTP/1.1\r\n" + ok + source + "Connection: x-amz-copy-source\r\nContent-Length: 4\r\n\r\nevil",
		"hop by hop: the signature":          "GET /k HTTP/1.1\r\n" + ok + "Connection: close, authorization\r\n\r\n",
		"hop by hop: both, in two fields":    "PUT /k HTTP/1.1\r\n" + ok + source + "Connection: X-AMZ-COPY-SOURCE\r\nConnection: keep-alive ,\tAuthorization\r\nContent-Length: 4\r\n\r\nevil",
		"hop by hop: Host":                   "GET /k HTTP/1.1\r\n" + ok + "Connection: Host\r\n\r\n",
		"hop by hop: the length":             "PUT /k HTTP/1.1\r\n" + ok + source + "Connection: content-length, transfer-encoding\r\nContent-Length: 5\r\n\r\n" + "GET /",
		"hop by hop: the length of nothing":  "GET /k HTTP/1.1\r\n" + ok + "Connection: content-length\r\nContent-Length: 0\r\n\r\n",
		"Proxy-Connection":                   "PUT /k HTTP/1.1\r\n" + ok + source + "Proxy-Connection: x-amz-copy-source\r\nContent-Length: 0\r\n\r\n",
		"Te":                                 "PUT /k HTTP/1.1\r\n" + ok + source + "TE: x-amz-copy-source, trailers\r\nContent-Length: 0\r\n\r\n",
		"an upgrade":                         "GET /k HTTP/1.1\r\n" + ok + "Connection: Upgrade, Authorization\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
		"an upgrade to HTTP/2":               "GET /k HTTP/1.1\r\n" + ok + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
		"HTTP/2 by itself":                   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"a trailer: the copy's source":       "PUT /k HTTP/1.1\r\n" + ok + source + "Trailer: X-Amz-Copy-Source, X-Amz-Acl\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Amz-Copy-Source: /evil/k\r\nX-Amz-Acl: public-read\r\n\r\n",
		"a trailer that was not announced":   "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-amz-copy-source: /evil/k\r\nHost: evil\r\nAuthorization: x\r\n\r\n",
		"two lengths":                        "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + hidden,
		"one length twice":                   "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		"a length and chunks":                "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"chunks and identity":                "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden,
		"chunks, in another spelling":        "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
		"chunks, twice":                      "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"an encoding's name with a space":    "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + hidden,
		"a signed length":                    "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: +0\r\n\r\n" + hidden,
		"a length in hexadecimal":            "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: 0x0\r\n\r\n" + hidden,
		"a negative length":                  "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: -1\r\n\r\n" + hidden,
		"a length that overflows":            "PUT /k HTTP/1.1\r\n" + ok + source + "Content-Length: 18446744073709551616\r\n\r\n" + hidden,
		"a chunk that overflows":             "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + hidden,
		"a chunk with a bare LF":             "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: chunked\r\n\r\n0;x\n\r\n" + hidden,
		"a chunk's extension with a request": "PUT /k HTTP/1.1\r\n" + ok + source + "Transfer-Encoding: chunked\r\n\r\n0;\r" + "GET / HTTP/1.1\r\n\r\n",
		"bytes behind a GET":                 "GET /k HTTP/1.1\r\n" + ok + "Content-Length: " + fmt.Sprint(len(hidden)) + "\r\n\r\n" + hidden,
		"a length in HTTP/1.0":               "GET /k HTTP/1.0\r\n" + ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"HTTP/1.0 kept":                      "GET /k HTTP/1.0\r\n" + ok + "Connection: keep-alive\r\n\r\n" + hidden,
		"pipelined":                          "GET /k HTTP/1.1\r\n" + ok + "\r\n" + hidden + "GET /k HTTP/1.1\r\n" + ok + "\r\n",
		"HTTP/0.9":                           "GET /k\r\n" + ok + "\r\n",
		"HTTP/1.2":                           "GET /k HTTP/1.2\r\n" + ok + "\r\n",
		// Lines.
		"a folded source":             "PUT /k HTTP/1.1\r\n" + ok + "X-Amz-Copy-Source:\r\n /evil/k\r\nContent-Length: 0\r\n\r\n",
		"a source folded behind mine": "PUT /k HTTP/1.1\r\n" + ok + "X-Amz-Copy-Source: /app-data/k\r\n /evil/k\r\nContent-Length: 0\r\n\r\n",
		"a folded Host":               "GET /k HTTP/1.1\r\nHost: " + testBucketHost + "\r\n evil\r\n" + auth + "\r\n",
		"a Host folded away":          "GET /k HTTP/1.1\r\n" + auth + "X: y\r\n " + evil + host + "\r\n",
		"a fold before the fields":    "GET /k HTTP/1.1\r\n " + evil + ok + "\r\n",
		"bare LFs":                    "PUT /k HTTP/1.1\nHost: " + testBucketHost + "\n" + strings.TrimSpace(auth) + "\nX-Amz-Copy-Source: /evil/k\nContent-Length: 0\n\n",
		"a bare CR in a field":        "PUT /k HTTP/1.1\r\n" + ok + "X: y\rX-Amz-Copy-Source: /evil/k\r\nContent-Length: 0\r\n\r\n",
		"a bare CR in the target":     "GET /k\rX HTTP/1.1\r\n" + ok + "\r\n",
		"a NUL in a field":            "GET /k HTTP/1.1\r\n" + ok + "X: \x00\r\n\r\n",
		"a field without a name":      "GET /k HTTP/1.1\r\n" + ok + ": x\r\n\r\n",
		"a field without a colon":     "GET /k HTTP/1.1\r\n" + ok + "X-Amz-Copy-Source\r\n\r\n",
		"a name with a space":         "PUT /k HTTP/1.1\r\n" + ok + "X-Amz-Copy-Source : /evil/k\r\nContent-Length: 0\r\n\r\n",
		"a name behind a space":       "PUT /k HTTP/1.1\r\n" + ok + source + " X-Amz-Copy-Source: /evil/k\r\nContent-Length: 0\r\n\r\n",
		"a name with a tab":           "PUT /k HTTP/1.1\r\n" + ok + "X-Amz-Copy-Source\t: /evil/k\r\nContent-Length: 0\r\n\r\n",
		"a name in Latin-1":           "PUT /k HTTP/1.1\r\n" + ok + source + "X-Amz-Copy-S\xf6urce: /evil/k\r\nContent-Length: 0\r\n\r\n",
		"two spaces in the line":      "GET  /k HTTP/1.1\r\n" + ok + "\r\n",
		"a space in the target":       "GET /k HTTP/1.1 HTTP/1.1\r\n" + ok + "\r\n",
		"a tab in the line":           "GET\t/k\tHTTP/1.1\r\n" + ok + "\r\n",
		"an empty line first":         "\r\nGET /k HTTP/1.1\r\n" + ok + "\r\n",
		// Names given twice.
		"two Hosts":              "GET /k HTTP/1.1\r\n" + ok + evil + "\r\n",
		"two Hosts, mine last":   "GET /k HTTP/1.1\r\n" + evil + ok + "\r\n",
		"no Host":                "GET /k HTTP/1.1\r\n" + auth + "\r\n",
		"an empty Host":          "GET /k HTTP/1.1\r\nHost:\r\n" + auth + "\r\n",
		"two signatures":         "GET /k HTTP/1.1\r\n" + ok + other + "\r\n",
		"two signatures of one":  "GET /k HTTP/1.1\r\n" + ok + "Authorization: \r\n\r\n",
		"two sources":            "PUT /k HTTP/1.1\r\n" + ok + source + "X-Amz-Copy-Source: /evil/k\r\nContent-Length: 0\r\n\r\n",
		"forwarded for another":  "GET /k HTTP/1.1\r\n" + ok + "X-Forwarded-Host: evil.s3.us-east-1.amazonaws.com\r\nX-Original-URL: /evil\r\n\r\n",
		"a method overridden":    "GET /k HTTP/1.1\r\n" + ok + "X-HTTP-Method-Override: DELETE\r\n\r\n",
		"credentials of a proxy": "GET /k HTTP/1.1\r\n" + ok + "Proxy-Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n\r\n",
		// Targets.
		"absolute":                         "GET https://" + testBucketHost + "/k HTTP/1.1\r\n" + ok + "\r\n",
		"absolute, for another":            "GET https://evil.s3.us-east-1.amazonaws.com/k HTTP/1.1\r\n" + ok + "\r\n",
		"absolute, and Host for another":   "GET https://" + testBucketHost + "/k HTTP/1.1\r\n" + evil + auth + "\r\n",
		"absolute, by a user":              "GET https://evil@" + testBucketHost + "/k HTTP/1.1\r\n" + host + "\r\n",
		"absolute, without a path":         "GET https://" + testBucketHost + "?list-type=2 HTTP/1.1\r\n" + ok + "\r\n",
		"absolute, another scheme":         "GET http://" + testBucketHost + "/k HTTP/1.1\r\n" + ok + "\r\n",
		"absolute, and a port":             "GET https://" + testBucketHost + ":80/k HTTP/1.1\r\n" + ok + "\r\n",
		"opaque":                           "GET https:evil.s3.us-east-1.amazonaws.com/k HTTP/1.1\r\n" + ok + "\r\n",
		"a Host with a port":               "GET /k HTTP/1.1\r\nHost: " + testBucketHost + ":80\r\n" + auth + "\r\n",
		"a Host with a user":               "GET /k HTTP/1.1\r\nHost: evil@" + testBucketHost + "\r\n" + auth + "\r\n",
		"a Host with a path":               "GET /k HTTP/1.1\r\nHost: " + testBucketHost + "/evil\r\n" + auth + "\r\n",
		"a Host, encoded":                  "GET /k HTTP/1.1\r\nHost: %65vil.s3.us-east-1.amazonaws.com\r\n" + auth + "\r\n",
		"a Host with a comma":              "GET /k HTTP/1.1\r\nHost: " + testBucketHost + ",evil.s3.us-east-1.amazonaws.com\r\n" + auth + "\r\n",
		"a Host in full width":             "GET /k HTTP/1.1\r\nHost: app-data.s3.us-east-1.amazonaws\uff0ecom\r\n" + auth + "\r\n",
		"a Host with a dot":                "GET /k HTTP/1.1\r\nHost: " + testBucketHost + ".\r\n" + auth + "\r\n",
		"a Host in capitals":               "GET /k HTTP/1.1\r\nHost: APP-DATA.S3.us-east-1.AMAZONAWS.COM\r\n" + auth + "\r\n",
		"the service, my bucket":           "GET /app-data/k HTTP/1.1\r\nHost: " + testService + "\r\n" + auth + "\r\n",
		"the service, another bucket":      "GET /evil/k HTTP/1.1\r\nHost: " + testService + "\r\n" + auth + "\r\n",
		"the service, two slashes":         "GET //evil/k HTTP/1.1\r\nHost: " + testService + "\r\n" + auth + "\r\n",
		"the service, two slashes to mine": "GET //app-data/k HTTP/1.1\r\nHost: " + testService + "\r\n" + auth + "\r\n",
		"two slashes that look like hosts": "GET //evil.s3.us-east-1.amazonaws.com/k HTTP/1.1\r\n" + ok + "\r\n",
		"three slashes":                    "GET ///k HTTP/1.1\r\n" + ok + "\r\n",
		"two slashes and odd bytes":        "GET //k|\"<>^`{}\\\xff%7e HTTP/1.1\r\n" + ok + "\r\n",
		"odd bytes":                        "GET /k|\"<>^`{}\\\xff%7e%2f%00 HTTP/1.1\r\n" + ok + "\r\n",
		"a colon first":                    "GET /:80@evil/k HTTP/1.1\r\n" + ok + "\r\n",
		"dots":                             "GET /a/./b/../k HTTP/1.1\r\n" + ok + "\r\n",
		"dots out of the bucket":           "GET /../evil/k HTTP/1.1\r\n" + ok + "\r\n",
		"a fragment":                       "GET /k#?policy HTTP/1.1\r\n" + ok + "\r\n",
		"a semicolon":                      "GET /k?x;policy HTTP/1.1\r\n" + ok + "\r\n",
		"two question marks":               "GET /k?x?policy HTTP/1.1\r\n" + ok + "\r\n",
		"an empty query":                   "GET /k? HTTP/1.1\r\n" + ok + "\r\n",
		"odd bytes in the query":           "GET /?list-type=2&x=|\"<>\xff%00+%2B HTTP/1.1\r\n" + ok + "\r\n",
		"no slash":                         "GET k HTTP/1.1\r\n" + ok + "\r\n",
		"a star":                           "OPTIONS * HTTP/1.1\r\n" + ok + "\r\n",
		"another's CONNECT":                "CONNECT evil.s3.us-east-1.amazonaws.com:443 HTTP/1.1\r\n" + evil + "\r\n",
		"my own CONNECT":                   "CONNECT " + testBucketHost + ":443 HTTP/1.1\r\n" + ok + "\r\n",
		"a CONNECT with a path":            "CONNECT /k HTTP/1.1\r\n" + ok + "\r\n",
		"a method in lower case":           "get /k HTTP/1.1\r\n" + ok + "\r\n",
		"an odd method":                    "GET!#$%&'*+ /k HTTP/1.1\r\n" + ok + "\r\n",
		"TRACE":                            "TRACE /k HTTP/1.1\r\n" + ok + "\r\n",
		"another expectation":              "PUT /k HTTP/1.1\r\n" + ok + source + "Expect: 200-ok\r\nContent-Length: 0\r\n\r\n",
		"a presigned URL of another":       "GET /k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAQNZGKIQY56JQ7WML%2F20261123%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=0 HTTP/1.1\r\n" + ok + "\r\n",
		"an ACL":                           "PUT /k HTTP/1.1\r\n" + ok + source + "x-amz-acl: public-read\r\nContent-Length: 0\r\n\r\n",
		"a very long key":                  "GET /" + strings.Repeat("%2e", 9000) + " HTTP/1.1\r\n" + ok + "\r\n",
		"too long a head":                  "GET /" + strings.Repeat("k", 40<<10) + " HTTP/1.1\r\n" + ok + "\r\n",
		"too many fields":                  "GET /k HTTP/1.1\r\n" + ok + strings.Repeat("X: y\r\n", 300) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) { hostile(t, text) })
	}
}

// hostile sends text on an inspected connection of its own and checks what
// comes of it.
func hostile(t *testing.T, text string) {
	w := newWireRig(t, func(c *Config) { c.Timeouts.Hello = 500 * time.Millisecond })
	c, in := w.raw(t)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text+"GET /last HTTP/1.1\r\nHost: "+testBucketHost+"\r\nAuthorization: "+testAuthorization+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Log(err)
	}
	all, _ := io.ReadAll(in)
	c.Close()
	w.stop()
	<-w.done
	got := w.take()
	calls, problem := readAsS3(got)
	if problem != "" {
		t.Errorf("%s\nthe origin got %q\nthe client got %q", problem, got, all)
	}
	if strings.Contains(got, "Proxy-") {
		t.Errorf("the origin got %q", got)
	}
	events, _ := w.events.list()
	if len(events) == 0 {
		t.Error("there is no record")
	}
	for _, ev := range events {
		r := ev.Record
		switch {
		case ev.Kind != flow.Closed:
		case len(calls) > 0 && r.S3Call.Operation == calls[0].Operation && r.S3.Bucket == calls[0].Ref.Bucket && r.S3Call.SourceBucket == calls[0].Source.Ref.Bucket:
			calls = calls[1:]
		case r.Outcome == flow.OutcomeOK:
			t.Errorf("the record says %s of %s, and the origin got %q", r.S3Call.Operation, r.S3.Bucket, got)
		}
	}
	if len(calls) > 0 {
		t.Errorf("there is no record of %s of %s: %s", calls[0].Operation, calls[0].Ref.Bucket, w.events.text())
	}
}

// ask sends a request for a key and returns the status line of the answer.
func ask(t *testing.T, c net.Conn, in *bufio.Reader, method, target string) string {
	t.Helper()
	if _, err := io.WriteString(c, method+" "+target+signedHead+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status + " " + string(body)
}

// TestHostileConnectInside: inspected TLS is no way to a tunnel.
func TestHostileConnectInside(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	c, in := s.raw(t)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n", testBucketHost, s.port)
	if got := head(t, in); !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "\r\nConnection: close\r\n") {
		t.Errorf("%q", got)
	}
	rec := s.ended(t)
	if rec.Reason != policy.ReasonNotTLS || rec.Verdict != policy.Deny || !rec.Inspected || rec.Host != testBucketHost {
		t.Errorf("record %s %s of %q, inspected %t", rec.Verdict, rec.Reason, rec.Host, rec.Inspected)
	}
}

// TestHostileKeptOrigin: an origin's connection that one policy permitted, or
// one rule, is not gone on with where another does not permit its address.
func TestHostileKeptOrigin(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	rules := func(more string) string {
		return fmt.Sprintf("  - {name: data, ports: [%d], s3: {buckets: [app-data], inspect: true}%s}\n  - {name: other, ports: [%d], s3: {buckets: [other-data], inspect: true}}\n", s.port, more, s.port)
	}
	s.setPolicy(rules(", resolves_to: [127.0.0.0/8]"))
	c, in := s.raw(t)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if got := ask(t, c, in, "GET", "/k"); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	<-s.seen
	// Another rule, which permits no private address, on the same connection.
	io.WriteString(c, strings.Replace("GET /other-data/k"+signedHead, testBucketHost, testService, 1)+"\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(body), string(policy.ReasonAddressProhibited)) {
		t.Errorf("another rule: %s %s", resp.Status, body)
	}
	if got := ask(t, c, in, "GET", "/k"); !strings.HasPrefix(got, "200") {
		t.Fatal(got)
	}
	<-s.seen
	s.setPolicy(rules(""))
	s.PolicyChanged()
	if got := ask(t, c, in, "GET", "/k"); !strings.Contains(got, string(policy.ReasonAddressProhibited)) {
		t.Errorf("another policy: %s", got)
	}
	select {
	case r := <-s.seen:
		t.Errorf("the origin saw %s", r.URL)
	default:
	}
}

// TestHostileTunnelOfBefore: a tunnel that nobody looks into does not outlive
// the policy that wants it looked into.
func TestHostileTunnelOfBefore(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {})
	rules := func(inspect string) string {
		return fmt.Sprintf("  - {name: data, ports: [%d], resolves_to: [127.0.0.0/8], s3: {buckets: [app-data]%s}}\n", s.port, inspect)
	}
	s.setPolicy(rules(""))
	c := s.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\n\r\n", testBucketHost, s.port))
	readHead(t, c)
	inner := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: testBucketHost})
	if err := inner.Handshake(); err != nil {
		t.Fatal(err)
	}
	s.setPolicy(rules(", inspect: true"))
	if n := s.PolicyChanged(); n != 1 {
		t.Errorf("%d tunnels were cut", n)
	}
	_, _ = io.WriteString(inner, "GET /k HTTP/1.1\r\nHost: evil.s3.us-east-1.amazonaws.com\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(inner), nil); err == nil {
		t.Errorf("the origin answers: %s", resp.Status)
	}
	if rec := s.ended(t); rec.EndedBy != flow.EndedByPolicy {
		t.Errorf("ended by %q", rec.EndedBy)
	}
}

// TestHostileRecords: without s3_keys neither records nor the log, whatever its
// level, hold keys, signatures or tokens.
func TestHostileRecords(t *testing.T) {
	const secret = "SeCrEt"
	s := newS3Rig(t, "", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "broken") {
			panic(http.ErrAbortHandler)
		}
	})
	var log logBuffer
	s.deps.Log = zerolog.New(&log)
	for _, text := range []string{
		"GET /" + secret + signedHead + "\r\n",
		"GET /" + secret + "/broken" + signedHead + "\r\n",
		"GET /" + secret + "?X-Amz-Security-Token=" + secret + signedHead + "\r\n",
		"GET /" + secret + "?x;" + secret + signedHead + "\r\n",
		"GET /%zz" + secret + signedHead + "\r\n",
		"GET /?%zz" + secret + signedHead + "\r\n",
		"GET /../" + secret + signedHead + "\r\n",
		"GET https://" + secret + "@" + testBucketHost + "/" + secret + signedHead + "\r\n",
		"GET /k" + strings.Replace(signedHead, "Signature=00", "Signature="+secret, 1) + "\r\n",
		"GET /k" + signedHead + "X-Amz-Security-Token: " + secret + "\r\n\r\n",
		"GET /k" + signedHead + "X-Amz-Security-Token : " + secret + "\r\n\r\n",
		"GET /k" + signedHead + "Proxy-Authorization: Basic " + secret + "\r\n\r\n",
		"GET /k" + signedHead + "Authorization: " + secret + "\r\n\r\n",
		"PUT /k" + signedHead + "X-Amz-Copy-Source: app-data/" + secret + "\r\nContent-Length: 0\r\n\r\n",
		"PUT /k" + signedHead + "X-Amz-Copy-Source: app-data%2F" + secret + "\r\nContent-Length: 0\r\n\r\n",
		"PUT /k" + signedHead + "Transfer-Encoding: chunked\r\n\r\n" + secret + "\r\n",
		"PUT /k" + signedHead + "Content-Length: " + secret + "\r\n\r\n",
		"PUT /k" + signedHead + "Transfer-Encoding: " + secret + "\r\n\r\n",
		"PUT /k" + signedHead + "Expect: " + secret + "\r\nContent-Length: 1\r\n\r\n",
		strings.Replace("GET /app-data%2F"+secret+signedHead, testBucketHost, testService, 1) + "\r\n",
		secret + "\r\n\r\n",
	} {
		c, in := s.raw(t)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, text)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Logf("%q: %v", text, err)
		} else {
			_, _ = io.ReadAll(resp.Body)
		}
		c.Close()
		rec := s.ended(t)
		if strings.Contains(fmt.Sprintf("%+v", rec), secret) {
			t.Errorf("%q\n%+v", text, rec)
		}
	}
	s.stop()
	<-s.done
	if strings.Contains(log.String(), secret) {
		t.Error(log.String())
	}
}

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns what was logged.
func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestHostileHandshakes: whatever a ClientHello asks for, it gets a certificate
// for the name that was decided on, HTTP/1.1, no ticket, and no more time than
// others.
func TestHostileHandshakes(t *testing.T) {
	s := newS3Rig(t, "", func(http.ResponseWriter, *http.Request) {}, func(c *Config) { c.Timeouts.Hello = 500 * time.Millisecond })
	open := func(t *testing.T, name string, cfg *tls.Config) (*tls.Conn, error) {
		c := s.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\n\r\n", name, s.port))
		readHead(t, c)
		cfg.RootCAs = s.trust
		inner := tls.Client(c, cfg)
		err := inner.Handshake()
		return inner, err
	}
	for name, tt := range map[string]struct {
		connect string
		cfg     *tls.Config
		fails   string
	}{
		"capitals":            {strings.ToUpper(testBucketHost), &tls.Config{ServerName: strings.ToUpper(testBucketHost)}, ""},
		"HTTP/2 first":        {testBucketHost, &tls.Config{ServerName: testBucketHost, NextProtos: []string{"h2", "http/1.1"}}, ""},
		"HTTP/2 only":         {testBucketHost, &tls.Config{ServerName: testBucketHost, NextProtos: []string{"h2"}}, "no application protocol"},
		"TLS 1.2":             {testBucketHost, &tls.Config{ServerName: testBucketHost, MaxVersion: tls.VersionTLS12, Renegotiation: tls.RenegotiateFreelyAsClient}, ""},
		"TLS 1.1":             {testBucketHost, &tls.Config{ServerName: testBucketHost, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version"},
		"another bucket":      {testBucketHost, &tls.Config{ServerName: "evil.s3.us-east-1.amazonaws.com"}, "access denied"},
		"a name of the world": {testBucketHost, &tls.Config{ServerName: "www.example.com"}, "access denied"},
		"the service":         {testBucketHost, &tls.Config{ServerName: testService}, "access denied"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := tls.NewLRUClientSessionCache(1)
			tt.cfg.ClientSessionCache = cache
			inner, err := open(t, tt.connect, tt.cfg)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			state := inner.ConnectionState()
			if names := state.PeerCertificates[0].DNSNames; len(names) != 1 || names[0] != testBucketHost || state.NegotiatedProtocol == "h2" {
				t.Errorf("a certificate for %s, and %q", names, state.NegotiatedProtocol)
			}
			if got := ask(t, inner, bufio.NewReader(inner), "GET", "/k"); !strings.HasPrefix(got, "200") {
				t.Error(got)
			}
			<-s.seen
			for key := range strings.SplitSeq(tt.cfg.ServerName+" "+testBucketHost, " ") {
				if _, there := cache.Get(key); there {
					t.Error("there is a ticket")
				}
			}
		})
	}
	t.Run("slow", func(t *testing.T) {
		for name, part := range map[string]func(*tls.Conn, net.Conn){
			"in the handshake": func(_ *tls.Conn, c net.Conn) { io.WriteString(c, "\x16\x03\x01\x02\x00\x01") },
			"after it":         func(inner *tls.Conn, _ net.Conn) { _ = inner.Handshake() },
			"in a head":        func(inner *tls.Conn, _ net.Conn) { io.WriteString(inner, "GET /k HTTP/1.1\r\nX") },
			"in a record": func(inner *tls.Conn, c net.Conn) {
				_ = inner.Handshake()
				io.WriteString(c, "\x17\x03\x03\x01\x00x")
			},
		} {
			c := s.send(fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\n\r\n", testBucketHost, s.port))
			readHead(t, c)
			part(tls.Client(c, &tls.Config{RootCAs: s.trust, ServerName: testBucketHost}), c)
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s: the proxy waits", name)
			}
		}
	})
}
