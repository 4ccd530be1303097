package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/logging/history/historytest"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

// The passwords of the roles, with what a URL has another use for.
const (
	fleetPassword  = "the proxies' own: /?#@%"
	readerPassword = "the readers' own: /?#@%"
)

// fleetDatabase runs examples/postgres/sallyport.sql on a server of the test's
// own, as its README says and as an administrator who is no superuser. From then
// on nobody but administrators gets in without a password.
func fleetDatabase(t *testing.T) (role func(name, password string) string, administrator string) {
	t.Helper()
	server := historytest.New(t)
	psql := need(t, "psql")
	server.SQL(t, "postgres", "CREATE ROLE master LOGIN CREATEDB CREATEROLE")
	file := filepath.Join(root(t), "examples", "postgres", "sallyport.sql")
	as := func(user, database string) string {
		return strings.Replace(server.URL(database), "user=postgres", "user="+user, 1)
	}
	command{path: psql, args: []string{"-X", "-v", "ON_ERROR_STOP=1", "-d", as("master", "postgres"), "-f", file}}.run(t).succeeds(t)

	// Without a terminal psql reads passwords from its standard input.
	cmd := exec.CommandContext(t.Context(), psql, "-X", "-v", "ON_ERROR_STOP=1", "-d", as("master", "sallyport"), "-c", `\password sallyport`, "-c", `\password sallyport_reader`)
	cmd.Env = bareEnv(t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdin = strings.NewReader(strings.Repeat(fleetPassword+"\n", 2) + strings.Repeat(readerPassword+"\n", 2))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server.DemandPasswords(t, "master")
	u, err := url.Parse(server.URL("sallyport"))
	if err != nil {
		t.Fatal(err)
	}
	host := url.Values{"host": {u.Query().Get("host")}}.Encode()
	return func(name, password string) string {
		return (&url.URL{Scheme: "postgres", User: url.UserPassword(name, password), Path: "/sallyport", RawQuery: host}).String()
	}, as("postgres", "sallyport")
}

// secretsManager plays AWS Secrets Manager, and notes what it is asked for.
type secretsManager struct {
	mu     sync.Mutex // protects what follows
	values map[string]string
	asked  []string
}

func (s *secretsManager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ask struct {
		SecretID string `json:"SecretId"`
	}
	err := json.NewDecoder(r.Body).Decode(&ask)
	value, ok := s.values[ask.SecretID]
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err != nil || !ok || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"__type": "ResourceNotFoundException"})
		return
	}
	s.asked = append(s.asked, ask.SecretID)
	json.NewEncoder(w).Encode(map[string]string{"Name": ask.SecretID, "SecretString": value + "\n"})
}

// set changes a secret.
func (s *secretsManager) set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
}

// fleet is two proxies as examples/config/fleet.yaml has them, on the database
// of examples/postgres and with the receiver of examples/webhook. What is not
// the example's are the addresses, the policy, and how often is looked.
type fleet struct {
	*world
	one, two *rig
	role     func(name, password string) string // its URL of the store
	reader   string                             // the reader's
	told     *bufio.Reader
	tasks    *proxytest.AWS
	task     proxytest.ECSTask // the only one
	token    string            // a file with admin.token
}

const fleetRules = `
  - {name: pay, hosts: [pay.example.test], sources: [payments], resolves_to: [127.0.0.0/8], budget: {bytes_out: 1KiB, per: month}}
  - {name: all, hosts: [all.example.test], resolves_to: [127.0.0.0/8]}
unknown_source: deny
sources:
  - {name: payments, ecs: {cluster: prod, service: "payments-*"}}
`

// fleetTask is the address of the only task.
const fleetTask = "10.0.16.9"

// fleetConfig returns the example.
func fleetConfig(t *testing.T) (text string, tree map[string]any) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(root(t), "examples", "config", "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(file, &tree); err != nil {
		t.Fatal(err)
	}
	return string(file), tree
}

