package steer

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport/sallyport/policy"
)

// TestHostileStrangers: one whom nobody knows, and about whom AWS is asked, does
// not keep out those who are known, however often it asks.
func TestHostileStrangers(t *testing.T) {
	const questions = 64
	asked, release := make(chan struct{}, questions), make(chan struct{})
	s, _ := newServer(t, func(c *Config, d *Deps) {
		c.Questions, c.Patience = questions, patience
		d.Identifier = identify(func(_ context.Context, src policy.Source) policy.Source {
			if src.Addr == addrs("127.0.0.66")[0] {
				asked <- struct{}{}
				<-release
			}
			return src
		})
	})
	start(t, s)
	defer close(release)
	c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 66)}}).DialContext(t.Context(), "udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wire, err := query("site.test", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range questions {
		if _, err := c.Write(wire); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); len(asked)+int(s.Stats().Dropped) < questions; {
		if time.Now().After(deadline) {
			t.Fatalf("%d are asked about, %+v", len(asked), s.Stats())
		}
		pause(t.Context(), time.Millisecond)
	}
	if m := exchange(t, "udp", s.Addr().String(), query("site.test", dns.TypeA)); len(m.Answer) == 0 {
		t.Errorf("got %s", m)
	}
}
