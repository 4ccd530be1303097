package resolve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// maxForeign is how many replies that do not fit one socket may receive
// before the question goes over TCP: nobody guesses twice in good faith.
const maxForeign = 4

// errForeign says that a socket received too many replies that do not fit.
var errForeign = errors.New("replies that do not fit the question")

// wire puts questions on the network. It is stateless but for its counters.
type wire struct{ stats *counters }

// exchange asks one server once. ctx bounds it and should have a deadline. The
// error is a *failure without a server's name.
func (w wire) exchange(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	m, err := w.ask(ctx, server, q, true)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		// A server from before EDNS (RFC 6891, section 7).
		m, err = w.ask(ctx, server, q, false)
	}
	if err == nil {
		return m, nil
	}
	var timeout net.Error
	if ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout() {
		return nil, &failure{kind: timedOut}
	}
	return nil, &failure{kind: unreachable, text: err.Error()}
}

// ask asks over UDP, and over TCP when the answer does not fit or the socket
// is being lied to.
func (w wire) ask(ctx context.Context, server netip.AddrPort, q question, edns bool) (*dns.Msg, error) {
	m, err := w.roundTrip(ctx, "udp", server, q, edns)
	if err == nil && !m.Truncated {
		return m, nil
	}
	if err != nil && !errors.Is(err, errForeign) {
		return nil, err
	}
	w.stats.tcp.Add(1)
	return w.roundTrip(ctx, "tcp", server, q, edns)
}

// roundTrip sends one question from a new socket and waits for its reply. The
// socket's port is the kernel's random choice, and a connected socket hears
// nobody but the server.
func (w wire) roundTrip(ctx context.Context, network string, server netip.AddrPort, q question, edns bool) (*dns.Msg, error) {
	w.stats.queries.Add(1)
	var random [2]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	id := binary.BigEndian.Uint16(random[:])
	query, err := newQuery(q, id, edns)
	if err != nil {
		return nil, fmt.Errorf("packing the question: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // read to the end, or useless
	defer interrupt(ctx, conn)()
	if network == "tcp" {
		return w.stream(conn, query, q, id)
	}
	return w.datagrams(conn, query, q, id)
}

// interrupt makes reads and writes of conn fail when ctx ends. The function
// returned undoes it and leaves nothing running.
func interrupt(ctx context.Context, conn net.Conn) (undo func()) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails on a closed socket only; then so does the next read
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

func (w wire) datagrams(conn net.Conn, query []byte, q question, id uint16) (*dns.Msg, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096) // more than was offered: some servers do not count well
	for range maxForeign {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if m, ok := readReply(buf[:n], q, id); ok {
			return m, nil
		}
		w.stats.foreign.Add(1)
	}
	return nil, errForeign
}

func (w wire) stream(conn net.Conn, query []byte, q question, id uint16) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query)))
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, fmt.Errorf("reading the answer over TCP: %w", err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, fmt.Errorf("reading the answer over TCP: %w", err)
	}
	m, ok := readReply(buf, q, id)
	if !ok || m.Truncated {
		w.stats.foreign.Add(1)
		return nil, errForeign
	}
	return m, nil
}
