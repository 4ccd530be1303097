package proxy

import (
	"encoding/xml"
	"net/http"
	"strings"
)

// s3Error is an error as S3 words it, which every S3 client can show its user.
type s3Error struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Resource  string `xml:",omitempty"`
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`
}

// keepLength makes a Content-Length of 0 go out as it came in: it may be signed,
// and the transport leaves it out of requests that have no need of it.
func keepLength(r *http.Request) {
	switch r.Method {
	case http.MethodPut, http.MethodPost, http.MethodPatch:
		return // the transport sends it
	}
	if r.Body == http.NoBody && len(r.Header["Content-Length"]) > 0 {
		r.Header["content-length"] = []string{"0"} // by its own name the transport drops it
	}
}

// stripS3Trailers removes from a request's trailers what a reader that takes
// them for fields of the head would obey: the head was judged without them.
func stripS3Trailers(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "X-Amz-") && !strings.HasPrefix(name, "X-Amz-Checksum-") {
			delete(h, name)
		}
	}
}

// spellAsS3 gives S3's own fields the case in which S3 sends them, which
// net/http changed: SDKs take the names of an object's metadata from it.
func spellAsS3(h http.Header) {
	for name, values := range h {
		if strings.HasPrefix(name, "X-Amz-") {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
}

// answerFor words r for the client of h.
func (h *httpConn) answerFor(a *attempt, r *refusal) answer {
	if h.inspected != nil {
		return answerS3(a, r)
	}
	return answerFor(a, r)
}

// answerS3 words r for an S3 client: answerFor's text as the message, and the
// flow's ID where S3 has its request's.
func answerS3(a *attempt, r *refusal) answer {
	ans := answerFor(a, r)
	body, err := xml.Marshal(s3Error{
		Code: s3Code(ans.status), Message: strings.Join(strings.Split(strings.TrimSpace(ans.body), "\n"), "; "),
		Resource: a.rec.S3.Bucket, RequestID: a.rec.ID, HostID: proxyName,
	})
	if err != nil {
		return ans // it cannot fail: all are strings
	}
	ans.header.Set("Content-Type", "application/xml")
	ans.header.Set("X-Amz-Request-Id", a.rec.ID)
	ans.header.Set("X-Amz-Id-2", proxyName)
	ans.body = xml.Header + string(body)
	return ans
}

// s3Code is the error code that goes with a status: the ones that clients
// retry, where to try again may help.
func s3Code(status int) string {
	switch status {
	case http.StatusForbidden:
		return "AccessDenied"
	case http.StatusBadRequest:
		return "InvalidRequest"
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return "SlowDown"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return "ServiceUnavailable"
	}
	return "InternalError"
}
