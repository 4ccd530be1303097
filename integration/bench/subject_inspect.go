package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// inspectors end TLS on the way to a bucket and begin another. Their
// certificates are signed by the run's own CA.
func inspectors(*options) []*subject {
	return []*subject{
		{name: "mitmproxy", private: true, ways: []way{wayInspect}, program: "mitmdump", version: []string{"--version"}, launch: mitmproxy},
		{name: "squid-bump", private: true, ways: []way{wayInspect}, program: "squid", version: []string{"-v"}, launch: squidBump},
		{name: "squid-peek", private: true, ways: []way{wayConnect}, program: "squid", launch: squidPeek},
	}
}

// bundle is the CA that inspectors sign with, and its key, in one file.
func (s *site) bundle(name string) string {
	var text []byte
	for _, path := range []string{s.o.key(proxyCA), s.o.pem(proxyCA)} {
		part, err := os.ReadFile(path)
		if err != nil {
			s.err = err
		}
		text = append(text, part...)
	}
	return s.file(name, string(text))
}

// mitmproxy is one thread of Python. It has no allowlist of its own, and is
// given one as its users would: a script. Large bodies are passed on as they
// come, or it would hold them whole.
func mitmproxy(s *site) launch {
	s.bundle("mitmproxy-ca.pem")
	s.file("allow", s.list())
	script := s.file("allow.py", `from mitmproxy import http

with open("allow") as f:
    listed = set(f.read().split())


def refuse(flow):
    if flow.request.host not in listed:
        flow.response = http.Response.make(403, b"not listed")


http_connect = refuse
request = refuse
`)
	return launch{argv: []string{
		s.program, "--listen-host", s.listen.Addr().String(), "--listen-port", strconv.Itoa(int(s.listen.Port())),
		"--set", "confdir=" + s.dir, "--set", "stream_large_bodies=64k", "--set", "ssl_verify_upstream_trusted_ca=" + s.o.pem(originCA),
		"--set", "flow_detail=1", "-s", script,
	}}
}

// squidBump ends every TLS.
func squidBump(s *site) launch {
	return squidWith(s, fmt.Sprintf(`http_port %s ssl-bump tls-cert=%s generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
%s
tls_outgoing_options cafile=%s
ssl_bump bump all
`, s.listen, s.bundle("ca.pem"), certgen(s), s.o.pem(originCA)))
}

// squidPeek reads the ClientHello inside a tunnel, and lets it through by its
// name.
func squidPeek(s *site) launch {
	return squidWith(s, fmt.Sprintf(`http_port %s ssl-bump tls-cert=%s
%s
acl hello at_step SslBump1
acl named ssl::server_name "%s"
ssl_bump peek hello
ssl_bump splice named
ssl_bump terminate all
`, s.listen, s.bundle("ca.pem"), certgen(s), s.path("allow")))
}

// certgen makes the store of Squid's helper for certificates, without which
// Squid does not start where it might end TLS, and returns the line that names
// both.
func certgen(s *site) string {
	const helper = "/usr/lib/squid/security_file_certgen"
	store := s.path("certificates")
	if out, err := exec.Command(helper, "-c", "-s", store, "-M", "4MB").CombinedOutput(); err != nil {
		s.err = fmt.Errorf("%s: %w: %s", helper, err, out)
	}
	// Squid gives up root, and its helpers write there.
	err := filepath.WalkDir(store, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chmod(path, 0o777))
	})
	if err != nil {
		s.err = err
	}
	return fmt.Sprintf("sslcrtd_program %s -s %s -M 4MB", helper, store)
}
