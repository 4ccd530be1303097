package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"github.com/sallyport/sallyport/policy"
)

// ProxyProtocol says whether connections begin with a header that tells who is
// behind a load balancer (the PROXY protocol, versions 1 and 2).
type ProxyProtocol uint8 //nolint:revive // that is the name of the protocol

// The ways to take PROXY headers. Whatever the way, only those are believed that
// come from [ListenerConfig.ProxyFrom].
const (
	ProxyProtocolNone     ProxyProtocol = iota // none is expected, and none understood
	ProxyProtocolOptional                      // one is read where there is one
	ProxyProtocolRequired                      // who sends none is refused
)

// Bounds and marks of a header. The protocol's version 1 fits 107 bytes with
// its line feed (section 2.1); version 2 could take 64 KiB, and what balancers
// send takes less than 200 bytes.
const (
	proxyHeaderV1    = 107
	proxyHeaderBytes = 2 << 10
	proxyHeaderV2    = 16 // before addresses and TLVs
	maxEndpointID    = 255
	proxySignatureV1 = "PROXY "
	proxySignatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

var (
	errNoProxyHeader = errors.New("the listener requires a PROXY header, and the connection begins with something else")
	errUntrusted     = errors.New("the listener requires a PROXY header, and takes none from this address: it is not in proxy_from")
)

// behind is who is behind a connection, as its PROXY header says.
type behind struct {
	remote      netip.AddrPort // zero: the sender itself (LOCAL, UNKNOWN)
	vpcEndpoint string         // "" for none
}

// readProxyHeader reads the connection's PROXY header, where its listener has
// them, and then the bytes behind it, none if the client sends none in time.
// buf is read into and returned in part.
func (c *conn) readProxyHeader(buf []byte) (first []byte, err error) {
	l := c.listener
	trusted := l.trusts(c.remote.Addr())
	if l.ProxyProtocol == ProxyProtocolRequired && !trusted {
		return nil, errUntrusted
	}
	first = c.sniff(buf)
	if l.ProxyProtocol == ProxyProtocolNone || !trusted || len(first) == 0 {
		return first, nil
	}
	n, err := c.fillHeader(buf, len(first))
	if err != nil {
		return nil, err
	}
	if n.header == 0 {
		if l.ProxyProtocol == ProxyProtocolRequired {
			return nil, errNoProxyHeader
		}
		c.count(callerOf(c.source)) // no balancer, or one for itself
		return buf[:n.taken], nil
	}
	b, err := parseProxyHeader(buf[:n.header])
	if err == nil {
		err = b.credible(c.remote.Addr())
	}
	if err != nil {
		return nil, err
	}
	c.s.callers.headers.Add(1)
	c.stand(b)
	if rest := buf[n.header:n.taken]; len(rest) > 0 {
		return rest, nil
	}
	return c.sniff(buf), nil
}

// headerLengths tell how much of a buffer is a header's, and how much is
// filled.
type headerLengths struct{ header, taken int }

// fillHeader reads on until the header that begins buf is complete, or it is
// plain that none does: header is 0 then.
func (c *conn) fillHeader(buf []byte, taken int) (headerLengths, error) {
	for {
		header, complete, err := proxyHeaderLength(buf[:taken])
		if err != nil || complete || header < 0 {
			return headerLengths{max(header, 0), taken}, err
		}
		n, err := c.tcp.Read(buf[taken:])
		if taken += n; n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return headerLengths{}, fmt.Errorf("%d bytes of a PROXY header, then %w", taken, err)
		}
	}
}

// proxyHeaderLength returns how long the header is that p begins with, -1 when
// it begins with none. It is complete when p holds all of it.
func proxyHeaderLength(p []byte) (length int, complete bool, err error) {
	switch {
	case begins(p, proxySignatureV1):
		end := bytes.Index(p[:min(len(p), proxyHeaderV1)], []byte("\r\n"))
		if end < 0 && len(p) >= proxyHeaderV1 {
			return 0, false, fmt.Errorf("a PROXY header of version 1 does not end within %d bytes", proxyHeaderV1)
		}
		return end + 2, end >= 0, nil
	case begins(p, proxySignatureV2):
		if len(p) < proxyHeaderV2 {
			return 0, false, nil
		}
		length = proxyHeaderV2 + int(binary.BigEndian.Uint16(p[14:]))
		if length > proxyHeaderBytes {
			return 0, false, fmt.Errorf("a PROXY header of %d bytes, and %d are the most", length, proxyHeaderBytes)
		}
		return length, len(p) >= length, nil
	}
	return -1, false, nil
}

