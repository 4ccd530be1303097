package proxy

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// readPlain reads a plain request: GET or HEAD in HTTP/1.1, without a body and
// without anything that asks for more than an answer, which is the whole of b.
// It returns nil for whatever else b may hold, which net/http then reads from
// its first byte on, and refuses where that is due. So it may be as narrow as
// it likes, but what it takes it must read as net/http does: no request has
// two readings.
func readPlain(b []byte) *http.Request {
	if !bytes.HasPrefix(b, []byte("GET ")) && !bytes.HasPrefix(b, []byte("HEAD ")) || !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
		return nil
	}
	line, fields, _ := strings.Cut(string(b[:len(b)-len("\r\n")]), "\r\n")
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if version != "HTTP/1.1" {
		return nil
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	r := &http.Request{
		Method: method, URL: u, RequestURI: target, Host: u.Host,
		Proto: version, ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}
	if !readPlainFields(r, fields) {
		return nil
	}
	return r
}

// readPlainFields reads the fields of a plain request, a line each, and
// reports false when it is not plain.
func readPlainFields(r *http.Request, fields string) bool {
	n := strings.Count(fields, "\r\n")
	if n > maxHeadFields {
		return false
	}
	r.Header = make(http.Header, n)
	values := make([]string, n) // cut up, one value each in nearly every case
	hosts := 0
	for fields != "" {
		var line string
		line, fields, _ = strings.Cut(fields, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return false
		}
		switch name = http.CanonicalHeaderKey(name); name {
		case "Host":
			if hosts++; hosts > 1 || !httpguts.ValidHostHeader(value) {
				return false
			}
			if r.Host == "" {
				r.Host = value
			}
			continue
		case "Connection":
			if strings.EqualFold(value, "close") {
				r.Close = true
			} else if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Pragma":
			return false // framing, other protocols, and what net/http adds to
		}
		if r.Header[name] == nil {
			values[0] = value
			r.Header[name], values = values[:1:1], values[1:]
		} else {
			r.Header[name] = append(r.Header[name], value)
		}
	}
	return hosts == 1
}
