package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// awsEnvironment gives the SDK a key and nothing else.
func awsEnvironment(t *testing.T, more map[string]string) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_PROFILE": "", "AWS_CA_BUNDLE": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL_SSM": "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
	} {
		t.Setenv(name, value)
	}
	for name, value := range more {
		if value == "" {
			os.Unsetenv(name) // after Setenv, which puts it back
			continue
		}
		t.Setenv(name, value)
	}
}

// service plays one service of AWS: answer is what it says to a request.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	seen   []*http.Request
}

func newService(t *testing.T, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) set(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// signedFor reports the region and service that the last request was signed for.
func (s *service) signedFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := regexp.MustCompile(`Credential=AKIDTEST/\d{8}/([a-z0-9-]+/[a-z0-9]+)/aws4_request`).FindStringSubmatch(s.seen[len(s.seen)-1].Header.Get("Authorization"))
	if m == nil {
		return "nobody"
	}
	return m[1]
}

// ssmAnswer answers GetParameter as AWS Systems Manager does (AWS JSON 1.1).
func ssmAnswer(status int, body any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
}

func parameter(version int, value string) any {
	return map[string]any{"Parameter": map[string]any{
		"Name": "/egress/policy", "Type": "SecureString", "Value": value, "Version": version, "LastModifiedDate": 1795400000.25,
	}}
}

func fetcherFor(t *testing.T, name string) fetcher {
	t.Helper()
	src, err := parseSource(name)
	if err != nil {
		t.Fatal(err)
	}
	return newFetcher(src, newAWSSession())
}

func TestParameter(t *testing.T) {
	var asked struct {
		Name           string
		WithDecryption bool
	}
	s := newService(t, nil)
	answer := func(version int, value string) {
		s.set(func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameter" {
				t.Errorf("%s: %v", r.Header.Get("X-Amz-Target"), err)
			}
			ssmAnswer(http.StatusOK, parameter(version, value))(w, r)
		})
	}
	awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_SSM": s.URL, "AWS_REGION": "eu-west-1"})
	answer(3, document("a"))
	p := fetcherFor(t, "ssm:/egress/policy")
	got, err := p.fetch(t.Context())
	if err != nil || string(got.data) != document("a") || got.version != "3 of 2026-11-23T02:13:20.250Z" || got.unchanged {
		t.Errorf("%+v, %v", got, err)
	}
	if asked.Name != "/egress/policy" || !asked.WithDecryption || s.signedFor() != "eu-west-1/ssm" {
		t.Errorf("%+v for %s", asked, s.signedFor())
	}
	if got, err = p.fetch(t.Context()); err != nil || !got.unchanged {
		t.Errorf("%+v, %v", got, err)
	}
	// What cannot be unpacked is no new version: it is reported each time.
	answer(4, "H4sIAAAA")
	for range 2 {
		failed, ok := errors.AsType[*sourceError](second(p.fetch(t.Context())))
		if !ok || failed.class != "packed" || failed.transient || failed.hint == "" {
			t.Errorf("%+v", failed)
		}
	}
	answer(5, pack(t, document("b")))
	if got, err = p.fetch(t.Context()); err != nil || string(got.data) != document("b") {
		t.Errorf("%+v, %v", got, err)
	}
	// The region of the source comes before the environment's.
	p = fetcherFor(t, "ssm:/egress/policy?region=us-east-2")
	if _, err = p.fetch(t.Context()); err != nil || s.signedFor() != "us-east-2/ssm" {
		t.Errorf("%s, %v", s.signedFor(), err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestParameterFailures(t *testing.T) {
	denied := map[string]any{"__type": "AccessDeniedException", "Message": "User: arn:aws:sts::111122223333:assumed-role/egress/1 is not authorized to perform: ssm:GetParameter"}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		region string
		want   sourceError
		says   string
	}{
		{"denied", ssmAnswer(400, denied), "us-east-1", sourceError{class: "AccessDeniedException", hint: "ssm:GetParameter on /egress/policy"}, "AccessDeniedException: User: arn:aws:sts::111122223333"},
		{"not there", ssmAnswer(400, map[string]any{"__type": "ParameterNotFound"}), "us-east-1", sourceError{class: "ParameterNotFound", hint: "?region=R"}, "ParameterNotFound"},
		{"throttled", ssmAnswer(400, map[string]any{"__type": "ThrottlingException", "Message": "Rate exceeded"}), "us-east-1", sourceError{class: "ThrottlingException", transient: true, throttled: true}, "ThrottlingException: Rate exceeded"},
		{"broken", ssmAnswer(500, map[string]any{"__type": "InternalServerError"}), "us-east-1", sourceError{class: "InternalServerError", transient: true}, "InternalServerError"},
		{"empty", ssmAnswer(200, map[string]any{}), "us-east-1", sourceError{class: "empty"}, "holds no value"},
		{"not AWS", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>captive portal</html>") }, "us-east-1", sourceError{class: "HTTP 200", transient: true}, "not Systems Manager's"},
		{"another proxy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, "us-east-1", sourceError{class: "HTTP 502", transient: true}, "status 502 that is not"},
		{"no region", nil, "", sourceError{class: "configuration", hint: "AWS_REGION"}, "no AWS Region is known"},
		{"nobody there", nil, "us-east-1", sourceError{class: "unreachable", transient: true, hint: "is there a route to Systems Manager"}, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, tt.answer)
			awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_SSM": s.URL, "AWS_REGION": tt.region})
			if tt.answer == nil {
				s.Close()
			}
			checkFailure(t, second(fetcherFor(t, "ssm:/egress/policy").fetch(t.Context())), tt.want, tt.says)
		})
	}
}

func checkFailure(t *testing.T, err error, want sourceError, says string) {
	t.Helper()
	got, ok := errors.AsType[*sourceError](err)
	if !ok || got.class != want.class || got.transient != want.transient || got.throttled != want.throttled ||
		!strings.Contains(got.hint, want.hint) || !strings.Contains(got.Error(), says) {
		t.Errorf("%v: %+v", err, got)
	}
	if strings.Contains(err.Error(), "RequestID") {
		t.Errorf("the SDK's own words: %v", err)
	}
}

func s3Error(status int, code string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>about %s</Message><RequestId>1</RequestId></Error>`, code, code)
	}
}

func s3Text(etag, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+etag+`"`)
		if r.Header.Get("If-None-Match") == `"`+etag+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, text)
	}
}

