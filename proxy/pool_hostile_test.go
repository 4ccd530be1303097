package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// TestHostilePoolOfOthers: a caller whom a deny rule keeps from an address does
// not ride there on a connection that was opened, by the same rule, for a caller
// whom it does not.
func TestHostilePoolOfOthers(t *testing.T) {
	const doc = "version: 1\nsources:\n  - {name: strangers, cidrs: [127.0.0.3/32]}\nrules:\n" +
		"  - {name: web, hosts: [web.test], ports: [%[1]d], protocol: http, resolves_to: [127.0.0.0/8]}\n" +
		"  - {name: apart, action: deny, cidrs: [127.0.0.1/32], ports: [%[1]d], protocol: http, sources: [strangers]}\n"
	for _, request := range []string{
		"GET http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",                                                   // plain
		"OPTIONS http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",                          // net/http's
		"POST http://web.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", // with a body that cannot be sent again
	} {
		method, _, _ := strings.Cut(request, " ")
		t.Run(method, func(t *testing.T) {
			var requests atomic.Int64
			port := httpOrigin(t, func(http.ResponseWriter, *http.Request) { requests.Add(1) })
			r := newRig(t, fmt.Sprintf(doc, port))
			r.resolver.set("web.test", "127.0.0.1")
			askFrom := func(source string) string {
				t.Helper()
				return r.exchangeFrom(source, fmt.Sprintf(request, port))
			}
			for range 2 {
				if got := askFrom("127.0.0.2"); !strings.HasPrefix(got, "HTTP/1.1 200") {
					t.Fatalf("who may: %q", got)
				}
				before := requests.Load()
				if got := askFrom("127.0.0.3"); !strings.HasPrefix(got, "HTTP/1.1 403") {
					t.Errorf("who may not: %q", got)
				}
				if n := requests.Load(); n != before {
					t.Errorf("the origin has had %d requests of who may not", n-before)
				}
			}
			rec := r.events.wait(t, "a denial", func(e flow.Event) bool { return e.Kind == flow.Denied })
			if rec.Rule != "apart" || rec.Reason != policy.ReasonDenyRule {
				t.Errorf("record %+v", rec)
			}
		})
	}
}
