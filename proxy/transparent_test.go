package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// aimed starts a listener whose connections the rig serves as if they had been
// aimed at original; nothing else is made up. Real redirects are the business
// of the namespaces in integration/.
func (r *rig) aimed(original string) (addr string) {
	r.t.Helper()
	call(r.t, r.addr).Close() // what it is served by is there when this has been
	r.idle(1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	r.t.Cleanup(func() { ln.Close(); <-done })
	cfg := &ListenerConfig{}
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := &conn{
				s: r.Server, listener: cfg, tcp: nc.(*net.TCPConn), accepted: time.Now(),
				local: addrPortOf(nc.LocalAddr()), remote: addrPortOf(nc.RemoteAddr()),
				original: netip.MustParseAddrPort(original),
			}
			c.source.Addr = c.remote.Addr()
			c.counted = callerOf(c.source)
			c.over = r.admission.enter(c.counted)
			r.work.Add(1)
			r.live.addConn(c)
			go r.handle(context.Background(), c)
		}
	}()
	return ln.Addr().String()
}

// idle waits until as many connections were accepted, and all have ended.
func (r *rig) idle(accepted uint64) {
	r.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); r.Counts().Accepted < accepted || r.Active() > 0; {
		if time.Now().After(deadline) {
			r.t.Fatalf("%+v", r.Counts())
		}
	}
}

