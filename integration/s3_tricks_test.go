package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// trick is a request, or some, by curl. The last of them must be refused, and
// never come to the server.
type trick struct {
	name   string
	host   string // that the connection is for
	args   []string
	reason string
}

func s3Tricks() []trick {
	const bucket, service = s3Data + "." + s3Service, s3Service
	at := func(host, target string, more ...string) []string {
		return append(more, "https://"+host+target)
	}
	as := func(host string) string { return "Host: " + host }
	return []trick{
		{"another bucket's Host", bucket, at(bucket, "/k", "-H", as(s3Other+"."+s3Service)), "s3_bucket"},
		{"another bucket's Host, with a port", bucket, at(bucket, "/k", "-H", as(s3Other+"."+s3Service+":443")), "s3_bucket"},
		{"another bucket's Host, with a dot", bucket, at(bucket, "/k", "-H", as(s3Other+"."+s3Service+".")), "s3_bucket"},
		{"another bucket's Host, in capitals", bucket, at(bucket, "/k", "-H", as(strings.ToUpper(s3Other+"."+s3Service))), "s3_bucket"},
		{"the service's Host", bucket, at(bucket, "/other-data/k", "-H", as(service)), "s3_bucket"},
		{"a bucket's Host at the service", service, at(service, "/k", "-H", as(s3Other+"."+s3Service)), "s3_bucket"},
		{"the Host of another Region", bucket, at(bucket, "/k", "-H", as(s3Data+".s3.eu-west-1.amazonaws.com")), "name_mismatch"},
		{"the Host of another service", bucket, at(bucket, "/k", "-H", as("dynamodb.us-east-1.amazonaws.com")), "name_mismatch"},
		{"a Host that ends otherwise", bucket, at(bucket, "/k", "-H", as(bucket+".evil.example")), "name_mismatch"},
		{"a Host that is an address", bucket, at(bucket, "/k", "-H", as("127.0.0.1")), "name_mismatch"},
		{"a bucket that looks like a host", service, at(service, "/"+s3Data+"."+s3Service+"/k"), "s3_bucket"},
		{"an absolute target", bucket, at(bucket, "/k", "--request-target", "https://"+s3Other+"."+s3Service+"/k"), "s3_bucket"},
		{"an absolute target at the service", service, at(service, "/app-data/k", "--request-target", "https://"+service+"/other-data/k"), "s3_bucket"},
		{"an encoded bucket", service, at(service, "/%6fther-data/k", "--path-as-is"), "s3_bucket"},
		{"a bucket that is encoded twice", service, at(service, "/%256fther-data/k", "--path-as-is"), "s3_bucket"},
		{"an encoded slash", service, at(service, "/app-data%2Fk", "--path-as-is"), "s3_bucket"},
		{"out by dots", service, at(service, "/app-data/../other-data/k", "--path-as-is"), "s3_opaque"},
		{"out by encoded dots", service, at(service, "/app-data/%2e%2e/other-data/k", "--path-as-is"), "s3_opaque"},
		{"out by encoded dots and slashes", service, at(service, "/app-data/..%2F..%2Fother-data/k", "--path-as-is"), "s3_opaque"},
		{"out by dots behind a folder", service, at(service, "/app-data/x/../../other-data/k", "--path-as-is"), "s3_opaque"},
		{"dots before the bucket", service, at(service, "/../other-data/k", "--path-as-is"), "s3_bucket"},
		{"two slashes before the bucket", service, at(service, "//other-data/k", "--path-as-is"), "s3_opaque"},
		{"two slashes before a bucket that is listed", service, at(service, "//app-data/k", "--path-as-is"), "s3_opaque"},
		{"a bucket in capitals", service, at(service, "/APP-DATA/k"), "s3_bucket"},
		{"a policy", bucket, at(bucket, "/?policy", "-X", "PUT", "-d", "{}"), "s3_operation"},
		{"a policy, with a value", bucket, at(bucket, "/?policy=x", "-X", "PUT", "-d", "{}"), "s3_operation"},
		{"an encoded policy", bucket, at(bucket, "/?%70olicy", "-X", "PUT", "-d", "{}"), "s3_operation"},
		{"a policy behind a harmless word", bucket, at(bucket, "/?x-id=PutObject&policy", "-X", "PUT", "-d", "{}"), "s3_operation"},
		{"a policy behind a semicolon", bucket, at(bucket, "/?x;policy", "-X", "PUT", "-d", "{}"), "s3_operation"},
		{"an ACL", bucket, at(bucket, "/k?acl", "-X", "PUT", "-H", "x-amz-acl: public-read"), "s3_operation"},
		{"an ACL in the query", bucket, at(bucket, "/k?X-Amz-Acl=public-read", "-X", "PUT", "-d", "x"), "s3_operation"},
		{"a grant", bucket, at(bucket, "/k", "-X", "PUT", "-d", "x", "-H", `x-amz-grant-read: uri="http://acs.amazonaws.com/groups/global/AllUsers"`), "s3_operation"},
		{"a replication", bucket, at(bucket, "/?replication", "-X", "PUT", "-d", "<x/>"), "s3_operation"},
		{"two resources", bucket, at(bucket, "/?acl&policy", "-X", "PUT", "-d", "<x/>"), "s3_operation"},
		{"another method", bucket, at(bucket, "/k", "-X", "PATCH"), "s3_operation"},
		{"a method of another case", bucket, at(bucket, "/k", "-X", "put", "-d", "x"), "s3_operation"},
		{"a form", bucket, at(bucket, "/", "-F", "key=k", "-F", "file=x"), "s3_operation"},
		{"two copy sources", bucket, at(bucket, "/k", "-X", "PUT", "-H", "x-amz-copy-source: app-data/k", "-H", "x-amz-copy-source: other-data/k"), "s3_operation"},
		{"a copy source in the query", bucket, at(bucket, "/k?x-amz-copy-source=other-data/k", "-X", "PUT", "-d", "x"), "s3_operation"},
		{"a copy source that climbs", bucket, at(bucket, "/k", "-X", "PUT", "-H", "x-amz-copy-source: app-data/../other-data/k"), "s3_bucket"},
		{"signed twice", bucket, at(bucket, "/k?AWSAccessKeyId=AKIDEXAMPLE&Signature=x&Expires=1"), "s3_account"},
	}
}

