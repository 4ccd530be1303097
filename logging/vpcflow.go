package logging

import (
	"net/netip"
	"strconv"

	"github.com/sallyport/sallyport/logging/flow"
)

// AppendVPCFlow appends what an AWS VPC flow log of version 2 would say of e
// to dst, for tools that read such logs: nothing for an attempt that was
// opened; when it ended, one line for each direction that carried something,
// the client's always; one line with REJECT for a denied one.
//
//	version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status
//
// Addresses are the client's and the one dialled, or the one asked for where
// none was. "-" stands for what is not known: a destination of which only the
// name was learned, the interface, packets (the proxy sees none), the account
// where the calling task is not known. Bytes are those carried, without
// headers. Nothing else that a client wrote is in a line.
func AppendVPCFlow(dst []byte, e *flow.Event) []byte {
	r := &e.Record
	to, port := r.Peer.Addr(), r.Peer.Port()
	if !r.Peer.IsValid() {
		port = r.Port
		if a, err := netip.ParseAddr(r.Host); err == nil {
			to = a.WithZone("")
		}
	}
	from := r.Client
	switch e.Kind {
	case flow.Opened:
	case flow.Denied:
		dst = vpcLine(dst, r, from.Addr(), to, from.Port(), port, r.BytesSent, "REJECT")
	case flow.Closed:
		dst = vpcLine(dst, r, from.Addr(), to, from.Port(), port, r.BytesSent, "ACCEPT")
		if r.BytesReceived > 0 {
			dst = vpcLine(dst, r, to, from.Addr(), port, from.Port(), r.BytesReceived, "ACCEPT")
		}
	}
	return dst
}

func vpcLine(dst []byte, r *flow.Record, src, to netip.Addr, srcPort, toPort uint16, bytes int64, action string) []byte {
	account := "-"
	if r.Task != nil {
		if _, id := arnPlace(r.Task.ARN); id != "" {
			account = id
		}
	}
	protocol := 6
	if r.Datagram {
		protocol = 17
	}
	end := r.End
	if end.Before(r.Start) {
		end = r.Start
	}
	dst = append(dst, "2 "+account+" - "...)
	dst = append(vpcAddr(dst, src), ' ')
	dst = append(vpcAddr(dst, to), ' ')
	for _, n := range []int64{int64(srcPort), int64(toPort), int64(protocol)} {
		dst = append(strconv.AppendInt(dst, n, 10), ' ')
	}
	dst = append(dst, "- "...)
	for _, n := range []int64{max(bytes, 0), r.Start.Unix(), end.Unix()} {
		dst = append(strconv.AppendInt(dst, n, 10), ' ')
	}
	return append(dst, action+" OK\n"...)
}

func vpcAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(dst, '-')
	}
	return a.Unmap().WithZone("").AppendTo(dst)
}