// fleetSecrets returns the names of the secrets that the example reads.
func fleetSecrets(t *testing.T) []string {
	t.Helper()
	text, _ := fleetConfig(t)
	var names []string
	for _, m := range regexp.MustCompile(`"secretsmanager:([^"]+)"`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t)}
	f.role, _ = fleetDatabase(t)
	f.reader = f.role("sallyport_reader", readerPassword)
	for _, name := range []string{"pay.example.test", "all.example.test", "new.example.test"} {
		f.origin(name, nil)
	}
	secrets := &secretsManager{values: map[string]string{
		"sallyport/admin-token": "0123456789abcdef0123456789abcdef",
		"sallyport/history":     f.role("sallyport", fleetPassword),
		"sallyport/webhook":     "a secret of two dozen bytes",
	}}
	manager := httptest.NewServer(secrets)
	t.Cleanup(manager.Close)
	f.token = filepath.Join(f.dir, "token")
	writeFile(t, f.token, secrets.values["sallyport/admin-token"]+"\n")
	fake, asks := fakeAWS(t)
	f.tasks = fake
	f.run(41)
	var hook string
	hook, f.told = receiver(t, secrets.values["sallyport/webhook"])

	start := func(instance string) *rig {
		_, tree := fleetConfig(t)
		return f.serve(fleetRules, asks, environ("AWS_ENDPOINT_URL_SECRETS_MANAGER="+manager.URL), func(c *rigConfig) {
			maps.Copy(c.settings, tree)
			listener, _ := tree["listeners"].([]any)[0].(map[string]any)
			listener["address"], listener["proxy_from"] = "127.0.0.1:0", []any{"127.0.0.0/8"}
			c.settings["policy"] = []any{"file:" + filepath.Join(f.dir, "policy.yaml")}
			maps.Copy(c.settings, map[string]any{
				"admin.address": "127.0.0.1:0", "history.instance": instance, "watch.every": "200ms", "identity.ecs.poll": "1s", "watch.webhook.url": hook,
				"export.ipfix.collector": "tcp://collector.corp.example:" + f.collector(t),
				"metrics.emf.namespace":  "", // its lines are no flows
			})
		})
	}
	f.name("collector.corp.example", "127.0.0.1")
	f.one, f.two = start("one"), start("two")
	f.one.awaitReadyz("1 task")
	f.two.awaitReadyz("1 task")
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	slices.Sort(secrets.asked)
	if got, want := slices.Compact(secrets.asked), fleetSecrets(t); !slices.Equal(got, want) {
		t.Errorf("the proxies read the secrets %v, the example names %v", got, want)
	}
	return f
}

// run makes the only task that calls one of a revision of payments.
func (f *fleet) run(revision int) proxytest.ECSTask {
	if f.task.ID != "" {
		f.tasks.Forget(f.task.ARN())
	}
	f.task = proxytest.ECSTask{
		ID: "revision" + strconv.Itoa(revision), Service: "payments-api", Family: "payments", Revision: revision, IPv4: fleetTask,
		Created: time.Date(2026, 11, 1, 0, revision, 0, 0, time.UTC),
	}
	f.tasks.Put(f.task)
	return f.task
}

