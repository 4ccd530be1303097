package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/sallyport/sallyport/logging/ipfix"
)

// Config is the daemon's configuration, apart from the policy. Flags come
// before the environment, the environment before the file, the file before
// [DefaultConfig].
type Config struct {
	Listeners []Listener
	Admin     Admin
	// Policy lists the policy's sources, as parseSource reads them; they are merged.
	Policy   []string
	Resolver Resolver
	Timeouts Timeouts
	Limits   Limits
	Reload   Reload
	Logging  Logging
	Inspect  Inspect
	Identity Identity
	DNS      DNS
	Drain    Drain
	History  History
	Watch    Watch
	Export   Export
	Metrics  Metrics
	// Credentials are what principals prove themselves with.
	Credentials []Credential
}

// Listener is one socket that clients connect to.
type Listener struct {
	Address string // "host:port" or ":port"
	// ProxyProtocol is required, optional, or "" for none; ProxyFrom are the
	// prefixes whose headers are believed.
	ProxyProtocol string   `mapstructure:"proxy_protocol"`
	ProxyFrom     []string `mapstructure:"proxy_from"`
	// OriginalDestination is redirect, tproxy, or "" where every connection is
	// for the proxy itself.
	OriginalDestination string `mapstructure:"original_destination"`
	// TLS is what clients speak first (an https:// proxy URL); nil: none.
	TLS *ListenerTLS
}

// ListenerTLS says with what a listener ends the TLS that clients speak to it.
// Each file may also be a reference: "env:NAME", "file:PATH" or
// "secretsmanager:NAME-OR-ARN". The key itself is never here.
type ListenerTLS struct {
	CertFile     string `mapstructure:"cert_file"`
	KeyFile      string `mapstructure:"key_file"` // its key, a path
	Key          string // its key, a reference; one of the two
	ClientCAFile string `mapstructure:"client_ca_file"` // "": clients are asked for no certificate
	CRLFile      string `mapstructure:"crl_file"`       // "": nobody is revoked
	ClientAuth   string `mapstructure:"client_auth"`    // required or optional; "" is required where there is a CA
}

// Credential is a principal with the reference to its secret: "env:NAME",
// "file:PATH" or "secretsmanager:NAME-OR-ARN". The secret is never here.
type Credential struct {
	Principal, Secret string
}

// Admin is the socket of health checks and metrics.
type Admin struct {
	Address string
	// Hosts are the names by which requests may call it, beside localhost and
	// addresses: a defence against DNS rebinding.
	Hosts []string
	// Token is a reference to the API's token; "": the API answers this host only.
	Token string
}

// Resolver says how names become addresses.
type Resolver struct {
	Servers []string      // empty: those of /etc/resolv.conf
	Hosts   []Host        // fixed answers, before any lookup
	MinTTL  time.Duration `mapstructure:"min_ttl"`
	MaxTTL  time.Duration `mapstructure:"max_ttl"`
	Stale   time.Duration // how long an expired answer serves while the servers fail; 0 never
}

// Host is a name with fixed addresses.
type Host struct {
	Name      string
	Addresses []string
}

// Timeouts bound the stages of a connection.
type Timeouts struct {
	Hello, Dial, Idle, Drain time.Duration
}

// Limits bound what callers may hold at once; 0 means no limit.
type Limits struct {
	Connections int
	PerSource   int `mapstructure:"per_source"`
}

// Reload says how a changed policy takes effect.
type Reload struct {
	Every     time.Duration // between two looks at the sources; 0 leaves SIGHUP only
	CutDenied bool          `mapstructure:"cut_denied"`
}

// Logging says what is written, and how.
type Logging struct {
	Level, Format, Flows, Full string
	Queue                      int  // flow lines that may wait for standard output
	S3Keys                     bool `mapstructure:"s3_keys"` // objects' keys are recorded
}

// Inspect says with what TLS is ended where a rule asks for inspection. Each
// file may also be a reference: "env:NAME", "file:PATH" or
// "secretsmanager:NAME-OR-ARN". The key itself is never here.
type Inspect struct {
	CAFile       string `mapstructure:"ca_file"`        // the CA; "": nothing can be inspected
	CAKeyFile    string `mapstructure:"ca_key_file"`    // its key, a path
	CAKey        string `mapstructure:"ca_key"`         // its key, a reference; one of the two
	OriginCAFile string `mapstructure:"origin_ca_file"` // roots of the origins; "": the system's
}

// Identity says how the ECS task behind a caller is known.
type Identity struct {
	ECS      IdentityECS
	Metadata string // auto, on or off: of the task that the proxy is part of
}

// IdentityECS says which clusters' tasks are known.
type IdentityECS struct {
	Clusters    []Cluster     // none: AWS is not asked
	Poll        time.Duration // between two listings
	EventsQueue string        `mapstructure:"events_queue"` // an SQS queue's URL; "" for none
}

