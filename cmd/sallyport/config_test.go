package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// load reads a configuration as serve does: args are flags, env is
// "NAME=value", file is the text of the configuration file, "" for none. The
// string is all that a person would see on standard error.
func load(t *testing.T, file string, env []string, args ...string) (*loaded, string) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "SALLYPORT_") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			t.Setenv(name, "") // so that it comes back
			os.Unsetenv(name)
		}
	}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	t.Chdir(t.TempDir())
	if file != "" {
		if err := os.WriteFile("c.yaml", []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", "c.yaml")
	}
	var l *loaded
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
	addFlags(cmd, daemonFlags()...)
	cmd.SetArgs(args)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		l, err = loadConfig(cmd.Flags())
		return err
	}
	err := cmd.Execute()
	var talk strings.Builder
	if code := report(&talk, err); err != nil && code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	return l, talk.String()
}

func TestBadConfig(t *testing.T) {
	tests := []struct {
		name string
		file string
		env  []string
		args []string
		want []string // each a part of what is printed
	}{
		{name: "unknown key", file: "listener: []", want: []string{`c.yaml:1:1: unknown key "listener"`, `did you mean "listeners"?`}},
		{name: "unknown key in section", file: "timeouts:\n  helo: 5s", want: []string{`c.yaml:2:3: unknown key "helo" in timeouts`, `did you mean "hello"?`}},
		{name: "unknown key in list", file: `listeners: [{adress: ":1"}]`, want: []string{`unknown key "adress" in listeners[0]`, `did you mean "address"?`}},
		{name: "unknown key like no other", file: "frobnication: 1", want: []string{`unknown key "frobnication"`, "the keys here are listeners, admin, policy"}},
		{name: "key in another case", file: "Admin: {address: ':1'}", want: []string{`c.yaml:1:1: unknown key "Admin"`, `did you mean "admin"?`}},
		{name: "PROXY header from nobody", file: `listeners: [{address: ":1", proxy_protocol: required}]`, want: []string{`listeners (file `, `":1" has proxy_protocol: required and no proxy_from`}},
		{name: "PROXY header from an empty list", file: `listeners: [{address: ":1", proxy_protocol: optional, proxy_from: []}]`, want: []string{`has proxy_protocol: optional and no proxy_from`}},
		{name: "PROXY header unread", file: `listeners: [{address: ":1", proxy_from: [10.0.0.0/8]}]`, want: []string{`":1" has proxy_from and no proxy_protocol`}},
		{name: "PROXY header from everybody", file: `listeners: [{address: ":1", proxy_protocol: required, proxy_from: ["::/0"]}]`, want: []string{`listeners[0].proxy_from[0]: "::/0" is everybody`}},
		{name: "PROXY header from an address", file: `listeners: [{address: ":1", proxy_protocol: required, proxy_from: [10.0.0.1]}]`, want: []string{`"10.0.0.1" is not a CIDR prefix`}},
		{name: "PROXY header from an odd prefix", file: `listeners: [{address: ":1", proxy_protocol: required, proxy_from: [10.0.0.1/8]}]`, want: []string{`bits beyond its length`, "write 10.0.0.0/8"}},
		{name: "PROXY protocol misspelt", file: `listeners: [{address: ":1", proxy_protocol: requird}]`, want: []string{`did you mean "required"?`}},
		{name: "PROXY protocol as a truth", file: `listeners: [{address: ":1", proxy_protocol: true}]`, want: []string{`"true" is not one of required, optional`}},
		{name: "original destination misspelt", file: `listeners: [{address: ":1", original_destination: redirekt}]`, want: []string{`did you mean "redirect"?`}},
		{name: "original destination and PROXY header", file: `listeners: [{address: ":1", original_destination: tproxy, proxy_protocol: required, proxy_from: [10.0.0.0/8]}]`, want: []string{`has both proxy_protocol and original_destination`}},
		{name: "credentials twice", file: `credentials: [{principal: a, secret: "env:A"}, {principal: a, secret: "env:B"}]`, want: []string{`credentials (file `, `"a" is there twice`}},
		{name: "credentials in the open", file: `credentials: [{principal: a, secret: a-secret-in-the-open}]`, want: []string{`credentials[0].secret: it is not a reference`, "never stands here"}},
		{name: "credentials as a number", file: `credentials: [{principal: a, secret: 987654321}]`, want: []string{`credentials[0].secret: it is not a reference`}},
		{name: "credentials as a mapping", file: `credentials: {a: b}`, want: []string{`credentials must be a list`}},
		{name: "credentials of nobody", file: `credentials: [{secret: "env:A"}]`, want: []string{`credentials[0] has no principal`}},
		{name: "dotted key", file: "timeouts.hello: 5s", want: []string{`unknown key "timeouts.hello"`}},
		{name: "duplicate key", file: "admin: {address: ':1'}\nadmin: {address: ':2'}", want: []string{`c.yaml:2:1: duplicate key "admin", already on line 1`, "keep one"}},
		{name: "duplicate by case", file: "reload:\n  cut_denied: true\n  CUT_DENIED: false", want: []string{`c.yaml:3:3: duplicate key "reload.CUT_DENIED", already on line 2`}},
		{name: "duplicate in list", file: `listeners: [{address: ":1", address: ":2"}]`, want: []string{`duplicate key "listeners[0].address"`}},
		{name: "bare number duration", file: "timeouts: {dial: 10}", want: []string{"c.yaml:1:18: timeouts.dial: 10 is a bare number, not a duration", "write a number with a unit"}},
		{name: "bare zero duration", file: "reload: {every: 0}", want: []string{"reload.every: 0 is a bare number"}},
		{name: "bare number in quotes", file: `timeouts: {dial: "10"}`, want: []string{"10 is a bare number"}},
		{name: "duration nonsense", file: "timeouts: {idle: soon}", want: []string{`timeouts.idle: "soon" is not a duration`}},
		{name: "duration negative", file: "timeouts: {idle: -5s}", want: []string{"-5s is not within 1s to 24h"}},
		{name: "duration too small", file: "timeouts: {hello: 5ns}", want: []string{"5ns is not within 100ms to 1m"}},
		{name: "text for bool", file: "reload: {cut_denied: yes}", want: []string{`c.yaml:1:22: reload.cut_denied: "yes" is neither true nor false`}},
		{name: "quoted bool", file: `reload: {cut_denied: "true"}`, want: []string{`the text "true" is not true or false`}},
		{name: "number for bool", file: "reload: {cut_denied: 1}", want: []string{`"1" is neither true nor false`}},
		{name: "text for count", file: "limits: {connections: many}", want: []string{`"many" is not a whole number`}},
		{name: "quoted count", file: `limits: {connections: "5"}`, want: []string{`the text "5" is not a whole number`}},
		{name: "fraction for count", file: "limits: {per_source: 5.5}", want: []string{`"5.5" is not a whole number`}},
		{name: "hexadecimal count", file: "limits: {per_source: 0x1bb}", want: []string{`"0x1bb" is not a whole number`}},
		{name: "octal count", file: "limits: {per_source: 010}", want: []string{`"010" is not a whole number`}},
		{name: "negative count", file: "limits: {per_source: -1}", want: []string{"-1 is not within 0 to 10000000"}},
		{name: "empty queue", file: "logging: {queue: 0}", want: []string{"0 is not within 1 to 10000000"}},
		{name: "number for address", file: "admin: {address: 9901}", want: []string{`admin.address: "9901" is not an address and port`, `write ":3128"`}},
		{name: "name for address", file: "admin: {address: 'localhost:9901'}", want: []string{`"localhost:9901" does not begin with an IP address`}},
		{name: "unbracketed IPv6", file: "admin: {address: '::1:9901'}", want: []string{`"::1:9901" is not an address and port`}},
		{name: "port too large", file: "admin: {address: ':99010'}", want: []string{`":99010" has no port from 0 to 65535`}},
		{name: "port by name", file: "admin: {address: ':http'}", want: []string{`":http" has no port`}},
		{name: "wrong word", file: "logging: {level: wran}", want: []string{`"wran" is not one of debug, info, warn, error`, `did you mean "warn"?`}},
		{name: "word in another case", file: "logging: {full: DROP}", want: []string{`"DROP" is not one of block, drop`, `did you mean "drop"?`}},
		{name: "mapping for list", file: "listeners: {address: ':1'}", want: []string{"listeners must be a list, not a mapping"}},
		{name: "text for list", file: "policy: file:p.yaml", want: []string{`policy must be a list, not the text "file:p.yaml"`}},
		{name: "text in list of mappings", file: "listeners: [':3128']", want: []string{`listeners[0] must be a mapping, not the text ":3128"`}},
		{name: "missing field", file: "listeners: [{}]", want: []string{"listeners[0] has no address"}},
		{name: "text for section", file: "timeouts: 5s", want: []string{`timeouts must be a mapping, not the text "5s"`, "hello, dial, idle, drain"}},
		{name: "list for section", file: "timeouts: [5s]", want: []string{"timeouts must be a mapping, not a list"}},
		{name: "mapping for text", file: "admin: {address: {a: b}}", want: []string{"admin.address must be one value, not a mapping"}},
		{name: "null", file: "admin: {address: }", want: []string{"admin.address has no value"}},
		{name: "null section", file: "admin:", want: []string{"admin has no value"}},
		{name: "null in list", file: "policy: [~]", want: []string{"policy[0]"}},
		{name: "list at the top", file: "- a", want: []string{"the file must be a mapping, not a list"}},
		{name: "alias", file: "timeouts: {dial: &d 5s, idle: *d}", want: []string{"anchors and aliases are not read"}},
		{name: "merge key", file: "timeouts: {<<: {dial: 5s}}", want: []string{`unknown key "<<" in timeouts`}},
		{name: "second document", file: "reload: {every: 5s}\n---\nreload: {every: 6s}", want: []string{"c.yaml:2:1: a second YAML document begins here", "one file holds one document"}},
		{name: "broken YAML", file: "a: [", want: []string{"c.yaml: line 1: did not find expected node content"}},
		{name: "comment only", file: "# nothing", want: []string{"c.yaml: the file is empty"}},
		{name: "missing file", args: []string{"--config", "none.yaml"}, want: []string{"configuration file: open none.yaml: no such file"}},
		{name: "missing file by variable", env: []string{"SALLYPORT_CONFIG=none.yaml"}, want: []string{"open none.yaml"}},
		{name: "empty path", env: []string{"SALLYPORT_CONFIG="}, want: []string{"SALLYPORT_CONFIG is set but empty"}},
		{name: "unknown variable", env: []string{"SALLYPORT_TIMEOUT_HELLO=5s"}, want: []string{"unknown environment variable SALLYPORT_TIMEOUT_HELLO", "did you mean SALLYPORT_TIMEOUTS_HELLO?"}},
		{name: "unknown variable like no other", env: []string{"SALLYPORT_FROBNICATE_THIS=5s"}, want: []string{"unset it"}},
		{name: "orchestrator's variable", env: []string{"SALLYPORT_SERVICE_HOST=10.0.0.1"}, want: []string{"enableServiceLinks"}},
		{name: "link's variable", env: []string{"SALLYPORT_PORT_3128_TCP=tcp://10.0.0.1:3128"}, want: []string{"SALLYPORT_PORT_3128_TCP", "rename the service"}},
		{name: "variable beside a broken file", file: "x: 1", env: []string{"SALLYPORT_FOO=1"}, want: []string{`unknown key "x"`, "SALLYPORT_FOO"}},
		{name: "variable bare number", env: []string{"SALLYPORT_TIMEOUTS_HELLO=5"}, want: []string{"SALLYPORT_TIMEOUTS_HELLO: 5 is a bare number"}},
		{name: "variable bool", env: []string{"SALLYPORT_RELOAD_CUT_DENIED=1"}, want: []string{`SALLYPORT_RELOAD_CUT_DENIED: "1" is neither`}},
		{name: "variable count", env: []string{"SALLYPORT_LIMITS_CONNECTIONS=1e3"}, want: []string{`"1e3" is not a whole number`}},
		{name: "variable list", env: []string{"SALLYPORT_LISTENERS=:3128, 99"}, want: []string{`SALLYPORT_LISTENERS: "99" is not an address`}},
		{name: "CA without its key", file: "inspect: {ca_file: ca.pem}", want: []string{"inspect.ca_file (file c.yaml:1): the CA has no key", "set inspect.ca_key_file"}},
		{name: "key without its CA", file: "inspect: {ca_key_file: ca.key}", want: []string{"inspect.ca_key_file (file c.yaml:1): there is a key, and no CA"}},
		{name: "key in the environment without its CA", env: []string{"SALLYPORT_INSPECT_CA_KEY=env:CA_KEY"}, want: []string{"inspect.ca_key (env SALLYPORT_INSPECT_CA_KEY): there is a key"}},
		{
			name: "key twice", file: "inspect: {ca_file: ca.pem, ca_key_file: ca.key, ca_key: 'file:ca.key'}",
			want: []string{"inspect.ca_key_file (file c.yaml:1) and inspect.ca_key (file c.yaml:1) both name", "keep one"},
		},
		{name: "key's path as reference", file: "inspect: {ca_key: ca.key}", want: []string{"c.yaml:1:19: inspect.ca_key: it is not a reference", "inspect.ca_key_file"}},
		{name: "key's reference as path", file: "inspect: {ca_key_file: 'env:CA_KEY'}", want: []string{"inspect.ca_key_file: it is a reference, not a path"}},
		{name: "token itself", file: "admin: {token: 0123456789abcdef0123}", want: []string{"c.yaml:1:16: admin.token: it is not a reference", "the token itself never stands here"}},
		{name: "unknown store", file: "history: {store: 'mysql://h/d'}", want: []string{"history.store: it is no store", "sqlite::memory:"}},
		{name: "store without a path", file: "history: {store: 'sqlite:'}", want: []string{`history.store: it is no store: "sqlite:" has no path`}},
		{name: "store that is no URL", env: []string{"SALLYPORT_HISTORY_STORE=postgres://u:hunter2@h:x/d"}, want: []string{"SALLYPORT_HISTORY_STORE: it is no store: the URL cannot be read"}},
		{name: "store whose CA is not there", file: "history: {store: 'postgres://u:hunter2@h/d?sslmode=verify-full&sslrootcert=/none/ca.pem'}", want: []string{"history.store: it is no store: the URL names a file that cannot be read: open /none/ca.pem"}},
		{name: "empty store", file: "history: {store: ''}", want: []string{"history.store: it is empty", `"off"`}},
		{name: "overlays required of nothing", file: "history: {store: 'off', overlays: required}", want: []string{"history.overlays (file c.yaml:1): there are no overlays to wait for, history.store (file c.yaml:1) is off", "leave history.overlays optional"}},
		{name: "overlays required of memory", env: []string{"SALLYPORT_HISTORY_OVERLAYS=required"}, want: []string{"history.overlays (env SALLYPORT_HISTORY_OVERLAYS): there are no overlays to wait for, those in memory (history.store (default)) ended", "set history.store to a file or a database"}},
		{name: "size without a unit", file: "history: {retention: {size: '64'}}", want: []string{`history.retention.size: "64" is not a size`}},
		{name: "size too small", file: "history: {retention: {size: 64KiB}}", want: []string{"history.retention.size: 64KiB is less than 1MiB"}},
		{name: "flows for ever", file: "history: {retention: {flows: 100000h}}", want: []string{"history.retention.flows: 100000h is not within 1m to 9600h"}},
		{name: "unknown scheme", file: "inspect: {ca_key: 'vault:x'}", want: []string{"inspect.ca_key: it is not a reference", "secretsmanager:NAME"}},
		{name: "reference to nothing", file: "inspect: {ca_file: 'env:'}", want: []string{"inspect.ca_file: it names nothing after its scheme, env"}},
		{name: "reference to no variable", file: "inspect: {origin_ca_file: 'env:a-b'}", want: []string{"it names no environment variable"}},
		{name: "reference to no secret", file: "inspect: {ca_key: 'secretsmanager:a b'}", want: []string{"it names no secret"}},
		{name: "variable of no reference", env: []string{"SALLYPORT_CAKEY=x"}, want: []string{"unknown environment variable SALLYPORT_CAKEY"}},
		{name: "s3 keys", file: "logging: {s3_keys: 'yes'}", want: []string{`logging.s3_keys: "yes" is neither true nor false`}},
		{name: "collector's scheme", file: "export: {ipfix: {collector: 'http://c:4739'}}", want: []string{`export.ipfix.collector: "http://c:4739" is not a collector`, "udp://HOST:4739"}},
		{name: "collector without a port", env: []string{"SALLYPORT_EXPORT_IPFIX_COLLECTOR=udp://c"}, want: []string{"SALLYPORT_EXPORT_IPFIX_COLLECTOR", "it has no host and port"}},
		{name: "datagram too small", file: "export: {ipfix: {mtu: 500}}", want: []string{"export.ipfix.mtu: 500 is not within 576 to 65535"}},
		{name: "nobody's enterprise", file: "export: {ipfix: {enterprise: 0}}", want: []string{"export.ipfix.enterprise: 0 is not within"}},
		{name: "namespace of AWS", file: "metrics: {emf: {namespace: AWS/ECS}}", want: []string{`metrics.emf.namespace: "AWS/ECS" is a namespace that AWS keeps`}},
		{name: "no namespace", file: "metrics: {emf: {namespace: ':x'}}", want: []string{`":x" is not a namespace of CloudWatch's`}},
		{name: "unknown exporter", file: "export: {netflow: {}}", want: []string{`unknown key "netflow" in export`}},
		{name: "variable empty", env: []string{"SALLYPORT_ADMIN_ADDRESS="}, want: []string{"SALLYPORT_ADMIN_ADDRESS is set but empty", "unset it"}},
		{name: "flag", args: []string{"--log-level", "loud"}, want: []string{`--log-level: "loud" is not one of`}},
		{name: "flag list", args: []string{"--listen", ":1", "--listen", "x"}, want: []string{`--listen: "x" is not an address`}},
		{name: "policy scheme", args: []string{"--policy", "https://u:secret@h/p"}, want: []string{`"https://***@h/p" has an unknown scheme`}},
		{name: "policy in a bucket without a key", file: `policy: ["s3://bucket"]`, want: []string{"write s3://BUCKET/KEY", "hint: write file:"}},
		{name: "policy in a parameter without a name", file: `policy: ["ssm:"]`, want: []string{"write ssm:/NAME"}},
		{name: "policy without a name", file: `policy: ["env:"]`, want: []string{"names nothing to read"}},
		{name: "policy text not in force", file: "policy: [p.yaml]", env: []string{"SALLYPORT_POLICY=version: 1"}, want: []string{"it would not be in force", "add env:SALLYPORT_POLICY"}},
		{name: "no listener", file: "listeners: []", want: []string{"listeners (file c.yaml:1) is empty"}},
		{name: "listener twice", args: []string{"--listen", ":1", "--listen", ":1"}, want: []string{`listeners (flag --listen): ":1" is there twice`}},
		{name: "listener and admin", args: []string{"--admin", ":3128"}, want: []string{`admin.address (flag --admin): ":3128" is a listener's address too`}},
		{name: "server", file: "resolver: {servers: [dns.example]}", want: []string{`resolver.servers[0]: "dns.example" is not a DNS server's address`}},
		{name: "server port", file: "resolver: {servers: ['1.1.1.1:0']}", want: []string{"is not a DNS server's address"}},
		{name: "host name", file: "resolver: {hosts: [{name: 'a b', addresses: [127.0.0.1]}]}", want: []string{`resolver.hosts[0].name: "a b" is not a host name`}},
		{name: "host address", file: "resolver: {hosts: [{name: a.test, addresses: ['127.0.0.1:53']}]}", want: []string{`resolver.hosts[0].addresses[0]: "127.0.0.1:53" is not an IP address`}},
		{name: "host without addresses", file: "resolver: {hosts: [{name: a.test, addresses: []}]}", want: []string{`"a.test" has no addresses`}},
		{name: "host twice", file: "resolver: {hosts: [{name: a.test, addresses: [127.0.0.1]}, {name: A.test, addresses: [127.0.0.2]}]}", want: []string{`"a.test" is there twice`}},
		{name: "ttl order", file: "resolver: {min_ttl: 10m, max_ttl: 1m}", want: []string{"resolver.min_ttl 10m (file c.yaml:1) is above resolver.max_ttl 1m"}},
		{
			name: "all at once", file: "timeouts: {hello: 5}\nlimits: {connections: x}", env: []string{"SALLYPORT_LOGGING_FULL=maybe"}, args: []string{"--log-format", "xml"},
			want: []string{"timeouts.hello", "limits.connections", "SALLYPORT_LOGGING_FULL", "--log-format"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, talk := load(t, tt.file, tt.env, tt.args...)
			if talk == "" {
				t.Fatalf("accepted: %+v", l.Config)
			}
			for _, want := range tt.want {
				if !strings.Contains(talk, want) {
					t.Errorf("no %q in:\n%s", want, talk)
				}
			}
			if strings.Contains(strings.NewReplacer("secretsmanager", "", "names no secret", "", "].secret:", "", "the secret itself", "", "secret: env:", "").Replace(talk), "secret") {
				t.Errorf("a secret is printed:\n%s", talk)
			}
		})
	}
}