// collector plays an IPFIX collector, and returns its port. What connects must
// speak IPFIX.
func (f *fleet) collector(t *testing.T) (port string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				var version [2]byte
				if _, err := io.ReadFull(c, version[:]); err == nil && version != [2]byte{0, 10} {
					t.Errorf("the collector is told %x", version)
				}
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	_, port, err = net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// balanced dials as a balancer does for a client, who is named in a PROXY header.
func balanced(client string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(c, "PROXY TCP4 "+client+" 10.0.0.5 4711 3128\r\n"); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// visit asks through a proxy as the task behind the balancer.
func (f *fleet) visit(r *rig, host string) error {
	f.t.Helper()
	client := r.client(f.world)
	client.Transport.(*http.Transport).DialContext = balanced(fleetTask)
	_, _, err := get(f.t.Context(), client, "https://"+host+"/")
	return err
}

func (f *fleet) visits(r *rig, hosts ...string) {
	f.t.Helper()
	for _, host := range hosts {
		if err := f.visit(r, host); err != nil {
			f.t.Fatalf("%v\n%s", err, r.said())
		}
	}
}

// TestFleetExample: two proxies with the examples' configuration, roles and
// receiver do what is said of them.
func TestFleetExample(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.visits(f.one, "pay.example.test", "all.example.test")
	f.visits(f.two, "pay.example.test")
	look := func(text string, args ...string) result {
		t.Helper()
		return f.two.awaitRun(text, append(args, "--store", f.reader)...)
	}
	look(`"visits":2,`, "site", "list", "--host", "pay.example.test", "--json")
	look("payments-api", "flow", "list", "--family", "payments:41")
	look("by one", "policy", "history")

	// Who reads does not write; who has the token does, for both.
	deny := []string{"policy", "deny", "--author", "ann", "--reason", "a test", "all.example.test"}
	f.two.run(nil, append(deny, "--store", f.reader)...).fails(t, "permission denied")
	f.one.run(nil, deny...).fails(t, "--token-file")
	f.visits(f.two, "all.example.test")
	f.one.run(nil, append(deny, "--token-file", f.token)...).succeeds(t, "denied all.example.test")
	look("all.example.test", "policy", "overlay", "list")
	f.two.awaitLog("overlay of the policy")
	f.two.awaitLog("policy reloaded")
	if err := f.visit(f.two, "all.example.test"); err == nil {
		t.Error("what was denied at one proxy is let through by the other")
	}

	// A budget that is spent, with the first visit, comes as a message.
	line, err := f.told.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "medium\tbudget\t") || !strings.Contains(line, "1KiB out per month") {
		t.Errorf("the receiver prints %q, %v", line, err)
	}
}

// TestFleetRoles: nobody may do more than the SQL says.
func TestFleetRoles(t *testing.T) {
	t.Parallel()
	role, administrator := fleetDatabase(t)
	psql := need(t, "psql")
	writer, reader := role("sallyport", fleetPassword), role("sallyport_reader", readerPassword)
	run := func(args ...string) result {
		t.Helper()
		return command{path: psql, args: append([]string{"-X", "-w", "-v", "ON_ERROR_STOP=1"}, args...)}.run(t)
	}
	run("-d", role("sallyport", readerPassword), "-c", "SELECT 1").fails(t, "password authentication failed")

	// The first proxy makes the tables.
	open := command{path: binary(t), args: []string{"site", "list", "--store", reader}}
	open.run(t).fails(t, "one that was never written")
	newWorld(t).serve(twoNames, setting("history.store", "env:HISTORY_URL"), environ("HISTORY_URL="+writer)).awaitReadyz(`"detail":"postgres:`)
	open.run(t).succeeds(t, "Discovered nothing")
	for _, statement := range []string{"DELETE FROM sallyport.site", "UPDATE sallyport.overlay SET revoked_at = 1", "INSERT INTO sallyport.change VALUES ('x', 1)", "CREATE TABLE sallyport.x ()"} {
		run("-d", reader, "-c", statement).fails(t, "permission denied")
		run("-d", administrator, "-c", "BEGIN", "-c", statement, "-c", "ROLLBACK").succeeds(t) // it is the role that may not
	}
	for _, statement := range []string{"CREATE TABLE public.x ()", "CREATE TEMPORARY TABLE x ()", "CREATE SCHEMA x", "CREATE ROLE x", "CREATE DATABASE x", "SET ROLE master"} {
		run("-d", reader, "-c", statement).fails(t, "permission denied")
		run("-d", writer, "-c", statement).fails(t, "permission denied")
	}
	run("-d", administrator, "-c", "CREATE ROLE stranger LOGIN PASSWORD 'x'").succeeds(t)
	run("-d", role("stranger", "x"), "-c", "SELECT 1").fails(t, `permission denied for database "sallyport"`)
	// Every table is the reader's to see, and the administrator is no member of the role any more.
	run("-d", administrator, "-A", "-t", "-c", `SELECT 'hidden: ' || count(*) FILTER (WHERE NOT has_table_privilege('sallyport_reader', oid, 'SELECT')) || ', some: ' || (count(*) > 5)
		FROM pg_class WHERE relkind = 'r' AND relnamespace = 'sallyport'::regnamespace`).succeeds(t, "hidden: 0, some: true")
	run("-d", administrator, "-A", "-t", "-c", "SELECT 'public: ' || bool_or(has_schema_privilege(r, 'public', 'USAGE')) FROM unnest(ARRAY['sallyport', 'sallyport_reader']) r").succeeds(t, "public: false")
	run("-d", administrator, "-A", "-t", "-c", "SELECT 'member: ' || pg_has_role('master', 'sallyport', 'USAGE')").succeeds(t, "member: false")

	// Who may only look holds the lock of those who make tables, as anybody can. The
	// tables are there: no proxy waits for it, and none begins without its overlays.
	// Nor do the locks of those who write an overlay keep anybody from it.
	ctx, letGo := context.WithCancel(t.Context())
	held := exec.CommandContext(ctx, psql, "-X", "-w", "-d", reader, "-c", "SELECT pg_advisory_lock(x'53414c4c59'::bigint + n) FROM generate_series(0, 9) n; SELECT pg_sleep(600)")
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		letGo()
		_ = held.Wait() // it was killed
	})
	const locks = "SELECT 'held: ' || count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
	for deadline := time.Now().Add(patience); !strings.Contains(run("-d", administrator, "-A", "-t", "-c", locks).stdout, "held: 10"); {
		if time.Now().After(deadline) {
			t.Fatal("the lock is not held")
		}
	}
	r := newWorld(t).serve(twoNames, setting("history.store", "env:HISTORY_URL"), setting("history.overlays", "required"), environ("HISTORY_URL="+writer))
	r.awaitReadyz(`"ready":true`)
	url := filepath.Join(t.TempDir(), "url")
	writeFile(t, url, writer)
	r.run(nil, "policy", "deny", "evil.example.test", "--reason", "a test", "--store", "file:"+url).succeeds(t)
}

