package integration

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const nginxConfig = `
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  default_type text/plain;
  sendfile on;
  gzip on;
  gzip_types text/plain;
  gzip_min_length 100;
  keepalive_timeout 60s;
  server {
    listen %[2]s:80;
    listen %[2]s:443 ssl http2;
    server_name allowed.example.test;
    ssl_certificate %[3]s;
    ssl_certificate_key %[4]s;
    root %[1]s/www;
    location = /who { return 200 "connection $connection request $connection_requests over $server_protocol\n"; }
  }
}
`

// nginx starts nginx as allowed.example.test, with files to serve.
func (w *world) nginx(files map[string][]byte) {
	w.t.Helper()
	path := need(w.t, "nginx")
	dir, addr := w.t.TempDir(), loopback()
	// The workers of an nginx that root starts are nobody's, and must get in.
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "www"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "www", name), text, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	cert, key := w.pemFiles(w.certificate("allowed.example.test"))
	config := filepath.Join(dir, "nginx.conf")
	writeFile(w.t, config, fmt.Sprintf(nginxConfig, dir, addr, cert, key))
	cmd := exec.Command(path, "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", config)
	cmd.Env = bareEnv(dir)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // ends its workers, too
		_ = cmd.Wait()
		if w.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			w.t.Logf("nginx said:\n%s%s", said.String(), text)
		}
	})
	awaitPort(w.t, addr+":443")
	w.name("allowed.example.test", addr)
}

// awaitPort waits until somebody serves an address.
func awaitPort(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestNginx(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	w := newWorld(t)
	large := make([]byte, 64<<20)
	_, _ = rand.Read(large)
	text := strings.Repeat("a line of text\n", 1000)
	w.nginx(map[string][]byte{"large": large, "text": []byte(text)})
	r := w.serve(twoNames)
	get := func(t *testing.T, args ...string) result {
		t.Helper()
		return command{path: curl, args: append([]string{"-sS", "--max-time", "60", "--cacert", w.caFile, "--proxy", r.url()}, args...)}.run(t)
	}
	for _, c := range []struct {
		name, url, flag, protocol, via string
	}{
		{"http/1.1", "https://allowed.example.test", "--http1.1", "HTTP/1.1", "connect"},
		{"http/2", "https://allowed.example.test", "--http2", "HTTP/2.0", "connect"},
		{"plain http", "http://allowed.example.test", "--http1.1", "HTTP/1.1", "http"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("large file", func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "large")
				get(t, c.flag, "-o", out, c.url+"/large").succeeds(t)
				if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, large) {
					t.Errorf("%d bytes of %d came through, or not as sent: %v", len(got), len(large), err)
				}
				if l := r.allowed("allowed.example.test", c.via); l.Sallyport.BytesReceived < int64(len(large)) {
					t.Errorf("the record: %s", l.text)
				}
			})
			t.Run("gzip", func(t *testing.T) {
				res := get(t, c.flag, "-H", "Accept-Encoding: gzip", c.url+"/text")
				z, err := gzip.NewReader(strings.NewReader(res.stdout))
				if err != nil {
					t.Fatalf("what came is not what nginx compressed: %v", err)
				}
				if got, err := io.ReadAll(z); err != nil || string(got) != text {
					t.Errorf("%d bytes of %d: %v", len(got), len(text), err)
				}
				r.allowed("allowed.example.test", c.via)
				get(t, c.flag, "-r", "15-28", c.url+"/text").succeeds(t, "a line of text")
				r.allowed("allowed.example.test", c.via)
			})
			t.Run("keep-alive", func(t *testing.T) {
				// nginx counts the requests of a connection. The proxy keeps
				// those for plain HTTP, so that the first here need not be 1.
				res := get(t, c.flag, c.url+"/who", c.url+"/who")
				res.succeeds(t)
				var conns, requests [2]int
				for i, line := range strings.SplitN(res.stdout, "\n", 2) {
					if _, err := fmt.Sscanf(line, "connection %d request %d over "+c.protocol, &conns[i], &requests[i]); err != nil {
						t.Fatalf("%v: %s", err, res.stdout)
					}
				}
				if conns[0] != conns[1] || requests[1] != requests[0]+1 {
					t.Errorf("two connections for two requests:\n%s", res.stdout)
				}
				r.allowed("allowed.example.test", c.via)
				if c.via == "http" {
					r.allowed("allowed.example.test", c.via) // a record for each request
				}
			})
		})
	}
}
