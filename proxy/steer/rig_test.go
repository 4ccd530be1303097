package steer

import (
	"context"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rules is the policy of these tests.
const rules = `
version: 1
sources:
  - {name: batch, cidrs: [10.0.16.0/20]}
  - {name: learner, cidrs: [10.0.32.0/20], mode: report}
rules:
  - {name: site, hosts: [site.test, "*.site.test"]}
  - {name: plain, hosts: [plain.test], protocol: http}
  - {name: ssh, hosts: [ssh.test], protocol: tcp, ports: [22]}
  - {name: batch, hosts: [batch.test], sources: [batch]}
  - {name: no-paste, action: deny, hosts: [paste.site.test]}
  - {name: app-data, s3: {buckets: [acme-prod], regions: [us-east-1], inspect: true}}
  - {name: partner, cidrs: [192.0.2.0/24]}
`

// records takes what is observed.
type records struct {
	mu  sync.Mutex
	all []flow.Record
}

func (r *records) Observe(e flow.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == flow.Denied {
		r.all = append(r.all, e.Record)
	}
}

func (r *records) take() []flow.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// identify is an Identifier.
type identify func(context.Context, policy.Source) policy.Source

func (f identify) Identify(ctx context.Context, s policy.Source) policy.Source { return f(ctx, s) }

func live(t testing.TB, text string) *policy.Live {
	t.Helper()
	p, err := policy.Load(policy.Text{Name: "policy.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	l := policy.NewLive()
	l.Swap(p)
	return l
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// newServer makes a Server that is not bound, and what it records.
func newServer(t testing.TB, change func(*Config, *Deps)) (*Server, *records) {
	t.Helper()
	recorded := &records{}
	var ids atomic.Int64
	cfg := Config{Address: "127.0.0.1:0", Answer: addrs("203.0.113.10", "203.0.113.11", "2001:db8::10"), TTL: 60e9}
	deps := Deps{Decider: live(t, rules), Recorder: recorded, NewID: func() string { return strconv.FormatInt(ids.Add(1), 10) }}
	if change != nil {
		change(&cfg, &deps)
	}
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return s, recorded
}

// start binds and runs a server until the test ends.
func start(t testing.TB, s *Server) {
	t.Helper()
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func query(name string, qtype uint16, change ...func(*dns.Msg)) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: 4711, RecursionDesired: true}, Question: []dns.Question{{Name: dns.Fqdn(name), Qtype: qtype, Qclass: dns.ClassINET}}}
	for _, f := range change {
		f(m)
	}
	return m
}

func edns(m *dns.Msg) { m.SetEdns0(1232, false) }

var client = asker{remote: netip.MustParseAddrPort("10.0.0.7:40000"), local: netip.MustParseAddrPort("10.0.0.1:53"), datagram: true}

// put asks a server that need not run.
func put(t testing.TB, s *Server, m *dns.Msg, from asker) *dns.Msg {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := s.respond(t.Context(), wire, from)
	if out == nil {
		return nil
	}
	var r dns.Msg
	if err := r.Unpack(out); err != nil {
		t.Fatalf("the answer cannot be read: %v: %x", err, out)
	}
	return &r
}

func extended(m *dns.Msg) *dns.EDNS0_EDE {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return e
			}
		}
	}
	return nil
}