// TestFleetSecrets: the task role may read what the configuration names, and no
// other secret.
func TestFleetSecrets(t *testing.T) {
	var permitted []string
	for _, s := range iamExample(t, "secrets.json").Statement {
		if !slices.Contains(s.Action, "secretsmanager:GetSecretValue") {
			continue
		}
		for _, arn := range s.Resource {
			_, name, _ := strings.Cut(arn, ":secret:")
			permitted = append(permitted, strings.TrimSuffix(name, "-??????"))
			if ok, err := path.Match(arn, strings.TrimSuffix(arn, "??????")+"AbCdEf"); !ok || err != nil || !strings.HasSuffix(arn, "-??????") {
				t.Errorf("%s does not end as an ARN of Secrets Manager does", arn)
			}
		}
	}
	slices.Sort(permitted)
	if names := fleetSecrets(t); len(names) != 3 || !slices.Equal(permitted, names) {
		t.Errorf("the role may read %v, the configuration names %v", permitted, names)
	}
}

// TestFleetTask holds the task definition and its image to the configuration.
func TestFleetTask(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root(t), "examples", "ecs", "fleet.json"))
	if err != nil {
		t.Fatal(err)
	}
	var task struct {
		ContainerDefinitions []struct {
			container
			Image        string
			PortMappings []struct{ ContainerPort int }
		}
	}
	if err := json.Unmarshal(text, &task); err != nil {
		t.Fatal(err)
	}
	proxy := task.ContainerDefinitions[0]
	if want := []string{"CMD", "/sallyport", "ready"}; !slices.Equal(proxy.HealthCheck.Command, want) {
		t.Errorf("the health check is %q, want %q", proxy.HealthCheck.Command, want)
	}
	if !proxy.Essential || !proxy.ReadonlyRootFilesystem || proxy.User != "65532:65532" || !slices.Equal(proxy.LinuxParameters.Capabilities.Drop, []string{"ALL"}) {
		t.Error("the proxy is not essential, its root can be written to, its user is not the image's, or it keeps capabilities")
	}
	if len(task.ContainerDefinitions) != 1 || len(proxy.Environment) > 0 {
		t.Errorf("there is more than the proxy, or it has variables: %v", proxy.Environment)
	}
	_, image, _ := strings.Cut(proxy.Image, ".amazonaws.com/")

	env, folder := fleetImage(t, image)
	_, file, _ := strings.Cut(env, "SALLYPORT_CONFIG=") // the last of the variables
	effective := sallyport(t, []string{"SALLYPORT_CONFIG=" + filepath.Join(folder, file)}, "config", "--json")
	var printed struct {
		Config struct {
			Listeners []struct{ Address string }
			Admin     struct{ Address string }
			Timeouts  struct{ Drain string }
		}
	}
	if err := json.Unmarshal([]byte(effective), &printed); err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, m := range proxy.PortMappings {
		ports = append(ports, ":"+strconv.Itoa(m.ContainerPort))
	}
	if want := []string{printed.Config.Listeners[0].Address, printed.Config.Admin.Address}; !slices.Equal(ports, want) {
		t.Errorf("the task's ports are %v, the proxy's %v", ports, want)
	}
	drain, err := time.ParseDuration(printed.Config.Timeouts.Drain)
	if stop := time.Duration(proxy.StopTimeout) * time.Second; err != nil || stop <= drain || stop > 2*time.Minute {
		t.Errorf("the task is stopped after %v, and drains for %v: %v", stop, drain, err)
	}
	// What the URL of the store names is in the image, for everybody to read.
	config, _ := fleetConfig(t)
	ca := regexp.MustCompile(`sslrootcert=(\S+)`).FindStringSubmatch(config)
	if ca == nil {
		t.Fatal("the configuration does not tell of the database's CA")
	}
	for _, name := range []string{ca[1], file} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s in the image: %v, %v", name, info, err)
		}
	}
}

