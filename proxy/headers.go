package proxy

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop lists the header fields that concern one connection only (RFC
// 9110, section 7.6.1; RFC 2616, section 13.5.1 for the older ones), and the
// proxy's own credentials.
func hopByHop() [11]string {
	return [...]string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	}
}

// writeFields writes h in the order of the names, as net/http does, and without
// its copies. What would end a line becomes a space.
func writeFields(out *bytes.Buffer, h http.Header) {
	var room [32]string
	names := room[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		for _, value := range h[name] {
			out.WriteString(name)
			out.WriteString(": ")
			if strings.ContainsAny(value, "\r\n") {
				value = strings.NewReplacer("\r", " ", "\n", " ").Replace(value)
			}
			out.WriteString(strings.Trim(value, " \t\r\n"))
			out.WriteString("\r\n")
		}
	}
}

// stripHopByHop removes from h what must not pass: the fields that Connection
// names, and the fixed list. With websocket it keeps that upgrade, the only
// one that is carried; and always TE: trailers, without which gRPC-like
// origins send none.
func stripHopByHop(h http.Header, websocket bool) {
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	for _, field := range h["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop() {
		delete(h, name)
	}
	if websocket {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
	}
	if trailers {
		h.Set("Te", "trailers")
	}
}

// stripTrailers removes from a message's trailers what has no place there
// (RFC 9110, section 6.5.1): fields about framing, routing and credentials,
// which a careless reader would take for the head's.
func stripTrailers(h http.Header) {
	for name := range h {
		if !httpguts.ValidTrailerHeader(name) {
			delete(h, name)
		}
	}
	for _, name := range hopByHop() {
		delete(h, name)
	}
	stripForged(h)
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
	if _, ok := h["Proxy-Status"]; !ok {
		return
	}
	var kept []string
	for _, line := range h["Proxy-Status"] {
		members := slices.DeleteFunc(splitList(line), func(member string) bool {
			name, _, _ := strings.Cut(member, ";")
			return strings.EqualFold(strings.Trim(strings.TrimSpace(name), "\" \t"), proxyName)
		})
		if len(members) > 0 {
			kept = append(kept, strings.TrimSpace(strings.Join(members, ",")))
		}
	}
	if len(kept) == 0 {
		delete(h, "Proxy-Status")
		return
	}
	h["Proxy-Status"] = kept
}

// splitList cuts a list (RFC 9651, section 3.1) at the commas that stand
// outside of its strings. A string that does not end takes the rest along.
func splitList(s string) []string {
	var out []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}
