package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// TestHostileCertificateWithoutKey: a certificate is public. Who shows somebody
// else's, and does not have its key, is not on record as its owner.
func TestHostileCertificateWithoutKey(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			h := newHouse(t, tls.RequireAndVerifyClientCert)
			r := newRig(t, allow("tcp", 1, "origin.test"), h.speaks)
			borrowed := h.client("alice")
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			borrowed.PrivateKey = key
			c := tls.Client(r.dial(), &tls.Config{
				ServerName: "proxy.test", RootCAs: h.roots, MaxVersion: version,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &borrowed, nil },
			})
			fmt.Fprint(c, "CONNECT origin.test:1 HTTP/1.1\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			rec := r.events.wait(t, "the refusal", func(e flow.Event) bool { return e.Kind == flow.Denied })
			if rec.Principal != "" {
				t.Errorf("on record is %q: %s, %s", rec.Principal, rec.Outcome, rec.Error)
			}
			if rec.Outcome != flow.Outcome(policy.ReasonCredentials) {
				t.Errorf("recorded as %s: %s", rec.Outcome, rec.Error)
			}
		})
	}
}

// TestHostileNoPairIsNoFaultOfTheClients: what goes wrong behind a handshake says
// nothing about credentials.
func TestHostileNoPairIsNoFaultOfTheClients(t *testing.T) {
	g := &greeting{left: -1, asks: true, agreed: true}
	for _, err := range []error{errors.New("others take every connection"), unix.EADDRINUSE, unix.EMFILE} {
		if r := g.refusal(fmt.Errorf("a pair of sockets: %w", err)); r.outcome != flow.OutcomeInternalError || r.denied || r.endedBy != "" {
			t.Errorf("%v: %s by %q", err, r.outcome, r.endedBy)
		}
	}
}
