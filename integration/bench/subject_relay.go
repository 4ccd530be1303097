package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
)

// relays route by SNI or by Host, and speak no CONNECT. Their origins have
// static addresses: they look nothing up.
func relays() []*subject {
	return []*subject{
		{name: "nginx", ways: []way{waySNI, wayHTTP}, program: "nginx", version: []string{"-v"}, launch: nginx},
		{name: "haproxy", ways: []way{waySNI, wayHTTP}, program: "haproxy", version: []string{"-v"}, launch: haproxy},
		{name: "haproxy-splice", ways: []way{waySNI}, only: []string{"bulk"}, program: "haproxy", launch: haproxySplice},
		{name: "sniproxy", ways: []way{waySNI}, program: "sniproxy", version: []string{"-V"}, launch: sniproxy},
	}
}

func nginx(s *site) launch {
	conf := fmt.Sprintf(`daemon off;
user root;
worker_processes %d;
worker_rlimit_nofile %d;
error_log %s warn;
pid %s;
`, s.workers, s.files, s.path("error.log"), s.path("pid"))
	events := fmt.Sprintf("events { worker_connections %d; }\n", s.files-50)
	if s.way == waySNI {
		if module := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(module) {
			conf += "load_module " + module + ";\n" // elsewhere it is built in
		}
		conf += events + fmt.Sprintf(`stream {
	map_hash_max_size 262144;
	map_hash_bucket_size 128;
	map $ssl_preread_server_name $origin { include %s; }
	log_format line '$time_iso8601 $remote_addr $ssl_preread_server_name $status $bytes_sent $bytes_received $session_time';
	access_log %s line;
	server { listen %s; ssl_preread on; proxy_timeout 1h; proxy_pass $origin; }
}
`, s.file("allow", s.each(func(name string) string { return name + " " + s.o.originTLS().String() + ";" })), s.path("access.log"), s.listen)
	} else {
		conf += events + fmt.Sprintf(`http {
	map_hash_max_size 262144;
	map_hash_bucket_size 128;
	map $host $listed { default 0; include %s; }
	access_log %s combined;
	client_body_temp_path %[3]s/body; proxy_temp_path %[3]s/proxy; fastcgi_temp_path %[3]s/f; uwsgi_temp_path %[3]s/u; scgi_temp_path %[3]s/s;
	keepalive_requests 100000000;
	upstream origin { server %[4]s; keepalive 64; keepalive_requests 100000000; }
	server {
		listen %[5]s;
		if ($listed = 0) { return 403; }
		location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }
	}
}
`, s.file("allow", s.each(func(name string) string { return name + " 1;" })), s.path("access.log"), s.dir, s.o.originHTTP(), s.listen)
	}
	return launch{argv: []string{s.program, "-p", s.dir, "-e", s.path("error.log"), "-c", s.file("nginx.conf", conf)}}
}

func haproxy(s *site) launch { return haproxyWith(s, s.files/2-100, "") }

// haproxySplice needs descriptors for pipes, too.
func haproxySplice(s *site) launch {
	return haproxyWith(s, s.files/4, "\toption splice-request\n\toption splice-response\n")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// haproxyWith writes its log to stdout, which is a file.
func haproxyWith(s *site, connections int, extra string) launch {
	list := s.file("allow", s.list())
	conf := fmt.Sprintf(`global
	nbthread %d
	maxconn %d
	log stdout format raw local0 info
defaults
	log global
	timeout connect 5s
	timeout client 1h
	timeout server 1h
%s`, s.workers, connections, extra)
	if s.way == waySNI {
		conf += fmt.Sprintf(`frontend sni
	mode tcp
	option tcplog
	bind %s
	tcp-request inspect-delay 5s
	tcp-request content accept if { req.ssl_sni -i -f %s }
	tcp-request content reject if { req.ssl_hello_type 1 }
	default_backend origin
backend origin
	mode tcp
	server origin %s
`, s.listen, list, s.o.originTLS())
	} else {
		conf += fmt.Sprintf(`frontend http
	mode http
	option httplog
	bind %s
	http-request deny unless { req.hdr(host),field(1,:),lower -f %s }
	default_backend origin
backend origin
	mode http
	http-reuse always
	server origin %s
`, s.listen, list, s.o.originHTTP())
	}
	return launch{argv: []string{s.program, "-db", "-f", s.file("haproxy.cfg", conf)}}
}

// sniproxy has one process for traffic, and matches a list of regular
// expressions one by one.
func sniproxy(s *site) launch {
	conf := fmt.Sprintf(`user root
pidfile %s
error_log { filename %s }
access_log { filename %s }
listener %s {
	proto tls
	table listed
}
table listed {
%s}
`, s.path("pid"), s.path("error.log"), s.path("access.log"), s.listen,
		s.each(func(name string) string { return "\t^" + regexp.QuoteMeta(name) + "$ " + s.o.originTLS().String() }))
	return launch{argv: []string{s.program, "-f", "-n", strconv.Itoa(s.files), "-c", s.file("sniproxy.conf", conf)}}
}
