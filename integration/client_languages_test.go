package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// answer is what a client of testdata/clients prints for a URL.
type answer struct {
	Status int
	Body   string
	Error  string
}

// answers runs one and returns an answer for each URL.
func (c command) answers(t *testing.T, n int) []answer {
	t.Helper()
	res := c.run(t)
	res.succeeds(t)
	var all []answer
	for line := range strings.Lines(res.stdout) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, a)
	}
	if len(all) != n {
		t.Fatalf("%d answers, want %d:\n%s%s", len(all), n, res.stdout, res.stderr)
	}
	return all
}

func (a answer) is(t *testing.T, status int, body string) {
	t.Helper()
	if a.Status != status || !strings.Contains(a.Body, body) {
		t.Errorf("the client got %+v, want %d with %q", a, status, body)
	}
}

func (a answer) failed(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(a.Error, w) {
			t.Errorf("the client got %+v, want an error with %q", a, w)
		}
	}
}

func TestPython(t *testing.T) {
	t.Parallel()
	for name, denial := range map[string]string{
		"urllib":   "Tunnel connection failed: 403 Forbidden",
		"tunnel":   "Tunnel connection failed: 403 Forbidden",
		"requests": "Tunnel connection failed: 403 Forbidden",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			module := name
			if name == "tunnel" {
				module = "http.client"
			}
			python := needModule(t, module)
			w := newWorld(t)
			_, denied := w.twoOrigins()
			r := w.serve(twoNames)
			urls := []string{"https://allowed.example.test/", "https://denied.example.test/"}
			if name != "tunnel" {
				urls = append(urls, "http://allowed.example.test/", "http://denied.example.test/")
			}
			got := command{
				path: python, args: append([]string{"testdata/clients/clients.py", name}, urls...),
				env: []string{"HTTPS_PROXY=" + r.url(), "HTTP_PROXY=" + r.url(), "http_proxy=" + r.url(), "SSL_CERT_FILE=" + w.caFile, "REQUESTS_CA_BUNDLE=" + w.caFile},
			}.answers(t, len(urls))
			got[0].is(t, 200, "hello from allowed.example.test")
			r.allowed("allowed.example.test", "connect")
			got[1].failed(t, denial)
			r.denied("denied.example.test", "connect", "no_rule")
			if name != "tunnel" {
				got[2].is(t, 200, "hello from allowed.example.test")
				r.allowed("allowed.example.test", "http")
				got[3].is(t, 403, "no rule of the policy allows it")
				r.denied("denied.example.test", "http", "no_rule")
			}
			denied.unreached(t)
		})
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	node := need(t, "node")
	modules, err := filepath.Abs("node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "node_modules", "undici")); err != nil {
		missing(t, "npm ci --prefix integration/node: %v", err)
	}
	w := newWorld(t)
	_, denied := w.twoOrigins()
	r := w.serve(twoNames)
	client := func(t *testing.T, name string, urls ...string) []answer {
		t.Helper()
		return command{
			path: node, args: append([]string{"testdata/clients/clients.mjs", name}, urls...),
			env: []string{
				"HTTPS_PROXY=" + r.url(), "HTTP_PROXY=" + r.url(), "NODE_USE_ENV_PROXY=1",
				"NODE_EXTRA_CA_CERTS=" + w.caFile, "NODE_NO_WARNINGS=1", "CLIENTS_MODULES=" + modules,
			},
		}.answers(t, len(urls))
	}
	for name, denial := range map[string]string{
		"fetch": "403", "undici": "Proxy response (403) !== 200 when HTTP Tunneling", "undici-env": "Proxy response (403) !== 200 when HTTP Tunneling",
	} {
		t.Run(name, func(t *testing.T) {
			if name == "fetch" {
				// Node's fetch learned of proxies in 22.21 and 24.
				help := command{path: node, args: []string{"-p", "process.allowedNodeEnvironmentFlags.has('--use-env-proxy')"}}.run(t)
				if strings.TrimSpace(help.stdout) != "true" {
					t.Skip("this Node's own fetch knows no proxy; undici, which it is made of, is tested beside")
				}
			}
			got := client(t, name, "https://allowed.example.test/", "https://denied.example.test/")
			got[0].is(t, 200, "hello from allowed.example.test")
			r.allowed("allowed.example.test", "connect")
			got[1].failed(t, denial)
			r.denied("denied.example.test", "connect", "no_rule")
		})
	}
	t.Run("https-proxy-agent", func(t *testing.T) {
		got := client(t, "https-proxy-agent", "https://allowed.example.test/", "https://denied.example.test/")
		got[0].is(t, 200, "hello from allowed.example.test")
		r.allowed("allowed.example.test", "connect")
		// This agent plays the proxy's answer to the client as the origin's.
		got[1].is(t, 403, "no rule of the policy allows it")
		r.denied("denied.example.test", "connect", "no_rule")
	})
	t.Run("websocket", func(t *testing.T) {
		got := client(t, "websocket", "wss://allowed.example.test/ws", "ws://allowed.example.test/ws", "wss://denied.example.test/ws")
		got[0].is(t, 101, "echo hello")
		r.allowed("allowed.example.test", "connect")
		got[1].is(t, 101, "echo hello")
		r.allowed("allowed.example.test", "connect")
		got[2].failed(t, "")
		if got[2].Error == "" {
			t.Errorf("the client got %+v", got[2])
		}
		r.denied("denied.example.test", "connect", "no_rule")
	})
	denied.unreached(t)
}