func TestObject(t *testing.T) {
	s := newService(t, s3Text("one", document("a")))
	awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_S3": s.URL, "AWS_REGION": "eu-west-1"})
	o := fetcherFor(t, "s3://acme-config/egress/a%20b.yaml?owner=111122223333")
	got, err := o.fetch(t.Context())
	if err != nil || string(got.data) != document("a") || got.version != "one" {
		t.Errorf("%+v, %v", got, err)
	}
	if r := s.seen[0]; r.URL.EscapedPath() != "/acme-config/egress/a%2520b.yaml" || r.Header.Get("X-Amz-Expected-Bucket-Owner") != "111122223333" || s.signedFor() != "eu-west-1/s3" {
		t.Errorf("%s %v", r.URL, r.Header)
	}
	if got, err = o.fetch(t.Context()); err != nil || !got.unchanged {
		t.Errorf("%+v, %v", got, err)
	}
	s.set(s3Text("two", document("b")))
	if got, err = o.fetch(t.Context()); err != nil || string(got.data) != document("b") {
		t.Errorf("%+v, %v", got, err)
	}
}

// A bucket is found in its region, wherever the search begins.
func TestObjectElsewhere(t *testing.T) {
	for _, status := range []int{301, 400} {
		s := newService(t, nil)
		s.set(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.Header.Get("Authorization"), "/ap-southeast-2/s3/") {
				s3Error(status, "PermanentRedirect", "X-Amz-Bucket-Region", "ap-southeast-2")(w, r)
				return
			}
			s3Text("one", document("a"))(w, r)
		})
		for _, region := range []string{"", "eu-west-1"} {
			awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_S3": s.URL, "AWS_REGION": region})
			o, before := fetcherFor(t, "s3://acme-config/p.yaml"), len(s.seen)
			for want := 2; want <= 3; want++ {
				if got, err := o.fetch(t.Context()); err != nil || got.unchanged != (want == 3) {
					t.Errorf("%+v, %v", got, err)
				}
				if n := len(s.seen) - before; n != want {
					t.Errorf("%d requests, want %d", n, want)
				}
			}
		}
		// One who always names another region is not followed in circles.
		s.set(s3Error(status, "PermanentRedirect", "X-Amz-Bucket-Region", "ap-southeast-1"))
		before := len(s.seen)
		checkFailure(t, second(fetcherFor(t, "s3://acme-config/p.yaml").fetch(t.Context())), sourceError{class: "PermanentRedirect"}, "about PermanentRedirect")
		if n := len(s.seen) - before; n != 2 {
			t.Errorf("%d requests", n)
		}
		s.set(s3Error(status, "PermanentRedirect", "X-Amz-Bucket-Region", "evil.test/x"))
		checkFailure(t, second(fetcherFor(t, "s3://acme-config/p.yaml").fetch(t.Context())), sourceError{class: "PermanentRedirect"}, "about PermanentRedirect")
	}
}