// call dials addr.
func call(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// helloOf is the ClientHello of crypto/tls for a name, "" for none.
func helloOf(t *testing.T, name string) string {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}()
	b := make([]byte, 8<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// greeter is an origin that speaks first, then echoes.
func greeter(c *net.TCPConn) {
	_, _ = io.WriteString(c, "220 welcome\n")
	echo(c)
}

// cidrs is a rule for an address.
func cidrs(protocol, prefix string, port int) string {
	return fmt.Sprintf("  - {name: at-%d-%s, cidrs: [%s], ports: [%d], protocol: %s}\n", port, protocol, prefix, port, protocol)
}

const loopbackRange = "127.0.0.0/8"

func TestTransparentWithoutName(t *testing.T) {
	port := tcpOrigin(t, echo)
	hello := helloOf(t, "")
	at := fmt.Sprintf("127.0.0.1:%d", port)
	tcp, onlyTLS := cidrs("tcp", loopbackRange, port), cidrs("tls", loopbackRange, port)
	report := "version: 1\nmode: report\nrules:\n" + cidrs("tcp", "192.0.2.0/24", 1)
	for name, tt := range map[string]struct {
		policy, original, send string
		reason                 policy.Reason
		outcome                flow.Outcome
		carried                bool // what is sent comes back
	}{
		"listed":                       {policy: tcp, original: at, send: "\x00\x01", reason: "rule", outcome: flow.OutcomeOK, carried: true},
		"not listed":                   {policy: cidrs("tcp", "192.0.2.0/24", port), original: at, send: "\x00\x01", reason: "not_tls", outcome: "not_tls"},
		"other port":                   {policy: cidrs("tcp", loopbackRange, port+1), original: at, send: "\x00\x01", reason: "not_tls", outcome: "not_tls"},
		"listed for TLS alone":         {policy: onlyTLS, original: at, send: "\x00\x01", reason: "not_tls", outcome: "not_tls"},
		"denied by a rule":             {policy: tcp + fmt.Sprintf("  - {name: no, action: deny, cidrs: [127.0.0.1/32], ports: [%d], protocol: tcp}\n", port), original: at, send: "\x00", reason: "deny_rule", outcome: "deny_rule"},
		"TLS, listed for TLS":          {policy: onlyTLS, original: at, send: hello, reason: "rule", outcome: flow.OutcomeOK, carried: true},
		"TLS, listed for anything":     {policy: tcp, original: at, send: hello, reason: "rule", outcome: flow.OutcomeOK, carried: true},
		"TLS, not listed":              {policy: cidrs("tls", "192.0.2.0/24", port), original: at, send: hello, reason: "no_name", outcome: "no_name"},
		"metadata, listed around it":   {policy: cidrs("tcp", "168.0.0.0/7", 80), original: "169.254.169.254:80", send: "\x00", reason: "address_prohibited", outcome: "address_prohibited"},
		"reported, loopback":           {policy: report, original: at, send: "\x00", reason: "address_prohibited", outcome: "address_prohibited"},
		"an address of another family": {policy: tcp, original: "[2001:db8::1]:443", send: "\x00", reason: "not_tls", outcome: "not_tls"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.policy)
			c := call(t, r.aimed(tt.original))
			if _, err := io.WriteString(c, tt.send); err != nil {
				t.Fatal(err)
			}
			_ = c.CloseWrite()
			got, err := io.ReadAll(c)
			if carried := err == nil && string(got) == tt.send; carried != tt.carried {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
			rec := r.events.ended(t, netip.MustParseAddrPort(tt.original).Addr().String())
			if rec.Via != policy.ViaTCP || rec.Original.String() != tt.original || rec.Port != netip.MustParseAddrPort(tt.original).Port() ||
				rec.Reason != tt.reason || rec.Outcome != tt.outcome || rec.Enforcement() != "" {
				t.Errorf("via %s, original %s, port %d: %s, %s %q", rec.Via, rec.Original, rec.Port, rec.Reason, rec.Outcome, rec.Error)
			}
			if tt.carried && rec.Peer != rec.Original {
				t.Errorf("dialled %s", rec.Peer)
			}
			if n := r.resolver.total(); n != 0 {
				t.Errorf("%d lookups", n)
			}
		})
	}
}

// TestTransparentByName dials what the name leads to, at the port that the
// connection was aimed at; the address that it was aimed at is never dialled.
func TestTransparentByName(t *testing.T) {
	decoy := tcpOrigin(t, func(*net.TCPConn) { t.Error("the original destination was dialled") })
	for name, tt := range map[string]struct {
		original int // the port; 0 for the origin's
		send     func(port int) string
		protocol string
		denied   policy.Reason
	}{
		"TLS":                   {send: func(int) string { return helloOf(t, "origin.test") }, protocol: "tls"},
		"TLS, at another port":  {original: decoy, send: func(int) string { return helloOf(t, "origin.test") }, protocol: "tls", denied: "no_rule"},
		"HTTP":                  {send: func(int) string { return "GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n" }, protocol: "http"},
		"HTTP, with a port":     {original: decoy, send: func(p int) string { return fmt.Sprintf("GET / HTTP/1.1\r\nHost: origin.test:%d\r\n\r\n", p) }, protocol: "http"},
		"HTTP, at another port": {original: decoy, send: func(int) string { return "GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n" }, protocol: "http", denied: "no_rule"},
		"HTTP, with a body":     {send: func(int) string { return "POST / HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 1\r\n\r\nx" }, protocol: "http"},
		"HTTP, an absolute URL": {send: func(int) string { return "GET http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\n\r\n" }, protocol: "http", denied: "no_rule"},
		"CONNECT, which says it all": {original: decoy, send: func(p int) string {
			return fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\nxx", p)
		}, protocol: "tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan string, 1)
			port := tcpOrigin(t, func(c *net.TCPConn) {
				b := make([]byte, 2)
				_, _ = io.ReadFull(c, b)
				asked <- string(b)
			})
			r := newRig(t, allow(tt.protocol, port, "origin.test"))
			r.resolver.set("origin.test", "127.0.0.1")
			at := tt.original
			if at == 0 {
				at = port
			}
			c := call(t, r.aimed(fmt.Sprintf("127.0.0.1:%d", at)))
			if _, err := io.WriteString(c, tt.send(port)); err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, c)
			if tt.denied == "" {
				select {
				case <-asked:
				case <-time.After(15 * time.Second):
					t.Fatalf("the origin was not asked%s", r.events.text())
				}
				c.Close()
			}
			rec := r.events.ended(t, "origin.test")
			if want := fmt.Sprintf("127.0.0.1:%d", at); rec.Original.String() != want {
				t.Errorf("original %s, want %s", rec.Original, want)
			}
			if tt.denied != "" && (rec.Reason != tt.denied || rec.Verdict != policy.Deny) {
				t.Errorf("%s %s", rec.Verdict, rec.Reason)
			}
		})
	}
}

