package integration

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
)

// gate stands before a service of AWS: it counts answers by their status, and
// refuses what the test tells it to.
type gate struct {
	*httptest.Server
	mu      sync.Mutex // guards the rest
	refuse  http.HandlerFunc
	answers map[int]int
}

func newGate(t *testing.T, service http.Handler) *gate {
	t.Helper()
	g := &gate{answers: map[int]int{}}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		refuse := g.refuse
		g.mu.Unlock()
		counted := &countedAnswer{ResponseWriter: w, status: http.StatusOK}
		if refuse != nil {
			refuse(counted, r)
		} else {
			service.ServeHTTP(counted, r)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.answers[counted.status]++
	}))
	t.Cleanup(g.Close)
	return g
}

type countedAnswer struct {
	http.ResponseWriter
	status int
}

func (c *countedAnswer) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// down lets nothing through: the connection ends without an answer.
func down(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func (g *gate) set(refuse http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse = refuse
}

func (g *gate) answered(status int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answers[status]
}

// awaitAnswers waits for n more answers of a status.
func (g *gate) awaitAnswers(t *testing.T, status, n int) {
	t.Helper()
	before := g.answered(status)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); g.answered(status) < before+n; <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d answers with %d, want %d", g.answered(status)-before, status, n)
		}
	}
}

// taskRole plays the endpoint that gives a task its role's credentials. A
// session is "" for versitygw, which knows none.
func taskRole(t *testing.T, key s3Key, session string) []string {
	t.Helper()
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"AccessKeyId": key.id, "SecretAccessKey": key.secret, "Token": session, "Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
		})
	}))
	t.Cleanup(agent.Close)
	return []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + agent.URL + "/role", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}
}

func environ(vars ...string) func(*rigConfig) {
	return func(c *rigConfig) { c.env = append(c.env, vars...) }
}

// allows requires what the policy in force says to a name.
func (r *rig) allows(host string, want bool) {
	r.t.Helper()
	u, err := url.Parse(r.url())
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+host+"/", http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := (&http.Transport{Proxy: http.ProxyURL(u), DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	if (resp.StatusCode == http.StatusOK) != want || !want && resp.StatusCode != http.StatusForbidden {
		r.t.Errorf("%s is answered %s", host, resp.Status)
	}
}

func sourceRules(hosts ...string) string {
	var b strings.Builder
	b.WriteString("version: 1\nrules:\n")
	for _, h := range hosts {
		fmt.Fprintf(&b, "  - {name: %s, hosts: [%s], protocol: http, resolves_to: [127.0.0.0/8]}\n", strings.TrimSuffix(h, ".test"), h)
	}
	return b.String()
}

// TestPolicyFromS3 shows a policy in a bucket from its start to the loss of
// everything: what was in force stays, and what comes back is taken.
func TestPolicyFromS3(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"file.test", "one.test", "two.test"} {
		w.origin(name, nil)
	}
	s := w.s3Server(true, "acme-config")
	bucket := awss3.New(awss3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + s.backend), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.ours.id, s.ours.secret, ""),
	})
	put := func(text string) {
		t.Helper()
		if _, err := bucket.PutObject(t.Context(), &awss3.PutObjectInput{
			Bucket: aws.String("acme-config"), Key: aws.String("egress/policy.yaml"), Body: strings.NewReader(text),
		}); err != nil {
			t.Fatal(err)
		}
	}
	backend := &url.URL{Scheme: "http", Host: s.backend}
	g := newGate(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(backend)
		r.Out.Host = r.In.Host // it is signed
	}})
	env := append(taskRole(t, s.ours, ""), "AWS_ENDPOINT_URL_S3="+g.URL, "HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1")
	const source = "s3://acme-config/egress/policy.yaml"

	check := func(args ...string) result {
		t.Helper()
		return command{path: binary(t), args: append([]string{"policy"}, args...), env: env}.run(t)
	}
	if r := check("check", source); r.code != 2 || !strings.Contains(r.stderr, "NoSuchKey") || !strings.Contains(r.stderr, "hint: put the policy there") {
		t.Errorf("an object that is not there: %+v", r)
	}
	put(sourceRules("one.test"))
	if r := check("check", source); r.code != 0 || !strings.HasPrefix(r.stdout, "ok: 1 rule") {
		t.Errorf("%+v", r)
	}
	if r := check("explain", "--policy", source, "http://one.test/"); r.code != 0 || !strings.Contains(r.stdout, source+":3") {
		t.Errorf("%+v", r)
	}

	// It stands beside a file, whose rules are in force as well.
	r := w.serve("  - {name: file, hosts: [file.test], protocol: http, resolves_to: [127.0.0.0/8]}\n",
		setting("policy", []any{"file:" + filepath.Join(w.dir, "policy.yaml"), source}), setting("reload.every", "200ms"), environ(env...))
	r.expectFaults()
	allowed := func(one, two bool) {
		t.Helper()
		r.allows("file.test", true)
		r.allows("one.test", one)
		r.allows("two.test", two)
	}
	allowed(true, false)
	g.awaitAnswers(t, http.StatusNotModified, 3)
	if n := g.answered(http.StatusOK); n > 4 { // three commands before, and the start
		t.Errorf("the object was transferred %d times", n)
	}
	r.saidAfter(func() { put(sourceRules("two.test")) }, "policy reloaded")
	allowed(false, true)

	said := r.saidAfter(func() { put("version: 1\nrulez: []\n") }, "policy refused")
	if !strings.Contains(fmt.Sprint(said["error"]), source+":2:1") {
		t.Errorf("the log says %v", said)
	}
	allowed(false, true)
	said = r.saidAfter(func() { put(sourceRules("file.test")) }, "policy refused")
	if text := fmt.Sprint(said["error"]); !strings.Contains(text, source+":3") || !strings.Contains(text, "policy.yaml:3") {
		t.Errorf("a clash does not name both places: %v", said)
	}
	r.saidAfter(func() { put(sourceRules("two.test")) }, "in force again")

	// The server goes away. A file that changes is taken none the less.
	said = r.saidAfter(func() { g.set(down) }, "its last text stays")
	if said["level"] != "warn" || said["failure"] != "unreachable" || said["source"] != source {
		t.Errorf("the log says %v", said)
	}
	r.saidAfter(func() {
		r.writePolicy("  - {name: file, hosts: [file.test], ports: [80], protocol: http, resolves_to: [127.0.0.0/8]}\n")
	}, "policy reloaded")
	allowed(false, true)
	if ready := r.run(nil, "ready"); ready.code != 0 || !strings.Contains(ready.stdout, source+": unreachable, last read") {
		t.Errorf("%+v", ready)
	}
	// Who asks does not wait for the back-off.
	put(sourceRules("one.test"))
	g.set(nil)
	r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "policy reloaded")
	allowed(true, false)
	if ready := r.run(nil, "ready"); ready.code != 0 || strings.Contains(ready.stdout, "unreachable") {
		t.Errorf("%+v", ready)
	}

	said = r.saidAfter(func() {
		if _, err := bucket.DeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: aws.String("acme-config"), Key: aws.String("egress/policy.yaml")}); err != nil {
			t.Fatal(err)
		}
	}, "its last text stays")
	if said["level"] != "error" || said["failure"] != "NoSuchKey" {
		t.Errorf("the log says %v", said)
	}
	allowed(true, false)
	r.metric(`sallyport_policy_source_age_seconds{kind="file",source="0"}`)
	r.metric(`sallyport_policy_source_age_seconds{kind="s3",source="1"}`)
	r.saidAfter(func() { put(sourceRules("two.test")) }, "policy reloaded")
	allowed(false, true)
	if got := r.count("is read again"); got != 2 {
		t.Errorf("%d times said that the source is read again", got)
	}
}