// TestS3Tricks sends signed requests that somebody on the way might read in
// another way than S3 does. Directly each of them comes to the server.
func TestS3Tricks(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	s := newS3World(t, true, strictRules)
	s.seed(t)
	for _, tt := range s3Tricks() {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{
				"-sSi", "--max-time", "60", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", s.ours.id + ":" + s.ours.secret,
				"-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
			}, tt.args...)
			s.run(t, s.way("direct"), s.ours, command{path: curl, args: args}).succeeds(t)
			if len(s.take()) == 0 {
				t.Error("directly nothing came to the server")
			}
			for _, way := range s.proxied() {
				s.run(t, way, s.ours, command{path: curl, args: args}).succeeds(t,
					" 403 Forbidden", "<Code>AccessDenied</Code>", "<Message>sallyport: ", "("+tt.reason+")")
				s.refused(t, way, tt.host, tt.reason)
			}
		})
	}
}

// TestS3KeptConnection: what the first request on a connection was allowed is
// nothing to those behind it, pipelined or not.
func TestS3KeptConnection(t *testing.T) {
	t.Parallel()
	s := newS3World(t, true, `
  - name: data
    resolves_to: [127.0.0.0/8]
    s3: {buckets: [app-data], inspect: true, anonymous: allow}
`)
	s.seed(t)
	const host = s3Data + "." + s3Service
	request := func(method, target, host string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, target, host)
	}
	for _, way := range s.proxied() {
		t.Run(way.name, func(t *testing.T) {
			c, in := s.open(t, way, host)
			for i, tt := range []struct {
				request string
				status  int
				reason  string
			}{
				{request("GET", "/k", host), http.StatusForbidden, ""}, // the server's own no: nobody signed
				{request("GET", "/k", s3Other+"."+s3Service), http.StatusForbidden, "s3_bucket"},
				{request("GET", "/app-data/k", s3Service), http.StatusForbidden, ""},
				{request("GET", "/other-data/k", s3Service), http.StatusForbidden, "s3_bucket"},
				{request("PUT", "/?policy", host), http.StatusForbidden, "s3_operation"},
				{request("GET", "/k", host), http.StatusForbidden, ""},
			} {
				if _, err := io.WriteString(c, tt.request); err != nil {
					t.Fatal(err)
				}
				s.answered(t, in, i, tt.status, tt.reason)
				if tt.reason != "" {
					s.refused(t, way, host, tt.reason)
					continue
				}
				s.r.allowed(host, way.via)
				if seen := s.take(); len(seen) != 1 || seen[0].sni != host {
					t.Errorf("request %d: the server saw %v", i, seen)
				}
			}
			// And all at once.
			c, in = s.open(t, way, host)
			if _, err := io.WriteString(c, request("GET", "/k", host)+request("GET", "/k", s3Other+"."+s3Service)+request("GET", "/k", host)); err != nil {
				t.Fatal(err)
			}
			for i, reason := range []string{"", "s3_bucket", ""} {
				s.answered(t, in, i, http.StatusForbidden, reason)
			}
			s.r.allowed(host, way.via)
			s.r.denied(host, way.via, "s3_bucket")
			s.r.allowed(host, way.via)
			for _, r := range s.take() {
				if r.header.Get("Host") != host {
					t.Errorf("the server saw %v", r)
				}
			}
		})
	}
}