// Cluster is one ECS cluster; see identity/ecs.
type Cluster struct {
	Cluster, Region string
	RoleARN         string   `mapstructure:"role_arn"`
	VPCEndpoints    []string `mapstructure:"vpc_endpoints"`
}

// Drain says how the end is waited for, beside timeouts.drain.
type Drain struct {
	WaitForTask bool `mapstructure:"wait_for_task"` // for the task's other containers
}

// DefaultConfig returns what holds where nothing else is said.
//
// logging.full is "block": a full queue holds new connections back until
// standard output takes lines again. The record is what a gate is for, and the
// queue fills only when the container's log driver has stopped reading, which
// the usual (non-blocking) driver never does; whoever made the driver block
// did so to lose no line. "drop" prefers traffic, and counts what it loses.
func DefaultConfig() Config {
	return Config{
		Listeners: []Listener{{Address: ":3128"}},
		Admin:     Admin{Address: "127.0.0.1:9901"},
		Resolver:  Resolver{MinTTL: 5 * time.Second, MaxTTL: time.Hour, Stale: time.Minute},
		Timeouts:  Timeouts{Hello: 5 * time.Second, Dial: 10 * time.Second, Idle: 15 * time.Minute, Drain: 25 * time.Second},
		Reload:    Reload{Every: 5 * time.Second, CutDenied: true},
		Logging:   Logging{Level: "info", Format: "json", Flows: "both", Full: "block", Queue: 4096},
		Identity:  Identity{ECS: IdentityECS{Poll: 20 * time.Second}, Metadata: "auto"},
		DNS:       DNS{TTL: time.Minute, Refused: "nxdomain"},
		History:   defaultHistory(),
		Watch:     defaultWatch(),
		Export: Export{IPFIX: ExportIPFIX{
			TemplateRefresh: time.Minute, ObservationDomain: 1, Enterprise: ipfix.DocumentationEnterprise, MTU: ipfix.DefaultMTU,
		}},
		Metrics: Metrics{EMF: MetricsEMF{Every: time.Minute, Services: 50}},
	}
}

// The environment variables that are no key of the configuration.
const (
	envConfig = "SALLYPORT_CONFIG" // the file's path, as --config
	envPolicy = "SALLYPORT_POLICY" // the policy's text, for env:SALLYPORT_POLICY
)

// loaded is a configuration with what is worth saying about it.
type loaded struct {
	Config
	origins  map[string]string // where each key's value comes from
	warnings []string
	sources  *sourceSet // of the policy; nil before firstPolicy
}

// loadConfig reads flags, environment and file, and returns all that is wrong
// with them at once, each with its place. Nothing is taken from a
// configuration with a fault.
func loadConfig(flags *pflag.FlagSet) (*loaded, error) {
	env := environment(os.Environ())
	path, named := env[envConfig]
	if f := flags.Lookup("config"); f != nil && f.Changed {
		path, named = f.Value.String(), true
	}
	if named && path == "" {
		return nil, refuse("give it a path, or leave it out", "--config or %s is set but empty", envConfig)
	}
	file, fileErr := readConfigFile(path)
	origins, err := origins(flags, env, file)
	if err := errors.Join(fileErr, err, unknownVariables(env, namedSources(flags, env, file))); err != nil {
		return nil, err
	}
	cfg, err := merge(flags, file)
	if err != nil {
		return nil, err
	}
	l := &loaded{Config: cfg, origins: origins, warnings: ambientProxies(env)}
	return l, errors.Join(l.settlePolicy(env), l.check())
}

// merge lets viper put the layers together. Every text was checked before, so
// that viper's own leniency (bare numbers as nanoseconds, "1" as true, keys
// in any case) never sees anything to be lenient with; the strict decoding
// stays as the second lock.
func merge(flags *pflag.FlagSet, file *configFile) (Config, error) {
	v := viper.New()
	v.SetConfigType("yaml")
	cfg := DefaultConfig()
	if file != nil {
		if err := v.ReadConfig(strings.NewReader(file.text)); err != nil {
			return cfg, refuse("", "%s: %w", file.path, err)
		}
	}
	for _, s := range settings() {
		if s.env != "" {
			if err := v.BindEnv(s.key, s.env); err != nil {
				return cfg, fmt.Errorf("%s: %w", s.env, err)
			}
		}
		if f := changed(flags, s.flag); f != nil {
			if err := v.BindPFlag(s.key, f); err != nil {
				return cfg, fmt.Errorf("--%s: %w", s.flag, err)
			}
		}
	}
	err := v.UnmarshalExact(&cfg, func(d *mapstructure.DecoderConfig) {
		d.WeaklyTypedInput = false
		d.ZeroFields = true // a list replaces the default list, it is never merged into it
		d.DecodeHook = mapstructure.ComposeDecodeHookFunc(fromText, mapstructure.StringToTimeDurationHookFunc())
	})
	if err != nil {
		return cfg, refuse("", "configuration: %w", err)
	}
	return cfg, nil
}

