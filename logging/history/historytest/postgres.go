// Package historytest starts a real PostgreSQL for tests: Debian's, from
// .ci/packages.txt, in a folder of its own, on a Unix socket and no port.
package historytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds each start and stop, on a machine that is busy.
const patience = 60 * time.Second

// Server is a PostgreSQL server of a test's own.
type Server struct {
	dir  string // the socket's, and the data's parent
	bin  string
	cred *syscall.Credential // whom it runs as; nil: as whoever runs the test
	cmd  *exec.Cmd
	out  *bytes.Buffer
	done chan struct{}
	// unguard lets go of what ends the server with this process.
	unguard func()
}

// New starts a server that ends with the test. Where PostgreSQL is not
// installed the test is skipped, or in CI fails.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := start()
	if errors.Is(err, errMissing) {
		missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

func missing(t testing.TB, err error) {
	t.Helper()
	if ci := os.Getenv("CI"); ci != "" && ci != "false" {
		t.Fatalf("needs postgresql, see .ci/packages.txt: %v", err)
	}
	t.Skipf("needs postgresql, see .ci/packages.txt: %v", err)
}

var errMissing = errors.New("PostgreSQL is not installed")

// start makes a server in a new folder.
func start() (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: a socket's path may have a hundred characters only.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.make(); err != nil {
		_ = os.RemoveAll(dir) // the first error counts
		return nil, err
	}
	err = s.Start()
	return s, err
}

// binaries returns the folder of the newest server that is installed.
func binaries() (string, error) {
	if found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); err == nil && len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errMissing
	}
	return filepath.Dir(path), nil
}

// make makes the data. PostgreSQL refuses to run as root.
func (s *Server) make() error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("%w: %w", errMissing, err)
		}
		uid, _ := strconv.Atoi(u.Uid) // numbers, on Linux
		gid, _ := strconv.Atoi(u.Gid)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, "initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...) //nolint:gosec // PostgreSQL's own programs
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	return cmd
}

// Start starts the server, again after [Server.Kill] or [Server.Stop].
func (s *Server) Start() error {
	s.out = &bytes.Buffer{}
	cmd := s.command(context.Background(), "postgres", "-D", s.data(), "-k", s.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=16MB", "-c", "autovacuum_naptime=5")
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := s.guard(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // the first error counts
		return err
	}
	s.cmd, s.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // how it ends is the test's doing
	}(s.done)
	return s.await()
}

// guard ends the server when this process is gone: a test that panics cleans
// nothing up. The guard waits for the end of its input, which nobody else holds.
func (s *Server) guard(pid int) error {
	cmd := s.command(context.Background(), "sh", "-c", "cat; kill -QUIT "+strconv.Itoa(pid))
	cmd.Path = "/bin/sh"
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.unguard = func() {
		_ = cmd.Process.Kill()
		_ = in.Close()
		_ = cmd.Wait() // it was killed
	}
	return nil
}

// await waits until the server answers.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if s.command(ctx, "pg_isready", "-q", "-h", s.dir).Run() == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-s.done:
			return fmt.Errorf("postgres ended: %s", s.out)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", ctx.Err())
		}
	}
}

// Kill ends the server at once, as kill -9 does, and all its backends with it.
func (s *Server) Kill() { s.end(syscall.SIGQUIT) }

// DemandPasswords starts the server again as one that asks everybody for a
// password (SCRAM), but its superuser postgres and who else is trusted.
func (s *Server) DemandPasswords(t testing.TB, trusted ...string) {
	t.Helper()
	s.Stop()
	rules := "local all " + strings.Join(append([]string{"postgres"}, trusted...), ",") + " trust\nlocal all all scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the server in order; clients are cut off.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

func (s *Server) end(how os.Signal) {
	s.unguard()
	_ = s.cmd.Process.Signal(how) // it may have ended already
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

func (s *Server) remove() {
	s.Kill()
	_ = os.RemoveAll(s.dir) // the operating system empties its folder for such things
}

// Database makes a database and returns its URL.
func (s *Server) Database(t testing.TB, name string) string {
	t.Helper()
	if out, err := s.command(t.Context(), "createdb", "-h", s.dir, "-U", "postgres", name).CombinedOutput(); err != nil {
		t.Fatalf("createdb: %v: %s", err, out)
	}
	return s.URL(name)
}

// URL returns the URL of a database.
func (s *Server) URL(name string) string {
	return "postgres:///" + name + "?" + url.Values{"host": {s.dir}, "user": {"postgres"}}.Encode()
}

// SQL has psql run statements and returns what it prints.
func (s *Server) SQL(t testing.TB, database, text string) string {
	t.Helper()
	out, err := s.command(t.Context(), "psql", "-h", s.dir, "-U", "postgres", "-d", database, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v: %s", err, out)
	}
	return string(bytes.TrimSpace(out))
}

// Shared is a server that many tests share, each with databases of its own. Its
// zero value is usable.
type Shared struct {
	mu     sync.Mutex // protects what follows
	server *Server
	err    error
	tried  bool
	n      int
}

// Database returns the URL of a new database; the server starts with the first.
func (s *Shared) Database(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tried {
		s.tried = true
		s.server, s.err = start()
	}
	if errors.Is(s.err, errMissing) {
		missing(t, s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	s.n++
	return s.server.Database(t, "test"+strconv.Itoa(s.n))
}

// Close ends the server. TestMain calls it after the tests.
func (s *Shared) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		s.server.remove()
		s.server = nil
	}
}