func TestConfigPrecedence(t *testing.T) {
	const file = `
listeners: [{address: ":1"}, {address: ":2"}]
timeouts: {hello: 1s, dial: 2s}
logging: {level: warn, format: console}
resolver: {hosts: [{name: a.test, addresses: [127.0.0.2, "::1"]}]}
policy: [base.yaml, "env:SALLYPORT_TEAM"]
`
	env := []string{"SALLYPORT_TIMEOUTS_DIAL=3s", "SALLYPORT_LOGGING_LEVEL=error", "SALLYPORT_LIMITS_PER_SOURCE=7", "SALLYPORT_RELOAD_CUT_DENIED=false", "SALLYPORT_RESOLVER_SERVERS=10.0.0.2, 10.0.0.3:5353", "SALLYPORT_TEAM=version: 1"}
	l, talk := load(t, file, env, "--log-level", "debug")
	if talk != "" {
		t.Fatal(talk)
	}
	want := DefaultConfig()
	want.Listeners = []Listener{{Address: ":1"}, {Address: ":2"}}
	want.Timeouts.Hello, want.Timeouts.Dial = time.Second, 3*time.Second
	want.Logging.Level, want.Logging.Format = "debug", "console"
	want.Limits.PerSource, want.Reload.CutDenied = 7, false
	want.Resolver.Hosts = []Host{{"a.test", []string{"127.0.0.2", "::1"}}}
	want.Resolver.Servers = []string{"10.0.0.2", "10.0.0.3:5353"}
	want.Policy = []string{"file:base.yaml", "env:SALLYPORT_TEAM"}
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Error(diff)
	}
	origins := map[string]string{
		"listeners": "file c.yaml:2", "timeouts.hello": "file c.yaml:3", "timeouts.dial": "env SALLYPORT_TIMEOUTS_DIAL",
		"timeouts.idle": "default", "logging.level": "flag --log-level",
	}
	for key, want := range origins {
		if l.origins[key] != want {
			t.Errorf("origin of %s = %q, want %q", key, l.origins[key], want)
		}
	}
}