func TestGo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "httpget")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./testdata/clients/httpget").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w := newWorld(t)
	_, denied := w.twoOrigins()
	r := w.serve(twoNames)
	got := command{
		path: path, args: []string{"https://allowed.example.test/", "https://denied.example.test/", "http://allowed.example.test/", "http://denied.example.test/"},
		env: []string{"HTTPS_PROXY=" + r.url(), "HTTP_PROXY=" + r.url(), "SSL_CERT_FILE=" + w.caFile},
	}.answers(t, 4)
	got[0].is(t, 200, "hello from allowed.example.test over HTTP/2.0")
	r.allowed("allowed.example.test", "connect")
	got[1].failed(t, `Get "https://denied.example.test/": Forbidden`)
	r.denied("denied.example.test", "connect", "no_rule")
	got[2].is(t, 200, "hello from allowed.example.test")
	r.allowed("allowed.example.test", "http")
	got[3].is(t, 403, "no rule of the policy allows it")
	r.denied("denied.example.test", "http", "no_rule")
	denied.unreached(t)
}

func TestJava(t *testing.T) {
	t.Parallel()
	// A JDK is large: it is used where it is, and not asked for.
	java, err := exec.LookPath("javac")
	if err != nil {
		t.Skipf("needs a JDK: %v", err)
	}
	java = filepath.Join(filepath.Dir(java), "java")
	w := newWorld(t)
	_, denied := w.twoOrigins()
	r := w.serve(twoNames)
	host, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	res := command{path: java, args: []string{
		"-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port, "-Dhttp.proxyHost=" + host, "-Dhttp.proxyPort=" + port,
		"testdata/clients/Clients.java", w.caFile,
		"https://allowed.example.test/", "https://denied.example.test/", "http://allowed.example.test/", "http://denied.example.test/",
	}}.run(t)
	res.succeeds(t,
		"HttpURLConnection https://allowed.example.test/ 200 hello from allowed.example.test over HTTP/1.1",
		"HttpClient https://allowed.example.test/ 200 hello from allowed.example.test over HTTP/2.0",
		`HttpURLConnection https://denied.example.test/ java.io.IOException: Unable to tunnel through proxy. Proxy returns "HTTP/1.1 403 Forbidden"`,
		"HttpClient https://denied.example.test/ ",
		"HttpURLConnection http://allowed.example.test/ 200 hello from allowed.example.test",
		"HttpClient http://allowed.example.test/ 200 hello from allowed.example.test",
		"HttpURLConnection http://denied.example.test/ 403 sallyport: denied.example.test:80 is denied",
		"HttpClient http://denied.example.test/ 403 sallyport: denied.example.test:80 is denied",
	)
	for _, via := range []string{"connect", "http"} {
		for range 2 {
			r.denied("denied.example.test", via, "no_rule")
		}
	}
	denied.unreached(t)
}

// TestServerSentEvents: each event arrives when it is sent, in a tunnel and
// over plain HTTP; the origin sends the next one only when told to. Streams of
// other types are no different.
func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	next := make(chan struct{})
	w.origin("allowed.example.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", r.URL.Query().Get("type"))
		for i := range 3 {
			fmt.Fprintf(rw, "data: %d\n\n", i)
			if err := http.NewResponseController(rw).Flush(); err != nil {
				t.Error(err)
			}
			select {
			case <-next:
			case <-r.Context().Done():
				t.Error("the client left")
				return
			}
		}
	}))
	r := w.serve(twoNames)
	for _, target := range []string{
		"https://allowed.example.test/?type=text/event-stream",
		"http://allowed.example.test/?type=text/event-stream",
		"http://allowed.example.test/?type=application/x-ndjson",
	} {
		resp, err := r.client(w).Get(target)
		if err != nil {
			t.Fatal(err)
		}
		events := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := events.ReadString('\n')
			if want := fmt.Sprintf("data: %d\n", i); err != nil || line != want {
				t.Errorf("%s: %q %v, want %q", target, line, err, want)
			}
			_, _ = events.ReadString('\n')
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(events); err != nil || len(rest) > 0 {
			t.Errorf("%s: at the end %q, %v", target, rest, err)
		}
		resp.Body.Close()
	}
}
