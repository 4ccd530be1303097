package proxy

import (
	"bytes"
	"net/http"
	"net/url"
	"strconv"
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
	hosts := 0
	r.Header = readFields(fields, func(name, value string) fate {
		switch name {
		case "Host":
			if r.Host == "" {
				r.Host = value
			}
			if hosts++; hosts > 1 || !httpguts.ValidHostHeader(value) {
				return unlike
			}
			return dropped
		case "Connection":
			return connectionField(value, &r.Close)
		case "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Pragma":
			return unlike // framing, other protocols, and what net/http adds to
		}
		return passed
	})
	if r.Header == nil || hosts != 1 {
		return nil
	}
	return r
}

// readPlainAnswer reads the head of a plain response to r: one that says its
// length in bytes, and whose head is the beginning of b. It returns how long
// the head is too, or nil for whatever else b may hold: as with requests,
// net/http reads that, and they read the same.
func readPlainAnswer(b []byte, r *http.Request) (*http.Response, int) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || r.Method != http.MethodGet {
		return nil, 0
	}
	line, fields, _ := strings.Cut(string(b[:end+len("\r\n")]), "\r\n")
	status, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	digits, _, _ := strings.Cut(status, " ")
	code, err := strconv.ParseUint(digits, 10, 16)
	if !ok || !httpguts.ValidHeaderFieldValue(status) || len(digits) != 3 || err != nil || code < http.StatusOK || code == http.StatusNoContent || code == http.StatusNotModified {
		return nil, 0
	}
	resp := &http.Response{
		Status: status, StatusCode: int(code), Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
	}
	resp.Header = readFields(fields, func(name, value string) fate {
		switch name {
		case "Content-Length":
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil || resp.ContentLength >= 0 {
				return unlike
			}
			resp.ContentLength = int64(n)
		case "Connection":
			return connectionField(value, &resp.Close)
		case "Transfer-Encoding", "Trailer", "Pragma":
			return unlike
		}
		return passed
	})
	if resp.Header == nil || resp.ContentLength < 0 {
		return nil, 0
	}
	if resp.Close {
		delete(resp.Header, "Connection")
	}
	return resp, end + len("\r\n\r\n")
}

// fate is what becomes of a field.
type fate uint8

const (
	passed  fate = iota
	dropped      // it is not among the fields any more
	unlike       // a plain head does not have it
)

// connectionField judges a Connection field: only of whether the connection
// goes on may it speak.
func connectionField(value string, last *bool) fate {
	switch {
	case strings.EqualFold(value, "close"):
		*last = true
	case !strings.EqualFold(value, "keep-alive"):
		return unlike
	}
	return passed
}

// readFields reads fields, a line each, and returns nil when judge finds one
// unlike a plain head's, or when they are not well-formed.
func readFields(fields string, judge func(name, value string) fate) http.Header {
	n := strings.Count(fields, "\r\n")
	if n > maxHeadFields {
		return nil
	}
	header := make(http.Header, n)
	values := make([]string, n) // cut up, one value each in nearly every case
	for fields != "" {
		var line string
		line, fields, _ = strings.Cut(fields, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil
		}
		name = http.CanonicalHeaderKey(name)
		switch judge(name, value) {
		case unlike:
			return nil
		case dropped:
			continue
		case passed:
		}
		if header[name] == nil {
			values[0] = value
			header[name], values = values[:1:1], values[1:]
		} else {
			header[name] = append(header[name], value)
		}
	}
	return header
}
