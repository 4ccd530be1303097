package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// TestHostileTunnelOfAnything: a tunnel that may carry anything ends when a deny
// rule of one protocol comes into force, since it may carry that. A client that
// came now would be denied.
func TestHostileTunnelOfAnything(t *testing.T) {
	port := tcpOrigin(t, echo)
	before := allow("tcp", port, "origin.test")
	for _, deny := range []string{"protocol: tls", "protocol: http", "ports: [PORT]"} {
		t.Run(deny, func(t *testing.T) {
			r := newRig(t, before)
			r.resolver.set("origin.test", "127.0.0.1")
			c := tunnelTo(t, r, port)
			waitFor(t, func() bool { return len(r.live2().list()) == 1 })
			if n := r.tighten(before + "  - {name: no, action: deny, hosts: [origin.test], " + strings.ReplaceAll(deny, "PORT", fmt.Sprint(port)) + "}\n"); n != 1 {
				t.Errorf("%d were cut", n)
				c.Close()
			}
			io.Copy(io.Discard, c)
			if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByPolicy {
				t.Errorf("ended by %q", rec.EndedBy)
			}
		})
	}
}

// TestHostileToleratedTunnel: what only report mode has tolerated within a tunnel
// ends with report mode.
func TestHostileToleratedTunnel(t *testing.T) {
	port := tcpOrigin(t, echo)
	rule := allow("tls", port, "allowed.test")
	const report = "version: 1\nmode: report\nrules:\n"
	for name, first := range map[string][]byte{"another name": hostileHello(t, "other.test"), "no TLS": []byte("SSH-2.0-x\r\n")} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, report+rule)
			r.resolver.set("allowed.test", "127.0.0.1")
			c := r.send(fmt.Sprintf("CONNECT allowed.test:%d HTTP/1.1\r\n\r\n", port))
			readHead(t, c)
			c.Write(first)
			if _, err := io.ReadFull(c, make([]byte, len(first))); err != nil {
				t.Fatal(err)
			}
			if n := r.tighten(report + rule); n != 0 {
				t.Fatal("report mode cuts what it tolerates")
			}
			if n := r.tighten(rule); n != 1 {
				t.Errorf("%d were cut", n)
				c.Close()
			}
			io.Copy(io.Discard, c)
			if rec := r.events.ended(t, "allowed.test"); rec.EndedBy != flow.EndedByPolicy || !rec.WouldDeny {
				t.Errorf("ended by %q, would deny %t", rec.EndedBy, rec.WouldDeny)
			}
		})
	}
}

// TestHostileTunnelBroughtToLearning: a tunnel that a rule allowed, and that by a
// reload only a learning window allows, ends with the window. Nobody announces
// that.
func TestHostileTunnelBroughtToLearning(t *testing.T) {
	port := tcpOrigin(t, echo)
	before := allow("tcp", port, "origin.test")
	r := newRig(t, before, func(c *Config) { c.Timeouts.Idle = time.Second })
	r.resolver.set("origin.test", "127.0.0.1")
	c := tunnelTo(t, r, port)
	waitFor(t, func() bool { return len(r.live2().list()) == 1 })
	if n := r.tighten("version: 1\nmode: report\nrules:\n" + before); n != 0 {
		t.Fatalf("%d were cut", n)
	}
	r.setPolicy(elsewhere) // as if report_until had passed: PolicyChanged is not called
	echoUntilCut(c)
	if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByPolicy {
		t.Errorf("ended by %q: %s", rec.EndedBy, rec.Error)
	}
}
