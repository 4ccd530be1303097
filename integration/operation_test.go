package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// client is an HTTP client that uses the proxy, a connection for a request.
func (r *rig) client(w *world) *http.Client {
	r.t.Helper()
	proxy, err := url.Parse(r.url())
	if err != nil {
		r.t.Fatal(err)
	}
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.roots},
	}}
}

func get(ctx context.Context, c *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// TestReload changes the policy under clients that never stop asking: by
// signal and by the file alone, to good ones and to a broken one.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.twoOrigins()
	r := w.serve(twoNames, setting("reload.every", "1s"))
	r.expectFaults() // the broken policy

	var asked atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for _, target := range []string{"https://allowed.example.test/", "http://allowed.example.test/"} {
		clients.Go(func() {
			c := r.client(w)
			for ctx.Err() == nil {
				if status, body, err := get(t.Context(), c, target); err != nil || status != http.StatusOK || !strings.Contains(body, "hello") {
					t.Errorf("%s while the policy changes: %d %q %v", target, status, body, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	c := r.client(w)
	answers := func(want int) {
		t.Helper()
		if status, body, err := get(t.Context(), c, "http://denied.example.test/"); err != nil || status != want {
			t.Errorf("denied.example.test: %d %s %v, want %d", status, body, err, want)
		}
	}
	more := func(n int64) { // of the clients' requests
		t.Helper()
		for until, deadline := asked.Load()+n, time.Now().Add(patience); asked.Load() < until; {
			if t.Failed() || time.Now().After(deadline) {
				t.Fatal("the clients stopped")
			}
			answersOrNothing(t, c)
		}
	}
	versions := []string{r.awaitLog("policy in force")["policy_version"].(string)}
	reloaded := func() map[string]any {
		t.Helper()
		return r.awaitLog(fmt.Sprintf(`"old_policy_version":%q`, versions[len(versions)-1]))
	}

	answers(http.StatusForbidden)
	more(10)
	for i := range 6 {
		rules := twoNames + fmt.Sprintf("  - {name: round-%d, hosts: [round-%d.example.test]}\n", i, i)
		if i%2 == 0 {
			rules += "  - {name: more, hosts: [denied.example.test], protocol: http, resolves_to: [127.0.0.0/8]}\n"
		}
		r.writePolicy(rules)
		if i < 4 {
			r.signal(syscall.SIGHUP)
		} // else the file alone must do
		fields := reloaded()
		if fields["message"] != "policy reloaded" || fields["policy_version"] == versions[len(versions)-1] {
			t.Errorf("the log says %v", fields)
		}
		versions = append(versions, fields["policy_version"].(string))
		answers(map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[i%2 == 0])
		more(5)
	}
	r.writePolicy("  - {name: broken, hosts: [a..b]}\n")
	r.signal(syscall.SIGHUP)
	if said := r.awaitLog("policy refused, the one in force stays"); said["policy_version"] != versions[len(versions)-1] {
		t.Errorf("the log says %v", said)
	}
	answers(http.StatusForbidden)
	more(10)
	stop()
	clients.Wait()
	if got := r.metric(`sallyport_policy_reloads_total{result="failed"}`); got == "0" {
		t.Error("the metrics know of no refused policy")
	}
	for _, l := range r.lines() {
		if l.Event.Name == "flow.deny" && l.Server.Address == "allowed.example.test" {
			t.Errorf("a reload denied what every policy allows: %s", l.text)
		}
	}
}

// answersOrNothing keeps a waiting test busy with something worth asking.
func answersOrNothing(t *testing.T, c *http.Client) {
	t.Helper()
	if status, _, err := get(t.Context(), c, "http://nobody.example.test/"); err != nil || status != http.StatusForbidden {
		t.Errorf("nobody.example.test: %d %v", status, err)
	}
}

// TestReloadCutsDenied: a tunnel under way ends when a new policy denies it,
// one that is still allowed goes on.
func TestReloadCutsDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin("allowed.example.test", nil)
	w.origin("other.example.test", nil)
	both := `
  - {name: web, hosts: [allowed.example.test, other.example.test], resolves_to: [127.0.0.0/8]}
`
	r := w.serve(both)
	stays, goes := r.tunnel(w, "allowed.example.test"), r.tunnel(w, "other.example.test")
	stays.ask(t)
	goes.ask(t)
	r.writePolicy(strings.Replace(both, ", other.example.test", "", 1))
	r.signal(syscall.SIGHUP)
	if cut := r.awaitLog("policy reloaded")["cut"]; cut != 1.0 {
		t.Errorf("%v connections were cut, want one", cut)
	}
	if _, err := goes.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel that is now denied still answers")
	}
	if l := r.ended("other.example.test"); l.Sallyport.EndedBy != "policy" {
		t.Errorf("the record: %s", l.text)
	}
	stays.ask(t)
	stays.conn.Close()
	r.allowed("allowed.example.test", "connect")
}

// tunnel is a TLS connection through CONNECT.
type tunnel struct {
	conn *tls.Conn
	in   *bufio.Reader
	host string
}

func (r *rig) tunnel(w *world, host string, fields ...string) *tunnel {
	r.t.Helper()
	c, err := r.dial(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n%s\r\n", host, strings.Join(fields, ""))
	// Byte by byte: what follows the head is TLS's.
	head := make([]byte, 0, 64)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			r.t.Fatalf("after %q: %v", head, err)
		}
		head = append(head, b...)
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 200 ") {
		r.t.Fatalf("CONNECT %s: %s", host, head)
	}
	conn := tls.Client(c, &tls.Config{ServerName: host, RootCAs: w.roots})
	return &tunnel{conn: conn, in: bufio.NewReader(conn), host: host}
}

func (tu *tunnel) send(t *testing.T, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(tu.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, tu.host); err != nil {
		t.Fatal(err)
	}
}

func (tu *tunnel) receive(t *testing.T) string {
	t.Helper()
	resp, err := http.ReadResponse(tu.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (tu *tunnel) ask(t *testing.T) {
	t.Helper()
	tu.send(t, "/")
	if body := tu.receive(t); !strings.HasPrefix(body, "hello from "+tu.host) {
		t.Fatalf("through the tunnel came %q", body)
	}
}

// TestDrain stops the product with fifty transfers in the middle: all of them
// come to their end, nobody new gets in, and it ends with 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	const transfers, size = 50, 1 << 20
	w := newWorld(t)
	var halfway sync.WaitGroup
	halfway.Add(transfers)
	goOn := make(chan struct{})
	half := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(rw, zeros{}, size/2)
		_ = http.NewResponseController(rw).Flush()
		halfway.Done()
		<-goOn
		_, _ = io.CopyN(rw, zeros{}, size/2)
	}
	w.origin("allowed.example.test", http.HandlerFunc(half))
	r := w.serve(twoNames, setting("timeouts.drain", "80s"))
	var clients sync.WaitGroup
	for i := range transfers {
		target := []string{"https://allowed.example.test/", "http://allowed.example.test/"}[i%2]
		clients.Go(func() {
			status, body, err := get(t.Context(), r.client(w), target)
			if err != nil || status != http.StatusOK || len(body) != size {
				t.Errorf("%s across the drain: %d, %d bytes, %v", target, status, len(body), err)
			}
		})
	}
	halfway.Wait()
	if res := r.run(nil, "ready"); res.code != 0 {
		t.Errorf("before the drain, ready: %+v", res)
	}
	r.signal(syscall.SIGTERM)
	r.awaitLog(`"message":"draining"`)
	for deadline := time.Now().Add(patience); ; {
		c, err := r.dial(t.Context())
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			c.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("a draining proxy still takes connections: %v", err)
		}
	}
	if res := r.run(nil, "ready"); res.code != 1 {
		t.Errorf("while it drains, ready: %+v", res)
	}
	close(goOn)
	clients.Wait()
	if code := r.wait(); code != 0 {
		t.Errorf("the drained proxy ended with %d", code)
	}
	closed := 0
	for _, l := range r.lines() {
		if l.Event.Name == "flow.close" {
			if closed++; l.Sallyport.BytesReceived < size || l.Sallyport.EndedBy == "drain" {
				t.Errorf("the record: %s", l.text)
			}
		}
	}
	if closed != transfers {
		t.Errorf("%d transfers are on record, want %d", closed, transfers)
	}
}

// TestSecondSignalCuts: who cannot wait for the drain signals twice.
func TestSecondSignalCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin("allowed.example.test", nil)
	r := w.serve(twoNames, setting("timeouts.drain", "10m"))
	tu := r.tunnel(w, "allowed.example.test")
	tu.ask(t)
	r.signal(syscall.SIGTERM)
	r.awaitLog(`"message":"draining"`)
	tu.ask(t) // the tunnel still works
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 0 {
		t.Errorf("the proxy ended with %d", code)
	}
	if l := r.ended("allowed.example.test"); l.Sallyport.EndedBy != "drain" {
		t.Errorf("the record: %s", l.text)
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.serve(twoNames)
	if res := r.run(nil, "ready"); res.code != 0 {
		t.Errorf("a proxy that serves: %+v", res)
	}
	// A port that nobody serves: bound, and never listened on.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	r.admin = net.JoinHostPort("127.0.0.1", fmt.Sprint(name.(*syscall.SockaddrInet4).Port))
	if res := r.run(nil, "ready"); res.code != 1 || !strings.Contains(res.stderr, r.admin) {
		t.Errorf("where nobody serves: %+v", res)
	}
}

// TestExplainCoprocess keeps one `policy explain --json -` for many questions,
// each asked when the one before is answered.
func TestExplainCoprocess(t *testing.T) {
	t.Parallel()
	path := binary(t)
	w := newWorld(t)
	file := w.dir + "/policy.yaml"
	writeFile(t, file, "version: 1\nrules:\n"+twoNames+"  - {name: data, s3: {buckets: [acme-prod-data]}}\n")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "policy", "explain", "--json", "--policy", file, "-")
	cmd.Env = bareEnv(w.dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for _, c := range []struct{ ask, verdict, reason, bucket string }{
		{"https://allowed.example.test/", "allow", "rule", ""},
		{"https://denied.example.test/", "deny", "no_rule", ""},
		{`{"url": "http://allowed.example.test/", "source": "10.0.0.1"}`, "allow", "rule", ""},
		{"acme-prod-data.s3.eu-west-1.amazonaws.com", "allow", "rule", "acme-prod-data"},
		{"https://other.s3.eu-west-1.amazonaws.com/", "deny", "s3_bucket", "other"},
		{"https://169.254.169.254/", "deny", "ip_literal", ""},
	} {
		if _, err := fmt.Fprintln(in, c.ask); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("asked for %s: %v", c.ask, err)
		}
		var got struct {
			Verdict, Reason string
			S3              *struct{ Bucket string }
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got.Verdict != c.verdict || got.Reason != c.reason || (got.S3 != nil) != (c.bucket != "") || got.S3 != nil && got.S3.Bucket != c.bucket {
			t.Errorf("%s: %s", c.ask, line)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("unasked: %q, %v", rest, err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v, want 1, since something is denied", err)
	}
}

// TestFlowLogStalls leaves the flow log unread while clients go on.
func TestFlowLogStalls(t *testing.T) {
	t.Parallel()
	const requests = 2000
	for _, full := range []string{"drop", "block"} {
		t.Run(full, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			// The smallest pipe there is: a few lines fill it.
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, writer.Fd(), syscall.F_SETPIPE_SZ, 4096); errno != 0 {
				t.Fatal(errno)
			}
			r := w.serve(twoNames, setting("logging.full", full), setting("logging.queue", 64), func(c *rigConfig) { c.stdout = writer })
			writer.Close() // the product holds its own
			if full == "drop" {
				stallDropping(t, r, w, reader, requests)
			} else {
				stallBlocking(t, r, w, reader, requests)
			}
		})
	}
}

// stallDropping: everybody is served, losses are counted and told.
func stallDropping(t *testing.T, r *rig, w *world, reader io.Reader, requests int) {
	t.Helper()
	denials(t, r, w, requests, nil)
	dropped := r.metric(`sallyport_events_dropped_total{sink="flow_log"}`)
	var n int
	if _, err := fmt.Sscan(dropped, &n); err != nil || n == 0 {
		t.Errorf("the metrics know of %q dropped lines", dropped)
	}
	read := make(chan struct{})
	go func() { defer close(read); r.readFlows(reader) }()
	if said := r.awaitLog("flow lines were dropped"); said["dropped"] == 0.0 {
		t.Errorf("the log says %v", said)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	<-read
	if got := len(r.lines()); got+n != requests {
		t.Errorf("%d lines and %d drops for %d attempts", got, n, requests)
	}
}

// stallBlocking: clients wait while nobody reads, and no line is lost.
func stallBlocking(t *testing.T, r *rig, w *world, reader io.Reader, requests int) {
	t.Helper()
	var served atomic.Int64
	done := make(chan struct{})
	go func() { defer close(done); denials(t, r, w, requests, &served) }()
	// They stop once the queue is full; how long to look is a matter of taste,
	// and an early look proves less, never something false.
	deadline := time.Now().Add(patience)
	for last, same := int64(-1), 0; same < 20 && time.Now().Before(deadline); {
		now := served.Load()
		if same++; now != last || now == 0 {
			last, same = now, 0
		}
		if res := r.run(nil, "ready"); res.code != 0 {
			t.Errorf("while the log stalls, ready: %+v", res)
			break
		}
	}
	if n := served.Load(); n >= int64(requests) {
		t.Errorf("%d attempts ended without a line that anybody could read", n)
	}
	read := make(chan struct{})
	go func() { defer close(read); r.readFlows(reader) }()
	<-done
	r.signal(syscall.SIGTERM)
	r.wait()
	<-read
	if got := len(r.lines()); got != requests {
		t.Errorf("%d lines for %d attempts", got, requests)
	}
}

// denials asks for denied names, many at a time, and counts the answers.
func denials(t *testing.T, r *rig, w *world, requests int, served *atomic.Int64) {
	t.Helper()
	var clients sync.WaitGroup
	next := make(chan int)
	for range 8 {
		clients.Go(func() {
			c := r.client(w)
			c.Transport.(*http.Transport).DisableKeepAlives = false
			defer c.CloseIdleConnections()
			for range next {
				if t.Failed() {
					continue // one client that waits in vain is enough
				}
				if status, _, err := get(t.Context(), c, "http://denied.example.test/"); err != nil || status != http.StatusForbidden {
					t.Errorf("%d %v", status, err)
					continue
				}
				if served != nil {
					served.Add(1)
				}
			}
		})
	}
	for i := range requests {
		next <- i
	}
	close(next)
	clients.Wait()
}