func TestObjectFailures(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   sourceError
		says   string
	}{
		{"denied", s3Error(403, "AccessDenied"), sourceError{class: "AccessDenied", hint: "s3:GetObject on acme-config/p.yaml"}, "AccessDenied: about AccessDenied"},
		{"no key", s3Error(404, "NoSuchKey"), sourceError{class: "NoSuchKey", hint: "put the policy there"}, "NoSuchKey"},
		{"no bucket", s3Error(404, "NoSuchBucket"), sourceError{class: "NoSuchBucket", hint: "name a bucket"}, "NoSuchBucket"},
		{"throttled", s3Error(503, "SlowDown"), sourceError{class: "SlowDown", transient: true, throttled: true}, "SlowDown"},
		{"too many", s3Error(429, "Whatever"), sourceError{class: "Whatever", transient: true, throttled: true}, "Whatever"},
		{"broken", s3Error(500, "InternalError"), sourceError{class: "InternalError", transient: true}, "InternalError"},
		{"announced too large", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(maxPolicy+1))
		}, sourceError{class: "too_large"}, "larger than"},
		{"too large", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() // no length is announced
			w.Write(make([]byte, maxPolicy+1))
		}, sourceError{class: "too_large"}, "larger than"},
		{"broken off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, document("a"))
		}, sourceError{class: "broken_off", transient: true}, "broke off"},
		{"false sum", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Checksum-Crc32", "AAAAAA==")
			io.WriteString(w, document("a"))
		}, sourceError{class: "broken_off", transient: true}, "checksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, tt.answer)
			awsEnvironment(t, map[string]string{"AWS_ENDPOINT_URL_S3": s.URL})
			checkFailure(t, second(fetcherFor(t, "s3://acme-config/p.yaml").fetch(t.Context())), tt.want, tt.says)
			if n := len(s.seen); n != 1 {
				t.Errorf("%d requests: the poll is the retry", n)
			}
		})
	}
}

// The task role signs, and its credentials are asked for where the container
// agent says; without any there is a remedy.
func TestTaskRoleSigns(t *testing.T) {
	agent := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"AccessKeyId": "AKIDTEST", "SecretAccessKey": "x", "Token": "session", "Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		})
	})
	s := newService(t, s3Text("one", document("a")))
	environment := map[string]string{
		"AWS_ENDPOINT_URL_S3": s.URL, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.URL + "/role",
	}
	awsEnvironment(t, environment)
	o := fetcherFor(t, "s3://acme-config/p.yaml")
	for range 3 {
		if _, err := o.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.signedFor() != "us-east-1/s3" || s.seen[0].Header.Get("X-Amz-Security-Token") != "session" || len(agent.seen) != 1 {
		t.Errorf("signed for %s, the agent was asked %d times", s.signedFor(), len(agent.seen))
	}
	environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = ""
	awsEnvironment(t, environment)
	checkFailure(t, second(fetcherFor(t, "s3://acme-config/p.yaml").fetch(t.Context())),
		sourceError{class: "credentials", transient: true, hint: "taskRoleArn"}, "no AWS credentials")
}

func pack(t testing.TB, text string) string {
	t.Helper()
	var zipped bytes.Buffer
	w, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(zipped.Bytes())
}

func TestUnpack(t *testing.T) {
	long := document("a") + strings.Repeat("# a comment\n", 1000)
	wrapped := regexp.MustCompile(`.{1,76}`).ReplaceAllString(pack(t, long), "$0\n") // as base64 writes it
	for name, tt := range map[string]struct{ in, want string }{
		"as it is":            {"\n" + document("a"), "\n" + document("a")},
		"empty":               {"", ""},
		"packed":              {pack(t, long), long},
		"packed with wraps":   {wrapped, long},
		"packed from Windows": {strings.ReplaceAll(wrapped, "\n", "\r\n"), long},
	} {
		got, err := unpack(tt.in)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %.40q, %v", name, got, err)
		}
	}
	bomb := pack(t, strings.Repeat("\n", 2*maxPolicy))
	bomb = bomb[:len(bomb)*3/4&^3] // nobody gets as far as to miss its end
	for name, tt := range map[string]struct{ in, class string }{
		"cut short":  {pack(t, long)[:80], "packed"},
		"not base64": {"H4sI!", "packed"},
		"not gzip":   {"H4sIH4sIH4sI", "packed"},
		"trailing":   {pack(t, "abc") + "AAAA", "packed"},
		"bomb":       {bomb, "too_large"},
	} {
		got, err := unpack(tt.in)
		failed, ok := errors.AsType[*sourceError](err)
		if !ok || failed.class != tt.class || got != nil {
			t.Errorf("%s: %.40q, %v", name, got, err)
		}
	}
}

// FuzzUnpack: no text makes it panic or exceed its bound, and what was packed
// is what comes out.
func FuzzUnpack(f *testing.F) {
	for _, seed := range []string{"", document("a"), "H4sI", pack(f, document("a")), "H4sIAAAAAAAA/w=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := unpack(s); err == nil && len(got) > maxPolicy || err != nil && got != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		} else if err == nil && !strings.HasPrefix(s, packed) && string(got) != s {
			t.Error("a text that is not packed was changed")
		}
		if got, err := unpack(pack(t, s)); err != nil || string(got) != s {
			t.Errorf("%q comes out as %q, %v", s, got, err)
		}
	})
}