// fromText turns the text of a flag or a variable into what its key holds.
func fromText(from, to reflect.Type, data any) (any, error) {
	if from.Kind() != reflect.String {
		return data, nil
	}
	text := reflect.ValueOf(data).String()
	switch {
	case to == reflect.TypeFor[Listener]():
		entry, _, _ := listenerOf(text) // checked before
		return entry, nil
	case to == reflect.TypeFor[Credential]():
		principal, secret, _ := strings.Cut(text, "=")
		return map[string]any{"principal": principal, "secret": secret}, nil
	case to == reflect.TypeFor[Cluster]():
		return map[string]any{"cluster": text}, nil
	case to.Kind() == reflect.Slice:
		return splitList(text), nil
	case to.Kind() == reflect.Bool:
		return strconv.ParseBool(text)
	case to.Kind() == reflect.Int:
		return strconv.Atoi(text)
	}
	return data, nil
}

// splitList reads a list as a variable holds it: commas, spaces around them.
func splitList(text string) []string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// changed returns the flag of that name if the command line sets it.
func changed(flags *pflag.FlagSet, name string) *pflag.Flag {
	if f := flags.Lookup(name); name != "" && f != nil && f.Changed {
		return f
	}
	return nil
}

// origins checks every text of flags and environment, and says where each
// key's value comes from.
func origins(flags *pflag.FlagSet, env map[string]string, file *configFile) (map[string]string, error) {
	from := make(map[string]string)
	var errs []error
	check := func(place string, s setting, texts []string) {
		for _, text := range texts {
			if wrong, hint := s.kind.judge(text); wrong != "" {
				errs = append(errs, refuse(hint, "%s: %s", place, wrong))
			}
		}
	}
	for _, s := range settings() {
		from[s.key] = "default"
		if file != nil && file.places[s.key] != "" {
			from[s.key] = "file " + file.places[s.key]
		}
		if text, ok := env[s.env]; ok && text == "" {
			errs = append(errs, refuse("unset it, or give it "+s.kind.want, "%s is set but empty", s.env))
		} else if ok {
			from[s.key] = "env " + s.env
			texts := []string{text}
			if s.kind.list {
				texts = splitList(text)
			}
			check(s.env, s, texts)
		}
		if f := changed(flags, s.flag); f != nil {
			from[s.key] = "flag --" + s.flag
			texts := []string{f.Value.String()}
			if many, ok := f.Value.(pflag.SliceValue); ok {
				texts = many.GetSlice()
			}
			check("--"+s.flag, s, texts)
		}
	}
	return from, errors.Join(errs...)
}

// namedSources returns every source, of a policy, a certificate or a key, that
// anything names, in force or not: the variables among them are known.
func namedSources(flags *pflag.FlagSet, env map[string]string, file *configFile) []string {
	all := splitList(env["SALLYPORT_POLICY_SOURCES"])
	for _, s := range settings() {
		if holdsReference(s.key) {
			all = append(all, env[s.env])
		}
	}
	all = append(all, listenerSources(flags, env)...)
	for _, pair := range splitList(env["SALLYPORT_CREDENTIALS"]) {
		_, secret, _ := strings.Cut(pair, "=")
		all = append(all, secret)
	}
	if file != nil {
		all = append(all, file.sources...)
	}
	if f := changed(flags, "policy"); f != nil {
		if many, ok := f.Value.(pflag.SliceValue); ok {
			all = append(all, many.GetSlice()...)
		}
	}
	return all
}

// settlePolicy gives the policy its default source, and refuses a policy text
// that is there and would silently not be in force.
func (l *loaded) settlePolicy(env map[string]string) error {
	for i, s := range l.Policy {
		l.Policy[i] = canonicalSource(s)
	}
	if env[envPolicy] == "" {
		return nil
	}
	own := "env:" + envPolicy
	switch {
	case len(l.Policy) == 0:
		l.Policy, l.origins["policy"] = []string{own}, "env "+envPolicy
	case slices.Contains(l.Policy, own):
	case strings.HasPrefix(l.origins["policy"], "flag"):
		l.warnings = append(l.warnings, envPolicy+" is set, but --policy names other sources: it is not in force")
	default:
		return refuse("add "+own+" to the sources, or unset "+envPolicy,
			"%s is set, but the policy's sources (%s) do not list %s: it would not be in force",
			envPolicy, l.origins["policy"], own)
	}
	return nil
}
