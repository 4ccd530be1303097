package main

import (
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/metrics"
	caller "github.com/sallyport/sallyport/proxy/identity"
)

// tlsStatus is what is told of a listener's TLS. It is safe for concurrent use.
type tlsStatus struct {
	mu      sync.Mutex // guards the rest
	expires []expiry
	lacking []string // CAs without a CRL where there are some
	failed  error    // of the last reload
}

// expiry is something of which nothing good comes once it is over.
type expiry struct {
	kind   string // "certificate", "client_ca" or "crl", as in the metric
	name   string // whose
	at     time.Time
	notice time.Duration // how long before it is spoken of
	effect string
	hint   string
}

// say says what is wrong at a time, "" for nothing; soon when it is yet to come.
func (e *expiry) say(at time.Time) (what string, soon bool) {
	switch left := e.at.Sub(at); {
	case left <= 0:
		return fmt.Sprintf("%s expired at %s: %s", e.name, e.at.UTC().Format(time.RFC3339), e.effect), false
	case left < e.notice:
		return fmt.Sprintf("%s expires at %s: then %s", e.name, e.at.UTC().Format(time.RFC3339), e.effect), true
	}
	return "", false
}

// set notes what is in force now.
func (s *tlsStatus) set(m *caller.TLSMaterial) {
	week := 7 * 24 * time.Hour
	leaf := m.Certificate.Leaf
	all := []expiry{{
		kind: "certificate", name: fmt.Sprintf("the listener's certificate %q", leaf.Subject), at: leaf.NotAfter,
		notice: min(expiresSoon, leaf.NotAfter.Sub(leaf.NotBefore)/4), effect: "no client trusts it", hint: "renew it: a changed file is read by itself",
	}}
	for _, ca := range m.ClientCAs {
		all = append(all, expiry{
			kind: "client_ca", name: fmt.Sprintf("the client CA %q", ca.Subject), at: ca.NotAfter,
			notice: min(expiresSoon, ca.NotAfter.Sub(ca.NotBefore)/4), effect: "clients with its certificates are refused", hint: "put the CA that follows it into client_ca_file, too",
		})
	}
	for _, l := range m.Revoked {
		all = append(all, expiry{
			kind: "crl", name: fmt.Sprintf("the CRL of %q", l.Issuer), at: l.NextUpdate,
			notice: min(week, l.NextUpdate.Sub(l.ThisUpdate)/4), effect: "clients with its certificates are refused, revoked or not",
			hint: "bring the CA's new CRL: a changed file is read by itself",
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expires, s.lacking, s.failed = all, nil, nil
	if m.CheckRevoked {
		s.lacking = withoutCRL(m)
	}
}

// withoutCRL names the CAs of which nobody knows whom they have revoked.
func withoutCRL(m *caller.TLSMaterial) (names []string) {
	issuers := make(map[string]bool)
	for _, l := range m.Revoked {
		issuers[string(l.RawIssuer)] = true
	}
	for _, ca := range m.ClientCAs {
		if !issuers[string(ca.RawSubject)] && signsOthers(ca) {
			names = append(names, fmt.Sprintf("%q", ca.Subject))
		}
	}
	return names
}

func signsOthers(c *x509.Certificate) bool { return c.BasicConstraintsValid && c.IsCA }

// fail notes how the last reload went.
func (s *tlsStatus) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
}

// expiries returns what may expire, and what lacks from the beginning.
func (s *tlsStatus) expiries() []expiry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append([]expiry(nil), s.expires...)
	for _, name := range s.lacking {
		all = append(all, expiry{
			kind: "", name: "the CRL of " + name + ", which crl_file lacks,", effect: "clients with its certificates are refused",
			hint: "add its CRL to crl_file, an empty one if it has revoked nobody",
		})
	}
	return all
}

// text says what is in force, and until when.
func (s *tlsStatus) text() string {
	var parts []string
	for _, e := range s.expiries() {
		if e.kind == "" {
			parts = append(parts, "no CRL: "+e.name)
			continue
		}
		parts = append(parts, e.name+" until "+e.at.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

// detail is text with what is wrong before it.
func (s *tlsStatus) detail(at time.Time) string {
	var parts []string
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed != nil {
		parts = append(parts, "the last reload failed, what was in force stays: "+failed.Error())
	}
	for _, e := range s.expiries() {
		if what, _ := e.say(at); what != "" {
			parts = append(parts, what)
		}
	}
	return strings.Join(append(parts, s.text()), "; ")
}

// checks say how the listeners' TLS is. What has expired is no reason to send
// all clients elsewhere: it is as expired there.
func (all tlsListeners) checks() []console.Check {
	var checks []console.Check
	for _, t := range all.present() {
		checks = append(checks, console.Check{Name: "listener_tls", OK: true, Detail: t.name + ": " + t.status.detail(time.Now())})
	}
	return checks
}

// stats returns the figures for the metrics, nil where there are none.
func (all tlsListeners) stats() func() []metrics.TLSListener {
	present := all.present()
	if len(present) == 0 {
		return nil
	}
	return func() []metrics.TLSListener {
		out := make([]metrics.TLSListener, 0, len(present))
		for _, t := range present {
			one := metrics.TLSListener{Address: t.name, Expires: make(map[string]time.Time)}
			t.status.mu.Lock()
			one.Failed = t.status.failed != nil
			t.status.mu.Unlock()
			for _, e := range t.status.expiries() {
				if first, ok := one.Expires[e.kind]; e.kind != "" && (!ok || e.at.Before(first)) {
					one.Expires[e.kind] = e.at
				}
			}
			out = append(out, one)
		}
		return out
	}
}
