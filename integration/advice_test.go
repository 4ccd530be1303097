package integration

import (
	"strings"
	"syscall"
	"testing"
)

// TestAdvice: what the policy asks for and nobody can know is said in the log
// and by /readyz, and so is a balancer that sends no PROXY headers.
func TestAdvice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.serve(perService, setting("listeners", []any{map[string]any{
		"address": "127.0.0.1:0", "proxy_protocol": "required", "proxy_from": []any{"192.0.2.0/24"},
	}}), setting("reload.every", "0s"))
	r.awaitLog(`the source \"payments\" asks for ecs, and no caller's task is known`)
	if !strings.Contains(r.readyz(), "asks for ecs") {
		t.Errorf("/readyz says %s", r.readyz())
	}
	forge(t, "127.0.0.1", r.addr)
	r.denied("", "unknown", "unknown_source")
	if got := r.metric("sallyport_connections_without_proxy_header_total"); got != "1" {
		t.Errorf("%s are counted", got)
	}
	if !strings.Contains(r.readyz(), "1 connections were refused because they came without a PROXY header") {
		t.Errorf("/readyz says %s", r.readyz())
	}
	r.signal(syscall.SIGHUP)
	r.awaitLog("proxy_protocol_v2.enabled")
	r.writePolicy("  - {name: all, hosts: [all.example.test]}\n")
	r.signal(syscall.SIGHUP)
	r.awaitLog("policy reloaded")
	if strings.Contains(r.readyz(), "asks for ecs") {
		t.Errorf("/readyz says %s", r.readyz())
	}
}
