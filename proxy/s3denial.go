package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// A bucket that is denied by its host's name is denied before there is TLS,
// and S3's clients make nothing of a refused CONNECT or an alert: "failed to
// connect to proxy". Where the caller's TLS to that endpoint is inspected, they
// are told inside it, as S3 would tell them. Nothing is looked up or dialled.

// insideHead bounds the request that is answered so.
const insideHead = maxHeaderBytes

// tellsInside reports whether r, the refusal of a, can be told inside TLS.
func (a *attempt) tellsInside(r *refusal) bool {
	d := &a.decision
	return d.Inside && d.Verdict == policy.Deny && r.outcome == flow.Outcome(d.Reason) && a.s.inspection != nil
}

// denyConnectInside denies a CONNECT inside the TLS that it is for, and reports
// whether it could.
func (f *front) denyConnectInside(w http.ResponseWriter, h *httpConn, a *attempt, r *refusal) bool {
	tw, ok := w.(*tunnelWriter)
	if !ok || tw.given || !a.tellsInside(r) {
		return false
	}
	c, first := h.c, tw.early
	tw.given = true
	defer c.release()
	a.rec.HTTP.Status = http.StatusForbidden
	a.refuse(r) // here and once: whatever the client does now, it is denied
	if _, err := io.WriteString(c.tcp, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return true
	}
	if len(first) == 0 {
		n, err := c.tcp.Read(h.scratch) // the deadline is the sniff's
		if err != nil {
			return true
		}
		first = h.scratch[:n]
	}
	hello, err := readHello(c.tcp, first)
	if err == nil && hello.serverName == a.query.Host {
		c.tellInside(a, hello.raw, r)
	}
	return true
}

// tellInside ends the TLS that begins with hello and answers the request within
// by r, a denial that is on record.
func (c *conn) tellInside(a *attempt, hello []byte, r *refusal) {
	i := &inspected{inspection: c.s.inspection, front: c.s.front, host: a.query.Host}
	tcp, err := c.dress()
	if err != nil {
		return
	}
	inner := tls.Server(&replayed{TCPConn: tcp, first: bytes.Clone(hello)}, i.server())
	if i.handshake(inner) != nil || inner.SetDeadline(time.Now().Add(c.s.cfg.Timeouts.Hello)) != nil {
		return
	}
	request, err := http.ReadRequest(bufio.NewReader(io.LimitReader(inner, insideHead)))
	if err != nil {
		return
	}
	ans := answerS3(a, r)
	resp := http.Response{
		StatusCode: ans.status, ProtoMajor: 1, ProtoMinor: 1, Header: ans.header, Request: request, Close: true,
		ContentLength: int64(len(ans.body)), Body: io.NopCloser(strings.NewReader(ans.body)),
	}
	if resp.Write(inner) != nil || inner.CloseWrite() != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, inner, maxLinger) // else a client that still sends is reset before it has read
}
