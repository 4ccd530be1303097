package identity

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is an Identifier that says what it was made with.
type fixed struct {
	task         *policy.Task
	unidentified bool
}

func (f fixed) Identify(_ context.Context, s policy.Source) policy.Source {
	s.Task, s.Unidentified = f.task, f.unidentified
	return s
}

func TestChain(t *testing.T) {
	a, b := &policy.Task{ARN: "a"}, &policy.Task{ARN: "b"}
	tests := []struct {
		name         string
		chain        Chain
		task         *policy.Task
		unidentified bool
	}{
		{"empty", nil, nil, false},
		{"the first that knows", Chain{fixed{task: a}, fixed{task: b}}, a, false},
		{"the second knows", Chain{fixed{}, fixed{task: b}}, b, false},
		{"the second knows whom the first should have", Chain{fixed{unidentified: true}, fixed{task: b}}, b, false},
		{"nobody knows, nobody should", Chain{fixed{}, fixed{}}, nil, false},
		{"nobody knows, the first should", Chain{fixed{unidentified: true}, fixed{}}, nil, true},
		{"nobody knows, the last should", Chain{fixed{}, fixed{unidentified: true}}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source := policy.Source{Addr: netip.MustParseAddr("10.0.0.1"), VPCEndpoint: "vpce-1", Principal: "p"}
			got := tt.chain.Identify(t.Context(), source)
			source.Task, source.Unidentified = tt.task, tt.unidentified
			if diff := cmp.Diff(source, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDocumentedShapes(t *testing.T) {
	const arn = "arn:aws:ecs:us-west-2:111122223333:task/default/"
	tests := map[string]Self{
		"fargate.json": {
			Task: &policy.Task{
				ARN: arn + "e9028f8d5d8e4f258373e7b93ce9a3c3", Cluster: "default", Service: "payments", Family: "curltest", Revision: 3,
				Tags: map[string]string{"team": "payments", "tier": "1"},
			},
			Addresses: addrs("192.0.2.3", "2001:db8:10b:6e00::1"),
		},
		"ec2-awsvpc.json": {
			Task:      &policy.Task{ARN: arn + "158d1c8083dd49d6b527399fd6414f5c", Cluster: "default", Family: "curltest", Revision: 26},
			Addresses: addrs("10.0.2.61"),
		},
		"ec2-bridge.json": {
			Task:      &policy.Task{ARN: arn + "febee046097849aba589d4435207c04a", Cluster: "default", Family: "query-metadata", Revision: 7},
			Addresses: addrs("172.17.0.2"),
		},
		"ec2-host.json": {
			Task:        &policy.Task{ARN: arn + "0123456789abcdef0123456789abcdef", Cluster: "default", Family: "agent", Revision: 1},
			HostNetwork: true,
		},
		"tags-denied.json": {
			Task:      &policy.Task{ARN: arn + "158d1c8083dd49d6b527399fd6414f5c", Cluster: "default", Service: "MyService", Family: "curltest", Revision: 26},
			Addresses: addrs("10.0.2.106"),
		},
	}
	for file, want := range tests {
		t.Run(file, func(t *testing.T) {
			got, err := parseSelf(read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			if (got.NoTags != nil) != (file == "tags-denied.json") || got.NoTags != nil && !strings.Contains(got.NoTags.Error(), "ecs:ListTagsForResource on the task is needed") {
				t.Errorf("NoTags: %v", got.NoTags)
			}
			got.NoTags = nil
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// serve starts a metadata endpoint and returns its client.
func serve(t *testing.T, h http.Handler, path string) *Metadata {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	m, err := NewMetadata(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSelf(t *testing.T) {
	task := proxytest.ECSTask{ID: "1", IPv4: "10.1.2.3", IPv6: "2600::7", Service: "web", Tags: map[string]string{"a": "b"}}
	fake := proxytest.NewTaskMetadata(task, "proxy", "app")
	s, err := serve(t, fake, fake.Path()).Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Task.ARN != task.ARN() || s.Task.Service != "web" || s.Task.Tags["a"] != "b" || s.NoTags != nil ||
		!cmp.Equal(s.Addresses, addrs("10.1.2.3", "2600::7"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("%+v, %+v", s, s.Task)
	}
}

func TestWithoutTags(t *testing.T) {
	m := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/taskWithTags") {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		w.Write(read(t, "ec2-awsvpc.json"))
	}), "/v4/x")
	s, err := m.Self(t.Context())
	if err != nil || s.Task.Family != "curltest" || s.NoTags == nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestHostileEndpoints(t *testing.T) {
	fargate := read(t, "fargate.json")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect is followed") }))
	defer elsewhere.Close()
	answers := map[string]http.HandlerFunc{
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"html":       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"null":       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "null") },
		"a list":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") },
		"no ARN":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Family":"x"}`) },
		"a number":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"TaskARN":7}`) },
		"half of it": func(w http.ResponseWriter, _ *http.Request) { w.Write(fargate[:len(fargate)/2]) },
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			w.Write(append(fargate, bytes.Repeat([]byte(" "), 2<<20)...))
		},
		"500":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); w.Write(fargate) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"without end": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			m := serve(t, answer, "/v4/x")
			if s, err := m.Self(t.Context()); err == nil {
				t.Errorf("Self: %+v", s)
			}
			if c, err := m.Others(t.Context()); err == nil {
				t.Errorf("Others: %+v", c)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		m, err := NewMetadata(gone.URL + "/v4/x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Self(t.Context()); err == nil {
			t.Error("no error")
		}
	})
	t.Run("silence", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		}), "/v4/x")
		if _, err := m.Others(ctx); err == nil {
			t.Error("no error")
		}
		if m.client.Timeout != metadataTime {
			t.Error("a silent endpoint is waited for")
		}
	})
	t.Run("through no proxy", func(t *testing.T) {
		if m := serve(t, answers["null"], "/v4/x"); m.client.Transport.(*http.Transport).Proxy != nil {
			t.Error("HTTP_PROXY is asked for the metadata")
		}
	})
}

func TestEndpointURIs(t *testing.T) {
	for uri, ok := range map[string]bool{
		"http://169.254.170.2/v4/e9028f8d-2495160603": true,
		"http://[fd00:ec2::23]/v4/x":                  true,
		"http://169.254.170.2":                        true,
		"":                                            false,
		"169.254.170.2/v4/x":                          false,
		"https://169.254.170.2/v4/x":                  false,
		"http://metadata.example/v4/x":                false,
		"http://u:p@169.254.170.2/v4/x":               false,
		"http://169.254.170.2/v4/x?y=z":               false,
		"file:///etc/passwd":                          false,
		"http://169.254.170.2/%zz":                    false,
	} {
		if _, err := NewMetadata(uri); (err == nil) != ok {
			t.Errorf("%q: %v", uri, err)
		}
	}
}

func TestOthers(t *testing.T) {
	t.Run("on Fargate", func(t *testing.T) {
		fake := proxytest.NewTaskMetadata(proxytest.ECSTask{ID: "1"}, "proxy", "app", "worker")
		m := serve(t, fake, fake.Path())
		fake.Set("worker", "STOPPED")
		got, err := m.Others(t.Context())
		want := []Container{{"app", "RUNNING", false}, {"worker", "STOPPED", true}}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	})
	// On EC2 the endpoint's path ends in another ID than the container's.
	t.Run("on EC2", func(t *testing.T) {
		m := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v4/other-id" {
				fmt.Fprint(w, `{"DockerId":"ee08638adaaf009d78c248913f629e38299471d45fe7dc944d1039077e3424ca"}`)
				return
			}
			w.Write(read(t, "ec2-awsvpc.json"))
		}), "/v4/other-id")
		got, err := m.Others(t.Context())
		if len(got) != 0 || err != nil {
			t.Errorf("%v, %v: the pause container is the platform's", got, err)
		}
	})
	for _, tt := range []struct {
		c    containerDocument
		want bool
	}{
		{containerDocument{KnownStatus: "RUNNING", DesiredStatus: "RUNNING"}, false},
		{containerDocument{KnownStatus: "RUNNING", DesiredStatus: "STOPPED"}, false},
		{containerDocument{KnownStatus: "STOPPED", DesiredStatus: "RUNNING"}, true},
		{containerDocument{KnownStatus: "CREATED", DesiredStatus: "RUNNING"}, false},
		{containerDocument{KnownStatus: "CREATED", DesiredStatus: "STOPPED"}, true},
		{containerDocument{KnownStatus: "PULLED", DesiredStatus: "STOPPED"}, true},
		{containerDocument{KnownStatus: "", DesiredStatus: "STOPPED"}, true},
		{containerDocument{}, false},
		{containerDocument{KnownStatus: "RUNNING", FinishedAt: "2026-10-08T20:47:20Z"}, true},
	} {
		if got := tt.c.stopped(); got != tt.want {
			t.Errorf("%+v: stopped is %v", tt.c, got)
		}
	}
}

// own starts an Own on an endpoint, and returns it once it has asked.
func own(t *testing.T, h http.Handler, path string, strict bool) *Own {
	t.Helper()
	o := NewOwn(serve(t, h, path), strict, zerolog.Nop())
	o.ask(t.Context())
	return o
}

func TestOwn(t *testing.T) {
	task := proxytest.ECSTask{ID: "1", IPv4: "10.1.2.3", IPv6: "2600::7"}
	fake := proxytest.NewTaskMetadata(task, "proxy", "app")
	broken := http.NotFoundHandler()
	host := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(read(t, "ec2-host.json")) })
	tests := []struct {
		name     string
		h        http.Handler
		strict   bool
		addr     string
		endpoint string
		known    bool
		unknown  bool
	}{
		{"loopback", fake, false, "127.0.0.1", "", true, false},
		{"all of loopback", fake, true, "127.8.9.1", "", true, false},
		{"loopback, IPv6", fake, true, "::1", "", true, false},
		{"loopback, mapped", fake, true, "::ffff:127.0.0.1", "", true, false},
		{"the task's address", fake, true, "10.1.2.3", "", true, false},
		{"the task's address, IPv6", fake, true, "2600::7", "", true, false},
		{"a stranger", fake, false, "10.1.2.4", "", false, false},
		{"a stranger, strictly", fake, true, "10.1.2.4", "", false, true},
		{"another VPC's", fake, false, "10.1.2.3", "vpce-1", false, false},
		{"another VPC's, strictly", fake, true, "127.0.0.1", "vpce-1", false, true},
		{"not known, loopback", broken, false, "127.0.0.1", "", false, true},
		{"not known, a stranger", broken, false, "10.1.2.3", "", false, false},
		{"host network", host, false, "127.0.0.1", "", false, false},
		{"host network, strictly", host, true, "127.0.0.1", "", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := own(t, tt.h, fake.Path(), tt.strict)
			got := o.Identify(t.Context(), policy.Source{Addr: netip.MustParseAddr(tt.addr), VPCEndpoint: tt.endpoint})
			if (got.Task != nil) != tt.known || got.Unidentified != tt.unknown {
				t.Errorf("%+v", got)
			}
			if known, err := o.Status(); (known == nil) == (err == nil) {
				t.Errorf("status: %v, %v", known, err)
			}
		})
	}
}

// roundTrip is a transport without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestOwnAsksUntilItKnows: the endpoint comes up late; it is said once that it
// fails, and once that it does not.
func TestOwnAsksUntilItKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := proxytest.NewTaskMetadata(proxytest.ECSTask{ID: "1", IPv4: "10.1.2.3"}, "proxy")
		fake.Break(true)
		m, err := NewMetadata("http://169.254.170.2" + fake.Path())
		if err != nil {
			t.Fatal(err)
		}
		m.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			fake.ServeHTTP(w, r)
			return w.Result(), nil
		})
		var log bytes.Buffer
		o := NewOwn(m, true, zerolog.New(&log))
		ended := make(chan error, 1)
		go func() { ended <- o.Run(t.Context()) }()
		<-time.After(time.Hour)
		if n := fake.Asked("/task"); n < 200 || n > 260 {
			t.Errorf("asked %d times in an hour", n)
		}
		fake.Break(false)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := o.Identify(t.Context(), policy.Source{Addr: netip.MustParseAddr("10.1.2.3")}); got.Task == nil {
			t.Error("not known")
		}
		if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "cannot be read") || !strings.Contains(text, "this is the task") {
			t.Errorf("log:\n%s", text)
		}
		// The end comes before an answer.
		fake.Break(true)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- NewOwn(m, true, zerolog.Nop()).Run(ctx) }()
		<-time.After(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// FuzzMetadata: whatever the endpoint says, what is taken from it is a task's
// ARN and addresses that can be a caller's.
func FuzzMetadata(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no documents: ", err)
	}
	for _, file := range files {
		f.Add(read(f, filepath.Base(file)))
	}
	f.Add([]byte(`{"TaskARN":"arn:aws:ecs:r:1:task/c/x","Revision":"-1","Containers":[{"Networks":[{"IPv4Addresses":["127.0.0.1","::ffff:10.0.0.1","10.0.0.1"]}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSelf(text)
		if err != nil {
			if s.Task != nil {
				t.Error("an error, and a task")
			}
			return
		}
		if !strings.Contains(s.Task.ARN, ":task/") || strings.Contains(s.Task.Cluster, "/") || s.Task.Revision < 0 {
			t.Errorf("%+v", s.Task)
		}
		seen := make(map[netip.Addr]bool)
		for _, a := range s.Addresses {
			if seen[a] || a.IsLoopback() || a.Is4In6() || !a.IsValid() || a.IsLinkLocalUnicast() {
				t.Errorf("address %s", a)
			}
			seen[a] = true
		}
		d, err := parseTask(text)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(others(d, "x")); n > len(d.Containers) {
			t.Errorf("%d others of %d", n, len(d.Containers))
		}
	})
}