func TestTransparentSilence(t *testing.T) {
	port := tcpOrigin(t, greeter)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	patient := func(c *Config) { c.Timeouts.Hello = 30 * time.Second }
	hasty := func(c *Config) { c.Timeouts.Hello = silence + 200*time.Millisecond }
	banner := func(t *testing.T, c *net.TCPConn) (string, error) {
		t.Helper()
		return bufio.NewReader(c).ReadString('\n')
	}
	t.Run("the server speaks first", func(t *testing.T) {
		r := newRig(t, cidrs("tcp", loopbackRange, port), patient)
		c := call(t, r.aimed(at))
		if got, err := banner(t, c); got != "220 welcome\n" {
			t.Fatalf("%q, %v", got, err)
		}
		// What comes later is not looked at, whatever it looks like.
		hello := helloOf(t, "elsewhere.test")
		_, _ = io.WriteString(c, hello)
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != hello {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
		if rec := r.events.ended(t, "127.0.0.1"); rec.Outcome != flow.OutcomeOK || rec.Via != policy.ViaTCP || rec.TLS.ServerName != "" {
			t.Errorf("%s via %s, %q", rec.Outcome, rec.Via, rec.TLS.ServerName)
		}
	})
	t.Run("no rule", func(t *testing.T) {
		r := newRig(t, cidrs("tcp", "192.0.2.0/24", port), hasty)
		if got, err := banner(t, call(t, r.aimed(at))); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", got, err)
		}
		if rec := r.events.ended(t, "127.0.0.1"); rec.Reason != policy.ReasonNotTLS || !strings.Contains(rec.Error, "protocol: tcp") {
			t.Errorf("%s: %s", rec.Reason, rec.Error)
		}
	})
	t.Run("a rule for TLS lets nothing begin", func(t *testing.T) {
		r := newRig(t, cidrs("tls", loopbackRange, port), patient)
		c := call(t, r.aimed(at))
		_ = c.SetReadDeadline(time.Now().Add(2 * silence))
		if got, err := banner(t, c); err == nil {
			t.Errorf("%q", got)
		}
		// It may still say what it is.
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, helloOf(t, ""))
		if got, err := banner(t, c); got != "220 welcome\n" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("report mode waits for a name", func(t *testing.T) {
		r := newRig(t, "version: 1\nmode: report\nrules:\n"+allow("tls", port, "origin.test"), patient)
		r.resolver.set("origin.test", "127.0.0.1")
		c := call(t, r.aimed("192.0.2.1:"+strconv.Itoa(port)))
		_ = c.SetReadDeadline(time.Now().Add(2 * silence))
		if got, err := banner(t, c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q, %v", got, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, helloOf(t, "origin.test"))
		if got, err := banner(t, c); got != "220 welcome\n" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("gone without a word", func(t *testing.T) {
		r := newRig(t, cidrs("tcp", loopbackRange, port), patient)
		c := call(t, r.aimed(at))
		c.Close()
		r.idle(2)
		if all, _ := r.events.list(); len(all) > 0 {
			t.Errorf("recorded:%s", r.events.text())
		}
	})
	t.Run("nobody at all, explicitly", func(t *testing.T) {
		r := newRig(t, cidrs("tcp", loopbackRange, port), func(c *Config) { c.Timeouts.Hello = 100 * time.Millisecond })
		if got, err := banner(t, r.dial()); err == nil {
			t.Errorf("%q", got)
		}
		if all, _ := r.events.list(); len(all) > 0 {
			t.Errorf("recorded:%s", r.events.text())
		}
	})
}

// TestTransparentReport lets through, and marks, what enforcing would refuse.
func TestTransparentReport(t *testing.T) {
	port := tcpOrigin(t, greeter)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	for name, tt := range map[string]struct {
		send string
		want policy.Reason
	}{
		"silent": {want: policy.ReasonNotTLS},
		"raw":    {send: "\x00", want: policy.ReasonNotTLS},
		"TLS":    {send: helloOf(t, ""), want: policy.ReasonNoName},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "version: 1\nmode: report\nrules:\n"+cidrs("tcp", "192.0.2.0/24", 1), func(c *Config) { c.Timeouts.Hello = silence + 100*time.Millisecond })
			c := call(t, r.aimed(at))
			_, _ = io.WriteString(c, tt.send)
			_, _ = io.ReadAll(c)
			// Loopback is no part of what report mode learns: the guard ends it,
			// after the policy has let it through with what it would have said.
			rec := r.events.ended(t, "127.0.0.1")
			if rec.Outcome != flow.Outcome(policy.ReasonAddressProhibited) || rec.Via != policy.ViaTCP {
				t.Errorf("%s via %s: %s", rec.Outcome, rec.Via, rec.Error)
			}
			a := r.newAttempt(&conn{s: r.Server, original: netip.MustParseAddrPort("192.0.2.1:9")}, policy.ViaTCP, time.Now())
			refused := a.decideOriginal(&conn{original: netip.MustParseAddrPort("192.0.2.1:9")}, policy.ProtocolTCP, denial(tt.want, nil))
			if refused != nil || a.rec.Reason != tt.want || !a.rec.WouldDeny {
				t.Errorf("decided %v: %s, would deny: %v", refused, a.rec.Reason, a.rec.WouldDeny)
			}
		})
	}
}

// TestTransparentReturn refuses what comes back to the proxy, whatever it says.
func TestTransparentReturn(t *testing.T) {
	port := tcpOrigin(t, echo)
	at := netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", port))
	for name, tt := range map[string]struct{ send, answer string }{
		"raw":     {send: "\x00"},
		"silent":  {},
		"TLS":     {send: helloOf(t, "origin.test"), answer: string(alertRecord(alertAccessDenied))},
		"HTTP":    {send: "GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n", answer: "HTTP/1.1 403 "},
		"POST":    {send: "POST / HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 5\r\n\r\n", answer: "HTTP/1.1 403 "},
		"CONNECT": {send: fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port), answer: "HTTP/1.1 403 "},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, cidrs("tcp", loopbackRange, port)+allow("tcp", port, "origin.test"), func(c *Config) { c.Timeouts.Hello = silence + 100*time.Millisecond })
			r.resolver.set("origin.test", "127.0.0.1")
			r.sent = newSent(time.Minute)
			c := call(t, r.aimed(at.String()))
			r.sent.mu.Lock()
			r.sent.recent[route{addrPortOf(c.LocalAddr()), at}] = time.Now()
			r.sent.mu.Unlock()
			_, _ = io.WriteString(c, tt.send)
			got, _ := io.ReadAll(c)
			if !strings.HasPrefix(string(got), tt.answer) || tt.answer == "" && len(got) > 0 {
				t.Errorf("answered %q", got)
			}
			rec := r.events.wait(t, "an end", func(e flow.Event) bool { return e.Kind == flow.Denied })
			if rec.Reason != policy.ReasonSelf {
				t.Errorf("%s: %s", rec.Reason, rec.Error)
			}
			if n := r.resolver.total(); n != 0 {
				t.Errorf("%d lookups", n)
			}
		})
	}
}

