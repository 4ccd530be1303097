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