// count tells how many lines of the log contain text.
func (r *rig) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, l := range r.log {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

// parameterStore plays AWS Systems Manager, for one parameter.
type parameterStore struct {
	t       *testing.T
	mu      sync.Mutex // guards the rest
	version int
	value   string
}

func (p *parameterStore) put(value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	p.value = value
}

func (p *parameterStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Name           string
		WithDecryption bool
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameter" || !ask.WithDecryption ||
		!regexp.MustCompile(`Credential=ASIA[A-Z2-7]{16}/\d{8}/eu-west-1/ssm/aws4_request`).MatchString(r.Header.Get("Authorization")) {
		p.t.Errorf("asked %s for %+v: %v %s", r.Header.Get("X-Amz-Target"), ask, err, r.Header.Get("Authorization"))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if ask.Name != "/egress/policy" {
		ssmRefuses(http.StatusBadRequest, "ParameterNotFound")(w, r)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"Parameter": map[string]any{
		"Name": ask.Name, "Type": "SecureString", "Value": p.value, "Version": p.version, "LastModifiedDate": 1795400000 + p.version,
	}})
}

func ssmRefuses(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"__type": code, "Message": "because of " + code})
	}
}

// TestPolicyFromParameter shows a policy in Parameter Store, packed and not.
func TestPolicyFromParameter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"one.test", "two.test"} {
		w.origin(name, nil)
	}
	p := &parameterStore{t: t}
	g := newGate(t, p)
	key := newS3Key(t, "ASIA", s3Ours)
	env := append(taskRole(t, key, "session"), "AWS_ENDPOINT_URL_SSM="+g.URL)
	const source = "ssm:/egress/policy?region=eu-west-1"

	start := func(source string, want ...string) {
		t.Helper()
		r := command{path: binary(t), args: []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy", source}, env: env}.run(t)
		for _, text := range want {
			if r.code != 2 || !strings.Contains(r.stderr, text) || r.stdout != "" {
				t.Errorf("no %q: %+v", text, r)
			}
		}
	}
	start("ssm:/egress/none?region=eu-west-1", "ParameterNotFound", "hint: put the policy there")
	g.set(ssmRefuses(http.StatusBadRequest, "AccessDeniedException"))
	start(source, "AccessDeniedException: because of", "hint: the task role needs ssm:GetParameter on /egress/policy")
	g.set(down)
	start(source, "(after 5 attempts)", "hint: is there a route to Systems Manager")
	g.set(nil)

	p.put(sourceRules("one.test"))
	r := w.serve("", setting("policy", []any{source}), setting("reload.every", "200ms"), environ(env...))
	r.expectFaults()
	r.allows("one.test", true)
	r.saidAfter(func() { p.put(packed(t, sourceRules("two.test")+strings.Repeat("# a comment\n", 1000))) }, "policy reloaded")
	r.allows("one.test", false)
	r.allows("two.test", true)

	said := r.saidAfter(func() { p.put("H4sIAAAAAAAA/") }, "its last text stays")
	if said["failure"] != "packed" || said["level"] != "error" || !strings.Contains(fmt.Sprint(said["hint"]), "gzip -9") {
		t.Errorf("the log says %v", said)
	}
	r.allows("two.test", true)
	p.put(sourceRules("one.test"))
	r.awaitCount("is read again", 1)
	r.awaitCount("policy reloaded", 2)

	r.saidAfter(func() { g.set(ssmRefuses(http.StatusBadRequest, "ThrottlingException")) }, "its last text stays")
	for i := range 3 { // and whoever asks is told each time
		r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "its last text stays")
		r.awaitCount(`"failure":"ThrottlingException"`, i+2)
	}
	r.allows("one.test", true)
	g.set(nil)
	r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "policy unchanged")
}

