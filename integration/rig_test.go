package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sallyport/sallyport/logging"
)

// patience is how long anything that must happen may take before a test gives
// up. It is no measure of the product: a loaded machine is slow.
const patience = 90 * time.Second

// racyBinary is the product with the race detector in it.
var racyBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "sallyport-race")
	if out, err := exec.Command("go", "build", "-race", "-o", path, "../cmd/sallyport").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build -race: %w\n%s", err, out)
	}
	return path, nil
})

// flowLine is what the tests read of a line of the flow log. Its shape is the
// schema's affair.
type flowLine struct {
	Event  struct{ Name string }
	Client struct{ Address string }
	Server struct {
		Address string
		Port    int
	}
	Network struct {
		Peer struct {
			Address string
			Port    int
		}
		Protocol struct{ Name string }
	}
	TLS struct {
		Client struct {
			ServerName string `json:"server_name"`
			Version    string
			ALPN       []string
		}
	}
	HTTP struct {
		Request  struct{ Method string }
		Response struct {
			StatusCode int `json:"status_code"`
		}
	}
	URL struct{ Path string }
	AWS struct {
		S3 struct{ Form, Bucket, Region string }
	}
	Rule      struct{ Name string }
	User      struct{ Name string }
	Error     struct{ Type, Message string }
	Sallyport struct {
		FlowID        string `json:"flow_id"`
		Verdict       string
		Reason        string
		Outcome       string
		EndedBy       string `json:"ended_by"`
		Via           string
		Enforcement   string
		PolicyVersion string `json:"policy_version"`
		Original      string
		Listener      string
		BytesSent     int64 `json:"bytes_sent"`
		BytesReceived int64 `json:"bytes_received"`
	}

	text  string
	taken bool // by rig.ended
}

// rig is a running `sallyport serve`.
type rig struct {
	t          *testing.T
	addr       string // where clients connect
	admin      string // where health checks and metrics are
	policyFile string
	cmd        *exec.Cmd
	schema     *jsonschema.Schema
	exited     chan struct{} // closed when the process and its output ended
	exitErr    error

	mu     sync.Mutex
	more   chan struct{} // closed and replaced at each line
	flows  []*flowLine
	log    []string
	faulty bool // the test expects error lines in the log
}

// rigConfig is how a test wants the product.
type rigConfig struct {
	// settings are keys of the configuration file, with dots between.
	settings map[string]any
	// env are further variables.
	env []string
	// under is a command that runs the product, such as strace and its flags.
	under []string
	// plain asks for the binary as it ships, without the race detector.
	plain bool
	// waits is for a product that does not listen yet: there is no addr before
	// listens is called.
	waits bool
	// stdout takes the place of the rig's own reader of flow lines.
	stdout *os.File
}