// TestShorterList guards against decoding a list into the default list.
func TestShorterList(t *testing.T) {
	l, talk := load(t, "", []string{"SALLYPORT_LISTENERS=:1,:2"}, "--listen", ":9")
	if talk != "" || !cmp.Equal(l.Listeners, []Listener{{Address: ":9"}}) {
		t.Errorf("listeners = %v, %s", l.Listeners, talk)
	}
}

func TestPolicyTextIsTheDefaultSource(t *testing.T) {
	l, talk := load(t, "", []string{"SALLYPORT_POLICY=version: 1"})
	if talk != "" || !slices.Equal(l.Policy, []string{"env:SALLYPORT_POLICY"}) {
		t.Errorf("policy = %q, %s", l.Policy, talk)
	}
	if err := l.requirePolicy(); err != nil {
		t.Error(err)
	}
	l, _ = load(t, "", nil)
	if err := l.requirePolicy(); report(io.Discard, err) != exitUsage {
		t.Errorf("no policy: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	l, talk := load(t, "", []string{"HTTPS_PROXY=http://x", "all_proxy=y", "SALLYPORT_POLICY=version: 1"}, "--policy", "p.yaml")
	if talk != "" {
		t.Fatal(talk)
	}
	all := strings.Join(l.warnings, "\n")
	for _, want := range []string{"HTTPS_PROXY is set", "all_proxy is set", "SALLYPORT_POLICY is set, but --policy names other sources"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in %q", want, l.warnings)
		}
	}
}

// TestEffectiveIsAFile feeds what `config` prints back as a file: nothing may
// be lost, renamed or refused.
func TestEffectiveIsAFile(t *testing.T) {
	l, talk := load(t, "resolver: {hosts: [{name: a.test, addresses: [127.0.0.2]}]}", nil, "--policy", "a #b.yaml", "--listen", "[::1]:3128")
	if talk != "" {
		t.Fatal(talk)
	}
	var out strings.Builder
	if err := l.writeYAML(&out); err != nil {
		t.Fatal(err)
	}
	again, talk := load(t, out.String(), nil)
	if talk != "" {
		t.Fatalf("%s\n%s", talk, out.String())
	}
	// Empty lists are written as [], which is what no list means.
	if diff := cmp.Diff(l.tree(), again.tree()); diff != "" {
		t.Error(diff)
	}
}

// TestEveryKeyByVariable sets every key that has a variable to something else
// than its default, and asks whether it arrived.
func TestEveryKeyByVariable(t *testing.T) {
	values := map[string]string{
		"listeners": ":1", "admin.address": ":2", "admin.hosts": "a.test", "policy": "p.yaml", "resolver.servers": "10.0.0.2",
		"logging.level": "warn", "logging.format": "console", "logging.flows": "deny", "logging.full": "drop",
		"reload.cut_denied": "false", "logging.queue": "77", "limits.connections": "77", "limits.per_source": "77",
		"logging.s3_keys": "true", "inspect.ca_file": "ca.pem", "inspect.ca_key_file": "ca.key", "inspect.ca_key": "env:SALLYPORT_KEY",
		"inspect.origin_ca_file": "env:SALLYPORT_ROOTS", "identity.ecs.clusters": "prod", "identity.metadata": "off",
		"identity.ecs.events_queue": "https://sqs.us-east-1.amazonaws.com/111122223333/q", "drain.wait_for_task": "true",
		"dns.address": ":53", "dns.answer": "203.0.113.10", "dns.refused": "refused",
		"credentials": "payments=file:secret", "export.ipfix.collector": "tcp://collector.test:4739", "export.ipfix.mtu": "577",
		"admin.token": "file:token", "history.store": "sqlite:history.db", "history.instance": "p1", "history.overlays": "required", "history.retention.flows": "48h",
		"history.retention.hourly": "48h", "history.retention.daily": "48h", "history.retention.size": "64MiB",
		"export.ipfix.observation_domain": "77", "export.ipfix.enterprise": "77",
		"metrics.emf.namespace": "Sallyport", "metrics.emf.services": "77",
		"watch.learn": "48h", "watch.webhook.url": "https://hooks.test", "watch.webhook.secret": "env:SALLYPORT_HOOK",
	}
	with := map[string][]string{ // what the key needs beside it
		"inspect.ca_file": {"SALLYPORT_INSPECT_CA_KEY=env:CA_KEY"}, "inspect.ca_key_file": {"SALLYPORT_INSPECT_CA_FILE=ca.pem"},
		"inspect.ca_key": {"SALLYPORT_INSPECT_CA_FILE=ca.pem", "SALLYPORT_KEY=x"}, "inspect.origin_ca_file": {"SALLYPORT_ROOTS=x"},
		"identity.ecs.events_queue": {"SALLYPORT_IDENTITY_ECS_CLUSTERS=prod"},
		"watch.webhook.url":         {"SALLYPORT_WATCH_WEBHOOK_SECRET=file:secret"}, "watch.webhook.secret": {"SALLYPORT_WATCH_WEBHOOK_URL=https://hooks.test", "SALLYPORT_HOOK=x"},
		"history.overlays": {"SALLYPORT_HISTORY_STORE=sqlite:history.db"},
		"dns.address":      {"SALLYPORT_DNS_ANSWER=203.0.113.10"}, "dns.answer": {"SALLYPORT_DNS_ADDRESS=:53"},
	}
	for _, s := range settings() {
		if s.env == "" {
			continue
		}
		value := values[s.key]
		if value == "" {
			value = "7s" // every other key is a duration
		}
		l, talk := load(t, "", append(with[s.key], s.env+"="+value))
		if talk != "" {
			t.Errorf("%s=%s: %s", s.env, value, talk)
			continue
		}
		before := DefaultConfig()
		if cmp.Equal(plain(s.get(&before)), plain(s.get(&l.Config))) {
			t.Errorf("%s=%s changed nothing", s.env, value)
		}
		if l.origins[s.key] != "env "+s.env {
			t.Errorf("origin of %s = %q", s.key, l.origins[s.key])
		}
	}
}

func TestMask(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain", "plain"},
		{"http://u:p@h/x", "http://***@h/x"},
		{"a http://u:p@h b https://v:q@i/@x", "a http://***@h b https://***@i/@x"},
		{`"s3://a:b@c@d"`, `"s3://***@d"`},
		{"http://h/u@v", "http://h/u@v"},
	}
	for _, tt := range tests {
		if got := mask(tt.in); got != tt.want {
			t.Errorf("mask(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// FuzzConfigFile: what the strict reader accepts, viper reads too, and every
// value arrives as a plain YAML decoder reads it.
func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{
		"listeners: [{address: ':1'}]", "a: *b", "timeouts: {hello: 5s, Hello: 6s}", "---\n---", "reload: !!str {every: 5s}", "? [a]\n: b",
		"limits: {connections: 7, per_source: 08}", "reload: {every: 1h0.5s, cut_denied: false}", "logging: {level: !!str debug, queue: 1_0}",
		"admin: {address: !!binary OjE=}", "timeouts: {idle: 1m_0s}", "policy: [a, 'b,c']",
	} {
		f.Add(seed)
	}
	cmd := &cobra.Command{}
	addFlags(cmd, daemonFlags()...)
	f.Fuzz(func(t *testing.T, text string) {
		file, err := checkConfigFile("c.yaml", []byte(text))
		if err != nil {
			return
		}
		cfg, err := merge(cmd.Flags(), file)
		if err != nil {
			t.Fatalf("accepted, then refused: %v", err)
		}
		l := &loaded{Config: cfg, origins: map[string]string{}}
		if err := l.writeYAML(io.Discard); err != nil {
			t.Fatal(err)
		}
		var raw map[string]any
		if err := yaml.Unmarshal([]byte(text), &raw); err != nil {
			t.Fatalf("accepted, and no YAML: %v", err)
		}
		for _, s := range settings() {
			section, key, nested := strings.Cut(s.key, ".")
			mapping, there := raw[section].(map[string]any)
			if !nested || !there || mapping[key] == nil || s.kind.list {
				continue
			}
			want, got := fmt.Sprint(mapping[key]), s.get(&cfg)
			if d, isDuration := got.(time.Duration); isDuration {
				if parsed, err := time.ParseDuration(want); err != nil || parsed != d {
					t.Errorf("%s: %s became %s", s.key, want, d)
				}
			} else if want != fmt.Sprint(got) {
				t.Errorf("%s: %s became %v", s.key, want, got)
			}
		}
		if list, ok := raw["policy"].([]any); ok && fmt.Sprint(list...) != fmt.Sprint(anys(cfg.Policy)...) {
			t.Errorf("policy: %q became %q", list, cfg.Policy)
		}
	})
}

func anys(all []string) []any {
	var out []any
	for _, s := range all {
		out = append(out, s)
	}
	return out
}