// begins reports whether p begins with mark, or could when more of it is here.
func begins(p []byte, mark string) bool {
	n := min(len(p), len(mark))
	return string(p[:n]) == mark[:n]
}

// parseProxyHeader reads a whole header and nothing else.
func parseProxyHeader(p []byte) (behind, error) {
	r := bufio.NewReader(bytes.NewReader(p))
	h, err := proxyproto.Read(r)
	if err != nil {
		return behind{}, fmt.Errorf("the PROXY header: %w", err)
	}
	if r.Buffered() > 0 {
		return behind{}, errors.New("the PROXY header is shorter than it says")
	}
	var b behind
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return b, nil
	}
	source, _, ok := h.TCPAddrs()
	if !ok {
		return behind{}, errors.New("the PROXY header is not about a TCP connection")
	}
	ap := source.AddrPort()
	b.remote = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	if !b.remote.Addr().IsValid() || b.remote.Addr().IsUnspecified() {
		return behind{}, errors.New("the PROXY header names no address")
	}
	tlvs, err := h.TLVs()
	if err != nil {
		return behind{}, fmt.Errorf("the PROXY header's extensions: %w", err)
	}
	if b.vpcEndpoint, err = endpointOf(tlvs); err != nil {
		return behind{}, fmt.Errorf("the PROXY header's VPC endpoint: %w", err)
	}
	return b, nil
}

// endpointOf returns the VPC endpoint's ID in a header's extensions, "" where
// there is none. One that cannot be read is not none: who comes through an
// endpoint must not pass for somebody who comes directly, from an address that
// several VPCs have.
func endpointOf(tlvs []proxyproto.TLV) (string, error) {
	found := ""
	for _, tlv := range tlvs {
		if !tlvparse.IsAWSVPCEndpointID(tlv) {
			continue
		}
		id, err := tlvparse.AWSVPCEndpointID(tlv)
		switch {
		case err != nil:
			return "", err //nolint:wrapcheck // the caller does
		case len(id) > maxEndpointID:
			return "", fmt.Errorf("%d bytes, and %d are the most", len(id), maxEndpointID)
		case found != "" && id != found:
			return "", errors.New("there are two")
		}
		found = id
	}
	return found, nil
}

// credible refuses what no connection to a balancer elsewhere can have come from.
// This machine's loopback means this task to whoever identifies callers, and the
// balancer's is its own.
func (b behind) credible(sender netip.Addr) error {
	switch addr := b.remote.Addr(); {
	case addr.IsLoopback() && !sender.IsLoopback():
		return fmt.Errorf("the PROXY header of %s names %s, which is the balancer's own loopback", sender, addr)
	case addr.IsMulticast():
		return fmt.Errorf("the PROXY header names %s, from which nobody calls", addr)
	}
	return nil
}

// trusts reports whether PROXY headers from addr are believed.
func (l *ListenerConfig) trusts(addr netip.Addr) bool {
	for _, p := range l.ProxyFrom {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// stand makes b the connection's client: in records, in decisions, and for
// the limits, which until here have counted the balancer.
func (c *conn) stand(b behind) {
	if b.remote.IsValid() {
		c.remote = b.remote
	}
	c.source = policy.Source{Addr: c.remote.Addr(), VPCEndpoint: b.vpcEndpoint}
	if b.remote.IsValid() {
		c.count(callerOf(c.source))
	}
}

// count makes the connection count for a source from now on.
func (c *conn) count(source caller) {
	c.over = c.s.admission.move(c.counted, source, c.over)
	c.counted = source
}
