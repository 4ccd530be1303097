package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OriginalDestination says whether a listener's connections were aimed at
// somebody else, and how their original destination is learned.
type OriginalDestination uint8

// The ways to learn an original destination. Whatever the way, a connection
// that was aimed at the listener itself is an ordinary explicit one.
const (
	OriginalNone OriginalDestination = iota // every connection is for the proxy
	// OriginalRedirect asks the kernel's NAT: REDIRECT of nftables or iptables on
	// this machine, or in this network namespace. It needs no capability.
	OriginalRedirect
	// OriginalTProxy takes packets with foreign addresses as they are (TPROXY).
	// To listen so takes CAP_NET_ADMIN.
	OriginalTProxy
)

// soOriginalDst is the option that tells what NAT has changed: SO_ORIGINAL_DST
// of IPv4 and IP6T_SO_ORIGINAL_DST of IPv6 have one number. An accepted socket
// keeps it for as long as the connection is tracked.
const soOriginalDst = 80

// originalOf returns where a connection that listener has accepted was aimed
// at, zero where that is the listener itself. own are this process's sockets.
func (o OriginalDestination) originalOf(tcp *net.TCPConn, own *self) netip.AddrPort {
	local := addrPortOf(tcp.LocalAddr())
	switch o {
	case OriginalTProxy:
		if !own.includes(local) {
			return local
		}
	case OriginalRedirect:
		// An error says that nothing is known of NAT, for one because nothing
		// tracks connections here: then nothing was redirected.
		if original, err := redirectedFrom(tcp); err == nil && original != local {
			return original
		}
	case OriginalNone:
	}
	return netip.AddrPort{}
}

// redirectedFrom returns the destination that a connection had before NAT,
// which is its local address where there was none.
func redirectedFrom(tcp *net.TCPConn) (netip.AddrPort, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	// A dual-stack socket asks for an IPv4 connection as an IPv4 socket does.
	ask := originalIPv4
	if local := tcp.LocalAddr().(*net.TCPAddr); local.IP.To4() == nil { //nolint:forcetypeassert // the network is tcp
		ask = originalIPv6
	}
	var original netip.AddrPort
	var failed error
	if err := raw.Control(func(fd uintptr) { original, failed = ask(int(fd)) }); err != nil {
		failed = err
	}
	if failed != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", failed)
	}
	return original, nil
}

// originalIPv4 reads a sockaddr_in. The option's own shape has no function, and
// this one's is large enough: the kernel writes 16 bytes of its 20.
func originalIPv4(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err //nolint:wrapcheck // the caller does
	}
	b := m.Multiaddr // family, port, address
	if family := binary.NativeEndian.Uint16(b[:]); family != unix.AF_INET {
		return netip.AddrPort{}, fmt.Errorf("an address of family %d", family)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), nil
}

// originalIPv6 reads a sockaddr_in6, with which the option's answer begins.
func originalIPv6(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err //nolint:wrapcheck // the caller does
	}
	if m.Addr.Family != unix.AF_INET6 {
		return netip.AddrPort{}, fmt.Errorf("an address of family %d", m.Addr.Family)
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], m.Addr.Port) // it is in network order as it stands
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr).Unmap(), binary.BigEndian.Uint16(port[:])), nil
}

// control prepares a listener's socket before it is bound.
func (o OriginalDestination) control(network, _ string, raw syscall.RawConn) error {
	if o != OriginalTProxy {
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		// One flag for both families, whichever option sets it; a socket of IPv6
		// alone knows IPv6's only.
		if failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); failed != nil && strings.HasSuffix(network, "6") {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		}
	})
	switch {
	case err != nil:
		return fmt.Errorf("original_destination: tproxy: %w", err)
	case errors.Is(failed, unix.EPERM):
		return fmt.Errorf("original_destination: tproxy needs the capability CAP_NET_ADMIN (redirect needs none): %w", failed)
	case failed != nil:
		return fmt.Errorf("original_destination: tproxy: IP_TRANSPARENT: %w", failed)
	}
	return nil
}
