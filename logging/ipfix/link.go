package ipfix

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	dialPatience  = 10 * time.Second
	writePatience = 10 * time.Second
	lastPatience  = 500 * time.Millisecond // once the exporter shall end
	firstPause    = 250 * time.Millisecond
	maxPause      = 30 * time.Second
	// steady is how long a connection must have lived not to count as another
	// failure when it breaks.
	steady        = 10 * time.Second
	complainEvery = time.Minute
)

// Collector is where flows are sent to.
type Collector struct {
	Network string // "udp" or "tcp"
	Host    string // a name or an address
	Port    uint16
}

// ParseCollector reads "udp://host:port" or "tcp://host:port".
func ParseCollector(s string) (Collector, error) {
	network, rest, ok := strings.Cut(s, "://")
	if !ok || network != "udp" && network != "tcp" {
		return Collector{}, errors.New("it does not begin with udp:// or tcp://")
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || host == "" {
		return Collector{}, errors.New("it has no host and port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Collector{}, errors.New("it has no port from 1 to 65535")
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, "/:@?# %") {
		return Collector{}, errors.New("its host is neither a name nor an address")
	}
	return Collector{Network: network, Host: host, Port: uint16(n)}, nil
}

// String returns what [ParseCollector] reads.
func (c Collector) String() string {
	return c.Network + "://" + net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// link is one connection to a collector, a transport session of RFC 7011.
type link struct {
	conn  net.Conn
	peer  netip.Addr
	since time.Time
	gone  chan struct{} // closed when the other side ended it
}

// dial connects to the collector, to the first of its addresses that answers.
func (x *Exporter) dial(ctx context.Context) (*link, error) {
	addrs, err := x.lookup(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		conn, err := new(net.Dialer).DialContext(ctx, x.c.Collector.Network, netip.AddrPortFrom(a, x.c.Collector.Port).String())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l := &link{conn: conn, peer: a, since: time.Now(), gone: make(chan struct{})}
		go l.listen()
		return l, nil
	}
	return nil, errors.Join(errs...)
}

func (x *Exporter) lookup(ctx context.Context) ([]netip.Addr, error) {
	host := x.c.Collector.Host
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	find := x.c.Lookup
	if find == nil {
		find = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	addrs, err := find(ctx, host)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look %s up: %w", host, err)
	case len(addrs) == 0:
		return nil, fmt.Errorf("%s has no addresses", host)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// listen notices the end of the connection: collectors say nothing, so that
// whatever ends a read is one. By UDP it is what ICMP brought.
func (l *link) listen() {
	defer close(l.gone)
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{l.conn})
}

// close ends the connection and waits for its goroutine.
func (l *link) close() {
	_ = l.conn.Close() // everything was handed to the kernel, or given up
	<-l.gone
}

// ended reports whether the other side ended the connection.
func (l *link) ended() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// write sends one message whole, or fails. It takes a while at most, and next
// to no time once stop has ended.
func (l *link) write(stop context.Context, msg []byte) error {
	if l.ended() {
		return errors.New("the collector ended the connection, or nothing listens there")
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	release := context.AfterFunc(stop, func() { _ = l.conn.SetWriteDeadline(time.Now().Add(lastPatience)) })
	defer release()
	_, err := l.conn.Write(msg)
	return err
}

// connect sees to it that there is a connection that knows the templates. It
// tries until it succeeds or the exporter shall end; meanwhile events wait in
// the queue.
func (x *Exporter) connect() bool {
	for {
		if x.link != nil && time.Now().Before(x.refresh) {
			return true
		}
		if x.link == nil && !x.pause() {
			return false
		}
		if err := x.reach(); err != nil {
			x.failed(err)
			continue
		}
		return true
	}
}

// reach connects, unless the connection there is still leads to the collector,
// and sends the templates.
func (x *Exporter) reach() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.stop), dialPatience)
	defer cancel()
	defer context.AfterFunc(x.stop, func() { time.AfterFunc(lastPatience, cancel) })()
	if x.link != nil {
		// By UDP nobody says when a collector has moved to another address.
		if addrs, err := x.lookup(ctx); err == nil && !slices.Contains(addrs, x.link.peer) {
			x.disconnect()
		}
	}
	if x.link == nil {
		l, err := x.dial(ctx)
		if err != nil {
			return err
		}
		x.link, x.sequence = l, 0
		x.c.Log.Info().Stringer("collector", x.c.Collector).Stringer("address", l.conn.RemoteAddr()).Msg("flows are exported")
	}
	if err := x.announce(); err != nil {
		return err
	}
	x.refresh = time.Now().Add(x.c.TemplateRefresh)
	if x.c.Collector.Network == "tcp" { // templates last as long as the connection
		x.refresh = time.Now().AddDate(100, 0, 0)
	}
	return nil
}

// failed notes that the collector could not be reached or written to.
func (x *Exporter) failed(err error) {
	if x.link != nil && time.Since(x.link.since) >= steady {
		x.failures = 0 // it worked, and may work again at once
	} else {
		x.failures++
	}
	x.disconnect()
	if now := time.Now(); now.After(x.complain) {
		x.complain = now.Add(complainEvery)
		x.c.Log.Warn().Err(err).Stringer("collector", x.c.Collector).Uint64("dropped", x.Dropped()).
			Msg("flows cannot be exported; it is tried again")
	}
}

// pause waits before another attempt, the longer the more have failed. It
// reports false if the exporter shall end first.
func (x *Exporter) pause() bool {
	if x.failures == 0 {
		return true
	}
	if x.stop.Err() != nil {
		return false
	}
	timer := time.NewTimer(min(firstPause<<min(x.failures-1, 10), maxPause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.stop.Done():
		return false
	}
}

func (x *Exporter) disconnect() {
	if x.link == nil {
		return
	}
	x.link.close()
	x.link = nil
}
