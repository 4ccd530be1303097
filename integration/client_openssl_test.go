package integration

import (
	"strings"
	"testing"
)

func TestOpenSSL(t *testing.T) {
	t.Parallel()
	path := need(t, "openssl")
	w := newWorld(t)
	_, denied := w.twoOrigins()
	r := w.serve(twoNames)
	// s_client with an empty standard input ends once the handshake is done;
	// an HTTP request is more telling.
	client := func(args ...string) result {
		t.Helper()
		return command{
			path:  path,
			args:  append([]string{"s_client", "-CAfile", w.caFile, "-verify_return_error", "-ign_eof"}, args...),
			stdin: strings.NewReader("GET / HTTP/1.1\r\nHost: allowed.example.test\r\nConnection: close\r\n\r\n"),
		}.run(t)
	}
	const hello = "hello from allowed.example.test over HTTP/1.1"

	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		shown := map[string]string{"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}[version]
		t.Run("explicit "+version, func(t *testing.T) {
			client(version, "-proxy", r.addr, "-connect", "allowed.example.test:443", "-servername", "allowed.example.test").succeeds(t, hello, shown, "Verification: OK")
			if l := r.allowed("allowed.example.test", "connect"); l.TLS.Client.ServerName != "allowed.example.test" {
				t.Errorf("the record: %s", l.text)
			}
		})
		t.Run("raw "+version, func(t *testing.T) {
			client(version, "-connect", r.addr, "-servername", "allowed.example.test").succeeds(t, hello, shown, "Verification: OK")
			r.allowed("allowed.example.test", "tls")
			client(version, "-connect", r.addr, "-servername", "denied.example.test").fails(t, "alert access denied", "SSL alert number 49")
			r.denied("denied.example.test", "tls", "no_rule")
		})
	}
	t.Run("denied CONNECT", func(t *testing.T) {
		client("-proxy", r.addr, "-connect", "denied.example.test:443").fails(t, "HTTP CONNECT failed", "403")
		r.denied("denied.example.test", "connect", "no_rule")
	})
	t.Run("another name in the tunnel", func(t *testing.T) {
		client("-proxy", r.addr, "-connect", "allowed.example.test:443", "-servername", "denied.example.test").fails(t, "alert access denied")
		if l := r.denied("allowed.example.test", "connect", "name_mismatch"); l.TLS.Client.ServerName != "denied.example.test" {
			t.Errorf("the record: %s", l.text)
		}
	})
	t.Run("no name", func(t *testing.T) {
		client("-proxy", r.addr, "-connect", "allowed.example.test:443", "-noservername").fails(t, "alert access denied")
		r.denied("allowed.example.test", "connect", "no_name")
		client("-connect", r.addr, "-noservername").fails(t, "alert access denied")
		r.denied("", "tls", "no_name")
	})
	t.Run("a name in capitals", func(t *testing.T) {
		client("-connect", r.addr, "-servername", "ALLOWED.example.TEST").succeeds(t, hello)
		r.allowed("allowed.example.test", "tls")
	})
	denied.unreached(t)
}
