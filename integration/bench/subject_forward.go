package main

import (
	"fmt"
	"path/filepath"
	"regexp"
)

// forwardProxies are the proxies that speak CONNECT.
func forwardProxies(*options) []*subject {
	explicit := []way{wayConnect, wayHTTP}
	return []*subject{
		{name: "squid", private: true, ways: explicit, program: "squid", version: []string{"-v"}, launch: squid},
		{name: "tinyproxy", private: true, ways: explicit, program: "tinyproxy", version: []string{"-v"}, launch: tinyproxy},
		{name: "trafficserver", ways: []way{wayConnect, waySNI, wayHTTP}, program: "traffic_server", version: []string{"-V"}, launch: trafficserver},
	}
}

// squid's workers share memory and meet in /run.
func squid(s *site) launch { return squidWith(s, fmt.Sprintf("http_port %s\n", s.listen)) }

// squidWith listens as the lines of port say.
func squidWith(s *site, port string) launch {
	workers := fmt.Sprintf("workers %d\n", s.workers)
	mode := "--foreground"
	if s.workers == 1 {
		workers, mode = "", "-N"
	}
	conf := workers + fmt.Sprintf(`acl listed dstdomain "%s"
http_access allow listed
http_access deny all
hosts_file %s
dns_nameservers 127.0.0.1
access_log stdio:%s
cache_log %s
pid_filename %s
coredump_dir %s
visible_hostname bench
cache deny all
cache_mem 8 MB
max_filedescriptors %d
shutdown_lifetime 1 seconds
pinger_enable off
%s`, s.file("allow", s.list()), s.file("hosts", s.o.Hosts()), s.path("access.log"), s.path("cache.log"), s.path("pid"), s.dir, s.files, port)
	// Its segments of shared memory bear this name.
	service := "bench" + regexp.MustCompile(`\W`).ReplaceAllString(filepath.Base(s.dir), "")
	return launch{argv: []string{s.program, mode, "-n", service, "-f", s.file("squid.conf", conf)}}
}

// tinyproxy has one process with a thread for each connection, and matches a
// list of regular expressions one by one.
func tinyproxy(s *site) launch {
	filter := s.each(func(name string) string { return "^" + regexp.QuoteMeta(name) + "$" })
	conf := fmt.Sprintf(`Listen %s
Port %d
MaxClients 10000
Timeout 3600
ConnectPort %d
Filter "%s"
FilterExtended On
FilterDefaultDeny Yes
LogFile "%s"
LogLevel Connect
PidFile "%s"
`, s.listen.Addr(), s.listen.Port(), s.o.TLSPort, s.file("filter", filter), s.path("access.log"), s.path("pid"))
	return launch{argv: []string{s.program, "-d", "-c", s.file("tinyproxy.conf", conf)}}
}

// trafficserver has no allowlist for CONNECT: it has remap rules for HTTP, and
// routes by SNI.
func trafficserver(s *site) launch {
	port := fmt.Sprintf("%d:ip-in=%s", s.listen.Port(), s.listen.Addr())
	remap := 0
	switch s.way {
	case waySNI:
		port += ":ssl"
		s.file("sni.yaml", "sni:\n"+s.each(func(name string) string {
			return fmt.Sprintf("- fqdn: %s\n  tunnel_route: %s", name, s.o.originTLS())
		}))
	case wayHTTP:
		remap = 1
		s.file("remap.config", s.each(func(name string) string {
			return fmt.Sprintf("map http://%[1]s:%[2]d/ http://%[1]s:%[2]d/", name, s.o.HTTPPort)
		}))
	}
	s.file("ip_allow.yaml", "ip_allow:\n  - {apply: in, ip_addrs: 0/0, action: allow, methods: ALL}\n")
	s.file("logging.yaml", "logging:\n  formats:\n    - {name: line, format: '%<cqts> %<chi> %<cqhm> %<cquc> %<pssc> %<psql>'}\n"+
		"  logs:\n    - {mode: ascii, filename: access, format: line}\n")
	s.file("storage.config", "")
	s.file("ssl_multicert.config", "")
	s.file("records.config", fmt.Sprintf(`CONFIG proxy.config.http.server_ports STRING %s
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT %d
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.http.cache.http INT 0
CONFIG proxy.config.url_remap.remap_required INT %d
CONFIG proxy.config.reverse_proxy.enabled INT 1
CONFIG proxy.config.http.connect_ports STRING %d
CONFIG proxy.config.hostdb.host_file.path STRING %s
CONFIG proxy.config.net.connections_throttle INT %d
CONFIG proxy.config.net.max_connections_in INT %d
CONFIG proxy.config.http.transaction_no_activity_timeout_in INT 3600
CONFIG proxy.config.http.transaction_no_activity_timeout_out INT 3600
CONFIG proxy.config.log.logging_enabled INT 3
CONFIG proxy.config.log.max_secs_per_buffer INT 1
CONFIG proxy.config.log.periodic_tasks_interval INT 1
CONFIG proxy.config.log.logfile_dir STRING %s
CONFIG proxy.config.local_state_dir STRING %s
CONFIG proxy.config.diags.logfile.filename STRING diags.log
CONFIG proxy.config.admin.user_id STRING nobody
`, port, s.workers, remap, s.o.TLSPort, s.file("hosts", s.o.Hosts()), s.files, s.files, s.dir, s.dir))
	return launch{argv: []string{s.program}, env: []string{"PROXY_CONFIG_CONFIG_DIR=" + s.dir, "TS_ROOT=" + s.dir}}
}
