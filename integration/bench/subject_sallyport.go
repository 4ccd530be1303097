package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// sallyports are the product as it comes; the same with what its peers do and
// no more ("lean": no look into the tunnel, one record for each); without
// inspection, where there is some ("spliced"); without a history ("forgetful"); asking ECS who calls
// ("tasks"); with other numbers of rules; and the binaries that it is to be
// compared with.
func sallyports(o *options) []*subject {
	ways := []way{wayConnect, waySNI, wayHTTP, wayHeader, wayInspect}
	one := func(name, program string, launch func(*site) launch) *subject {
		return &subject{name: name, ways: ways, program: absolute(program), version: []string{"version"}, launch: launch}
	}
	lean := one(base+"-lean", o.Sallyport, func(s *site) launch { return sallyport(s, setting{protocol: "tcp", flows: "close"}) })
	lean.ways = ways[:1]
	spliced := one(base+"-spliced", o.Sallyport, func(s *site) launch { return sallyport(s, setting{protocol: "tls", flows: "both"}) })
	spliced.ways, spliced.passes = []way{wayInspect}, true
	product := one(base, o.Sallyport, asShipped)
	product.always = true
	forgetful := one(base+"-forgetful", o.Sallyport, func(s *site) launch {
		return sallyport(s, setting{protocol: "tls", inspect: true, flows: "both", forget: true})
	})
	forgetful.only = []string{"tunnels"}
	tasks := one(base+"-tasks", o.Sallyport, func(s *site) launch {
		return sallyport(s, setting{protocol: "tls", flows: "both", tasks: true})
	})
	tasks.ways, tasks.only, tasks.asks = []way{wayHeader}, []string{"callers"}, true
	all := []*subject{product, lean, spliced, forgetful, tasks}
	for _, rules := range []int{10, 1000, 100000} {
		if o.Quick && rules > 1000 {
			continue
		}
		s := one(base+"-"+strconv.Itoa(rules), o.Sallyport, func(s *site) launch {
			s.rules = rules
			return asShipped(s)
		})
		s.only = []string{"rules"}
		all = append(all, s)
	}
	for i, path := range o.Against {
		other := one(fmt.Sprintf("%s-%d-%s", base, i+2, filepath.Base(path)), path, asShipped)
		other.always = true
		all = append(all, other)
	}
	return all
}

// absolute tells an absolute path from a program's name where a binary is yet
// to be built.
func absolute(path string) string {
	if path == "" {
		return "/" + base
	}
	return path
}

// setting is what the measured Sallyports differ in.
type setting struct {
	protocol string // of the origin's rule
	inspect  bool   // of the bucket's
	flows    string // records
	forget   bool   // nothing is remembered
	tasks    bool   // callers are known by their tasks
}

func asShipped(s *site) launch {
	return sallyport(s, setting{protocol: "tls", inspect: true, flows: "both"})
}

// sallyport writes a policy of a rule for each name; every fifth is a
// wildcard.
func sallyport(s *site, as setting) launch {
	var b strings.Builder
	b.WriteString("version: 1\n")
	caller := ""
	if s.way == wayHeader {
		b.WriteString("sources:\n  - {name: caller, cidrs: [192.0.2.0/28]}\n")
		caller = ", sources: [caller]"
	}
	if as.tasks {
		b.WriteString("  - {name: task, ecs: {cluster: prod, service: \"call*\"}}\nunknown_source: deny\n")
		caller = ", sources: [task]"
	}
	b.WriteString("rules:\n")
	fmt.Fprintf(&b, "  - {name: plain, hosts: [%s], ports: [%d], protocol: http, resolves_to: [127.0.0.0/8]}\n", originName, s.o.HTTPPort)
	for i, name := range s.allowed() {
		switch {
		case name == originName:
			fmt.Fprintf(&b, "  - {name: origin, hosts: [%s], ports: [%d], protocol: %s, resolves_to: [127.0.0.0/8]%s}\n", name, s.o.TLSPort, as.protocol, caller)
		case name == bucketName:
			b.WriteString(bucketRule(s.o.TLSPort, as.inspect))
		case i%5 == 0:
			fmt.Fprintf(&b, "  - {name: r%d, hosts: [\"*.%s\"]}\n", i, name)
		default:
			fmt.Fprintf(&b, "  - {name: r%d, hosts: [%s]}\n", i, name)
		}
	}
	listener := map[string]any{"address": s.listen.String()}
	if s.way == wayHeader {
		listener["proxy_protocol"], listener["proxy_from"] = "required", []string{"127.0.0.0/8"}
	}
	told := map[string]any{
		"listeners": []any{listener},
		"admin":     map[string]any{"address": "127.0.0.1:0"},
		"policy":    []string{"file:" + s.file("policy.yaml", b.String())},
		"resolver": map[string]any{"hosts": []any{
			map[string]any{"name": originName, "addresses": []string{originAddr}},
			map[string]any{"name": bucketName, "addresses": []string{bucketAddr}},
		}},
		"logging": map[string]any{"flows": as.flows},
	}
	if as.inspect && s.way == wayInspect { // what is compared by -against may not know the keys
		told["inspect"] = map[string]any{"ca_file": s.o.pem(proxyCA), "ca_key_file": s.o.key(proxyCA), "origin_ca_file": s.o.pem(originCA)}
	}
	if as.forget {
		told["history"] = map[string]any{"store": "off"}
	}
	env := goEnv(s)
	if as.tasks {
		env = append(env, ecsSettings(told)...)
	}
	config, err := json.Marshal(told)
	if err != nil {
		s.err = err
	}
	return launch{argv: []string{s.program, "serve", "--config", s.file("sallyport.json", string(config))}, env: env}
}

// bucketRule allows what the loads ask of the bucket, and where it is inspected
// nothing else.
func bucketRule(port int, inspect bool) string {
	conditions := ""
	if inspect {
		conditions = fmt.Sprintf(", inspect: true, operations: [GetObject, PutObject], accounts: [%q]", signerAccount)
	}
	bucket, _, _ := strings.Cut(bucketName, ".")
	return fmt.Sprintf("  - {name: bucket, ports: [%d], resolves_to: [127.0.0.0/8], s3: {buckets: [%s], regions: [us-east-1]%s}}\n", port, bucket, conditions)
}

// goEnv holds Go's runtime to the number of workers.
func goEnv(s *site) []string { return []string{"GOMAXPROCS=" + strconv.Itoa(s.workers)} }
