package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/logging/flow"
)

// tcpClose is TCP_CLOSE of the kernel's include/net/tcp_states.h: the state of
// a socket that was reset.
const tcpClose = 7

// tcpInfo is what is used of a socket's TCP_INFO (tcp(7)).
type tcpInfo struct {
	flow.TCP

	state        uint8
	received     uint64        // bytes, and one more for an end
	acked        uint64        // bytes sent, by the other end's word
	lastSent     time.Duration // since data was last sent to an end that acknowledges
	lastReceived time.Duration // since data was last received
}

// readTCPInfo asks the kernel about tcp. It reports false when it cannot: the
// socket is closed.
func readTCPInfo(tcp *net.TCPConn) (info tcpInfo, ok bool) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return tcpInfo{}, false
	}
	err = raw.Control(func(fd uintptr) { info, ok = tcpInfoOf(int(fd)) })
	return info, ok && err == nil
}

// tcpInfoOf is readTCPInfo of a descriptor.
func tcpInfoOf(fd int) (tcpInfo, bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return tcpInfo{}, false
	}
	return tcpInfo{
		TCP: flow.TCP{
			RTT:         time.Duration(info.Rtt) * time.Microsecond,
			MinRTT:      time.Duration(info.Min_rtt) * time.Microsecond,
			Retransmits: info.Total_retrans,
		},
		state:    info.State,
		received: info.Bytes_received,
		acked:    info.Bytes_acked,
		// What is sent again and again, into a path that swallows it, moves nothing.
		lastSent:     time.Duration(max(info.Last_data_sent, info.Last_ack_recv)) * time.Millisecond,
		lastReceived: time.Duration(info.Last_data_recv) * time.Millisecond,
	}, true
}
