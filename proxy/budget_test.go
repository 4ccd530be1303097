package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// purse is a Ledger with one account for everything.
type purse struct {
	limit, charged atomic.Int64
}

func (p *purse) Account(*policy.Budget) Account { return p }
func (p *purse) Charge(n int64)                 { p.charged.Add(n) }
func (p *purse) Spent() (bool, time.Time) {
	return p.charged.Load() >= p.limit.Load(), time.Now().Add(90 * time.Minute)
}

func budgetRig(t *testing.T, port int, action string) (*rig, *purse) {
	t.Helper()
	p := &purse{}
	p.limit.Store(1 << 40)
	r := newRigWith(t, budgetPolicy(port, action), func(d *Deps) { d.Ledger = p })
	r.resolver.set("origin.test", "127.0.0.1")
	return r, p
}

func budgetPolicy(port int, action string) string {
	return fmt.Sprintf(`version: 1
%s
rules:
  - {name: up, hosts: [origin.test], ports: [%d], protocol: tcp, resolves_to: [127.0.0.0/8], budget: {bytes_out: 50GiB, per: day, action: %s}}
`, map[string]string{"report": "mode: report"}[strings.Fields(action + " x x")[1]], port, strings.Fields(action)[0])
}

// charges waits until what was charged is n.
func (p *purse) charges(t *testing.T, n int64) {
	t.Helper()
	waitFor(t, func() bool { return p.charged.Load() == n })
}

func TestBudgetSpent(t *testing.T) {
	port := tcpOrigin(t, echo)
	r, p := budgetRig(t, port, "deny")
	p.limit.Store(0)
	for _, request := range []string{
		fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port),
		fmt.Sprintf("GET http://origin.test:%d/ HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n", port),
	} {
		got := r.exchange(request)
		for _, want := range []string{
			"HTTP/1.1 429", "error=http_request_denied", "limit rule=up budget=rule:up:50GiB/day resets=", "Retry-After: 5",
			`why: the budget of the rule "up" is spent: 50GiB out per day (limit)`, "what to do: wait until ", "rule: up",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("the answer lacks %q:\n%s", want, got)
			}
		}
	}
	rec := r.events.ended(t, "origin.test")
	if rec.Reason != policy.ReasonLimit || rec.Outcome != flow.Outcome(policy.ReasonLimit) || rec.Verdict != policy.Deny || !strings.Contains(rec.Error, "50GiB") {
		t.Errorf("%+v", rec)
	}
	if n := r.resolver.total(); n != 0 {
		t.Errorf("the name was looked up %d times", n)
	}
}

func TestBudgetSpentTLS(t *testing.T) {
	p := &purse{}
	r := newRigWith(t, "  - {name: up, hosts: [origin.test], budget: {bytes_out: 50GiB, per: day, action: deny}}\n", func(d *Deps) { d.Ledger = p })
	err := tls.Client(r.dial(), &tls.Config{ServerName: "origin.test"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("raw TLS: %v", err)
	}
}

// What only tells lets everything pass, and counts it exactly.
func TestBudgetCounts(t *testing.T) {
	port := tcpOrigin(t, echo)
	for _, action := range []string{"alert", "deny report"} {
		t.Run(action, func(t *testing.T) {
			r, p := budgetRig(t, port, action)
			p.limit.Store(1)
			c := tunnelTo(t, r, port)
			const size = 1 << 20
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(make([]byte, size))
				sent <- err
			}()
			if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return p.charged.Load() >= size }) // while it is open
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			rec := r.events.ended(t, "origin.test")
			p.charges(t, rec.BytesSent)
			if rec.BytesSent != size || rec.Outcome != flow.OutcomeOK || rec.WouldDeny != (action != "alert") {
				t.Errorf("%+v", rec)
			}
		})
	}
}

// A tunnel that alone exceeds the budget is cut, at rest and as a stream.
func TestBudgetCutsTunnel(t *testing.T) {
	got := make(chan int64, 1)
	port := tcpOrigin(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		got <- n
		c.Close()
	})
	r, p := budgetRig(t, port, "deny")
	const limit = 4 << 20
	p.limit.Store(limit)
	c := tunnelTo(t, r, port)
	var sent int64
	chunk := make([]byte, 64<<10)
	for {
		n, err := c.Write(chunk)
		if sent += int64(n); err != nil {
			break
		}
	}
	rec := r.events.ended(t, "origin.test")
	if rec.Outcome != flow.Outcome(policy.ReasonLimit) || rec.EndedBy != flow.EndedByPolicy || rec.Verdict != policy.Allow || !strings.Contains(rec.Error, `the budget of the rule "up" is spent`) {
		t.Errorf("%+v", rec)
	}
	if n := <-got; n < limit || n > rec.BytesSent {
		t.Errorf("the origin got %d bytes of the %d that were forwarded, with %d allowed", n, rec.BytesSent, limit)
	}
	p.charges(t, rec.BytesSent)
	if answer := r.exchange(fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port)); !strings.Contains(answer, "429") {
		t.Errorf("the next one: %s", answer)
	}
}

// Another's spending cuts a tunnel that is silent.
func TestBudgetCutsSilentTunnel(t *testing.T) {
	port := tcpOrigin(t, echo)
	r, p := budgetRig(t, port, "deny")
	c := tunnelTo(t, r, port)
	roundTrip(t, c)
	p.limit.Store(1)
	if _, err := io.ReadAll(c); err != nil {
		t.Logf("the client reads: %v", err)
	}
	if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.Outcome(policy.ReasonLimit) || rec.EndedBy != flow.EndedByPolicy {
		t.Errorf("%+v", rec)
	}
}

func roundTrip(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// An upload over plain HTTP is cut as well, and what it had sent is counted
// once.
func TestBudgetCutsUpload(t *testing.T) {
	port := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})
	p := &purse{}
	p.limit.Store(2 << 20)
	r := newRigWith(t, fmt.Sprintf("  - {name: up, hosts: [web.test], ports: [%d], protocol: http, resolves_to: [127.0.0.0/8], budget: {bytes_out: 2MiB, per: hour, action: deny}}\n", port),
		func(d *Deps) { d.Ledger = p })
	r.resolver.set("web.test", "127.0.0.1")
	res, err := r.client(nil).Post(fmt.Sprintf("http://web.test:%d/", port), "text/plain", endless{})
	if err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusTooManyRequests {
			t.Errorf("status %d", res.StatusCode)
		}
	}
	rec := r.events.ended(t, "web.test")
	if rec.Outcome != flow.Outcome(policy.ReasonLimit) || rec.EndedBy != flow.EndedByPolicy || rec.BytesSent < 2<<20 {
		t.Errorf("%+v", rec)
	}
	p.charges(t, rec.BytesSent)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// An allowed attempt under a policy without budgets pays nothing for them.
func BenchmarkAccountWithout(b *testing.B) {
	p, err := policy.Load(policy.Text{Name: "p", Data: []byte("version: 1\nrules: [{name: a, hosts: [a.example]}]\n")})
	if err != nil {
		b.Fatal(err)
	}
	h, _ := policy.ParseHost("a.example")
	a := &attempt{s: &Server{deps: Deps{Ledger: &purse{}}}}
	a.decision = p.Decide(policy.Query{Host: h, Port: 443, Protocol: policy.ProtocolTLS})
	b.ReportAllocs()
	for b.Loop() {
		if a.account() != nil || a.meter != nil {
			b.Fatal("a meter")
		}
	}
}