// serve starts the product under a policy's rules (the YAML below "rules:")
// with the world's names in its resolver. The test's end stops it and holds
// it to: exit code 0, every line of the flow log as the schema says, each
// attempt ended once, nothing alarming in the log.
func (w *world) serve(rules string, opts ...func(*rigConfig)) *rig {
	w.t.Helper()
	cfg := rigConfig{settings: map[string]any{}}
	for _, o := range opts {
		o(&cfg)
	}
	r := &rig{
		t: w.t, policyFile: filepath.Join(w.dir, "policy.yaml"), schema: flowSchema(w.t),
		exited: make(chan struct{}), more: make(chan struct{}),
	}
	r.writePolicy(rules)
	configFile := filepath.Join(w.dir, "sallyport.yaml")
	writeFile(w.t, configFile, w.config(r.policyFile, cfg.settings))

	path, err := build()
	if raceOn && !cfg.plain {
		path, err = racyBinary()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	args := append(slices.Clone(cfg.under), path, "serve", "--config", configFile)
	r.cmd = exec.Command(args[0], args[1:]...)
	// The race detector would wait a second at the end of each process.
	r.cmd.Env = append(bareEnv(w.dir), "GORACE=atexit_sleep_ms=0")
	r.cmd.Env = append(r.cmd.Env, cfg.env...)
	r.start(cfg.stdout)
	w.t.Cleanup(r.end)
	r.admin = r.awaitLog("listening for health checks")["admin"].(string)
	if !cfg.waits {
		r.listens()
	}
	return r
}

// listens waits until the product takes connections.
func (r *rig) listens() {
	r.t.Helper()
	r.addr = r.awaitLog(`"message":"listening"`)["listener"].(string)
	r.awaitLog("policy in force")
}

func setting(key string, value any) func(*rigConfig) {
	return func(c *rigConfig) { c.settings[key] = value }
}

// config is the text of a configuration file: JSON, which is YAML.
func (w *world) config(policyFile string, settings map[string]any) string {
	w.t.Helper()
	tree := map[string]any{
		"listeners": []any{map[string]any{"address": "127.0.0.1:0"}},
		"admin":     map[string]any{"address": "127.0.0.1:0"},
		"policy":    []any{"file:" + policyFile},
	}
	if len(w.hosts) > 0 {
		tree["resolver"] = map[string]any{"hosts": w.hosts}
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		at, parts := tree, strings.Split(key, ".")
		for _, part := range parts[:len(parts)-1] {
			if _, ok := at[part]; !ok {
				at[part] = map[string]any{}
			}
			at = at[part].(map[string]any)
		}
		at[parts[len(parts)-1]] = settings[key]
	}
	text, err := json.MarshalIndent(tree, "", "  ")
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

func (r *rig) writePolicy(rules string) {
	r.t.Helper()
	// In one step, so that no look at the file sees half of it.
	writeFile(r.t, r.policyFile+".new", "version: 1\nrules:\n"+rules)
	if err := os.Rename(r.policyFile+".new", r.policyFile); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) start(stdout *os.File) {
	r.t.Helper()
	var readers sync.WaitGroup
	if stdout != nil {
		r.cmd.Stdout = stdout
	} else {
		pipe, err := r.cmd.StdoutPipe()
		if err != nil {
			r.t.Fatal(err)
		}
		readers.Go(func() { r.readFlows(pipe) })
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	readers.Go(func() { scan(stderr, func(s string) { r.note(func() { r.log = append(r.log, s) }) }) })
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(r.exited)
		readers.Wait() // Wait closes the pipes
		r.exitErr = r.cmd.Wait()
	}()
}

// readFlows takes flow lines until the end of in.
func (r *rig) readFlows(in io.Reader) {
	scan(in, func(text string) {
		line := &flowLine{text: text}
		if err := validLine(r.schema, text); err != nil {
			r.t.Errorf("a line of the flow log is not as its schema says: %v\n%s", err, text)
		}
		if err := json.Unmarshal([]byte(text), line); err != nil {
			r.t.Errorf("%v: %s", err, text)
		}
		r.note(func() { r.flows = append(r.flows, line) })
	})
}

func scan(in io.Reader, each func(string)) {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		each(s.Text())
	}
}

func (r *rig) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.more)
	r.more = make(chan struct{})
}

// await calls look, which runs under the lock, after every change until it
// returns true.
func (r *rig) await(what string, look func() bool) {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		done, more := look(), r.more
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
			continue
		case <-r.exited:
			r.t.Fatalf("sallyport ended (%v) before %s\n%s", r.exitErr, what, r.said())
		case <-timeout:
			r.t.Fatalf("no %s\n%s", what, r.said())
		}
	}
}

// said is what the product wrote, for people: the full lines stand where a
// test complains of them.
func (r *rig) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, l := range r.log {
		fmt.Fprintf(&b, "log: %.400s\n", l)
	}
	for _, l := range r.flows {
		s := l.Sallyport
		fmt.Fprintf(&b, "flow: %s %s %s:%d via %s: %s %s, sent %d, received %d, error %q\n", s.FlowID, l.Event.Name,
			l.Server.Address, l.Server.Port, s.Via, s.Reason, s.Outcome, s.BytesSent, s.BytesReceived, l.Error.Message)
	}
	return b.String()
}

// awaitLog waits for a log line that contains text and returns its fields.
func (r *rig) awaitLog(text string) map[string]any {
	r.t.Helper()
	var fields map[string]any
	r.await("log line with "+text, func() bool {
		i := slices.IndexFunc(r.log, func(l string) bool { return strings.Contains(l, text) })
		if i < 0 {
			return false
		}
		if err := json.Unmarshal([]byte(r.log[i]), &fields); err != nil {
			r.t.Errorf("%v: %s", err, r.log[i])
		}
		return true
	})
	return fields
}

// ended waits for the first flow.close or flow.deny of a host that no call
// has returned yet.
func (r *rig) ended(host string) *flowLine {
	r.t.Helper()
	return r.endedVia(host, "")
}

// endedVia is ended for one way in; "" is any.
func (r *rig) endedVia(host, via string) *flowLine {
	r.t.Helper()
	var found *flowLine
	r.await("flow.close or flow.deny of "+host+" via "+via, func() bool {
		for _, l := range r.flows {
			if !l.taken && l.Server.Address == host && (via == "" || l.Sallyport.Via == via) && l.Event.Name != "flow.open" {
				l.taken, found = true, l
				return true
			}
		}
		return false
	})
	return found
}

