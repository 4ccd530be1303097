package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// goReferences are measuring references and no products: goproxy's own
// CONNECT, inetaf/tcpproxy, and bare goroutines with io.Copy. They are built
// from the module in peers/. Smokescreen is what SMOKESCREEN names.
func goReferences(o *options) []*subject {
	program := filepath.Join(absolute(o.Dir), "peers")
	reference := func(kind string) func(*site) launch {
		return func(s *site) launch {
			return launch{argv: []string{
				s.program, kind, "-listen", s.listen.String(), "-way", string(s.way),
				"-origin", originName + "=" + originAddr, "-allow", s.file("allow", s.list()), "-log", s.path("access.log"),
			}, env: goEnv(s)}
		}
	}
	return []*subject{
		{name: "gosplice", ways: []way{wayConnect, waySNI}, program: program, launch: reference("gosplice")},
		{name: "goproxy", ways: []way{wayConnect, wayHTTP}, program: program, launch: reference("goproxy")},
		{name: "tcpproxy", ways: []way{waySNI}, program: program, launch: reference("tcpproxy")},
		{name: "smokescreen", ways: []way{wayConnect, wayHTTP}, program: os.Getenv("SMOKESCREEN"), version: []string{"--version"}, launch: smokescreen},
	}
}

func smokescreen(s *site) launch {
	acl := "version: v1\nservices: []\ndefault:\n  name: default\n  project: bench\n  action: enforce\n  allowed_domains:\n" +
		s.each(func(name string) string { return "    - " + name })
	config := fmt.Sprintf("ip: %q\nport: %d\nallow_missing_role: true\nunsafe_allow_private_ranges: true\nallow_ranges: [127.0.0.0/8]\nacl_file: %q\n",
		s.listen.Addr(), s.listen.Port(), s.file("acl.yaml", acl))
	return launch{argv: []string{s.program, "--config-file", s.file("config.yaml", config)}, env: goEnv(s)}
}

// floors are what splice(2) and epoll cost without a product around them: no
// policy, no record, no time limits.
func floors() []*subject {
	return []*subject{{
		name: "floor", silent: true, ways: []way{wayConnect, waySNI}, program: "/proc/self/exe",
		launch: func(s *site) launch {
			self, err := os.Executable()
			if err != nil {
				s.err = err
			}
			config, err := json.Marshal(floorConfig{Listen: s.listen, Origin: s.o.originTLS(), Connect: s.way == wayConnect, Workers: s.workers})
			if err != nil {
				s.err = err
			}
			return launch{argv: []string{self, roleFloor, string(config)}}
		},
	}}
}