// fleetImage builds the example's image on an empty one, and returns its
// variables and where its files are.
func fleetImage(t *testing.T, name string) (env, folder string) {
	t.Helper()
	buildah := need(t, "buildah")
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	examples, at := filepath.Join(root(t), "examples"), t.TempDir()
	for _, file := range []string{"config/fleet.yaml", "ecs/fleet.Dockerfile"} {
		text, err := os.ReadFile(filepath.Join(examples, file))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "Dockerfile") && !strings.Contains(string(text), " -t "+name+" examples\n") {
			t.Errorf("%s does not make %s", file, name)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(at, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(at, file), string(text))
	}
	writeFile(t, filepath.Join(at, "ecs", "rds.pem"), "stands in for the database's CA\n")
	store := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		r := command{path: buildah, args: append([]string{"--root", store + "/root", "--runroot", store + "/run", "--storage-driver", "vfs"}, args...)}.run(t)
		if r.code != 0 {
			t.Fatalf("buildah %v: %s", args, r.stderr)
		}
		return strings.TrimSpace(r.stdout)
	}
	run("bud", "--quiet", "--isolation", "chroot", "--build-arg", "SALLYPORT=scratch", "-f", filepath.Join(at, "ecs", "fleet.Dockerfile"), "-t", name, at)
	made := run("from", "localhost/"+name)
	return run("inspect", "--type", "image", "--format", "{{range .OCIv1.Config.Env}}{{println .}}{{end}}", "localhost/"+name), run("mount", made)
}
