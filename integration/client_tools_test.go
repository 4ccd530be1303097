package integration

import (
	"net/http/cgi"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWget(t *testing.T) {
	t.Parallel()
	path := need(t, "wget")
	w := newWorld(t)
	_, denied := w.twoOrigins()
	r := w.serve(twoNames)
	wget := func(args ...string) result {
		t.Helper()
		return command{
			path: path, args: append([]string{"--tries=1", "--timeout=60", "-O", "-", "--ca-certificate", w.caFile}, args...),
			env: []string{"https_proxy=" + r.url(), "http_proxy=" + r.url()},
		}.run(t)
	}
	wget("https://allowed.example.test/").succeeds(t, "hello from allowed.example.test over HTTP/1.1")
	r.allowed("allowed.example.test", "connect")
	wget("https://denied.example.test/").fails(t, "Proxy tunneling failed: Forbidden")
	r.denied("denied.example.test", "connect", "no_rule")
	wget("http://allowed.example.test/").succeeds(t, "hello from allowed.example.test")
	r.allowed("allowed.example.test", "http")
	wget("--content-on-error", "http://denied.example.test/").fails(t, "ERROR 403: Forbidden", "no rule of the policy allows it")
	r.denied("denied.example.test", "http", "no_rule")
	denied.unreached(t)
}

func TestGit(t *testing.T) {
	t.Parallel()
	git := need(t, "git")
	w := newWorld(t)
	project := filepath.Join(w.dir, "served")
	in := func(dir string, env []string, args ...string) result {
		t.Helper()
		return command{path: git, dir: dir, args: args, env: append([]string{
			"GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.test",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.test",
		}, env...)}.run(t)
	}
	in(w.dir, nil, "init", "-q", "-b", "main", "work").succeeds(t)
	work := filepath.Join(w.dir, "work")
	writeFile(t, filepath.Join(work, "file"), strings.Repeat("a line\n", 10_000))
	in(work, nil, "add", "file").succeeds(t)
	in(work, nil, "commit", "-q", "-m", "one").succeeds(t)
	in(w.dir, nil, "clone", "-q", "--bare", work, filepath.Join(project, "repo.git")).succeeds(t)
	in(filepath.Join(project, "repo.git"), nil, "config", "http.receivepack", "true").succeeds(t)

	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(in(w.dir, nil, "--exec-path").stdout), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + project, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + w.dir},
		// A CGI child's complaints are of no use unless a test fails.
		Stderr: os.Stderr,
	}
	w.origin("allowed.example.test", backend)
	denied := w.origin("denied.example.test", backend)
	r := w.serve(twoNames)
	env := []string{"https_proxy=" + r.url(), "GIT_SSL_CAINFO=" + w.caFile}

	in(w.dir, env, "clone", "-q", "https://allowed.example.test/repo.git", "cloned").succeeds(t)
	if text, err := os.ReadFile(filepath.Join(w.dir, "cloned", "file")); err != nil || len(text) != 70_000 {
		t.Errorf("the clone holds %d bytes: %v", len(text), err)
	}
	r.allowed("allowed.example.test", "connect")

	cloned := filepath.Join(w.dir, "cloned")
	writeFile(t, filepath.Join(cloned, "file"), "changed\n")
	in(cloned, nil, "commit", "-q", "-a", "-m", "two").succeeds(t)
	in(cloned, env, "push", "-q", "origin", "main").succeeds(t)
	r.allowed("allowed.example.test", "connect")

	in(w.dir, env, "clone", "https://denied.example.test/repo.git", "refused").fails(t, "unable to access 'https://denied.example.test/repo.git/'", "403")
	r.denied("denied.example.test", "connect", "no_rule")
	denied.unreached(t)
}