// allowed is ended for an attempt that must have gone well. Some clients leave
// a tunnel as soon as they have their answer, with TLS's last words unread,
// which resets the connection: their manners are on record, and no concern of
// the tests.
func (r *rig) allowed(host, via string) *flowLine {
	r.t.Helper()
	l := r.endedVia(host, via)
	left := l.Sallyport.Outcome == "connection_terminated" && l.Sallyport.EndedBy == "client" && via != "http"
	if l.Event.Name != "flow.close" || l.Sallyport.Reason != "rule" || l.Sallyport.Outcome != "ok" && !left {
		r.t.Errorf("the record is not that of an attempt that went well: %s", l.text)
	}
	return l
}

// denied is ended for an attempt that must have been denied.
func (r *rig) denied(host, via, reason string) *flowLine {
	r.t.Helper()
	l := r.endedVia(host, via)
	if l.Event.Name != "flow.deny" || l.Sallyport.Reason != reason || l.Sallyport.Outcome != reason {
		r.t.Errorf("the record is not that of an attempt denied for %s: %s", reason, l.text)
	}
	return l
}

// lines returns the flow lines so far.
func (r *rig) lines() []*flowLine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.flows)
}

// expectFaults says that error lines in the log are what the test is about.
func (r *rig) expectFaults() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faulty = true
}

func (r *rig) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Errorf("signal %v: %v", s, err)
	}
}

// wait waits for the product's end and returns its exit code.
func (r *rig) wait() int {
	r.t.Helper()
	select {
	case <-r.exited:
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		_ = r.cmd.Process.Kill()
		<-r.exited
		r.t.Errorf("sallyport did not end")
		return -1
	}
}

// end stops the product and holds it to what every run must keep.
func (r *rig) end() {
	select {
	case <-r.exited:
	default:
		r.signal(syscall.SIGTERM)
	}
	if code := r.wait(); code != 0 {
		r.t.Errorf("sallyport ended with %d (%v)", code, r.exitErr)
	}
	for _, l := range r.log { // nobody writes to it any more
		switch {
		case strings.Contains(l, "DATA RACE"), strings.Contains(l, "panic"), !strings.HasPrefix(l, "{"):
			r.t.Errorf("the log says: %s", l)
		case !r.faulty && strings.Contains(l, `"level":"error"`):
			r.t.Errorf("an error in the log: %s", l)
		}
	}
	r.account()
	if r.t.Failed() {
		r.t.Log("\n" + r.said())
	}
}

// account holds the flow log to one end for each attempt, and an opening
// before it where it was allowed.
func (r *rig) account() {
	open, ended := map[string]bool{}, map[string]bool{}
	for _, l := range r.flows {
		id := l.Sallyport.FlowID
		if l.Event.Name == "anomaly" {
			continue
		}
		if l.Event.Name == "flow.open" {
			open[id] = true
			continue
		}
		if ended[id] {
			r.t.Errorf("flow %s ended twice: %s", id, l.text)
		}
		ended[id] = true
		if open[id] != (l.Event.Name == "flow.close") {
			r.t.Errorf("flow %s: %s, opened before: %v", id, l.Event.Name, open[id])
		}
	}
	for id := range open {
		if !ended[id] {
			r.t.Errorf("flow %s was opened and never closed", id)
		}
	}
}

// url is the proxy as clients are told of it.
func (r *rig) url() string { return "http://" + r.addr }

// metric returns a sample of /metrics: the value behind the name and labels.
func (r *rig) metric(sample string) string {
	r.t.Helper()
	family, _, _ := strings.Cut(sample, "{")
	var like []string
	text := r.metrics()
	for l := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(l, sample+" "); ok {
			return strings.TrimSpace(value)
		}
		if strings.HasPrefix(l, family) {
			like = append(like, l)
		}
	}
	r.t.Fatalf("no sample %s in the %d bytes of /metrics; of its family: %q", sample, len(text), like)
	return ""
}

// run runs the product's other commands, and returns what it said and how it
// ended.
func (r *rig) run(stdin io.Reader, args ...string) result {
	r.t.Helper()
	path, err := build()
	if err != nil {
		r.t.Fatal(err)
	}
	return command{path: path, args: args, stdin: stdin, env: []string{"SALLYPORT_ADMIN_ADDRESS=" + r.admin}}.run(r.t)
}

// dial connects to the proxy.
func (r *rig) dial(ctx context.Context) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// flowSchema compiles the published schema of the flow log.
func flowSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(logging.FlowSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("flow.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("flow.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validLine(s *jsonschema.Schema, line string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