func TestTransparentSelf(t *testing.T) {
	r := newRig(t, "  - {name: all, cidrs: [127.0.0.0/8], ports: [1-65535], protocol: tcp}\n")
	c := call(t, r.aimed(r.addr))
	_, _ = io.WriteString(c, "\x00")
	_, _ = io.ReadAll(c)
	if rec := r.events.ended(t, "127.0.0.1"); rec.Outcome != flow.Outcome(policy.ReasonSelf) {
		t.Errorf("%s: %s", rec.Outcome, rec.Error)
	}
}

func TestSent(t *testing.T) {
	var none *sent
	none.add(nil)
	port := tcpOrigin(t, echo)
	c := call(t, fmt.Sprintf("127.0.0.1:%d", port))
	local, peer := addrPortOf(c.LocalAddr()), addrPortOf(c.RemoteAddr())
	if none.returned(local, peer, time.Now()) {
		t.Error("a nil sent knows something")
	}
	s := newSent(time.Second)
	if s.returned(local, peer, time.Now()) {
		t.Error("known before it was opened")
	}
	s.add(c)
	for name, tt := range map[string]struct {
		from, original netip.AddrPort
		accepted       time.Duration
		want           bool
	}{
		"it":                          {from: local, original: peer, want: true},
		"accepted before it is noted": {from: local, original: peer, accepted: -time.Second, want: true},
		"not transparent":             {from: local},
		"the port, elsewhere":         {from: local, original: netip.AddrPortFrom(peer.Addr(), peer.Port()+1)},
		"another":                     {from: peer, original: peer},
		"the port's next owner":       {from: local, original: peer, accepted: returnTime},
	} {
		if got := s.returned(tt.from, tt.original, time.Now().Add(tt.accepted)); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	s.began = s.began.Add(-2 * s.every)
	s.add(call(t, fmt.Sprintf("127.0.0.1:%d", port)))
	if !s.returned(local, peer, time.Now()) {
		t.Error("forgotten at the first turn")
	}
	s.began = s.began.Add(-2 * s.every)
	s.add(call(t, fmt.Sprintf("127.0.0.1:%d", port)))
	if len(s.recent)+len(s.before) != 2 {
		t.Errorf("%d and %d are remembered", len(s.recent), len(s.before))
	}
}

// TestOriginalUnknown: what was not redirected is an ordinary connection.
func TestOriginalUnknown(t *testing.T) {
	port := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") })
	r := newRig(t, allow("http", port, "origin.test"), func(c *Config) {
		c.Listeners = []ListenerConfig{{Address: "127.0.0.1:0", Original: OriginalRedirect}}
	})
	r.resolver.set("origin.test", "127.0.0.1")
	if got := r.exchange(fmt.Sprintf("GET http://origin.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", port)); !strings.Contains(got, "here") {
		t.Errorf("%q", got)
	}
	if rec := r.events.ended(t, "origin.test"); rec.Original.IsValid() || rec.Listener.String() != r.addr {
		t.Errorf("original %s, listener %s", rec.Original, rec.Listener)
	}
	if _, err := New(Config{Listeners: []ListenerConfig{{Original: OriginalTProxy, ProxyProtocol: ProxyProtocolOptional}}}, r.deps); err == nil {
		t.Error("a listener is transparent and behind a balancer")
	}
}
