package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

func TestLimits(t *testing.T) {
	port := tcpOrigin(t, echo)
	tests := []struct {
		name   string
		limits Limits
		status string
		hint   string
	}{
		{"in all", Limits{Connections: 2}, "HTTP/1.1 503", "limits.connections"},
		{"per source", Limits{PerSource: 2}, "HTTP/1.1 429", "limits.per_source"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := tcpRig(t, port, func(c *Config) { c.Limits = tt.limits })
			one := tunnelTo(t, r, port)
			tunnelTo(t, r, port)
			for _, request := range []string{fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port), "GET http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\n\r\n"} {
				got := r.exchange(request)
				for _, want := range []string{tt.status, "connection_limit_reached", "Retry-After: 1", tt.hint} {
					if !strings.Contains(got, want) {
						t.Errorf("answer lacks %q:\n%s", want, got)
					}
				}
			}
			err := tls.Client(r.dial(), &tls.Config{ServerName: "origin.test"}).Handshake()
			if err == nil || !strings.Contains(err.Error(), "access denied") {
				t.Errorf("raw TLS over the limit: %v", err)
			}
			rec := r.events.wait(t, "a TLS refusal", func(e flow.Event) bool { return e.Record.Via == policy.ViaTLS })
			if rec.Reason != policy.ReasonLimit {
				t.Errorf("reason %s", rec.Reason)
			}
			one.Close()
			r.events.wait(t, "the first tunnel's end", func(e flow.Event) bool { return e.Kind == flow.Closed })
			waitFor(t, func() bool { return r.Active() < 2 })
			tunnelTo(t, r, port)
		})
	}
}

// TestLimitsAreNotSpentOnTheRefused floods far past the limit: the process
// stops answering before it runs out, and recovers.
func TestLimitsAreNotSpentOnTheRefused(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, func(c *Config) { c.Limits.Connections = 2 })
	var silent []net.Conn
	for range 2 + overLimitReserve + 20 {
		if c, err := net.Dial("tcp", r.addr); err == nil { // some are reset at once
			silent = append(silent, c)
		}
	}
	waitFor(t, func() bool { return r.Active() == 2+overLimitReserve })
	r.events.wait(t, "an unanswered refusal", func(e flow.Event) bool {
		return e.Kind == flow.Denied && e.Record.Via == policy.ViaUnknown && e.Record.Reason == policy.ReasonLimit
	})
	for _, c := range silent {
		c.Close()
	}
	waitFor(t, func() bool { return r.Active() == 0 })
	c := tunnelTo(t, r, port)
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
