package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy"
)

func TestUnmet(t *testing.T) {
	p, err := policy.Load(policy.Text{Name: "p.yaml", Data: []byte(`
version: 1
sources:
  - {name: a, ecs: {cluster: prod}}
  - {name: b, ecs: {cluster: test}, principals: [x]}
  - {name: c, vpc_endpoints: [vpce-0123456789abcdef0]}
  - {name: d, cidrs: [10.0.0.0/8]}
rules:
  - {name: r, hosts: [a.test], sources: [a, b, c, d]}
`)})
	if err != nil {
		t.Fatal(err)
	}
	if all := unmet(p, map[string]bool{"ecs": true, "principals": true, "vpc_endpoints": true}); len(all) != 0 {
		t.Errorf("%q", all)
	}
	all := unmet(p, nil)
	if len(all) != 3 {
		t.Fatalf("%q", all)
	}
	for i, want := range []string{`p.yaml:4:5: the source "a" asks for ecs, as do 1 more, and`, `the source "b" asks for principals, and`, `the source "c" asks for vpc_endpoints, and`} {
		if !strings.Contains(all[i], want) {
			t.Errorf("%q is not in %q", want, all[i])
		}
	}
	if unmet(nil, nil) != nil {
		t.Error("no policy asks for something")
	}
}

func TestAlike(t *testing.T) {
	now := time.Now()
	c := proxy.Callers{Connections: alikeConnections, Addr: netip.MustParseAddr("10.0.0.7"), Since: now.Add(-alikeTime)}
	if text := alike(c, now); !strings.Contains(text, "all of 100 connections come from 10.0.0.7") {
		t.Errorf("%q", text)
	}
	for name, change := range map[string]func(*proxy.Callers){
		"several callers": func(c *proxy.Callers) { c.Addr = netip.Addr{} },
		"a sidecar":       func(c *proxy.Callers) { c.Addr = netip.MustParseAddr("127.0.0.1") },
		"PROXY headers":   func(c *proxy.Callers) { c.Headers = 1 },
		"few":             func(c *proxy.Callers) { c.Connections-- },
		"just begun":      func(c *proxy.Callers) { c.Since = now },
	} {
		other := c
		change(&other)
		if text := alike(other, now); text != "" {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func TestAdviceIsGivenOnce(t *testing.T) {
	var log bytes.Buffer
	texts := []string{"3 were refused"}
	a := &advice{log: zerolog.New(&log), look: func() []string { return texts }}
	a.say()
	texts = []string{"4 were refused"}
	a.say()
	if n := strings.Count(log.String(), "refused"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if c := a.checks(); len(c) != 1 || !c[0].OK || !strings.Contains(c[0].Detail, "4 were") {
		t.Errorf("%+v", c)
	}
	a.forget()
	a.say()
	if n := strings.Count(log.String(), "refused"); n != 2 {
		t.Errorf("not said again: %s", log.String())
	}
	if texts = nil; a.checks() != nil {
		t.Error("nothing to say, and said")
	}
}
