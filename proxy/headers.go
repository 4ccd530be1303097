package proxy

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop lists the header fields that concern one connection only (RFC
// 9110, section 7.6.1; RFC 2616, section 13.5.1 for the older ones), and the
// proxy's own credentials.
func hopByHop() []string {
	return []string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	}
}

// stripHopByHop removes from h what must not pass: the fields that Connection
// names, and the fixed list. It keeps a WebSocket upgrade, the only one that
// is carried, and TE: trailers, without which gRPC-like origins send none.
func stripHopByHop(h http.Header) {
	websocket := isWebSocket(h)
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	for _, field := range h["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop() {
		h.Del(name)
	}
	if websocket {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
	}
	if trailers {
		h.Set("Te", "trailers")
	}
}

// isWebSocket reports whether h asks for, or grants, an upgrade to WebSocket
// and to nothing else (RFC 6455, section 4).
func isWebSocket(h http.Header) bool {
	up := h["Upgrade"]
	return len(up) == 1 && strings.EqualFold(strings.TrimSpace(up[0]), "websocket") &&
		httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade")
}

// stripForged removes Proxy-Status members in which an origin speaks in this
// proxy's name; those of other proxies on the way stay (RFC 9209, section 2).
func stripForged(h http.Header) {
	var kept []string
	for _, v := range h["Proxy-Status"] {
		if !strings.Contains(strings.ToLower(v), proxyName) {
			kept = append(kept, v)
		}
	}
	if len(kept) == 0 {
		h.Del("Proxy-Status")
		return
	}
	h["Proxy-Status"] = kept
}
