package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// waitFor polls until ok, for what has no event to wait on.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come true in time")
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

// TestDrain lets what is under way finish, and refuses what is new.
func TestDrain(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, func(c *Config) { c.Timeouts.Drain = 15 * time.Second })
	c := tunnelTo(t, r, port)
	r.stop()
	waitFor(t, func() bool {
		extra, err := net.Dial("tcp", r.addr)
		if err == nil {
			extra.Close()
		}
		return err != nil
	})
	select {
	case <-r.done:
		t.Fatal("Run returned with a tunnel open")
	default:
	}
	io.WriteString(c, "still here")
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	io.Copy(io.Discard, c)
	<-r.done
	if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeOK || rec.BytesSent != 10 {
		t.Errorf("record %+v", rec)
	}
}

func TestDrainCutsWhatIsLeft(t *testing.T) {
	port := tcpOrigin(t, echo)
	web := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := newRig(t, allow("tcp", port, "origin.test")+allow("http", web, "web.test"), func(c *Config) { c.Timeouts.Drain = 200 * time.Millisecond })
	r.resolver.set("origin.test", "127.0.0.1")
	r.resolver.set("web.test", "127.0.0.1")
	tunnel := tunnelTo(t, r, port)
	request := r.send(fmt.Sprintf("GET http://web.test:%d/ HTTP/1.1\r\nHost: web.test\r\n\r\n", web))
	idle := r.dial()
	io.WriteString(idle, "\x16\x03")
	waitFor(t, func() bool { return r.Active() == 3 && len(r.live2().list()) == 2 })
	r.stop()
	<-r.done
	for name, c := range map[string]net.Conn{"tunnel": tunnel, "request": request, "half a hello": idle} {
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, host := range []string{"origin.test", "web.test"} {
		rec := r.events.ended(t, host)
		if rec.EndedBy != flow.EndedByDrain || rec.Outcome != flow.OutcomeConnectionTerminated {
			t.Errorf("%s: outcome %s, ended by %q", host, rec.Outcome, rec.EndedBy)
		}
	}
}

func (r *rig) live2() *live { return r.Server.live }

func TestCutEndsADrain(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, func(c *Config) { c.Timeouts.Drain = time.Hour })
	tunnelTo(t, r, port)
	r.stop()
	r.Cut()
	<-r.done
	if rec := r.events.ended(t, "origin.test"); rec.EndedBy != flow.EndedByDrain {
		t.Errorf("ended by %q", rec.EndedBy)
	}
}

func TestPolicyChangedCutsWhatItDenies(t *testing.T) {
	port := tcpOrigin(t, echo)
	other := tcpOrigin(t, echo)
	both := allow("tcp", port, "origin.test") + allow("tcp", other, "origin.test")
	r := newRig(t, both)
	r.resolver.set("origin.test", "127.0.0.1")
	gone, stays := tunnelTo(t, r, port), tunnelTo(t, r, other)
	waitFor(t, func() bool { return len(r.live2().list()) == 2 })
	r.setPolicy(allow("tcp", other, "origin.test"))
	if n := r.PolicyChanged(); n != 1 {
		t.Errorf("%d were cut, want 1", n)
	}
	if _, err := io.Copy(io.Discard, gone); err != nil {
		t.Errorf("the denied tunnel: %v", err)
	}
	rec := r.events.wait(t, "the cut", func(e flow.Event) bool { return e.Kind == flow.Closed })
	if rec.EndedBy != flow.EndedByPolicy || int(rec.Port) != port {
		t.Errorf("ended by %q on port %d", rec.EndedBy, rec.Port)
	}
	io.WriteString(stays, "x")
	if _, err := io.ReadFull(stays, make([]byte, 1)); err != nil {
		t.Errorf("the allowed tunnel: %v", err)
	}
	// A rule that stays but no longer leads where the tunnel goes is a denial too.
	r.setPolicy(strings.ReplaceAll(both, "resolves_to: [127.0.0.0/8]", "resolves_to: [10.0.0.0/8]"))
	if n := r.PolicyChanged(); n != 1 {
		t.Errorf("%d were cut, want 1", n)
	}
}

// TestPanicStaysOnItsConnection injects a panic into every part that the
// server is handed.
func TestPanicStaysOnItsConnection(t *testing.T) {
	port := tcpOrigin(t, echo)
	for _, stage := range []string{"decide", "resolve"} {
		for _, way := range []string{fmt.Sprintf("CONNECT boom.test:%d HTTP/1.1\r\n\r\n", port), fmt.Sprintf("GET http://boom.test:%d/ HTTP/1.1\r\nHost: boom.test\r\nConnection: close\r\n\r\n", port)} {
			t.Run(stage+" "+way[:3], func(t *testing.T) {
				r := tcpRig(t, port)
				b := &bomb{Decider: r.policy, Resolver: r.resolver, stage: stage}
				r.deps.Decider, r.deps.Resolver = b, b
				r.setPolicy(allow("tcp", port, "origin.test", "boom.test"))
				c := r.send(way)
				io.Copy(io.Discard, c)
				waitFor(t, func() bool { return r.Active() == 0 })
				if rec := r.events.ended(t, "boom.test"); rec.Outcome != flow.OutcomeInternalError {
					t.Errorf("outcome %s", rec.Outcome)
				}
				echoes := tunnelTo(t, r, port)
				io.WriteString(echoes, "x")
				if _, err := io.ReadFull(echoes, make([]byte, 1)); err != nil {
					t.Errorf("after the panic: %v", err)
				}
			})
		}
	}
}

type bomb struct {
	Decider
	Resolver
	stage string
}

func (b *bomb) Decide(q policy.Query) policy.Decision {
	if b.stage == "decide" && q.Host.String() == "boom.test" {
		panic("boom")
	}
	return b.Decider.Decide(q)
}

func (b *bomb) Lookup(ctx context.Context, name string) (a []netip.Addr, err error) {
	if b.stage == "resolve" && name == "boom.test" {
		panic("boom")
	}
	return b.Resolver.Lookup(ctx, name)
}
