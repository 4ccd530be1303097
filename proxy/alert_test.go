package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// TestAlertRecord has crypto/tls's client read each alert.
func TestAlertRecord(t *testing.T) {
	for _, desc := range []byte{alertAccessDenied, alertInternalError} {
		t.Run(strconv.Itoa(int(desc)), func(t *testing.T) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				if _, err := readHello(server, nil); err == nil {
					server.Write(alertRecord(desc))
				}
			}()
			err := tls.Client(client, &tls.Config{ServerName: "origin.example"}).Handshake()
			client.Close()
			if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" {
				t.Fatalf("the client says %v (%T), want a remote alert", err, err)
			}
			if want := tls.AlertError(desc).Error(); !strings.HasSuffix(err.Error(), want) {
				t.Errorf("the client says %q, want %q", err, want)
			}
		})
	}
}

// TestAlertRecordOpenSSL has OpenSSL print the alert of a denial.
func TestAlertRecordOpenSSL(t *testing.T) {
	path := needClient(t, "openssl")
	out := runClient(t, func(c net.Conn) {
		if _, err := readHello(c, nil); err != nil {
			t.Error(err)
		}
		c.Write(alertRecord(alertAccessDenied))
		io.Copy(io.Discard, c)
	}, func(addr string) []string {
		return []string{path, "s_client", "-connect", addr, "-servername", "origin.example"}
	})
	if !bytes.Contains(out, []byte("access denied")) {
		t.Errorf("openssl does not say that access is denied:\n%s", out)
	}
}