// answered reads an answer: ours with a reason, the server's without.
func (s *inspectingWorld) answered(t *testing.T, in *bufio.Reader, i, status int, reason string) {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("request %d: %v", i, err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || strings.Contains(string(text), "sallyport") != (reason != "") || !strings.Contains(string(text), reason) {
		t.Errorf("request %d: %s %q, %v", i, resp.Status, text, err)
	}
}

// TestS3Unreadable: net/http itself refuses what it cannot read, and the record
// says where it came.
func TestS3Unreadable(t *testing.T) {
	t.Parallel()
	s := newS3World(t, true, strictRules)
	s.take()
	for _, way := range s.proxied() {
		for name, text := range map[string]string{
			"an encoding that is none":  "GET /app-data%zz/k HTTP/1.1\r\nHost: " + s3Service + "\r\n\r\n",
			"no Host":                   "GET /app-data/k HTTP/1.1\r\n\r\n",
			"two Hosts":                 "GET /app-data/k HTTP/1.1\r\nHost: " + s3Service + "\r\nHost: " + s3Service + "\r\n\r\n",
			"two lengths":               "PUT /app-data/k HTTP/1.1\r\nHost: " + s3Service + "\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
			"a line that is folded":     "GET /app-data/k HTTP/1.1\r\nHost: " + s3Service + "\r\nAuthorization: AWS4-HMAC-SHA256\r\n x\r\n\r\n",
			"a space before the colon":  "GET /app-data/k HTTP/1.1\r\nHost : " + s3Service + "\r\n\r\n",
			"another transfer encoding": "PUT /app-data/k HTTP/1.1\r\nHost: " + s3Service + "\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
			"HTTP/2":                    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		} {
			t.Run(way.name+"/"+name, func(t *testing.T) {
				c, in := s.open(t, way, s3Service)
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil || resp.StatusCode < 400 {
					t.Errorf("%v, %v", resp, err)
				}
				if l := s.r.endedVia(s3Service, way.via); l.Event.Name != "flow.deny" || l.Sallyport.Enforcement != "inspect" {
					t.Errorf("the record: %s", l.text)
				}
				s.untouched(t)
			})
		}
	}
}

// open opens an inspected connection for host on a way.
func (s *inspectingWorld) open(t *testing.T, way s3Way, host string) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	addr := way.addr + ":443"
	if way.proxy != "" {
		addr = s.r.addr
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if way.proxy != "" {
		fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\n\r\n", host)
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("CONNECT %s: %v %v", host, resp, err)
		}
	}
	inner := tls.Client(c, &tls.Config{RootCAs: way.roots, ServerName: host})
	return inner, bufio.NewReader(inner)
}
