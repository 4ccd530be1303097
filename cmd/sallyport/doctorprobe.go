package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// road is a way out that is tried.
type road struct {
	network string // tcp or udp
	port    uint16
}

func (r road) String() string { return r.network + " " + uitoa(r.port) }

// roads are the ways out that programs and intruders try first.
func roads() []road {
	return []road{{"tcp", 443}, {"tcp", 80}, {"tcp", 53}, {"udp", 53}, {"udp", 443}}
}

// response is how a destination, or whoever stands before it, took a probe.
type response int

// The responses, in no order.
const (
	silent      response = iota // nothing came back in time
	unroutable                  // this task has no route or no address for it
	unreachable                 // somebody, or the kernel, says that it may not or cannot be reached
	refused                     // RST, or ICMP port unreachable
	connected                   // a TCP handshake was completed, and nothing said
	answered                    // it spoke
	intercepted                 // a Sallyport spoke in its place
	broken                      // the probe itself failed
)

// attempt is a probe and its response.
type attempt struct {
	road
	to     netip.AddrPort
	nobody bool // nobody is there: who responds stands in between
	got    response
	detail string // what it said, or what went wrong
	host   string // the target's, where it is one
}

// prober sends probes, each bounded in time.
type prober struct {
	timeout  time.Duration
	resolver *net.Resolver
}

// direct tries every road to every address, at once.
func (p *prober) direct(ctx context.Context, outside, nobody []netip.Addr) []attempt {
	var all []attempt
	for _, r := range roads() {
		for _, addr := range nobody {
			all = append(all, attempt{road: r, to: netip.AddrPortFrom(addr, r.port), nobody: true})
		}
		for _, addr := range outside {
			all = append(all, attempt{road: r, to: netip.AddrPortFrom(addr, r.port)})
		}
	}
	p.tryAll(ctx, all)
	return all
}

// targets tries the targets' own addresses.
func (p *prober) targets(ctx context.Context, targets []target) []attempt {
	var all []attempt
	for _, t := range targets {
		for _, addr := range p.lookup(ctx, t.host) {
			if len(all) < 2*maxDoctorTargets {
				all = append(all, attempt{road: road{"tcp", t.port}, to: netip.AddrPortFrom(addr, t.port), host: t.String()})
			}
		}
	}
	p.tryAll(ctx, all)
	return all
}

func (p *prober) tryAll(ctx context.Context, all []attempt) {
	var tries sync.WaitGroup
	for i := range all {
		tries.Go(func() {
			a := &all[i]
			switch {
			case a.network == "tcp":
				a.got, a.detail = p.tcp(ctx, a.to)
			case a.port == 53:
				q := dnsQuestion(outsideName)
				a.got, a.detail = p.udp(ctx, a.to, q, func(reply []byte) string { return dnsText(q, reply) })
			default:
				q := quicProbe()
				a.got, a.detail = p.udp(ctx, a.to, q, func(reply []byte) string { return quicText(q, reply) })
			}
		})
	}
	tries.Wait()
}

func dnsText(question, reply []byte) string {
	if r, ok := parseDNSReply(question, reply); ok {
		return "answers DNS, " + r.codeText()
	}
	return "answers"
}

func quicText(probe, reply []byte) string {
	if isVersionNegotiation(probe, reply) {
		return "answers QUIC"
	}
	return "answers"
}

// tcp connects, and listens to who is there. A Sallyport that was put in the
// way tells of itself over HTTP on any port.
func (p *prober) tcp(ctx context.Context, to netip.AddrPort) (response, string) {
	got, detail := silent, ""
	if to.Port() == 53 {
		if got, detail = p.dnsTCP(ctx, to); got != connected {
			return got, detail
		}
	}
	conn, err := p.dial(ctx, "tcp", to.String())
	if err != nil {
		if got == connected {
			return got, detail
		}
		return responseOf(err)
	}
	defer conn.Close() //nolint:errcheck // there is nothing left to lose
	status, text := helloHTTP(conn)
	switch {
	case status.ours:
		return intercepted, "a Sallyport answers in its place"
	case text != "":
		return answered, "answers " + text
	}
	return connected, "takes connections"
}

// helloHTTP asks for nothing over HTTP, and returns who answered.
func helloHTTP(conn net.Conn) (proxyStatus, string) {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+probeName+"\r\nConnection: close\r\n\r\n"); err != nil {
		return proxyStatus{}, ""
	}
	in := bufio.NewReader(io.LimitReader(conn, 16<<10))
	if _, err := in.Peek(1); err != nil {
		return proxyStatus{}, ""
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return proxyStatus{}, "in another protocol than HTTP"
	}
	defer resp.Body.Close()
	return parseProxyStatus(resp.Header), "HTTP " + strconv.Itoa(resp.StatusCode)
}

func (p *prober) dnsTCP(ctx context.Context, to netip.AddrPort) (response, string) {
	conn, err := p.dial(ctx, "tcp", to.String())
	if err != nil {
		return responseOf(err)
	}
	defer conn.Close() //nolint:errcheck // there is nothing left to lose
	q := dnsQuestion(outsideName)
	if _, err := conn.Write(slices.Concat(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q)); err == nil {
		reply := make([]byte, 4<<10)
		if n, err := io.ReadAtLeast(conn, reply, 14); err == nil {
			return answered, dnsText(q, reply[2:n])
		}
	}
	return connected, "takes connections"
}

// udp sends packet, and once more, and waits for a reply.
func (p *prober) udp(ctx context.Context, to netip.AddrPort, packet []byte, say func([]byte) string) (response, string) {
	conn, err := p.dial(ctx, "udp", to.String())
	if err != nil {
		return responseOf(err)
	}
	defer conn.Close() //nolint:errcheck // there is nothing left to lose
	end := time.Now().Add(p.timeout)
	reply := make([]byte, 4<<10)
	for _, until := range []time.Time{time.Now().Add(p.timeout / 3), end} {
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
			until = deadline
		}
		if _, err = conn.Write(packet); err != nil {
			return responseOf(err)
		}
		if err = conn.SetReadDeadline(until); err != nil {
			return responseOf(err)
		}
		n, err := conn.Read(reply)
		if err == nil {
			return answered, say(reply[:n])
		}
		if got, detail := responseOf(err); got != silent {
			return got, detail
		}
	}
	return silent, ""
}

// dial connects, and bounds all that is said on the connection.
func (p *prober) dial(ctx context.Context, network, to string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: p.timeout, Resolver: p.resolver, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(p.timeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	if err := conn.SetDeadline(until); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// responseOf is what the kernel's error says about the other end.
func responseOf(err error) (response, string) {
	for _, e := range []struct {
		errs []error
		got  response
		text string
	}{
		{[]error{syscall.ECONNREFUSED, syscall.ECONNRESET}, refused, "refuses"},
		{[]error{syscall.EPERM, syscall.EACCES}, unreachable, "this task's own kernel forbids it"},
		{[]error{syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT}, unroutable, "no route"},
		{[]error{syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENONET}, unreachable, "unreachable or prohibited"},
		{[]error{os.ErrDeadlineExceeded, context.DeadlineExceeded, syscall.ETIMEDOUT}, silent, ""},
	} {
		if slices.ContainsFunc(e.errs, func(target error) bool { return errors.Is(err, target) }) {
			return e.got, e.text
		}
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return silent, ""
	}
	return broken, fmt.Sprint(cause(err))
}

// cause is an error without the addresses that it stands at, which the table
// names itself.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func uitoa(n uint16) string { return strconv.FormatUint(uint64(n), 10) }