func (r *rig) awaitCount(text string, n int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d log lines with %s", n, text), func() bool {
		lines := 0
		for _, l := range r.log {
			if strings.Contains(l, text) {
				lines++
			}
		}
		return lines >= n
	})
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// TestOwnCallsGoDirect: where the proxy's own environment names a proxy, its
// calls to AWS go past it, the one for the task's credentials at 169.254.170.2
// among them. On loopback addresses Go asks no proxy anyway, hence the namespace.
func TestOwnCallsGoDirect(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		missing(t, "network namespaces need root")
	}
	n := &internet{t: t, client: fmt.Sprintf("sp-a-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	need(t, "ip")
	n.ip("netns", "add", n.client)
	t.Cleanup(func() { n.ip("netns", "delete", n.client) })
	n.ip("-n", n.client, "link", "set", "lo", "up")
	for _, address := range []string{"169.254.170.2", "192.0.2.80", "192.0.2.81"} {
		n.ip("-n", n.client, "addr", "add", address+"/32", "dev", "lo")
	}
	document, err := json.Marshal(sourceRules("one.test"))
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	n.start(n.client, need(t, "python3"), "-c", fmt.Sprintf(`
import http.server, json, threading
trace = open(%q, "w", buffering=1)
def serve(address, answer):
    class H(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            trace.write(f"{address} {self.command} {self.path}\n")
            text = json.dumps(answer).encode()
            self.send_response(200 if answer else 502)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        do_GET = do_POST = do_CONNECT = do
        def log_message(self, *a): pass
    s = http.server.ThreadingHTTPServer((address, 80), H)
    threading.Thread(target=s.serve_forever).start()
serve("169.254.170.2", {"AccessKeyId": "AKIDTEST", "SecretAccessKey": "x", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"})
serve("192.0.2.80", {"Parameter": {"Value": %s, "Version": 1}})
serve("192.0.2.81", None)
trace.write("ready\n")
`, trace, document))
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		if text, err := os.ReadFile(trace); err == nil && len(text) > 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the servers do not start: %v", err)
		}
	}
	r := command{
		path: need(t, "ip"), args: []string{"netns", "exec", n.client, binary(t), "policy", "check", "ssm:/egress/policy"},
		env: []string{
			"HTTP_PROXY=http://192.0.2.81", "HTTPS_PROXY=http://192.0.2.81", "http_proxy=http://192.0.2.81", "https_proxy=http://192.0.2.81",
			"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/1", "AWS_ENDPOINT_URL_SSM=http://192.0.2.80", "AWS_REGION=eu-west-1",
		},
	}.run(t)
	if r.code != 0 || !strings.HasPrefix(r.stdout, "ok: 1 rule") {
		t.Errorf("%+v", r)
	}
	text, err := os.ReadFile(trace)
	want := []string{"ready", "169.254.170.2 GET /v2/credentials/1", "192.0.2.80 POST /"}
	if got := strings.Split(strings.TrimSpace(string(text)), "\n"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
